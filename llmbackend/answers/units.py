"""Splits a passage of Markdown, reStructuredText or plain text into sentences, headings, list items, table rows and code."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Generator, Iterator
from itertools import pairwise
from typing import Literal, NamedTuple

from ..text.sentences import is_heading, sentences

Kind = Literal["sentence", "item", "step", "row", "code", "heading", "mark"]

TITLE_WORDS = 8
"""Most words of an unmarked line that counts as a heading."""

QUESTION_WORDS = 20
"""Most words of a question that counts as the heading of what is below it."""

LONGEST_PAGE = 40
"""Most characters of a line that may be a page number."""

_STEP = re.compile(r"\s*(?:#\.|\(?(?:\d{1,3}|[a-z])[.)])\s+(?=\S)")
_ITEM = re.compile(r"\s*[-*+•‣▪·–]\s+(?=\S)")
_PAGE = re.compile(r"\W*(?:page|seite|p\.)?\W*\d{1,4}(?:\s*(?:of|/|von)\s*\d{1,4})?\W*", re.IGNORECASE)
_UNDERLINE = re.compile(r"\s*([=\-~^\"'#*+`:.])\1{2,}\s*")
_EMPTY_LINE = re.compile(r"\n\s*?\n")
_LINK_LINE = re.compile(
    r"\s*(?:[-*+•]|\d{1,3}\.)?\s*!?\[[^\]\n]*\]\((?:#[^)\n]*|[^)\n]*\.(?:png|jpe?g|gif|svg))\)\W*"
)
_IMAGE = re.compile(
    r"[^\s/]+\.(?:png|jpe?g|gif|svg|webp)", re.IGNORECASE
)  # the description of an image in HTML, alone on its line
_END = '.!?:;,…。！？)"”’'
_NUMBERED = re.compile(
    r"(?:(?:section|article|chapter|part|clause|annex|appendix|kapitel|abschnitt|artikel|teil|anlage|§)\s*"
    r"(?:\d+[a-z]?|[ivxlc]+)(?:\.\d+)*|\d+(?:\.\d+)+)[.:]?\s+",
    re.IGNORECASE,
)
"""The beginning of a numbered title."""
_CODE = re.compile(r"[/\\$=<>{}`]|::|--")
_FENCE = re.compile(r"[ \t]*(?P<fence>`{3,}|~{3,})[ \t]*(?P<language>[^`\n]*)")

# reStructuredText: https://docutils.sourceforge.io/docs/ref/rst/restructuredtext.html
_EXPLICIT = re.compile(r"[ \t]*\.\.[ \t]+(?P<what>\S[^\n]*)")
_DIRECTIVE = re.compile(r"(?:\|[^|\n]+\|[ \t]+)?(?P<name>[\w:-]+?)::(?:[ \t]+(?P<argument>\S.*))?")
_FIELD = re.compile(r"[ \t]*:[\w-]+:(?:[ \t][^\n]*)?")
_ADMONITIONS = frozenset(
    ("attention", "caution", "danger", "error", "hint", "important", "note", "tip", "warning", "seealso")
)
_UNSEEN = frozenset(
    ("toctree", "raw", "image", "figure", "contents", "include", "index", "blockdiag", "seqdiag", "meta")
)
"""Directives without text, in themselves and in what is indented below them."""
_CODE_BELOW = re.compile(r"(?:code|code-block|sourcecode|literalinclude|prompt|parsed-literal)::")
_COLUMNS = re.compile(r"[ \t]*=+(?:[ \t]+=+)+[ \t]*")
_GRID = re.compile(r"[ \t]*\+(?:[-=]+\+)+[ \t]*")


class Unit(NamedTuple):
    """A sentence, heading, list item, table row or paragraph of code: `text[start:end]`."""

    start: int
    end: int
    kind: Kind
    block: int
    """The number of its paragraph, list or table."""
    stub: bool
    """Whether it ends in a colon or question mark and so introduces what comes next."""
    continues: bool = False
    """Whether it is a further sentence of the list item before it."""

    @property
    def tells(self) -> bool:
        """Whether it can answer a question."""
        return self.kind not in ("heading", "mark")


class _Span(NamedTuple):
    start: int
    end: int
    kind: Kind | None = None
    """None if the text decides."""


def units(text: str) -> list[Unit]:
    """Return a passage's units in order."""
    found: list[Unit] = []
    block = before = indent = 0
    for start, end, known in _spans(text):
        said = text[start:end]
        kind = known or _kind(said)
        last = found[-1] if found else None
        continues = (
            kind == "sentence"
            and last is not None
            and last.kind in ("item", "step")
            and ("\n" not in text[before:start] or _indent(text, start) > indent)
        )
        if last and continues:
            kind = last.kind
        elif kind in ("item", "step") and not (last and last.kind == kind):
            indent = _indent(text, start)
        if last and kind == "mark" and _UNDERLINE.fullmatch(said) and _is_line(text, last, start):
            found[-1] = last._replace(kind="heading")  # an underlined title, as in reStructuredText
        apart = _EMPTY_LINE.search(text, before, start) is not None
        of_table = last is not None and "row" in (kind, last.kind) and known is not None and not apart
        # Blank lines may separate the items of one list, and the paragraphs of code.
        if last and not of_table and (kind != last.kind or (apart and kind not in ("item", "step", "code"))):
            block += 1
        introduces = said.rstrip(" *_`\n").endswith((":", "：")) or (kind == "sentence" and is_question(said))
        stub = kind not in ("mark", "code") and introduces
        found.append(Unit(start, end, kind, block, stub, continues))
        before = end
    _name_titles(text, found)
    return found


