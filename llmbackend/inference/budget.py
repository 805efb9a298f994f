"""How much of a model server its callers take up: one budget of texts under way for each server, whoever asks.

Questions come before what is done in bulk, for which a part is never used, so that a question finds room; and who has
least under way comes first, so that owners get equal shares, and of each owner's the runs of agents, which ask time and
again, and all else. No owner takes up all the room: what one has under way may take minutes. A server that is busy (429) gets half as much at a time,
and slowly more again.

A server works off what it has been given in its order, so that a question waits behind it all the same. Where it tells
how long texts have waited there, as TEI does, no more is done in bulk at a time than keeps it at work: as much as it works
off in a few times what a question takes, or while requests are on their way, in two requests at least; more only where
batches cost so much by themselves that the server would not be used well.
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
"""Texts to embed at a time where the server does not tell: TEI's default, and more than a batch of any GPU."""

QUESTIONS = 32
"""One text of so many that a server takes is kept free for questions."""

OTHERS = 7
"""Times the room that questions leave which those of an owner take up at most, so that whoever comes next finds room: one owner
alone takes seven parts of eight. (Dynamic thresholds: Choudhury and Hahne, IEEE/ACM Transactions on Networking 6, 1998.)"""

BUSY_TEXTS = 16
"""Texts under way from which on they are what keeps a server busy: where there are fewer, others use it too."""

WHOLE = 4
"""Batches that have room side by side before they are cut to sizes that fill it."""

SIDE_BY_SIDE = 2
"""Batches that there is room for at least: while the server works on one, the next is there already."""

FEWEST = 2
"""Texts of a batch that is cut for that, at least: each has a cost of its own."""

BEHIND = 3
"""Times what a question takes, when nothing else is to be done, for which what is done in bulk may keep the server at work."""

BEHIND_SECONDS = 0.01
"""For so long at least, lest the server be without work between two requests."""

VARIANCE = 6
"""Times the mean deviation of some seconds, beyond their mean, that few are beyond. For as long as few requests are on their way
the server has work, so that it does not run out of it on a busy machine. (RFC 6298 has four, for retransmissions.)"""

MOST_BEHIND = 4
"""Times what few questions take longer than that one has at most in front of it for that reason: one that waits is worse than an
idle moment, but where they are late anyway, as on a busy machine, it makes less of a difference."""

LEARNED = 0.1
"""The share that one request has in what is known of the way."""

PAYS = 6
"""Times what a batch costs by itself, as on a GPU, that its texts are to take, so that the server is used well."""

_in_bulk: ContextVar[bool] = ContextVar("llmbackend_in_bulk", default=False)


@contextmanager
def in_bulk(is_bulk: bool = True) -> Iterator[None]:
    """Within this block, what models are asked waits for others' questions, or is one."""
    before = _in_bulk.set(is_bulk)
    try:
        yield
    finally:
        _in_bulk.reset(before)


def is_in_bulk() -> bool:
    return _in_bulk.get()


class Of(NamedTuple):
    """Whose a request is."""

    owner: str
    run: bool
    """Whether a run of an agent asks."""


class Turn:
    """What a request takes of a budget, until it ends."""

    def __init__(self, budget: Budget, texts: int, of: Of, bulk: bool, beside: int) -> None:
        self._budget: Budget | None = budget
        self.texts = texts
        self.of = of
        self.bulk = bulk
        self.beside = beside
        """Texts under way with these."""
        self.began = time.monotonic()
        self.trace: tracing.Trace | None = None
        """Whose call it is, once the server is asked."""

    def leave(self) -> None:
        """The server has done its part: others may ask it while the reply is on its way and read."""
        budget, self._budget = self._budget, None
        if budget is not None:
            budget.give_back(self)

    def end(self) -> None:
        self.leave()
        trace, self.trace = self.trace, None
        if trace is not None:
            trace.replied()

    def __del__(self) -> None:
        if self._budget is not None:  # of a stream that nobody began to read
            self.end()


class _Owner:
    """What an owner has under way, in texts."""

    __slots__ = ("questions", "runs", "texts")

    def __init__(self) -> None:
        self.texts = 0
        self.runs = 0
        """Of them, those of agents' runs."""
        self.questions = 0
        """Those that are not done in bulk."""

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
        if self.turn.done():  # given up meanwhile
            turn.end()
        else:
            self.turn.set_result(turn)


