"""Transports of the asynchronous client: in this process on the caller's own loop, or over HTTP by aiohttp."""

from __future__ import annotations

import asyncio
import itertools
import os
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar
from urllib.parse import urlencode

from llm_client import (
    AHEAD,
    CONNECT_SECONDS,
    __version__,
    _batches,
    _certificates,
    _HttpAddress,
    _Source,
    encoded,
)

from . import operations, settings, threads
from .agents import tooling
from .backend import Backend
from .errors import Conflict, LLMBackendError, TransportError
from .local import END, Core, Room, Stream, is_plain, other_settings, pump, require_begun, stays_here
from .operations import Body
from .settings import Settings
from .tracing import Trace

if TYPE_CHECKING:
    import aiohttp

_Result = TypeVar("_Result")
_Page = TypeVar("_Page")


class AsyncTransport(Protocol):
    """The asynchronous form of `Transport`."""

    async def call(self, operation: str, given: dict[str, Any]) -> bytes:
        """Return the operation's JSON result as UTF-8. Raises an LLMBackendError."""

    async def stream(self, operation: str, given: dict[str, Any]) -> AsyncIterator[bytes]:
        """Return an iterator of the operation's server-sent events in pieces. Raises if the request is refused."""

    async def close(self) -> None:
        """Release connections and files."""


class Pieces(AsyncIterator[bytes]):
    """A stream's pieces as they arrive. `close()` ends the stream, read to its end or not."""

    def __init__(self, pieces: AsyncIterator[bytes], end: Callable[[], Awaitable[None]]) -> None:
        self._pieces = pieces
        self._end = end

    async def __anext__(self) -> bytes:
        return await anext(self._pieces)

    async def close(self) -> None:
        await self._end()


class AsyncLocalTransport:
    """Calls the core on the loop that first uses it. Clients of one data directory share a core.

    If this process already has a synchronous client of that data directory, they share that one's core, on its own loop.
    """

    def __init__(self, options: Settings | None = None) -> None:
        self._options = options or settings.load()
        self._core: LoopCore | ThreadCore | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"AsyncLocalTransport({'closed' if self._closed else str(self._options.data_dir)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        raise stays_here()

    async def call(self, operation: str, given: dict[str, Any]) -> bytes:
        core = await self._require()
        plain = is_plain(given, self._options.max_body_bytes)
        body = given if plain else encoded(operation, given)
        return await core.run(operations.call, Trace(operation), body)

    async def read(self, operation: str, given: dict[str, Any]) -> bytes | dict[str, Any]:
        """Return the result as `call` does, or as objects if that takes no parsing."""
        core = await self._require()
        plain = is_plain(given, self._options.max_body_bytes)
        body = given if plain else encoded(operation, given)
        return await core.run(operations.read, Trace(operation), body)

    async def stream(self, operation: str, given: dict[str, Any]) -> AsyncIterator[bytes]:
        core = await self._require()
        return await core.stream(Trace(operation), encoded(operation, given))

    def offer_tool(self, function: Any) -> str:
        """Register a function as a tool of this process's agents, and return its name. Raises InvalidRequest."""
        return tooling.offer(function)

    async def close(self) -> None:
        core, self._core, self._closed = self._core, None, True
        if core is not None:
            await core.release()

    async def _require(self) -> LoopCore | ThreadCore:
        if self._closed:
            raise TransportError("this client is closed: make a new one", details={"closed": True})
        if self._core is None:
            core = await _acquired(self._options)
            if self._core is None and not self._closed:
                self._core = core
            else:  # another task has acquired one, or the client was closed meanwhile
                await core.release()
                return await self._require()
        self._core.check()
        return self._core


async def _acquired(options: Settings) -> LoopCore | ThreadCore:
    if options.data_dir not in LoopCore.all and (shared := Core.joined(options)) is not None:
        return ThreadCore(shared)
    return await LoopCore.acquire(options)


