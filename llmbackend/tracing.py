"""Measures the cost of each call: its duration, the time spent waiting for models, and their tokens.

Each call is one line in the log `llmbackend.calls` at level INFO, with numbers and names, but never content.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractContextManager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote
from weakref import WeakSet

from . import precedence, turns
from .access.caller import LOCAL, NOBODY, Caller, without_secrets
from .access.decision import NOTHING, Granted
from .access.names import QualifiedName
from .errors import Forbidden

if TYPE_CHECKING:
    from .prompts import Prompts
    from .usage import Meter

log = logging.getLogger("llmbackend.calls")

MOST_TOKENS = 10**12
"""A server that tells more tokens of a call is mistaken: sums of such numbers would not fit into the database."""

_Result = TypeVar("_Result")

ENOUGH = 0.5
"""Seconds to wait for the end of a stream that reports its usage with each piece."""

AS_JSON = False
"""Whether log records carry a call's numbers as fields; set if the log is JSON."""


class Trace:
    """One call of an operation, from its construction to `finish`."""

    def __init__(
        self,
        operation: str,
        request_id: str | None = None,
        caller: Caller = LOCAL,
        client: str = "-",
        path: str = "-",
        granted: Granted = NOTHING,
    ) -> None:
        self.operation = operation
        self.caller = caller
        """The caller and its rights."""
        self.granted = granted
        """The collections that the call may use, once that is decided."""
        self.client = client
        self.path = path
        self.request_id = request_id or os.urandom(16).hex()
        self.model = ""
        self.tokens = {"prompt_tokens": 0, "completion_tokens": 0}
        self.target: str | None = None
        """What the call acts on, if it is to be in the audit log."""
        self.prompts: Prompts | None = None
        """The prompts to use; None for the built-in ones."""
        self.prompts_used: dict[str, None] = {}
        """The prompts that models were given, each as name@version."""
        self.failure = ""
        """The code of an error that was sent as part of a stream."""
        self.steps: Any = None
        """The tree of an agent's steps (schemas.Step), if the call is an agent's run."""
        self.of_run = False
        """Whether the call is a step of an agent's run."""
        self.parent = ""
        """The caller's own span, from the header `traceparent`."""
        self.meter: Meter | None = None
        """Counts the usage of the core that the call runs in."""
        self.reserve: Callable[[int], object] | None = None
        """Reserves so many bytes of memory until the call has ended; raises Overloaded. None if memory is not limited."""
        self._began = time.perf_counter()
        self._waited = 0.0
        self._waiting = 0
        self._waiting_since = 0.0
        self._awaited = False
        self._first = False
        self._worked = 0.0
        self._replies = 0  # replies of models' servers that are under way
        self._stops: list[Callable[[], object]] | None = None  # set once nobody waits for the call
        self._tells = False

    @property
    def upstream(self) -> float:
        """Seconds in which at least one model was at work for this call."""
        return self._waited + (time.perf_counter() - self._waiting_since if self._waiting else 0.0)

    @property
    def overhead(self) -> float:
        """Our own overhead: all seconds so far in which no model was at work."""
        return max(0.0, time.perf_counter() - self._began - self.upstream)

    def waiting(self) -> AbstractContextManager[None]:
        """Count the time in this block as that of a model at work."""
        return _Waiting(self)

    def at_work(self, change: int) -> None:
        now = time.perf_counter()
        before = self._waiting
        if before:  # time with several models at work counts once
            self._waited += now - self._waiting_since
        self._waiting += change
        self._waiting_since = now
        if not self._first:
            return
        if not before:
            precedence.end(self)
        elif not self._waiting and self.goes_first:
            precedence.begin(self)

    @property
    def left(self) -> bool:
        """Whether nobody waits for the call any more; then no more models are called."""
        return self._stops is not None

    def leave(self, stop: Callable[[], object]) -> None:
        """Note that nobody waits for the call any more; call `stop` once the replies under way have arrived and been counted.

        After the meter's patience it is called anyway.
        """
        patience = self.meter.patience if self.meter is not None else 0
        if self._tells:
            patience = min(patience, ENOUGH)
        self._stops = self._stops or []
        if not (self._replies and patience):
            stop()
            return
        self._loop = asyncio.get_running_loop()
        self._loop.call_later(patience, stop)
        self._stops.append(stop)

    def tells(self, with_each_piece: bool) -> None:
        """Note whether the current stream reports its usage with each piece, so that waiting for its end gains little."""
        self._tells = with_each_piece

    async def asks(self) -> None:
        """Call this before calling a model's server, and `replied` after it. Waits to be stopped if nobody waits for the call."""
        if self._stops is not None:
            await asyncio.get_running_loop().create_future()  # never done: `stop` cancels the call
        self._replies += 1

    def replied(self) -> None:
        self._replies -= 1
        if self._stops and not self._replies:
            with suppress(RuntimeError):  # the loop has ended
                for stop in self._stops:
                    self._loop.call_soon_threadsafe(stop)

    def begin(self) -> None:
        """Note that somebody waits for this call: background work pauses until it is finished."""
        self._awaited = True
        _under_way.add(self)

    def go_first(self) -> None:
        """Mark the call as a small request: while it is at work, large ones give way (precedence.py)."""
        self._first = True
        precedence.begin(self)

    @property
    def goes_first(self) -> bool:
        return self._first and self.overhead < precedence.SMALL

    def worked(self, seconds: float) -> None:
        """Add processor time spent for the call in a thread; beyond LIGHT in total, it is no longer small."""
        if not self._waiting:  # the time of models is not counted
            self._worked += seconds
            if self._worked > precedence.LIGHT:
                self.stand_back()

    def stand_back(self) -> None:
        if self._first:
            self._first = False
            precedence.end(self)

    def collection(self, name: str) -> QualifiedName:
        """Return the qualified name of a collection. Raises Forbidden unless the call may use it."""
        try:
            return self.granted[name]
        except KeyError:
            raise Forbidden(f"this call may not use the collection {name!r}") from None

    def used(self, model: str, usage: Any = None, *, estimated: bool = False) -> None:
        """Note the model that answered, and its tokens if `usage` is a mapping with them.

        They are `prompt_tokens`, `completion_tokens` and `embedded_tokens`. Pass `estimated` if no server reported them.
        What cannot be a number of tokens is left out.
        """
        self.model = without_secrets(model) or self.model
        if not isinstance(usage, Mapping):
            return
        counts = {
            name: count
            for name in _TOKENS
            if isinstance(count := usage.get(name), int) and 0 < count <= MOST_TOKENS
        }
        if not counts:
            return
        self.tokens["prompt_tokens"] += counts.get("prompt_tokens", 0) + counts.get("embedded_tokens", 0)
        self.tokens["completion_tokens"] += counts.get("completion_tokens", 0)
        if self.meter is not None:
            if estimated:
                counts["estimated_tokens"] = sum(counts.values())
            self.meter.add(self.caller, self.operation, self.model, **counts)

    def prompted(self, label: str) -> None:
        """Note a prompt that is given to a model, as name@version."""
        self.prompts_used[label] = None

    def wrote(self, chunks: int) -> None:
        """Note the number of chunks written into a collection."""
        if chunks and self.meter is not None:
            self.meter.add(self.caller, self.operation, self.model, chunks=chunks)

    def finish(self, outcome: str) -> None:
        """Log the call; `outcome` is "ok" or an error's code."""
        self.stand_back()
        if self._awaited:
            _ended(self)
        total, upstream = time.perf_counter() - self._began, self.upstream
        overhead = max(0.0, total - upstream)
        if self.meter is not None:
            failed = outcome not in ("ok", "left")
            self.meter.add(
                self.caller,
                self.operation,
                self.model,
                requests=1,
                errors=int(failed),
                milliseconds=total * 1000,
            )
            self.meter.finished(self, outcome, total)
        if log.isEnabledFor(logging.INFO):
            log.info(
                "%s %s id=%s caller=%s client=%s path=%s model=%s prompt_tokens=%d completion_tokens=%d "
                "total_ms=%.1f upstream_ms=%.1f overhead_ms=%.1f",
                self.operation,
                outcome,
                self.request_id,
                self.caller,
                self.client,
                quote(without_secrets(self.path)[:200], safe="/:@-"),
                self.model or "-",
                self.tokens["prompt_tokens"],
                self.tokens["completion_tokens"],
                total * 1000,
                upstream * 1000,
                overhead * 1000,
                extra={"call": self._told(outcome, total, upstream)} if AS_JSON else None,
            )

    def _told(self, outcome: str, total: float, upstream: float) -> dict[str, Any]:
        return {
            "operation": self.operation,
            "outcome": outcome,
            "request_id": self.request_id,
            "project": self.caller.project,
            "caller": str(self.caller),
            "client": self.client,
            "path": self.path[:200],
            "model": self.model,
            **self.tokens,
            "total_ms": round(total * 1000, 1),
            "upstream_ms": round(upstream * 1000, 1),
            "overhead_ms": round(max(0.0, total - upstream) * 1000, 1),
        }


