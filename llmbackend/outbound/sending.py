"""Sending webhooks, to public addresses only unless private ones are allowed.

Of an answer only the status matters, and at most EVENTS parts are read before it: an HTTP client takes any number of
interim answers (1xx), and a receiver that sends them without end would keep the event loop busy.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from .. import threads
from . import addresses

if TYPE_CHECKING:
    import yarl

CONNECT_SECONDS = 3.0
"""Most time for a connection to one of a receiver's addresses, so that there is time for the next."""
EVENTS, PIECE = 100, 2**13
"""Most interim answers, and pieces of so many bytes, that are read of an answer."""


async def posted(url: str, body: bytes, headers: Mapping[str, str], timeout: float, *, private: bool) -> int:
    """POST a webhook; return the receiver's HTTP status.

    Raises OSError if it cannot be reached or says nothing for `timeout` seconds, and ValueError if it does not answer
    as a web server does.
    """
    import h11

    target = addresses.parsed(url, "webhook", private=private)
    fields = {
        "Host": target.raw_authority,
        "User-Agent": "llmbackend",
        "Accept": "*/*",
        "Connection": "close",
        "Content-Length": str(len(body)),
        **headers,
    }
    request = h11.Request(method="POST", target=target.raw_path_qs, headers=list(fields.items()))
    exchange = h11.Connection(h11.CLIENT)
    async with asyncio.timeout(timeout):
        reader, writer = await connected(target, private=private)
        try:
            for part in (request, h11.Data(body), h11.EndOfMessage()):
                writer.write(exchange.send(part) or b"")
            for _ in range(EVENTS):
                event = exchange.next_event()
                if isinstance(event, h11.Response):
                    return event.status_code
                if event is h11.NEED_DATA:
                    exchange.receive_data(await reader.read(PIECE))
            raise ValueError("it did not answer with an HTTP status")
        except h11.RemoteProtocolError as error:
            raise ValueError(f"it did not answer as HTTP does: {error}") from error
        finally:
            writer.transport.abort()  # closing would wait for a receiver that does not read


async def connected(target: yarl.URL, *, private: bool) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to the first of a host's addresses that answers.

    Raises the OSError of the last one if none does; an address that is not public is Refused.
    """
    host, secured = target.raw_host or "", dict[str, Any]()
    if target.scheme == "https":
        secured = {"ssl": await threads.files(_trusted), "server_hostname": host}
    failure = OSError(f"{host} has no address")
    for address in await addresses.look_up(host, threads.webhooks):
        try:
            if not private and not addresses.is_public(address):
                raise addresses.Refused(f"{address} is no public address")
            async with asyncio.timeout(CONNECT_SECONDS):
                return await asyncio.open_connection(address, target.port, **secured)
        except OSError as error:
            failure = error
    raise failure


@cache
def _trusted() -> ssl.SSLContext:
    return ssl.create_default_context()
