"""Checks whether the configured servers answer: Qdrant, Redis, embedding and rerank servers.

Chat servers are not checked: their state is known from calls. The doctor checks more, but not every few seconds.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from . import threads
from .errors import BackendError
from .settings import Settings

AGE_SECONDS = 5.0
"""Seconds for which an answer is reused, however often `look` is called."""
ANSWER_SECONDS = 2.0
"""Seconds within which a server must answer."""
WAIT_SECONDS = 0.5
"""Most seconds that a caller waits; then it gets the previous answer. A Kubernetes probe waits 1 s."""

Probe = Callable[[], Awaitable[None]]
"""Returns if the server answers, else raises."""

log = logging.getLogger(__name__)


class Dependencies:
    """Checks servers now and then. Must be made and used on the core's event loop."""

    def __init__(self, probes: Mapping[str, Probe]) -> None:
        self.parts: dict[str, str] = {}
        """The servers checked so far, each "ok" or with what is wrong."""
        self._probes = probes
        self._asked: dict[str, float] = {}
        self._under_way: dict[str, asyncio.Task[None]] = {}

    async def look(self) -> None:
        """Check all servers that were not checked recently, at the same time, and wait a moment for the answers."""
        moment = time.monotonic()
        for name, probe in self._probes.items():
            if name not in self._under_way and moment - self._asked.get(name, -math.inf) >= AGE_SECONDS:
                self._asked[name] = moment
                self._under_way[name] = asyncio.create_task(self._ask(name, probe))
        if self._under_way:
            await asyncio.wait(set(self._under_way.values()), timeout=WAIT_SECONDS)

    async def _ask(self, name: str, probe: Probe) -> None:
        told = "ok"
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await probe()
        except TimeoutError:
            told = f"no answer within {ANSWER_SECONDS:g} s"
        except BackendError as error:
            told = error.message
        except Exception as error:  # errors of aiohttp or redis may name addresses, so they are only logged
            told = f"cannot be reached ({type(error).__name__})"
            if self.parts.get(name) != told:
                log.warning("%s cannot be reached: %s", name, error)
        finally:
            del self._under_way[name]
        self.parts[name] = told

    async def close(self) -> None:
        """Cancel checks under way."""
        for task in (tasks := list(self._under_way.values())):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def of(settings: Settings) -> Dependencies:
    probes: dict[str, Probe] = {}
    for name, urls, path in (
        ("Qdrant", settings.qdrant_url, "/readyz"),
        ("embeddings", settings.tei_url, "/health"),
        ("rerank", settings.tei_rerank_url or settings.rerank_url, "/health"),
    ):
        for number, url in enumerate(filter(None, map(str.strip, (urls or "").split(","))), 1):
            probes[name if number == 1 else f"{name} {number}"] = partial(_answers, url.rstrip("/") + path)
    if settings.redis_url is not None:
        probes["Redis"] = partial(threads.network, _ping, settings.redis_url.get_secret_value())
    return Dependencies(probes)


async def _answers(url: str) -> None:
    import aiohttp

    async with aiohttp.ClientSession() as session, session.get(url, allow_redirects=False) as reply:
        if reply.status >= 500:  # some have no such path or want a key for it, but they answer
            raise BackendError(f"it answers {reply.status}")


def _ping(url: str) -> None:
    from redis import Redis

    with Redis.from_url(url, socket_timeout=ANSWER_SECONDS, socket_connect_timeout=ANSWER_SECONDS) as redis:
        redis.ping()
