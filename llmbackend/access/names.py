"""A collection's name is its project's own. Callers write another project's as `project/name`."""

from __future__ import annotations

from typing import NamedTuple

from ..errors import NotFound
from .caller import Caller


class QualifiedName(NamedTuple):
    """What storage knows a collection by: without its project, there is no telling which is meant."""

    project: str
    name: str

    def __str__(self) -> str:
        return f"{self.project}/{self.name}"

    def shown_to(self, caller: Caller) -> str:
        """As this caller writes it."""
        return self.name if self.project == caller.project else str(self)


def qualified(name: str, caller: Caller) -> QualifiedName:
    """Which collection this caller means."""
    project, _, own = name.rpartition("/")
    return QualifiedName(project or caller.project, own)


def missing(name: str) -> NotFound:
    """The same for a collection that is not there and for one that is no business of the caller's."""
    return NotFound(
        f"no collection {name!r}: ingest documents into it, or create it", details={"collection": name}
    )
