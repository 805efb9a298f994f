"""Finds the sentences of texts that are closest to a question, by vectors and words, always verbatim."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import threads
from ..inference.embeddings import Embedder
from ..text.sentences import sentences, stems

if TYPE_CHECKING:
    from numpy.typing import NDArray

WORDS_WEIGHT = 1.5
"""Weight of shared words beside the cosine: static vectors show the topic, words the detail."""

FRAGMENT_PENALTY = 0.3
"""Penalty for headings, table lines and the like, which name a thing without saying anything about it."""

PLACE_PENALTY = 0.03
"""Penalty for each text that retrieval ranked above the sentence's own."""


class Quote(NamedTuple):
    """A sentence: the number of its text, its position in it, and a score to compare with others for the same question."""

    text: int
    start: int
    end: int
    score: float


async def fitting(embedder: Embedder | None, question: str, texts: Sequence[str]) -> list[Quote]:
    """Return every sentence of the texts, which are given best first, ordered by how well it fits the question.

    Without an embedder, sentences are ordered by the words that they share with the question.
    """
    characters = sum(map(len, texts))
    places, written = await threads.by_length(characters, _placed, texts)
    values = None if embedder is None else (await embedder.embed([question, *written])).values
    return await threads.by_length(characters, _ranked, question, places, written, values)


def _placed(texts: Sequence[str]) -> tuple[list[tuple[int, int, int]], list[str]]:
    places = [
        (number, start, end)
        for number, text in enumerate(texts)
        for start, end in sentences(text) or [(0, len(text))]
    ]
    return places, [texts[number][start:end] for number, start, end in places]


def _ranked(
    question: str, places: list[tuple[int, int, int]], written: list[str], values: NDArray[Any] | None
) -> list[Quote]:
    asked = stems(question)
    cosines = [0.0] * len(written) if values is None else (values[1:] @ values[0]).tolist()
    quotes = [
        Quote(
            *place,
            score=cosine
            + WORDS_WEIGHT * len(asked & stems(sentence)) / max(1, len(asked))
            - FRAGMENT_PENALTY * _is_fragment(sentence)
            - PLACE_PENALTY * place[0],
        )
        for place, sentence, cosine in zip(places, written, cosines, strict=True)
    ]
    return sorted(quotes, key=lambda quote: -quote.score)


def _is_fragment(sentence: str) -> bool:
    return sentence.lstrip().startswith(("#", "|", "=", "..", "---")) or len(sentence.split()) < 3
