"""Splits documents into chunks of limited size: by page and heading, then between sentences."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any, NamedTuple

from .. import slices
from ..engines.interface import Chunk
from ..files.syntax import BareText, syntax
from ..schemas import Document, GivenChunk
from . import tables
from .sentence_splitter import split_text
from .structure import Section, sections
from .tokens import tokens_of
from .windows import windows

DEFAULT_SIZE, DEFAULT_OVERLAP = 256, 32
LARGE = 2**20
"""Characters that are split in one go."""
VERSION = 2
"""The version of this module's splitting. Increase it when documents get different chunks, so that they do not count as
unchanged."""


_AS_JSON = json.JSONEncoder(sort_keys=True, ensure_ascii=False)


def content_hash(document: Document | BareText) -> str:
    """Return the hash of a document's text, metadata (in any order of its keys), and the way it is split."""
    if isinstance(document, BareText):
        return f"{document.id}-{VERSION}"  # its id is a hash of its text
    # As JSON, part by part: a text by itself is written faster than in a list, and most documents have no metadata.
    metadata = _AS_JSON.encode(document.metadata) if document.metadata else "{}"
    hashed = hashlib.sha256()
    for part in ('["', *_in_json(document.text), f'", {metadata}, "{syntax(document)}", {VERSION}]'):
        hashed.update(part.encode("utf-8", "surrogatepass"))
    for chunk in document.chunks or ():
        hashed.update(_AS_JSON.encode(chunk.model_dump()).encode("utf-8", "surrogatepass"))
    return hashed.hexdigest()[:32]


def _in_json(text: str) -> Iterator[str]:
    """Yield the text as a JSON string without its quotes, in parts."""
    for start in range(0, len(text), LARGE):
        slices.give_way()
        yield _AS_JSON.encode(text[start : start + LARGE])[1:-1]


def split(document: Document | BareText, digest: str, size: int, overlap: int) -> list[Chunk]:
    """Return a document's chunks in order, each of at most `size` tokens; none for a text without words."""
    if isinstance(document, Document) and document.chunks is not None:
        return _given(document, digest, document.chunks)
    text = document.text
    parts = [
        (piece, group.place)
        for group in _groups(text, sections(text, syntax(document)), size)
        for piece in _split(text[group.start : group.end], size, overlap, group.tokens)
        if piece.strip()
    ]
    return [
        Chunk(document.id, digest, number, len(parts), piece, document.metadata, place)
        for number, (piece, place) in enumerate(parts)
    ]


def _given(document: Document, digest: str, given: Sequence[GivenChunk]) -> list[Chunk]:
    """Return the chunks of a document that was given in chunks."""
    parts = [chunk for chunk in given if chunk.text.strip()]
    return [
        Chunk(
            document.id,
            digest,
            number,
            len(parts),
            chunk.text,
            {**document.metadata, **chunk.metadata},
            chunk.place,
        )
        for number, chunk in enumerate(parts)
    ]


class _Group(NamedTuple):
    """Neighbouring sections that make one chunk, or one section that makes several: `text[start:end]`."""

    start: int
    end: int
    tokens: int
    place: dict[str, Any]


def _groups(text: str, found: list[Section], size: int) -> Iterator[_Group]:
    """Group neighbouring sections that fit into one chunk, and are on the same page and below the same first heading."""
    group: list[Section] = []
    tokens = 0
    for section in found:
        count = len(tokens_of(text[section.start : section.end]))
        if group and (
            tokens + count > size
            or section.page != group[0].page
            or section.headings[:1] != group[0].headings[:1]
        ):
            yield _group(group, tokens)
            group, tokens = [], 0
        group.append(section)
        tokens += count
    if group:
        yield _group(group, tokens)


def _group(group: list[Section], tokens: int) -> _Group:
    first = group[0]
    levels = zip(*(section.headings for section in group), strict=False)
    above = [titles[0] for titles in takewhile(lambda titles: len(set(titles)) == 1, levels)]
    place: dict[str, Any] = {} if first.page is None else {"page": first.page}
    if above:
        place["headings"] = above
    if sections := [*dict.fromkeys(title for one in group for title in one.headings[len(above) :])]:
        place["sections"] = sections
    # Headings above the whole chunk go into its place; others are part of its text.
    start = first.body if len(above) == len(first.headings) else first.start
    return _Group(start, group[-1].end, tokens, place)


def _split(text: str, size: int, overlap: int, tokens: int) -> list[str]:
    if tokens <= size:
        return [text.strip()]
    pieces: list[str] = []
    for part in tables.parts(text):
        if not part.head:
            pieces += _sentences(part.body, size, overlap)
            continue
        # A table's introduction goes with its first rows.
        short = pieces and 4 * len(tokens_of(pieces[-1])) <= size
        pieces += tables.split(part, size, _sentences, pieces.pop() + "\n\n" if short else "")
    return pieces


def _sentences(text: str, size: int, overlap: int = 0) -> list[str]:
    most = min(overlap, size - 1)
    return [piece for part in windows(text, LARGE) for piece in split_text(part, size, most)]
