"""Suggests names that may be meant by a misspelt one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

ALIKE = 0.7
"""The least ratio by difflib: names below it only happen to share letters."""


def alike(name: str, names: Iterable[str]) -> list[str]:
    """Return up to three similar names, nearest first, ignoring case; a file's name is similar to its whole path."""
    known: dict[str, str] = {}
    for one in names:
        known.setdefault(one.casefold(), one)
        known.setdefault(one.rpartition("/")[2].casefold(), one)
    near = difflib.get_close_matches(name.casefold(), known, n=6, cutoff=ALIKE)
    return list(dict.fromkeys(known[one] for one in near))[:3]


def did_you_mean(names: Sequence[str]) -> str:
    """Return `did you mean 'a' or 'b'?`."""
    return f"did you mean {' or '.join(map(repr, names))}?"
