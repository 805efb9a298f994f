"""Writes JSON piece by piece: pydantic and json hold the interpreter's lock while they write a piece."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from . import threads

INLINE_ITEMS = 16
"""A result of at most so many items is written on the event loop: starting a thread would take longer."""
PIECE = 2**18
"""Characters written at once, which takes about a millisecond."""


async def dumps(value: Any) -> bytes:
    """Like `json.dumps`, for dicts with string keys, lists and scalars; many or long ones are written in a thread."""
    return await threads.processor(_dumps, value) if _is_large(value) else json.dumps(value).encode()


def _dumps(value: Any) -> bytes:
    written = bytearray()
    for piece in _pieces(value):
        threads.give_way()
        written += piece.encode()
    return bytes(written)


def _pieces(value: Any) -> Iterator[str]:
    if not _is_large(value):
        yield json.dumps(value)
    elif isinstance(value, str):
        yield '"'
        for start in range(0, len(value), PIECE):
            yield json.dumps(value[start : start + PIECE])[1:-1]
        yield '"'
    elif isinstance(value, dict):
        for number, (name, one) in enumerate(value.items()):
            yield f"{', ' if number else '{'}{json.dumps(name)}: "
            yield from _pieces(one)
        yield "}"
    else:
        for number, one in enumerate(value):
            yield ", " if number else "["
            yield from _pieces(one)
        yield "]"


def _is_large(value: Any) -> bool:
    return size(value, PIECE) > PIECE


def size(value: Any, most: float = math.inf) -> int:
    """The approximate length of a value as JSON; counting stops once it exceeds `most`."""
    characters, left = 0, [value]
    while left and characters <= most:
        one = left.pop()
        kind = type(one)
        characters += 4
        if kind is str:
            characters += len(one)
        elif kind is dict:
            left.extend(one)
            left.extend(one.values())
        elif kind is list or kind is tuple:
            left.extend(one)
    return characters


def few(result: BaseModel) -> bool:
    """Whether a result has scalars and short lists only."""
    values = vars(result).values()
    if lengths := [len(value) for value in values if _items(value)]:
        return max(lengths) <= INLINE_ITEMS
    return all(few(value) if isinstance(value, BaseModel) else _is_single(value) for value in values)


def write(result: BaseModel) -> bytes:
    """Like `model_dump_json`, with each item of its lists written separately."""
    written = bytearray(b"{")
    for name in type(result).model_fields:
        value = getattr(result, name)
        if _items(value):
            written += f'"{name}":['.encode()
            for item in value:
                threads.give_way()
                written += item.model_dump_json().encode() + b","
            written[-1:] = b"],"
        elif part := result.model_dump_json(include={name})[1:-1]:
            written += part.encode() + b","
    if written.endswith(b","):
        del written[-1]
    written += b"}"
    return bytes(written)


def _items(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], BaseModel)


def _is_single(value: object) -> bool:
    return value is None or isinstance(value, str | int | float)
