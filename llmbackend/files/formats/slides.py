"""Reads slides: of each, the title, the texts from top to bottom, notes and comments."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any

from ..parsed import PAGE_END, Parsed, Warn
from .formulas import linear
from .html import apart, markdown
from .office import check_archive
from .xml import tree

_A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_P = "{http://schemas.openxmlformats.org/presentationml/2006/main}"
_FILE = re.compile(r"\S+\.\w{3,4}")  # PowerPoint's description of a picture that has none
_M = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"


def pptx(data: bytes, warn: Warn) -> Parsed:
    check_archive(data, "pptx")
    from pptx import Presentation

    slides = list(Presentation(io.BytesIO(data)).slides)
    told = [_slide(slide) for slide in slides]
    hidden = [
        str(number) for number, slide in enumerate(slides, 1) if slide._element.get("show") in ("0", "false")
    ]
    if hidden:
        warn(f"slides that are hidden in the presentation: {', '.join(hidden)}")
    without = sum(1 for text in told if not text)
    if 0 < without < len(told):
        warn(f"{without} of {len(told)} slides have no text: pictures?")
    return Parsed(PAGE_END.join(text.replace(PAGE_END, "\n") + "\n" for text in told), "markdown")


def _slide(slide: Any) -> str:
    title = slide.shapes.title
    name = " ".join(_text(title.text_frame._txBody).split()) if title is not None else ""
    parts = [f"# {name}"] if name else []
    parts += _shapes(shape for shape in slide.shapes if title is None or shape.shape_id != title.shape_id)
    if slide.has_notes_slide and (notes := slide.notes_slide.notes_text_frame) is not None:
        said = _text(notes._txBody).strip()
        parts += [f"### Notes:\n{said}"] if said else []
    parts += _beside(slide.part)
    return "\n\n".join(parts).strip()


def _shapes(shapes: Any) -> Iterator[str]:
    """The texts of shapes, from top to bottom and left to right."""
    for shape in sorted(shapes, key=lambda one: (one.top or 0, one.left or 0)):
        if hasattr(shape, "shapes"):  # a group
            yield from _shapes(shape.shapes)
        elif shape.has_text_frame:
            if text := _text(shape.text_frame._txBody).strip("\n"):
                yield text
        elif getattr(shape, "has_table", False):
            yield _table(shape.table)
        elif getattr(shape, "has_chart", False):
            yield from filter(None, [_chart(shape.chart)])
        else:
            about = next(shape._element.iter(f"{_P}cNvPr"), None)
            said = " ".join(about.get("descr", "").split()) if about is not None else ""
            if said and not _FILE.fullmatch(said):
                yield said


def _text(body: Any) -> str:
    """The paragraphs of a text, with super- and subscripts kept apart."""
    return "\n".join(_line(paragraph) for paragraph in body.iter(f"{_A}p"))


def _line(paragraph: Any) -> str:
    said = ""
    for node in paragraph.iter():
        if node.tag == f"{_M}oMath":
            said += f" {linear(node)} "
        elif node.tag == f"{_A}br":
            said += "\n"
        elif node.tag == f"{_A}t":
            text = (node.text or "").replace("\v", "\n")
            properties = node.getparent().find(f"{_A}rPr")
            height = properties.get("baseline", "0") if properties is not None else "0"
            if height.rstrip("%") not in ("0", ""):
                text = apart(text, said, raised=not height.startswith("-")) or text
            if properties is not None and properties.get("strike", "noStrike") != "noStrike" and text.strip():
                text = f"~~{text}~~"
            said += text
    return said


def _table(table: Any) -> str:
    return _as_table([[_text(cell._tc.txBody) for cell in row] for row in _cells(table)])


def _as_table(rows: list[list[str]]) -> str:
    from html import escape

    cells = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows)
    return markdown("<table>" + "".join(f"<tr>{row}</tr>" for row in cells) + "</table>")


def _cells(table: Any) -> list[list[Any]]:
    """Return the visible cell at each place; for merged cells, the first."""
    rows = [list(row.cells) for row in table.rows]
    for top, row in enumerate([*rows]):
        for left, cell in enumerate([*row]):
            if cell.is_merge_origin:
                for below in rows[top : top + cell.span_height]:
                    wide = len(below[left : left + cell.span_width])
                    below[left : left + wide] = [cell] * wide
    return rows


def _chart(chart: Any) -> str:
    """A chart's numbers by category, or by point if it has no categories."""
    title = chart.chart_title.text_frame.text if chart.has_title and chart.chart_title.has_text_frame else ""
    categories = [str(category.label) for plot in chart.plots for category in plot.categories]
    named = [
        (str(series.name), list(series.values), _places(series))
        for plot in chart.plots
        for series in plot.series
    ]
    rows: list[list[str]]
    if categories:
        rows = [["", *(name for name, _, _ in named)]]
        for number, category in enumerate(
            categories[: max((len(values) for _, values, _ in named), default=0)]
        ):
            rows.append([category, *(_value(values, number) for _, values, _ in named)])
    else:
        rows = [["", "x", "y"]]
        rows += [
            [name, _value(xs, number), _value(ys, number)]
            for name, ys, xs in named
            for number in range(len(ys))
        ]
    return "\n\n".join(filter(None, [f"Chart: {title}" if title else "", _as_table(rows) if named else ""]))


def _places(series: Any) -> list[Any]:
    """The x values of a series."""
    found = series._element.find("{*}xVal")
    return [] if found is None else [float(point.text) for point in found.iter("{*}v") if point.text]


def _value(values: list[Any], number: int) -> str:
    value = values[number] if number < len(values) else None
    return (
        ""
        if value is None
        else str(int(value))
        if isinstance(value, float) and value.is_integer()
        else str(value)
    )


_SAID = {"diagramData": f"{_A}t", "comments": f"{_P}text"}


def _beside(part: Any) -> Iterator[str]:
    """Text in separate parts of the file: diagrams (SmartArt) and comments."""
    for relation in part.rels.values():
        kind = relation.reltype.rpartition("/")[2]
        if kind not in _SAID or relation.is_external:
            continue
        root = tree(relation.target_part.blob)
        if kind == "comments":  # PowerPoint's newer comments have paragraphs, too
            texts = [node.text or "" for node in root.iter(f"{_P}text", f"{_A}t")]
            yield from (f"Comment: {' '.join(text.split())}" for text in texts if text.strip())
        elif said := [node.text for node in root.iter(_SAID[kind]) if node.text and node.text.strip()]:
            yield "\n".join(said)
