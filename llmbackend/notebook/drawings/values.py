"""Drawings of any record or list: fields by name, tables, and values in words."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from llm_client import Embeddings, Job, Record, Records, flat_fields

from ..parts import Drawing, Facts, Fold, Line, Paragraph, Span, Table, muted
from ..wording import count, decimal, moment, parsed, plural, shortened

ROWS = 50  # shown of a list; `.to_pandas()` has all
COLUMNS = 10  # shown of a list without its own drawing
FIELDS = 12  # shown of a record within a line
LONG_AGO = 10**9  # September 2001: a larger number in a field `…_at` is a time in seconds
LETTERS = 400  # of a passage, before the rest is folded

Draw = TypeVar("Draw", bound=Callable[[Any], Drawing])

# By the fields that a record has, because results are plain dicts, wherever they come from.
RECORDS: dict[frozenset[str], Callable[[Record], Drawing]] = {}
LISTS: dict[frozenset[str], Callable[[Sequence[Mapping[str, Any]]], Drawing]] = {}


def of_records_with(*fields: str) -> Callable[[Draw], Draw]:
    """Register how records with these fields are drawn. If several fit, the first one registered is used."""

    def told(draw: Draw) -> Draw:
        RECORDS[frozenset(fields)] = draw
        return draw

    return told


def of_lists_with(*fields: str) -> Callable[[Draw], Draw]:
    """Register how a list is drawn whose records all have these fields."""

    def told(draw: Draw) -> Draw:
        LISTS[frozenset(fields)] = draw
        return draw

    return told


@functools.singledispatch
def drawing(value: Any) -> Drawing:
    return [Paragraph(in_words(value))]


@drawing.register
def _record(record: Record) -> Drawing:
    for keys, draw in RECORDS.items():
        if keys <= record.keys():
            return draw(record)
    return facts_of(record)


@drawing.register(Records)
def _list(records: Records[Any]) -> Drawing:
    if not records:
        return nothing("none", records.notes)
    for keys, draw in LISTS.items():
        if all(isinstance(record, Mapping) and keys <= record.keys() for record in records):
            return draw(records)
    return table_of(records)


def facts_of(record: Mapping[str, Any]) -> Drawing:
    """Names and values; records and lists among the values follow as drawings of their own."""
    small = {name: value for name, value in record.items() if not (_is_large(value) or value is None)}
    return [
        *([Facts([(name, in_words(value, name)) for name, value in small.items()])] if small else []),
        *(
            Fold(name, drawing(value), open=True)
            for name, value in record.items()
            if _is_large(value) and len(value)
        ),
    ]


def _is_large(value: Any) -> bool:
    return isinstance(value, Records | Record) and not isinstance(value, Job)


def table_of(records: Sequence[Mapping[str, Any]]) -> Drawing:
    """A table of all fields that occur; nested ones are named like `author.name`, if there is room."""
    rows: list[Mapping[str, Any]] = [dict(flat_fields(record)) for record in records[:ROWS]]
    if len(_filled(rows)) > COLUMNS:
        rows = list(records[:ROWS])
    names = _filled(rows)
    shown = names[:COLUMNS]
    numbers = {
        column
        for column, name in enumerate(shown)
        if all(
            isinstance(row.get(name), int | float | None) and not isinstance(row.get(name), bool)
            for row in rows
        )
    }
    cells = [[in_words(row.get(name), name, 200) for name in shown] for row in rows]
    return [
        Table(shown, cells, frozenset(numbers)),
        *and_more(records, ROWS),
        *and_columns(names),
    ]


def _filled(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of the fields that have a value in any row."""
    names = dict.fromkeys(name for row in rows for name in row)
    return [name for name in names if any(row.get(name) not in (None, "", [], {}) for row in rows)]


def and_more(records: Sequence[Any], shown: int, of_what: str = "more") -> list[Paragraph]:
    more = len(records) - shown
    return [Paragraph(muted(f"and {more:,} {of_what}: .to_pandas() has all"))] if more > 0 else []


def and_columns(names: Sequence[str]) -> list[Paragraph]:
    more = ", ".join(names[COLUMNS:])
    return [Paragraph(muted("and the columns ", shortened(more, LETTERS)))] if more else []


def nothing(said: str, notes: Sequence[str]) -> list[Paragraph]:
    """That there is nothing, and hints at why."""
    return [Paragraph(muted(said)), *(Paragraph(Span("warn", note)) for note in notes)]


def warned(warnings: Sequence[Mapping[str, Any]]) -> list[Paragraph]:
    """How a file was read, if that needs saying."""
    return [Paragraph(Span("warn", f"{one['id']}: {one['warning']}")) for one in warnings]


def titled(name: Any) -> str:
    """A field's name in words. Names to read or filter by are shown unchanged instead."""
    return str(name).replace("_", " ")


def in_words(value: Any, name: str = "", limit: int = 400) -> Line:
    """A value in a line: short numbers, readable times, and nothing for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name.endswith("_at") and isinstance(value, int | float) and value > LONG_AGO:
        return moment(datetime.fromtimestamp(value, UTC).isoformat())  # a time in OpenAI's form
    if isinstance(value, int):
        return str(value) if 1900 <= value <= 2100 else count(value)
    if isinstance(value, float):
        return decimal(value)
    if isinstance(value, Embeddings):
        return f"{plural(len(value), 'vector')} of {value.dimension} dimensions"
    if isinstance(value, str):
        if name.endswith("_at") and parsed(value):
            return moment(value)
        return shortened(value, limit)
    if isinstance(value, Mapping):
        return in_a_line(value, limit)
    if isinstance(value, Sequence):
        if len(value) > 8 and all(isinstance(item, int | float) for item in value):
            return f"{len(value)} numbers: {', '.join(decimal(item) for item in value[:3])}, …"
        items: list[Line] = []
        for item in value[:8]:
            items += [", " if items else "", in_words(item, name, 120)]
        return [*items, f", and {len(value) - 8} more" if len(value) > 8 else ""]
    return shortened(str(value), limit)


def in_a_line(fields: Mapping[str, Any], limit: int = 200) -> Line:
    """`year 2026 · team hr`: names are shown unchanged, because filters take them so."""
    told: list[Line] = []
    filled = [(name, value) for name, value in flat_fields(fields) if value not in (None, "", [])]
    for name, value in filled[:FIELDS]:
        told += [" · " if told else "", muted(name), " ", in_words(value, name, limit)]
    if len(filled) > FIELDS:
        told.append(muted(f", and {len(filled) - FIELDS} more"))
    return told
