"""Sending webhooks, to public addresses only unless private ones are allowed.

Of an answer only the status matters, so the request is written here: an HTTP client's parser takes any number of
interim answers (1xx), and a receiver that sends them without end would keep the event loop busy.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from .. import addresses, threads

if TYPE_CHECKING:
    import yarl

CONNECT_SECONDS = 3.0
"""Most time for a connection to one of a receiver's addresses, so that there is time for the next."""
LINES, LINE = 100, 2**13
"""Most lines of an answer, interim answers included, up to its status, and most bytes of a line."""

_STATUS = re.compile(rb"HTTP/1\.[01] ([2-5][0-9][0-9])\b")


async def posted(url: str, body: bytes, headers: Mapping[str, str], timeout: float, *, private: bool) -> int:
    """POST a webhook; return the receiver's HTTP status.

    Raises OSError if it cannot be reached or says nothing for `timeout` seconds, and ValueError if it does not answer
    as a web server does.
    """
    target = addresses.parsed(url, "webhook", private=private)
    async with asyncio.timeout(timeout):
        reader, writer = await connected(target, private=private)
        try:
            writer.write(_request(target, body, headers))
            return await _status(reader)
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
                return await asyncio.open_connection(address, target.port, limit=LINE, **secured)
        except OSError as error:
            failure = error
    raise failure


@cache
def _trusted() -> ssl.SSLContext:
    return ssl.create_default_context()


def _request(target: yarl.URL, body: bytes, headers: Mapping[str, str]) -> bytes:
    fields = {
        "Host": target.raw_authority,
        "User-Agent": "llmbackend",
        "Accept": "*/*",
        "Connection": "close",
        "Content-Length": str(len(body)),
        **headers,
    }
    lines = [f"POST {target.raw_path_qs} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def _status(reader: asyncio.StreamReader) -> int:
    """The first status that is not an interim one."""
    for _ in range(LINES):
        if found := _STATUS.match(await reader.readline()):
            return int(found[1])
    raise ValueError("it did not answer with an HTTP status")
