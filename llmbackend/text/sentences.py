"""Finds the sentences and word stems of a text."""

from __future__ import annotations

import re

from . import scanning
from .words import is_run, pairs, plain, words

# A sentence ends after a full stop (but not in J. Smith, Dr. Smith, e.g.), also before a closing quotation mark or bracket
# if what follows begins with a capital letter, at an empty line, and before a list item,
# heading, table row or directive; not at every line end, which means nothing in wrapped prose.
_BOUNDARY = re.compile(
    r"(?<=[.!?])(?<!\A\d\.)(?<!\n\d\.)(?<!\n\d\d\.)(?<![\s.(][A-Za-z]\.)(?<!\b[MDSN][rst]\.)(?<!\bMrs\.)\s+|(?<=[。！？])\s*"
    r"|(?:(?<=[.!?][\"'”’»)\]])|(?<=[.!?][\"'”’»)\]]{2}))\s+(?=[\"'“„‘«(\[]?[A-ZÀ-ÖØ-Þ])"
    # White space is matched from its beginning only, else each of its characters would be tried.
    r"|(?<!\s)\s*\n\s*\n\s*|(?<!\s)\s*\n(?=\s*(?:[-*#|+=~]|\d+[.)]\s|\.\. ))"
)
# A full stop after one of these ends no sentence if what follows it goes on: 12. Mai, 27. jedes Monats, ext. 4417, bzw. Kosten.
_NUMBER = re.compile(r"(?<![\w.,])\d{1,2}\.\Z", re.ASCII)
_ABBREVIATION = re.compile(
    r"\b(?:abs|approx|art|ext|fig|max|min|nos?|pp?|sec|str|tel|vol)\.\Z", re.IGNORECASE
)
_NEVER_LAST = re.compile(r"\b(?:bzw|ca|evtl|ggf|inkl|nr|vgl|zzgl)\.\Z", re.IGNORECASE)
_MONTH = re.compile(r"(?:Jan|Feb|Mär|Apr|Mai|Jun|Jul|Aug|Sep|Okt|Nov|Dez)[a-zä]*")
_BEHIND = 12
"""Characters before a boundary that are looked at: the longest abbreviation, and what is before it."""
# Lines that stand alone, whatever is above and below them: Markdown's headings, rules and table rows.
_BLOCK_LINE = re.compile(
    r"^[ \t]*(#{1,6}(?:[ \t][^\r\n]*)?|\|[^\r\n]*\||([=\-~^\"*+_])\2{2,})[ \t\r]*$", re.MULTILINE
)
_HEADING = re.compile(r"[ \t]*#{1,6}\s")
# fmt: off
_COMMON = frozenset((
    "and", "are", "but", "can", "does", "for", "from", "get", "has", "have", "how", "into", "its", "many", "much",
    "not", "our", "out", "that", "the", "their", "there", "this", "was", "were", "what", "when", "where", "which",
    "who", "why", "will", "with", "you", "your",
))
# fmt: on


def sentences(text: str) -> list[tuple[int, int]]:
    """Return start and end of each sentence or line in the text. A heading is a sentence by itself."""
    spans: list[tuple[int, int]] = []
    begin = 0
    for line in scanning.lines(_BLOCK_LINE, text):
        spans += _of_prose(text, begin, line.start())
        spans.append(line.span(1))
        begin = line.end()
    return spans + _of_prose(text, begin, len(text))


def is_heading(said: str) -> bool:
    """Return whether a sentence, or the line that it begins with, is a Markdown heading."""
    return _HEADING.match(said) is not None


def _of_prose(text: str, begin: int, end: int) -> list[tuple[int, int]]:
    if begin:
        begin += len(said := text[begin:end]) - len(said.lstrip())
    if end < len(text):
        end -= len(said := text[begin:end]) - len(said.rstrip())
    spans: list[tuple[int, int]] = []
    for match in scanning.matches(_BOUNDARY, text, begin, end):
        if _goes_on(text, match):
            continue
        if text[begin : match.start()].strip():
            spans.append((begin, match.start()))
        begin = match.end()
    if text[begin:end].strip():
        spans.append((begin, end))
    return spans


def _goes_on(text: str, boundary: re.Match[str]) -> bool:
    """Return whether a full stop is one of an abbreviation or an ordinal, which the text after it belongs to."""
    if not text.endswith(".", 0, boundary.start()) or boundary[0].count("\n") > 1:
        return False
    before, after = (
        text[max(0, boundary.start() - _BEHIND) : boundary.start()],
        text[boundary.end() : boundary.end() + _BEHIND],
    )
    if _NEVER_LAST.search(before) is not None:
        return True
    if _NUMBER.search(before) is not None:
        return after[:1].islower() or _MONTH.match(after) is not None
    return _ABBREVIATION.search(before) is not None and (after[:1].islower() or after[:1].isdigit())


def stems(text: str) -> set[str]:
    """Return a text's words, cut to six letters and without common ones, so that 'resets' and 'reset' are alike.

    In scripts without spaces, return each two neighbouring letters.
    """
    found: set[str] = set()
    for word in words(text):
        if is_run(word):
            found.update(pairs(word))
        elif len(word) > 2 and word not in _COMMON:
            found.add(plain(word)[:6])
    return found
