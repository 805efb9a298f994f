"""A model server's budget: how many texts may be under way to it, from all callers in this process together.

Questions come before bulk work, which always leaves a part of the budget free, so that a question finds room.
Whoever has least under way comes next, so owners get equal shares; so do, within an owner's share, runs of
agents (which send many requests) and everything else. No owner gets the whole budget, because its requests
may take minutes. The budget of a server that says it is busy (429) is halved, and then grows slowly again.

A server works through its requests in order, so a question still waits behind the bulk work that is already
there. If the server tells how long texts waited (TEI does), bulk work is limited to what keeps it busy: as
much as it does in a few times the time of a question, or while requests are on their way, and at least two
requests. More is sent only if a batch has such a high cost of its own that the server would otherwise be
badly used.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Literal, NamedTuple
from weakref import WeakValueDictionary

from .. import tracing

UNTOLD = 512
"""The texts to embed at a time if a server does not tell its limit: TEI's default, and more than a GPU's
usual batch."""

QUESTIONS = 32
"""Of every 32 texts that a server takes, one place is kept free for questions."""

OTHERS = 7
"""One owner's questions may take up at most seven times the room that all questions leave, so that the next
caller finds room: a single owner gets seven eighths. (Dynamic thresholds: Choudhury and Hahne, IEEE/ACM
Transactions on Networking 6, 1998.)"""

BUSY_TEXTS = 16
"""With at least this many texts under way, it is ours that make a server busy; with fewer, others use it as well."""

WHOLE = 4
"""If this many full batches fit into the budget side by side, batches are not made smaller to fill it."""

SIDE_BY_SIDE = 2
"""At least so many batches fit in: while the server works on one, the next is already there."""

FEWEST = 2
"""A batch is not made smaller than this, because every batch has a cost of its own."""

BEHIND = 3
"""Bulk work may keep the server busy for at most this many times as long as a question takes on an idle server."""

BEHIND_SECONDS = 0.01
"""Bulk work may always keep the server busy for this long, so that it does not idle between two requests."""

VARIANCE = 6
"""So many mean deviations above the mean, few times are longer. For as long as nearly every request is on its
way, the server is to have work, so that it does not run dry on a busy machine. (RFC 6298 has 4, for
retransmissions.)"""

MOST_BEHIND = 4
"""Bulk work that covers the way of requests may delay a question by at most this many times what nearly all
questions take: a delayed question is worse than an idle moment, but it matters less if questions are slow
anyway, as on a busy machine."""

LEARNED = 0.1
"""The weight of a new request in the moving averages of times on the way."""

PAYS = 6
"""The texts of a batch are to take this many times the batch's own cost (as on a GPU), so that the server is
well used."""

_in_bulk: ContextVar[bool] = ContextVar("llmbackend_in_bulk", default=False)


@contextmanager
def in_bulk(is_bulk: bool = True) -> Iterator[None]:
    """Mark calls to models within this block as bulk work, which lets others' questions go first; or as questions."""
    before = _in_bulk.set(is_bulk)
    try:
        yield
    finally:
        _in_bulk.reset(before)


def is_in_bulk() -> bool:
    return _in_bulk.get()


class Of(NamedTuple):
    """Whom a request is counted for."""

    owner: str
    run: bool
    """Whether an agent's run makes the request."""


class Turn:
    """A request's part of a budget, from when it may be sent until it ends."""

    def __init__(self, budget: Budget, texts: int, of: Of, bulk: bool, beside: int) -> None:
        self._budget: Budget | None = budget
        self.texts = texts
        self.of = of
        self.bulk = bulk
        self.beside = beside
        """Texts under way to the server at the start, these included."""
        self.began = time.monotonic()
        self.trace: tracing.Trace | None = None
        """The trace of the call that makes the request, once it is sent."""

    def leave(self) -> None:
        """Give the room back: the server has done its part, and the reply only has to arrive and be read."""
        budget, self._budget = self._budget, None
        if budget is not None:
            budget.give_back(self)

    def end(self) -> None:
        self.leave()
        trace, self.trace = self.trace, None
        if trace is not None:
            trace.replied()

    def __del__(self) -> None:
        if self._budget is not None:  # the turn of a stream that was never read
            self.end()


class _Owner:
    """The texts that an owner has under way."""

    __slots__ = ("questions", "runs", "texts")

    def __init__(self) -> None:
        self.texts = 0
        self.runs = 0
        """Those of agents' runs."""
        self.questions = 0
        """Those that are not bulk work."""

    def add(self, texts: int, of: Of, bulk: bool) -> None:
        self.texts += texts
        if of.run:
            self.runs += texts
        if not bulk:
            self.questions += texts


_NOBODY = _Owner()


