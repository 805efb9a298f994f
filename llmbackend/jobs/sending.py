"""Sending webhooks, to public addresses only unless private ones are allowed."""

from __future__ import annotations

import socket
from collections.abc import Mapping

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from .. import addresses, threads


async def posted(url: str, body: bytes, headers: Mapping[str, str], timeout: float, *, private: bool) -> int:
    """POST a webhook; return the receiver's HTTP status. Raises what aiohttp raises, also after `timeout` seconds."""
    factory = None if private else addresses.public_socket
    connector = aiohttp.TCPConnector(
        socket_factory=factory, resolver=Resolver(), use_dns_cache=False, force_close=True
    )
    async with (
        aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(timeout)) as session,
        session.post(
            addresses.parsed(url, "webhook", private=private),
            data=body,
            headers=headers,
            allow_redirects=False,
        ) as reply,
    ):
        return reply.status


class Resolver(AbstractResolver):
    """Resolves names in separate threads, so that hanging DNS servers hold up nothing else."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in await addresses.look_up(host, threads.webhooks)
        ]

    async def close(self) -> None:
        pass
