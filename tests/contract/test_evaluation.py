"""How well a collection's search does, measured on questions with the documents that answer them."""

from __future__ import annotations

import math
from typing import Any

import pytest

from llm_client import Record
from llmbackend import Evaluation, InvalidRequest, LLMBackendClient, NotFound

TEXTS = {
    "harbour": "The harbour of Aldersea was dredged in 1911.",
    "market": "The fish market opens at five in the morning.",
    "ferry": "The ferry to the island takes forty minutes.",
    "library": "The library lends books for four weeks.",
}
QUESTIONS: list[dict[str, Any]] = [
    {"question": "When was the harbour dredged?", "gold": "harbour"},
    {"question": "When does the fish market open?", "gold": ["market"]},
    {"question": "How long does the ferry take to the island?", "gold": {"ferry": 2, "harbour": 1}},
]
MODES = ["dense", "sparse", "hybrid"]


@pytest.fixture
def town(client: LLMBackendClient, collection: str) -> str:
    client.rag_ingest([{"id": name, "text": text} for name, text in TEXTS.items()], collection)
    return collection


def test_each_mode_is_scored(client: LLMBackendClient, town: str) -> None:
    result = client.evaluate(town, QUESTIONS[:2])
    assert isinstance(result, Evaluation)
    assert (result.collection, result.k) == (town, 10)
    assert [one.mode for one in result.scores] == MODES
    assert all((one.recall, one.mrr, one.ndcg) == (1, 1, 1) for one in result.scores)
    assert [one.question for one in result.questions] == [one["question"] for one in QUESTIONS[:2]]
    assert [one.gold for one in result.questions] == [["harbour"], ["market"]]
    assert all(one.ranks == dict.fromkeys(MODES, 1) for one in result.questions)
    assert result.questions[0].first == dict.fromkeys(MODES, "harbour")


def test_the_measures_are_the_textbooks(client: LLMBackendClient, town: str) -> None:
    question = "When was the harbour dredged?"
    ranked = [hit.document_id for hit in client.rag_search(question, town, mode="dense")]
    assert len(ranked) == 4
    for rank, name in enumerate(ranked, start=1):
        result = client.evaluate(town, [{"question": question, "gold": name}], k=3)
        [dense] = [one for one in result.scores if one.mode == "dense"]
        within = rank <= 3
        assert dense.recall == within
        assert dense.mrr == pytest.approx(1 / rank if within else 0)
        assert dense.ndcg == pytest.approx(1 / math.log2(rank + 1) if within else 0)
        assert result.questions[0].ranks.dense == (rank if within else None)
        assert result.questions[0].ndcg.dense == dense.ndcg


def test_relevance_may_be_graded(client: LLMBackendClient, town: str) -> None:
    question = QUESTIONS[2]["question"]
    ranked = [hit.document_id for hit in client.rag_search(question, town, mode="dense")]
    right = {name: 4 - rank for rank, name in enumerate(ranked)}
    best = client.evaluate(town, [{"question": question, "gold": right}]).questions[0]
    worse = client.evaluate(
        town, [{"question": question, "gold": dict(zip(ranked, [1, 2, 3, 4], strict=True))}]
    )
    assert best.ndcg.dense == 1
    assert 0 < worse.questions[0].ndcg.dense < 1


def test_a_copy_stands_where_its_original_stands(client: LLMBackendClient, town: str) -> None:
    client.rag_ingest({"id": "copy", "text": TEXTS["harbour"]}, town)
    for gold in ("harbour", "copy"):
        result = client.evaluate(town, [{"question": "When was the harbour dredged?", "gold": gold}])
        assert all(one.recall == 1 and one.ndcg > 0.6 for one in result.scores)


def test_a_question_that_finds_nothing_counts_as_nothing(client: LLMBackendClient, town: str) -> None:
    result = client.evaluate(town, [{"question": "qwertz", "gold": "ferry"}])
    [sparse] = [one for one in result.scores if one.mode == "sparse"]
    assert (sparse.recall, sparse.mrr, sparse.ndcg) == (0, 0, 0)
    assert result.questions[0].first.sparse is None


def test_the_worst_questions_are_told(client: LLMBackendClient, town: str) -> None:
    hard = {"question": "When was the harbour dredged?", "gold": "library"}
    result = client.evaluate(town, [*QUESTIONS[:2], hard])
    assert [one.question for one in result.worst(1)] == [hard["question"]]
    assert result.worst(1, "dense")[0].gold == ["library"]
    assert len(result.worst()) == 3


def test_progress_counts_searches(client: LLMBackendClient, town: str) -> None:
    steps: list[Record] = []
    result = client.evaluate(town, QUESTIONS, progress=steps.append)
    assert isinstance(result, Evaluation)
    assert len(result.questions) == 3
    assert [step.done for step in steps] == list(range(10))
    assert {step.total for step in steps} == {9}
    assert list(dict.fromkeys(step.stage for step in steps)) == MODES


def test_gold_that_is_not_there_is_named(client: LLMBackendClient, town: str) -> None:
    questions = [*QUESTIONS, {"question": "x", "gold": ["harbor", "market"]}]
    with pytest.raises(InvalidRequest, match="harbor") as caught:
        client.evaluate(town, questions)
    assert caught.value.details == {"collection": town, "missing": ["harbor"]}


@pytest.mark.parametrize(
    "questions",
    [
        [],
        ["When?"],
        [{"question": "When?"}],
        [{"question": "", "gold": "ferry"}],
        [{"question": "When?", "gold": []}],
        [{"question": "When?", "gold": {}}],
        [{"question": "When?", "gold": {"ferry": -1}}],
        [{"question": "When?", "gold": "ferry", "answer": "?"}],
    ],
    ids=str,
)
def test_questions_that_make_no_sense_are_refused(
    client: LLMBackendClient, town: str, questions: Any
) -> None:
    with pytest.raises(InvalidRequest, match="question"):
        client.evaluate(town, questions)


def test_too_many_gold_documents_are_refused(client: LLMBackendClient, town: str) -> None:
    gold = [f"document {number}" for number in range(1000)]
    with pytest.raises(InvalidRequest, match="101,000 gold documents and may have 100,000"):
        client.evaluate(town, [{"question": "q", "gold": gold}] * 101)


def test_a_collection_that_is_not_there_is_not_found(client: LLMBackendClient, collection: str) -> None:
    with pytest.raises(NotFound, match=collection):
        client.evaluate(collection, QUESTIONS)
    with pytest.raises(NotFound, match=collection):
        client.evaluate(collection, QUESTIONS, progress=lambda step: None)