_TOKENS = ("prompt_tokens", "completion_tokens", "embedded_tokens")

_under_way: WeakSet[Trace] = WeakSet()
_last_end = 0.0


def _ended(trace: Trace) -> None:
    global _last_end
    _under_way.discard(trace)
    _last_end = time.monotonic()


async def quiet(seconds: float) -> None:
    """Wait until no call and no job of this process has been under way for so many seconds."""
    while _under_way or time.monotonic() < _last_end + seconds:  # noqa: ASYNC110  # they end on other loops, too
        await asyncio.sleep(seconds)


_current: ContextVar[Trace | None] = ContextVar("llmbackend_trace", default=None)


# Context managers are classes here: they are entered for each piece of a stream, and generators take four times as long.
class tracing:
    """Make a trace the current one in this block, and in the tasks that it starts."""

    __slots__ = ("_before", "_trace")

    def __init__(self, trace: Trace) -> None:
        self._trace = trace

    def __enter__(self) -> None:
        self._before = _current.set(self._trace)

    def __exit__(self, *raised: object) -> None:
        _current.reset(self._before)


class _Waiting:
    __slots__ = ("_trace",)

    def __init__(self, trace: Trace) -> None:
        self._trace = trace

    def __enter__(self) -> None:
        self._trace.at_work(+1)

    def __exit__(self, *raised: object) -> None:
        self._trace.at_work(-1)


