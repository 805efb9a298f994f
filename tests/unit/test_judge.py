"""The second embedded model: it reads like the published one, and is nobody's burden where it is not installed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from llmbackend import BackendError, InvalidRequest, LLMBackendClient
from llmbackend.access.caller import of_project
from llmbackend.answers.choosing import JUDGED, PASSAGES, WHOLLY, WORDS_READ
from llmbackend.answers.reading import DENSE_WEIGHT
from llmbackend.inference import factory, minilm
from llmbackend.inference.embeddings import EmbeddingBatch, TextRefused
from llmbackend.inference.judge import Judge
from llmbackend.inference.minilm import MiniLM
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings
from llmbackend.tracing import Trace, tracing

TEXTS = [
    "Reset the router by holding its red button for ten seconds.",
    "Sick leave is reported before nine.",
    "A cat sat on the mat, and it did not think of anything at all that one could have told a dog of.",
]


@pytest.fixture
def model(models_dir: Path) -> MiniLM:
    return MiniLM(models_dir)


def _embedded(model: MiniLM, texts: Sequence[str], **how: Any) -> EmbeddingBatch:
    return asyncio.run(model.embed(texts, **how))


def test_vectors_are_those_of_the_published_model(model: MiniLM) -> None:
    """What its model card compares: the cosines that sentence-transformers tells of these."""
    texts = [
        "That is a happy person",
        "That is a happy dog",
        "That is a very happy person",
        "Today is a sunny day",
    ]
    values = _embedded(model, texts).values
    assert values.shape == (4, 384)
    assert values[0] @ values[1:].T == pytest.approx([0.695, 0.943, 0.257], abs=0.03)


def test_a_vector_does_not_depend_on_the_texts_beside_it(model: MiniLM) -> None:
    together = _embedded(model, TEXTS).values
    alone = np.concatenate([_embedded(model, [text]).values for text in TEXTS])
    assert together == pytest.approx(alone, abs=1e-4)
    assert np.linalg.norm(together, axis=1) == pytest.approx(1, abs=1e-5)


def test_long_texts_are_split_cut_off_or_refused(model: MiniLM) -> None:
    beginning = "the router is reset " * 100
    texts = [TEXTS[0], beginning, beginning + "sick leave is reported " * 100]
    split, begun = _embedded(model, texts), _embedded(model, texts, too_long="truncate")
    assert [(cut.index, cut.tokens, cut.parts) for cut in split.cut] == [(1, 500, 2), (2, 900, 4)]
    assert [(cut.index, cut.limit, cut.parts) for cut in begun.cut] == [(1, 254, 1), (2, 254, 1)]
    assert begun.values[1] == pytest.approx(begun.values[2], abs=1e-4)
    assert split.values[1] @ split.values[2] < 0.95
    assert np.linalg.norm(split.values, axis=1) == pytest.approx(1, abs=1e-5)
    with pytest.raises(TextRefused, match="500 tokens"):
        _embedded(model, texts, too_long="error")


@pytest.mark.parametrize("text", ["", " ", "\ud800", "\0", "語" * 3000, "́" * 50])
def test_any_text_has_a_vector(model: MiniLM, text: str) -> None:
    vectors = _embedded(model, [text, TEXTS[0]])
    assert np.isfinite(vectors.values).all()
    assert len(vectors.values) == 2


def test_a_question_is_read_word_by_word(model: MiniLM) -> None:
    """Each word meets what is nearest to it, in other words, too; what a text does not tell of meets nothing."""
    words, near = asyncio.run(
        model.words("Who pays the dentist's bill?", ["The firm bears dental costs.", ""])
    )
    assert words == ["who", "pays", "the", "dentist", "'", "s", "bill", "?"]
    assert near.shape == (2, 8)
    assert near[0, 3] > 0.6
    assert not near[1].any()
    _, [here, missing] = asyncio.run(
        model.words(
            "How long is the notice of dismissal?", ["The notice is a month.", "The desk is a metre."]
        )
    )
    assert here.mean() > missing.mean()


@pytest.mark.parametrize("text", ["", " ", "\ud800", "語" * 300, "́" * 50, "word " * 600])
def test_any_question_and_text_is_read_word_by_word(model: MiniLM, text: str) -> None:
    for question, texts in ((text, TEXTS), (TEXTS[0], [text])):
        words, near = asyncio.run(model.words(question, texts))
        assert near.shape == (len(texts), len(words))
        assert np.isfinite(near).all()


def test_what_was_read_word_by_word_lately_is_not_read_again(
    model: MiniLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    run = MiniLM._run_states
    monkeypatch.setattr(
        MiniLM, "_run_states", lambda self, parts: read.append(len(parts)) or run(self, parts)
    )

    def near(*texts: str, project: str = "a") -> NDArray[np.float32]:
        with tracing(Trace("rag_query", caller=of_project(project))):
            return asyncio.run(model.words("How do I reset the router?", texts))[1]

    first = near(*TEXTS, TEXTS[0])
    assert sum(read) == 1 + len(TEXTS)
    assert (near(*TEXTS, TEXTS[0]) == first).all()
    assert near("Press the button.", *TEXTS)[1:] == pytest.approx(first[:-1], abs=1e-4)
    assert sum(read) == 2 + len(TEXTS)
    near(*TEXTS, project="b")  # or timing would tell it what others have
    assert sum(read) == 3 + 2 * len(TEXTS)
    monkeypatch.setattr(minilm, "STATES_KEPT", first.shape[1] * minilm.DIMENSION * 4 * 2)
    near("A new one pushes others out.")
    assert near(*TEXTS) == pytest.approx(first[:-1], abs=1e-4)
    assert sum(read) > 4 + 2 * len(TEXTS)
    assert model._states._bytes == sum(values.nbytes for values in model._states._kept.values())


def test_another_dimension_is_refused(model: MiniLM) -> None:
    with pytest.raises(InvalidRequest, match="384"):
        _embedded(model, TEXTS, dimensions=128)


def test_what_was_judged_once_is_not_read_again(models_dir: Path, tmp_path: Path) -> None:
    async def judged(judge: Judge) -> list[float]:
        try:
            return list(map(float, await judge.cosines("How do I reset the router?", TEXTS)))
        finally:
            await judge.close()

    options = Settings(data_dir=tmp_path, models_dir=models_dir)
    first = asyncio.run(judged(factory.embedders(options)[1]))
    assert first[0] > 0.6 > 0.3 > max(first[1:])
    judge = factory.embedders(options)[1]
    assert asyncio.run(judged(judge)) == first
    assert "_model" not in vars(judge._model), "it was loaded for what is kept"


def test_without_weights_it_says_so(tmp_path: Path) -> None:
    _, judge = factory.embedders(Settings(data_dir=tmp_path, models_dir=tmp_path))
    assert not judge.here
    with pytest.raises(BackendError, match="llmbackend models pull"):
        asyncio.run(judge.embed(TEXTS))


def test_it_can_embed_all_collections(models_dir: Path, tmp_path: Path) -> None:
    options = Settings(data_dir=tmp_path, models_dir=models_dir, embedding_model=MiniLM.name)
    with LLMBackendClient(transport=LocalTransport(options)) as client:
        client.rag_ingest(TEXTS, collection="texts")
        assert client.get_collection("texts").embedding_model == MiniLM.name
        best = client.rag_search("Restart the device", collection="texts", mode="dense")[0]
        assert best.text == TEXTS[0]
        assert len(client.embed_single(TEXTS[0])) == 384
        assert client.doctor().ok


def test_collections_need_its_weights_if_it_is_to_embed_them(tmp_path: Path) -> None:
    options = Settings(data_dir=tmp_path, models_dir=tmp_path, embedding_model=MiniLM.name)
    with (
        LLMBackendClient(transport=LocalTransport(options)) as client,
        pytest.raises(BackendError, match="llmbackend models pull"),
    ):
        client.embed_single(TEXTS[0])


def test_an_answers_passages_are_read_by_the_judge(models_dir: Path, tmp_path: Path) -> None:
    """It knows other words for the same; a search's own order stays as it was."""
    texts = [
        "The cafeteria serves a warm meal from noon until two, and the meal costs four euros a day.",
        "Staff who fall ill tell their manager before nine; a doctor's note is due on the third day.",
        "Every employee may stay away from work for 28 days a year at full pay, to rest and to travel.",
        "The plan of the exits is on the wall of each floor, and was paid for by the fire brigade.",
    ]
    question = "How many days of paid vacation are there?"
    with LLMBackendClient(
        transport=LocalTransport(Settings(data_dir=tmp_path, models_dir=models_dir))
    ) as client:
        client.rag_ingest([{"id": str(number), "text": text} for number, text in enumerate(texts)], "staff")
        told = client.rag_query(question, "staff", explain=True).explanation
        [first, *others] = told.candidates
        assert first.document_id == "2"
        assert first.judge > max(one.judge for one in others)
        assert first.score == first.judged > first.fused
        assert "quotes" in told.ms
        assert {one.weight for one in told.candidates} == {DENSE_WEIGHT}
        hits = client.rag_search(question, "staff")
        barred = client.rag_query(question, "staff", explain=True, min_score=0.0).explanation
        assert {one.document_id: one.fused for one in barred.candidates} == pytest.approx(
            {hit.document_id: hit.score for hit in hits}
        )
        for other in ({"mode": "dense"}, {"mode": "sparse"}):
            told = client.rag_query(question, "staff", explain=True, **other).explanation
            assert {one.judge for one in told.candidates} == {None}


