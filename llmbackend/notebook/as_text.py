"""Drawings as plain text, as wide as the terminal."""

from __future__ import annotations

import functools
import shutil
import textwrap
from typing import Any

from ..text.visible import visible
from .parts import (
    Bar,
    Break,
    Bullets,
    Card,
    Drawing,
    Facts,
    Fold,
    Line,
    Markdown,
    Paragraph,
    Passage,
    Span,
    Table,
)

BAR = 10  # characters


def text(drawing: Drawing, width: int | None = None) -> str:
    """The drawing, without a line break at its end."""
    width = width or max(40, shutil.get_terminal_size((100, 24)).columns)
    return "\n".join(filter(None, (_block(block, width) for block in drawing)))


def line(content: Line) -> str:
    if isinstance(content, str):
        return visible(content)
    if isinstance(content, Break):
        return "\n"
    if isinstance(content, Bar):
        full = round(BAR * min(1.0, max(0.0, content.share)))
        return "█" * full + "░" * (BAR - full) + " "
    if isinstance(content, Span):
        return line(content.content)
    return "".join(map(line, content))


def _wrapped(words: str, width: int, indent: str = "") -> str:
    lines = (
        textwrap.wrap(one, width, initial_indent=indent, subsequent_indent=indent, replace_whitespace=False)
        for one in words.split("\n")
    )
    return "\n".join(one for some in lines for one in some or [""])


@functools.singledispatch
def _block(block: Any, width: int) -> str:
    raise TypeError(f"{type(block).__name__} is no block")


@_block.register
def _paragraph(block: Paragraph, width: int) -> str:
    return _wrapped(line(block.content), width)


@_block.register
def _passage(block: Passage, width: int) -> str:
    return _wrapped(line(block.content), width, "  ")


@_block.register
def _markdown(block: Markdown, width: int) -> str:
    return _wrapped(visible(block.text), width)


@_block.register
def _bullets(block: Bullets, width: int) -> str:
    marks = [f"{number}." for number in block.numbers] or ["-"] * len(block.items)
    return "\n".join(
        f"{mark} {_wrapped(line(item), width - 4, '    ').strip()}"
        for mark, item in zip(marks, block.items, strict=True)
    )


@_block.register
def _table(block: Table, width: int) -> str:
    block = block.without_empty()
    from rich import box
    from rich.table import Table as RichTable

    table = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for number, head in enumerate(block.heads):
        cells = [row[number] for row in block.rows]
        whole = all(isinstance(cell, Span) and cell.kind == "id" for cell in cells)  # to be copied
        justify: Any = "right" if number in block.numbers else "left"
        table.add_column(visible(head), justify=justify, overflow="fold", no_wrap=whole)
    return _rich(table, block.rows, width)


@_block.register
def _facts(block: Facts, width: int) -> str:
    from rich.table import Table as RichTable

    table = RichTable(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    return _rich(table, block.rows, width)


def _rich(table: Any, rows: Any, width: int) -> str:
    from io import StringIO

    from rich.console import Console
    from rich.text import Text

    for row in rows:
        table.add_row(*(Text(line(cell).rstrip()) for cell in row))
    to = StringIO()
    Console(
        file=to,
        width=width,
        color_system=None,
        force_terminal=False,
        force_jupyter=False,
        legacy_windows=False,
    ).print(table)
    return "\n".join(one.rstrip() for one in to.getvalue().rstrip().split("\n"))


@_block.register
def _fold(block: Fold, width: int) -> str:
    title = _wrapped(line(block.title), width)
    if not block.in_text:
        return title
    return "\n".join([title, textwrap.indent(text(block.blocks, width - 2), "  ")])


@_block.register
def _card(block: Card, width: int) -> str:
    return "\n".join(
        [_wrapped(line(block.title), width), textwrap.indent(text(block.blocks, width - 2), "  "), ""]
    )
