"""Converts candidates to LlamaIndex's nodes and back, for a project's own retrievers and postprocessors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ...engines.interface import Chunk
from ...plugins import Part
from .candidates import Candidate

if TYPE_CHECKING:
    from llama_index.core.schema import NodeWithScore


class Nodes:
    """The nodes that a project's own part gets, and the candidates that they come from."""

    def __init__(self, collections: Sequence[str]) -> None:
        self._collections = list(collections)
        self._known: dict[tuple[str, str], Candidate] = {}

    def of(self, candidate: Candidate) -> NodeWithScore:
        from ...chunks.nodes import node_id, scored

        hit = vars(candidate.hit)
        self._known.setdefault((candidate.collection, node_id(hit)), candidate)
        return scored(hit)

    async def called(self, part: Part, seconds: float, scale: str, work: Any, *given: Any) -> list[Candidate]:
        """Call a part, for at most `seconds`, and return its nodes as candidates, each node once.

        A node that our search did not find becomes a passage of its own. The nodes' scores are stored under the name
        `scale`. Raises a PluginError, which names the part, if it does not return a list of NodeWithScore.
        """
        from llama_index.core.schema import NodeWithScore

        nodes = await part.call(seconds, work, *given)
        if not isinstance(nodes, Sequence) or not all(isinstance(one, NodeWithScore) for one in nodes):
            raise part.wrong("returned something other than a list of NodeWithScore")
        found: dict[tuple[str, str], Candidate] = {}
        for one in nodes:
            key = str(one.metadata.get("collection", "")), one.node.node_id
            if key not in found:
                found[key] = self._candidate(one, key, scale)
        return list(found.values())

    def _candidate(self, one: NodeWithScore, key: tuple[str, str], scale: str) -> Candidate:
        from ...chunks.nodes import given, own_metadata

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
