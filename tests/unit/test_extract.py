"""What of a document is worth reading, and what a contract names."""

from __future__ import annotations

import numpy as np
import pytest

from llmbackend import slices
from llmbackend.analysis import contracts, extract
from llmbackend.analysis.check import Checked
from llmbackend.analysis.sentiment import feeling, is_english, lexicon, movement, ratings
from llmbackend.chunks.windows import PART_CHARACTERS

# After an agreement of 2002 on EDGAR (public), shortened, with other parties.
CONTRACT = """                                                      Exhibit 10.11

                      DISTRIBUTORSHIP AGREEMENT

THIS AGREEMENT is entered into as of the 1st day of August 2002 by and
between NORTHFIELD POLYMERS, INC., a North Carolina corporation (hereinafter
referred to as "Northfield"), and Plain Soil Technologies, Inc., a Nevada
corporation (hereinafter referred to as the "Distributor").

WHEREAS, Northfield makes polymer products (the "Products");

1. Appointment. Northfield hereby appoints Distributor as its sole and
exclusive distributor of the Products in the Territory.

2. Purchases. Distributor shall purchase at least $250,000 of Products in the
first year. Distributor shall pay each invoice within thirty (30) days.

                                  -1-

3. Term. The term of this Agreement ends on July 31, 2005, unless it is
terminated sooner. The price of the Products is [***] a pound and no more.

4. Counterparts. This Agreement may be executed in counterparts, each of
which is an original.

Light     Meaning        Action
red       no signal      Wait for it to come back.

IN WITNESS WHEREOF, the parties have executed this Agreement on that date.

By: /s/ John Smith                     By: /s/ Carl Ranno was here today.
Name: John Smith
"""


def _worth(text: str) -> list[str]:
    return [sentence.text for sentence in extract.worth_reading(extract.split(text), text)]


def test_sentences_of_a_contract_are_whole_and_worth_reading() -> None:
    assert _worth(CONTRACT)[1:] == [
        "Northfield hereby appoints Distributor as its sole and exclusive distributor of the Products in the Territory.",
        "Distributor shall purchase at least $250,000 of Products in the first year.",
        "Distributor shall pay each invoice within thirty (30) days.",
        "The term of this Agreement ends on July 31, 2005, unless it is terminated sooner.",
    ]
    assert _worth(CONTRACT)[0].startswith(
        "THIS AGREEMENT is entered into as of the 1st day of August 2002 by and between"
    )


@pytest.mark.parametrize(
    "text", [CONTRACT, "One. Two!", "  - a list\n  - of two", "これはペンです。あれは本です。", ""]
)
def test_each_sentence_stands_where_it_says(text: str) -> None:
    for sentence in extract.split(text):
        assert " ".join(text[sentence.start : sentence.end].split()) == sentence.text


@pytest.mark.parametrize(
    "line",
    [
        "Basics of the package management system 7.1. Which programs are there to manage packages?",
        "Copyright 2020 by the authors of this very long document.",
        "The fee is ________ dollars for each of the copies made.",
        "Title: President of the company that signs here below.",
        "if (x == 1) { return y[2] + z[3]; } else { i++; } // done.",
        "THE WORK IS PROVIDED AS IT IS WITHOUT ANY WARRANTY AT ALL.",
        "and this is the rest of a sentence that began elsewhere.",
        "This sentence never comes to an end because it is a heading",
    ],
)
def test_what_says_nothing_is_left_out(line: str) -> None:
    plain = [f"The {number} is a plain sentence about a thing." for number in ("first", "second", "third")]
    assert line not in _worth("\n\n".join([plain[0], line, *plain[1:]] + ["A line"] * 20))


def test_a_repeated_line_is_a_page_header() -> None:
    text = "\n\n".join(
        f"The header of this page says this.\n\nChapter {n} tells of the number {n} alone." for n in range(9)
    )
    assert _worth(text) == [f"Chapter {n} tells of the number {n} alone." for n in range(9)]


def test_an_abbreviation_does_not_end_a_sentence() -> None:
    text = "The rule of Art. 5 applies to Dr. Smith and to no one else. It is short."
    assert next(sentence.text for sentence in extract.split(text)).endswith("no one else.")


def test_each_part_of_a_document_has_a_say() -> None:
    topics = ["rivers", "engines", "taxes", "music", "bread", "stars", "law"]
    text = " ".join(
        f"The {topic} of number {n} are told here at length." for topic in topics for n in range(20)
    )
    found = extract.worth_reading(extract.split(text), text)
    vectors = np.eye(len(topics))[[next(i for i, t in enumerate(topics) if t in s.text) for s in found]]
    picked = extract.pick(found, vectors, len(text))
    assert {s.text.split()[1] for s in picked.key_points} == set(topics)
    assert picked.key_points == sorted(picked.key_points)
    assert 1 <= len(picked.summary) <= extract.SUMMARY_SENTENCES
    assert extract.pick([], vectors[:0], 0) == ([], [])