class ThreadCore:
    """The core of a synchronous client, on its own loop in a thread."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def check(self) -> None:
        self._core.check()

    async def run(self, work: Callable[..., Awaitable[_Result]], trace: Trace, body: Body) -> _Result:
        started = self._core.start(trace.leave, work, self._core.backend, trace, body)
        return await asyncio.wrap_future(started)

    async def stream(self, trace: Trace, body: bytes) -> Pieces:
        events = Stream(self._core, trace, body)
        try:
            await threads.calls(events.begin, abandon_on_cancel=True)
        except asyncio.CancelledError:
            events.close()
            raise

        async def pieces() -> AsyncIterator[bytes]:
            while (piece := await threads.calls(next, events, None)) is not None:
                yield piece

        async def end() -> None:
            events.close()

        return Pieces(pieces(), end)

    async def release(self) -> None:
        await threads.calls(self._core.release)


class LoopCore:
    """A Backend on its clients' loop. It counts its clients, and closes with the last one."""

    all: ClassVar[dict[Path, LoopCore]] = {}
    _closing: ClassVar[dict[Path, LoopCore]] = {}
    """Cores without clients that have not yet released their data directories."""

    def __init__(self, options: Settings) -> None:
        self.settings = options
        self.users = 0
        self._loop = asyncio.get_running_loop()
        self._closed = asyncio.Event()
        self._given_up: set[asyncio.Task[Any]] = set()
        self._before = self._closing.get(options.data_dir)
        self._opening = self._loop.create_task(self._open())

    async def _open(self) -> Backend:
        await self._turn()
        return await Backend.open(self.settings)

    async def _turn(self) -> None:
        """Wait until the previous core has released the data directory, unless it is on another loop."""
        if self._before is not None and self._before._loop is self._loop:
            await self._before._closed.wait()
        self._before = None

    @classmethod
    async def acquire(cls, options: Settings) -> LoopCore:
        folder = options.data_dir
        core = cls.all.get(folder)
        if core is None:
            core = cls.all[folder] = cls(options)
        elif core.settings != options:
            raise other_settings(folder)
        core.check()
        core.users += 1
        try:
            await asyncio.shield(core._opening)
        except BaseException:
            await core.release()
            raise
        return core

    def check(self) -> None:
        if asyncio.get_running_loop() is not self._loop:
            raise _other_loop(self._loop, {"data_dir": str(self.settings.data_dir)})

    async def run(
        self, work: Callable[..., Coroutine[Any, Any, _Result]], trace: Trace, body: Body
    ) -> _Result:
        """Return `work`'s result. A task of its own, because replies under way outlast a cancelled caller."""
        task = self._loop.create_task(work(self._opening.result(), trace, body))
        ended = self._loop.create_future()
        task.add_done_callback(lambda _: None if ended.done() else ended.set_result(None))
        try:
            await ended
        except asyncio.CancelledError:
            self.give_up(trace, task)
            raise
        return task.result()

    async def stream(self, trace: Trace, body: bytes) -> LoopStream:
        stream = LoopStream(self, self._opening.result(), trace, body)
        await stream.begin()
        return stream

    def give_up(self, trace: Trace, task: asyncio.Task[Any]) -> None:
        """End a call that nobody waits for, once replies under way are counted."""
        if not task.done():
            self._given_up.add(task)
            task.add_done_callback(self._forget)
            trace.leave(lambda: task.cancelling() or task.cancel())

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._given_up.discard(task)
        if not task.cancelled():
            task.exception()  # read, or asyncio would report it as lost

    async def release(self) -> None:
        self.users -= 1
        if self.users == 0:
            folder = self.settings.data_dir
            del self.all[folder]
            self._closing[folder] = self
            try:
                if not self._opening.done():
                    self._opening.cancel()
                    await asyncio.wait([self._opening])
                    await self._turn()
                elif self._opening.exception() is None:
                    if self._given_up:
                        await asyncio.wait(self._given_up, timeout=self.settings.hang_up_seconds)
                    await self._opening.result().close()
            finally:
                self._closed.set()
                if self._closing.get(folder) is self:
                    del self._closing[folder]


