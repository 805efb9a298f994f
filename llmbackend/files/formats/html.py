"""Converts the HTML of pages, mails and Office files to Markdown."""

from __future__ import annotations

import io
import re
from collections import Counter
from functools import cache
from typing import Any

from ..decoding import decoded
from ..parsed import Parsed, Warn, at_most, check_attributes
from . import html_tables
from .formulas import linear
from .numbering import shown_number
from .xml import tree

_NO_TEXT = (
    *("script", "style", "noscript", "template:not([shadowrootmode])", "iframe", "object", "canvas"),
    *("datalist", "rp", "input[type=hidden]", "input[type=password]"),
)
_HIDDEN = '[hidden], dialog:not([open]), [style*="display:none"], [style*="display: none"]'
_BANNER = re.compile(r"cookie|consent|gdpr", re.IGNORECASE)
BANNER = 1_500
"""Most characters of a cookie banner; a longer text is one about cookies."""
NAVIGATION = 200
"""Most characters outside links that navigation has."""


def html(data: bytes, warn: Warn) -> Parsed:
    from bs4.dammit import EncodingDetector

    declared = EncodingDetector.find_declared_encoding(data, is_html=True)
    return Parsed(page(decoded(data, warn, declared), warn), "markdown")


TAGS = 200_000
"""Most elements of a page; each takes at least a tenth of a millisecond."""

UNENDED = 1_000
"""Most tags and comments that nothing ends; the parser looks for the end of each in the rest of the page."""
_COMMENT, _TAG = re.compile("<!--"), re.compile("<[A-Za-z/!?]")


HIDDEN = 20
"""Least number of hidden characters for a warning."""


def page(markup: str, warn: Warn) -> str:
    """A page's content under its title: its main parts if it marks any, without navigation and cookie banners.

    If that is less than half of the text outside links, everything is kept, with a warning.
    """
    at_most(TAGS, markup.count("<"), "tags")
    for what, begin, end in (("comments", _COMMENT, "-->"), ("tags", _TAG, ">")):
        unended = begin.finditer(markup, markup.rfind(end) + 1)
        at_most(UNENDED, sum(1 for _ in unended), f"{what} that nothing ends")
    check_attributes(markup)
    soup = _soup(markup)
    titles = [title for title in soup("title") if title.find_parent("svg") is None]
    title = " ".join(titles[0].get_text().split()) if titles else ""
    for tag in [*titles, *soup.select(", ".join(_NO_TEXT)), *soup.find_all(string=_is_declaration)]:
        tag.extract()
    _leave_out_what_is_hidden(soup, warn)
    whole, seen = str(soup), _own_length(soup)
    _leave_out_what_surrounds(soup)
    parts = _main_parts(soup)
    if 2 * sum(map(_own_length, parts)) < seen - NAVIGATION:
        warn(f"most of its text stands where navigation does: all {seen} characters are kept")
        parts = [_soup(whole)]
    headings = [heading for part in parts for heading in part(_HEADINGS)]
    names = [" ".join(heading.get_text().split()) for heading in headings]
    if title and not any(
        name in title and 2 * len(name) >= len(title) for name in names
    ):  # leaves out the site's name
        if headings and all(heading.name != "h6" for heading in headings):
            for heading in headings if any(heading.name == "h1" for heading in headings) else ():
                heading.name = f"h{int(heading.name[1]) + 1}"  # the title is above them all
    else:
        title = ""
    text = "\n\n".join(filter(None, (markdown(part) for part in parts)))
    return f"# {title}\n\n{text}".strip() if title else text


def _is_declaration(text: Any) -> bool:
    from bs4.element import Declaration, ProcessingInstruction

    return isinstance(text, (Declaration, ProcessingInstruction))  # such as XHTML's <?xml version="1.0"?>


_HEADINGS = re.compile("^h[1-6]$")
_NAVIGATION = re.compile(
    "^(?:nav|navbar|navheader|navfooter|nav-panel|navigation|breadcrumbs?)$", re.IGNORECASE
)

_CONTENTS = re.compile(r"^(?:(?:page-?|local|body)?toc|table-?of-?contents)$", re.IGNORECASE)


