"""Runs a client's blocking operations for methods that are awaited, in threads, so that no event loop is blocked."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any, TypeVar

from .. import threads

_Result = TypeVar("_Result")
_END: Any = object()


async def call(work: Callable[..., _Result], *args: Any) -> _Result:
    """Return what `work` returns, or raise what it raises. A cancelled caller does not wait for it to end."""
    return await threads.calls(work, *args, abandon_on_cancel=True)


async def pieces(stream: Iterator[_Result]) -> AsyncGenerator[_Result, None]:
    """Yield the items of a stream. Leaving the generator closes the stream, which ends the work behind it."""
    try:
        while (piece := await call(next, stream, _END)) is not _END:
            yield piece
    finally:
        stream.close()  # type: ignore[attr-defined]  # a client's streams can be closed from any thread
