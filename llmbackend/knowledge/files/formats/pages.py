"""HTML, of pages, mails and Office files, as Markdown."""

from __future__ import annotations

import io
import re
from collections import Counter
from typing import Any

from ..decoding import decoded
from ..parsed import Parsed, Warn, at_most

_NO_TEXT = (
    *("script", "style", "noscript", "template", "svg", "iframe", "object", "canvas", "math"),
    *("select", "input", "datalist", "rp"),
)
_HIDDEN = '[hidden], dialog:not([open]), [style*="display:none"], [style*="display: none"]'
_BANNER = re.compile(r"cookie|consent|gdpr", re.IGNORECASE)
BANNER = 1_500
"""Characters of a cookie banner at most; what is longer is a text about cookies."""
NAVIGATION = 200
"""Characters beside its links that navigation has."""
SPANNED = 10_000
"""Cells that one table's spans may fill: a span is a number that anybody can write down."""


def html(data: bytes, warn: Warn) -> Parsed:
    from bs4.dammit import EncodingDetector

    declared = EncodingDetector.find_declared_encoding(data, is_html=True)
    return Parsed(page(decoded(data, warn, declared), warn), "markdown")


TAGS = 200_000
"""Each takes a tenth of a millisecond and more."""


def page(markup: str, warn: Warn) -> str:
    """What a page says: its main parts if it names some, without navigation and cookie banners.

    Where that would be less than half of the text that is no link, all of it is kept, and `warn` is told.
    """
    at_most(TAGS, markup.count("<"), "tags")
    soup = _soup(markup)
    title = " ".join(soup.title.get_text().split()) if soup.title else ""
    if soup.title:
        soup.title.extract()
    for tag in [*soup(_NO_TEXT), *soup.select(_HIDDEN)]:
        tag.extract()
    whole = str(soup)
    _leave_out_what_surrounds(soup)
    mains = [tag for tag in soup.select("main, [role=main]") if _length(tag)]
    parts = [tag for tag in mains if tag.find_parent(["main"]) is None] or [soup]
    kept, seen = sum(map(_own_length, parts)), _own_length(_soup(whole))
    if 2 * kept < seen - NAVIGATION:
        warn(f"most of its text stands where navigation does: all {seen} characters are kept")
        parts = [_soup(whole)]
    text = "\n\n".join(filter(None, (markdown(part) for part in parts)))
    return text if not title or re.search("^# ", text, re.MULTILINE) else f"# {title}\n\n{text}".strip()


def markdown(part: Any) -> str:
    """A part of a page, or its markup, as Markdown."""
    from markitdown import StreamInfo
    from markitdown.converters import HtmlConverter

    soup = _soup(part) if isinstance(part, str) else part
    for link in soup("a", href=re.compile("^#")):
        if not any(map(str.isalnum, link.get_text())):  # the mark beside a heading that links to it
            link.extract()
    for table in soup("table"):
        _fill_spans(table)
        _name_columns(table)
    _raise_and_lower(soup)
    for reading in soup("rt"):  # how to say what stands below it
        reading.insert_before("(")
        reading.insert_after(")")
    rendered = HtmlConverter().convert(io.BytesIO(str(soup).encode()), StreamInfo(charset="utf-8")).markdown
    return without_images(rendered).strip()


def without_images(text: str) -> str:
    """What is said of an image, in its place."""
    return re.sub(r"!\[([^\]]*)\]\([^()\s]*(?:\s\"[^\"]*\")?\)", r"\1", text)


_MAY_STAY_OPEN = re.compile(r"<(/?)(?:td|th|tr|li|dt|dd)\b", re.IGNORECASE)


def _soup(markup: str) -> Any:
    import warnings

    from bs4 import BeautifulSoup

    warnings.simplefilter("ignore")
    # Python's parser reads what lies as deep as it likes; lxml's knows which tags need not be closed.
    ends = Counter(bool(end) for end in _MAY_STAY_OPEN.findall(markup))
    return BeautifulSoup(markup, "html.parser" if ends[True] >= ends[False] else "lxml")


