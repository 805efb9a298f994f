"""Reranking where no reranker is set, which is how tests run here; see tests/upstream for one that is."""

from __future__ import annotations

import re
from typing import Any

import pytest

from llmbackend import BackendError, InvalidRequest, LLMBackendClient

TEXTS = ["The ferry leaves at nine.", "The harbour was dredged in 1911."]


def test_without_a_reranker_the_error_says_what_to_set(client: LLMBackendClient) -> None:
    with pytest.raises(BackendError, match="set TEI_RERANK_URL, or RERANK_URL") as caught:
        client.rerank("When was the harbour dredged?", TEXTS)
    assert caught.value.details == {"backend": "rerank"}


@pytest.mark.parametrize(
    ("query", "documents", "options", "place"),
    [
        ("", TEXTS, {}, "query"),
        (None, TEXTS, {}, "query"),
        ("harbour", [], {}, "documents"),
        ("harbour", "a bare text", {}, "documents"),
        ("harbour", ["a", ""], {}, "documents[1]"),
        ("harbour", ["a", {"text": "b"}], {}, "documents[1]"),
        ("harbour", TEXTS, {"top_n": 0}, "top_n"),
        ("harbour", TEXTS, {"top_n": True}, "top_n"),
    ],
)
def test_what_cannot_be_ranked_is_refused(
    client: LLMBackendClient, query: Any, documents: Any, options: dict[str, Any], place: str
) -> None:
    with pytest.raises(InvalidRequest, match=f"rerank: {re.escape(place)}: "):
        client.rerank(query, documents, **options)


def test_an_unknown_field_is_refused(client: LLMBackendClient) -> None:
    with pytest.raises(InvalidRequest, match="rank_fields"):
        client._call("rerank", query="harbour", documents=TEXTS, rank_fields=["text"])
