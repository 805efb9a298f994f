"""Which sentences fit a question, and how well, by the embedder: what decides where the judge cannot."""

from __future__ import annotations

from collections.abc import Sequence

from ...inference.embeddings import Embedder
from ...inference.sentences import Quote, fitting
from ...words import WRITTEN
from .layout import Laid
from .question import Question

PASSAGES = 5
"""How many of the best are looked at: the more, the likelier that one fits by chance."""

ANSWERED = 1.05
"""From which fit on, of at most 2, a question counts as answered; set for the embedded embedding model.

On two manuals of 100 documents each, it lets 40 of 41 questions through that they answer, and holds back all of 340
about other things, 39 of 44 that such a manual might answer, and 27 of 32 that the other one does. Of 48 more, written
after it was set, it is right about 45. Of 500 questions on encyclopedia paragraphs it lets 89 % through.
"""

OF_EXACT_UNJUDGED = 1.5
"""What a code, number or name of the question counts beside a sentence's score, in which shared words count as much."""

# fmt: off
_COMMON = frozenset((
    "a", "about", "an", "and", "any", "are", "as", "at", "be", "by", "can", "could", "did", "do", "does", "for", "from",
    "had", "has", "have", "how", "i", "if", "in", "is", "it", "its", "many", "may", "me", "much", "must", "my", "not",
    "of", "on", "or", "our", "should", "so", "that", "the", "their", "them", "there", "they", "this", "to", "us", "was",
    "we", "were", "what", "when", "where", "which", "who", "whom", "whose", "why", "will", "with", "would", "you",
    "your",
    # Such as say that something is asked for, and not what.
    "describe", "details", "explain", "give", "information", "list", "need", "please", "policies", "policy", "show",
    "tell", "want",
))
# fmt: on


async def unjudged(embedder: Embedder, asked: Question, laid: list[Laid]) -> tuple[list[Quote], float]:
    """The sentences, best first, and how well the best passage fits."""
    quotes = await fitting(embedder, asked.text, [one.text for one in laid]) if laid else []
    for place, quote in enumerate(quotes):
        of = laid[quote.text]
        exact = asked.exact(of.text[quote.start : quote.end]) + asked.exact(of.in_context)
        quotes[place] = quote._replace(score=quote.score + OF_EXACT_UNJUDGED * exact)
    quotes.sort(key=lambda quote: -quote.score)
    return quotes, await fit(embedder, asked.text, [one.in_context for one in laid])


async def fit(embedder: Embedder, question: str, passages: Sequence[str]) -> float:
    """How well the best of the first passages fits; 0 if there is none.

    Each word of the question is likened to the passage's nearest word, so that other words for the same count too
    (greedy matching: Rus and Lintean, BEA 2012); their mean, and the cosine of the whole texts, are added.
    """
    import numpy as np

    passages = passages[:PASSAGES]
    if not passages:
        return 0.0
    asked = [word for word in _words(question) if word not in _COMMON] or _words(question) or [question]
    told = [_words(passage) for passage in passages]
    every = list(dict.fromkeys([*asked, *(word for words in told for word in words)]))
    values = (await embedder.embed([question, *passages, *every])).values
    topics = values[1 : 1 + len(passages)] @ values[0]
    words = values[1 + len(passages) :]
    place = {word: number for number, word in enumerate(every)}
    likeness = words[: len(asked)] @ words.T
    best = 0.0
    for topic, its in zip(topics, told, strict=True):
        nearest = likeness[:, [place[word] for word in its]].max(axis=1, initial=0.0)
        best = max(best, float(np.mean(nearest)) + float(topic))
    return best


def _words(text: str) -> list[str]:
    return list(dict.fromkeys(WRITTEN.findall(text.lower())))
