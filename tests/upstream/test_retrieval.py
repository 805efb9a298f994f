"""Passages in the order of a reranker behind us; collections that another model embedded."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmbackend import BackendError, Conflict, LLMBackendClient, NotFound
from tests.upstream.conftest import Connect, fails
from tests.upstream.fake import KEY, Upstream

# The fake prefers the longest.
TEXTS = {
    "harbour": "The harbour was dredged in 1911.",
    "market": "The fish market opens at five in the morning, except on Sundays, and in winter at six.",
    "ferry": "The ferry leaves at nine from the harbour.",
}
BY_LENGTH = ["market", "ferry", "harbour"]
QUESTION = "When was the harbour dredged?"
DOCUMENTS = [{"id": name, "text": text} for name, text in TEXTS.items()]


@pytest.fixture
def town(connect: Connect, upstream: Upstream) -> LLMBackendClient:
    client = connect(rerank_url=f"{upstream.url}/v1", rerank_model="ok")
    client.rag_ingest(DOCUMENTS, "town")
    return client


def test_the_reranker_orders_the_hits(town: LLMBackendClient, upstream: Upstream) -> None:
    assert town.rag_search(QUESTION, "town")[0].document_id == "harbour"
    assert upstream.seen == []
    hits = town.rag_search(QUESTION, "town", rerank=True)
    assert [hit.document_id for hit in hits] == BY_LENGTH
    assert [hit.score for hit in hits] == [len(TEXTS[name]) / 1000 for name in BY_LENGTH]
    hits = town.rag_search(QUESTION, "town", rerank="another", top_k=1)
    assert [hit.document_id for hit in hits] == BY_LENGTH[:1]
    assert [len(body["documents"]) for body in upstream.seen] == [3, 3], "it reads more than are wanted"
    assert [body["model"] for body in upstream.seen] == ["ok", "another"]


def test_min_score_is_on_the_rerankers_scale(town: LLMBackendClient) -> None:
    hits = town.rag_search(QUESTION, "town", rerank=True, min_score=len(TEXTS["ferry"]) / 1000)
    assert [hit.document_id for hit in hits] == ["market", "ferry"]


def test_copies_are_not_reranked(town: LLMBackendClient, upstream: Upstream) -> None:
    town.rag_ingest([{"id": f"copy {n}", "text": TEXTS["ferry"]} for n in range(5)], "town")
    hits = town.rag_search(QUESTION, "town", rerank=True)
    assert [hit.document_id for hit in hits if not hit.duplicates] == ["market", "harbour"]
    assert len(upstream.seen[-1]["documents"]) == 3


def test_an_answer_from_reranked_passages_tells_their_scores(town: LLMBackendClient) -> None:
    answer = town.rag_query(QUESTION, "town", rerank=True, top_k=2, explain=True)
    assert [source.document_id for source in answer.sources] == BY_LENGTH[:2]
    assert answer.explanation is not None
    last = answer.explanation.candidates[-1]
    assert (last.document_id, last.dropped, last.number) == ("harbour", "top_k", None)
    assert last.rerank == last.score == len(TEXTS["harbour"]) / 1000
    assert last.fused > last.rerank
    assert last.dense > 0
    assert last.sparse > 0
    assert list(answer.explanation.ms) == ["embed", "search", "rerank", "quotes", "answer"]


def test_a_reranker_that_fails_is_a_typed_error(connect: Connect, upstream: Upstream) -> None:
    client = connect(tei_rerank_url=f"{upstream.url}/500")
    client.rag_ingest(DOCUMENTS, "town")
    with fails(BackendError):
        client.rag_search(QUESTION, "town", rerank=True)
    client = connect(tei_rerank_url=f"{upstream.url}/ok")
    client.rag_ingest(DOCUMENTS, "town")
    assert client.rag_search(QUESTION, "town", rerank="fake")[0].document_id == "market"
    with pytest.raises(NotFound, match="other"):
        client.rag_search(QUESTION, "town", rerank="other")


def test_collections_of_different_models_are_not_searched_together(
    connect: Connect, upstream: Upstream, tmp_path: Path
) -> None:
    tei = {"tei_url": f"{upstream.url}/ok", "tei_api_key": KEY, "data_dir": tmp_path / "shared"}
    with connect(**tei) as client:
        client.rag_ingest(DOCUMENTS, "by-tei")
    client = connect(data_dir=tmp_path / "shared")
    client.rag_ingest(DOCUMENTS, "by-ours")
    with pytest.raises(Conflict, match="by-tei") as caught:
        client.rag_search(QUESTION, ["by-ours", "by-tei"])
    assert "'fake'" in str(caught.value), "as the server calls it"
    assert "wordllama" in str(caught.value)


def test_an_evaluation_has_a_row_for_the_reranker(town: LLMBackendClient) -> None:
    result = town.evaluate("town", [{"question": QUESTION, "gold": "harbour"}])
    assert [one.mode for one in result.scores] == ["dense", "sparse", "hybrid", "hybrid+rerank"]
    assert [one.ndcg for one in result.scores] == [1, 1, 1, 0.5], "the fake prefers the longest"
    assert result.questions[0].ranks["hybrid+rerank"] == 3
    assert result.questions[0].first["hybrid+rerank"] == "market"
