"""A project's own retrievers and postprocessors in a search: candidates as LlamaIndex's nodes, and back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ... import loading, threads
from ...plugins import POSTPROCESSORS, RETRIEVERS, Part
from ...schemas import Retrieval
from ...tracing import Clock
from ..engines.interface import Chunk
from .candidates import Candidate

if TYPE_CHECKING:
    from llama_index.core.schema import NodeWithScore

Find = Callable[[str, Retrieval], Awaitable[list[Candidate]]]
"""Our own search of the collections that are asked: copies marked, the best first."""


@dataclass
class Search:
    """Our own search, for a retriever: it may be called in a thread, or awaited as `asearch`."""

    collections: list[str]
    top_k: int
    """How many nodes are wanted."""
    mode: str
    filters: dict[str, Any] | None
    _wanted: Retrieval = field(repr=False)
    _find: Find = field(repr=False)
    _nodes: _Nodes = field(repr=False)
    _loop: asyncio.AbstractEventLoop = field(repr=False)

    def __call__(
        self,
        query: str,
        *,
        top_k: int | None = None,
        mode: str | None = None,
        filters: dict[str, Any] | None = None,
    ) -> list[NodeWithScore]:
        """The nodes for a query, best first; what is not given is as in the search that asked."""
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
        """The same, awaited."""
        return await asyncio.wrap_future(self._begun(query, top_k, mode, filters))

    def _begun(self, query: str, top_k: int | None, mode: str | None, filters: dict[str, Any] | None) -> Any:
        given = {"top_k": top_k, "mode": mode, "filters": filters}
        changed = {name: value for name, value in given.items() if value is not None}
        wanted = Retrieval.model_validate({**self._wanted.model_dump(), **changed})
        return asyncio.run_coroutine_threadsafe(self._search(query, wanted), self._loop)

    async def _search(self, query: str, wanted: Retrieval) -> list[NodeWithScore]:
        found = await self._find(query, wanted)
        return [self._nodes.of(one) for one in found if one.dropped is None][: wanted.top_k]


async def retrieved(
    part: Part,
    text: str,
    wanted: Retrieval,
    collections: Sequence[str],
    find: Find,
    seconds: float,
    clock: Clock,
) -> list[Candidate]:
    """What a project's own retriever finds, in its order."""
    await threads.files(loading.llamaindex)
    nodes = _Nodes(collections)
    # Its own searches begin with what was asked, without what happens to their result.
    plain = wanted.model_copy(
        update={"retriever": None, "postprocessors": None, "rerank": False, "min_score": None}
    )
    asked = Retrieval.model_validate({name: getattr(plain, name) for name in Retrieval.model_fields})
    search = Search(
        list(collections),
        wanted.top_k,
        wanted.mode,
        wanted.filters,
        asked,
        find,
        nodes,
        asyncio.get_running_loop(),
    )

    def work() -> Any:
        made: Any = part.made
        return made(search).retrieve(text) if part.is_class else made(text, search)

    with clock(f"retriever {part.name}"):
        found = _checked(part, await part.call(seconds, work))
    return nodes.candidates(found, "retriever")


async def postprocessed(
    names: Sequence[str], text: str, found: list[Candidate], seconds: float, clock: Clock
) -> list[Candidate]:
    """The candidates in the order that a project's own postprocessors give them; those they leave out are dropped."""
    await threads.files(loading.llamaindex)
    kept = [one for one in found if one.dropped is None]
    others = [one for one in found if one.dropped is not None]
    for part in map(POSTPROCESSORS.named, names):
        nodes = _Nodes([one.collection for one in kept])
        given = [nodes.of(one) for one in kept]
        with clock(f"postprocessor {part.name}"):
            after = _checked(part, await part.call(seconds, _applied, part, given, text))
        before, kept = kept, nodes.candidates(after, "postprocessed")
        there = {_place(one) for one in kept}
        left_out = [one for one in before if _place(one) not in there]
        for one in left_out:
            one.dropped = "postprocessor"
        others = left_out + others
    return kept + others


def _applied(part: Part, nodes: list[Any], text: str) -> Any:
    made: Any = part.made
    if part.is_class:
        return made().postprocess_nodes(nodes, query_str=text)
    return made(nodes, text)


def require(wanted: Retrieval) -> Part | None:
    """The retriever that is wanted; raises InvalidRequest for a name of a part that there is not."""
    for name in wanted.postprocessors or ():
        POSTPROCESSORS.named(name)
    return None if wanted.retriever is None else RETRIEVERS.named(wanted.retriever)


def _place(candidate: Candidate) -> tuple[str, str, int]:
    return candidate.collection, candidate.chunk.document_id, candidate.chunk.number


def _checked(part: Part, nodes: Any) -> list[NodeWithScore]:
    from llama_index.core.schema import NodeWithScore

    if not isinstance(nodes, Sequence) or not all(isinstance(one, NodeWithScore) for one in nodes):
        raise part.wrong("returned something else than a list of NodeWithScore")
    return list(nodes)


class _Nodes:
    """The nodes that a part is given, and the candidates that they are."""

    def __init__(self, collections: Sequence[str]) -> None:
        self._collections = list(collections)
        self._known: dict[tuple[str, str], Candidate] = {}

    def of(self, candidate: Candidate) -> NodeWithScore:
        from ..chunks.nodes import node_id, scored

        hit = vars(candidate.hit)
        self._known.setdefault((candidate.collection, node_id(hit)), candidate)
        return scored(hit)

    def candidates(self, nodes: Sequence[NodeWithScore], scale: str) -> list[Candidate]:
        """Each node once. One that no search of ours found is a passage of its own."""
        found: dict[tuple[str, str], Candidate] = {}
        for one in nodes:
            key = str(one.metadata.get("collection", "")), one.node.node_id
            if key not in found:
                found[key] = self._candidate(one, key, scale)
        return list(found.values())

    def _candidate(self, one: NodeWithScore, key: tuple[str, str], scale: str) -> Candidate:
        from ..chunks.nodes import given, own_metadata

        known = self._known.get(key)
        stored = given({"text": one.node.get_content(), "metadata": own_metadata(one.metadata)})
        text, metadata, place = stored["text"], stored["metadata"], stored["place"]
        if known is not None:
            score = known.score if one.score is None else one.score
            chunk = replace(
                known.chunk, text=text, metadata={**known.chunk.metadata, **metadata}, place=place
            )
            return replace(
                known, chunk=chunk, score=score, scores={**known.scores, scale: score}, dropped=None
            )
        name = one.node.ref_doc_id or one.node.node_id
        where = key[0] if key[0] in self._collections else self._collections[0]
        score = one.score or 0.0
        return Candidate(Chunk(name, "", 0, 1, text, metadata, place), where, score, {scale: score})