def _indent(text: str, place: int) -> int:
    """Return how far the line of a place is indented."""
    line = text[text.rfind("\n", 0, place) + 1 : place + 1]
    return len(line) - len(line.lstrip())


def _name_titles(text: str, found: list[Unit]) -> None:
    """Turn unmarked titles into headings, and tables of contents into marks."""
    counted = Counter(unit.block for unit in found)
    lists: dict[int, list[int]] = {}
    blocks = 0
    """The number of blocks that headings have divided so far."""
    for index, unit in enumerate(found):
        said = text[unit.start : unit.end].strip()
        kind = unit.kind
        if kind in ("item", "step"):
            lists.setdefault(unit.block, []).append(index)
        elif kind == "sentence" and index + 1 < len(found):
            # The question of an FAQ, above its answer, or a title alone on its line.
            starts_line = not index or "\n" in text[found[index - 1].end : unit.start]
            asks = starts_line and is_question(said) and len(said.split()) <= QUESTION_WORDS
            if asks or (counted[unit.block] == 1 and _like_a_title(said)):
                kind = "heading"
        before = found[index - 1] if index else None
        if (
            before
            and unit.block + blocks == before.block
            and (kind == "heading") != (before.kind == "heading")
        ):
            blocks += 1
        found[index] = unit._replace(kind=kind, block=unit.block + blocks)
    for places in lists.values():
        items = [_ITEM.sub("", text[found[place].start : found[place].end]) for place in places]
        asks_some = any(map(is_question, items)) and not all(map(is_question, items))
        if asks_some and all(is_question(item) or _like_a_title(item) for item in items):
            for place in places:
                found[place] = found[place]._replace(kind="mark")


def is_question(said: str) -> bool:
    return said.rstrip(" *_").endswith(("?", "？", "؟"))


def _spans(text: str) -> Iterator[_Span]:
    """Yield sentences and lines, with a kind if the syntax decides it."""
    start = 0
    for span in _of_rst(text):
        yield from _prose(text, start, span.start)
        yield from _trimmed(text, span)
        start = span.end
    yield from _prose(text, start, len(text))


def _prose(text: str, begin: int, stop: int) -> Iterator[_Span]:
    for start, end in sentences(text[begin:stop]):
        yield from _trimmed(text, _Span(begin + start, begin + end))


def _trimmed(text: str, span: _Span) -> Iterator[_Span]:
    said = text[span.start : span.end]
    if stripped := said.strip():
        start = span.start + said.index(stripped[0])
        yield span._replace(start=start, end=start + len(stripped))


class _Line(NamedTuple):
    start: int
    end: int
    indent: int
    """-1 for an empty line."""


def _of_rst(text: str) -> Iterator[_Span]:
    """Yield the directives, labels, rules and tables of reStructuredText, and code, also as Markdown has it."""
    lines = [_line(found) for found in re.finditer(r"[^\n]+|(?<=\n)(?=\n)", text)]
    fences = _fences(text, lines)
    number = 0
    while number < len(lines):
        line = lines[number]
        if (last := fences.get(number)) is not None:
            yield _Span(line.start, line.end, "mark")
            yield from _code(lines[number + 1 : last])
            yield _Span(lines[last].start, lines[last].end, "mark")
            number = last + 1
        elif explicit := _EXPLICIT.fullmatch(text, line.start, line.end):
            hidden, said = _explicit(explicit)
            number += 1
            while number < len(lines) and (
                _FIELD.fullmatch(text, lines[number].start, lines[number].end)
                or (hidden and not 0 <= lines[number].indent <= line.indent)
            ):
                number += 1
            kind, start = said or (None, line.end)
            yield _Span(line.start, start, "mark")
            if kind:
                yield _Span(start, line.end, kind)
            if start == line.end or kind:
                yield _Span(line.end, lines[number - 1].end, "mark")
            if _CODE_BELOW.match(explicit["what"]):
                number = yield from _indented(lines, number, line.indent)
        elif _COLUMNS.fullmatch(text, line.start, line.end):
            number = yield from _table(text, lines, number, _COLUMNS)
        elif _GRID.fullmatch(text, line.start, line.end):
            number = yield from _table(text, lines, number, _GRID)
        else:
            if _UNDERLINE.fullmatch(text, line.start, line.end):
                yield _Span(line.start, line.end, "mark")
            number += 1
            if text.endswith("::", line.start, line.end) and number < len(lines) and lines[number].indent < 0:
                number = yield from _indented(lines, number, line.indent)


