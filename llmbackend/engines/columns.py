"""Keeps metadata fields of all chunks as columns in memory, to resolve a filter to the points that fit it.

It finds the same points as an engine that looks into every payload. A point's id is derived from its content, so writing
it again changes nothing. Deleted points stay in the columns, but no search finds them.
"""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from .edge_shard import WRITTEN
from .filters import Combination, Condition, FieldCondition
from .indexes import EXACT, places, steps

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Mask: TypeAlias = NDArray[np.bool_]
    """Whether each row fits."""

SORT_FROM = 10_000
"""Least number of new rows or values after which all are sorted again."""


class Columns:
    """The values of some paths in the points that were added. Safe to use from any thread."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._columns = {path: _Column(path) for path in paths}
        self._ids = _Growing(np.uint64, 2)
        self._written = _Growing(np.int64)
        self._sorted: tuple[NDArray[np.uint64], NDArray[np.intp]] = (
            np.empty(0, np.uint64),
            np.empty(0, np.intp),
        )
        """The lower halves of the ids, sorted, and their rows."""
        self._lock = threading.Lock()
        self.version = 0
        """Increases with every change."""

    @property
    def paths(self) -> frozenset[str]:
        return frozenset(self._columns)

    @property
    def empty(self) -> frozenset[str]:
        """The paths that no point has."""
        return frozenset(path for path, column in self._columns.items() if not column.there.size)

    def __len__(self) -> int:
        return self._ids.size

    def add(self, points: Sequence[tuple[uuid.UUID, dict[str, Any]]]) -> None:
        """Add points with their payloads, a row for each."""
        with self._lock:
            first = self._ids.size
            self._ids.extend([divmod(point.int, 2**64) for point, _ in points])
            self._written.extend([payload[WRITTEN] for _, payload in points])
            for column in self._columns.values():
                column.add(first, [payload for _, payload in points])
            self.version += 1

    def fitting(self, conditions: Sequence[Condition]) -> Mask:
        """Return a mask of the rows that fit all conditions."""
        with self._lock:
            return self._all(conditions)

    def ids(self, rows: NDArray[np.intp]) -> list[str]:
        """Return the ids of the points in these rows, as 32 hexadecimal digits each."""
        with self._lock:
            digits = self._ids.now[rows].astype(">u8").tobytes().hex()
        return [digits[start : start + 32] for start in range(0, len(digits), 32)]

    def written(self, rows: NDArray[np.intp]) -> list[int]:
        """Return the times at which the points in these rows were written."""
        with self._lock:
            times: list[int] = self._written.now[rows].tolist()
            return times

    def which(self, ids: Sequence[uuid.UUID], mask: Mask) -> list[bool]:
        """Return, for each of these points, whether a row of it fits."""
        asked = np.array([point.int % 2**64 for point in ids], np.uint64)
        fits = np.zeros(len(asked), np.bool_)
        with self._lock:
            lower = self._ids.now[: len(mask), 1]
            keys, rows = self._sorted
            if len(lower) - len(keys) > max(SORT_FROM, len(keys) // 4):
                rows = np.argsort(lower)
                keys = lower[rows]
                self._sorted = keys, rows
            last = np.argsort(lower[len(keys) :]) + len(keys)
        for its, of in ((keys, rows), (lower[last], last)):
            if len(its):
                place = np.minimum(np.searchsorted(its, asked), len(its) - 1)
                known = of[place] < len(mask)
                fits |= known & (its[place] == asked) & mask[np.where(known, of[place], 0)]
        return fits.tolist()

    def _all(self, conditions: Iterable[Condition]) -> Mask:
        mask = np.ones(self._ids.size, np.bool_)
        for one in conditions:
            mask &= self._mask(one)
        return mask

    def _mask(self, one: Condition) -> Mask:
        if isinstance(one, Combination):
            if one.of == "all":
                return self._all(one.conditions)
            mask = np.zeros(self._ids.size, np.bool_)
            for condition in one.conditions:
                mask |= self._mask(condition)
            return ~mask if one.of == "none" else mask
        mask = np.zeros(self._ids.size, np.bool_)
        for path in places(one.key):
            for rows in self._columns[path].rows(one):
                mask[rows] = True
        return mask


class _Growing:
    """An array that grows at its end."""

    def __init__(self, kind: Any, width: int = 1) -> None:
        self._all: Any = np.empty((0, width) if width > 1 else 0, kind)
        self.size = 0

    @property
    def now(self) -> Any:
        return self._all[: self.size]

    def extend(self, values: Sequence[Any]) -> None:
        size = self.size + len(values)
        if size > len(self._all):
            grown = np.empty(
                (max(size, len(self._all) * 5 // 4, 1024), *self._all.shape[1:]), self._all.dtype
            )
            grown[: self.size] = self.now
            self._all = grown
        if values:
            self._all[self.size : size] = values
        self.size = size


class _Values:
    """Values of one kind, and the rows that have them."""

    def __init__(self, kind: Any) -> None:
        self._keys = _Growing(kind)
        self._rows = _Growing(np.uint32)
        self._sorted = 0
        """How many keys, from the first on, are sorted, so that a filter takes the time of what it finds."""

    def add(self, keys: list[Any], rows: list[int]) -> None:
        if rows:
            self._keys.extend(keys)
            self._rows.extend(rows)

    def equal(self, wanted: Sequence[Any]) -> Any:
        keys, rows, rest, of_rest = self._parts()
        asked = np.array(wanted, keys.dtype)
        first, last = np.searchsorted(keys, asked), np.searchsorted(keys, asked, "right")
        found = [rows[start:end] for start, end in zip(first, last, strict=True)]
        return np.concatenate([*found, of_rest[np.isin(rest, asked)]])

    def within(self, bounds: dict[str, Any]) -> Any:
        keys, rows, rest, of_rest = self._parts()
        first, last, mask = 0, len(keys), np.ones(len(rest), np.bool_)
        for name, bound in bounds.items():
            mask &= _COMPARED[name](rest, bound)
            place = int(np.searchsorted(keys, bound, "left" if name in ("gte", "lt") else "right"))
            first, last = (max(first, place), last) if name in ("gt", "gte") else (first, min(last, place))
        return np.concatenate([rows[first:last], of_rest[mask]])

    def _parts(self) -> tuple[Any, Any, Any, Any]:
        """Return the sorted keys and their rows, and those that were added since they were sorted."""
        keys, rows = self._keys.now, self._rows.now
        if len(keys) - self._sorted > max(SORT_FROM, self._sorted // 4):
            order = np.argsort(keys)
            keys[:], rows[:] = keys[order], rows[order]
            self._sorted = len(keys)
        return keys[: self._sorted], rows[: self._sorted], keys[self._sorted :], rows[self._sorted :]


_COMPARED: dict[str, Any] = {
    "gt": np.greater,
    "gte": np.greater_equal,
    "lt": np.less,
    "lte": np.less_equal,
}


class _Column:
    """The values at one path, by type."""

    def __init__(self, path: str) -> None:
        self._steps = steps(path)
        self._texts = _Values(np.int64)
        """64-bit hashes of texts: two of a million texts collide in one of 40 million processes."""
        self._times = _Values(np.int64)
        self._numbers = _Values(np.float64)
        self._exact = _Values(np.int64)
        """Integers that are not exact as floats."""
        self._truths = _Values(np.bool_)
        self.there = _Growing(np.uint32)

    def add(self, first: int, payloads: Iterable[dict[str, Any]]) -> None:
        """Add the values in the payloads of the rows from `first` on."""
        there: list[int] = []
        found: dict[int, tuple[_Values, list[Any], list[int]]] = {}

        def put(values: _Values, key: Any, row: int) -> None:
            _, keys, rows = found.setdefault(id(values), (values, [], []))
            keys.append(key)
            rows.append(row)

        for row, payload in enumerate(payloads, first):
            values = at(payload, self._steps)
            if any(value is not None and value != [] for value in values):
                there.append(row)
            for value in values:
                for one in value if isinstance(value, list) else (value,):
                    if isinstance(one, str):
                        put(self._texts, hash(one), row)
                        if (moment := _moment(one)) is not None:
                            put(self._times, moment, row)
                    elif isinstance(one, bool):
                        put(self._truths, one, row)
                    elif isinstance(one, int | float):
                        put(self._numbers, float(one), row)
                        if isinstance(one, int) and EXACT < abs(one) < 2**63:
                            put(self._exact, one, row)
        self.there.extend(there)
        for kind, keys, rows in found.values():
            kind.add(keys, rows)

    def rows(self, condition: FieldCondition) -> list[Any]:
        """Return the rows that fit, in one or more arrays."""
        if condition.times is not None:
            return [self._within(condition.times)]
        if condition.range is not None:
            return [self._numbers.within(condition.range)]
        values: Any = condition.any_of if condition.any_of is not None else [condition.equals]
        if values[0] is None:
            return [self.there.now]
        if isinstance(values[0], str):
            texts = self._texts.equal([hash(value) for value in values])
            return [texts, *(self._within(bounds) for bounds in condition.spans or ())]
        if isinstance(values[0], bool):
            return [self._truths.equal(values)]
        exact = [value for value in values if isinstance(value, int) and abs(value) > EXACT]
        others = [float(value) for value in values if value not in set(exact)]
        return [self._exact.equal(exact), self._numbers.equal(others)]

    def _within(self, times: dict[str, str]) -> Any:
        return self._times.within(
            {name: _microseconds(datetime.fromisoformat(bound)) for name, bound in times.items()}
        )


def at(payload: dict[str, Any], path: Sequence[str | int | None]) -> list[Any]:
    """Return all values at a path. A step is a field's name, an item of a list (its number), or every item (None)."""
    found: list[Any] = [payload]
    for step in path:
        if isinstance(step, str):
            found = [one[step] for one in found if isinstance(one, dict) and step in one]
        else:
            lists = [one for one in found if isinstance(one, list)]
            found = [one for some in lists for one in (some if step is None else some[step : step + 1])]
    return found


_TIME = re.compile(
    r"\s*(\d{4})-(\d\d?)-(\d\d?)"
    r"(?:[Tt ](\d\d?):(\d\d?)(?::(\d\d?)(?:\.(\d+))?(?:([Zz])|([+-]\d\d):?(\d\d)?)?)?)?",
    re.ASCII,
)


def _moment(text: str) -> int | None:
    """Return a text as microseconds since 1970 if Qdrant would read it as a time, else None. UTC if it names no zone."""
    if len(text) < len("2026-1-1") or not (found := _TIME.fullmatch(text)):
        return None
    year, month, day, hour, minute, second = (int(part or 0) for part in found.groups()[:6])
    micros = int((found[7] or "")[:6].ljust(6, "0"))
    zone = UTC
    try:
        if found[9]:
            minutes = 60 * int(found[9][1:]) + int(found[10] or 0)
            zone = timezone(timedelta(minutes=-minutes if found[9][0] == "-" else minutes))
        return _microseconds(datetime(year, month, day, hour, minute, second, micros, zone))
    except ValueError:  # no such day or hour
        return None


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)
