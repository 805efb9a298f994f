"""Divides a text into sections, with their pages and the headings above them.

Headings are those of Markdown (CommonMark) and reStructuredText (titles with a line of punctuation below, and perhaps
above).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise, zip_longest
from typing import Any, NamedTuple

from .. import slices
from ..files.parsed import PAGE_END, Syntax

TITLE_CHARACTERS = 200
"""Most characters of a title, because it is embedded with every chunk below it."""


class Section(NamedTuple):
    """The text below one heading on one page of a document: `text[body:end]`, which always has words.

    `text[start:body]` are the headings between it and the previous section.
    """

    start: int
    body: int
    end: int
    headings: tuple[str, ...] = ()
    """The titles above it, outermost first."""
    page: int | None = None
    """The page, from 1, if the text has pages."""


class _Heading(NamedTuple):
    start: int
    end: int
    level: int
    title: str


def sections(text: str, syntax: Syntax) -> list[Section]:
    """Return a text's sections in order."""
    found: list[Section] = []
    pages = text.split(PAGE_END)
    start = 0
    for number, page in enumerate(pages, 1):
        parts = list(_on_page(page, start, syntax, number if len(pages) > 1 else None))
        found += _with_words(text, parts)
        start += len(page) + 1
    return found


def _on_page(text: str, offset: int, syntax: Syntax, page: int | None) -> Iterator[Section]:
    title, begin = _front_matter(text) if syntax == "markdown" and offset == 0 else ("", 0)
    above: list[tuple[int, str]] = [(0, title)] if title else []
    start = body = begin
    for heading in _headings(text, begin, syntax):
        yield Section(offset + start, offset + body, offset + heading.start, _titles(above), page)
        above = [(level, name) for level, name in above if level < heading.level]
        if (0, heading.title) not in above:  # many pages repeat their title as their first heading
            above.append((heading.level, heading.title))
        start, body = heading.start, heading.end
    yield Section(offset + start, offset + body, offset + len(text), _titles(above), page)


def _titles(above: list[tuple[int, str]]) -> tuple[str, ...]:
    return tuple(name for _, name in above if name)


def _with_words(text: str, parts: list[Section]) -> Iterator[Section]:
    """Merge sections without words into their neighbours.

    A heading with only other headings below it joins the first of these; one with nothing below it becomes text.
    """
    start: int | None = None
    for part, behind in zip_longest(parts, parts[1:]):
        begin = part.start if start is None else start
        start = None
        if text[part.body : part.end].strip():
            yield part if begin == part.start else part._replace(start=begin)
        elif behind is not None and behind.headings[: len(part.headings)] == part.headings:
            start = begin
        elif text[begin : part.end].strip():
            yield part._replace(start=begin, body=begin, headings=part.headings[:-1])


def _headings(text: str, begin: int, syntax: Syntax) -> Iterator[_Heading]:
    if syntax == "markdown":
        return _of_markdown(text, begin)
    if syntax == "rst":
        return _of_rst(text)
    return iter(())


# Markdown


_FRONT_MATTER = re.compile(r"---[ \t]*\n(.*?\n)?(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_TITLE = re.compile(r"^title:(.+)$", re.MULTILINE)


def _front_matter(text: str) -> tuple[str, int]:
    """Return the title in a page's front matter, and where that ends."""
    block = _FRONT_MATTER.match(text)
    if block is None or not text[block.end() :].strip():
        return "", 0
    title = _TITLE.search(block[1] or "")
    return (_short(title[1].strip().strip("\"'")) if title else ""), block.end()


def _of_markdown(text: str, begin: int) -> Iterator[_Heading]:
    lines = _line_starts(text, begin)
    tokens = _markdown().parse(text[begin:])
    for opening, content in pairwise(tokens):
        if opening.type == "heading_open" and opening.level == 0:
            first, behind = opening.map
            yield _Heading(lines[first], lines[behind], int(opening.tag[1:]), _as_text(content.content))


@lru_cache(maxsize=1)
def _markdown() -> Any:
    from markdown_it import MarkdownIt

    markdown = MarkdownIt("commonmark")
    markdown.core.ruler.enableOnly(["normalize", "block"])  # inline markup does not matter
    markdown.block.ruler.before("code", "give_way", _give_way)
    return markdown


def _give_way(*_: Any) -> bool:
    """A parser rule that matches no block, but runs before each, so that a long parse gives way."""
    slices.give_way()
    return False


_LINK = re.compile(r"!?\[([^\]\[]*)\](?:\([^()]*\)|\[[^\]\[]*\])")
_MARKS = re.compile(r"[*`]+|(?<!\w)_+|_+(?!\w)|\{[#:][^{}]*\}")


def _as_text(title: str) -> str:
    return _short(_MARKS.sub("", _LINK.sub(r"\1", title[: 4 * TITLE_CHARACTERS])))


def _short(title: str) -> str:
    return " ".join(title.split())[:TITLE_CHARACTERS]


# reStructuredText


_RULE = re.compile(r"([!-/:-@\[-`{-~])\1+\s*")


def _of_rst(text: str) -> Iterator[_Heading]:
    """Yield titles. Their levels are the styles of their lines, in the order in which these first appear.

    https://docutils.sourceforge.io/docs/ref/rst/restructuredtext.html#sections
    """
    lines = _NEWLINE.split(text)
    starts = _line_starts(text, 0)
    styles: list[tuple[str, bool]] = []
    number = 0
    while number < len(lines) - 1:
        over = _RULE.fullmatch(lines[number])
        title = lines[number + 1] if over else lines[number]
        last = number + (2 if over else 1)
        under = _RULE.fullmatch(lines[last]) if last < len(lines) else None
        if (
            under is not None
            and title.strip()
            and not _RULE.fullmatch(title)
            and (over[1] == under[1] if over else not title[0].isspace())
            and len(under[0].rstrip()) >= len(title.strip())
            and (number == 0 or not lines[number - 1].strip())
        ):
            style = (under[1], over is not None)
            if style not in styles:
                styles.append(style)
            name = _short(title.replace("`", "").replace("*", ""))
            yield _Heading(starts[number], starts[last + 1], styles.index(style) + 1, name)
            number = last + 1
        else:
            number += 1


_NEWLINE = re.compile(r"\r\n?|\n")


def _line_starts(text: str, begin: int) -> list[int]:
    """Return the offset of each line, and of the text's end."""
    return [begin, *(match.end() for match in _NEWLINE.finditer(text, begin)), len(text)]
