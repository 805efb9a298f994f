"""Measures how well sentences fit a question by the embedder alone, if there is no judge that knows the language."""

from __future__ import annotations

from collections.abc import Sequence

from .. import threads
from ..inference.embeddings import Embedder, spelt
from ..text.words import WRITTEN
from .fitting import Quote, fitting
from .layout import Laid
from .question import Question, telling

PASSAGES = 5
"""The best passages that are compared: more of them make a chance match more likely."""

ANSWERED = 1.05
"""The fit (at most 2) from which a question counts as answered, tuned for the embedded embedding model.

On two manuals of 100 documents each, it accepts 40 of 41 answerable questions, and rejects all 340 questions about other
things, 39 of 44 that such a manual might answer, and 27 of 32 that only the other manual answers. It is right about 45 of
48 more questions, written after tuning, and accepts 89 % of 500 questions on encyclopedia paragraphs.
"""

OF_EXACT_UNJUDGED = 1.5
"""Weight of the question's codes, numbers and names, added to a sentence's score."""


async def unjudged(embedder: Embedder, asked: Question, laid: list[Laid]) -> tuple[list[Quote], float]:
    """Score without the judge; return the sentences, best first, and the fit of the best passage."""
    quotes = await fitting(embedder, asked.text, [one.text for one in laid]) if laid else []
    quotes = await threads.processor(_with_exact, asked, laid, quotes)
    return quotes, await fit(embedder, asked, [one.in_context for one in laid])


def _with_exact(asked: Question, laid: list[Laid], quotes: list[Quote]) -> list[Quote]:
    """Add what the question's codes, numbers and names are worth; return the sentences, best first."""
    found: list[Quote] = []
    for quote in quotes:
        of = laid[quote.text]
        exact = asked.exact(of.text[quote.start : quote.end]) + asked.exact(of.in_context)
        found.append(quote._replace(score=quote.score + OF_EXACT_UNJUDGED * exact))
    return sorted(found, key=lambda quote: -quote.score)


async def fit(embedder: Embedder, asked: Question, passages: Sequence[str]) -> float:
    """Return the best fit (0 to 2) among the first PASSAGES passages; 0 if there are none.

    It is 0, too, if the embedder only spells the question and no passage has a word of it: texts of the same letters are
    all alike to such a model.

    A passage's fit is the cosine of the two texts, plus the mean, over the question's words, of the cosine with the
    nearest word in the passage, so that synonyms count too (greedy matching: Rus and Lintean, BEA 2012).
    """
    import numpy as np

    passages = passages[:PASSAGES]
    if not passages:
        return 0.0
    question = asked.text
    own = telling(_words(question)) or _words(question) or [question]
    told = [_words(passage) for passage in passages]
    every = list(dict.fromkeys([*own, *(word for words in told for word in words)]))
    embedded = await embedder.embed([question, *passages, *every])
    if spelt(question, embedded.tokens[0] or 0) and not await threads.processor(_has_a_word, asked, passages):
        return 0.0
    values = embedded.values
    topics = values[1 : 1 + len(passages)] @ values[0]
    words = values[1 + len(passages) :]
    place = {word: number for number, word in enumerate(every)}
    likeness = words[: len(own)] @ words.T
    best = 0.0
    for topic, its in zip(topics, told, strict=True):
        nearest = likeness[:, [place[word] for word in its]].max(axis=1, initial=0.0)
        best = max(best, float(np.mean(nearest)) + float(topic))
    return best


def _has_a_word(asked: Question, passages: Sequence[str]) -> bool:
    return not asked.stems or any(asked.overlap(passage) > 0 for passage in passages)


def _words(text: str) -> list[str]:
    return list(dict.fromkeys(WRITTEN.findall(text.lower())))