def test_it_reads_no_more_after_a_restart_or_for_a_long_question(
    models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the question's vector is kept, the model of the collection is not loaded yet; it sifts all the same."""
    read: list[int] = []

    async def embed(judge: Judge, texts: Sequence[str], embed: Any = Judge.embed) -> Any:
        read.append(len(texts) - 1)
        return await embed(judge, texts)

    monkeypatch.setattr(Judge, "embed", embed)
    months = ("March", "April", "May", "June", "July", "August", "September", "October")
    document = "\n\n".join(
        " ".join(f"In {month} the office number {number} is painted, and is closed." for number in range(10))
        for month in months
    )
    question = "When is the office number 7 painted?"
    options = Settings(data_dir=tmp_path, models_dir=models_dir)
    answers = []
    for _ in range(2):
        with LLMBackendClient(transport=LocalTransport(options)) as client:
            client.rag_ingest([{"id": "it", "text": document}], "offices", chunk_size=64)
            answers.append(client.rag_query(question, "offices", explain=True))
            if len(answers) == 2:
                client.rag_query("I would like to know this. " * 100 + question, "offices")
    assert read[0::3] == [PASSAGES] * 3
    assert max(read[1::3]) <= JUDGED + 10 * WHOLLY < 80
    assert 1 <= min(read[2::3]) <= max(read[2::3]) <= WORDS_READ
    assert answers[0].explanation.fit == answers[1].explanation.fit


def test_without_the_judge_an_answers_passages_are_those_of_the_search(tmp_path: Path) -> None:
    with LLMBackendClient(
        transport=LocalTransport(Settings(data_dir=tmp_path, models_dir=tmp_path))
    ) as client:
        client.rag_ingest(TEXTS, collection="texts")
        answer = client.rag_query("How do I reset the router?", "texts", explain=True)
        assert answer.found
        assert {one.judge for one in answer.explanation.candidates} == {None}
