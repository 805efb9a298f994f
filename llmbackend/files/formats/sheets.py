"""Reads workbooks as Excel shows them."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from typing import Any

from ..parsed import Parsed, Warn
from . import cell_numbers
from .html import apart
from .office import Package, check_archive
from .tables import records
from .xml import tree

MERGED = 100_000
"""Most cells of a sheet that are filled in from merged ranges."""


def xlsx(data: bytes, warn: Warn) -> Parsed:
    check_archive(data, "xlsx")
    import openpyxl

    package = Package(data)
    _raise_runs(package)
    book = openpyxl.load_workbook(io.BytesIO(package.written()), read_only=True, data_only=True)
    sheets: list[str] = []
    for sheet in book.worksheets:
        sheet.reset_dimensions()  # the recorded dimensions may be wrong
        with sheet._get_source() as source:
            markup = source.read()
        path = sheet._worksheet_path.lstrip("/")
        _tell_losses(sheet, markup, warn)
        notes = _notes(package, path)
        told = [records(_rows(sheet, markup, notes)), *_boxes(package, path)]
        told += (f"Note on {place}: {note}" for place, note in notes.items())
        if said := "\n\n".join(filter(None, told)):
            sheets.append(f"# {sheet.title}\n\n{said}")
    return Parsed("\n\n".join(sheets), "markdown")


_UNKNOWN = re.compile(rb"</f></(?:\w+:)?c>|</f><v\s*/>|</f><v></v>")
_ERROR = re.compile(rb"<(?:\w+:)?c\b[^<>]*\st=[\"']e[\"']")
_HIDDEN = re.compile(rb"<(?:\w+:)?(row|col)\b[^<>]*\shidden=[\"'](?:1|true)[\"']")


def _tell_losses(sheet: Any, markup: bytes, warn: Warn) -> None:
    name = f"sheet {sheet.title!r}"
    if sheet.sheet_state != "visible":
        warn(f"{name} is hidden in the workbook")
    hidden = _HIDDEN.findall(markup)
    for kind, what in ((b"row", "rows"), (b"col", "columns, or ranges of them,")):
        if count := hidden.count(kind):
            warn(f"{name}: {what} hidden in the workbook: {count}")
    if unknown := len(_UNKNOWN.findall(markup)):
        warn(f"{name}: {unknown} formulas have no stored value: open the file in Excel and save it")
    if wrong := len(_ERROR.findall(markup)):
        warn(f"{name}: cells with an error, as #REF! is one, in place of a value: {wrong}")


def _rows(sheet: Any, markup: bytes, notes: dict[str, str]) -> Iterator[list[str]]:
    """Yield a sheet's rows as shown, with the common value in each merged cell, and the notes, which it removes from `notes`."""
    merged = _merged(markup)
    values: dict[tuple[int, int], str] = {}
    for number, row in enumerate(sheet.iter_rows(), 1):
        told = [_shown(cell) for cell in row]
        if notes:
            for column, cell in enumerate(row):
                if cell.value is not None and (note := notes.pop(cell.coordinate, None)):
                    told[column] += f" [Note: {note}]"
        if merged:
            for column, value in enumerate(told, 1):
                origin = merged.get((number, column))
                if origin == (number, column):
                    values[origin] = value
                elif origin is not None:
                    told[column - 1] = value or values.get(origin, "")
        yield told


def _notes(package: Package, sheet: str) -> dict[str, str]:
    """Comments on cells, by coordinates."""
    notes: dict[str, str] = {}
    for kind, name in (
        ("comments", "comment"),
        ("threadedComment", "threadedComment"),
    ):  # threaded comments are newer
        for path in package.related(sheet, kind):
            for one in package.tree(path).iter(f"{{*}}{name}"):
                said = " ".join("".join(one.itertext()).split())
                place = one.get("ref", "")
                if kind == "threadedComment" and place in notes and not notes[place].startswith("[Threaded"):
                    said = f"{notes[place]} / {said}"  # an answer
                if said:
                    notes[place] = said
    return notes


def _boxes(package: Package, sheet: str) -> Iterator[str]:
    """The texts of shapes on a sheet."""
    for path in package.related(sheet, "drawing"):
        for body in package.tree(path).iter("{*}txBody"):
            lines = ("".join(said.text or "" for said in line.iter("{*}t")) for line in body.iter("{*}p"))
            if text := "\n".join(filter(str.strip, lines)):
                yield text


_STRING = re.compile(rb"<((?:\w+:)?(?:si|is))>.*?</\1>", re.DOTALL)


def _raise_runs(package: Package) -> None:
    """Make rich texts plain, with super- and subscripts kept apart."""
    for path, markup in package.parts.items():
        if path.startswith("xl/") and path.endswith(".xml") and b"vertAlign" in markup and b"<r>" in markup:
            package.parts[path] = _STRING.sub(_plain_string, markup)


def _plain_string(found: re.Match[bytes]) -> bytes:
    from xml.sax.saxutils import escape

    if b"vertAlign" not in found[0]:
        return found[0]
    prefix = found[1].partition(b":")[0] if b":" in found[1] else b""
    declared = b" xmlns%s='x'" % (b":" + prefix if prefix else b"")
    string = tree(found[0].replace(b">", declared + b">", 1))
    told = ""
    for run in string.iter("{*}r"):
        text = "".join(said.text or "" for said in run.iter("{*}t"))
        height = next((one.get("val", "") for one in run.iter("{*}vertAlign")), "")
        if height in ("superscript", "subscript"):
            text = apart(text, told, raised=height == "superscript") or text
        told += text
    name = found[1].decode()
    inner = f"{prefix.decode()}:t" if prefix else "t"
    return f'<{name}><{inner} xml:space="preserve">{escape(told)}</{inner}></{name}>'.encode()


def _merged(markup: bytes) -> dict[tuple[int, int], tuple[int, int]]:
    """For each merged cell the first cell of its range, as row and column."""
    from openpyxl.utils import range_boundaries

    found: dict[tuple[int, int], tuple[int, int]] = {}
    for reference in re.findall(rb'<(?:\w+:)?mergeCell\s+ref="([A-Z]+\d+:[A-Z]+\d+)"', markup):
        left, top, right, bottom = range_boundaries(reference.decode())
        if len(found) + (right - left + 1) * (bottom - top + 1) > MERGED:
            break
        places = ((row, column) for row in range(top, bottom + 1) for column in range(left, right + 1))
        found.update(dict.fromkeys(places, (top, left)))
    return found


_ESCAPED = re.compile("_x([0-9A-Fa-f]{4})_")


def _shown(cell: Any) -> str:
    """A cell's value about as Excel shows it: dates, percentages, leading zeros."""
    value = cell.value
    if value is None:
        return ""
    if isinstance(value, str):
        return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), value) if "_x" in value else value
    if isinstance(value, datetime):
        day_only = value.time() == time()
        return value.date().isoformat() if day_only else value.isoformat(" ", "seconds")
    if isinstance(value, timedelta):
        seconds = round(abs(value).total_seconds())
        shown = f"{seconds // 3600}:{seconds // 60 % 60:02d}" + (
            f":{seconds % 60:02d}" if seconds % 60 else ""
        )
        return f"-{shown}" if value < timedelta() else shown
    if isinstance(value, date | time):
        return str(value)
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, int | float):
        return cell_numbers.shown(value, str(cell.number_format or ""))
    return str(value)
