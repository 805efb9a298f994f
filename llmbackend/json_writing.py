"""Writes results as JSON piece by piece: pydantic holds the interpreter's lock until it is done with a piece."""

from __future__ import annotations

from pydantic import BaseModel

from . import threads

INLINE_ITEMS = 16
"""Items of which a result is written on the loop, which is over before a thread has begun."""


def few(result: BaseModel) -> bool:
    """Whether a result is a list of a few items, or several such lists, or has single values only."""
    values = vars(result).values()
    if lengths := [len(value) for value in values if _items(value)]:
        return max(lengths) <= INLINE_ITEMS
    return all(few(value) if isinstance(value, BaseModel) else _is_single(value) for value in values)


def write(result: BaseModel) -> bytes:
    """What `model_dump_json` writes, each item of its lists by itself."""
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
