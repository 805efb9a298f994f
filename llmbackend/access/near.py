"""Suggesting similar names for a misspelt collection."""

from __future__ import annotations

from collections.abc import Iterable

from ..alike import alike, did_you_mean
from ..errors import NotFound


def suggest(error: NotFound, names: Iterable[str]) -> None:
    """Add similar names to the error about a missing collection. `names` are those that the caller may know of."""
    name, names = error.details.get("collection"), list(names)
    if not isinstance(name, str) or name in names:  # then something else is missing, such as a share of it
        return
    # Only names in the same project, so that the error does not reveal others' collections.
    project = name.rpartition("/")[0]
    near = alike(name, [one for one in names if one.rpartition("/")[0] == project])
    if near:
        error.message = f"no collection {name!r}: {did_you_mean(near)}"
        error.args = (error.message,)
        error.details["near"] = near
