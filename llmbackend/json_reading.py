"""Reads the JSON of a request: checks its size before it is parsed, and does not block other threads.

Parsers in C hold the interpreter's lock until they are done, for most of a second with a body of 60 MB, and a few bytes of
JSON may become a kilobyte of objects. So a body is first scanned in slices, to count its values, and then parsed in
pieces, which are cut between the items of its lists.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

from pydantic_core import from_json

from . import slices, threads
from .errors import InvalidRequest, LLMBackendError, TooLarge

VALUES = 1_000_000
"""Most JSON values (texts, numbers, lists, …) in one request: at most a quarter of a gigabyte of Python objects."""

CONTAINERS = 250_000
"""Most lists and objects among them, which take the most memory: a document with metadata is two."""

NAMES = 10_000
"""Most fields of one object: an error message may have to mention each."""

MAX_NESTING = 100
"""Most levels of lists and objects; the parser itself takes 200."""

SLICE = 2**18  # bytes scanned at a time
PIECE = 2**20  # bytes parsed at a time, about: some milliseconds

_STRUCTURE = re.compile(rb"[\[\]{},]")
_CLOSES = {ord("["): ord("]"), ord("{"): ord("}"), ord('"'): ord('"')}
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_HALVES = re.compile(rb"\\\\|\\u[dD][89abAB]..\\u[dD][c-fC-F]..|\\u[dD][89a-fA-F]..", re.DOTALL)
_UNFINISHED = re.compile(
    rb"\\(?:u[0-9a-fA-F]{0,3})?\Z|\\u[dD][89abAB][0-9a-fA-F]{2}(?:\\(?:u[0-9a-fA-F]{0,3})?)?\Z|[\xc0-\xff][\x80-\xbf]*\Z"
)
"""An unfinished character at the end of a text, or half a surrogate pair whose other half may follow."""
_LONGEST = 12
"""Most bytes of a character: two escapes."""
_EMPTY = re.compile(rb"\s*(?:[]}]|\Z)")
_HELD = uuid.uuid4().hex
"""The key, in a piece, of a value that began in the previous piece. No caller can know it."""
_GOES_ON = f'"{_HELD}":'.encode()
_OPEN = uuid.uuid4().hex
"""Marks the end of the innermost open value in a piece, where the next piece continues."""


class _Cut(NamedTuple):
    """A place where a body is cut, at a comma or within a text, and the brackets open there, outermost first; an open text
    is a quote.
    """

    place: int
    open: bytes

    @property
    def in_text(self) -> bool:
        return self.open.endswith(b'"')


class Scanned(NamedTuple):
    values: int
    cuts: list[_Cut]


class _Text(list[str]):
    """The parts of a text that is not complete yet."""


def read(body: bytes | bytearray, name: str, scanned: Scanned | None = None) -> Any:
    """Parse a body. It blocks, so large bodies are read in a thread. `name` is the operation's, for error messages.

    Raises TooLarge for too many values, InvalidRequest for invalid JSON. `scanned` is the result of an earlier `scan`.
    """
    try:
        value = _in_pieces(body, (scanned or scan(body, name)).cuts, _mended)
    except ValueError as error:
        raise InvalidRequest(f"{name}: the body is not JSON: {error}") from error
    _check_names(value, name)
    return value


def own(text: str) -> Any:
    """Parse JSON that was written here, of any size. It blocks, so a large text is parsed in a thread."""
    body = bytearray()
    for start in range(0, len(text), SLICE):
        slices.give_way()
        body += text[start : start + SLICE].encode()
    return _in_pieces(body, scan(body, "JSON", bounded=False).cuts, _exact)


def _check_names(value: Any, name: str) -> None:
    left = [value] if isinstance(value, dict | list) else []
    while left:
        slices.give_way()
        one = left.pop()
        if isinstance(one, dict) and len(one) > NAMES:
            raise TooLarge(
                f"{name}: an object in the request has more than {NAMES:,} fields: send less at a time",
                details={"limit": NAMES},
            )
        values = one.values() if isinstance(one, dict) else one
        left += (each for each in values if isinstance(each, dict | list))


async def reply(body: bytes) -> Any:
    """Parse a model server's reply, whose size is limited already. Raises ValueError for invalid JSON.

    A large one is parsed in a thread, piece by piece: in one go, 28 MB would block everything else for half a second.
    """
    return _reply(body) if len(body) <= SLICE else await threads.processor(_reply, body)


def _reply(body: bytes) -> Any:
    try:
        if len(body) <= SLICE:
            return from_json(body)
        return _in_pieces(body, scan(body, "a reply", bounded=False).cuts, _exact)
    except (
        ValueError,
        LLMBackendError,
    ):  # half a surrogate pair, for instance: Python's own parser accepts more
        return json.loads(body)


def _exact(piece: bytes | bytearray) -> Any:
    return from_json(piece, allow_inf_nan=False)


def _mended(piece: bytes | bytearray) -> Any:
    try:
        return _exact(piece)
    except ValueError:
        if (mended := without_halves(piece)) == piece:
            raise
        return _exact(mended)


def without_halves(body: bytes | bytearray) -> bytes | bytearray:
    """Replace each escape of half a surrogate pair by that of U+FFFD, which has the same length.

    Models write such halves, and a text that was cut within a character ends in one.
    """
    if b"\\u" not in body:
        return body
    return _HALVES.sub(lambda found: b"\\uFFFD" if len(found[0]) == 6 else found[0], body)


def check_depth(body: bytes | bytearray, name: str) -> None:
    """Refuse a body that is nested too deeply. For bodies too small to have too many values."""
    if body.count(b"[") + body.count(b"{") > MAX_NESTING:
        scan(body, name)


def scan(body: bytes | bytearray, name: str, *, bounded: bool = True) -> Scanned:
    """Count a body's values, and find where to cut it. Raises what `read` raises."""
    values, containers, stack = 1, 0, bytearray()
    cuts: list[_Cut] = []
    before = b""  # the last character before a text that is not white space
    for start, parts, first in _slices(body):
        slices.give_way()
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
        is_value = before == b":" or stack.endswith(b"[")  # rather than a key
        if first and stack and is_value and _is_due(start, cuts):
            cuts.append(_Cut(start, bytes(stack) + b'"'))
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
        if _is_due(start, cuts):
            cuts += _first_cut(start, parts, first, bytearray(open_before))
        before = next((part[-1:] for part in map(bytes.rstrip, parts[first::2][::-1]) if part), before)
    return Scanned(values, cuts)


