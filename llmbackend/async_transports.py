"""Transports of the asynchronous client: what they have in common, and that over HTTP by aiohttp."""

from __future__ import annotations

import asyncio
import itertools
import os
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import urlencode

from llm_client import (
    AHEAD,
    CONNECT_SECONDS,
    __version__,
    _batches,
    _certificates,
    _HttpAddress,
    _Source,
)

from . import threads
from .errors import Conflict, LLMBackendError, TransportError

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


def other_loop(loop: asyncio.AbstractEventLoop, used: dict[str, str]) -> Conflict:
    """Return the error for what another loop uses."""
    how = "has ended" if loop.is_closed() else "is another one"
    (what,) = used.values()
    return Conflict(
        f"the event loop that uses {what} {how}: use a client within one loop, and end it by `async with` or "
        "`await client.close()`",
        details={**used},
    )


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
            raise other_loop(self._loop, {"api_url": self.api_url})
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
