"""The client for `await`, called as if it were the one for threads: so that one suite of tests is for both."""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import AsyncIterator, Awaitable, Coroutine
from typing import Any

from llmbackend import AsyncLLMBackendClient


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def wait(self, work: Awaitable[Any]) -> Any:
        async def waited() -> Any:
            return await work

        future = asyncio.run_coroutine_threadsafe(waited(), self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def begin(self, work: Coroutine[Any, Any, Any]) -> None:
        if self._loop.is_closed():
            work.close()
        else:
            asyncio.run_coroutine_threadsafe(work, self._loop)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Waiting:
    """Whatever is asked of `of`, waited for."""

    def __init__(self, loop: Loop, of: Any) -> None:
        object.__setattr__(self, "_loop", loop)
        object.__setattr__(self, "_of", of)

    def _waited(self, value: Any) -> Any:
        if inspect.isawaitable(value):
            value = self._loop.wait(value)
        return Waiting(self._loop, value) if isinstance(value, AsyncIterator) else value

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._of, name)
        if name == "_transport":
            return Waiting(self._loop, value)
        if not inspect.ismethod(value):
            return value
        return lambda *args, **kwargs: self._waited(value(*args, **kwargs))

    def __getitem__(self, name: str) -> Waiting:
        return Waiting(self._loop, self._of[name])

    def __setattr__(self, name: str, value: Any) -> None:
        """Replace an attribute; a function in a coroutine function's place runs in a thread, where it may wait for others."""
        if inspect.iscoroutinefunction(getattr(self._of, name, None)):
            value = functools.partial(asyncio.to_thread, value)
        setattr(self._of, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._of, name)

    def __repr__(self) -> str:
        return repr(self._of).replace("Async", "")

    def __iter__(self) -> Waiting:
        return self

    def __next__(self) -> Any:
        try:
            return self._waited(anext(self._of))
        except StopAsyncIteration:
            raise StopIteration from None

    def __enter__(self) -> Waiting:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if isinstance(self._of, AsyncIterator) and hasattr(self._of, "close"):
            self._loop.begin(self._of.close())  # this may be the loop's own thread


def client(loop: Loop, *args: Any, **kwargs: Any) -> Any:
    async def made() -> AsyncLLMBackendClient:
        return AsyncLLMBackendClient(*args, **kwargs)

    making: Coroutine[Any, Any, AsyncLLMBackendClient] = made()
    return Waiting(loop, loop.wait(making))