def _is_due(place: int, cuts: list[_Cut]) -> bool:
    return place >= (cuts[-1].place if cuts else 0) + PIECE


def _slices(body: bytes | bytearray) -> Iterator[tuple[int, list[bytes], int]]:
    """Yield each slice's start, its text split at quotes, and which part, 0 or 1, is the first one outside of strings.

    Each slice ends with a whole character.
    """
    start, first = 0, 0
    size = max(SLICE, 2 * _LONGEST)
    while start < len(body):
        text = bytes(body[start : start + size])
        if start + size < len(body):
            text = text[: _whole(text)]
        parts = text.replace(b"\\\\", b"__").replace(b'\\"', b"__").split(b'"')
        yield start, parts, first
        start += len(text)
        first ^= len(parts) % 2 == 0


def _whole(text: bytes) -> int:
    """Return how many bytes of a slice are whole characters."""
    begins = len(text) - _LONGEST
    while found := _UNFINISHED.search(text, begins):
        before = text[: found.start()]
        if (len(before) - len(before.rstrip(b"\\"))) % 2 == 0:
            return len(before)
        begins = found.start() + 1  # the backslash is itself escaped
    return len(text)


def _first_cut(start: int, parts: list[bytes], first: int, stack: bytearray) -> Iterator[_Cut]:
    """Yield the first place where a slice can be cut between values, if there is one."""
    place = start
    for index, part in enumerate(parts):
        for found in _STRUCTURE.finditer(part) if index % 2 == first else ():
            if found[0] in (b"[", b"{"):
                stack += found[0]
            elif found[0] != b",":
                stack.pop()
            elif stack:
                yield _Cut(place + found.start(), bytes(stack))
                return
        place += len(part) + 1


def _in_pieces(body: bytes | bytearray, cuts: list[_Cut], parsed: Callable[[bytes | bytearray], Any]) -> Any:
    if not cuts:
        return parsed(body)
    whole: Any = None
    for before, after in pairwise([None, *cuts, None]):
        slices.give_way()
        start = 0 if before is None else before.place + (not before.in_text)
        text = body[start : after.place if after else None]
        if before and not before.in_text and _EMPTY.match(text):
            raise ValueError("a list or an object has a comma without an item")
        if after and not after.in_text and text.rstrip().endswith((b"[", b"{", b",")):
            raise ValueError("a list or an object has a comma without an item")
        begin = before.open.replace(b"{", b"{" + _GOES_ON) if before else b""
        begin = begin.removesuffix(_GOES_ON)  # a new value begins in the innermost open list or object
        end = _end(after) if after else b""
        piece = parsed(begin + text + end)
        if before:
            _join(
                whole,
                piece,
                before.open,
                goes_on=after is not None and after.open == before.open,
            )
        else:
            whole = piece
    return whole


def _end(cut: _Cut) -> bytes:
    """Return the brackets that close everything open at a cut."""
    marks = {ord("["): f',"{_OPEN}"', ord("{"): f',"{_OPEN}":0', ord('"'): _OPEN}
    return marks[cut.open[-1]].encode() + bytes(_CLOSES[bracket] for bracket in reversed(cut.open))


def _join(whole: Any, piece: Any, open_: bytes, *, goes_on: bool) -> None:
    """Append a piece's values to the earlier ones, in each list and object that was open between them.

    In an object, the open value is that of its last key, unless the key occurred before: then the value found is not marked
    as open. With `goes_on`, the innermost value may still be open, if nothing followed it.
    """
    try:
        in_text = open_.endswith(b'"')
        for bracket in open_[: -2 if in_text else -1]:
            if bracket == ord("["):
                inner, more = whole[-1], piece.pop(0)
                whole.extend(piece)
            else:
                inner, more = whole[next(reversed(whole))], piece.pop(_HELD)
                whole.update(piece)
            goes_on = goes_on and not piece
            whole, piece = inner, more
        if in_text:
            last: Any = -1 if isinstance(whole, list) else next(reversed(whole))
            text = whole[last] if isinstance(whole[last], _Text) else _Text([whole[last]])
            if not text[-1].endswith(_OPEN):
                raise KeyError(last)
            text[-1] = text[-1].removesuffix(_OPEN)
            text.append(piece.pop(0 if isinstance(whole, list) else _HELD))
            whole[last] = text if goes_on and not piece else "".join(text)
        elif isinstance(whole, list):
            if whole.pop() != _OPEN:
                raise KeyError(_OPEN)
        else:
            del whole[_OPEN]
        if isinstance(whole, list):
            whole.extend(piece)
        else:
            whole.update(piece)
    except (AttributeError, IndexError, KeyError, TypeError, StopIteration):
        raise ValueError("an object has the same key twice") from None
