"""Word files, slides and workbooks."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from itertools import pairwise
from typing import Any

from ...chunks.syntax import PAGE_END
from ..parsed import Parsed, Unreadable, Warn, at_most
from .pages import markdown, without_images
from .tables import COLUMNS, records

UNPACKED = 256 * 2**20
"""Bytes that an Office file, which is a zip archive, may have in it."""
ROWS = 2**20
"""As many as a sheet of Excel has."""
MERGED = 100_000
"""Cells of a sheet that may be filled from those they are merged with."""


def docx(data: bytes, warn: Warn) -> Parsed:
    _check_archive(data, "docx")
    import mammoth
    from markitdown.converter_utils.docx.pre_process import pre_process_docx

    return Parsed(markdown(mammoth.convert_to_html(pre_process_docx(io.BytesIO(data))).value), "markdown")


def pptx(data: bytes, warn: Warn) -> Parsed:
    _check_archive(data, "pptx")
    from markitdown import StreamInfo
    from markitdown.converters import PptxConverter
    from pptx import Presentation

    deck = Presentation(io.BytesIO(data))
    for slide in deck.slides:
        for shape in slide.shapes:
            if shape.has_table:
                _fill_merged(shape.table)
    filled = io.BytesIO()
    deck.save(filled)
    filled.seek(0)
    converter: Any = PptxConverter
    text = converter().convert(filled, StreamInfo(extension=".pptx")).markdown
    slides = re.split(r"<!-- Slide number: \d+ -->\n", without_images(text))[1:]
    return Parsed(PAGE_END.join(slide.replace(PAGE_END, "\n").strip() + "\n" for slide in slides), "markdown")


def _fill_merged(table: Any) -> None:
    for row in range(len(table.rows)):
        for column in range(len(table.columns)):
            cell = table.cell(row, column)
            if cell.is_merge_origin:
                high, wide = cell.span_height, cell.span_width
                cell.split()
                for place in ((row + y, column + x) for y in range(high) for x in range(wide)):
                    table.cell(*place).text = cell.text


def xlsx(data: bytes, warn: Warn) -> Parsed:
    _check_archive(data, "xlsx")
    import openpyxl

    book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
    sheets: list[str] = []
    for sheet in book.worksheets:
        sheet.reset_dimensions()  # those written down may be anything
        told = records(_rows(sheet, warn))
        if told:
            sheets.append(f"# {sheet.title}\n\n{told}")
    return Parsed("\n\n".join(sheets), "markdown")


def _rows(sheet: Any, warn: Warn) -> Iterator[list[str]]:
    """Its cells as they are shown, merged ones each with their common value."""
    with sheet._get_source() as source:
        markup = source.read()
    unknown = len(re.findall(rb"</f></(?:\w+:)?c>|</f><v\s*/>|</f><v></v>", markup))
    if unknown:
        warn(
            f"sheet {sheet.title!r}: {unknown} formulas have no stored value: open the file in Excel and save it"
        )
    merged = _merged(markup)
    values: dict[tuple[int, int], str] = {}
    for number, row in enumerate(sheet.iter_rows(), 1):
        shown = [_shown(cell) for cell in row]
        if merged:
            for column, value in enumerate(shown, 1):
                origin = merged.get((number, column))
                if origin == (number, column):
                    values[origin] = value
                elif origin is not None:
                    shown[column - 1] = value or values.get(origin, "")
        yield shown


def _merged(markup: bytes) -> dict[tuple[int, int], tuple[int, int]]:
    """For each merged cell the first of those it is merged with, as row and column."""
    from openpyxl.utils import range_boundaries

    found: dict[tuple[int, int], tuple[int, int]] = {}
    for reference in re.findall(rb'<(?:\w+:)?mergeCell\s+ref="([A-Z]+\d+:[A-Z]+\d+)"', markup):
        left, top, right, bottom = range_boundaries(reference.decode())
        if len(found) + (right - left + 1) * (bottom - top + 1) > MERGED:
            break
        places = ((row, column) for row in range(top, bottom + 1) for column in range(left, right + 1))
        found.update(dict.fromkeys(places, (top, left)))
    return found


def _shown(cell: Any) -> str:
    """A cell's value about as Excel shows it: dates, percentages, leading zeros."""
    value = cell.value
    if value is None:
        return ""
    if isinstance(value, datetime):
        day_only = value.time() == time()
        return value.date().isoformat() if day_only else value.isoformat(" ", "seconds")
    if isinstance(value, date | time | timedelta):
        return str(value)
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, int | float):
        return _number(value, str(cell.number_format or ""))
    return str(value)


def _number(value: float, shape: str) -> str:
    shape = shape.partition(";")[0]
    decimals = len(found[1]) if (found := re.search(r"\.(0+)", shape)) else 0
    if shape.rstrip().endswith("%"):
        return f"{100 * value:.{decimals}f}%"
    if re.fullmatch("0{2,}", shape) and float(value).is_integer():
        return f"{int(value):0{len(shape)}d}"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value)


def _check_archive(data: bytes, kind: str) -> None:
    from zipfile import BadZipFile, ZipFile

    if data.startswith(b"\xd0\xcf\x11\xe0"):
        raise Unreadable(f"encrypted, or of an older Office: save it as .{kind} without a password")
    try:
        with ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            size = sum(entry.file_size for entry in entries)
            if size > UNPACKED or len(entries) > 10_000:
                raise Unreadable(f"too large: it unpacks to {len(entries)} parts of {size >> 20} MB in all")
            for entry in entries:
                if entry.filename.endswith(".xml"):
                    _check_tables(archive.read(entry))
    except BadZipFile:
        raise Unreadable(f"broken, or no .{kind} file") from None


_ROW = re.compile(rb"""<(?:\w+:)?(?:row|tr)\b(?:[^>]*?\sr=["'](\d+))?""")
_CELL = re.compile(rb"<(?:\w+:)?t?c[\s/>]")


def _check_tables(markup: bytes) -> None:
    """Before any is read, which takes long; and a sheet's row that is far away stands for all before it."""
    rows = list(_ROW.finditer(markup))
    at_most(ROWS, max((int(row[1] or 0) for row in rows), default=0), "rows")
    for row, end in pairwise([*(row.start() for row in rows), len(markup)]):
        if end - row > 4 * COLUMNS:  # `<c/>` is the shortest cell
            at_most(COLUMNS, sum(1 for _ in _CELL.finditer(markup, row, end)), "columns")
