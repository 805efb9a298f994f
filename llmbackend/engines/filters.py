"""Parses callers' filters into conditions on metadata fields, and combinations of them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Literal, NamedTuple

from ..errors import InvalidRequest

PLACE = ("page", "headings", "sections")
"""Fields of a chunk's place that filters may name, as they name metadata."""

MAX_LEVELS = 16
"""How deep `and`, `or` and `not` may be nested."""

TERMS = 32
"""Most conditions in a filter: an engine may check each one in every chunk."""

LISTED = 1_000
"""Most values in all lists of a filter together."""

PARTS = 4_096
"""Most names, values and nested filters in a filter, counted before it is parsed."""

CHARACTERS = 2**18
"""Most characters of all names and texts in a filter: normalizing so many takes 30 ms."""

_BOUNDS = ("gt", "gte", "lt", "lte")


class FieldCondition(NamedTuple):
    """What a metadata field must be: equal to `equals`, one of `any_of`, or within `range` or `times`. If none of these
    is set, it must exist. Integers and floats are compared by value: 2024 is 2024.0.
    """

    key: str
    equals: str | float | bool | None = None
    any_of: list[str] | list[float] | None = None
    range: dict[str, float] | None = None
    times: dict[str, str] | None = None
    """Bounds as times in UTC (ISO 8601)."""
    spans: list[dict[str, str]] | None = None
    """Beside texts in `any_of` that are times: the days and moments that they stand for, as bounds (`gte`, `lte`) that are
    sorted and apart. A value within one of these fits, too.
    """


class Combination(NamedTuple):
    """All, any or none of several conditions."""

    of: Literal["all", "any", "none"]
    conditions: list[Condition]


Condition = FieldCondition | Combination


def conditions(filters: dict[str, Any] | None) -> list[Condition]:
    """Parse `filters` into conditions that must all hold. Raises InvalidRequest, which names the wrong part.

    `filters` is `{field: value | [values] | {"gte": number or time, …} | {"exists": bool} | {"not": any of these}}`, or
    `{"and": [filters, …]}`, `{"or": [filters, …]}`, `{"not": filters}`, in any combination.
    """
    if not filters:
        return []
    _measure(filters)
    return bounded(list(_all(filters, ())))


def _measure(filters: dict[str, Any]) -> None:
    """Raise InvalidRequest for filters too large to be parsed on the event loop."""
    parts = characters = 0
    left: list[Any] = [filters]
    while left:
        one = left.pop()
        inner = (*one, *one.values()) if isinstance(one, dict) else one if isinstance(one, list) else ()
        parts += len(inner)
        if parts > PARTS:
            raise InvalidRequest(
                f"filters: more than {PARTS} names and values in all; {LISTED} values in lists, and {TERMS} conditions, "
                "are the most: store what the documents have in common as a field",
                details={"limit": PARTS},
            )
        left += inner
        characters += len(one) if isinstance(one, str) else 0
        if characters > CHARACTERS:
            raise InvalidRequest(
                f"filters: more than {CHARACTERS} characters in all: ask for shorter texts, or for fewer",
                details={"limit": CHARACTERS},
            )


def bounded(found: list[Condition]) -> list[Condition]:
    """Return the conditions unchanged; raises InvalidRequest if there are too many."""
    terms, listed = terms_of(found)
    if terms > TERMS:
        raise _too_many(terms)
    if listed > LISTED:
        raise InvalidRequest(
            f"filters: {listed} values in lists, and {LISTED} are the most: store what the documents have in common as a "
            "field",
            details={"limit": LISTED},
        )
    return found


def terms_of(found: Iterable[Condition]) -> tuple[int, int]:
    """Count the conditions on fields, and the values in their lists."""
    terms = listed = 0
    waiting = list(found)
    while waiting:
        one = waiting.pop()
        if isinstance(one, Combination):
            waiting += one.conditions
        else:
            terms += 1
            listed += len(one.any_of or ())
    return terms, listed


