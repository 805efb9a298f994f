"""Names of collections, which are local to a project. Another project's is written `project/name`."""

from __future__ import annotations

from typing import NamedTuple

from ..errors import NotFound
from .caller import Caller


class QualifiedName(NamedTuple):
    """A collection's name with its project, as storage knows it."""

    project: str
    name: str

    def __str__(self) -> str:
        return f"{self.project}/{self.name}"

    def shown_to(self, caller: Caller) -> str:
        """The name as this caller writes it."""
        return self.name if self.project == caller.project else str(self)


def qualified(name: str, caller: Caller) -> QualifiedName:
    """The collection that a caller means by a name."""
    project, _, own = name.rpartition("/")
    return QualifiedName(project or caller.project, own)


def missing(name: str) -> NotFound:
    """The error for a missing collection, and equally for one that the caller must not know of."""
    made = (
        "another project makes and shares it" if "/" in name else "an ingest or create_collection makes one"
    )
    return NotFound(
        f"no collection {name!r}: list_collections (`llmbackend collections`) shows which there are; {made}",
        details={"collection": name},
    )
