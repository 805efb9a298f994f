"""Checks where to search and by which conditions, before anything else is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ... import tracing
from ...engines.filters import Condition, conditions
from ...plugins import POSTPROCESSORS, RETRIEVERS, Part
from ...schemas import Retrieval
from ..collections.collection import Collection
from ..collections.collections import Collections


@dataclass(frozen=True, slots=True)
class Scope:
    """A search request, with its collections, conditions and own parts looked up."""

    wanted: Retrieval
    collections: Sequence[Collection]
    where: Sequence[Condition]
    retriever: Part | None = None
    postprocessors: Sequence[Part] = ()


async def scope(wanted: Retrieval, collections: Collections) -> Scope:
    """Look up what a request names.

    Raises NotFound for an unknown collection, InvalidRequest for invalid filters and unknown own parts, and Forbidden for
    a collection that the caller may not use.
    """
    names = [wanted.collection] if isinstance(wanted.collection, str) else wanted.collection
    found = dict.fromkeys(map(tracing.current().collection, names))
    return Scope(
        wanted,
        [await collections.get(name) for name in found],
        conditions(wanted.filters),
        RETRIEVERS.named(wanted.retriever) if wanted.retriever else None,
        [POSTPROCESSORS.named(name) for name in wanted.postprocessors or ()],
    )
