"""Writes JSON piece by piece: pydantic and json hold the interpreter's lock while they write a piece."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_json

from . import slices, threads

INLINE_ITEMS = 16
"""A result of at most so many items is written on the event loop: starting a thread would take longer."""
PIECE = 2**18
"""Characters written at once, which takes about a millisecond."""


async def dumps(value: Any) -> bytes:
    """Like `json.dumps`, for dicts with string keys, lists and scalars; many or long ones are written in a thread."""
    return await threads.processor(_dumps, value) if is_large(value) else json.dumps(value).encode()


def _dumps(value: Any) -> bytes:
    # Joined as text and then encoded, it would be copied three times.
    return b"".join([piece.encode() for piece in pieces(value)])


def text(value: Any, separators: tuple[str, str] = (", ", ": ")) -> str:
    """Like `json.dumps`, in pieces. It blocks, so large values are written in a thread."""
    written = io.StringIO()
    written.writelines(pieces(value, separators))
    return written.getvalue()


def pieces(value: Any, separators: tuple[str, str] = (", ", ": ")) -> Iterator[str]:
    """Yield what `text` returns, for a thread."""
    for piece in _pieces(value, separators):
        slices.give_way()
        yield piece


def _pieces(value: Any, separators: tuple[str, str]) -> Iterator[str]:
    comma, colon = separators
    if not is_large(value):
        yield json.dumps(value, separators=separators)
    elif isinstance(value, str):
        yield '"'
        for start in range(0, len(value), PIECE):
            yield json.dumps(value[start : start + PIECE])[1:-1]
        yield '"'
    elif isinstance(value, dict):
        for number, (name, one) in enumerate(value.items()):
            yield f"{comma if number else '{'}{json.dumps(name)}{colon}"
            yield from _pieces(one, separators)
        yield "}"
    else:
        for number, one in enumerate(value):
            yield comma if number else "["
            yield from _pieces(one, separators)
        yield "]"


def fields(value: Any) -> Iterator[bytes]:
    """Like `model_dump_json(by_alias=True)`, in pieces, for models without serializers of their own."""
    if not is_large(value):
        yield to_json(value, by_alias=True)
    elif isinstance(value, BaseModel):
        begin = b"{"
        for name, field in type(value).model_fields.items():
            if not field.exclude:
                yield begin + to_json(field.alias or name) + b":"
                yield from fields(getattr(value, name))
                begin = b","
        yield b"}"
    elif isinstance(value, str):
        yield b'"'
        for start in range(0, len(value), PIECE):
            yield to_json(value[start : start + PIECE])[1:-1]
        yield b'"'
    elif isinstance(value, dict):
        for number, (name, one) in enumerate(value.items()):
            yield (b"," if number else b"{") + to_json(name) + b":"
            yield from fields(one)
        yield b"}"
    else:
        for start in range(0, len(value), RUN):
            yield b"," if start else b"["
            run = value[start : start + RUN]
            if is_large(run) and len(run) > 1:
                for number, one in enumerate(run):
                    yield b"," if number else b""
                    yield from fields(one)
            elif len(run) > 1:
                yield to_json(run, by_alias=True)[1:-1]
            else:
                yield from fields(run[0])
        yield b"]"


RUN = 256
"""Items of a list that are written in one go, unless they are large."""


def is_large(value: Any) -> bool:
    """Return whether writing a value takes milliseconds."""
    return size(value, PIECE) > PIECE


def size(value: Any, most: float = math.inf) -> int:
    """The approximate length of a value or a model as JSON; counting stops once it exceeds `most`."""
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
        elif isinstance(one, BaseModel):
            left.extend(vars(one).values())
    return characters


def few(result: BaseModel) -> bool:
    """Return whether a result has only scalars and short lists."""
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
                slices.give_way()
                written += item.model_dump_json().encode() + b","
            written[-1:] = b"],"
        elif part := result.model_dump_json(include={name})[1:-1]:
            written += part.encode() + b","
    if written.endswith(b","):
        del written[-1]
    written += b"}"
    return bytes(written)


def objects(result: BaseModel) -> dict[str, Any]:
    """Like `model_dump(mode="json")`, with each item of its lists made separately."""
    made: dict[str, Any] = {}
    for name in type(result).model_fields:
        value = getattr(result, name)
        if _items(value):
            made[name] = items = []
            for item in value:
                slices.give_way()
                items.append(item.model_dump(mode="json"))
        else:
            made |= result.model_dump(mode="json", include={name})
    return made


def _items(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], BaseModel)


def _is_single(value: object) -> bool:
    return value is None or isinstance(value, str | int | float)
