"""The parts of drawings. A drawing is a list of blocks; `as_html` and `as_text` define how each kind of block
looks.

Nothing here is HTML: the content of results stays text, and is escaped in one place (`as_html`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

# Within a line


@dataclass(frozen=True)
class Span:
    """A part of a line with its own style."""

    kind: Literal["strong", "muted", "mark", "code", "id", "good", "bad", "warn", "pill"]
    content: Line


@dataclass(frozen=True)
class Bar:
    """A bar for a share of a whole, from 0 to 1. The value should also be given in words beside it."""

    share: float
    tone: Literal["plain", "good", "bad"] = "plain"
    colour: str | None = None


@dataclass(frozen=True)
class Break:
    """A line break within a line, such as in a cell of a table."""


Line = str | Span | Bar | Break | Sequence["Line"]


def strong(*content: Line) -> Span:
    return Span("strong", content)


def muted(*content: Line) -> Span:
    return Span("muted", content)


def code(*content: Line) -> Span:
    return Span("code", content)


# Blocks


@dataclass(frozen=True)
class Paragraph:
    content: Line


@dataclass(frozen=True)
class Passage:
    """Text whose line breaks and spaces are kept."""

    content: Line


@dataclass(frozen=True)
class Markdown:
    """Text that a model wrote."""

    text: str


@dataclass(frozen=True)
class Bullets:
    items: Sequence[Line]
    numbers: Sequence[int] = ()


@dataclass(frozen=True)
class Table:
    heads: Sequence[str]
    rows: Sequence[Sequence[Line]]
    numbers: frozenset[int] = frozenset()
    """Columns of numbers, which are aligned right."""
    faint: frozenset[int] = frozenset()
    """Rows that are less important than the others."""

    def without_empty(self) -> Table:
        """The same table without empty columns."""
        kept = [column for column in range(len(self.heads)) if any(row[column] for row in self.rows)]
        return Table(
            [self.heads[column] for column in kept],
            [[row[column] for column in kept] for row in self.rows],
            frozenset(number for number, column in enumerate(kept) if column in self.numbers),
            self.faint,
        )


@dataclass(frozen=True)
class Facts:
    """Names and values, one pair per line."""

    rows: Sequence[tuple[str, Line]]


@dataclass(frozen=True)
class Fold:
    """A title with blocks that are shown when it is opened."""

    title: Line
    blocks: Drawing
    open: bool = False
    in_text: bool = True
    """Whether the blocks are also shown in a terminal, where nothing can be opened."""


@dataclass(frozen=True)
class Card:
    """A title with blocks, set apart from its neighbours."""

    title: Line
    blocks: Drawing


Block = Paragraph | Passage | Markdown | Bullets | Table | Facts | Fold | Card
Drawing = Sequence[Block]