class _Waiting:
    def __init__(self, texts: int, of: Of) -> None:
        self.texts = texts
        self.of = of
        self.loop = asyncio.get_running_loop()
        self.turn: asyncio.Future[Turn] = self.loop.create_future()

    def give(self, turn: Turn) -> None:
        if self.turn.done():  # the caller has given up meanwhile
            turn.end()
        else:
            self.turn.set_result(turn)


class Budget:
    """The texts under way to one server, and the requests that wait for room. Thread-safe, and shared by
    event loops."""

    def __init__(self, most: float) -> None:
        self._most = most
        self.limit: float = most
        """The most texts under way; a larger request is sent alone."""
        self.progressed = -math.inf
        """When the server last answered a request."""
        self._halved = -math.inf
        self._under_way = 0
        self._under_way_in_bulk = self._requests_in_bulk = 0
        self._enough = most  # texts of bulk work that keep the server busy
        # Seconds that a question takes, by our clock and by the server's.
        self._quiet = self._quiet_there = math.inf
        self._quiet_deviation = 0.0  # of our times, measured while there is no bulk work
        # Seconds that a bulk request and its reply are on their way.
        self._way = self._way_deviation = 0.0
        self._owners: dict[str, _Owner] = {}  # only those with texts under way
        self._waiting: dict[bool, dict[Of, deque[_Waiting]]] = {False: {}, True: {}}  # bulk work is True
        self._lock = threading.RLock()  # reentrant: garbage collection may end a turn anywhere, in here too

    def tell(self, most: int) -> None:
        """Note the number of texts that the server says it takes at a time."""
        with self._lock:
            self.limit = most if self.limit == self._most else min(self.limit, most)
            self._enough = most if self._enough == self._most else min(self._enough, most)
            self._most = most

    def batch(self, most: int) -> int:
        """How many texts to send in a request, of the `most` that it may have."""
        room = self._room(_in_bulk.get())
        if room >= WHOLE * most:
            return most
        batches = max(SIDE_BY_SIDE, math.ceil(room / most)) if room >= SIDE_BY_SIDE * FEWEST else 1
        return min(most, max(1, int(room / batches)))

    async def take(self, texts: int, patience: float, deadline: float) -> Turn:
        """Wait until a request of so many texts may be sent.

        Raises TimeoutError at the deadline (`time.monotonic`), or when the server has answered nothing for
        `patience` seconds.
        """
        trace = tracing.current()
        bulk, of = _in_bulk.get(), Of(trace.caller.project, trace.of_run)
        with self._lock:
            if not self._before(bulk) and self._fits(texts, of, bulk):
                return self._given(texts, of, bulk)
            waiting = _Waiting(texts, of)
            self._waiting[bulk].setdefault(of, deque()).append(waiting)
            self._admit()  # there may be room that those who came earlier cannot use
        began = time.monotonic()
        try:
            while True:
                until = min(deadline, max(began, self.progressed) + patience)
                with suppress(TimeoutError):
                    async with asyncio.timeout(until - time.monotonic()):
                        return await asyncio.shield(waiting.turn)
                if time.monotonic() >= min(deadline, max(began, self.progressed) + patience):
                    raise TimeoutError
        except BaseException:
            self._leave(waiting, bulk)
            raise

    def give_back(self, turn: Turn) -> None:
        with self._lock:
            self._under_way -= turn.texts
            self._under_way_in_bulk -= turn.texts * turn.bulk
            self._requests_in_bulk -= turn.bulk
            owner = self._owners[turn.of.owner]
            owner.add(-turn.texts, turn.of, turn.bulk)
            if not owner.texts:
                del self._owners[turn.of.owner]
            if self._before(bulk=True):
                self._admit()

    def went_well(self, turn: Turn) -> None:
        self.progressed = time.monotonic()
        if self.limit < self._most:
            with self._lock:
                step = max(1.0, self._most / 64) if self._most < math.inf else 1.0
                self.limit = min(self._most, self.limit + step * turn.texts / self.limit)

    def answered(self, turn: Turn, waited: float, worked: float) -> None:
        """Learn from a reply how much bulk work is enough.

        By the server's clock, the request took `worked` seconds in all, of which its texts waited `waited`.
        """
        took = time.monotonic() - turn.began
        with self._lock:
            if not turn.bulk:
                if turn.texts < FEWEST and (took < self._quiet or not self._under_way_in_bulk):
                    if self._quiet == math.inf:  # the first question: begin with little bulk work
                        self._quiet, self._quiet_there = took, worked
                        self._quiet_deviation = took / 2
                        self._enough = min(self._enough, SIDE_BY_SIDE * FEWEST)
                    if not self._under_way_in_bulk:
                        self._quiet_deviation += LEARNED * (abs(took - self._quiet) - self._quiet_deviation)
                    self._quiet += 0.2 * (took - self._quiet)
                    self._quiet_there += 0.2 * (worked - self._quiet_there)
                return
            difference = max(0.0, took - worked) - self._way
            self._way += LEARNED * difference
            self._way_deviation += LEARNED * (abs(difference) - self._way_deviation)
            if waited <= 0:  # nothing waited, so more may be sent
                enough = max(self._enough, 2 * turn.beside)
            else:
                # A server works in order, so whatever comes next waits about as long.
                question = min(self._quiet, took)
                late = question + VARIANCE * self._quiet_deviation
                on_the_way = min(self._way + VARIANCE * self._way_deviation, MOST_BEHIND * late)
                longest = max(BEHIND_SECONDS, BEHIND * question, on_the_way)
                enough = turn.beside * longest / max(worked, 0.001)  # the server tells whole milliseconds
                # If one text takes nearly as long as many, small batches mean fewer texts a second.
                a_text = max(0.0, worked - self._quiet_there) / max(1, turn.beside - 1)
                if a_text:
                    enough = max(enough, PAYS * (self._quiet_there - a_text) / a_text)
            rate = 0.5 if enough < self._enough else 0.3
            least = SIDE_BY_SIDE * FEWEST
            self._enough = min(self._most, max(least, self._enough + rate * (enough - self._enough)))

    def was_busy(self, turn: Turn) -> None:
        with self._lock:
            if turn.began >= self._halved:  # an older request says nothing about the halved limit
                self.limit = max(1.0, min(self.limit, max(self._under_way, BUSY_TEXTS)) / 2)
                self._halved = time.monotonic()

    def _room(self, bulk: bool) -> float:
        if not bulk or self.limit == math.inf:
            return self.limit
        return max(1.0, min(self._enough, self._free_of_questions))

    @property
    def _free_of_questions(self) -> float:
        return self.limit if self.limit == math.inf else self.limit - math.ceil(self.limit / QUESTIONS)

    def _fits(self, texts: int, of: Of, bulk: bool) -> bool:
        if not self._under_way:
            return True
        if not bulk and (own := self._owners.get(of.owner, _NOBODY).questions):
            left = self.limit - (self._under_way - self._under_way_in_bulk)
            if own + texts > OTHERS * left:
                return False
        if bulk and self._requests_in_bulk:
            # While the server works on one request, the next is to be there already, whatever their sizes.
            room = self._free_of_questions if self._requests_in_bulk < SIDE_BY_SIDE else self._room(bulk)
            if self._under_way_in_bulk + texts > room:
                return False
        return self._under_way + texts <= self.limit

    def _before(self, bulk: bool) -> bool:
        """Whether others wait that come first."""
        return bool(self._waiting[False] or (bulk and self._waiting[True]))

    def _given(self, texts: int, of: Of, bulk: bool) -> Turn:
        self._under_way += texts
        self._under_way_in_bulk += texts * bulk
        self._requests_in_bulk += bulk
        if (owner := self._owners.get(of.owner)) is None:
            owner = self._owners[of.owner] = _Owner()
        owner.add(texts, of, bulk)
        return Turn(self, texts, of, bulk, self._under_way)

    def _admit(self) -> None:
        for bulk, queues in self._waiting.items():
            while queues:
                of = min(queues, key=self._has)
                if not self._fits(queues[of][0].texts, of, bulk):
                    return
                queue = queues.pop(of)
                first = queue.popleft()
                if queue:
                    # At the end, behind those who have as much under way.
                    queues[of] = queue
                turn = self._given(first.texts, of, bulk)
                with suppress(RuntimeError):  # the loop of the one who waits has ended
                    first.loop.call_soon_threadsafe(first.give, turn)

    def _has(self, of: Of) -> tuple[int, int]:
        """What the owner has under way: all of it, and what is of the same kind (runs of agents, or the rest)."""
        owner = self._owners.get(of.owner, _NOBODY)
        return owner.texts, owner.runs if of.run else owner.texts - owner.runs

    def _leave(self, waiting: _Waiting, bulk: bool) -> None:
        with self._lock:
            if waiting.turn.done():  # the turn came at this very moment
                return waiting.turn.result().end()
            waiting.turn.cancel()
            queue = self._waiting[bulk].get(waiting.of)
            if queue and waiting in queue:
                queue.remove(waiting)
                if not queue:
                    del self._waiting[bulk][waiting.of]
            self._admit()


_budgets: WeakValueDictionary[tuple[str, str], Budget] = WeakValueDictionary()
_making = threading.Lock()


def of_server(url: str, kind: Literal["chat", "embed", "rerank"], most: float = math.inf) -> Budget:
    """The budget for one kind of model on the server at a URL: the same object for all callers in this process."""
    with _making:
        return _budgets.setdefault((url.removesuffix("/v1"), kind), Budget(most))
