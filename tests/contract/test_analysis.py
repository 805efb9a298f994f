"""Document analysis, on both transports. What the small embedded model writes is not tested, only its shape."""

from __future__ import annotations

import pytest

from llmbackend import InvalidRequest, LLMBackendClient

COMPLAINT = "The train was three hours late. Nobody told us why. I want my money back."


def test_an_analysis_has_its_keys_and_ranges(client: LLMBackendClient) -> None:
    analysis = client.analyze_document(COMPLAINT)
    assert set(analysis) == {"sentiment", "sentiment_score", "key_points", "summary", "model"}
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


def test_an_empty_text_is_refused(client: LLMBackendClient) -> None:
    with pytest.raises(InvalidRequest, match="text") as caught:
        client.analyze_document("")
    assert caught.value.details["errors"][0]["loc"] == ["text"]


@pytest.mark.timeout(20)
def test_a_blank_text_is_refused(client: LLMBackendClient) -> None:
    with pytest.raises(InvalidRequest, match="text"):
        client.analyze_document(" \n\t ")
