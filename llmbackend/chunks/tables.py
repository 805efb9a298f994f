"""Markdown tables within a text: cut between rows, each part with the names of the columns."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from .tokens import tokens_of

_RULE = re.compile(r"[ \t]*\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*")
_LINE = re.compile(r"[^\n]*\n|[^\n]+")


class Part(NamedTuple):
    """Some lines of a text: a table with its head, or, without a head, anything else."""

    head: str
    body: str


def parts(text: str) -> Iterator[Part]:
    """A text's tables, and what stands between them, in their order; together they are the text."""
    lines = _LINE.findall(text)  # `splitlines` would cut rows at other characters, too
    start = number = 0
    while number + 1 < len(lines):
        if not _begins_table(lines[number], lines[number + 1]):
            number += 1
            continue
        if number > start:
            yield Part("", "".join(lines[start:number]))
        end = number + 2
        while end < len(lines) and "|" in lines[end]:
            end += 1
        yield Part("".join(lines[number : number + 2]), "".join(lines[number + 2 : end]))
        start = number = end
    if start < len(lines):
        yield Part("", "".join(lines[start:]))


def _begins_table(line: str, following: str) -> bool:
    rule = following.rstrip("\r\n")
    return "|" in line and "|" in rule and "-" in rule and _RULE.fullmatch(rule) is not None


def split(part: Part, size: int, split_text: Callable[[str, int], list[str]], before: str = "") -> list[str]:
    """A table in pieces of at most `size` tokens, each with its head; `split_text` cuts a row that is too long.

    The first piece begins with the text `before`. A head that leaves little room for rows is not repeated.
    """
    head = part.head if 2 * len(tokens_of(part.head)) <= size else ""
    rows = _LINE.findall(part.body)
    if not head:
        rows = [*_LINE.findall(part.head), *rows]
    room = size - len(tokens_of(head))
    left = room - len(tokens_of(before))
    pieces: list[str] = []
    lines = [before + head]
    for row in rows:
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
