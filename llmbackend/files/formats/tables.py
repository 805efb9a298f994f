"""Writes tables as text. Each row repeats its column names, because a search may find it without the table's header."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, takewhile, zip_longest
from typing import Any

from ..parsed import at_most

COLUMNS = 2**14
"""Most cells of a row, as in Excel."""
SAMPLE = 100
"""Rows examined to decide whether a table has a header."""

_NUMBER = re.compile(r"[-+(]?[$€£¥]?\s?\d[\d.,' \u00a0]*(?:[eE][-+]?\d+)?\s?[%€$£¥)]?")
_DATE = re.compile(r"\d{1,4}[-./]\d{1,2}[-./]\d{1,4}(?:[T ]\d{1,2}:\d{2}.*)?|\d{1,2}:\d{2}(?::\d{2})?")
_YEAR = re.compile(r"(?:1[89]|20|21)\d\d")


def records(rows: Iterable[Sequence[str]]) -> str:
    """Write rows as `name: value` lines, with a blank line between rows; without a header, rows as they are."""
    filled = _Filled([" ".join(cell.split()) for cell in row] for row in _not_too_wide(rows))
    sample = filled.ahead(SAMPLE)
    if not sample:
        return ""
    width = _width(sample)
    full = next(number for number, row in enumerate(sample) if _used(row) >= width)
    preamble, table = sample[:full], sample[full:]
    told: list[str] = []
    head: Sequence[str] | None = None
    if _names_rows(preamble, table, width):
        filled.skip(1)
        head = ["", *preamble[0]]
    else:
        told += map(_line, filled.skip(full))
        if _has_head(table, width):
            head = _named(filled)
            if not filled.ahead(1):
                told.append(_line(head))
    for row, begins_block in filled:
        if (
            begins_block
            and head is not None
            and _is_another_head(block := [row, *filled.ahead(BLOCK, within=True)])
        ):
            head = _named(filled, block[0])
            continue
        told.append(_record(head, row))
    return "\n\n".join(told)


BLOCK = 20
"""Rows after an empty one that are examined to decide whether another table begins."""


class _Filled:
    """The non-empty rows, each with whether an empty one preceded it; some can be examined in advance."""

    def __init__(self, rows: Iterable[list[str]]) -> None:
        self._rows = iter(rows)
        self._behind_empty = False
        self._held: deque[tuple[list[str], bool]] = deque()

    def __iter__(self) -> Iterator[tuple[list[str], bool]]:
        while self._held or self.ahead(BLOCK):
            yield self._held.popleft()

    def ahead(self, count: int, *, within: bool = False) -> list[list[str]]:
        """The next rows; with `within` only those before the next empty row."""
        while len(self._held) < count and (row := next(self._rows, None)) is not None:
            if any(row):
                self._held.append((row, self._behind_empty))
            self._behind_empty = not any(row)
        held = islice(self._held, count)
        return [row for row, _ in (takewhile(lambda one: not one[1], held) if within else held)]

    def skip(self, count: int) -> list[list[str]]:
        return [self._held.popleft()[0] for _ in range(count)]


def _named(rows: _Filled, first: Sequence[str] | None = None) -> Sequence[str]:
    """The column names; a second row may extend them: "2024" above "Q1" is "2024 Q1"."""
    head = list(first if first is not None else rows.skip(1)[0])
    below = rows.ahead(BLOCK, within=True)
    if len(below) < 2 or any(map(_kind, below[0])) or _used(below[0]) < 2 or _votes(below) <= 0:
        return head
    names = head[1:]
    if len(set(names)) == len(names) and all(names):
        return head
    [further] = rows.skip(1)
    for number, name in enumerate(further[1 : len(head)], 1):
        if name and not head[number]:
            head[number] = head[number - 1]  # a name for several columns is only in the first of them
    pairs = zip_longest(head, further, fillvalue="")
    return [" ".join(dict.fromkeys(filter(None, pair))) for pair in pairs]


def _is_another_head(block: Sequence[Sequence[str]]) -> bool:
    return len(block) > 1 and _used(block[0]) > 1 and not any(map(_kind, block[0])) and _votes(block) > 0


def _not_too_wide(rows: Iterable[Sequence[str]]) -> Iterator[Sequence[str]]:
    for row in rows:
        at_most(COLUMNS, len(row), "columns")
        yield row


def _used(row: Sequence[str]) -> int:
    """The row up to its last non-empty cell."""
    return max((number for number, cell in enumerate(row, 1) if cell), default=0)


def _width(rows: Sequence[Sequence[str]]) -> int:
    """The most frequent number of columns; of equally frequent ones the larger."""
    counted = Counter(map(_used, rows))
    return max(counted, key=lambda width: (counted[width], width))


def _names_rows(above: Sequence[Sequence[str]], table: Sequence[Sequence[str]], width: int) -> bool:
    """Whether the row above a table is its header, with no name for the first column, as R writes it."""
    return (
        len(above) == 1
        and width > 2
        and len(above[0]) == width - 1
        and all(above[0])
        and not any(map(_kind, above[0]))
        and all(_used(row) == width for row in table)
        and _votes(table) <= 0
    )


def _line(row: Sequence[str]) -> str:
    return ", ".join(filter(None, row))


def _record(head: Sequence[str] | None, row: Sequence[str]) -> str:
    if head is None:
        return _line(row)
    names = [*head, *[""] * (len(row) - len(head))]
    named = zip(names, row, strict=False)
    return "\n".join(f"{name}: {cell}" if name else cell for name, cell in named if cell)


def _kind(cell: str) -> str:
    """Return the kind of a cell's value, if it is not plain text: then it is data, not a name."""
    if _DATE.fullmatch(cell):
        return "date"
    if _NUMBER.fullmatch(cell):
        return "number"
    return ""


