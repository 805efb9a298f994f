"""Opens Office files, which are all zip archives of XML."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from itertools import pairwise
from posixpath import dirname, join, normpath
from typing import Any
from zipfile import BadZipFile, ZipFile

from ..parsed import Unreadable, at_most, check_attributes
from .tables import COLUMNS
from .xml import tree

UNPACKED = 256 * 2**20
"""Most bytes of an unpacked Office file."""
ROWS = 2**20
"""Most rows of a sheet, as in Excel."""
PIECES = 300_000
"""Most elements of a text or slide, enough for some 2,000 pages. A paragraph has three, and takes a quarter of a
millisecond."""
TAGS = 500_000
"""Most tags of a part that lists an Office file's parts, sheets and names, or styles; Excel's 64,000 formats take most."""
_LISTS = re.compile(r"(?:.*/)?(?:\[Content_Types\]|workbook|styles)\.xml")


def check_archive(data: bytes, kind: str) -> None:
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
                    markup = archive.read(entry)
                    check_attributes(markup.decode("latin-1"))
                    if _LISTS.fullmatch(entry.filename):
                        at_most(TAGS, markup.count(b"<"), f"tags in {entry.filename}")
                    _check_tables(markup)
                    if kind != "xlsx":
                        at_most(
                            PIECES, sum(1 for _ in _PIECE.finditer(markup)), "paragraphs, runs and breaks"
                        )
    except BadZipFile:
        raise Unreadable(f"broken, or no .{kind} file") from None


_PIECE = re.compile(rb"<(?:\w+:)?(?:p|r|t|br|cr|tab|sym|hyperlink|fld)[\s/>]")
_ROW = re.compile(rb"""<(?:\w+:)?(?:row|tr)\b(?:[^<>]*?\sr=["'](\d+))?""")
_CELL = re.compile(rb"<(?:\w+:)?t?c[\s/>]")


def _check_tables(markup: bytes) -> None:
    """Check the size of tables before they are read, because reading adds all missing rows above a row far down."""
    rows = list(_ROW.finditer(markup))
    at_most(ROWS, max((int(row[1] or 0) for row in rows), default=0), "rows")
    for row, end in pairwise([*(row.start() for row in rows), len(markup)]):
        if end - row > 4 * COLUMNS:  # `<c/>` is the shortest cell
            at_most(COLUMNS, sum(1 for _ in _CELL.finditer(markup, row, end)), "columns")


_RELATIONSHIP = "{http://schemas.openxmlformats.org/package/2006/relationships}Relationship"


class Package:
    """The editable parts of an Office file, without pictures, and the relations between them."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        with ZipFile(io.BytesIO(data)) as archive:
            self.parts = {name: archive.read(name) for name in archive.namelist() if "/media/" not in name}
        self._before = dict(self.parts)

    def related(self, part: str, kind: str) -> Iterator[str]:
        """Yield the parts of a kind that a part refers to; for the part "", those that the file itself refers to."""
        name = join(dirname(part), "_rels", f"{part.rpartition('/')[2]}.rels")
        if name not in self.parts:
            return
        for one in self.tree(name).iter(_RELATIONSHIP):
            target = normpath(join("/", dirname(part), one.get("Target", ""))).lstrip("/")
            if one.get("Type", "").endswith(f"/{kind}") and target in self.parts:
                yield target

    def tree(self, part: str) -> Any:
        return tree(self.parts[part])

    def written(self) -> bytes:
        """Return the changed file without pictures; the original if nothing has changed."""
        if self.parts == self._before:
            return self._data
        file = io.BytesIO()
        with ZipFile(file, "w") as archive:
            for name, content in self.parts.items():
                archive.writestr(name, content)
        return file.getvalue()