def goes_first() -> bool:
    """Return whether the current call is a small request."""
    trace = _current.get()
    return trace is not None and trace.goes_first


def project() -> str:
    """Return the project of the current call; empty if there is no call."""
    trace = _current.get()
    return trace.caller.project if trace is not None else ""


async def turn() -> None:
    """Begin the next step of the current call; lets other projects' steps go first."""
    if (trace := _current.get()) is not None:
        await turns.turn(trace.caller.project)


def in_turns(work: Coroutine[Any, None, _Result]) -> Awaitable[_Result]:
    """Await `work` that takes no turns itself; each of its steps begins with a turn of the current call's project."""
    trace = _current.get()
    return work if trace is None else turns.in_turns(trace.caller.project, work)


def worked(seconds: float) -> None:
    """Add processor time spent in a thread to the current call, if there is one."""
    if (trace := _current.get()) is not None:
        trace.worked(seconds)


def current() -> Trace:
    """Return the trace of the current call, or a new one that nobody reads if there is none."""
    return _current.get() or Trace("", caller=NOBODY)


class Clock:
    """Measures the milliseconds of each step of a call: `with clock("embed"): …`."""

    def __init__(self) -> None:
        self.ms: dict[str, float] = {}

    def __call__(self, step: str) -> AbstractContextManager[None]:
        self.ms.setdefault(step, 0.0)
        return _Step(self.ms, step)


class _Step:
    __slots__ = ("_began", "_ms", "_step")

    def __init__(self, ms: dict[str, float], step: str) -> None:
        self._ms, self._step = ms, step

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *raised: object) -> None:
        self._ms[self._step] += (time.perf_counter() - self._began) * 1000
