"""Document analysis, on both transports: with the embedded stack, in the document's own sentences."""

from __future__ import annotations

import jsonschema_rs
import pytest

from llmbackend import InvalidRequest, LLMBackendClient
from llmbackend.schemas import AnalyzeRequest

COMPLAINT = "The train was three hours late. Nobody told us why. I want my money back."


def test_an_analysis_has_its_keys_and_ranges(client: LLMBackendClient) -> None:
    analysis = client.analyze_document(COMPLAINT)
    assert set(analysis) == {
        "sentiment",
        "sentiment_score",
        "key_points",
        "positions",
        "summary",
        "coverage",
        "facts",
        "notes",
        "model",
        "prompts",
    }
    assert analysis.sentiment in ("positive", "negative", "neutral", "mixed")
    assert -1 <= analysis.sentiment_score <= 1
    assert analysis.key_points
    assert all(point and isinstance(point, str) for point in analysis.key_points)
    assert analysis.summary
    assert analysis.model == client.health().chat


@pytest.mark.parametrize(
    ("text", "sentiment"),
    [
        (COMPLAINT, "negative"),
        ("I am disappointed. The router came four weeks late, and the cable was missing.", "negative"),
        ("What a wonderful day! The guide was funny, and the children loved it.", "positive"),
        ("The office opens at nine. Parking is behind the building. The entrance is on the left.", "neutral"),
        ("Great food and great wine. But we waited too long, and the bill was wrong.", "mixed"),
    ],
)
def test_the_sentiment_is_that_of_the_text(client: LLMBackendClient, text: str, sentiment: str) -> None:
    analysis = client.analyze_document(text)
    assert analysis.sentiment == sentiment
    if sentiment in ("positive", "negative"):
        assert (analysis.sentiment_score > 0) == (sentiment == "positive")


def test_a_long_text_is_analysed_as_well(client: LLMBackendClient) -> None:
    text = " ".join(f"In chapter {number} the hero walks to town {number}." for number in range(300))
    assert 1 <= len(client.analyze_document(text).key_points) <= 7


MANUAL = """# Router manual

The router has two antennas and four sockets on its
back, and a small red button next to them.

| light | meaning |
| red   | no connection |

To reset the router to its factory settings, hold the red button for
ten seconds until all lights blink. Your own settings are lost then!

* The warranty covers defects of material for 24 months.
* Return shipping is paid by the manufacturer within Europe.

Page 3 of 7

All rights reserved by the manufacturer of this router, 2026.
"""


def test_what_is_said_stands_in_the_text(client: LLMBackendClient) -> None:
    text = MANUAL + "".join(
        f"\n\n## Part {n}\n\nThe part with number {n} costs {n} euros and fits." for n in range(400)
    )
    analysis = client.analyze_document(text)
    flat = " ".join(text.split())
    for point, place in zip(analysis.key_points, analysis.positions, strict=True):
        assert " ".join(text[place.start : place.end].split()) == point
        assert not point.startswith(("#", "|", "*", "Page", "All rights"))
    for sentence in analysis.summary.replace("! ", ". ").split(". "):
        assert sentence.rstrip(".") in flat
    assert analysis.coverage == {"parts": 9, "read": 9, "words": len(text.split())}
    assert "text's own sentences" in analysis.notes[0]
    assert "9 of 9 parts" in analysis._repr_html_()


def test_the_sentiment_of_another_language_is_not_guessed(client: LLMBackendClient) -> None:
    analysis = client.analyze_document(
        "Der Zug war drei Stunden zu spät, und die Leute waren sehr verärgert. " * 2
    )
    assert (analysis.sentiment, analysis.sentiment_score) == ("neutral", 0)
    assert any("only English" in note for note in analysis.notes)
    assert "verärgert" in analysis.summary


@pytest.mark.parametrize("words", ["ประเทศไทยมีภาษาไทย ", "E-4711 ", "这是一个很长的句子"])
def test_a_text_without_sentences_is_analysed_as_well(client: LLMBackendClient, words: str) -> None:
    analysis = client.analyze_document(words * 200)
    assert (analysis.sentiment, analysis.summary) == ("neutral", "")


def test_a_contract_names_its_parties(client: LLMBackendClient) -> None:
    text = (
        'This Agreement is made on May 2, 2024 between Acme Pumps Ltd., a company in Leeds (the "Supplier"), and '
        'Bolt GmbH, a company in Bonn (the "Customer"). The Supplier shall deliver ten pumps by June 1, 2024. '
        "The Customer shall pay $5,000 within thirty days of delivery."
    )
    facts = client.analyze_document(text).facts
    assert [party.text for party in facts.parties] == ["Acme Pumps Ltd.", "Bolt GmbH"]
    assert [date.text for date in facts.dates] == ["May 2, 2024", "June 1, 2024"]
    assert [amount.text for amount in facts.amounts] == ["$5,000"]
    assert len(facts.obligations) == 2
    assert client.analyze_document(COMPLAINT).facts is None


def test_an_empty_text_is_refused(client: LLMBackendClient) -> None:
    with pytest.raises(InvalidRequest, match="text") as caught:
        client.analyze_document("")
    assert caught.value.details["errors"][0]["loc"] == ["text"]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("text", [" \n\t ", "\u2003\u0085\ufeff"])
def test_a_blank_text_is_refused(client: LLMBackendClient, text: str) -> None:
    """And the schema says the same of a text: the next line is white space to Rust alone, and the byte order mark to
    ECMAScript, to which JSON Schema refers."""
    with pytest.raises(InvalidRequest, match="text"):
        client.analyze_document(text)
    told = AnalyzeRequest.model_json_schema()["properties"]["text"]
    assert not jsonschema_rs.is_valid(told, text)


def test_a_heading_is_no_part_of_the_sentence_right_below_it(client: LLMBackendClient) -> None:
    told = client.analyze_document(
        "# Handbook\n## 2. Notice period\nDuring probation the notice period is two weeks. Afterwards it is three months.\n"
        "## Appendix B.\nTrips are booked by the travel desk of the office.\n\n3. Sick leave\n----\n"
        "Whoever is ill tells the team before nine. A note is needed from the third day on.\n"
    )
    said = " ".join([*told.key_points, told.summary])
    assert "During probation" in said
    assert not any(
        title in said for title in ("Handbook", "Notice period During", "Appendix", "Sick leave", "--")
    )