def test_a_contract_names_its_parties_dates_amounts_and_duties() -> None:
    facts = contracts.facts(CONTRACT, extract.worth_reading(extract.split(CONTRACT), CONTRACT))
    assert facts is not None
    assert [party.text for party in facts.parties] == [
        "NORTHFIELD POLYMERS, INC.",
        "Plain Soil Technologies, Inc.",
    ]
    assert [date.text for date in facts.dates] == ["1st day of August 2002", "July 31, 2005"]
    assert [amount.text for amount in facts.amounts] == ["$250,000"]
    assert [duty.text for duty in facts.obligations] == [
        "Distributor shall purchase at least $250,000 of Products in the first year.",
        "Distributor shall pay each invoice within thirty (30) days.",
    ]
    for passage in (*facts.parties, *facts.dates, *facts.amounts, *facts.obligations):
        assert " ".join(CONTRACT[passage.start : passage.end].split()) == passage.text


@pytest.mark.parametrize(
    "text",
    [
        "The contract between the towns was signed in May 2001.",
        "The train was late. Nobody told us why.",
        'The agreement between the lines (the "Lines") is drawn. It has a price of $5.',
    ],
)
def test_what_is_no_contract_has_no_facts(text: str) -> None:
    assert contracts.facts(text, extract.split(text)) is None


def test_a_claim_is_held_against_the_text() -> None:
    checked = Checked(
        "Sales rose to 1,000.50 euros in three weeks; the board said “we are\n pleased” on 07 May."
    )
    assert checked.missing("Sales were 1.000,50 within 3 weeks, on 7 May: “we are pleased”.") == []
    assert checked.missing("Sales were 2,000 and the board was “very glad”.") == ["2,000", "very glad"]


# Sentiment


@pytest.mark.parametrize(
    ("sentence", "sign"),
    [
        ("The loss was 5 million compared to a profit of 3 million a year ago.", -1),
        ("Sales decreased by 10 percent in the second quarter.", -1),
        ("The operating profit rose to 12 million from 9 million.", 1),
        ("Costs rose sharply, and so did the debt.", -1),
        ("Not bad at all.", 1),
        ("It could have been better.", -1),
        ("I have no complaints.", 1),
        ("The product is not good.", -1),
        ("The meeting is on Monday in room twelve.", 0),
        ("This Agreement shall be governed by the laws of Delaware.", 0),
    ],
)
def test_words_negations_and_comparisons_are_understood(sentence: str, sign: int) -> None:
    rated = float(ratings([sentence], None).scores[0])
    assert (rated > 0.3) - (rated < -0.3) == sign


def test_what_falls_may_be_welcome() -> None:
    assert [movement(said) for said in ("Profit fell.", "The deficit fell.", "Debt grew.", "It is so.")] == [
        -1,
        1,
        -1,
        0,
    ]
    assert lexicon("word " * 100_000) == 0  # no longer than its beginning takes


@pytest.mark.parametrize(
    ("text", "english"),
    [
        ("The train was late and nobody told us.", True),
        ("Great!", True),
        ("Der Zug war zu spät, und die Leute sind sehr verärgert.", False),
        ("Le train est en retard et je ne suis pas content.", False),
        ("El tren llega tarde y los clientes no están contentos.", False),
        ("これはペンです。", False),
        ("Поезд опоздал.", False),
    ],
)
def test_only_english_is_judged(text: str, english: bool) -> None:
    assert is_english(text) == english


async def _felt(sentences: list[str]) -> tuple[str, float]:
    return await feeling(sentences, None)


def test_a_text_is_what_its_sentences_are() -> None:
    import asyncio

    good, bad, plain = (
        "It is wonderful and great.",
        "It is awful and terrible.",
        "The office is in May Street.",
    )
    assert asyncio.run(_felt([good, good]))[0] == "positive"
    assert asyncio.run(_felt([bad, bad, good, bad, bad]))[0] == "negative"
    assert asyncio.run(_felt([good, bad]))[0] == "mixed"
    assert asyncio.run(_felt([plain] * 9 + [bad]))[0] == "neutral"
    assert asyncio.run(_felt([])) == ("neutral", 0.0)


def test_what_a_heading_is_above() -> None:
    text = (
        "# Lease\n\n## Notice period\n\nThree months. It is written.\n\nDeposit\n-------\nThe tenant pays 500.\n\n"
        "Governing law\n\nEnglish law.\n\nJane Smith"
    )
    found = extract.under_headings(text, extract.split(text))
    assert [(heading, one.text) for one, heading in found] == [
        ("Notice period", "Three months."),
        ("Notice period", "It is written."),
        ("Deposit", "The tenant pays 500."),
        ("Governing law", "English law."),
        ("Governing law", "Jane Smith"),
    ]
    lines = "Version 2\n\nBuilt: May\n\nA whole sentence stands here."
    assert [heading for _, heading in extract.under_headings(lines, extract.split(lines))] == ["", "", ""]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "one",
        " two words\n",
        "word " * 20_000,
        "x" * 100_000,
        "x" * 40_000 + " y\u3000" * 20_000,
        "\n\n a \n" * 20_000,
    ],
    ids=["none", "one", "two", "many", "one-long", "of-both", "lines"],
)
def test_words_are_counted_in_parts_as_in_one(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = list[None]()
    monkeypatch.setattr(slices, "give_way", lambda: given.append(None))
    assert extract.word_count(text) == len(text.split())
    assert len(given) > len(text) // PART_CHARACTERS
