"""Makes, opens and removes physical collections in their engines. One that no manifest names is an orphan, and is removed."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from anyio import CancelScope

from ... import threads
from ...engines.edge_build import built
from ...engines.interface import VectorEngine, VectorIndex, gone
from ...engines.qdrant_edge import QdrantEdge
from ...errors import BackendError, Conflict, LLMBackendError
from .manifests import Manifest, Manifests, moved

log = logging.getLogger(__name__)


class PhysicalCollections:
    """The physical collections of one data directory. New ones are made in the first engine; others stay where they are."""

    def __init__(self, manifests: Manifests, engines: Sequence[VectorEngine]) -> None:
        self._manifests = manifests
        self._engines = {one.name: one for one in engines}
        self.default = engines[0]

    @property
    def one_process(self) -> bool:
        """Whether this process alone creates, exchanges and deletes collections."""
        return not any(engine.shared for engine in self._engines.values())

    def shared(self, manifest: Manifest) -> bool:
        """Return whether other processes may write to a collection, exchange it and delete it."""
        engine = self._engines.get(manifest.engine)
        return engine is None or engine.shared

    def engine(self, manifest: Manifest) -> VectorEngine:
        """Return a collection's engine. Raises Conflict if QDRANT_URL is no longer set for it."""
        engine = self._engines.get(manifest.engine)
        if engine is None:
            raise Conflict(
                f"collection {manifest.called!r} is on a Qdrant server: set QDRANT_URL to it again",
                details={"collection": manifest.called},
            )
        return engine

    async def make(self, manifest: Manifest, job: str = "") -> None:
        """Make an empty physical collection. It is an orphan until a manifest names it; a job's is kept until the job ends."""
        engine = self.engine(manifest)
        await threads.database(self._manifests.begin, manifest.physical_collection.id, manifest.engine, job)
        await engine.opening(engine.create, manifest.physical_collection.id, manifest.layout)

    async def open(self, manifest: Manifest, *, repair: bool = True) -> VectorIndex:
        """Open a physical collection; the caller closes it. See `VectorEngine.open`."""
        engine = self.engine(manifest)
        return await engine.opening(partial(engine.open, manifest.physical_collection, repair=repair))

    async def open_current(self, manifest: Manifest) -> tuple[Manifest, VectorIndex]:
        """Open a collection's physical collection. If another process has exchanged it, open the new one.

        Returns the manifest of the opened one, and its index.
        """
        while True:
            try:
                return manifest, await self.open(manifest)
            except BackendError as error:
                now, _ = await threads.database(self._manifests.find, manifest.qualified)
                if not gone(error) or now is None or now.physical_collection == manifest.physical_collection:
                    raise
                manifest = now

    async def quick_to_open(self, manifest: Manifest) -> Manifest:
        """Make sure that opening the collection does not block this process for long; return its manifest.

        If needed, a separate process repairs it, or builds another physical collection, which then replaces the current
        one. If that fails, a warning is logged: opening then takes long, or raises what is wrong.
        """
        edge, old = self.engine(manifest), manifest.physical_collection
        if not isinstance(edge, QdrantEdge):
            return manifest
        look = partial(edge.to_open_quickly, old.id, graph=manifest.indexed > 0)
        what = await edge.threads(look)
        try:
            if what == "segments":
                return await self._with_segments(manifest, edge)
            if what is not None:
                await built(edge.folder(old.id), manifest.layout, what)
        except LLMBackendError as error:
            log.warning("opening collection %r will take long: %s", manifest.qualified, error)
        return manifest

    async def _with_segments(self, manifest: Manifest, edge: QdrantEdge) -> Manifest:
        old, new = manifest.physical_collection, moved(manifest, edge.name)
        try:
            await threads.database(self._manifests.begin, new.physical_collection.id, new.engine)
            await edge.threads(partial(edge.copy, old.id, new.physical_collection.id, is_open=False))
            await built(edge.folder(new.physical_collection.id), new.layout, "segments")
            await threads.database(partial(self._manifests.swap, manifest, new, frozen=False))
        except BaseException:
            await self.drop(new)
            raise
        await self.drop(manifest)
        return new

    async def drop(self, manifest: Manifest) -> None:
        """Remove an orphan. If that fails, the next start removes it."""
        with CancelScope(shield=True):
            await self._drop(manifest.physical_collection.id, manifest.engine)

    async def tidy(self) -> None:
        """Remove orphans that a killed process left."""
        for physical_id, engine in await threads.database(self._manifests.orphans):
            await self._drop(physical_id, engine)

    async def tidy_after_jobs(self, unfinished: Callable[[Sequence[str]], Awaitable[set[str]]]) -> None:
        """Remove the orphans of jobs that have ended. `unfinished` returns which of these job ids have not."""
        left = await threads.database(self._manifests.left_by_jobs)
        going_on = await unfinished([job for _, _, job in left]) if left else set()
        for physical_id, engine, job in left:
            if job not in going_on:
                await self._drop(physical_id, engine)

    async def _drop(self, physical_id: str, engine: str) -> None:
        try:
            there = self._engines[engine]
            await there.threads(there.drop, physical_id)
        except (KeyError, OSError, LLMBackendError) as error:
            log.warning(
                "physical collection %s in %s could not be removed yet: %r", physical_id, engine, error
            )
        else:
            await threads.database(self._manifests.removed, physical_id)

    async def close(self) -> None:
        for engine in self._engines.values():
            await engine.threads(engine.close)
