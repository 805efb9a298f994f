"""Checks metadata, for every operation that stores it, so that the engines can read it back."""

import math
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from .base import Json

# Qdrant Edge cannot read its log again where metadata is nested 123 deep or more. Every chunk of a document has a copy,
# and Edge converts it with the interpreter's lock held, hence the other two.
METADATA_DEPTH = 32
"""How deeply lists and objects may be nested."""
VALUES = 1_000
"""The most values, including those in lists and objects."""
BYTES = 2**16
"""The most bytes: texts and field names count as UTF-8, any other value as 8."""


def storable(metadata: dict[str, Any], what: str = "metadata", most_bytes: int = BYTES) -> dict[str, Any]:
    """The metadata unchanged; raises ValueError with the place and the limit if it cannot be stored."""
    size = values = 0
    waiting: list[tuple[Any, tuple[str, ...]]] = [(metadata, ())]
    while waiting:
        value, place = waiting.pop()
        inner: list[tuple[Any, str]] = []
        if isinstance(value, str):
            size += _bytes(value, what, place)
        elif isinstance(value, dict):
            for key in value:
                if not isinstance(key, str):
                    raise ValueError(f"{_at(what, place)} has a field whose name is not a text")
                size += _bytes(key, what, place)
            inner = [(each, key) for key, each in value.items()]
        elif isinstance(value, list):
            inner = [(each, str(number)) for number, each in enumerate(value)]
        else:
            size += 8
            _number(value, what, place)
        values += len(inner)
        if inner and len(place) >= METADATA_DEPTH:
            raise ValueError(f"{_at(what, place[:3])} is nested more than {METADATA_DEPTH} deep")
        if values > VALUES:
            raise ValueError(f"{what} has more than {VALUES} values: put long lists into the document's text")
        waiting += [(each, (*place, key)) for each, key in inner]
        if size > most_bytes:
            raise ValueError(
                f"{what} has more than {most_bytes} bytes, and every chunk has a copy: put long texts into the "
                "document's text"
            )
    return metadata


def _bytes(text: str, what: str, place: tuple[str, ...]) -> int:
    try:
        return len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError:
        raise ValueError(f"{_at(what, place)} has half a surrogate pair, which is not a character") from None


def _number(value: Any, what: str, place: tuple[str, ...]) -> None:
    if isinstance(value, int):
        if not -(2**63) <= value < 2**64:
            raise ValueError(
                f"{_at(what, place)} is an integer of more than 64 bits, {value}: give it as text"[:400]
            )
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{_at(what, place)} is not a finite number")
    elif value is not None:
        raise ValueError(f"{_at(what, place)} is a {type(value).__name__}, which JSON does not have")


def _at(what: str, place: tuple[str, ...]) -> str:
    where = ".".join(place)
    return f"{what}, at {where[:100]!r}," if where else what


Metadata = Annotated[
    dict[str, Json],
    AfterValidator(storable),
    Field(
        description=f"nested at most {METADATA_DEPTH} deep, with at most {VALUES:,} values and {BYTES:,} bytes in all; "
        "integers have at most 64 bits"
    ),
]


# The place of an imported chunk; exports have a page, headings, and those of the sections it joins.

HEADINGS = 64
PLACE_BYTES = 2**20
"""More than for metadata: a heading may be a long line."""


def _place(given: dict[str, Any]) -> dict[str, Any]:
    """A chunk's place as in an export; raises ValueError."""
    if unknown := sorted(given.keys() - {"page", "headings", "sections"}):
        raise ValueError(
            f"place has {unknown[0][:100]!r}, but only 'page', 'headings' and 'sections' are known"
        )
    page, headings = given.get("page", 1), given.get("headings", [])
    if type(page) is not int or not 1 <= page < 2**31:
        raise ValueError("place, at 'page', is not a whole number from 1 on")
    for name in ("headings", "sections"):
        titles = given.get(name, [])
        if not isinstance(titles, list) or not all(isinstance(one, str) for one in titles):
            raise ValueError(f"place, at {name!r}, is not a list of texts")
    if len(headings) > HEADINGS:
        raise ValueError(f"place, at 'headings', has more than {HEADINGS} headings")
    return storable(given, "place", PLACE_BYTES)


ChunkPlace = Annotated[dict[str, Json], AfterValidator(_place)]

Filters = Annotated[
    dict[str, Json],
    Field(
        description="conditions on metadata, all of which must hold: {field: value}, {field: [any of these]}, {field: {gte, gt, lte, lt}}, "
        "bounds being numbers or times (RFC 3339), {field: {exists: true or false}}, {field: {not: …}}; a field within "
        "a field is author.name, and authors[].name within a list; and {and: [filters, …]}, {or: [filters, …]}, "
        "{not: filters}; at most 32 conditions, 1,000 values in lists, 262,144 characters, and 16 levels"
    ),
]
