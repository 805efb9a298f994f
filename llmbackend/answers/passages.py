"""Numbers the passages that a question is answered from, finds each one's best quote, and cuts them to a token budget."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from .. import threads
from ..chunks.tokens import tokens_of
from ..knowledge.retrieval.candidates import Candidate
from ..schemas import Source
from ..text.sentences import sentences, stems
from .fitting import Quote, fitting


@dataclass(frozen=True)
class Passages:
    question: str
    candidates: list[Candidate]
    """The hits that the sources come from, and those that were dropped."""
    sources: list[Source]
    quotes: list[Quote]
    """Every sentence of the sources, best fit first."""

    @property
    def best(self) -> dict[int, Quote]:
        """The best quote of each source, by its index from 0."""
        return {quote.text: quote for quote in reversed(self.quotes)}

    @property
    def hits(self) -> list[Candidate]:
        return [candidate for candidate in self.candidates if candidate.dropped is None]

    async def within(self, budget: int) -> list[str]:
        """Return the texts that the model reads, each below its headings, within a budget of tokens.

        If the whole passages do not fit, each is cut to the sentences around its quote, and the last ones may be left
        out. The first passage is always included.
        """
        return await threads.by_length(_characters(self.hits), _within, self, budget)


async def number(question: str, candidates: list[Candidate]) -> Passages:
    """Number the hits as sources, each with a verbatim quote: the sentence that shares most words with the question.

    This embeds nothing.
    """
    hits = [candidate for candidate in candidates if candidate.dropped is None]
    quotes = await fitting(None, question, [hit.chunk.text for hit in hits]) if hits else []
    told = await threads.by_length(_characters(hits), sources, stems(question), hits, quotes)
    return Passages(question, candidates, told, quotes)


def sources(asked: set[str], hits: Sequence[Candidate], quotes: Sequence[Quote]) -> list[Source]:
    """Return the hits as sources, numbered from 1, each with its first quote; a hit without one is quoted as a whole.

    A heading above a hit is quoted instead if it has more of the question's words.
    """
    best = {quote.text: quote for quote in reversed(quotes)}
    told: list[Source] = []
    for index, hit in enumerate(hits):
        text = hit.chunk.text
        quote = best.get(index) or Quote(index, 0, len(text), 0.0)
        said = text[quote.start : quote.end]
        headings = above(asked, hit.chunk.headings, text)
        said = max(said, *headings, key=lambda one: len(asked & stems(one))) if headings else said
        told.append(Source.model_construct(**vars(hit.hit), number=index + 1, quote=said))
    return told


def above(asked: set[str], headings: Sequence[str], said: str) -> list[str]:
    """Return the headings that have words of the question that the text below them lacks, outermost first."""
    told: list[str] = []
    left = asked - stems(said)
    for heading in reversed(headings):
        if has := left & stems(heading):
            told.insert(0, heading)
            left -= has
    return told


def _characters(hits: Sequence[Candidate]) -> int:
    return sum(len(hit.chunk.below_headings) for hit in hits)


def _within(passages: Passages, budget: int) -> list[str]:
    best = passages.best
    hits = [hit.chunk for hit in passages.hits]
    whole = [hit.below_headings for hit in hits]
    if sum(len(tokens_of(text)) for text in whole) <= budget:
        return whole
    share = max(budget // len(whole), 80)

    cut: list[str] = []
    for index, hit in enumerate(hits):
        headings = hit.below_headings.removesuffix(hit.text)
        passage = headings + _around(hit.text, best[index], share - len(tokens_of(headings)))
        budget -= len(tokens_of(passage))
        if budget < 0 and cut:
            break
        cut.append(passage)
    return cut


def _around(text: str, quote: Quote, most: int) -> str:
    """Return the quote with neighbouring sentences, added after and before it in turn, within `most` tokens."""
    start, end = quote.start, quote.end
    spans = sentences(text)
    after = deque(span_end for _, span_end in spans if span_end > end)
    before = [span_start for span_start, _ in spans if span_start < start]
    left = most - len(tokens_of(text[start:end]))
    while after or before:
        # Count only what is added: counting everything each time would be quadratic.
        if after and (count := len(tokens_of(text[end : after[0]]))) <= left:
            end = after.popleft()
            left -= count
        else:
            after.clear()
        if before and (count := len(tokens_of(text[before[-1] : start]))) <= left:
            start = before.pop()
            left -= count
        else:
            before.clear()
    return text[start:end]
