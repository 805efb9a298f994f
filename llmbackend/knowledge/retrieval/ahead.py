"""Reading ahead: the judge, which is slow, embeds whole collections while nothing else is at work.

A question then has a third list of hits beside the dense and the sparse one, and the judge's vectors are ready. A passage
that is not read yet is found and judged as usual. The vectors of passages are in memory; those of passages and their
sentences are also in the cache of vectors, from which they come after a restart.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from anyio import CancelScope, move_on_after

from ... import threads, tracing
from ...access.caller import of_project
from ...engines.interface import Chunk
from ...errors import LLMBackendError
from ...inference.judge import Judge
from ...turns import Places
from ..collections.collection import Collection
from ..collections.collections import Collections

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

WEIGHT = 4.0
"""The weight of the judge's list, where BM25's has 1 and the static vectors' 2 (answers/reading.py): it decides the order."""

QUIET = 0.25
"""Seconds without a call or job after which reading continues. It stops within the time of a passage, a tenth of a second."""

FEW = 40
"""A question waits until a collection of up to so many passages is read, so that the first answer is as good as later ones."""

PATIENCE = 30.0
"""Most seconds that a question waits. On two idle cores, 40 passages of 150 words take 2."""

SAMPLE = 20
"""Passages that show whether the judge knows a collection's language."""

PAGE = 1000


class Ahead:
    """The judge's vectors of a collection's passages, as far as they are read."""

    def __init__(self) -> None:
        import numpy as np

        self._rows: dict[uuid.UUID, int] = {}
        self._points: list[uuid.UUID] = []
        self._vectors: NDArray[np.float32] = np.empty((0, 0), np.float32)

    def __len__(self) -> int:
        return len(self._points)

    def __contains__(self, point: uuid.UUID) -> bool:
        return point in self._rows

    def add(self, point: uuid.UUID, vector: NDArray[np.float32]) -> None:
        import numpy as np

        row = len(self._points)
        if row == len(self._vectors):
            more = np.empty((max(256, 2 * row), len(vector)), np.float32)
            if row:
                more[:row] = self._vectors
            self._vectors = more
        self._vectors[row] = vector
        self._points.append(point)
        self._rows[point] = row

    def only(self, points: set[uuid.UUID]) -> Ahead:
        """Return the vectors of these points: this object if all are among them, else a new one."""
        if points.issuperset(self._points):
            return self
        kept = Ahead()
        for point, row in self._rows.items():
            if point in points:
                kept.add(point, self._vectors[row])
        return kept

    def cosines(self, vector: NDArray[np.float32]) -> dict[uuid.UUID, float]:
        """Return the cosine of each passage that is read with a unit vector."""
        points = self._points[:]  # more may be added meanwhile
        return dict(zip(points, (self._vectors[: len(points)] @ vector).tolist(), strict=True))


