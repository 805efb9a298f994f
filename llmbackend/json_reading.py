"""Reads the JSON of a request: bounded before anything is built of it, and without holding up other threads.

Parsers in C hold the interpreter's lock until they are done, for most of a second on a body of 60 MB, and a few bytes
of JSON may become a kilobyte of objects. So a body is first scanned in slices, which counts what is in it, and then
parsed in pieces, cut between the items of its lists.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

from pydantic_core import from_json

from . import threads
from .errors import InvalidRequest, LLMBackendError, TooLarge

VALUES = 1_000_000
"""JSON values (texts, numbers, lists, ...) in one request: 100 MB of Python objects, at most."""

CONTAINERS = 250_000
"""Lists and objects among them, which take the most room: a document with metadata is two."""

MAX_NESTING = 100
"""Lists and objects within each other; the parser itself takes 200."""

SLICE = 2**18  # bytes scanned at a time
PIECE = 2**20  # bytes parsed at a time, about: some milliseconds

_STRUCTURE = re.compile(rb"[\[\]{},]")
_CLOSES = {ord("["): ord("]"), ord("{"): ord("}")}
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_HALVES = re.compile(rb"\\\\|\\u[dD][89abAB]..\\u[dD][c-fC-F]..|\\u[dD][89a-fA-F]..", re.DOTALL)
_EMPTY = re.compile(rb"\s*(?:]|\Z)")
_HELD = "\0"
"""The key, in a piece, of a value that began in the piece before."""


class _Cut(NamedTuple):
    """A comma in a list where a body is cut, and the lists and objects that are open there, outermost first."""

    place: int
    open: bytes


def read(body: bytes | bytearray, name: str) -> Any:
    """The value that a body is. It blocks, so large bodies are read in a thread. `name` is the operation's.

    Raises TooLarge if there is too much in it, InvalidRequest if it is no JSON.
    """
    cuts = _scan(body, name)
    try:
        try:
            return _in_pieces(body, cuts) if cuts else from_json(body, allow_inf_nan=False)
        except ValueError:
            if (mended := without_halves(body)) == body:
                raise
            return _in_pieces(mended, cuts) if cuts else from_json(mended, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidRequest(f"{name}: the body is not JSON: {error}") from error


async def reply(body: bytes) -> Any:
    """The value that a model server's reply is, whose size is bounded already; raises ValueError if it is no JSON.

    A large one is read in a thread, piece by piece: at once, one of 28 MB would hold up everything else for half a second.
    """
    return json.loads(body) if len(body) <= SLICE else await threads.processor(_reply, body)


def _reply(body: bytes) -> Any:
    try:
        return _in_pieces(body, _scan(body, "a reply", bounded=False))
    except (ValueError, LLMBackendError):  # NaN, say, or half a character: Python's own reader takes more
        return json.loads(body)


def without_halves(body: bytes | bytearray) -> bytes | bytearray:
    """JSON with U+FFFD, of the same length, for each escape of half a surrogate pair: such is no character.

    Models write them, and a text that was cut within a character has one at its end.
    """
    if b"\\u" not in body:
        return body
    return _HALVES.sub(lambda found: b"\\uFFFD" if len(found[0]) == 6 else found[0], body)


def check_depth(body: bytes | bytearray, name: str) -> None:
    """Refuse a body that is nested too deep; for those too small to hold too many values."""
    if body.count(b"[") + body.count(b"{") > MAX_NESTING:
        _scan(body, name)


def _scan(body: bytes | bytearray, name: str, *, bounded: bool = True) -> list[_Cut]:
    """Count what is in a body, and find where to cut it."""
    values, containers, stack = 1, 0, bytearray()
    cuts: list[_Cut] = []
    for start, parts, first in _slices(body):
        threads.give_way()
        structure = b"".join(parts[first::2])
        opened = structure.count(b"[") + structure.count(b"{")
        containers += opened
        values += opened + structure.count(b",")
        for count, limit, what in (
            (containers, CONTAINERS, "lists and objects"),
            (values, VALUES, "values"),
        ):
            if bounded and count > limit:
                raise TooLarge(
                    f"{name}: the request has more than {limit:,} JSON {what}: send less at a time",
                    details={"limit": limit},
                )
        open_before = bytes(stack)
        for bracket in structure.translate(None, _NO_BRACKETS):
            if bracket in _CLOSES:
                stack.append(bracket)
                if len(stack) > MAX_NESTING:
                    raise InvalidRequest(
                        f"{name}: the JSON is nested more than {MAX_NESTING} deep: make it flatter",
                        details={"limit": MAX_NESTING},
                    )
            elif not stack or _CLOSES[stack.pop()] != bracket:
                raise InvalidRequest(f"{name}: the body is not JSON: its brackets do not match")
        if start >= (cuts[-1].place if cuts else 0) + PIECE:
            cuts += _first_cut(start, parts, first, bytearray(open_before))
    return cuts


def _slices(body: bytes | bytearray) -> Iterator[tuple[int, list[bytes], int]]:
    """Where each slice starts, its text split at quotes, and which part, 0 or 1, is the first outside of strings."""
    start, first = 0, 0
    while start < len(body):
        text = bytes(body[start : start + SLICE])
        if (len(text) - len(text.rstrip(b"\\"))) % 2:  # what the last one escapes belongs to it
            text = bytes(body[start : start + len(text) + 1])
        parts = text.replace(b"\\\\", b"__").replace(b'\\"', b"__").split(b'"')
        yield start, parts, first
        start += len(text)
        first ^= len(parts) % 2 == 0


def _first_cut(start: int, parts: list[bytes], first: int, stack: bytearray) -> Iterator[_Cut]:
    """Where a slice can be cut, if anywhere."""
    place = start
    for index, part in enumerate(parts):
        for found in _STRUCTURE.finditer(part) if index % 2 == first else ():
            if found[0] in (b"[", b"{"):
                stack += found[0]
            elif found[0] != b",":
                stack.pop()
            elif stack.endswith(b"["):
                yield _Cut(place + found.start(), bytes(stack))
                return
        place += len(part) + 1


def _in_pieces(body: bytes | bytearray, cuts: list[_Cut]) -> Any:
    whole: Any = None
    for before, after in pairwise([None, *cuts, None]):
        threads.give_way()
        start, open_lists = (before.place + 1, before.open) if before else (0, b"")
        text = body[start : after.place if after else None]
        if (before and _EMPTY.match(text)) or (after and text.rstrip().endswith((b"[", b","))):
            raise ValueError("a list has a comma without an item")
        begin = open_lists.replace(b"{", b'{"\\u0000":')
        end = bytes(_CLOSES[bracket] for bracket in reversed(after.open)) if after else b""
        piece = from_json(begin + text + end, allow_inf_nan=False)
        if before:
            _join(whole, piece, open_lists)
        else:
            whole = piece
    return whole


def _join(whole: Any, piece: Any, open_lists: bytes) -> None:
    """Put what a piece has behind what was there before it, in each list and object that was open between them."""
    try:
        for bracket in open_lists[:-1]:
            if bracket == ord("["):
                inner, more = whole[-1], piece[0]
                whole.extend(piece[1:])
            else:
                inner, more = whole[next(reversed(whole))], piece.pop(_HELD)
                whole.update(piece)
            whole, piece = inner, more
        whole.extend(piece)
    except (AttributeError, IndexError, KeyError, TypeError, StopIteration):
        raise ValueError("an object has the same key twice") from None
