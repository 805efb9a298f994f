"""How a Qdrant Edge shard is configured: vectors, the graph, and indexes of fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .indexes import parts
from .qdrant import DENSE, HNSW_EF_CONSTRUCT, HNSW_M, INDEXED_FIELDS, SPARSE

GRAPH_FROM = 5_000  # kilobytes of vectors; fewer are searched as fast without a graph
FULL_SCAN = 10_000  # kilobytes of vectors; fewer are all looked at, even if there is a graph
LOOKED_AT = 500
"""If fewer points fit a filter, a search by words looks at each; else at the points that have one of the words. With Edge's
default of 5,000 points, looking at 2,000 among 300,000 takes twice as long as the latter."""
WRITTEN = "written"
OWN_FIELDS = {**INDEXED_FIELDS, WRITTEN: "integer"}
"""Our own fields with an index, and its type. Points are named by the time at which they were written (columns.py), by
thousands in one search: this index is kept in memory, 100 bytes a chunk, to find them a quarter faster."""
SEARCH_THREADS = 2  # for each open collection, of which there may be hundreds


def config(dimension: int, *, graph: bool = True) -> Any:
    """Return a shard's configuration. Built segments are mapped from the disk, so opening does not read them."""
    import qdrant_edge as edge

    mapped = edge.Memory.Cold
    return edge.EdgeConfig(
        vectors={DENSE: edge.EdgeVectorParams(size=dimension, distance=edge.Distance.Cosine)},
        sparse_vectors={
            SPARSE: edge.EdgeSparseVectorParams(
                full_scan_threshold=LOOKED_AT, modifier=edge.Modifier.Idf, memory=mapped
            )
        },
        # Without links of their own for the values of each indexed field: no search goes through the graph by a filter.
        hnsw_config=edge.HnswIndexConfig(
            m=HNSW_M if graph else 0,
            ef_construct=HNSW_EF_CONSTRUCT,
            full_scan_threshold=FULL_SCAN,
            payload_m=0,
        ),
        optimizers=edge.EdgeOptimizersConfig(indexing_threshold=GRAPH_FROM if graph else 1),
        max_search_threads=SEARCH_THREADS,
    )


def make_indexes(shard: Any, kinds: Mapping[str, str]) -> None:
    """Make a shard index these paths and no others."""
    import qdrant_edge as edge

    def memory(path: str) -> Any:
        return edge.Memory.Pinned if path == WRITTEN else edge.Memory.Cold

    wanted = {parts(path): kind for path, kind in kinds.items()}
    there: set[tuple[str, ...]] = set()
    for path, index in shard.info().payload_schema.items():
        same = kind_of(index) == wanted.get(parts(path))
        if same and getattr(index.params, "memory", None) == memory(path):
            there.add(parts(path))
        else:
            shard.update(edge.UpdateOperation.delete_field_index(path))
    for path, kind in kinds.items():
        if parts(path) not in there:
            only = {"lookup": True, "range": False} if path == WRITTEN else {}
            params = getattr(edge, f"{kind.capitalize()}IndexParams")
            index = params(memory=memory(path), **only)
            shard.update(edge.UpdateOperation.create_field_index(path, index))


def kind_of(index: Any) -> str:
    return str(index.data_type).rpartition(".")[2].lower()
