"""Searches an Edge shard by a filter.

Edge itself finds the points that fit a filter on one indexed field. For others, a background thread reads the fields that
filters use into columns (columns.py), once, and writes update them: a filter is then resolved to points in about a
millisecond. Until they are read, the filter is checked at the top of the unfiltered list, and if too few hits fit there,
in every chunk, once for all lists of a search.

Edge holds the interpreter's lock in every call, so long work is done in parts, sized by the time that they take.
"""

from __future__ import annotations

import heapq
import logging
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import slices, threads, tracing
from ..errors import LLMBackendError
from .edge_shard import WRITTEN
from .filters import Combination, Condition
from .indexes import places, selector, steps
from .interface import Scored

if TYPE_CHECKING:
    from .columns import Columns, Mask
    from .qdrant_edge import EdgeIndex

log = logging.getLogger(__name__)

HELD = 0.01  # seconds that a part may hold the interpreter's lock, about
LEAST_BATCH, READ_BATCH = 32, 256
LEAST_LOOKUPS, LOOKUPS, MOST_LOOKUPS = 128, 500, 20_000
"""A lookup checks one condition in one chunk, or in some of the values that it has there."""
LONGEST = 32
"""Most values that chunks have in a field, on average, for it to be read into a column."""
VALUES = 16
"""Values of a list that are looked at in the time of a lookup."""
WALKED_AT_ONCE = 1_000
"""Points whose ids are read at a time, without payloads."""
MOST_PARTS = 8
"""Most parts that the chunks are divided into: for each part, Edge looks at all ids."""
DEEPEST = 4_000
"""How far down the unfiltered list to look for chunks that fit a filter, before all chunks are checked."""
NAMED_AT_ONCE = 10_000
"""Most points that one of Edge's filters names: so many take Edge 10 ms."""
A_LOOK = 10
"""Points that are named and looked at in the time that one hit takes in a list that is looked through."""
LOOKED_AT = 10_000
"""If no more points fit a filter on indexed fields, a search looks at each of these, which takes at most 10 ms."""
COLUMNS_FROM = 1_000
"""Least chunks for which fields are read into columns: checking a filter in fewer takes a few milliseconds."""
CHECKED = 3
"""Points that are checked in the time in which one is named. Edge gets all points that fit one of several conditions by
its index, and checks the others in each: if these are far more than fit, columns are read for indexed fields, too."""
FEW = 3
"""Lookups of a chunk that takes an index no time."""
MOST_COLUMNS = 64
"""Most columns of an index, and most values that a chunk has in all, on average; the least recently used are dropped. A
column takes 16 bytes for each value; all together take another 36 bytes a chunk. As many fields that no chunk has are
remembered; these take nothing."""
REST = 9
"""After a reading that found no new field, nothing is read for so many times its duration, so that made-up field names
cost a tenth of the time at most."""
AFTER_FAILURE = 60.0  # seconds
RESOLVED = 16
"""Most filters whose results are kept, until the next write: a byte a chunk."""
_FILTERING = threading.Lock()


