"""Quotes: verbatim parts of the text, the right ones first."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from llmbackend.answers.fitting import fitting
from llmbackend.inference.static_vectors import StaticEmbedder
from llmbackend.text.sentences import sentences

EMBEDDER = StaticEmbedder()


def _cut(text: str) -> list[str]:
    return [text[start:end] for start, end in sentences(text)]


CUTS = {
    "quotation marks and brackets": (
        'He said "no." She left. “Why?” she asked (twice.) The rest (see no. 5.) goes on.',
        ['He said "no."', "She left.", "“Why?” she asked (twice.)", "The rest (see no. 5.) goes on."],
    ),
    "full stops": ("One. Two! Three?", ["One.", "Two!", "Three?"]),
    "numbers": ("It costs 3.50 euros. Version 2.1 is out.", ["It costs 3.50 euros.", "Version 2.1 is out."]),
    "ordinals": (
        "Am 12. Mai ziehen sie um. Gezahlt wird am 27. jedes Monats. Es sind 30. Anfragen gehen an Ann.",
        [
            "Am 12. Mai ziehen sie um.",
            "Gezahlt wird am 27. jedes Monats.",
            "Es sind 30.",
            "Anfragen gehen an Ann.",
        ],
    ),
    "abbreviations": (
        "Call Ann (ext. 4417). See Art. 5 bzw. Nr.\n7 of vol. two. It is no. The sum is ca. 3 kg max. Ann said so.",
        [
            "Call Ann (ext. 4417).",
            "See Art. 5 bzw. Nr.\n7 of vol. two.",
            "It is no.",
            "The sum is ca. 3 kg max.",
            "Ann said so.",
        ],
    ),
    "paragraphs that end so": ("It costs ca.\n\n5 euros", ["It costs ca.", "5 euros"]),
    "wrapped": ("The router has\na red button\non its back.", ["The router has\na red button\non its back."]),
    "paragraphs": ("A heading\n\nSome text", ["A heading", "Some text"]),
    "list": ("Steps:\n- press it\n- wait\n  a while", ["Steps:", "- press it", "- wait\n  a while"]),
    "numbered": ("Steps:\n1. Press\n2) Wait", ["Steps:", "1. Press", "2) Wait"]),
    "table": ("| a | b |\n|---|---|\n| 1 | 2 |", ["| a | b |", "|---|---|", "| 1 | 2 |"]),
    "a row's sentences": (
        "See:\n| No. | Why |\n| 1. | It is. So it is. |",
        ["See:", "| No. | Why |", "| 1. | It is. So it is. |"],
    ),
    "headings": ("Intro\n# Title\ntext", ["Intro", "# Title", "text"]),
    "headings in prose": (
        "It ends.\n## 2. Vacation\nEvery one\nhas days.\r\n### No. 3\r\nTwo weeks.\n#\n# A\n# B",
        ["It ends.", "## 2. Vacation", "Every one\nhas days.", "### No. 3", "Two weeks.", "#", "# A", "# B"],
    ),
    "underlined": (
        "It ends.\n\n2. Vacation\n-----------\nEvery one.\n\nTravel\n=====\r\nBy rail.",
        ["It ends.", "2. Vacation", "-----------", "Every one.", "Travel", "=====", "By rail."],
    ),
    "no headings": ("It is\n#42-----\nof --- them", ["It is", "#42-----\nof --- them"]),
    "CRLF": ("One two.\r\n\r\nThree four.", ["One two.", "Three four."]),
    "Japanese": ("これはペンです。あれは本です。", ["これはペンです。", "あれは本です。"]),
    "nothing": (" \n\n ", []),
    "empty": ("", []),
}


@pytest.mark.parametrize(("text", "expected"), CUTS.values(), ids=list(CUTS))
def test_a_text_is_cut_into_sentences(text: str, expected: list[str]) -> None:
    assert _cut(text) == expected


TEXT = """# Router manual

The router has two antennas and four sockets on its
back, and a small red button next to them.

To reset the router to its factory settings, hold the red button for
ten seconds until all lights blink. Your own settings are lost then!

* The warranty covers defects of material for 24 months.
* Return shipping is paid by the manufacturer within Europe.

| light | meaning |
| red   | no connection |
"""


def test_sentences_are_in_order_do_not_overlap_and_leave_out_nothing_but_space() -> None:
    spans = sentences(TEXT)
    assert spans == sorted(spans)
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    assert "".join("".join(_cut(TEXT)).split()) == "".join(TEXT.split())


def test_the_sentence_that_fits_a_question_comes_first_and_is_verbatim() -> None:
    texts = ["Vacation is 30 days a year. It is taken in agreement with the team.", TEXT]
    quotes = asyncio.run(fitting(EMBEDDER, "How long do I hold the button to reset the router?", texts))
    best = quotes[0]
    assert texts[best.text][best.start : best.end] == (
        "To reset the router to its factory settings, hold the red button for\n"
        "ten seconds until all lights blink."
    )
    assert [quote.score for quote in quotes] == sorted((quote.score for quote in quotes), reverse=True)
    assert {(quote.text, quote.start, quote.end) for quote in quotes} == {
        (number, *span) for number, text in enumerate(texts) for span in sentences(text)
    }


def test_every_text_has_a_quote_even_without_words() -> None:
    quotes = asyncio.run(fitting(EMBEDDER, "What is it?", ["A plain sentence is here.", " ", "!?"]))
    assert {quote.text for quote in quotes} == {0, 1, 2}


def test_a_heading_loses_to_the_sentence_that_says_something() -> None:
    text = "# Resetting the router\n\nThe router is reset by holding its button for ten seconds."
    best = asyncio.run(fitting(EMBEDDER, "How to reset the router?", [text]))[0]
    assert text[best.start : best.end].startswith("The router is reset")
