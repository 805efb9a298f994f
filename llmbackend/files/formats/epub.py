"""Reads EPUB books: zip archives whose chapters are web pages."""

from __future__ import annotations

import io
import re
from html import escape
from posixpath import dirname, join, normpath
from typing import Any
from urllib.parse import unquote
from zipfile import ZipFile

from ..decoding import decoded
from ..parsed import Parsed, Unreadable, Warn, check_attributes
from .html import page
from .office import check_archive
from .xml import tree

_PAGES = ("application/xhtml+xml", "text/html")


def epub(data: bytes, warn: Warn) -> Parsed:
    check_archive(data, "epub")
    with ZipFile(io.BytesIO(data)) as archive:
        book = _xml(archive, "META-INF/container.xml").find(".//{*}rootfile").get("full-path")
        about = _xml(archive, book)
        items = {item.get("id"): item for item in about.iter("{*}item")}
        chapters = [items[one.get("idref")] for one in about.iter("{*}itemref")]
        paths = dict.fromkeys(  # each once, however often it is named
            normpath(join(dirname(book), unquote(one.get("href"))))
            for one in chapters
            if one.get("media-type") in _PAGES and "nav" not in one.get("properties", "").split()
        )
        if _locked(archive) & paths.keys():
            raise Unreadable("encrypted: it is protected against copying")
        pages = [_EMPTY.sub(r"<\1\2></\1>", decoded(archive.read(path), warn, "utf-8")) for path in paths]
    title = about.findtext(".//{*}metadata/{*}title") or ""
    # As one page, so that the book's title is above all headings, and its contents are seen to repeat them.
    return Parsed(page(f"<title>{escape(title)}</title>" + "\n".join(pages), warn), "markdown")


_EMPTY = re.compile(
    r"<(?!(?:area|base|br|col|embed|hr|img|input|link|meta|source|track|wbr)\b)([\w:-]+)(?![\w:-])([^<>]*)/>"
)
"""An element of XHTML without content, which HTML would take for its beginning only."""


def _xml(archive: ZipFile, path: str) -> Any:
    markup = archive.read(path)
    check_attributes(markup.decode("latin-1"))
    return tree(markup)


def _locked(archive: ZipFile) -> set[str]:
    """The encrypted files; fonts often are, in a book that is not protected."""
    path = "META-INF/encryption.xml"
    if path not in archive.namelist():
        return set()
    return {unquote(one.get("URI")) for one in _xml(archive, path).iter("{*}CipherReference")}
