"""Rewrites HTML tables in a form that Markdown supports: one header row, then rows of single cells."""

from __future__ import annotations

import copy
from itertools import takewhile
from typing import Any

SPANNED = 50_000
"""Most tags in the cells that a page's spans fill, because a page may set a span to any number."""


def plain(table: Any, room: int) -> int:
    """Rewrite a table; inner tables have been rewritten already. Returns what its spans leave of `room`, which is in tags."""
    rows = _rows(table)
    inner = table("table")
    if _is_layout(table, rows, inner):
        for tag in [table, *table(["thead", "tbody", "tfoot"], recursive=False), *rows]:
            tag.name = "div"
        for cell in (cell for row in rows for cell in _cells(row)):
            cell.name = "div"
        return room
    for one in inner:
        one.replace_with(_in_a_line(one))
    room = _fill_spans(table, room)
    for caption in table("caption"):
        caption.name = "p"
        table.insert_before(caption.extract())
    heads = _heads(table, rows)
    bars = "|" in table.get_text()
    for row in rows:
        row.extract()
        for cell in _cells(row):
            cell.name = "td"
            for text in cell.find_all(string=lambda said: "|" in said) if bars else ():
                text.replace_with(text.replace("|", "\\|"))
    table.clear()
    if heads:
        for head in heads[1:]:
            for name, further in zip(_cells(heads[0]), _cells(head), strict=False):
                if name.get_text(strip=True) != further.get_text(strip=True):
                    name.append(" ")
                    name.extend(list(further.children))
        for name in _cells(heads[0]):
            name.name = "th"
        table.append(_new("thead"))
        table.thead.append(heads[0])
    body = _new("tbody")
    named = {id(head) for head in heads}
    body.extend(row for row in rows if id(row) not in named)
    table.append(body)
    return room


def _rows(table: Any) -> list[Any]:
    rows = table("tr")
    return rows if table.find("table") is None else [row for row in rows if row.find_parent("table") is table]


def _cells(row: Any) -> list[Any]:
    return list(row(["td", "th"], recursive=False))


def _new(name: str) -> Any:
    from bs4 import BeautifulSoup

    return BeautifulSoup("", "html.parser").new_tag(name)


def _is_layout(table: Any, rows: list[Any], inner: list[Any]) -> bool:
    """Return whether a table is used for layout only, as in many mails."""
    if str(table.get("role", "")).lower() in ("presentation", "none"):
        return True
    if len(rows) == 1 and len(_cells(rows[0])) == 1:
        return True
    within = sum(len(one.get_text(strip=True)) for one in inner if one.find_parent("table") is table)
    return bool(inner) and table.find("th") is None and 2 * within > len(table.get_text(strip=True))


def _in_a_line(table: Any) -> str:
    """Return a table inside a cell as text, row by row."""
    told = []
    for row in _rows(table):
        cells = [" ".join(cell.get_text(" ").split()) for cell in _cells(row)]
        told.append((": " if len(cells) == 2 else ", ").join(filter(None, cells)))
    return " " + "; ".join(filter(None, told)) + " "


def _heads(table: Any, rows: list[Any]) -> list[Any]:
    """Return the header rows; if none is marked, the first row, because Markdown needs one."""
    named = [row for row in rows if row.parent.name == "thead"]
    named = named or list(takewhile(_names, rows))
    if len(named) == len(rows):
        named = named[:1]
    return named or ([] if table.find("th") else rows[:1])


def _names(row: Any) -> bool:
    """Return whether a row has only header cells; the corner above row names often is not one."""
    cells = _cells(row)
    named = [cell for cell in cells if cell.name == "th"]
    return bool(named) and all(cell.name == "th" or not cell.get_text(strip=True) for cell in cells)


def _fill_spans(table: Any, room: int) -> int:
    """Repeat cells that span rows or columns, so that every row has all its values and labels, while there is room."""
    # By column: the cell that spans further rows, how many of them, and its tags.
    below: dict[int, tuple[Any, int, int]] = {}
    for row in _rows(table):
        column = 0
        cells = _cells(row)
        while cells or column in below:
            if column in below:
                cell, left, tags = below.pop(column)
                if room > 0:
                    room -= tags
                    (cells[0].insert_before if cells else row.append)(copy.copy(cell))
                    if left > 1:
                        below[column] = cell, left - 1, tags
                column += 1
                continue
            cell = cells.pop(0)
            wide, high = _span(cell, "colspan"), _span(cell, "rowspan", SPANNED)
            tags = 1 + len(cell(True)) if (wide, high) != (1, 1) else 1
            for further in range(wide):
                if room <= 0:
                    break
                if further:
                    room -= tags
                    (cells[0].insert_before if cells else row.append)(copy.copy(cell))
                if high > 1:
                    below[column + further] = cell, high - 1, tags
            column += wide
    return room


def _span(cell: Any, name: str, to_the_end: int = 1) -> int:
    said = str(cell.attrs.pop(name, "1")).strip()
    return min(int(said), 1_000) or to_the_end if said.isdecimal() else 1