def _length(tag: Any) -> int:
    return len(" ".join(tag.get_text(" ").split()))


def _own_length(tag: Any) -> int:
    """Without links, which are most of what navigation is."""
    return _length(tag) - sum(map(_length, tag("a")))


def _leave_out_what_surrounds(soup: Any) -> None:
    """Take out navigation, a page's head and foot, side columns of links, and cookie banners; headings are left."""
    for tag in soup.select("nav, [role=navigation]"):
        tag.extract()
    for tag in soup(["header", "footer", "aside"]):
        if tag.find_parent(["article", "main"]) is None and not tag.find(re.compile("^h[1-6]$")):
            linked = sum(_length(link) for link in tag("a"))
            if tag.name != "aside" or 2 * linked > _length(tag):
                tag.extract()
    for tag in soup.find_all(attrs={"id": _BANNER}) + soup.find_all(attrs={"class": _BANNER}):
        if tag.name not in ("html", "body", "main", "article") and _length(tag) <= BANNER:
            tag.extract()


def _fill_spans(table: Any) -> None:
    """Repeat cells that span rows or columns, so that each value stands in its column and each row has its label."""
    import copy

    below: dict[int, tuple[Any, int]] = {}  # by column: what spans further rows, and how many
    filled = 0
    for row in table("tr"):
        if row.find_parent("table") is not table:
            continue
        column = 0
        cells = [cell for cell in row(["td", "th"], recursive=False)]
        while cells or column in below:
            if column in below:
                cell, left = below.pop(column)
                clone = copy.copy(cell)
                if cells:
                    cells[0].insert_before(clone)
                else:
                    row.append(clone)
                if left > 1:
                    below[column] = cell, left - 1
                column += 1
                continue
            cell = cells.pop(0)
            wide, high = _span(cell, "colspan"), _span(cell, "rowspan")
            for further in range(wide):
                if filled > SPANNED:
                    break
                if further:
                    filled += 1
                    clone = copy.copy(cell)
                    (cells[0].insert_before if cells else row.append)(clone)
                if high > 1:
                    filled += 1
                    below[column + further] = cell, min(high - 1, SPANNED)
            column += wide


def _span(cell: Any, name: str) -> int:
    said = str(cell.attrs.pop(name, "1")).strip()
    return max(1, min(int(said), 1_000)) if said.isdecimal() else 1


def _name_columns(table: Any) -> None:
    """Have the first row be the head where no other is: Markdown has no table without one."""
    if table.find("th") is None and (first := table.find("tr")) is not None:
        for cell in first(["td"], recursive=False):
            cell.name = "th"
        head = first.find_parent(["thead", "tbody", "table"])
        if head is not None and head.name == "tbody":
            first.extract()
            head.insert_before(_head_of(first))


def _head_of(row: Any) -> Any:
    head = _soup("<thead></thead>").thead
    head.append(row)
    return head


_RAISED = str.maketrans("0123456789+-=()n", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿ")
_LOWERED = str.maketrans("0123456789+-=()", "₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎")


def _raise_and_lower(soup: Any) -> None:
    """Keep 14¹ from becoming 141, and 10^6 from becoming 106."""
    for tag in soup(["sup", "sub"]):
        text = tag.get_text().strip()
        if not text:
            continue
        before = tag.previous_sibling
        said = before.get_text() if before is not None else ""
        table = _RAISED if tag.name == "sup" else _LOWERED
        if tag.name == "sup" and re.search(r"(?<!\d)10$", said) and tag.find("a") is None:
            tag.replace_with(f"^{text}" if re.fullmatch(r"[\d.]+", text) else f"^({text})")
        elif all(ord(letter) in table for letter in text):
            tag.replace_with(text.translate(table))
        elif re.search(r"\d$", said) and re.match(r"[\d\[(]", text):
            tag.replace_with(f" {text}" if text.startswith(("[", "(")) else f"^({text})")
