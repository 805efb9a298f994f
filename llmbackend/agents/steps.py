"""The steps of a run, while they run and as the trace and the events show them."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from ..access.decision import NOTHING, Granted
from ..answers.links import Links, inert
from ..schemas import Step
from ..tracing import Trace

SHOWN = 500
"""Characters of a step's input and output that its trace and events show."""


class StepTrace(Trace):
    """A step's trace: models' usage counts for the step and for the call that it is a part of."""

    def __init__(self, root: Trace, granted: Granted = NOTHING) -> None:
        super().__init__(root.operation, root.request_id, root.caller, granted=granted)
        self.prompts = root.prompts
        self.of_run = True
        self._root = root

    def used(self, model: str, usage: Any = None, *, estimated: bool = False) -> None:
        super().used(model, usage, estimated=estimated)  # a step has no meter, so this is metered once
        self._root.used(model, usage, estimated=estimated)

    def prompted(self, label: str) -> None:
        super().prompted(label)
        self._root.prompted(label)

    def tells(self, with_each_piece: bool) -> None:
        self._root.tells(with_each_piece)

    async def asks(self) -> None:
        await self._root.asks()

    def replied(self) -> None:
        self._root.replied()

    def at_work(self, change: int) -> None:
        self._root.at_work(change)

    def wrote(self, chunks: int) -> None:
        self._root.wrote(chunks)


@dataclass(eq=False)
class Node:
    """A running or finished step."""

    number: int
    told: Step
    trace: StepTrace
    parent: Node | None
    began: float = field(default_factory=time.monotonic)
    own_tokens: int = 0
    kept_usage: Counter[str] = field(default_factory=Counter)
    """Usage of replies that did not fit, which is in the journal already."""

    @property
    def path(self) -> str:
        """The names from the root, such as `contracts > search`."""
        return f"{self.parent.path} > {self.told.name}" if self.parent else self.told.name

    @property
    def depth(self) -> int:
        return 0 if self.parent is None else self.parent.depth + (self.told.kind == "agent")


def shown(value: Any, links: Links = "keep") -> str | None:
    """The beginning of a value as text for the trace, without live links or images; None if it is empty."""
    if value is None or value == "":
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
    parts = _TAGS.split(text)
    return "".join(part if number % 2 else inert(part, links) for number, part in enumerate(parts))


_TAGS = re.compile(r'(</?(?:result|passage)(?: \w+="[\w./ -]*")*>)')
"""Our own tags around results, which are kept although they look like HTML."""