def _has_head(table: Sequence[Sequence[str]], width: int) -> bool:
    """Return whether the first row is a header. If in doubt, it is, unless all of it is data."""
    if max(width, _used(table[0])) < 2:
        return False
    votes = _votes(table)
    return votes > 0 if votes else not all(map(_kind, filter(None, table[0])))


def _votes(table: Sequence[Sequence[str]]) -> int:
    """In how many more columns the first row is a name than data, judged by the cells below.

    Text above numbers, or a number above text, is a name. A number above numbers is data, unless it is a year and they
    are not. A text that recurs in its column is data.
    """
    head, *body = table
    votes = 0
    for number, name in enumerate(head):
        column = [row[number] for row in body if number < len(row) and row[number]]
        if not name or not column:
            continue
        kind, below = _kind(name), _most(column)
        if kind and below:
            is_label = _YEAR.fullmatch(name) and not all(map(_YEAR.fullmatch, column))
            votes += 1 if is_label else -1
        elif kind or below:
            votes += 1
        elif len(column) > 1 and name in column:
            votes -= 1
    return votes


def _most(column: Sequence[str]) -> str:
    """The kind of most cells."""
    [(kind, _)] = Counter(map(_kind, column)).most_common(1)
    return kind


# Files of separated values


SEPARATORS = ",;\t|"
DIALECT_ROWS = 200
"""Rows read to determine the separator."""


def separated(text: str) -> Iterator[Sequence[str]]:
    """The rows of a CSV file with any separator; a quotation mark that is never closed loses none."""
    import csv
    import io

    csv.field_size_limit(2**30)
    if announced := re.match(r"sep=(.)\r?\n", text):  # Excel's
        text, separators = text[announced.end() :], announced[1]
    else:
        separators = SEPARATORS
    escaped = '\\"' in text and '""' not in text.replace('\\"', "")

    quote = "'" if '"' not in text and _IN_SINGLE_QUOTES.search(text) else '"'

    def read(separator: str, quoting: Any = csv.QUOTE_MINIMAL) -> Iterator[list[str]]:
        return csv.reader(
            io.StringIO(text, newline=""),
            delimiter=separator,
            quoting=quoting,
            quotechar=quote,
            doublequote=not escaped,
            escapechar="\\" if escaped else None,
            skipinitialspace=True,
            strict=False,
        )

    best = max(separators, key=lambda one: _consistency(list(islice(read(one), DIALECT_ROWS)), one))
    rows = list(_not_too_wide(read(best)))
    if rows and _swallowed(rows[-1], text):
        return read(best, csv.QUOTE_NONE)
    return iter(rows)


_IN_SINGLE_QUOTES = re.compile(r"(?m)(?:^|[,;\t|])[ ]?'[^'\n]*[,;\t|][^'\n]*'(?=[,;\t|]|\r?$)")


def _consistency(rows: Sequence[Sequence[str]], separator: str) -> tuple[float, int]:
    """Return how well a separator explains some rows: by equal numbers of cells, and by other separators inside the cells.

    A decimal comma does not count as a separator.
    """
    if any(len(row) > COLUMNS for row in rows):  # a file for which this is the best explanation is refused
        return 0.5, -SEPARATORS.find(separator)
    filled = [row for row in rows if any(cell.strip() for cell in row)]
    if not filled:
        return 0.0, 0
    [(width, count)] = Counter(map(len, filled)).most_common(1)
    if width < 2:
        return 0.0, -SEPARATORS.find(separator)
    others = set(SEPARATORS) - {separator}
    cells = [cell for row in filled for cell in row]
    whole = sum(1 for cell in cells if not others & set(cell) or _kind(cell.strip()))
    return count / len(filled) * whole / len(cells), -SEPARATORS.find(separator)


def _swallowed(last: Sequence[str], text: str) -> bool:
    """Whether the last cell spans many lines to the end, because its quotation mark is never closed."""
    cell = last[-1] if last else ""
    return (
        cell.count("\n") > 1
        and not text.rstrip().endswith('"')
        and text.rstrip().endswith(cell.rstrip()[-50:])
    )