def _all(filters: dict[str, Any], place: tuple[str, ...]) -> Iterator[Condition]:
    if len(place) > MAX_LEVELS:
        raise InvalidRequest(f"filters: more than {MAX_LEVELS} levels of and, or, not")
    for key, value in filters.items():
        here = (*place, key)
        if key in ("and", "or", "not") and _asks_for_a_field(key, value):
            yield from _field(key, value, here)
        elif key == "not":
            yield Combination("none", [_one(value, here)])
        elif key in ("and", "or"):
            if not isinstance(value, list) or not value:
                raise _wrong(
                    here,
                    'takes a list of filters, such as [{"year": 2026}, {"team": "hr"}]; a value, a list of values or bounds '
                    "ask for a field of that name",
                )
            if len(value) > TERMS:  # refused before they are parsed
                raise _too_many(len(value))
            parts = [_one(part, (*here, str(number))) for number, part in enumerate(value)]
            yield Combination("all" if key == "and" else "any", parts)
        else:
            if not key or '"' in key or "\\" in key:
                raise _wrong(here, "cannot be a metadata field's name")
            yield from _field(key, value, here)


def _asks_for_a_field(key: str, value: Any) -> bool:
    """Return whether `and`, `or` or `not` is the name of a field here, since no filters follow."""
    if isinstance(value, dict):  # bounds and the like, but "not" takes filters
        return key != "not" and bool(value) and value.keys() <= {*_BOUNDS, "not", "exists"}
    some = value if isinstance(value, list) else [value]
    return bool(some) and all(isinstance(one, str | int | float) for one in some)


def _one(filters: Any, place: tuple[str, ...]) -> Condition:
    if not isinstance(filters, dict) or not filters:
        raise _wrong(place, 'takes filters, such as {"year": 2026}')
    return Combination("all", list(_all(filters, place)))


def _field(key: str, value: Any, place: tuple[str, ...]) -> Iterator[Condition]:
    match value:
        case int() if abs(value) >= 2**63:
            raise _too_large(value, place)
        case str() if key not in PLACE and is_time(value):
            yield FieldCondition(key, any_of=[value], spans=_spans([value]))
        case str() if len(found := forms(value)) > 1:
            yield FieldCondition(key, any_of=found)
        case str() | int() | float():
            yield FieldCondition(key, equals=value)
        case list() if value and all(isinstance(item, str | int | float) for item in value):
            yield _any_of(key, value, place)
        case dict() if value:
            yield from _operators(key, dict(value), place)
        case None:
            raise _wrong(place, "is null, and no field is null: ask for {'exists': false}")
        case _:
            raise _makes_no_sense(place)


def _any_of(key: str, values: list[Any], place: tuple[str, ...]) -> Condition:
    """Make a condition that a field has one of these values."""
    texts = list(dict.fromkeys(form for value in values if isinstance(value, str) for form in forms(value)))
    times = [text for text in texts if is_time(text)] if key not in PLACE else []
    texts = [text for text in texts if not (times and is_time(text))]
    truths = list(dict.fromkeys(value for value in values if isinstance(value, bool)))
    numbers = [value for value in values if not isinstance(value, str | bool)]
    for value in numbers:
        if isinstance(value, int) and abs(value) >= 2**63:
            raise _too_large(value, place)
    found: list[Condition] = [FieldCondition(key, any_of=some) for some in (texts, numbers) if some]
    if times:
        found.append(FieldCondition(key, any_of=times, spans=_spans(times)))
    found += (FieldCondition(key, equals=value) for value in truths)
    return found[0] if len(found) == 1 else Combination("any", found)


def forms(text: str) -> list[str]:
    """Return a text as given, and in Unicode's composed and decomposed form: stored metadata may have any of these."""
    found = {text: None}
    if not text.isascii():
        found |= {unicodedata.normalize(form, text): None for form in ("NFC", "NFD")}
    return list(found)


def _operators(key: str, given: dict[str, Any], place: tuple[str, ...]) -> Iterator[Condition]:
    bounds = {name: given.pop(name) for name in _BOUNDS if name in given}
    if bounds:
        yield _within(key, bounds, place)
    if "not" in given:
        if len(place) > MAX_LEVELS:
            raise InvalidRequest(f"filters: more than {MAX_LEVELS} levels of and, or, not")
        refused = list(_field(key, given.pop("not"), (*place, "not")))
        yield Combination("none", [Combination("all", refused)])
    if "exists" in given:
        exists = given.pop("exists")
        if not isinstance(exists, bool):
            raise _wrong((*place, "exists"), "takes true or false")
        there = FieldCondition(key)
        yield there if exists else Combination("none", [there])
    if given:
        raise _makes_no_sense(place)


