"""The journal of a run: the results of its calls, so that a run whose process was killed repeats none of them.

The agent is restarted from its beginning, and its calls of models and tools are answered from the journal as far as it
goes. So any agent can be resumed, however it is written, as long as it makes the same calls again.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from typing import Any

from ..jobs.context import Context


class Journal:
    """A journal in memory, for a run that ends with its call."""

    def __init__(self, rows: list[dict[str, Any]] | None = None) -> None:
        self._times: Counter[str] = Counter()
        self.rows: dict[str, dict[str, Any]] = {row["key"]: row for row in rows or () if "key" in row}

    def key(self, kind: str, given: Any) -> str:
        """The key of a call; repeats of the same call get keys of their own."""
        said = json.dumps([kind, given], sort_keys=True, default=str, ensure_ascii=False)
        digest = hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        self._times[digest] += 1
        return f"{digest}.{self._times[digest]}"

    async def save(self, row: dict[str, Any]) -> None:
        self.rows[row["key"]] = row

    def progress(self, done: int, total: int, stage: str) -> None:
        """Report progress; only jobs show it."""


class JobJournal(Journal):
    """The journal of a run that is a job, kept in the rows of its result."""

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
