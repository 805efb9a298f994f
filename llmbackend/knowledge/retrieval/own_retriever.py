"""Calls a project's own retriever instead of our search; the retriever may call our search itself."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ... import llamaindex_import, threads
from ...engines.filters import conditions
from ...inference.cached_embedder import CachedEmbedder
from ...plugins import Part
from ...schemas import Retrieval
from ...tracing import Clock
from .candidates import Candidate
from .nodes import Nodes
from .query import EXTRA_CANDIDATES, prepare
from .scope import Scope

if TYPE_CHECKING:
    from llama_index.core.schema import NodeWithScore


@dataclass
class Search:
    """Our own search, for a project's retriever: call it in a thread, or await `asearch`."""

    collections: list[str]
    top_k: int
    """The number of nodes wanted."""
    mode: str
    filters: dict[str, Any] | None
    _scope: Scope = field(repr=False)
    _embedder: CachedEmbedder = field(repr=False)
    _nodes: Nodes = field(repr=False)
    _loop: asyncio.AbstractEventLoop = field(repr=False)

    def __call__(
        self,
        query: str,
        *,
        top_k: int | None = None,
        mode: str | None = None,
        filters: dict[str, Any] | None = None,
    ) -> list[NodeWithScore]:
        """Return the nodes for a query, best first. Arguments left out are those of the caller's search."""
        nodes: list[NodeWithScore] = self._begun(query, top_k, mode, filters).result()
        return nodes

    async def asearch(
        self,
        query: str,
        *,
        top_k: int | None = None,
        mode: str | None = None,
        filters: dict[str, Any] | None = None,
    ) -> list[NodeWithScore]:
        """Do the same as a call, awaited."""
        return await asyncio.wrap_future(self._begun(query, top_k, mode, filters))

    def _begun(self, query: str, top_k: int | None, mode: str | None, filters: dict[str, Any] | None) -> Any:
        given = {"top_k": top_k, "mode": mode, "filters": filters}
        changed = {name: value for name, value in given.items() if value is not None}
        wanted = Retrieval.model_validate({**self._scope.wanted.model_dump(), **changed})
        return asyncio.run_coroutine_threadsafe(self._search(query, wanted), self._loop)

    async def _search(self, query: str, wanted: Retrieval) -> list[NodeWithScore]:
        within = Scope(wanted, self._scope.collections, conditions(wanted.filters))
        asked = await prepare(within, query, self._embedder, Clock())
        found = await asked.best(wanted.top_k + EXTRA_CANDIDATES, enough=wanted.top_k)
        return [self._nodes.of(one) for one in found if one.dropped is None][: wanted.top_k]


async def retrieved(
    part: Part, scope: Scope, text: str, embedder: CachedEmbedder, seconds: float
) -> list[Candidate]:
    """Return what a project's own retriever finds, in its order. Raises a PluginError that names it."""
    await threads.files(llamaindex_import.load)
    wanted, names = scope.wanted, [collection.name for collection in scope.collections]
    nodes = Nodes(names)
    # Its own searches use the caller's arguments, except those that order or cut the result.
    fields = wanted.model_dump(include=set(Retrieval.model_fields))
    plain = fields | {"retriever": None, "postprocessors": None, "rerank": False, "min_score": None}
    search = Search(
        names,
        wanted.top_k,
        wanted.mode,
        wanted.filters,
        replace(scope, wanted=Retrieval.model_validate(plain)),
        embedder,
        nodes,
        asyncio.get_running_loop(),
    )

    def work() -> Any:
        made: Any = part.made
        return made(search).retrieve(text) if part.is_class else made(text, search)

    return await nodes.called(part, seconds, "retriever", work)
