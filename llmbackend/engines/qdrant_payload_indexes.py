"""The field indexes of a collection on a Qdrant server: our own, declared ones, and those made for filters."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..errors import LLMBackendError
from .indexes import INDEX_PLACES, FieldType, Indexes, in_points, parts
from .qdrant import INDEXED_FIELDS
from .qdrant_connection import Connection

log = logging.getLogger(__name__)

OWN_FIELDS = {**INDEXED_FIELDS, "hash": "keyword", "superseded": "integer", "written": "integer"}
"""The fields that our own filters need."""

MOST_FOR_FILTERS = 45
"""Most paths that are indexed because filters used them, beside the declared ones, which come first."""
TRIED_AGAIN, MOST_UNMADE = 60.0, 1000
"""Seconds until a failed attempt to index a path for a filter is repeated, and most such paths that are remembered."""


class PayloadIndexes:
    """The indexes of one collection. `learn` must ask the server for them, and pass the reply to `told`."""

    def __init__(self, connection: Connection, name: str, learn: Callable[[], None] = lambda: None) -> None:
        self._connection = connection
        self._name = name
        self._learn = learn
        self._lock = threading.Lock()
        self.kinds: dict[tuple[str, ...], str] = {}
        """The type of index that each path of a point has."""
        self._paths: dict[tuple[str, ...], str] = {}
        self._points: dict[tuple[str, ...], int] = {}
        """The number of points in each index, as last reported."""
        self._unmade: dict[str, float] = {}
        """Paths that could not be indexed for a filter, and when (`time.monotonic`) to try again."""

    def told(self, schema: Mapping[str, Any]) -> None:
        """Take note of the server's indexes: information by path."""
        self._paths = {parts(path): path for path in schema}
        self._points = {parts(path): int(index.points) for path, index in schema.items()}
        self.kinds = {parts(path): str(index.data_type.value) for path, index in schema.items()}

    def make_own(self) -> None:
        """Index the fields of our own filters; without them, a server in strict mode refuses writes."""
        for path, kind in OWN_FIELDS.items():
            if parts(path) not in self.kinds:
                try:
                    self.make(path, kind)
                except LLMBackendError as error:  # for instance, the key may only read
                    log.warning("%s of %s could not be indexed: %s", path, self._name, error)

    def make(self, path: str, kind: str) -> None:
        from qdrant_client import models

        schema = models.PayloadSchemaType(kind)
        self._connection.ask(lambda client: client.create_payload_index(self._name, path, schema, wait=True))
        self.kinds[parts(path)] = kind
        self._paths[parts(path)] = path

    def change(self, changes: Mapping[str, FieldType | None], declared: Indexes) -> None:
        with self._lock:
            self._learn()  # other processes may have made some
            for field, kind in changes.items():
                for path in in_points({field: kind or "keyword"}):
                    there = self.kinds.get(parts(path))
                    if there is not None and there != kind:
                        self.remove(path)
                    if kind is not None and there != kind:
                        self._make_room(declared, INDEX_PLACES)
                        self.make(path, kind)

    def prepare(self, fields: Indexes, declared: Indexes) -> None:
        """Make the missing indexes of these fields. One that cannot be made is only logged; the search may work without."""
        now = time.monotonic()

        def missing() -> dict[str, FieldType]:
            return {
                path: kind
                for path, kind in in_points(fields).items()
                if parts(path) not in self.kinds and self._unmade.get(path, 0.0) <= now
            }

        if not missing():
            return
        with self._lock:
            self._learn()
            most = min(INDEX_PLACES, MOST_FOR_FILTERS + len(in_points(declared)))
            for path, kind in missing().items():
                try:
                    if self._make_room(declared, most, keep=in_points(fields)):
                        self.make(path, kind)
                        continue
                except LLMBackendError as error:
                    log.warning("%s of %s could not be indexed: %s", path, self._name, error)
                self._unmade[path] = now + TRIED_AGAIN
                while len(self._unmade) > MOST_UNMADE:
                    del self._unmade[next(iter(self._unmade))]

    def _make_room(self, declared: Indexes, most: int, keep: Iterable[str] = ()) -> bool:
        """Make room for another index; return whether there is any.

        For a declared one, the indexes made for filters are removed. For a filter (with `keep`), only those without any
        point are, because a filter may name a field that does not exist.
        """
        stay = {parts(path) for path in (*OWN_FIELDS, *in_points(declared), *keep)}
        others = [path for path in self.kinds if path not in stay]
        others.sort(key=lambda path: self._points.get(path, 0))
        if keep:
            others = [path for path in others if not self._points.get(path, 0)]
        while len(self.kinds) - len(OWN_FIELDS) >= most and others:
            self.remove(self._paths[others.pop(0)])
        return len(self.kinds) - len(OWN_FIELDS) < most

    def remove(self, path: str) -> None:
        self._connection.ask(lambda client: client.delete_payload_index(self._name, path, wait=True))
        del self.kinds[parts(path)]
