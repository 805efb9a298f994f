"""Texts, data and notebooks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ..decoding import decoded
from ..parsed import Parsed, Unreadable, Warn, at_most

OUTPUT = 2_000
"""Characters of what came of running a notebook's cell."""


def plain(data: bytes, warn: Warn) -> Parsed:
    return Parsed(decoded(data, warn))


def markdown(data: bytes, warn: Warn) -> Parsed:
    return Parsed(decoded(data, warn), "markdown")


def rst(data: bytes, warn: Warn) -> Parsed:
    return Parsed(decoded(data, warn), "rst")


def json_file(data: bytes, warn: Warn) -> Parsed:
    return Parsed("\n".join(_lines(json.loads(decoded(data, warn)))))


def jsonl(data: bytes, warn: Warn) -> Parsed:
    records: list[str] = []
    for number, line in enumerate(decoded(data, warn).split("\n"), 1):
        if line.strip():
            try:
                records.append("\n".join(_lines(json.loads(line))))
            except ValueError as error:
                raise Unreadable(f"broken: line {number} is not JSON: {error}") from error
    return Parsed("\n\n".join(records))


NAMES = 250_000
"""In one object of JSON."""
CELLS = 50_000
"""In a notebook."""


def _lines(value: Any, name: str = "") -> Iterator[str]:
    """A line for each value, with the path to it; a blank one behind each object or list in a list."""
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
    """A Jupyter notebook of any version: its texts, its code, and the texts that came of running it.

    https://nbformat.readthedocs.io/en/latest/format_description.html
    """
    book = json.loads(decoded(data, warn))
    cells = _cells(book)
    if cells is None:
        raise Unreadable("broken: a notebook has cells, and this has none")
    metadata = _dict(book.get("metadata"))
    language = _dict(metadata.get("kernelspec")).get("language") or _dict(metadata.get("language_info")).get(
        "name"
    )
    at_most(CELLS, len(cells), "cells")
    parts: list[str] = []
    for cell in cells:
        kind = cell.get("cell_type")
        source = _joined(cell.get("source", cell.get("input"))).strip("\n")
        if not source.strip():
            continue
        if kind == "code":
            parts.append(f"```{language or cell.get('language') or 'python'}\n{source}\n```")
            if said := _output(cell.get("outputs"), warn):
                parts.append(f"```\n{said}\n```")
        elif kind == "heading":  # of versions before 4
            parts.append(f"{'#' * int(cell.get('level') or 1)} {source}")
        else:
            parts.append(source)
    return Parsed("\n\n".join(parts), "markdown")


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


def _output(outputs: Any, warn: Warn) -> str:
    """What a cell has printed, and its results as text."""
    said: list[str] = []
    for one in outputs if isinstance(outputs, list) else ():
        if isinstance(one, dict):
            data = _dict(one.get("data"))
            said.append(_joined(one.get("text") or data.get("text/plain")))
    text = "\n".join(part.strip("\n") for part in said if part.strip())
    if len(text) > OUTPUT:
        warn(f"a cell's output of {len(text)} characters is cut to {OUTPUT}")
        text = text[:OUTPUT] + " …"
    return text


def _joined(value: Any) -> str:
    """A text, or the lines of one."""
    if isinstance(value, list):
        return "".join(line for line in value if isinstance(line, str))
    return value if isinstance(value, str) else ""


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
