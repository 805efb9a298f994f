"""Reports the progress of work as server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any

from anyio import CancelScope

from . import panics, sse
from .errors import BackendError
from .schemas.base import Response

Tell = Callable[[dict[str, Any]], None]

Work = Callable[[Callable[..., None]], Awaitable[Response]]
"""Work that returns a report. It gets a function to call with the numbers done and in total, the stage, and each stage's
progress if there are several."""


def events(work: Work) -> AsyncIterator[bytes]:
    """Yield an event for each step of the work, one with the report, and the final one."""
    return sse.events(items(work))


def items(work: Work) -> AsyncGenerator[dict[str, Any]]:
    """Yield `{"progress": {…}}` while the work goes on, and `{"report": {…}}` at its end. Leaving early cancels the work."""

    async def telling(tell: Tell) -> dict[str, Any]:
        def progress(
            done: int, total: int, stage: str, stages: dict[str, dict[str, int]] | None = None
        ) -> None:
            further = {} if stages is None else {"stages": stages}
            tell({"progress": {"done": done, "total": total, "stage": stage, **further}})

        return {"report": (await work(progress)).model_dump()}

    return told(telling)


async def told(work: Callable[[Tell], Awaitable[dict[str, Any]]]) -> AsyncGenerator[dict[str, Any]]:
    """Yield what the work tells, then its result. Leaving early cancels the work."""
    items: asyncio.Queue[dict[str, Any] | BaseException] = asyncio.Queue()
    scope = CancelScope()
    last: dict[str, Any] | None = None

    async def run() -> None:
        nonlocal last
        with scope:
            try:
                with panics.caught():
                    last = await work(items.put_nowait)
                    items.put_nowait(last)
            except Exception as error:
                items.put_nowait(error)

    def ended(task: asyncio.Task[None]) -> None:
        # If the task was cancelled from elsewhere, it has put nothing: wake the reader.
        items.put_nowait(BackendError("the work was stopped before it ended: try again", details={}))

    running = asyncio.create_task(run())
    running.add_done_callback(ended)
    try:
        while True:
            item = await items.get()
            if isinstance(item, BaseException):
                raise item
            yield item
            if item is last:
                return
    finally:
        scope.cancel()
        with CancelScope(shield=True):
            await asyncio.wait([running])
