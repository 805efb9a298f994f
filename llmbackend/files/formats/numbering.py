"""Counts the numbers of Word's headings and lists, which the file does not contain: Word counts when it shows them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"


class _Level(NamedTuple):
    start: int
    format: str
    shape: str


class Numbering:
    """Counts the paragraphs of one document in order."""

    def __init__(self, trees: Iterable[Any]) -> None:
        self._lists: dict[str, tuple[str, dict[int, _Level]]] = {}
        self._counts: dict[str, dict[int, int]] = {}
        self._restarted: set[tuple[str, int]] = set()
        self._overridden: dict[str, set[int]] = {}
        for tree in trees:
            if tree is not None:
                self._read(tree)

    def _read(self, tree: Any) -> None:
        shapes = {
            one.get(f"{_W}abstractNumId"): {
                number: level for number, level in map(_level, one.iter(f"{_W}lvl"))
            }
            for one in tree.iter(f"{_W}abstractNum")
        }
        for one in tree.iter(f"{_W}num"):
            shape = _said(one, "abstractNumId")
            levels = dict(shapes.get(shape, {}))
            changed: set[int] = set()
            for override in one.iter(f"{_W}lvlOverride"):
                number = _int(override.get(f"{_W}ilvl"), 0)
                for inner in override.iter(f"{_W}lvl"):
                    levels[number] = _level(inner)[1]
                start = _said(override, "startOverride")
                if start and number in levels:
                    levels[number] = levels[number]._replace(start=_int(start, 1))
                    changed.add(number)
            id = one.get(f"{_W}numId") or ""
            self._lists[id] = shape, levels
            self._overridden[id] = changed

    def label(self, own: Any, of_style: Any, *, in_heading: bool) -> str:
        """Return the next paragraph's number as Word shows it; empty if it has none, a bullet, or one that Markdown counts
        in the same way.
        """
        id = _said(own, "numId") or _said(of_style, "numId")
        if id not in self._lists:
            return ""
        shape, levels = self._lists[id]
        number = _int(_said(own, "ilvl") or _said(of_style, "ilvl"), 0)
        if number not in levels:
            return ""
        counts = self._counts.setdefault(shape, {})
        if number in self._overridden[id] and (id, number) not in self._restarted:
            self._restarted.add((id, number))
            counts.pop(number, None)
        counts[number] = counts.get(number, levels[number].start - 1) + 1
        for deeper in [level for level in counts if level > number]:
            del counts[deeper]
        if levels[number].format in ("bullet", "none") or (not in_heading and _is_plain(levels)):
            return ""

        def shown(found: re.Match[str]) -> str:
            level = int(found[1]) - 1
            told = levels.get(level)
            return shown_number(counts.get(level, told.start), told.format) if told else ""

        return re.sub(r"%(\d)", shown, levels[number].shape).strip()


def _is_plain(levels: dict[int, _Level]) -> bool:
    """Return whether all levels count 1., 2., 3., as Markdown does."""
    return all(
        level.format in ("bullet", "none")
        or (level.format == "decimal" and level.start == 1 and re.fullmatch(r"%\d\.", level.shape))
        for level in levels.values()
    )


def _level(node: Any) -> tuple[int, _Level]:
    format = _said(node, "numFmt") or "decimal"
    level = _Level(_int(_said(node, "start"), 1), format, _said(node, "lvlText"))
    return _int(node.get(f"{_W}ilvl"), 0), level


def _said(node: Any, name: str) -> str:
    found = node.find(f"{_W}{name}") if node is not None else None
    return "" if found is None else found.get(f"{_W}val", "")


def _int(value: str | None, otherwise: int) -> int:
    return int(value) if value and re.fullmatch(r"\d{1,9}", value) else otherwise


_ROMAN = ((1000, "m"), (900, "cm"), (500, "d"), (400, "cd"), (100, "c"), (90, "xc"), (50, "l"), (40, "xl"))
_ROMAN_BELOW_40 = ((10, "x"), (9, "ix"), (5, "v"), (4, "iv"), (1, "i"))


def shown_number(count: int, format: str) -> str:
    if format.endswith("Letter") and count > 0:
        shown = chr(ord("a") + (count - 1) % 26) * min(1 + (count - 1) // 26, 9)
    elif format.endswith("Roman") and 0 < count < 4000:
        shown, left = "", count
        for value, letters in (*_ROMAN, *_ROMAN_BELOW_40):
            shown += letters * (left // value)
            left %= value
    elif format == "decimalZero":
        shown = f"{count:02d}"
    else:
        shown = str(count)
    return shown.upper() if format.startswith("upper") else shown
