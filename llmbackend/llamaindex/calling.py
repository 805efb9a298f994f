"""A client's operations, which block, for methods that are awaited: in threads of their own, so that no loop waits."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any, TypeVar

from .. import threads

_Result = TypeVar("_Result")
_END: Any = object()


async def call(work: Callable[..., _Result], *args: Any) -> _Result:
    """What `work` returns or raises. A caller who is cancelled does not wait for its end."""
    return await threads.calls(work, *args, abandon_on_cancel=True)


async def pieces(stream: Iterator[_Result]) -> AsyncGenerator[_Result, None]:
    """What an iterator gives, one by one. It is closed when nobody reads on, which ends the work behind it."""
    try:
        while (piece := await call(next, stream, _END)) is not _END:
            yield piece
    finally:
        stream.close()  # type: ignore[attr-defined]  # those of a client can be, from any thread