class ReadingAhead:
    """Reads collections after they were written to or opened, one after the other. Must be made on the event loop."""

    def __init__(
        self,
        collections: Collections,
        judge: Judge,
        most: int,
        parts_of: Callable[[Chunk], list[str]],
        knows: Callable[[Iterable[str]], bool],
    ) -> None:
        """`most` limits the passages of all collections together; 0 turns reading ahead off.

        `parts_of` returns the texts of a passage that the judge reads for a question. `knows` returns whether the judge
        knows the language of texts.
        """
        self._judge = judge
        self._most = most
        self._parts_of = parts_of
        self._knows = knows
        self._read: dict[Collection, Ahead] = {}
        self._written = collections.written.also()
        self._following: Collection | None = None
        self._wanted: Collection | None = None
        """The collection that a question waits for."""
        self._to_want = Places(1)
        self._one_is_wanted = asyncio.Event()
        self._one_is_followed = asyncio.Condition()
        self._scope = CancelScope()
        self._working = asyncio.create_task(self._work())

    async def cosines(
        self, collections: Sequence[Collection], text: str
    ) -> dict[str, dict[uuid.UUID, float]]:
        """Return the cosines of a text with all passages that are read, by collection name and point.

        Collections without any such passage are left out.
        """
        read = {one: ahead for one in collections if (ahead := self._read.get(one))}
        if not read:
            return {}
        [vector] = await self._judge.embed([text])
        return {one.name: await threads.processor(ahead.cosines, vector) for one, ahead in read.items()}

    async def catch_up(self, collections: Sequence[Collection]) -> None:
        """Wait until small collections that were just written to are read, at most PATIENCE seconds each."""
        for one in collections:
            if self._is_behind(one) and self._most and self._judge.here:
                counts = await one.counted()
                if counts is not None and counts[1] <= FEW:
                    with tracing.current().waiting(), move_on_after(PATIENCE):
                        await self._followed(one)

    async def _followed(self, collection: Collection) -> None:
        """Read a collection before all others, and wait for that.

        Projects take turns, so that one project's many collections do not delay another's question.
        """
        async with self._to_want.held(tracing.project()):
            if not self._is_behind(collection):
                return
            self._wanted = collection
            self._one_is_wanted.set()
            self._written.first(collection)
            try:
                async with self._one_is_followed:
                    await self._one_is_followed.wait_for(lambda: not self._is_behind(collection))
            finally:
                self._wanted = None
                self._one_is_wanted.clear()

    def _is_behind(self, collection: Collection) -> bool:
        return collection in self._written or collection is self._following

    async def _work(self) -> None:
        with self._scope:
            while True:
                collection = self._following = await self._written.next()
                try:
                    await self._follow(collection)
                except LLMBackendError as error:  # the collection was deleted or exchanged meanwhile, …
                    log.info("%r is not read ahead: %s", collection.manifest.qualified, error)
                except Exception as error:
                    log.warning("%r is not read ahead: %r", collection.manifest.qualified, error)
                self._following = None
                async with self._one_is_followed:
                    self._one_is_followed.notify_all()

    async def _turn(self, collection: Collection) -> bool:
        """Wait until nothing else is at work or a question waits; return False if it waits for another collection."""
        if collection is not self._wanted:
            quiet = asyncio.ensure_future(tracing.quiet(QUIET))
            wanted = asyncio.ensure_future(self._one_is_wanted.wait())
            try:
                await asyncio.wait([quiet, wanted], return_when=asyncio.FIRST_COMPLETED)
            finally:
                quiet.cancel()
                wanted.cancel()
        return self._wanted in (None, collection) or self._wanted not in self._written

    async def _follow(self, collection: Collection) -> None:
        """Read what a collection contains now and is not read yet; drop the vectors of deleted passages."""
        self._read = {one: ahead for one, ahead in self._read.items() if not one.closed}
        if not (self._most and self._judge.here) or collection.closed or collection.shared:
            return
        if not await self._turn(collection):
            return self._written.put(collection)
        if not collection.is_open:  # opening queues it again
            return
        points: dict[uuid.UUID, None] = {}
        cursor: str | None = None
        while len(points) < self._most:
            page = await collection.ids(PAGE, cursor)
            points |= dict.fromkeys(page.documents)
            if (cursor := page.cursor) is None:
                break
        ahead = self._read[collection] = self._read.get(collection, Ahead()).only(set(points))
        collection.read_ahead = len(ahead)
        room = self._most - sum(map(len, self._read.values()))
        missing = [point for point in points if point not in ahead][: max(0, room)]
        with tracing.tracing(tracing.Trace("read_ahead", caller=of_project(collection.manifest.project))):
            for start in range(0, len(missing), SAMPLE):
                chunks = await collection.chunks(missing[start : start + SAMPLE])
                if not ahead and not self._knows(chunk.text for chunk in chunks.values()):
                    del self._read[collection]
                    collection.read_ahead = None
                    return
                for point, chunk in chunks.items():
                    if not await self._turn(collection):
                        return self._written.put(collection)
                    parts = await threads.processor(self._parts_of, chunk)
                    ahead.add(point, (await self._judge.embed([chunk.in_context, *parts]))[0])
                    collection.read_ahead = len(ahead)

    async def close(self) -> None:
        self._scope.cancel()
        await asyncio.wait([self._working])
