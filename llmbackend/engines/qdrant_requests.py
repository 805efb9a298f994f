"""Divides points into write requests to a Qdrant server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..errors import InvalidRequest, LLMBackendError
from .qdrant import DENSE, SPARSE, Point

NUMBER_BYTES = 22
"""Most bytes of a number as JSON, with its comma."""


def batches(points: Sequence[Point], most: int, most_bytes: int) -> Iterator[Sequence[Point]]:
    """Divide points into batches of at most `most` points and about `most_bytes` bytes of JSON."""
    start = size = of_metadata = 0
    metadata: Any = None
    for number, point in enumerate(points):
        if (given := point.payload.get("metadata")) is not metadata:  # a document's chunks share one object
            metadata, of_metadata = given, len(repr(given))
        its = _size(point) + of_metadata
        if number > start and (size + its > most_bytes or number - start == most):
            yield points[start:number]
            start, size = number, 0
        size += its
    if points[start:]:
        yield points[start:]


def _size(point: Point) -> int:
    """Estimate, rather high, the bytes of a point as JSON without its metadata."""
    numbers = len(point.dense) + 2 * len(point.sparse.indices)
    return NUMBER_BYTES * numbers + _bytes(point.payload["text"]) + 500


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def records(points: Sequence[Point]) -> list[Any]:
    from qdrant_client import models

    return [
        models.PointStruct(
            id=str(point.id),
            vector={
                DENSE: point.dense.tolist(),
                SPARSE: models.SparseVector(indices=point.sparse.indices, values=point.sparse.values),
            },
            payload=point.payload,
        )
        for point in points
    ]


def too_large(point: Point, error: LLMBackendError) -> InvalidRequest:
    """Return the error for a single point that the server refuses as too large."""
    text, metadata = _bytes(point.payload["text"]), len(repr(point.payload.get("metadata")))
    field, size = ("text", text) if text >= metadata else ("metadata", metadata)
    return InvalidRequest(
        f"document {point.payload['document_id']!r}: the {field} of its chunk {point.payload['chunk']} has {size} bytes, "
        f"more than the Qdrant server takes in a request: make it shorter, or raise the server's max_request_size_mb "
        f"({error.message})",
        details={**error.details, "document_id": point.payload["document_id"], "field": field},
    )