def _main_parts(soup: Any) -> list[Any]:
    """The parts marked as main, with headers that contain headings; the whole page if there are none."""
    mains = [tag for tag in soup.select("main, [role=main]") if _length(tag)]
    if not mains:
        return [soup]
    around = {id(tag) for main in mains for tag in main.parents}
    heads = [tag for tag in soup("header") if tag.find(_HEADINGS) and id(tag) not in around]
    chosen = {id(tag) for tag in (*mains, *heads)}
    return _outermost([tag for tag in soup(True) if id(tag) in chosen])  # in document order


def _outermost(tags: list[Any]) -> list[Any]:
    """Return those that are in none of the others."""
    found = {id(tag) for tag in tags}
    return [tag for tag in tags if not any(id(one) in found for one in tag.parents)]


def _leave_out_what_is_hidden(soup: Any, warn: Warn) -> None:
    """Remove hidden parts, unless they are most of the page, which a script would show."""
    hidden = [tag for tag in soup.select(_HIDDEN) if tag.name not in ("html", "body")]
    outer = _outermost(hidden)
    count = sum(map(_length, outer))
    if 2 * count > _length(soup):
        warn(f"most of its text is hidden until a script shows it: all {_length(soup)} characters are kept")
        return
    if count > HIDDEN:
        warn(f"{count} characters that the page hides are left out")
    for tag in outer:
        tag.extract()


SPACES = 100
"""Most spaces in a row that are kept; markdownify takes time by their square."""
_SPACES = re.compile(f"[ \\t]{{{SPACES + 1},}}")
_WITH_HOST = re.compile(r"\s*(?:[A-Za-z][A-Za-z0-9+.-]*:|[/\\]{2})")


def markdown(part: Any) -> str:
    """A part of a page, or its markup, as Markdown."""
    from markitdown import StreamInfo
    from markitdown.converters import HtmlConverter

    soup = _soup(part) if isinstance(part, str) else part
    for link in soup("a", href=re.compile("^#")):
        if not any(map(str.isalnum, link.get_text())):  # the link mark beside a heading
            link.extract()
    for link in soup("a"):
        if _WITH_HOST.match(link.get("href") or ""):
            link.attrs.pop("title", None)
        else:  # to a place that only the page's own site knows: its words remain
            if getattr(link.next_sibling, "name", None) == "a":
                link.insert_after(" ")
            link.unwrap()
    _spell_out(soup)
    _stand_apart(soup)
    room = html_tables.SPANNED
    for table in reversed(soup("table")):  # inner ones first
        room = html_tables.plain(table, room)
    _raise_and_lower(soup)
    for text in soup.find_all(string=_SPACES):
        text.replace_with(type(text)(_SPACES.sub(lambda spaces: spaces[0][:SPACES], text)))
    rendered = HtmlConverter().convert(
        io.BytesIO(str(soup).encode()),
        StreamInfo(charset="utf-8"),
        escape_asterisks=False,  # so that text reads as the page shows it
        escape_underscores=False,
    )
    return without_images(rendered.markdown).strip()


# Browsers show these as blocks, but markdownify treats them as inline text.
_BLOCKS = re.compile(
    "^(?:address|aside|body|center|details|dir|fieldset|figure|footer|form|header|hgroup|legend|main|menu|nav|search"
    "|summary|noframes|frameset)$"
)
_BOXES = re.compile(
    "^(?:button|label|meter|output|progress|textarea|time|data|video|audio|picture|map|.+-.+)$"
)


def _stand_apart(soup: Any) -> None:
    """Keep adjacent pieces from becoming one word or number."""
    for block in soup(_BLOCKS):
        block.name = "div"
    for box in soup(_BOXES):
        before, behind = box.previous_sibling, box.next_sibling
        if before is not None and before.get_text()[-1:].isalnum():
            box.insert_before(" ")
        if behind is not None and behind.get_text()[:1].isalnum():
            box.insert_after(" ")


OPTIONS = 20
"""Most options of a list that are kept; of a longer list only the selected ones."""


def _spell_out(soup: Any) -> None:
    """Turn what a browser shows, but is not text, into text."""
    for reading in soup("rt"):  # how to pronounce the text below it
        reading.insert_before("(")
        reading.insert_after(")")
    for formula in soup("math"):
        formula.replace_with(_formula(formula))
    for drawing in soup("svg"):
        drawing.replace_with(" ".join(said.get_text(" ", strip=True) for said in drawing("text")))
    for field in soup("input"):
        kind = str(field.get("type", "text")).lower()
        if kind in ("checkbox", "radio"):
            field.replace_with("[x] " if field.has_attr("checked") else "[ ] ")
        else:
            field.replace_with(f" {field.get('value') or ''} ")
    for choice in soup("select"):
        options = choice("option")
        chosen = [option for option in options if option.has_attr("selected")]
        told = options if len(options) <= OPTIONS else chosen or options[:1]
        choice.replace_with(" / ".join(f"{one.get_text(' ', strip=True)}" for one in told))
    for ordered in soup("ol"):
        _count(ordered)


