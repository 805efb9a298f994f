"""Several servers with the same embedding model, in order of fallback: the first that works is asked."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from ..errors import BackendError, Conflict, LLMBackendError, NotFound, Overloaded
from .embeddings import EmbeddingBatch, TokenIds, TooLong
from .fingerprint import Fingerprint
from .remote_embedders import RemoteEmbedder

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")

# Errors after which the next server is tried.
_FAILURES = (BackendError, NotFound, Overloaded)


class Replicas:
    """An Embedder over several servers. If two of them turn out to have different models, calls raise a
    Conflict that names both."""

    def __init__(self, servers: Sequence[RemoteEmbedder], cool_down: float) -> None:
        self.servers = servers
        self._cool_down = cool_down
        self._rests_until = dict.fromkeys(servers, 0.0)

    @property
    def name(self) -> str:
        return self.servers[0].name

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for server in self.servers for name in server.names))

    async def fingerprint(self) -> Fingerprint:
        return await self._ask(RemoteEmbedder.fingerprint)

    async def embed(
        self, texts: Sequence[str], *, dimensions: int | None = None, too_long: TooLong = "split"
    ) -> EmbeddingBatch:
        return await self._ask(lambda server: server.embed(texts, dimensions=dimensions, too_long=too_long))

    async def embed_tokens(
        self, texts: Sequence[TokenIds], *, dimensions: int | None = None
    ) -> EmbeddingBatch:
        return await self._ask(lambda server: server.embed_tokens(texts, dimensions=dimensions))

    def at_once(self, text: str, dimensions: int | None) -> EmbeddingBatch | None:
        return None

    def weight(self, text: str, tokens: int | None) -> float:
        return self.servers[0].weight(text, tokens)

    async def close(self) -> None:
        for server in self.servers:
            await server.close()

    async def asked(
        self, server: RemoteEmbedder, ask: Callable[[RemoteEmbedder], Awaitable[_Result]]
    ) -> _Result:
        """The server's answer, if its model is that of the other servers."""
        await server.fingerprint()
        answer = await ask(server)
        known = await server.fingerprint()
        for other in self.servers:
            if other is not server and other.known is not None and not other.known.same_vectors(known):
                await self._look_again(other, server, known)
        return answer

    async def _look_again(self, other: RemoteEmbedder, server: RemoteEmbedder, known: Fingerprint) -> None:
        """Check the other server again; raise Conflict unless it now has the same model, or is gone."""
        try:
            found = await other.look()
        except LLMBackendError:
            other.known = None
            return
        if not found.same_vectors(known):
            raise Conflict(
                f"{server.about} has another embedding model ({known.model}) than {other.about} ({found.model}): "
                "give both the same model, or remove one from the setting",
                details={"backend": server.about, "model": known.model, "other": found.model},
            )

    async def _ask(self, ask: Callable[[RemoteEmbedder], Awaitable[_Result]]) -> _Result:
        servers = sorted(self.servers, key=lambda server: self._rests_until[server] > time.monotonic())
        for place, server in enumerate(servers, 1):
            try:
                return await self.asked(server, ask)
            except _FAILURES as error:
                rest = error.details.get("retry_after") or self._cool_down
                self._rests_until[server] = time.monotonic() + rest
                if place == len(servers):
                    raise
                log.warning("%s; asking %s instead", error.message, servers[place].about)
        raise AssertionError("the last server returns or raises")
