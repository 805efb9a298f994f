"""Makes passages of Markdown readable: removes the marks of bold text, headings, tables, code and links."""

from __future__ import annotations

import re

_FENCE = re.compile(r"(?m)^[ ]{0,3}(?:```|~~~)[\w+-]*[ \t]*\n?")
_DIVIDER = re.compile(r"(?m)^[ ]{0,3}\|(?:[ \t]*:?-+:?[ \t]*\|)+[ \t]*(?:\n|\Z)")
_ROW = re.compile(r"(?m)^[ ]{0,3}\|(.*)\|[ \t]*$")
_CELL_END = re.compile(r"[ \t]*(?<!\\)\|[ \t]*")
# Also in a quotation or an item of a list, whose marks stay.
_HEADING = re.compile(r"(?m)^([ ]{0,3}(?:(?:>|[-*+])[ \t]+)*)#{1,6}(?![^ \t\n])(.*)$")
_UNDERLINE = re.compile(r"(?m)(?<=\S)\n[ ]{0,3}={3,}[ \t]*$")
_LINK = re.compile(r"!?\[([^\]\[\n]*)\]\(([^()\s]*)\)")
_CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_BOLD = re.compile(r"(?<![\w*])\*\*(?=\S)([^*\n]+?)(?<=\S)\*\*(?![\w*])")
_ITALIC = re.compile(r"(?<![\w*])\*(?=[^\s*])([^*\n]+?)(?<=\S)\*(?![\w*])")
_ESCAPED = re.compile(r"\\([*_|`#\[\]])")


def read(text: str) -> str:
    """The text without marks; the cells of a table's row are separated by a bar."""
    if not re.search(r"[*`#|\[~=]", text):
        return text
    text = _DIVIDER.sub("", text)
    text = _ROW.sub(lambda row: " | ".join(_CELL_END.split(row[1].strip())), text)
    text = _FENCE.sub("", text)
    text = _UNDERLINE.sub("", _HEADING.sub(_words_of, text))
    text = _LINK.sub(
        lambda link: link[1] if not link[2] or link[1] == link[2] else f"{link[1]} ({link[2]})", text
    )
    for mark in (_CODE, _BOLD, _ITALIC):
        text = mark.sub(r"\1", text)
    return _ESCAPED.sub(r"\1", text)


def _words_of(heading: re.Match[str]) -> str:
    words = heading[2].strip()
    before = words.rstrip("#")
    return heading[1] + (words if before and not before[-1].isspace() else before.rstrip())