def _fences(text: str, lines: list[_Line]) -> dict[int, int]:
    """Return for each line that opens code in Markdown the line that closes it.

    A passage may begin or end within code: then its first or last fence has no other.
    """
    found = [
        (number, fence)
        for number, line in enumerate(lines)
        if (fence := _FENCE.fullmatch(text, line.start, line.end))
    ]
    if len(found) % 2 and not found[0][1]["language"]:
        del found[0]
    pairs: dict[int, int] = {}
    opened: tuple[int, str] | None = None
    for number, fence in found:
        if opened is None:
            opened = number, fence["fence"]
        elif not fence["language"] and fence["fence"].startswith(opened[1]):
            pairs[opened[0]] = number
            opened = None
    return pairs


def _indented(lines: list[_Line], first: int, indent: int) -> Generator[_Span, None, int]:
    """Yield the code that is indented more than the line above it; return the number of the line after it."""
    last = first
    while last < len(lines) and not 0 <= lines[last].indent <= indent:
        last += 1
    yield from _code(lines[first:last])
    return last


def _code(lines: list[_Line]) -> Iterator[_Span]:
    """Yield the paragraphs of code."""
    start: int | None = None
    for line, after in pairwise([*lines, _Line(0, 0, -1)]):
        if line.indent >= 0:
            start = line.start if start is None else start
            if after.indent < 0:
                yield _Span(start, line.end, "code")
                start = None


def _line(found: re.Match[str]) -> _Line:
    said = found[0]
    return _Line(*found.span(), len(said) - len(said.lstrip()) if said.strip() else -1)


def _explicit(found: re.Match[str]) -> tuple[bool, tuple[Kind | None, int] | None]:
    """Return whether the indented block below a directive has no text, and the kind and start of the text on its line."""
    directive = _DIRECTIVE.fullmatch(found["what"])
    if directive is None:
        return False, None
    name, argument = directive["name"].lower(), directive["argument"]
    if not argument or name in _UNSEEN or name.startswith("code"):
        return name in _UNSEEN, None
    start = found.start("what") + directive.start("argument")
    # An admonition's text may begin on the line of its name.
    return False, (None if name in _ADMONITIONS else "heading", start)


def _table(text: str, lines: list[_Line], first: int, border: re.Pattern[str]) -> Generator[_Span, None, int]:
    """Yield the rows and borders of the table whose top border is line `first`; return the number of the line after it."""
    indent = lines[first].indent
    yield _Span(lines[first].start, lines[first].end, "mark")
    row = number = first + 1
    ends = False
    while number < len(lines) and not ends:
        line = lines[number]
        ruled = border.fullmatch(text, line.start, line.end) is not None
        behind = lines[number + 1].indent if number + 1 < len(lines) else -1
        ends = (ruled and behind < indent) or 0 <= line.indent < indent
        # A row begins after a border or, outside grids, if the first column has text.
        if row < number and (ruled or ends or (border is _COLUMNS and line.indent == indent)):
            yield _Span(lines[row].start, lines[number - 1].end, "row")
            row = number
        if ruled:
            yield _Span(line.start, line.end, "mark")
            row = number + 1
        if ruled or not ends:
            number += 1
    if row < number:
        yield _Span(lines[row].start, lines[number - 1].end, "row")
    return number


def _kind(said: str) -> Kind:
    line = said.strip()
    if is_heading(said):
        return "heading"
    if line.startswith("|") or (line.startswith("+") and line.endswith("+")):
        return "row"
    if not re.search(r"\w", line) or (len(line) <= LONGEST_PAGE and _PAGE.fullmatch(line)):
        return "mark"
    if _LINK_LINE.fullmatch(line) or _FIELD.fullmatch(line):
        return "mark"  # an entry of a table of contents, an image, or a field about the page
    if _IMAGE.fullmatch(line):
        return "mark"
    if _STEP.match(said):
        return "step"
    return "item" if _ITEM.match(said) else "sentence"


def _is_line(text: str, unit: Unit, following: int) -> bool:
    """Return whether the unit is one line, directly followed by the next."""
    between = text[unit.end : following]
    return (
        unit.kind in ("sentence", "step")
        and "\n" not in text[unit.start : unit.end]
        and between.count("\n") == 1
    )


def _like_a_title(said: str) -> bool:
    line = _NUMBERED.sub("", said.strip(), count=1) or said.strip()
    short = len(line.split()) <= TITLE_WORDS and "\n" not in line
    return short and line[-1] not in _END and not re.search(r"\d", line) and not _CODE.search(line)