def next_size(size: int, took: float, least: int, most: int) -> int:
    """Return the size of the next part, by how many seconds the last one took."""
    if took > HELD:
        return max(least, size // 2)
    return min(most, 2 * size) if took < HELD / 4 else size


@dataclass
class _Resolved:
    """The points that fit a filter."""

    columns: Columns
    version: int
    mask: Mask
    """Whether each row of the columns fits."""
    count: int


class Filtering:
    """Filtered search of one open index, from any thread. Call `close` before the shard is closed."""

    def __init__(self, index: EdgeIndex) -> None:
        self._index = index
        self._syntax = index.syntax
        self._lookups = LOOKUPS
        """Lookups in one part, adapted to the time that they take: chunks may be short or long."""
        self._lengths: dict[str, tuple[int, float]] = {}
        """How many values some chunks have in a field, on average, and how many chunks there were then."""
        self._columns: Columns | None = None
        self._reading: Columns | None = None
        """Columns that are being filled. Chunks that are written meanwhile are added, too."""
        self._asked: OrderedDict[str, float] = OrderedDict()
        """Paths that filters used, the most recent last, and how many values chunks have there."""
        self._most_rows = 0
        self._not_before = 0.0
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._adding = threading.Lock()
        self._closed = threading.Event()
        self._resolved: OrderedDict[str, _Resolved] = OrderedDict()

    def nearest(
        self, queries: list[Any], limit: int, where: Any, conditions: Sequence[Condition]
    ) -> list[list[Scored]]:
        """Return the `limit` points nearest to each query that fit the conditions; `where` is these as Edge's filter."""
        chunks = self._index.about()
        if chunks >= COLUMNS_FROM and (columns := self._covering(conditions, chunks)) is not None:
            return self._by_columns(queries, limit, columns, conditions)
        terms = self._terms(conditions, chunks)
        if chunks * terms <= self._lookups:
            with self._part(chunks * terms):
                return self._index.query(queries, limit, where, exact=True)
        found = [self._near(query, limit, where, terms, chunks) for query in queries]
        if None in found:
            parts = self._named(self._anywhere(where, terms, chunks))
            missing = [query for query, scored in zip(queries, found, strict=True) if scored is None]
            rest = iter(self._among(missing, limit, parts))
            return [next(rest) if scored is None else scored for scored in found]
        return [scored for scored in found if scored is not None]

    def by_indexes(
        self,
        queries: list[Any],
        in_graph: Sequence[bool],
        limit: int,
        where: Any,
        conditions: Sequence[Condition],
    ) -> list[list[Scored]]:
        """Return the same for a filter on fields that all have an index. `in_graph` are the queries that use the graph.

        A graph is never searched by a filter. If a tenth of the points fit, few of a point's neighbours do: a search ends
        early, with a third of the best points. So it looks at all points that fit, or at the top of the unfiltered list.
        Edge finds those that fit; if it would check far more, columns do.
        """
        found: list[list[Scored] | None] = [None] * len(queries)
        chunks, fitting = self._index.about(), self._index.estimated(conditions)
        depth = _depth(limit, chunks, fitting) if fitting > LOOKED_AT else 0
        checked, terms = self._checked(conditions, chunks), self._terms(conditions, chunks)
        if not depth and terms > FEW and checked * terms > MOST_LOOKUPS:
            return self.nearest(queries, limit, where, conditions)
        slow = not depth and checked > max(LOOKED_AT, CHECKED * fitting)
        columns = self._covering(conditions, chunks) if slow else None
        for number, query in enumerate(queries):
            if not in_graph[number]:
                continue
            if columns is not None:
                [found[number]] = self._by_columns([query], limit, columns, conditions)
            elif depth:
                [scored] = self._index.query([query], depth)
                fits = set(self._fitting([point for point, _ in scored], where, terms))
                best = [one for one in scored if one[0] in fits][:limit]
                found[number] = best if len(best) == limit else None
        missing = [query for query, scored in zip(queries, found, strict=True) if scored is None]
        rest = iter(self._index.query(missing, limit, where, exact=True) if missing else [])
        return [next(rest) if scored is None else scored for scored in found]

    def _checked(self, conditions: Sequence[Condition], chunks: int) -> int:
        """Return about how many points Edge gets by its indexes for conditions that must all hold."""
        counts = [chunks]
        for one in conditions:
            if not isinstance(one, Combination):
                counts.append(self._index.estimated([one]))
            elif one.of == "all":
                counts.append(self._checked(one.conditions, chunks))
            elif one.of == "any":
                counts.append(sum(self._checked([each], chunks) for each in one.conditions))
        return min(counts)

    def fitting(self, ids: list[uuid.UUID], conditions: Sequence[Condition]) -> list[uuid.UUID]:
        """Return which of these points fit the conditions."""
        chunks = self._index.about()
        if chunks >= COLUMNS_FROM and (columns := self._covering(conditions, chunks)) is not None:
            fits = columns.which(ids, self._resolve(columns, conditions).mask)
            return [point for point, its in zip(ids, fits, strict=True) if its]
        return self._fitting(ids, self._index.where(conditions), self._terms(conditions, chunks))

    def quick(self, conditions: Sequence[Condition]) -> bool:
        """Return whether Edge's indexes find the points that fit fast, where all conditions have one."""
        chunks = self._index.about()
        return self._checked(conditions, chunks) * self._terms(conditions, chunks) <= MOST_LOOKUPS

    def _terms(self, conditions: Sequence[Condition], chunks: int) -> int:
        """Return how many lookups a chunk takes."""
        return sum(1 + int(self._length(field, chunks) / VALUES) for field in _fields(conditions))

    def _length(self, field: str, chunks: int) -> float:
        """Return how many values some of so many chunks have in a field, on average."""
        known, length = self._lengths.get(field, (0, 0.0))
        if not known or not known / 2 <= chunks <= 2 * known:
            from .columns import at

            page = next(self._index.pages([selector(path) for path in places(field)], LEAST_BATCH))
            paths = [steps(path) for path in places(field)]
            found = [one for record in page for path in paths for one in at(record.payload or {}, path)]
            values = sum(len(one) if isinstance(one, list) else 1 for one in found)
            length = values / max(1, len(page))
            if len(self._lengths) >= 2 * MOST_COLUMNS:
                self._lengths.clear()
            self._lengths[field] = chunks, length
        return length

    @contextmanager
    def adding(self, points: Sequence[tuple[uuid.UUID, dict[str, Any]]]) -> Iterator[None]:
        """Wrap a write of chunks: they are added to the columns first, since a chunk that is written again is named by the
        new time as soon as it has it. No reading begins in between, as it might miss them.
        """
        with self._adding:
            with self._lock:
                both = [columns for columns in (self._columns, self._reading) if columns is not None]
            for columns in both:
                columns.add(points)
            yield
        if both and self._columns is not None and len(self._columns) > self._most_rows:
            self._read_later()  # most rows may be of chunks that were deleted since

    def take_over(self, other: Filtering) -> None:
        """Take over the columns of an index with the same points that is no longer written to."""
        self._columns, self._asked, self._most_rows = other._columns, other._asked.copy(), other._most_rows

    def close(self) -> None:
        self._closed.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()

    # In columns

    def _covering(self, conditions: Sequence[Condition], chunks: int) -> Columns | None:
        """Return the columns if they have all fields of the conditions; else None, and start reading the missing ones."""
        paths = {path: self._length(field, chunks) for field in _fields(conditions) for path in places(field)}
        if max(paths.values(), default=0) > LONGEST:
            return None
        with self._lock:
            columns = self._columns
            for path, length in paths.items():
                self._asked[path] = length
                self._asked.move_to_end(path)
        if columns is not None and paths.keys() <= columns.paths:
            return columns
        self._read_later()
        return None

    def _by_columns(
        self, queries: list[Any], limit: int, columns: Columns, conditions: Sequence[Condition]
    ) -> list[list[Scored]]:
        resolved = self._resolve(columns, conditions)
        found: list[list[Scored] | None] = [None] * len(queries)
        depth = _depth(limit, len(resolved.mask), resolved.count)
        for number, query in enumerate(queries if depth else []):
            [scored] = self._index.query([query], depth)
            fits = columns.which([point for point, _ in scored], resolved.mask)
            best = [one for one, its in zip(scored, fits, strict=True) if its][:limit]
            if len(best) == limit or len(scored) < depth:
                found[number] = best
        missing = [query for query, scored in zip(queries, found, strict=True) if scored is None]
        if missing:
            rest = iter(self._of_rows(missing, limit, columns, resolved))
            return [next(rest) if scored is None else scored for scored in found]
        return [scored for scored in found if scored is not None]

    def _of_rows(
        self, queries: list[Any], limit: int, columns: Columns, resolved: _Resolved
    ) -> list[list[Scored]]:
        """Name the points that fit: by the time of their writing, since a number takes a tenth of an id's time.

        If two were written at the same time, and one does not fit, they are named by their ids.
        """
        rows = resolved.mask.nonzero()[0]
        if self._index.names_by_time:
            times = columns.written(rows)
            parts = [
                self._syntax.group(must=[self._syntax.any_of(WRITTEN, times[start : start + NAMED_AT_ONCE])])
                for start in range(0, len(times), NAMED_AT_ONCE)
            ]
            found = self._among(queries, limit, parts)
            if all(columns.which([point for scored in found for point, _ in scored], resolved.mask)):
                return found
        return self._among(queries, limit, self._named(columns.ids(rows)))

    def _resolve(self, columns: Columns, conditions: Sequence[Condition]) -> _Resolved:
        key, version = repr(conditions), columns.version
        with self._lock:
            known = self._resolved.get(key)
        if known is not None and known.columns is columns and known.version == version:
            return known
        mask = columns.fitting(conditions)
        resolved = _Resolved(columns, version, mask, int(mask.sum()))
        with self._lock:
            self._resolved[key] = resolved
            if len(self._resolved) > RESOLVED:
                self._resolved.popitem(last=False)
        return resolved

    def _named(self, ids: Sequence[Any]) -> list[Any]:
        """Return Edge's filters for points with these ids."""
        parts: list[Any] = []
        for start in range(0, len(ids), NAMED_AT_ONCE):
            named = set(ids[start : start + NAMED_AT_ONCE])
            parts.append(self._syntax.group(must=[self._syntax.among(named)]))
            slices.give_way()
        return parts

    def _among(self, queries: list[Any], limit: int, parts: Sequence[Any]) -> list[list[Scored]]:
        best: list[list[Scored]] = [[] for _ in queries]
        for part in parts:
            found = self._index.query(queries, limit, part, exact=True)
            best = [_best(its, more, limit) for its, more in zip(best, found, strict=True)]
            slices.give_way()
        return best

    def _read_later(self) -> None:
        with self._lock:
            if self._thread is None and not self._closed.is_set():
                self._thread = threads.background("columns", self._read)

    def _read(self) -> None:
        """Read missing paths until none is missing."""
        while True:
            if self._closed.wait(max(0.0, self._not_before - time.monotonic())):
                return
            with self._lock:
                there = self._columns
                if there is not None and len(there) <= self._most_rows and self._asked.keys() <= there.paths:
                    self._thread = None
                    return
                self._leave_out(there)
                paths = list(self._asked)
            began = time.monotonic()
            try:
                done = self._fill(paths)
            except LLMBackendError as error:
                log.warning(
                    "metadata fields of %s could not be read for filters: %s", self._index.folder, error
                )
                self._not_before = time.monotonic() + AFTER_FAILURE
                with self._lock:
                    self._thread = self._reading = None
                return
            if not done:
                return
            took = time.monotonic() - began
            if not self._gained(there):
                self._not_before = time.monotonic() + REST * took

    def _gained(self, before: Columns | None) -> bool:
        """Return whether fields that exist were read without dropping others."""
        now = self._columns
        if now is None:
            return False
        filled = now.paths - now.empty
        return before is None or (len(filled) <= MOST_COLUMNS and bool(filled - before.paths))

    def _leave_out(self, there: Columns | None) -> None:
        """Drop the least recently used paths. Fields that exist and fields that no chunk has are counted separately."""
        known = there.paths - there.empty if there is not None else frozenset()
        for some in (known, self._asked.keys() - known):
            left: float = MOST_COLUMNS
            for path in [path for path in reversed(self._asked) if path in some]:
                left -= max(1, self._asked[path])
                if left < 0:
                    del self._asked[path]

    def _fill(self, paths: list[str]) -> bool:
        """Read these paths of all chunks into new columns. Returns False if the index was closed meanwhile."""
        from .columns import Columns

        columns = Columns(paths)
        with self._adding, self._lock:
            self._reading = columns
        for page in self._index.pages([WRITTEN, *sorted({selector(path) for path in paths})], READ_BATCH):
            columns.add([(record.id, record.payload or {}) for record in page])
            if self._closed.is_set():
                return False
            slices.give_way()
        with self._lock:
            self._columns, self._reading = columns, None
            self._most_rows = 2 * len(columns) + COLUMNS_FROM
            self._resolved.clear()
        return True

    # In the chunks

    def _near(self, query: Any, limit: int, where: Any, terms: int, chunks: int) -> list[Scored] | None:
        """Return the hits that fit the filter at the top of the unfiltered list, or None if these are too few."""
        looked_at: set[uuid.UUID] = set()
        fitting: set[uuid.UUID] = set()
        depth = max(LEAST_BATCH, 2 * limit)
        while depth <= min(DEEPEST, chunks // 4):  # beyond that, checking all chunks is faster
            [found] = self._index.query([query], depth)
            # A longer list may have other points with the same score first.
            new = [point for point, _ in found if point not in looked_at]
            fitting.update(self._fitting(new, where, terms))
            scored = [one for one in found if one[0] in fitting]
            if len(scored) >= limit or len(found) < depth:
                return scored[:limit]
            looked_at.update(new)
            depth = max(2 * depth, 3 * depth * limit // (2 * len(scored) + 1))
        return None

    def _anywhere(self, where: Any, terms: int, chunks: int) -> list[uuid.UUID]:
        """Check a filter in all chunks, part by part; return the points that fit."""
        if chunks * terms > MOST_PARTS * self._lookups:
            pages = self._index.pages(False, WALKED_AT_ONCE)
            return [
                one for page in pages for one in self._fitting([point.id for point in page], where, terms)
            ]
        fitting: list[uuid.UUID] = []
        waiting = [(1, 0)]
        while waiting:
            parts, number = waiting.pop()
            lookups = chunks * terms // parts
            if lookups > self._lookups and parts < MOST_PARTS:
                waiting += [(2 * parts, number + parts), (2 * parts, number)]
                continue
            these = (
                self._syntax.group(must=[self._syntax.slice(parts, number), where]) if parts > 1 else where
            )
            with self._part(lookups):
                fitting += self._index.ids_of(these, chunks)
        return fitting

    def _fitting(self, ids: list[uuid.UUID], where: Any, terms: int) -> list[uuid.UUID]:
        """Return which of these points fit a filter."""
        fitting: list[uuid.UUID] = []
        start = 0
        while start < len(ids):
            some = ids[start : start + max(1, self._lookups // terms)]
            start += len(some)
            these = self._syntax.group(must=[self._syntax.among(set(some)), where])
            with self._part(len(some) * terms):
                fitting += self._index.ids_of(these, len(some))
        return fitting

    @contextmanager
    def _part(self, lookups: int) -> Iterator[None]:
        """Wrap one part: only one runs at a time in this process."""
        with _FILTERING:
            began = time.perf_counter()
            yield
            took = time.perf_counter() - began
        tracing.worked(took)  # Edge works in its own threads, which are not measured
        slices.give_way()
        if lookups > self._lookups // 2 or took > HELD:
            self._lookups = next_size(self._lookups, took, LEAST_LOOKUPS, MOST_LOOKUPS)


def _depth(limit: int, chunks: int, fitting: int) -> int:
    """Return how far down the unfiltered list the `limit` best of the fitting points are; 0 if looking at each of these
    is faster.
    """
    depth = LEAST_BATCH + 3 * limit * chunks // (2 * max(1, fitting))
    return depth if depth <= DEEPEST and depth * A_LOOK < fitting else 0


def _best(some: list[Scored], more: list[Scored], limit: int) -> list[Scored]:
    return heapq.nlargest(limit, [*some, *more], key=lambda scored: scored[1]) if some else more


def _fields(conditions: Sequence[Condition]) -> Iterator[str]:
    for one in conditions:
        if isinstance(one, Combination):
            yield from _fields(one.conditions)
        else:
            yield one.key
