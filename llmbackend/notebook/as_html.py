"""Drawings as HTML.

The elements carry the meaning, so that drawings are readable where styles are removed (GitHub). The styles
follow the colours of Jupyter and VS Code, or else the system's light or dark theme. Nothing is loaded, linked
or run.
"""

from __future__ import annotations

import functools
import html
import re
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

_COLOURS = {
    "fg": ("--jp-content-font-color1", "--vscode-editor-foreground", "#1f2328", "#e6edf3"),
    "soft": ("--jp-content-font-color2", "--vscode-descriptionForeground", "#59636e", "#9198a1"),
    "line": ("--jp-border-color2", "--vscode-widget-border", "#d1d9e0", "#3d444d"),
    "card": ("--jp-layout-color1", "--vscode-editor-background", "#fff", "#0d1117"),
    "accent": ("--jp-brand-color1", "--vscode-textLink-foreground", "#0969da", "#4493f8"),
    "good": ("--jp-success-color1", "--vscode-testing-iconPassed", "#1a7f37", "#3fb950"),
    "bad": ("--jp-error-color1", "--vscode-errorForeground", "#d1242f", "#f85149"),
    "warn": ("--jp-warn-color1", "--vscode-editorWarning-foreground", "#9a6700", "#d29922"),
}


def _colours(dark: bool) -> str:
    return "".join(
        f"--{name}:var({jupyter},var({code},{black if dark else white}));"
        for name, (jupyter, code, white, black) in _COLOURS.items()
    )


STYLE = f"""<style>
.llmb{{{_colours(False)}--tint:rgba(128,128,128,.14);color:var(--fg);font:14px/1.5 var(--jp-content-font-family,system-ui,sans-serif);max-width:60em;container-type:inline-size;overflow-wrap:anywhere;overflow-x:auto}}
@media (prefers-color-scheme:dark){{.llmb{{{_colours(True)}}}}}
.llmb p.llmb-p{{margin:.35em 0;color:inherit}}
.llmb p,.llmb li,.llmb td,.llmb blockquote{{unicode-bidi:plaintext}}
.llmb b,.llmb small,.llmb code,.llmb span{{unicode-bidi:isolate}}
.llmb .llmb-strong{{font-weight:600}}
.llmb .llmb-muted{{color:var(--soft);font-size:.9em}}
.llmb .llmb-id,.llmb .llmb-code{{font-family:var(--jp-code-font-family,ui-monospace,monospace);font-size:.85em;background:none;color:inherit;padding:0}}
.llmb .llmb-id{{color:var(--soft)}}
.llmb .llmb-good{{color:var(--good)}}
.llmb .llmb-bad{{color:var(--bad)}}
.llmb .llmb-warn{{color:var(--warn)}}
.llmb .llmb-pill{{background:var(--tint);border-radius:1em;padding:.05em .6em;font-size:.85em;white-space:nowrap}}
.llmb mark{{background:rgba(255,200,0,.35);color:inherit;border-radius:2px;padding:0 .1em}}
.llmb .llmb-bar{{display:inline-block;width:5em;max-width:100%;height:.45em;background:var(--tint);border-radius:1em;overflow:hidden;vertical-align:middle;margin:0 .4em 0 0}}
.llmb .llmb-bar i{{display:block;height:100%;background:var(--accent);border-radius:1em}}
.llmb.llmb table{{border-collapse:collapse;margin:.4em 0;width:auto;max-width:100%;font-size:inherit;color:inherit;table-layout:auto;display:table}}
.llmb.llmb th,.llmb.llmb td{{text-align:left;vertical-align:top;padding:.35em 1em .35em 0;border:0;border-bottom:1px solid var(--line);max-width:34em;overflow-wrap:break-word;white-space:normal;background:none;color:inherit;font-size:inherit;line-height:1.45}}
.llmb.llmb thead th{{color:var(--soft);font-weight:500;font-size:.85em}}
.llmb.llmb .llmb-facts td{{overflow-wrap:anywhere}}
.llmb.llmb tbody th{{font-weight:500;color:var(--soft);white-space:nowrap}}
.llmb.llmb tr{{background:none!important}}
.llmb.llmb .llmb-number{{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}}
.llmb.llmb .llmb-bars{{white-space:nowrap}}
.llmb.llmb .llmb-long{{overflow-wrap:anywhere;min-width:9em}}
.llmb.llmb .llmb-words{{min-width:8em}}
.llmb.llmb .llmb-text{{min-width:15em}}
.llmb .llmb-number .llmb-bar{{width:3em}}
.llmb.llmb tr.llmb-faint{{opacity:.6}}
.llmb .llmb-card{{border:1px solid var(--line);border-radius:8px;padding:.5em .9em;margin:.5em 0;background:var(--card)}}
.llmb blockquote.llmb-passage{{margin:.35em 0;padding:0;border:0;white-space:pre-wrap;color:inherit;font:inherit;background:none}}
.llmb details{{margin:.35em 0}}
.llmb summary{{cursor:pointer}}
.llmb details[open]>summary{{margin-bottom:.25em}}
.llmb ul,.llmb ol{{margin:.35em 0;padding-left:1.6em}}
.llmb pre{{white-space:pre-wrap;background:var(--tint);color:inherit;padding:.5em .8em;border-radius:6px}}
@container (max-width:48em){{
.llmb.llmb .llmb-small td{{min-width:6em}}
.llmb.llmb .llmb-table thead{{display:none}}
.llmb.llmb .llmb-table tbody tr{{display:block;border-bottom:1px solid var(--line);padding:.35em 0}}
.llmb.llmb .llmb-table td{{display:block;min-width:0;border:0;padding:.1em 0;text-align:left;white-space:normal}}
.llmb.llmb .llmb-table td:empty{{display:none}}
.llmb.llmb .llmb-table td[data-head]:before{{content:attr(data-head) " ";color:var(--soft);font-size:.85em}}
.llmb.llmb .llmb-table td[data-head]:has(br):before{{display:block}}
}}
</style>"""