class LoopStream(AsyncIterator[bytes]):
    """A stream of a core on the caller's loop."""

    def __init__(self, core: LoopCore, backend: Backend, trace: Trace, given: Body) -> None:
        self._items: asyncio.Queue[object] = asyncio.Queue()
        self._room = room = Room()
        self._loop = asyncio.get_running_loop()
        # Without a reference to this object, so that a stream that nobody holds any more is ended.
        pumping = self._loop.create_task(pump(backend, trace, given, self._items.put_nowait, room, None))

        def give_up() -> None:
            room.open()
            core.give_up(trace, pumping)

        self._give_up = give_up

    async def begin(self) -> None:
        """Wait until the operation has begun. Raises what it raises until then; cancelling this cancels it."""
        try:
            require_begun(await self._items.get())
        except BaseException:
            self._give_up()
            raise

    async def __anext__(self) -> bytes:
        item = await self._items.get()
        if isinstance(item, bytes):
            self._room.leave(len(item))
            return item
        self._items.put_nowait(END)  # for later calls
        raise StopAsyncIteration

    async def close(self) -> None:
        self._give_up()

    def __del__(self) -> None:
        with suppress(RuntimeError):  # the loop has ended, and with it the work
            self._loop.call_soon_threadsafe(self._give_up)


def _other_loop(loop: asyncio.AbstractEventLoop, used: dict[str, str]) -> Conflict:
    """Return the error for what another loop uses."""
    how = "has ended" if loop.is_closed() else "is another one"
    (what,) = used.values()
    return Conflict(
        f"the event loop that uses {what} {how}: use a client within one loop, and end it by `async with` or "
        "`await client.close()`",
        details={**used},
    )


def local_transport() -> AsyncLocalTransport:
    return AsyncLocalTransport()