def _formula(math: Any) -> str:
    tex = math.find("annotation", encoding=re.compile("tex", re.IGNORECASE))
    said = tex.get_text() if tex else math.get("alttext")
    if said:
        return f"${said.strip()}$"
    try:
        return linear(tree(str(math)))
    except SyntaxError:  # HTML need not be well-formed XML
        return str(math.get_text(" ", strip=True))


_COUNTED = {"a": "lowerLetter", "A": "upperLetter", "i": "lowerRoman", "I": "upperRoman"}


def _count(ordered: Any) -> None:
    """Write out the numbers of a list that does not count as Markdown does."""
    items = ordered("li", recursive=False)
    shape = _COUNTED.get(str(ordered.get("type", "1")), "decimal")
    down = ordered.has_attr("reversed")
    if shape == "decimal" and not down and not any(item.has_attr("value") for item in items):
        return
    ordered.name = "ul"
    number = _int(ordered.get("start"), len(items) if down else 1)
    for item in items:
        number = _int(item.get("value"), number)
        item.insert(0, f"{shown_number(number, shape)}. ")
        number += -1 if down else 1


def _int(value: Any, otherwise: int) -> int:
    return (
        int(value) if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,9}", value.strip()) else otherwise
    )


def without_images(text: str) -> str:
    """Replace images by their descriptions."""
    return _IMAGE.sub(r"\1", text)


_IMAGE = re.compile(r"!\[((?:(?!!\[)[^\]])*)\]\([^()\s]*(?:\s\"[^\"]*\")?\)")


DEEPEST = 1_000
"""Most elements of a kind within each other, which pages have that do not close them: these take seconds."""

# Each of these is looked at with all that is in it, which takes long if they are nested deeply.
# fmt: off
_NESTED = frozenset((
    "aside", "div", "footer", "h1", "h2", "h3", "h4", "h5", "h6", "header", "main", "math", "nav", "sub", "sup", "svg", "table",
))
# fmt: on
_NEVER_NESTED = frozenset(("a", "button", "select"))
"""Each ends the one directly around it, which a page did not close, as in browsers."""


@cache
def _soup_class() -> Any:
    from bs4 import BeautifulSoup, Tag

    class Near(Tag):
        """Looks for a child outwards from the one before: bs4 looks from the first, for every child that is changed."""

        _last = 0

        def index(self, element: Any) -> int:
            first, last = self._last, self._last + 1
            while first >= 0 or last < len(self.contents):
                for place in (first, last):
                    if 0 <= place < len(self.contents) and self.contents[place] is element:
                        self._last = place
                        return place
                first, last = first - 1, last + 1
            raise ValueError("Tag.index: element not in tag")

    class Soup(Near, BeautifulSoup):
        def __init__(self, markup: str, parser: str) -> None:
            super().__init__(markup, parser, element_classes={Tag: Near})

        def handle_starttag(self, name: str, *args: Any, **options: Any) -> Any:
            if name in _NEVER_NESTED and self.currentTag is not None and self.currentTag.name == name:
                self.handle_endtag(name)
            elif name in _NESTED:
                at_most(DEEPEST, self.open_tag_counter[name] + 1, f"<{name}> within each other")
            return super().handle_starttag(name, *args, **options)

    return Soup


_MAY_STAY_OPEN = re.compile(r"<(/?)(?:td|th|tr|li|dt|dd|option)\b", re.IGNORECASE)


def _soup(markup: str) -> Any:
    import warnings

    warnings.simplefilter("ignore")
    # Python's parser has no depth limit, but lxml's knows which tags need no closing.
    ends = Counter(bool(end) for end in _MAY_STAY_OPEN.findall(markup))
    return _soup_class()(markup, "html.parser" if ends[True] >= ends[False] else "lxml")


def _length(tag: Any) -> int:
    return len(" ".join(tag.get_text(" ").split()))


