"""Finds the head of a table, and the rows that a question names by their labels: `| Carbon tripod | 219 EUR |`, or lines
`Product: Carbon tripod`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from ..text.sentences import stems
from .units import Unit

_PAIR = re.compile(r"[ \t]*([^:\n|]{1,60}):[ \t]+(\S[^\n]*)")
_RULED = re.compile(r"[\s|:+=-]*")


def named(question: str, text: str, parts: Sequence[Unit]) -> dict[int, bool]:
    """Map each row whose label is in the question to whether the name of one of its other columns is in it, too.

    Of "Tripod" and "Carbon tripod", only the latter counts if the question has it. `Name: value` lines count as a row if
    other rows begin with the same name, so the head of a letter does not.
    """
    asked = _names(question)
    found: dict[int, tuple[set[str], bool]] = {}
    head: list[str] = []
    rows = [_row(text[unit.start : unit.end]) if unit.tells else ([], []) for unit in parts]
    begun = Counter(columns[0] for columns, _ in rows if columns)
    for place, (unit, (columns, cells)) in enumerate(zip(parts, rows, strict=True)):
        if columns and begun[columns[0]] == 1:
            continue
        if unit.kind == "row" and (not place or parts[place - 1].block != unit.block):
            head = cells
            continue
        first = _labels(cells)
        labels = [names for cell in first if (names := _names(cell)) and names <= asked]
        if labels:
            said = set[str]().union(*labels)
            others = set[str]().union(*map(stems, (columns or head)[len(first) :]))
            found[place] = said, bool(others & asked - said)
    return {
        place: column
        for place, (said, column) in found.items()
        if not any(said < other for other, _ in found.values())
    }


def head(text: str, parts: Sequence[Unit], row: int) -> list[int]:
    """Return the indices of a table's rows down to the rule below its head, including that."""
    own = [index for index, unit in enumerate(parts) if unit.block == parts[row].block]
    # A rule below the last row does not count.
    rules = [one for one in own[1:-1] if not re.search(r"\w", text[parts[one].start : parts[one].end])]
    return [one for one in own if rules and one <= rules[0]]


def is_row(text: str, unit: Unit) -> bool:
    return unit.tells and bool(_row(text[unit.start : unit.end])[1])


def _row(said: str) -> tuple[list[str], list[str]]:
    """Return a row's column names, if it repeats them, and its cells; both are empty if it is not a row."""
    if said.startswith("|"):
        return [], [] if _RULED.fullmatch(said) else [cell.strip() for cell in said.strip("| \n").split("|")]
    lines = said.splitlines()
    pairs = [_PAIR.fullmatch(line) for line in lines]
    if len(lines) < 2 or not all(pairs):
        return [], []
    return [pair[1] for pair in pairs if pair], [pair[2] for pair in pairs if pair]


def _labels(cells: list[str]) -> list[str]:
    """Return the cells up to the first one with letters, because a row may begin with its number."""
    lettered = next((place for place, cell in enumerate(cells) if re.search(r"[^\W\d_]", cell)), 0)
    return cells[: lettered + 1]


def _names(said: str) -> set[str]:
    return stems(said) | set(re.findall(r"\d+", said))
