"""Which name was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from ..errors import NotFound

ALIKE = 0.7  # of 1; below that, names have little more than letters in common


def suggest(error: NotFound, names: Iterable[str]) -> None:
    """Has the error of a collection that is not there tell the names like its own; `names` are those that the caller may know."""
    name = error.details.get("collection")
    if not isinstance(name, str):
        return
    # Of the project that was named only: another's collection says the same whether it is there or not.
    project = name.rpartition("/")[0]
    known = {
        known.casefold(): known for known in names if known.rpartition("/")[0] == project and known != name
    }
    near = [known[one] for one in difflib.get_close_matches(name.casefold(), known, n=3, cutoff=ALIKE)]
    if near:
        error.message = f"no collection {name!r}: did you mean {' or '.join(map(repr, near))}?"
        error.args = (error.message,)
        error.details["near"] = near