class AsyncHttpTransport:
    """Operations over HTTP, the asynchronous form of `HttpTransport`. Connections are kept open."""

    def __init__(
        self, api_url: str, api_key: str | None = None, timeout: float = 600, retries: int = 2
    ) -> None:
        self._address = _HttpAddress(api_url, timeout, retries, api_key)
        self.api_url = self._address.api_url
        self._headers = {"User-Agent": f"llmbackend-python/{__version__} aiohttp"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._address.given

    def __repr__(self) -> str:
        return f"AsyncHttpTransport({self.api_url!r})"

    async def call(self, operation: str, given: dict[str, Any]) -> bytes:
        async def whole(response: aiohttp.ClientResponse) -> bytes:
            return await response.read()

        return await self._send(operation, given, whole)

    async def stream(self, operation: str, given: dict[str, Any]) -> AsyncIterator[bytes]:
        async def begun(response: aiohttp.ClientResponse) -> aiohttp.ClientResponse:
            return response

        response = await self._send(operation, given, begun)

        async def end() -> None:
            response.close()

        return Pieces(self._pieces(response), end)

    async def _pieces(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        import aiohttp

        try:
            async for piece in response.content.iter_any():
                yield piece
        except (aiohttp.ClientError, TimeoutError) as error:
            raise TransportError(f"the connection to {self.api_url} broke: {error}") from error
        finally:
            response.close()

    async def _send(
        self,
        operation: str,
        given: dict[str, Any],
        read: Callable[[aiohttp.ClientResponse], Awaitable[_Result]],
    ) -> _Result:
        """Send a request, retry it if needed, and return what `read` makes of the response."""
        request = self._address.request(operation, given)
        for retry in itertools.count():
            if self._closed:
                raise TransportError("this client is closed: make a new one", details={"closed": True})
            try:
                return await self._sent(operation, request, read)
            except LLMBackendError as error:
                pause = self._address.pause(operation, error, retry)
                if pause is None:
                    raise
            await asyncio.sleep(pause)
        raise AssertionError  # count() has no end

    async def _sent(
        self,
        operation: str,
        request: dict[str, Any],
        read: Callable[[aiohttp.ClientResponse], Awaitable[_Result]],
    ) -> _Result:
        import aiohttp
        from yarl import URL

        loop = asyncio.get_running_loop()
        if self._session is None or self._loop is None:
            self._session, self._loop = self._opened(), loop
        elif self._loop is not loop:
            raise _other_loop(self._loop, {"api_url": self.api_url})
        query = urlencode(request["params"])
        url = URL(request["url"] + (f"?{query}" if query else ""), encoded=True)
        try:
            response = await self._session.request(
                request["method"],
                url,
                data=request["data"],
                headers=request["headers"],
                allow_redirects=False,
            )
            try:
                content = b"" if response.status == 200 else await response.read()
                self._address.check(operation, response.status, response.headers, content)
                return await read(response)
            except BaseException:
                response.close()
                raise
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._address.unanswered(_kind(error), error) from error

    def _opened(self) -> aiohttp.ClientSession:
        import aiohttp
        from requests.utils import get_environ_proxies, select_proxy

        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_SECONDS, sock_read=self._address.timeout
        )
        connector = aiohttp.TCPConnector(
            limit=0, ssl=_trusted() if self.api_url.startswith("https") else True
        )
        # Without `trust_env`, by which aiohttp would take credentials from ~/.netrc; HttpTransport does not either.
        proxy = select_proxy(self.api_url, get_environ_proxies(self.api_url))
        return aiohttp.ClientSession(headers=self._headers, timeout=timeout, connector=connector, proxy=proxy)

    async def close(self) -> None:
        self._closed = True
        if self._session is not None:
            await self._session.close()


def _trusted() -> ssl.SSLContext:
    named = _certificates()
    folder = os.path.isdir(named)
    return ssl.create_default_context(cafile=None if folder else named, capath=named if folder else None)


def _kind(error: Exception) -> str:
    """Return the kind of aiohttp's failure, as `_HttpAddress.unanswered` names it."""
    import aiohttp

    kinds: dict[str, type[Exception] | tuple[type[Exception], ...]] = {
        "connecting": aiohttp.ConnectionTimeoutError,
        "timeout": TimeoutError,
        "certificate": aiohttp.ClientConnectorCertificateError,
        "tls": aiohttp.ClientSSLError,
        "proxy": (aiohttp.ClientProxyConnectionError, aiohttp.ClientHttpProxyError),
        "name": aiohttp.ClientConnectorDNSError,
        "refused": aiohttp.ClientConnectorError,
        "broken": (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError),
    }
    for kind, classes in kinds.items():
        if isinstance(error, classes):
            return kind
    return "other"


async def in_thread(work: Callable[..., Any], *args: Any) -> Any:
    """Return `work(*args)`, or a list of what it yields, run in a thread because it reads files."""

    def whole() -> Any:
        found = work(*args)
        return list(found) if isinstance(found, Iterator) else found

    return await threads.files(whole)


async def batches(source: _Source) -> AsyncIterator[list[Any]]:
    """Do what `_batches` does. A synchronous source is read in a thread, unless it is in memory."""
    if not hasattr(source.items, "__aiter__"):
        reading = _batches(source)
        in_memory = isinstance(source.items, list | tuple) or not hasattr(source.items, "__iter__")
        while (
            batch := next(reading, None) if in_memory else await threads.files(next, reading, None)
        ) is not None:
            yield batch
        return
    items = aiter(source.items)
    any_yet = False
    while not source.ended:
        await _read(source, items)
        batch = source.batch()
        if batch or not (any_yet or source.broken):
            any_yet = True
            yield batch
    source.check()


async def ahead(
    transport: AsyncTransport,
    operation: str,
    pages: AsyncIterator[_Page],
    given: Callable[[_Page], dict[str, Any]],
) -> AsyncIterator[tuple[_Page, bytes]]:
    """Do what `_ahead` does, asynchronously."""
    waiting: deque[tuple[_Page, asyncio.Task[bytes]]] = deque()
    broken: LLMBackendError | None = None
    ended = False
    try:
        while waiting or not ended:
            try:
                while not ended and len(waiting) <= AHEAD:
                    page = await anext(pages)
                    asked = transport.call(operation, given(page))
                    waiting.append((page, asyncio.ensure_future(asked)))
            except StopAsyncIteration:
                ended = True
            except LLMBackendError as error:
                ended, broken = True, error
            if waiting:
                page, reply = waiting.popleft()
                try:
                    yield page, await reply
                finally:
                    reply.cancel()
    finally:
        for _, reply in waiting:
            reply.cancel()
        await asyncio.gather(*(reply for _, reply in waiting), return_exceptions=True)
    if broken is not None:
        raise broken


async def _read(source: _Source, items: AsyncIterator[Any]) -> None:
    try:
        async for item in items:
            source.take(item)
            if source.full:
                return
        source.ended = True
    except Exception as error:
        source.end_by(error)
