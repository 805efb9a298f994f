"""Filters that would have the engine look for as long as it takes: they are refused before it does."""

from __future__ import annotations

from typing import Any

import pytest

from llmbackend import InvalidRequest, LLMBackendClient
from llmbackend.engines.filters import CHARACTERS, LISTED, MAX_LEVELS, PARTS, TERMS


def _nested(levels: int) -> dict[str, Any]:
    filters: dict[str, Any] = {"number": 1}
    for _ in range(levels):
        filters = {"not": filters}
    return filters


@pytest.mark.parametrize(
    ("filters", "told"),
    [
        ({"or": [{"number": number} for number in range(1000)]}, f"{TERMS}"),
        ({f"field{number}": number for number in range(TERMS + 1)}, f"{TERMS}"),
        ({"number": list(range(LISTED + 1))}, f"{LISTED}"),
        ({"and": [{"or": [{}] * PARTS}]}, f"{TERMS}"),
        ({"name": "a" * (CHARACTERS + 1)}, "characters"),
        (_nested(2 * MAX_LEVELS), f"{MAX_LEVELS} levels"),
    ],
    ids=["alternatives", "fields", "values", "parts", "characters", "levels"],
)
def test_filters_that_ask_too_much_are_refused_with_the_limit(
    client: LLMBackendClient, collection: str, filters: dict[str, Any], told: str
) -> None:
    client.rag_ingest("A text.", collection)
    for call in (client.rag_search, client.rag_query):
        with pytest.raises(InvalidRequest, match="filters") as caught:
            call("text?", collection, filters=filters)
        assert told.replace(",", "") in caught.value.message.replace(",", "")


def test_the_most_that_filters_may_ask_is_answered(client: LLMBackendClient, collection: str) -> None:
    client.rag_ingest(
        [
            {"id": f"d{number}", "text": f"Text {number}.", "metadata": {"number": number}}
            for number in range(40)
        ],
        collection,
    )
    for filters, found in (
        ({"or": [{"number": number} for number in range(TERMS)]}, TERMS),
        ({"number": list(range(LISTED))}, 40),
    ):
        assert len(client.rag_search("text", collection, top_k=40, min_score=-1, filters=filters)) == found