def _within(key: str, bounds: dict[str, Any], place: tuple[str, ...]) -> FieldCondition:
    if all(type(bound) in (int, float) and abs(bound) < 1e300 for bound in bounds.values()):
        return FieldCondition(key, range={name: float(bound) for name, bound in bounds.items()})
    try:
        given = [_moment(name, bound) for name, bound in bounds.items() if isinstance(bound, str)]
    except (ValueError, OverflowError):
        given = []
    if len(given) < len(bounds):
        raise _wrong(
            place,
            "has bounds that are neither numbers nor times: these are such as '2026-03-01', which is the whole day, "
            "'2026-03-01T09:30:00Z' or '2026-03-01T09:30:00+02:00'",
        )
    found: dict[str, datetime] = {}
    for name, moment in given:  # a day may have become the same bound as another value
        narrower = max if name.startswith("g") else min
        found[name] = narrower(found.get(name, moment), moment)
    return FieldCondition(key, times={name: moment.isoformat() for name, moment in found.items()})


_TIME = re.compile(r"\d{4}-\d\d-\d\d(?:[Tt ]\d\d:\d\d.*)?", re.ASCII)


def is_time(text: str) -> bool:
    """Return whether a text is a date, or a date and time."""
    try:
        return _moment("gte", text) is not None
    except (ValueError, OverflowError):
        return False


_SHORTEST = timedelta(microseconds=1)
"""No time is between two that are so far apart."""


def _spans(times: list[str]) -> list[dict[str, str]]:
    """Return the days and moments that these texts stand for, joined where they touch."""
    found: list[tuple[datetime, datetime]] = []
    for first, last in sorted(_span(text) for text in times):
        if found and first - found[-1][1] <= _SHORTEST:
            found[-1] = found[-1][0], max(last, found[-1][1])
        else:
            found.append((first, last))
    return [{"gte": first.isoformat(), "lte": last.isoformat()} for first, last in found]


def _span(text: str) -> tuple[datetime, datetime]:
    _, first = _moment("gte", text)
    name, last = _moment("lte", text)
    return first, last - _SHORTEST if name == "lt" else last


def _moment(name: str, bound: str) -> tuple[str, datetime]:
    """Return a bound's name and its time in UTC, which is also assumed if the text names no zone.

    A date stands for its whole day, so the name may change: `lte` a day becomes `lt` the next.
    """
    if not _TIME.fullmatch(bound):
        raise ValueError(bound)
    if len(bound) > len("2026-03-01"):
        moment = datetime.fromisoformat(bound.upper())
        return name, moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    day = date.fromisoformat(bound)
    if name in ("gte", "lt"):
        return name, datetime.combine(day, time.min, UTC)
    if day == date.max:
        return name, datetime.combine(day, time.max, UTC)
    return {"gt": "gte", "lte": "lt"}[name], datetime.combine(day + timedelta(1), time.min, UTC)


def _too_many(terms: int) -> InvalidRequest:
    return InvalidRequest(
        f"filters: {terms} conditions, and {TERMS} are the most: {{field: [value, value, …]}} counts as one",
        details={"limit": TERMS},
    )


def _wrong(place: tuple[str, ...], reason: str) -> InvalidRequest:
    return InvalidRequest(f"filters: {'.'.join(place)!r} {reason}")


def _too_large(value: int, place: tuple[str, ...]) -> InvalidRequest:
    return _wrong(place, f"{str(value)[:30]} is too large: the limit is 64 bits")


def _makes_no_sense(place: tuple[str, ...]) -> InvalidRequest:
    return _wrong(
        place,
        "takes a value, a list of values, bounds such as {'gte': 1, 'lt': 5} or {'gte': '2026-03-01'}, "
        "{'exists': true}, or {'not': …} of these; a field within a field is 'author.name', or 'authors[].name' in a list",
    )
