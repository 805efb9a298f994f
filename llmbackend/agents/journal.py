"""What the steps of a run gave, by which one that was killed goes on: nothing is asked twice.

An agent is begun anew, and what it asks of models and tools is answered from here as far as it was answered before. So
any agent can go on, whatever it is made of, if it asks the same questions again.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from typing import Any

from ..jobs.context import Context


class Journal:
    """In memory alone: of a run that ends with its call."""

    def __init__(self, rows: list[dict[str, Any]] | None = None) -> None:
        self._times: Counter[str] = Counter()
        self.rows: dict[str, dict[str, Any]] = {row["key"]: row for row in rows or () if "key" in row}

    def key(self, kind: str, given: Any) -> str:
        """Of the first, second, … time that this is asked."""
        said = json.dumps([kind, given], sort_keys=True, default=str, ensure_ascii=False)
        digest = hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        self._times[digest] += 1
        return f"{digest}.{self._times[digest]}"

    async def save(self, row: dict[str, Any]) -> None:
        self.rows[row["key"]] = row

    def progress(self, done: int, total: int, stage: str) -> None:
        """Tell how far the work is, where somebody may look."""


class JobJournal(Journal):
    """That of a run which is a job: rows of its result."""

    def __init__(self, context: Context, rows: list[dict[str, Any]], state: dict[str, Any]) -> None:
        super().__init__(rows)
        self._context = context
        self.state = state
        self._told = False

    def progress(self, done: int, total: int, stage: str) -> None:
        self._told = True
        self._context.progress(done, total, stage)

    async def save(self, row: dict[str, Any]) -> None:
        await super().save(row)
        self._context.results.append([row])
        if not self._told:
            self._context.progress(len(self.rows), 0, str(row.get("name", "")))
        await self._context.checkpoint({**self.state, "steps": len(self.rows)})
