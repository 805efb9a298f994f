"""What drawings are made of. A drawing is a list of blocks; how they look as HTML and as text is told once for all.

Nothing in here is HTML: whatever a result holds goes through as text, and is escaped in one place (`as_html`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

# Within a line


@dataclass(frozen=True)
class Span:
    """Some of a line that is shown in a way of its own."""

    kind: Literal["strong", "muted", "mark", "code", "id", "good", "bad", "warn", "pill"]
    content: Line


@dataclass(frozen=True)
class Bar:
    """How much of a whole something is, from 0 to 1. What it says is to be told in words beside it."""

    share: float
    tone: Literal["plain", "good", "bad"] = "plain"
    colour: str | None = None


@dataclass(frozen=True)
class Break:
    """A new line within a line, such as a cell of a table."""


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
    """Text as it stands somewhere: its lines and spaces are kept."""

    content: Line


@dataclass(frozen=True)
class Markdown:
    """What a model wrote."""

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
    """Columns of numbers, which stand at the right."""
    faint: frozenset[int] = frozenset()
    """Rows that count less than the others."""

    def without_empty(self) -> Table:
        """The same without columns that nothing is in."""
        kept = [column for column in range(len(self.heads)) if any(row[column] for row in self.rows)]
        return Table(
            [self.heads[column] for column in kept],
            [[row[column] for column in kept] for row in self.rows],
            frozenset(number for number, column in enumerate(kept) if column in self.numbers),
            self.faint,
        )


@dataclass(frozen=True)
class Facts:
    """Names and values, below each other."""

    rows: Sequence[tuple[str, Line]]


@dataclass(frozen=True)
class Fold:
    """What unfolds once somebody wants to see it."""

    title: Line
    blocks: Drawing
    open: bool = False
    in_text: bool = True
    """Whether a terminal, where nothing unfolds, shows it, too."""


@dataclass(frozen=True)
class Card:
    """One of several things that have text in them."""

    title: Line
    blocks: Drawing


Block = Paragraph | Passage | Markdown | Bullets | Table | Facts | Fold | Card
Drawing = Sequence[Block]
