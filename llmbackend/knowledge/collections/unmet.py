"""Finds filters that no document can meet: misspelt fields, and fields with values of another type."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from typing import Any

from ... import threads
from ...alike import did_you_mean
from ...engines.filters import PLACE, Combination, Condition, FieldCondition, is_time
from .collection import Collection

SAMPLE = 500
"""Most documents that are looked at, which takes a few milliseconds: a sample is good enough for a hint."""

NAMED = 8
"""Fields that are listed if none has a similar name."""

_NUMBERED = re.compile(r"\[\d+\]")

Held = dict[str, dict[str, Any]]
"""For each field, the kinds of its values, each with an example."""


async def unmet(collections: Sequence[Collection], where: Sequence[Condition]) -> list[str]:
    """Return a sentence for each field that no document has, or that holds another type of value."""
    asked: dict[str, list[set[str]]] = {}
    for one in _fields(where):
        if one.key not in PLACE:
            asked.setdefault(one.key, []).append(_wanted(one))
    told: list[str] = []
    for collection in collections if asked else ():
        page = await collection.documents(SAMPLE, None)
        seen = len(page.heads)
        which = "no document" if page.cursor is None else f"none of the {seen:,} documents looked at"
        if len(collections) > 1:
            which += f" of {collection.manifest.called!r}"
        held = await threads.processor(_held, [head.metadata for head in page.heads])
        told += filter(None, (_unmet(key, wanted, held, which) for key, wanted in asked.items()))
    return list(dict.fromkeys(told))


def _fields(asked: Iterable[Condition]) -> Iterator[FieldCondition]:
    for one in asked:
        if isinstance(one, Combination):
            yield from _fields(one.conditions)
        else:
            yield one


def _held(every: Iterable[dict[str, Any]]) -> Held:
    found: Held = {}
    waiting: list[tuple[str, Any]] = [item for metadata in every for item in metadata.items()]
    while waiting:
        name, value = waiting.pop()
        name = unicodedata.normalize("NFC", name)
        if isinstance(value, list):
            waiting += ((name if not isinstance(one, dict) else f"{name}[]", one) for one in value)
            continue
        if value is not None:
            found.setdefault(name, {}).setdefault(_kind(value), value)
        if isinstance(value, dict):
            waiting += ((f"{name}.{inner}", one) for inner, one in value.items())
    return found


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "numbers"
    if isinstance(value, dict):
        return "objects"
    return "times" if is_time(value) else "texts"


def _unmet(field: str, wanted: list[set[str]], held: Held, which: str) -> str | None:
    """Return the sentence for a field, or None. `wanted` has the types that each condition on it accepts; one match is
    enough.
    """
    key = unicodedata.normalize("NFC", _NUMBERED.sub("[]", field))
    kinds = held.get(key) or held.get(f"{key}[]")
    if kinds is None:
        return f"{which} has the field {field!r}{_instead(key, held)}"
    either = set().union(*wanted)
    if not all(wanted) or either & kinds.keys():
        return None
    if "objects" in kinds:
        inside = [repr(name) for name in held if re.match(re.escape(key) + r"(?:\[\])?\.", name)]
        such = f", such as {' or '.join(inside[:2])}" if inside else ""
        return f"{field!r} holds objects: ask for a field in it{such}"
    kind, value = next(iter(kinds.items()))
    return f"{field!r} holds {kind}, such as {str(value)[:50]!r}, and the filter asks for {' or '.join(sorted(either))}"


def _wanted(asked: FieldCondition) -> set[str]:
    """Return the types of value that may fit a condition; empty if any may."""
    if asked.times is not None:
        return {"times"}
    if asked.range is not None:
        return {"numbers"}
    values = asked.any_of if asked.any_of is not None else [asked.equals]
    return {_kind(value) for value in values if value is not None}


def _instead(key: str, held: Held) -> str:
    """Return a hint at fields that may be meant instead."""
    last = re.split(r"[.\]]", key)[-1].casefold()
    inside = [
        name
        for name in held
        if name.casefold() == key.casefold() or re.split(r"[.\]]", name)[-1].casefold() == last
    ]
    if meant := list(dict.fromkeys(inside + get_close_matches(key, held, 3)))[:3]:
        return f": {did_you_mean(meant)}"
    some = [repr(name) for name in sorted(held) if "objects" not in held[name]]
    return f"; there are {', '.join(some[:NAMED])}{', …' if len(some) > NAMED else ''}" if some else ""
