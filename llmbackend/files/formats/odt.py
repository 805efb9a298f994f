"""Reads OpenDocument texts, as LibreOffice writes them: turned into a page, which becomes Markdown."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from html import escape
from posixpath import normpath
from typing import Any
from zipfile import ZipFile

from ..parsed import Parsed, Unreadable, Warn, at_most
from .formulas import linear
from .html import TAGS, markdown
from .office import check_archive
from .xml import tree

LEVELS = 6
"""Levels of headings in HTML and Markdown."""

_TAGS = {
    "list-item": "li",
    "list-header": "li",
    "ruby-text": "rt",
    "table": "table",
    "table-header-rows": "thead",
    "table-row": "tr",
    "table-cell": "td",
}
_LEFT_OUT = {
    *("tracked-changes", "covered-table-cell"),  # what was deleted, and what a wide cell covers
    *("script", "binary-data"),
    *("table-of-content", "alphabetical-index", "illustration-index", "table-index"),
}
_ATTRIBUTES = {
    "number-columns-spanned": "colspan",
    "number-rows-spanned": "rowspan",
    "start-value": "value",
}


def odt(data: bytes, warn: Warn) -> Parsed:
    check_archive(data, "odt")
    with ZipFile(io.BytesIO(data)) as archive:
        if b"encryption-data" in archive.read("META-INF/manifest.xml"):
            raise Unreadable("encrypted: remove its password first")
        page = _Text(archive).written()
    at_most(TAGS, page.count("<"), "tags")
    return Parsed(markdown(page), "markdown")


class _Text:
    """A text, written as HTML."""

    def __init__(self, archive: ZipFile) -> None:
        content = tree(archive.read("content.xml"))
        self._body = content.find(".//{*}body/{*}text")
        self._archive = archive
        self._styles: dict[str, Any] = {}
        for root in (tree(archive.read("styles.xml")), content):
            for kind in ("style", "list-style"):
                self._styles.update((_get(one, "name"), one) for one in root.iter(f"{{*}}{kind}"))
        # Found once for each style, since any number of texts and lists may have the same.
        self._heights = {name: _height_of(one) for name, one in self._styles.items()}
        self._numbered = {name: _numbered(one) for name, one in self._styles.items()}
        self._deeper = any(self._is_title(one) for one in self._body.iter("{*}p"))
        self._notes = 0
        self._below: list[str] = []
        """What is written below the present paragraph: notes, comments and text boxes."""

    def written(self) -> str:
        parts = [*self._inside(self._body)]
        return "".join([*parts, *self._below])  # a page's text boxes stand in no paragraph

    def _inside(self, node: Any, lists: tuple[str, ...] = ()) -> Iterator[str]:
        """What is in a node; `lists` are the styles of the lists around it."""
        yield escape(node.text or "")
        for part in node:
            if isinstance(part.tag, str):
                yield from self._written(part, lists)
            yield escape(part.tail or "")

    def _written(self, node: Any, lists: tuple[str, ...]) -> Iterator[str]:
        name = node.tag.rpartition("}")[2]
        if name in _LEFT_OUT:
            return
        if name in ("h", "p"):
            yield from self._paragraph(node, lists)
        elif name == "list" and node.find(".//{*}h") is None:  # else it only counts headings
            style = _get(node, "style-name") or (lists[-1] if lists else "")
            kind = "ol" if str(len(lists) + 1) in self._numbered.get(style, ()) else "ul"
            yield from (f"<{kind}>", *self._inside(node, (*lists, style)), f"</{kind}>")
        elif name in _TAGS and (lists or not name.startswith("list")):
            given = ((told, _get(node, key)) for key, told in _ATTRIBUTES.items())
            about = "".join(f' {told}="{escape(value)}"' for told, value in given if value)
            yield from (f"<{_TAGS[name]}{about}>", *self._inside(node, lists), f"</{_TAGS[name]}>")
        elif name == "span" and (height := self._height(node)):
            yield from (f"<{height}>", *self._inside(node), f"</{height}>")
        elif name == "a":
            yield from (f'<a href="{escape(_get(node, "href"))}">', *self._inside(node), "</a>")
        elif name in ("s", "tab"):
            yield " "
        elif name == "line-break":
            yield "<br>"
        elif name == "note":
            self._notes += 1
            number = f"[^{self._notes}]"
            yield number
            self._put_below(f"{number}: ", node.find("{*}note-body"))
        elif name == "annotation":
            creator = node.find("{*}creator")
            self._put_below(f"Comment by {'a reader' if creator is None else creator.text}: ", node)
        elif name == "text-box":
            self._below.append("".join(self._inside(node)))
        elif name == "frame" and (object := node.find("{*}object")) is not None:
            yield from self._formula(object)
        elif name not in ("creator", "date", "initials"):
            yield from self._inside(node, lists)

    def _paragraph(self, node: Any, lists: tuple[str, ...]) -> Iterator[str]:
        level = 1 if self._is_title(node) else 0
        if node.tag.endswith("}h"):
            level = min(int(_get(node, "outline-level") or 1) + self._deeper, LEVELS)
        tag = f"h{level}" if level else "p"
        before, self._below = self._below, []
        yield from (f"<{tag}>", *self._inside(node, lists), f"</{tag}>", *self._below)
        self._below = before

    def _put_below(self, begin: str, note: Any) -> None:
        said = " ".join(" ".join("".join(one.itertext()).split()) for one in note.iter("{*}p"))
        self._below.append(f"<p>{begin}{escape(said)}</p>")

    def _formula(self, node: Any) -> Iterator[str]:
        path = normpath(f"{_get(node, 'href')}/content.xml")
        if path in self._archive.namelist():
            root = tree(self._archive.read(path))
            if root.tag.endswith("}math"):
                yield f" {escape(linear(root))} "

    def _is_title(self, node: Any) -> bool:
        name = _get(node, "style-name")
        style = self._styles.get(name)
        return "Title" in (name, style is not None and _get(style, "parent-style-name"))

    def _height(self, node: Any) -> str:
        """ "sup" or "sub" for raised or lowered letters."""
        return self._heights.get(_get(node, "style-name"), "")


def _height_of(style: Any) -> str:
    properties = style.find("{*}text-properties")
    moved = re.match("(super|sub)|(-?)[1-9]", "" if properties is None else _get(properties, "text-position"))
    if moved is None:
        return ""
    return "sub" if moved[1] == "sub" or moved[2] == "-" else "sup"


def _numbered(style: Any) -> set[str]:
    """The levels at which lists of a style have numbers."""
    levels = style.iter("{*}list-level-style-number")
    return {_get(one, "level") for one in levels if _get(one, "num-format")}


def _get(node: Any, name: str) -> str:
    """An attribute, in whatever namespace; empty if there is none."""
    return next((value for key, value in node.attrib.items() if key.rpartition("}")[2] == name), "")