def page(drawing: Drawing) -> str:
    """The whole HTML of a drawing, with its styles."""
    return f'<div class="llmb">{STYLE}{blocks(drawing)}</div>'


def blocks(drawing: Drawing) -> str:
    return "".join(map(_block, drawing))


def _escaped(text: Any) -> str:
    return html.escape(visible(str(text)))


def line(content: Line) -> str:
    if isinstance(content, str):
        return _escaped(content)
    if isinstance(content, Break):
        return "<br>"
    if isinstance(content, Bar):
        width = 100 * min(1.0, max(0.0, content.share))
        tone = f"var(--{content.tone})" if content.tone != "plain" else content.colour or "var(--accent)"
        return f'<span class="llmb-bar"><i style="width:{width:.1f}%;background:{tone}"></i></span>'
    if isinstance(content, Span):
        tag = {"strong": "b", "mark": "mark", "code": "code", "id": "code", "muted": "small"}.get(
            content.kind, "span"
        )
        return f'<{tag} class="llmb-{content.kind}">{line(content.content)}</{tag}>'
    return "".join(map(line, content))


@functools.singledispatch
def _block(block: Any) -> str:
    raise TypeError(f"{type(block).__name__} is no block")


@_block.register
def _paragraph(block: Paragraph) -> str:
    return f'<p class="llmb-p">{line(block.content)}</p>'


@_block.register
def _passage(block: Passage) -> str:
    return f'<blockquote class="llmb-passage">{line(block.content)}</blockquote>'


@_block.register
def _markdown(block: Markdown) -> str:
    from markdown_it import MarkdownIt

    # HTML in it is shown as text. Links and images stay as written: they show where they lead, and load
    # nothing.
    parser = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable("table")
    parser.disable(["link", "image", "autolink", "reference", "html_block", "html_inline"])
    return f'<div class="llmb-markdown">{parser.render(visible(block.text))}</div>'


@_block.register
def _bullets(block: Bullets) -> str:
    if block.numbers:
        items = (
            f'<li value="{int(number)}">{line(item)}</li>'
            for number, item in zip(block.numbers, block.items, strict=True)
        )
        return f"<ol>{''.join(items)}</ol>"
    return "<ul>" + "".join(f"<li>{line(item)}</li>" for item in block.items) + "</ul>"


@_block.register
def _table(block: Table) -> str:
    block = block.without_empty()
    heads = [_escaped(head) for head in block.heads]
    head = "".join(f"<th{_column(block, number)}>{name}</th>" for number, name in enumerate(heads))
    rows = ""
    for number, row in enumerate(block.rows):
        cells = ""
        for column, (name, cell) in enumerate(zip(heads, row, strict=True)):
            # On a narrow page, without headings, each cell shows its own.
            said = f' data-head="{name}"' if name else ""
            shown = line(cell)
            cells += f"<td{_column(block, column, cell, shown)}{said}>{shown}</td>"
        faint = ' class="llmb-faint"' if number in block.faint else ""
        rows += f"<tr{faint}>{cells}</tr>"
    # On a narrow page, rows with more columns are shown as lists.
    kind = "table" if len(heads) > 3 else "small"
    return f'<table class="llmb-{kind}"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'


def _column(block: Table, number: int, cell: Line = "", shown: str = "") -> str:
    if number in block.numbers:
        return ' class="llmb-number" align="right"'
    words = _TAG.sub(" ", shown).strip()
    if isinstance(cell, list) and cell and isinstance(cell[0], Bar) and len(words) < 20:
        return ' class="llmb-bars" align="left"'
    # Only very long words are broken, as they would make a table too wide; columns of text have a legible
    # width.
    kind = (
        "long"
        if _LONG_WORD.search(words)
        else "text"
        if len(words) > 60
        else "words"
        if len(words) > 14
        else ""
    )
    return f' class="llmb-{kind}" align="left"' if kind else ' align="left"'


_TAG, _LONG_WORD = re.compile(r"<[^>]*>"), re.compile(r"\S{28}")


@_block.register
def _facts(block: Facts) -> str:
    rows = "".join(
        f'<tr><th align="left">{_escaped(name)}</th><td align="left">{line(value)}</td></tr>'
        for name, value in block.rows
    )
    return f'<table class="llmb-facts"><tbody>{rows}</tbody></table>'


@_block.register
def _fold(block: Fold) -> str:
    opened = " open" if block.open else ""
    return f"<details{opened}><summary>{line(block.title)}</summary>{blocks(block.blocks)}</details>"


@_block.register
def _card(block: Card) -> str:
    return f'<div class="llmb-card"><p class="llmb-p">{line(block.title)}</p>{blocks(block.blocks)}</div>'
