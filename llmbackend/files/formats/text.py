"""Reads plain text, JSON and notebooks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from ..decoding import decoded
from ..parsed import Parsed, Unreadable, Warn, at_most
from .html import markdown as markdown_of

OUTPUT = 2_000
"""Most characters of a notebook cell's output."""


def plain(data: bytes, warn: Warn) -> Parsed:
    return Parsed(decoded(data, warn))


def markdown(data: bytes, warn: Warn) -> Parsed:
    return Parsed(decoded(data, warn), "markdown")


def rst(data: bytes, warn: Warn) -> Parsed:
    return Parsed(decoded(data, warn), "rst")


def json_file(data: bytes, warn: Warn) -> Parsed:
    text = decoded(data, warn)
    try:
        return Parsed("\n".join(_lines(_read_json(text))))
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise
    return _of_lines(text, warn)  # several values one after the other, in a file named .json


def jsonl(data: bytes, warn: Warn) -> Parsed:
    return _of_lines(decoded(data, warn), warn)


def _of_lines(text: str, warn: Warn) -> Parsed:
    """One JSON value per line; lines that are not JSON stay as they are, with a warning."""
    records: list[str] = []
    wrong: list[str] = []
    for number, line in enumerate(re.split("\r\n?|\n", text), 1):
        if line.strip():
            try:
                records.append("\n".join(_lines(_read_json(line))))
            except ValueError as error:
                wrong.append(f"line {number} is not JSON: {error}")
                records.append(line)
    if 2 * len(wrong) > len(records):
        with suppress(ValueError):
            return Parsed("\n".join(_lines(_read_json(text))))
        raise Unreadable(f"broken: {wrong[0]}")
    if wrong:
        warn(f"{len(wrong)} of {len(records)} lines stay as they are: {wrong[0]}")
    return Parsed("\n\n".join(records))


def _read_json(text: str) -> Any:
    """Parse, keeping numbers as written and duplicate names."""
    return json.loads(text, parse_float=str, object_pairs_hook=_named)


def _named(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        several: dict[str, list[Any]] = {}
        for name, value in pairs:
            several.setdefault(name, []).append(value)
        values = {name: found if len(found) > 1 else found[0] for name, found in several.items()}
    return values


NAMES = 250_000
"""Most values of one JSON object."""
CELLS = 50_000
"""Most cells of a notebook."""


def _lines(value: Any, name: str = "") -> Iterator[str]:
    """A line for each value, with its path; a blank line after each object or list in a list."""
    if isinstance(value, dict):
        at_most(NAMES, len(value), "names in an object")
        for key, item in value.items():
            yield from _lines(item, f"{name}.{key}" if name else key)
    elif isinstance(value, list):
        for item in value:
            yield from _lines(item, name)
            if isinstance(item, dict | list):
                yield ""
    elif value is not None:
        said = value if isinstance(value, str) else json.dumps(value)
        yield f"{name}: {said}" if name else said


def notebook(data: bytes, warn: Warn) -> Parsed:
    """A Jupyter notebook of any version: its text, code and text output.

    https://nbformat.readthedocs.io/en/latest/format_description.html
    """
    book = json.loads(decoded(data, warn))
    cells = _cells(book)
    if cells is None:
        raise Unreadable("broken: a notebook has cells, but this has none")
    metadata = _dict(book.get("metadata"))
    names = (
        _dict(metadata.get("kernelspec")).get("language"),
        _dict(metadata.get("language_info")).get("name"),
    )
    language = next((name for name in names if isinstance(name, str) and name), None)
    at_most(CELLS, len(cells), "cells")
    parts: list[str] = []
    for cell in cells:
        kind = cell.get("cell_type")
        source = _joined(cell.get("source", cell.get("input"))).strip("\n")
        if kind == "code":
            own = cell.get("language")
            parts += _fenced(source, language or (own if isinstance(own, str) else "python"))
            parts += _outputs(cell.get("outputs"), warn)
        elif kind == "heading" and source.strip():  # versions before 4
            level = cell.get("level")
            marks = "#" * level if isinstance(level, int) and 0 < level < 7 else "#"
            parts.append(f"{marks} {' '.join(source.split())}")
        elif source.strip():
            parts.append(source)
    return Parsed("\n\n".join(parts), "markdown")


def _fenced(text: str, language: str = "") -> list[str]:
    if not text.strip():
        return []
    longest = max((len(run) for run in re.findall("`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return [f"{fence}{language}\n{text}\n{fence}"]


def _cells(book: Any) -> list[dict[str, Any]] | None:
    if not isinstance(book, dict):
        return None
    sheets = [book] if "cells" in book else book.get("worksheets")  # versions before 4 have sheets of cells
    if not isinstance(sheets, list):
        return None
    found = [
        sheet["cells"] for sheet in sheets if isinstance(sheet, dict) and isinstance(sheet.get("cells"), list)
    ]
    return [cell for cells in found for cell in cells if isinstance(cell, dict)] if found else None


def _outputs(outputs: Any, warn: Warn) -> list[str]:
    """A cell's printed output, results and errors."""
    printed: list[str] = []
    rich: list[str] = []
    for one in outputs if isinstance(outputs, list) else ():
        if not isinstance(one, dict):
            continue
        data = {**one, **_dict(one.get("data"))}  # before version 4, there was no `data`
        if plain := _joined(data.get("text/plain") or data.get("text")):
            printed.append(plain)
        elif said := _joined(data.get("text/markdown")):
            rich.append(said)
        elif said := _joined(data.get("text/html") or data.get("html")):
            rich.append(markdown_of(said))
        elif said := _joined(data.get("text/latex") or data.get("latex")):
            rich.append(said)
        elif (value := data.get("application/json")) is not None:
            printed.append("\n".join(_lines(value)))
        if isinstance(name := data.get("ename"), str):
            printed.append(f"{name}: {_joined(data.get('evalue'))}")
    text = "\n".join(part.strip("\n") for part in map(_as_shown, printed) if part.strip())
    shown = "\n\n".join(filter(str.strip, rich))
    return [*_fenced(_bounded(text, warn)), *filter(None, [_bounded(shown, warn)])]


def _bounded(text: str, warn: Warn) -> str:
    if len(text) <= OUTPUT:
        return text
    warn(f"a cell's output of {len(text)} characters is cut to {OUTPUT}")
    return text[:OUTPUT] + " …"


_COLORS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_COLORS_OF_LOGS = re.compile(_COLORS.pattern.encode())
_OVERWRITTEN = re.compile(r"[^\n]*\r(?!\n|\Z)")


def _as_shown(printed: str) -> str:
    """Return output as a terminal shows it: without color codes, and with only the last state of a progress bar."""
    return _OVERWRITTEN.sub("", _COLORS.sub("", printed))


def without_colors(data: bytes) -> bytes:
    """Return a file without the codes by which programs color their output."""
    return _COLORS_OF_LOGS.sub(b"", data)


def _joined(value: Any) -> str:
    """Return a text that is given as such, or as its lines."""
    if isinstance(value, list):
        return "".join(map(_joined, value))
    return value if isinstance(value, str) else ""


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
