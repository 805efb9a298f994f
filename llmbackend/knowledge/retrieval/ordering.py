"""Orders the candidates that a search found, and decides which are hits."""

from __future__ import annotations

from typing import Any

from ... import llamaindex_import, threads
from ...inference.rerank import Reranker
from ...plugins import Part
from ...tracing import Clock
from .candidates import Candidate
from .nodes import Nodes
from .scope import Scope

RERANK_DEPTH = 50
"""Passages that a reranker or a project's own postprocessors get, unless more hits are wanted."""


async def ordered(
    found: list[Candidate], text: str, scope: Scope, reranker: Reranker, plugin_seconds: float, clock: Clock
) -> list[Candidate]:
    """Return the candidates as the reranker and postprocessors order them, with `dropped` set on those that are no hits.

    Candidates that they do not get, or leave out, come last.
    """
    wanted = scope.wanted
    kept, others = found, list[Candidate]()
    if wanted.rerank or scope.postprocessors:
        kept = [one for one in found if one.dropped is None]
        others = [one for one in found if one.dropped is not None]
    if wanted.rerank:
        with clock("rerank"):
            texts = [one.chunk.in_context for one in kept]
            ranks = await reranker.rerank(text, texts, None if wanted.rerank is True else wanted.rerank)
        for candidate, score in zip(kept, ranks.scores, strict=True):
            candidate.score = candidate.scores["rerank"] = score
        kept.sort(key=lambda candidate: -candidate.score)
    if scope.postprocessors:
        await threads.files(llamaindex_import.load)
    for part in scope.postprocessors:
        nodes = Nodes([one.collection for one in kept])
        given = [nodes.of(one) for one in kept]
        with clock(f"postprocessor {part.name}"):
            after = await nodes.called(part, plugin_seconds, "postprocessed", _applied, part, given, text)
        before, kept = kept, after
        there = {_place(one) for one in kept}
        left_out = [one for one in before if _place(one) not in there]
        for one in left_out:
            one.dropped = "postprocessor"
        others = left_out + others
    hits = 0
    for candidate in kept:
        if candidate.dropped is not None:
            continue
        if wanted.min_score is not None and candidate.score < wanted.min_score:
            candidate.dropped = "min_score"
        elif hits == wanted.top_k:
            candidate.dropped = "top_k"
        else:
            hits += 1
    return kept + others


def _applied(part: Part, nodes: list[Any], text: str) -> Any:
    made: Any = part.made
    if part.is_class:
        return made().postprocess_nodes(nodes, query_str=text)
    return made(nodes, text)


def _place(candidate: Candidate) -> tuple[str, str, int]:
    return candidate.collection, candidate.chunk.document_id, candidate.chunk.number
