"""Telling a URL that a job has ended: signed, tried again until it is taken, never to an address of this network.

Requests are as https://www.standardwebhooks.com has them, so that its libraries verify them: the signature is the
base64 of the HMAC-SHA256 of `id.timestamp.body`.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import ipaddress
import json
import logging
import socket
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from sqlalchemy import Connection, literal, select, update

from ..database import Database
from ..errors import InvalidRequest
from ..schemas import JobStatus
from . import reading
from .ledger import MOMENT
from .tables import jobs, now, stamp
from .tables import webhooks as table

log = logging.getLogger(__name__)

TIMEOUT = 15.0
MOST_TRIES = 15
LONGEST_PAUSE = 3600.0


@dataclass(frozen=True)
class Delivery:
    """A webhook that is this process's to deliver, for a while."""

    number: int
    id: str
    url: str
    tries: int


def check(url: str, secret: bytes | None, private: bool) -> None:
    """Raise InvalidRequest for what can be known at once to be wrong."""
    if secret is None:
        raise InvalidRequest("webhook: there is no WEBHOOK_SECRET to sign it with: set one on the server")
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError:
        host = ""
    if not host or parts.scheme not in ("http", "https") or parts.username is not None:
        raise InvalidRequest("webhook: it must be like https://host/path, without a name or password")
    if not private and (refused := _refusal(host)):
        raise InvalidRequest(f"webhook: {refused}")


def _refusal(host: str) -> str | None:
    """Why an address may not be called, if it is an address and may not be."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address.sixtofour or address
    if address.is_global and not address.is_multicast:
        return None
    return f"{host} is no public address: WEBHOOK_PRIVATE=true allows such"


class _PublicOnly(AbstractResolver):
    """Gives the addresses that were looked at, so that a name cannot mean another one when it is connected to."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        results: list[ResolveResult] = []
        for kind, _, protocol, _, address in found:
            if refused := _refusal(str(address[0])):
                raise _Refused(f"{host}: {refused}")
            results.append(
                ResolveResult(
                    hostname=host,
                    host=str(address[0]),
                    port=port,
                    family=kind,
                    proto=protocol,
                    flags=socket.AI_NUMERICHOST,
                )
            )
        return results

    async def close(self) -> None:
        pass


class _Refused(OSError):
    """An address that may not be called."""


def signed(secret: bytes, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of a request."""
    content = f"{message_id}.{timestamp}.".encode() + body
    signature = base64.b64encode(hmac.new(secret, content, hashlib.sha256).digest()).decode()
    return {
        "Content-Type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{signature}",
    }


def key(secret: str) -> bytes:
    """The bytes of a secret; one that begins with whsec_ is base64."""
    if not secret.startswith("whsec_"):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except ValueError:
        raise InvalidRequest("WEBHOOK_SECRET begins with whsec_ and is no base64 after that") from None


class Deliveries:
    """Delivers what is due, one after the other; any number of processes share the work."""

    def __init__(self, database: Database, secret: bytes | None, private: bool, keep_days: float) -> None:
        self._database = database
        self.secret = secret
        self._private = private
        self._keep_days = keep_days

    async def deliver_due(self) -> None:
        """Raises nothing that a receiver can bring about."""
        while self.secret is not None and (one := await self._database.write(_take, durable=False)):
            error: str | None = None
            final = False
            try:
                _, job = await self._database.read(reading.watched, one.id, self._keep_days)
                await self._send(one, job, self.secret)
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as failure:
                cause = failure.os_error if isinstance(failure, aiohttp.ClientConnectorError) else failure
                final = isinstance(cause, _Refused)
                error = (str(cause) or type(cause).__name__)[:500]
                log.warning(
                    "job %s: %s did not take its webhook: %s", one.id, urlsplit(one.url).hostname, error
                )
            await self._database.write(_note, one, error, final)

    async def _send(self, one: Delivery, job: JobStatus, secret: bytes) -> None:
        if not self._private and (refused := _refusal(urlsplit(one.url).hostname or "")):
            raise _Refused(refused)
        timestamp = int(time.time())
        event = {"type": f"job.{job.status}", "timestamp": stamp(timestamp), "data": job.model_dump()}
        body = json.dumps(event).encode()
        # The id is the same whenever it is sent again, so that a receiver knows it.
        headers = signed(secret, f"job_{one.id}_{job.finished_at}", timestamp, body)
        resolver = None if self._private else _PublicOnly()
        connector = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False, force_close=True)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(TIMEOUT)) as session,
            session.post(one.url, data=body, headers=headers, allow_redirects=False) as reply,
        ):
            if not 200 <= reply.status < 300:
                raise ValueError(f"it answered {reply.status}")


def any_due(connection: Connection) -> bool:
    return connection.execute(_DUE, {"moment": now()}).first() is not None


_DUE = select(literal(1)).where(table.c.due_at <= MOMENT).limit(1)


def _take(connection: Connection) -> Delivery | None:
    """The next that is due, for this process alone until it should have ended."""
    due = (
        select(table.c.job, jobs.c.id, table.c.url, table.c.tries)
        .join(jobs, jobs.c.number == table.c.job)
        .where(table.c.due_at <= now())
        .order_by(table.c.due_at)
        .limit(1)
        .with_for_update(skip_locked=True, of=table)
    )
    row = connection.execute(due).first()
    if row is None:
        return None
    connection.execute(
        update(table)
        .where(table.c.job == row.job)
        .values(due_at=now() + 2 * TIMEOUT, tries=table.c.tries + 1)
    )
    return Delivery(row.job, row.id, row.url, row.tries + 1)


def _note(connection: Connection, one: Delivery, error: str | None, final: bool) -> None:
    again = None
    if error is not None and not final and one.tries < MOST_TRIES:
        again = now() + min(2.0**one.tries, LONGEST_PAUSE)
    connection.execute(
        update(table)
        .where(table.c.job == one.number, table.c.tries == one.tries)
        .values(due_at=again, error=error, delivered_at=None if error else stamp())
    )
