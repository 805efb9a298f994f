"""Splits Markdown tables between rows, and repeats their head in each part."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import chain
from typing import NamedTuple

from .. import slices
from .tokens import tokens_of
from .windows import PART_CHARACTERS

_RULE = re.compile(r"[ \t]*\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*")


class Part(NamedTuple):
    """Some lines of a text: a table with its head, or anything else, which has no head."""

    head: str
    body: str


def parts(text: str) -> Iterator[Part]:
    """Yield a text's tables, and what is between them, in order; joined, they are the text."""
    start = place = 0
    while (bar := text.find("|", place)) >= 0:
        slices.give_way()
        first = max(place, text.rfind("\n", place, bar) + 1)
        rule = place = _line_end(text, bar)
        body = end = _line_end(text, rule)
        if not _is_rule(text[rule:body]):
            continue
        if first > start:
            yield Part("", text[start:first])
        while "|" in text[end : (behind := _line_end(text, end))]:
            slices.give_way()
            end = behind
        yield Part(text[first:body], text[body:end])
        start = place = end
    if start < len(text):
        yield Part("", text[start:])


def _line_end(text: str, place: int) -> int:
    return text.find("\n", place) + 1 or len(text)  # `splitlines` would also split at other characters


def _lines(text: str) -> Iterator[str]:
    place = 0
    while place < len(text):
        begin, place = place, _line_end(text, place)
        yield text[begin:place]


def _is_rule(line: str) -> bool:
    rule = line.rstrip("\r\n")
    return "|" in rule and "-" in rule and len(rule) <= PART_CHARACTERS and _RULE.fullmatch(rule) is not None


def split(part: Part, size: int, split_text: Callable[[str, int], list[str]], before: str = "") -> list[str]:
    """Split a table into pieces of at most `size` tokens, each with its head; `split_text` splits a row that is too long.

    The first piece begins with the text `before`. A head that leaves little room for rows is not repeated.
    """
    head = part.head if 2 * len(tokens_of(part.head)) <= size else ""
    rows = _lines(part.body) if head else chain(_lines(part.head), _lines(part.body))
    room = size - len(tokens_of(head))
    left = room - len(tokens_of(before))
    pieces: list[str] = []
    lines = [before + head]
    for row in rows:
        slices.give_way()
        count = len(tokens_of(row))
        if count > left and len(lines) > 1:
            pieces.append("".join(lines))
            lines, left = [head], room
        if count > left:
            pieces += (f"{lines[0]}{piece}" for piece in split_text(row, left))
            lines, left = [head], room
        else:
            lines.append(row)
            left -= count
    if len(lines) > 1 or not pieces:
        pieces.append("".join(lines))
    return [piece.strip() for piece in pieces]
