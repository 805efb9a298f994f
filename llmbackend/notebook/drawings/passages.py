"""Passages that a search finds, and where they are from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from llm_client import Hits, Record

from ..markup import read
from ..matches import marked, quoted
from ..parts import Bar, Card, Drawing, Fold, Line, Paragraph, Passage, Span, muted
from ..wording import count, decimal, ending, shortened
from .values import LETTERS, and_more, drawing, in_a_line, nothing, of_lists_with, of_records_with

CARDS = 20

PLACES = {"source", "headings", "sections", "page", "pages"}
"""Metadata that tell where a passage is from; they are in its title instead."""


def place_of(passage: Mapping[str, Any]) -> list[Line]:
    """The document, the headings above a passage and its page."""
    about = passage.get("metadata") or {}
    headings = about.get("headings")
    steps = headings if isinstance(headings, list) else [headings] if headings else []
    page = about.get("page")
    return [
        Span("strong", ending(str(passage["document_id"]), 60)),
        *(muted(f" › {shortened(str(step), 60)}") for step in steps),
        muted(f" · page {page}") if page is not None else "",
    ]


def metadata_of(passage: Mapping[str, Any]) -> list[Paragraph]:
    about = {name: value for name, value in (passage.get("metadata") or {}).items() if name not in PLACES}
    told = in_a_line(about, 80)
    return [Paragraph(muted(told))] if told else []


def passage_of(text: Line, letters: str) -> Drawing:
    """A passage; if it is long, its beginning, with the whole text in a fold."""
    if len(letters) <= LETTERS:
        return [Passage(text)]
    return [
        Passage(_cut(text, LETTERS)),
        Fold(muted(f"all of it: {count(len(letters))} letters"), [Passage(text)], in_text=False),
    ]


def _cut(text: Line, left: int) -> Line:
    """The first `left` letters of a line, with its marked parts."""
    kept: list[Line] = []
    for part in [text] if isinstance(text, str) else text if isinstance(text, Sequence) else [text]:
        letters = part if isinstance(part, str) else str(part.content) if isinstance(part, Span) else ""
        if len(letters) > left:
            return [*kept, _whole_words(letters[:left]) + "…" if isinstance(part, str) else "…"]
        kept.append(part)
        left -= len(letters)
    return kept


def _whole_words(letters: str) -> str:
    """The letters without a word that was cut at the end, unless it is the only one."""
    words = letters.rstrip()
    return (re.match(r"(.*\S)\s\S*$", words, re.DOTALL) or [words, words])[1] if words == letters else words


@of_lists_with("text", "score", "document_id", "chunk")
def _hits(hits: Sequence[Mapping[str, Any]]) -> Drawing:
    question = hits.query if isinstance(hits, Hits) else ""
    several = len({hit.get("collection") for hit in hits}) > 1
    best = max((hit["score"] for hit in hits if hit.get("score") is not None), default=0) or 1
    cards: list[Card] = []
    for number, hit in enumerate(hits[:CARDS], 1):
        text = read(str(hit["text"]))
        shown = quoted(text, read(str(hit["quote"]))) if hit.get("quote") else marked(text, question)
        score = hit.get("score")
        title: list[Line] = [
            muted(f"{hit.get('number', number)}  "),
            place_of(hit),
        ]
        if several:
            title += [" ", Span("pill", str(hit["collection"]))]
        if score is not None:
            title += ["  ", Bar(score / best), muted(f"{score:.3f}" if abs(score) < 100 else decimal(score))]
        also = [ending(str(one["document_id"])) for one in hit.get("duplicates") or ()]
        same = [Paragraph(muted("the same text: " + ", ".join(also)))] if also else []
        cards.append(Card(title, [*passage_of(shown, text), *metadata_of(hit), *same]))
    return [*cards, *and_more(hits, CARDS, "passages")]


@of_records_with("text", "score", "document_id", "chunk")
def _hit(hit: Record) -> Drawing:
    return _hits([hit])


@of_lists_with("document_id", "chunk", "text", "metadata")
def _chunks(chunks: Sequence[Mapping[str, Any]]) -> Drawing:
    cards = [
        Card(
            [place_of(chunk), muted(f" · chunk {count(chunk['chunk'])}")],
            [*passage_of(text, text), *metadata_of(chunk)],
        )
        for chunk in chunks[:CARDS]
        for text in [read(str(chunk["text"]))]
    ]
    return [*cards, *and_more(chunks, CARDS, "chunks")]


@drawing.register
def _of_search(hits: Hits) -> Drawing:
    return _hits(hits) if hits else nothing("nothing was found", hits.notes)


@of_records_with("document_id", "chunk", "text", "metadata")
def _chunk(chunk: Record) -> Drawing:
    return _chunks([chunk])