def _own_length(tag: Any) -> int:
    """The text outside links; navigation is mostly links."""
    return _length(tag) - sum(map(_length, tag("a")))


def _leave_out_what_surrounds(soup: Any) -> None:
    """Remove navigation, a page's table of contents, headers, footers, side columns of links and cookie banners.

    Headings stay.
    """
    for tag in soup.select("nav, [role=navigation]"):
        tag.extract()
    for tag in soup.find_all(["div", "p", "ul", "ol", "table", "tr"], class_=_NAVIGATION):
        if not tag.find(_HEADINGS):
            tag.extract()
    anchors = {str(tag.get("id") or tag.get("name")) for tag in soup.select("[id], a[name]")}
    for tag in soup.find_all(["div", "ul", "ol", "dl"], class_=_CONTENTS):
        ends = {str(link.get("href", "")).partition("#")[2] for link in tag("a", href=True)}
        # Its lines repeat this page's headings.
        if ends and ends <= anchors and 2 * _own_length(tag) < _length(tag):
            tag.extract()
    for link in soup.select("a[rel~=next], a[rel~=prev], a[rel~=up]"):
        line = link.find_parent(["p", "div", "li", "td"])
        if line is not None and not line.find(_HEADINGS) and 2 * _own_length(line) < _length(line):
            line.extract()
    for tag in soup(["header", "footer", "aside"]):
        if tag.find_parent(["article", "main"]) is None and not tag.find(re.compile("^h[1-6]$")):
            linked = sum(_length(link) for link in tag("a"))
            if tag.name != "aside" or 2 * linked > _length(tag):
                tag.extract()
    for tag in soup.find_all(attrs={"id": _BANNER}) + soup.find_all(attrs={"class": _BANNER}):
        if tag.name not in ("html", "body", "main", "article") and _length(tag) <= BANNER and _asks(tag):
            tag.extract()


_ABOUT_COOKIES = re.compile("cookie|track|privacy|datenschutz|confidentialit|privacidad", re.IGNORECASE)


def _asks(tag: Any) -> bool:
    """Return whether a part asks for consent to cookies, not to something else, and is not a recipe."""
    about = _ABOUT_COOKIES.search(tag.get_text(" ")) is not None
    return about and tag.find(["button", "a", "input"]) is not None


_RAISED = str.maketrans("0123456789+-−=()n", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻⁼⁽⁾ⁿ")
_LOWERED = str.maketrans("0123456789+-−=()", "₀₁₂₃₄₅₆₇₈₉₊₋₋₌₍₎")
_ORDINAL = re.compile("st|nde?|rd|th|er|re|ère|e|ème|os?", re.IGNORECASE)
_BY_STYLE = re.compile(r"vertical-align:\s*(super|sub)\b", re.IGNORECASE)
_BY_CLASS = {"sup": "sup", "superscript": "sup", "sub": "sub", "subscript": "sub"}


def _raise_and_lower(soup: Any) -> None:
    for tag in soup(["span", "small", "font"]):
        style = _BY_STYLE.search(str(tag.get("style", "")))
        named = [_BY_CLASS[name] for name in tag.get("class") or () if name in _BY_CLASS]
        if style or named:
            tag.name = ("sup" if style[1].lower() == "super" else "sub") if style else named[0]
    for tag in soup(["sup", "sub"]):
        before = tag.previous_sibling
        said = before.get_text() if before is not None else ""
        written = apart(tag.get_text(), said, raised=tag.name == "sup", is_note=tag.find("a") is not None)
        if written is not None:
            tag.replace_with(written)


def apart(text: str, before: str, *, raised: bool, is_note: bool = False) -> str | None:
    """Write a super- or subscript apart from a number before it, so that 14¹ does not become 141, or 10⁶ 106.

    Returns None if it needs no change.
    """
    text = text.strip()
    table = _RAISED if raised else _LOWERED
    if not text:
        return None
    if raised and re.search(r"(?<!\d)10$", before) and not is_note:
        return f"^{text}" if re.fullmatch(r"[\d.]+", text) else f"^({text})"
    if all(ord(letter) in table or letter in ",; " for letter in text):
        return text.translate(table)
    if raised and re.search(r"\d$", before) and text[0].isalnum() and not _ORDINAL.fullmatch(text):
        return f"^{text}" if text.isalpha() else f"^({text})"
    if re.search(r"\d$", before) and text.startswith(("[", "(")):
        return f" {text}"
    return None
