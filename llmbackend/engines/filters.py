"""Filters as callers write them, parsed: conditions on metadata, and combinations of them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Literal, NamedTuple

from ..errors import InvalidRequest

PLACE = ("page", "headings", "sections")
"""Fields of a chunk's place, which filters find beside metadata."""

MAX_LEVELS = 16
"""How deep `and`, `or` and `not` may be nested."""

TERMS = 32
"""How many conditions filters may have in all: an engine may look each one up in every chunk."""

LISTED = 1_000
"""How many values the lists of filters may have in all."""

PARTS = 4_096
"""How many names, values and filters there may be in all, counted before anything is made of them."""

CHARACTERS = 2**18
"""Of all names and texts in filters: composed and decomposed, they take 30 ms."""

_BOUNDS = ("gt", "gte", "lt", "lte")


class FieldCondition(NamedTuple):
    """What one metadata field must be: equal to `equals`, one of `any_of`, within a range, or else present. Whole
    numbers and floats are compared by value: 2024 is 2024.0.
    """

    key: str
    equals: str | float | bool | None = None
    any_of: list[str] | list[float] | None = None
    range: dict[str, float] | None = None
    times: dict[str, str] | None = None
    """A range of moments, in UTC."""


class Combination(NamedTuple):
    """All, any or none of several conditions."""

    of: Literal["all", "any", "none"]
    conditions: list[Condition]


Condition = FieldCondition | Combination


def conditions(filters: dict[str, Any] | None) -> list[Condition]:
    """The conditions that must all hold for `filters`. Raises InvalidRequest, which names the place.

    `{field: value | [values] | {"gte": number or time, …} | {"exists": bool} | {"not": any of these}}`, and
    `{"and": [filters, …]}`, `{"or": [filters, …]}`, `{"not": filters}`, all beside and in one another.
    """
    _measure(filters or {})
    return bounded(list(_all(filters or {}, ())))


def _measure(filters: dict[str, Any]) -> None:
    """Raises InvalidRequest if there is more in them than may be looked at on the event loop."""
    parts = characters = 0
    left: list[Any] = [filters]
    while left:
        one = left.pop()
        inner = (*one, *one.values()) if isinstance(one, dict) else one if isinstance(one, list) else ()
        parts += len(inner)
        if parts > PARTS:
            raise InvalidRequest(
                f"filters: more than {PARTS} names and values in all; {LISTED} values in lists, and {TERMS} conditions, "
                "are the most: store what they have in common as a field",
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
    """The conditions as given; raises InvalidRequest if they are too many."""
    terms, listed = terms_of(found)
    if terms > TERMS:
        raise _too_many(terms)
    if listed > LISTED:
        raise InvalidRequest(
            f"filters: {listed} values in lists, and {LISTED} are the most: store what they have in common as a field",
            details={"limit": LISTED},
        )
    return found


def terms_of(found: Iterable[Condition]) -> tuple[int, int]:
    """How many conditions on fields there are, and how many values in their lists."""
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
        if key == "not":
            yield Combination("none", [_one(value, here)])
        elif key in ("and", "or"):
            if not isinstance(value, list) or not value:
                raise _wrong(here, 'takes a list of filters, such as [{"year": 2026}, {"team": "hr"}]')
            if len(value) > TERMS:  # before any objects are made of them
                raise _too_many(len(value))
            parts = [_one(part, (*here, str(number))) for number, part in enumerate(value)]
            yield Combination("all" if key == "and" else "any", parts)
        else:
            if not key or '"' in key or "\\" in key:
                raise _wrong(here, "cannot be a metadata field's name")
            yield from _field(key, value, here)


def _one(filters: Any, place: tuple[str, ...]) -> Condition:
    if not isinstance(filters, dict) or not filters:
        raise _wrong(place, 'takes filters, such as {"year": 2026}')
    return Combination("all", list(_all(filters, place)))


def _field(key: str, value: Any, place: tuple[str, ...]) -> Iterator[Condition]:
    match value:
        case int() if abs(value) >= 2**63:
            raise _too_large(value, place)
        case str() if len(found := forms(value)) > 1:
            yield FieldCondition(key, any_of=found)
        case str() | int() | float():
            yield FieldCondition(key, equals=value)
        case list() if value and all(isinstance(item, str | int | float) for item in value):
            yield _any_of(key, value, place)
        case dict() if value:
            yield from _operators(key, dict(value), place)
        case None:
            raise _wrong(place, "is null, which no field is: ask for {'exists': false}")
        case _:
            raise _makes_no_sense(place)


def _any_of(key: str, values: list[Any], place: tuple[str, ...]) -> Condition:
    """A condition that a field is one of these texts, numbers and booleans."""
    texts = list(dict.fromkeys(form for value in values if isinstance(value, str) for form in forms(value)))
    truths = list(dict.fromkeys(value for value in values if isinstance(value, bool)))
    numbers = [value for value in values if not isinstance(value, str | bool)]
    for value in numbers:
        if isinstance(value, int) and abs(value) >= 2**63:
            raise _too_large(value, place)
    found: list[Condition] = [FieldCondition(key, any_of=some) for some in (texts, numbers) if some]
    found += (FieldCondition(key, equals=value) for value in truths)
    return found[0] if len(found) == 1 else Combination("any", found)


def forms(text: str) -> list[str]:
    """A text in Unicode's composed and decomposed form: metadata are stored as given, in either."""
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
    """Whether it is a date, or a date and time."""
    try:
        return _moment("gte", text) is not None
    except (ValueError, OverflowError):
        return False


def _moment(name: str, bound: str) -> tuple[str, datetime]:
    """A bound as a moment, in UTC where it tells no zone. A date stands for all of its day."""
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
        f"filters: {terms} conditions, and {TERMS} are the most: a list, {{field: [any of these]}}, counts as one",
        details={"limit": TERMS},
    )


def _wrong(place: tuple[str, ...], reason: str) -> InvalidRequest:
    return InvalidRequest(f"filters: {'.'.join(place)!r} {reason}")


def _too_large(value: int, place: tuple[str, ...]) -> InvalidRequest:
    return _wrong(place, f"{str(value)[:30]} is too large, 64 bits are the limit")


def _makes_no_sense(place: tuple[str, ...]) -> InvalidRequest:
    return _wrong(
        place,
        "takes a value, a list of values, bounds such as {'gte': 1, 'lt': 5} or {'gte': '2026-03-01'}, "
        "{'exists': true}, or {'not': …} of these; for a field within a field, 'author.name', or 'authors[].name' in a list",
    )
