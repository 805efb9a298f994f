"""What is retrieved: modes, several collections, bars on the score, and passages that repeat each other."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from llmbackend import BackendError, InvalidRequest, LLMBackendClient

TOWN = {
    "harbour": "The harbour of Aldersea was dredged in 1911 to let larger ships in.",
    "market": "The fish market opens at five in the morning, except on Sundays.",
    "ferry": "The ferry to the island leaves at nine and takes forty minutes.",
    "library": "The library lends books for four weeks; a card costs two pounds a year.",
}
FARM = {
    "cows": "The cows are milked at five in the morning and at four in the afternoon.",
    "barn": "The barn was built in 1911 from the oak of a stranded ship.",
    "dog": "The dog guards the yard and is fed at nine.",
}
QUESTIONS = ["When was it built or dredged?", "Who gets up at five in the morning?", "What happens at nine?"]
HANDBOOK = " ".join(f"Rule {word}: whoever finds the {word} reports it." for word in "abcdefghijklmnop")


def _unit(number: int) -> str:
    return f"{'KPRX'[number % 4]}{number * 7919 % 100003:05}"


@pytest.mark.parametrize("apart", [False, True])
def test_who_asks_with_a_code_finds_its_passage(
    client: LLMBackendClient, collection: str, apart: bool
) -> None:
    """Among many that are alike but for that; also where they are in several collections."""
    halves = [f"{collection}-{half}" for half in "ab"] if apart else [collection]
    for place, name in enumerate(halves):
        documents = [
            {
                "id": _unit(n),
                "text": f"Clean the contacts of unit {_unit(n)} in hall {n % 37} in {5 + n % 50} minutes.",
            }
            for n in range(place, 400, len(halves))
        ]
        client.rag_ingest(documents, name)
    for number in range(3, 400, 40):
        question = f"How long does it take to clean the contacts of unit {_unit(number)}?"
        best = client.rag_search(question, halves, top_k=3)[0]
        assert best.document_id == _unit(number)
    for name in halves:
        client.delete_collection(name)


@pytest.fixture
def town_and_farm(client: LLMBackendClient, collection: str) -> Iterator[tuple[str, str, str]]:
    """Two collections, and one with the documents of both."""
    names = f"{collection}-town", f"{collection}-farm", collection
    for name, documents in zip(names, (TOWN, FARM, TOWN | FARM), strict=True):
        client.rag_ingest([{"id": key, "text": text} for key, text in documents.items()], name)
    yield names
    for name in names[:2]:
        client.delete_collection(name)


@pytest.mark.parametrize("question", QUESTIONS)
def test_cosines_of_several_collections_compare(
    client: LLMBackendClient, town_and_farm: tuple[str, str, str], question: str
) -> None:
    town, farm, both = town_and_farm
    apart = client.rag_search(question, [town, farm], mode="dense", top_k=4)
    together = client.rag_search(question, both, mode="dense", top_k=4)
    assert [hit.document_id for hit in apart] == [hit.document_id for hit in together]
    assert [hit.score for hit in apart] == pytest.approx([hit.score for hit in together], abs=1e-5)


@pytest.mark.parametrize("mode", ["hybrid", "sparse"])
def test_the_best_of_a_collection_without_an_answer_does_not_come_first(
    client: LLMBackendClient, town_and_farm: tuple[str, str, str], mode: Any
) -> None:
    town, farm, _ = town_and_farm
    for names in ([town, farm], [farm, town]):
        hits = client.rag_search("Which books does the library lend?", names, mode=mode, top_k=1)
        assert [hit.document_id for hit in hits] == ["library"]
        hits = client.rag_search("When are the cows milked?", names, mode=mode, top_k=1)
        assert [hit.document_id for hit in hits] == ["cows"]


@pytest.mark.parametrize("number", [1, 2])
def test_an_explanation_tells_both_scores_and_what_they_count(
    client: LLMBackendClient, town_and_farm: tuple[str, str, str], number: int
) -> None:
    names = list(town_and_farm[:number])
    answer = client.rag_query("Which books does the library lend?", names, explain=True)
    [first, *_] = answer.explanation.candidates
    assert first.document_id == "library"
    assert first.dense < 1 < first.sparse
    assert first.weight == 2  # where the judge is going to read, meaning counts more than in a search
    assert 0 < first.fused < first.judged == first.score
    barred = client.rag_query("Which books does the library lend?", names, explain=True, min_score=0.01)
    assert barred.explanation.candidates[0].weight == 0.3
    spelt = client.rag_query("كم أسبوعا تعير المكتبة الكتب؟", names, explain=True)
    assert {one.weight for one in spelt.explanation.candidates} == {0.1}


def test_an_answer_comes_from_whichever_collection_has_it(
    client: LLMBackendClient, town_and_farm: tuple[str, str, str]
) -> None:
    town, farm, _ = town_and_farm
    answer = client.rag_query("When are the cows milked?", [town, farm], mode="sparse")
    assert answer.found
    assert (answer.sources[0].collection, answer.sources[0].document_id) == (farm, "cows")


def test_a_query_takes_a_mode(client: LLMBackendClient, town_and_farm: tuple[str, str, str]) -> None:
    for mode in ("dense", "sparse", "hybrid"):
        hits = client.rag_search(QUESTIONS[0], town_and_farm[2], mode=mode)  # type: ignore[arg-type]
        sources = client.rag_query(QUESTIONS[0], town_and_farm[2], mode=mode).sources  # type: ignore[arg-type]
        if mode != "hybrid":  # in which the judge has a say
            assert [source.score for source in sources] == [hit.score for hit in hits]
        assert sources[0].document_id in [hit.document_id for hit in hits[:2]]  # either fits
    with pytest.raises(InvalidRequest, match="mode"):
        client.rag_query("x", town_and_farm[2], mode="psychic")  # type: ignore[arg-type]


# A bar on the score


@pytest.mark.parametrize("mode", ["hybrid", "dense", "sparse"])
def test_min_score_leaves_out_what_scores_lower(
    client: LLMBackendClient, town_and_farm: tuple[str, str, str], mode: Any
) -> None:
    name = town_and_farm[2]
    hits = client.rag_search(QUESTIONS[1], name, mode=mode)
    bar = (hits[0].score + hits[1].score) / 2
    assert client.rag_search(QUESTIONS[1], name, mode=mode, min_score=bar) == hits[:1]
    assert client.rag_search(QUESTIONS[1], name, mode=mode, min_score=hits[0].score + 0.01) == []
    assert client.rag_search(QUESTIONS[1], name, mode=mode, min_score=-1.0) == hits


def test_an_answer_from_nothing_above_the_bar_is_not_found(
    client: LLMBackendClient, town_and_farm: tuple[str, str, str]
) -> None:
    answer = client.rag_query(QUESTIONS[1], town_and_farm[2], mode="dense", min_score=0.99, explain=True)
    assert (answer.found, answer.sources) == (False, [])
    assert answer.explanation is not None
    assert "min_score" in {candidate.dropped for candidate in answer.explanation.candidates}


@pytest.mark.parametrize("bar", ["high", float("nan"), True])
def test_a_bar_is_a_number(client: LLMBackendClient, collection: str, bar: Any) -> None:
    with pytest.raises(InvalidRequest):
        client.rag_search("x", collection, min_score=bar)


# Reranking where nobody does


@pytest.mark.parametrize("rerank", [True, "a-model"])
def test_reranking_without_a_reranker_says_what_to_set(
    client: LLMBackendClient, town_and_farm: tuple[str, str, str], rerank: Any
) -> None:
    with pytest.raises(BackendError, match="TEI_RERANK_URL"):
        client.rag_search("x", town_and_farm[2], rerank=rerank)
    with pytest.raises(BackendError, match="TEI_RERANK_URL"):
        client.rag_query("x", town_and_farm[2], rerank=rerank)


@pytest.mark.parametrize("rerank", ["", 1, None])
def test_rerank_is_yes_no_or_a_model(client: LLMBackendClient, collection: str, rerank: Any) -> None:
    client.create_collection(collection)
    if rerank is None:  # not given
        assert client.rag_search("x", collection, rerank=rerank) == []
    else:
        with pytest.raises(InvalidRequest, match="rerank"):
            client.rag_search("x", collection, rerank=rerank)


# Passages that repeat each other


def test_equal_texts_are_one_hit_that_tells_of_the_others(client: LLMBackendClient, collection: str) -> None:
    text = "The harbour of Aldersea was dredged in 1911."
    copies = [text, text.upper(), text.replace(" ", "\n"), text]
    client.rag_ingest([{"id": str(n), "text": copy} for n, copy in enumerate(copies)], collection)
    client.rag_ingest({"id": "other", "text": "The harbour of Aldersea was dredged in 1912."}, collection)
    hits = client.rag_search("When was the harbour dredged?", collection)
    assert len(hits) == 2
    [hit] = [hit for hit in hits if hit.document_id != "other"]
    assert {place.document_id for place in hit.duplicates} | {hit.document_id} == {"0", "1", "2", "3"}
    assert all(place.collection == collection and place.chunk == 0 for place in hit.duplicates)


def test_copies_do_not_take_the_place_of_others(client: LLMBackendClient, collection: str) -> None:
    client.rag_ingest([{"id": f"copy {n}", "text": HANDBOOK} for n in range(60)], collection)
    client.rag_ingest([{"id": name, "text": text} for name, text in TOWN.items()], collection)
    for mode in ("hybrid", "dense"):
        hits = client.rag_search("Which rule is there for whoever finds it?", collection, top_k=3, mode=mode)  # type: ignore[arg-type]
        assert len(hits) == 3
        assert len(hits[0].duplicates) == 59


def test_a_copy_cut_elsewhere_is_a_duplicate(client: LLMBackendClient, collection: str) -> None:
    longer = f"{HANDBOOK} That was the last of them."
    client.rag_ingest([{"id": "a", "text": HANDBOOK}, {"id": "b", "text": longer}], collection)
    [hit] = client.rag_search("Who reports it?", collection)
    assert len(hit.duplicates) == 1


def test_another_version_of_a_text_is_no_duplicate(client: LLMBackendClient, collection: str) -> None:
    other = HANDBOOK.replace("whoever finds the h reports", "whoever finds the h never reports")
    assert other != HANDBOOK
    client.rag_ingest([{"id": "a", "text": HANDBOOK}, {"id": "b", "text": other}], collection)
    assert len(client.rag_search("Who reports it?", collection)) == 2


def test_copies_in_several_collections_are_one_hit(
    client: LLMBackendClient, town_and_farm: tuple[str, str, str]
) -> None:
    town, _, both = town_and_farm
    hits = client.rag_search("When was the harbour dredged?", [town, both])
    assert hits[0].document_id == "harbour"
    assert {hits[0].collection, *(place.collection for place in hits[0].duplicates)} == {town, both}
    assert len({hit.text for hit in hits}) == len(hits) == 5


# Quotes

# What may go wrong where letters are counted: composed and decomposed accents, signs of several code points,
# right-to-left, no spaces, other line ends and spaces, and letters whose lower case is longer.
LETTERS = [
    "é",
    "é",
    "👩‍👩‍👧‍👦",
    "🇩🇪",
    "שלום",
    "مرحبا",
    "夜。",
    "ﬀ",
    "İ",
    "ß",
    "\u00a0",
    "\u2028",
    "\r\n",
    "\t",
    " ",
    ". ",
    "! ",
    "\n\n",
]


@pytest.mark.parametrize("seed", range(5))
def test_every_quote_is_a_verbatim_part_of_its_text(
    client: LLMBackendClient, collection: str, seed: int
) -> None:
    randomly = random.Random(seed)
    texts = [
        "".join(randomly.choices([*LETTERS, "word", "Word "], k=randomly.randint(1, 400))) for _ in range(30)
    ]
    client.rag_ingest(
        [{"id": str(n), "text": f"{n} word {text}"} for n, text in enumerate(texts)], collection
    )
    for question in ("word", "夜 word?", "İ 👩‍👩‍👧‍👦", "1 word é"):
        sources = client.rag_query(question, collection, top_k=20).sources
        assert sources
        for source in sources:
            assert source.quote.strip()
            assert source.quote in source.text
