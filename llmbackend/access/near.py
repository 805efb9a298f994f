"""Suggesting similar names for a misspelt collection."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from ..errors import NotFound

ALIKE = 0.7  # difflib's ratio; names below it only share letters


def suggest(error: NotFound, names: Iterable[str]) -> None:
    """Add similar names to the error about a missing collection. `names` are those that the caller may know of."""
    name = error.details.get("collection")
    if not isinstance(name, str):
        return
    # Only names in the same project, so that the error does not reveal others' collections.
    project = name.rpartition("/")[0]
    known = {
        known.casefold(): known for known in names if known.rpartition("/")[0] == project and known != name
    }
    near = [known[one] for one in difflib.get_close_matches(name.casefold(), known, n=3, cutoff=ALIKE)]
    if near:
        error.message = f"no collection {name!r}: did you mean {' or '.join(map(repr, near))}?"
        error.args = (error.message,)
        error.details["near"] = near