class Budget:
    """Safe to share by event loops."""

    def __init__(self, most: float) -> None:
        self._most = most
        self.limit: float = most
        """Texts under way, at most; a request of more goes alone."""
        self.progressed = -math.inf
        """When the server last did what it was asked."""
        self._halved = -math.inf
        self._under_way = 0
        self._under_way_in_bulk = self._requests_in_bulk = 0
        self._enough = most  # in bulk, to keep the server at work
        self._quiet = self._quiet_there = (
            math.inf
        )  # seconds for a question, here and by the server's own clock
        self._quiet_deviation = 0.0  # of those here, when nothing is done in bulk
        self._way = self._way_deviation = (
            0.0  # seconds between the server and here, both ways, of what is done in bulk
        )
        self._owners: dict[str, _Owner] = {}  # those with texts under way
        self._waiting: dict[bool, dict[Of, deque[_Waiting]]] = {False: {}, True: {}}  # in bulk or not
        self._lock = threading.RLock()  # a turn may end wherever its last reference goes

    def tell(self, most: int) -> None:
        """The server takes so many."""
        with self._lock:
            self.limit = most if self.limit == self._most else min(self.limit, most)
            self._enough = most if self._enough == self._most else min(self._enough, most)
            self._most = most

    def batch(self, most: int) -> int:
        """Texts to send in a request that may have so many."""
        room = self._room(_in_bulk.get())
        if room >= WHOLE * most:
            return most
        batches = max(SIDE_BY_SIDE, math.ceil(room / most)) if room >= SIDE_BY_SIDE * FEWEST else 1
        return min(most, max(1, int(room / batches)))

    async def take(self, texts: int, patience: float, deadline: float) -> Turn:
        """Wait for one's turn; raises TimeoutError at the deadline, or if the server has done nothing for so long."""
        trace = tracing.current()
        bulk, of = _in_bulk.get(), Of(trace.caller.project, trace.of_run)
        with self._lock:
            if not self._before(bulk) and self._fits(texts, of, bulk):
                return self._given(texts, of, bulk)
            waiting = _Waiting(texts, of)
            self._waiting[bulk].setdefault(of, deque()).append(waiting)
            self._admit()  # there may be room that those who wait have no part in
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
        """A request has its reply: by the server it took `worked` seconds, for `waited` of which its texts waited.

        Learns how much in bulk is enough.
        """
        took = time.monotonic() - turn.began
        with self._lock:
            if not turn.bulk:
                if turn.texts < FEWEST and (took < self._quiet or not self._under_way_in_bulk):
                    if self._quiet == math.inf:  # from little to what is enough
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
            if waited <= 0:  # nothing is behind so few
                enough = max(self._enough, 2 * turn.beside)
            else:
                # Whatever comes after them waits about as long: a server works off what it has in its order.
                question = min(self._quiet, took)
                late = question + VARIANCE * self._quiet_deviation
                on_the_way = min(self._way + VARIANCE * self._way_deviation, MOST_BEHIND * late)
                longest = max(BEHIND_SECONDS, BEHIND * question, on_the_way)
                enough = turn.beside * longest / max(worked, 0.001)  # it tells whole milliseconds
                # Where one text takes nearly as long as many, fewer at a time are fewer a second.
                a_text = max(0.0, worked - self._quiet_there) / max(1, turn.beside - 1)
                if a_text:
                    enough = max(enough, PAYS * (self._quiet_there - a_text) / a_text)
            rate = 0.5 if enough < self._enough else 0.3
            least = SIDE_BY_SIDE * FEWEST
            self._enough = min(self._most, max(least, self._enough + rate * (enough - self._enough)))

    def was_busy(self, turn: Turn) -> None:
        with self._lock:
            if turn.began >= self._halved:  # else it is told of what has been halved already
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
            # One at least waits at the server while it works on another, whatever their sizes.
            room = self._free_of_questions if self._requests_in_bulk < SIDE_BY_SIDE else self._room(bulk)
            if self._under_way_in_bulk + texts > room:
                return False
        return self._under_way + texts <= self.limit

    def _before(self, bulk: bool) -> bool:
        """Whether others wait whose turn comes first."""
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
                    # At the end: of those who have as much under way, it comes last now.
                    queues[of] = queue
                turn = self._given(first.texts, of, bulk)
                with suppress(RuntimeError):  # its loop has ended
                    first.loop.call_soon_threadsafe(first.give, turn)

    def _has(self, of: Of) -> tuple[int, int]:
        """What its owner has under way, and of that what is of the same kind."""
        owner = self._owners.get(of.owner, _NOBODY)
        return owner.texts, owner.runs if of.run else owner.texts - owner.runs

    def _leave(self, waiting: _Waiting, bulk: bool) -> None:
        with self._lock:
            if waiting.turn.done():  # it came at the same moment
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
    """That of the server at a URL, for one kind of model, the same for all who ask in this process."""
    with _making:
        return _budgets.setdefault((url.removesuffix("/v1"), kind), Budget(most))
