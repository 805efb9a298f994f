"""The wiring: makes every part from the settings, connects them, starts them, and closes them in order."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from . import audit, dependencies, otel, plugins, threads, usage
from .access.caller import of_project
from .access.issuing import Keys
from .access.limits import Limiter, Most
from .access.register import Register
from .access.room import Room, Rooms, StorageLimits
from .access.sharing import Sharing
from .agents.runs import AgentRuns
from .agents.services import AgentServices
from .answers import layout, reading
from .answers.answers import Answering
from .answers.chatting import Chatting
from .backup import job as _backup_job  # noqa: F401  # registers the type
from .backup.making import Backups
from .backup.unfinished import Unfinished
from .disk import Disk
from .engines.interface import VectorEngine
from .engines.qdrant_edge import QdrantEdge
from .engines.qdrant_server import QdrantServer
from .files.pool import Limits, ParsingPool
from .inference import factory
from .inference.static_vectors import StaticEmbedder
from .job_types.chats import ChatBatches
from .job_types.responses import StoredResponses
from .jobs import registry, webhooks
from .jobs.context import JobServices
from .jobs.leases import WorkerCapacity
from .jobs.runner import Runner
from .jobs.service import Jobs
from .jobs.submission import Places, Submission
from .jobs.worker import Worker
from .knowledge.collections.collections import Collections
from .knowledge.collections.index_building import IndexBuilder
from .knowledge.collections.transfer import Imports
from .knowledge.ingest.requests import Ingestion
from .knowledge.retrieval.ahead import ReadingAhead
from .knowledge.retrieval.retrieval import Retriever
from .model_list import ModelList
from .outbound import signatures
from .prompts import Prompts
from .responses.responder import Responder
from .settings import Settings
from .storage import database, kept
from .storage.data_dir import DataDirLock
from .storage.database import Database
from .vitals import Vitals

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from .jobs.wakeups import Wakeups


class Components:
    """All parts of a backend, made and used on its event loop: `await Components.open(settings)`, `start()`, `close()`."""

    def __init__(
        self,
        settings: Settings,
        main: Database,
        manifests: Engine,
        data_dir: DataDirLock,
        vitals: Vitals,
        *,
        forwards: bool,
    ) -> None:
        self._opened = AsyncExitStack()  # what to close, the last opened first
        self.settings, self.database, self.vitals = settings, main, vitals
        name = data_dir.name
        self.prompts = Prompts(settings.prompts_dir)
        self.disk = Disk.of(settings.data_dir, settings.disk_reserve_mb)
        self.jobs_disk = _disk_of_jobs(settings, main.engine, self.disk)

        self.chat = factory.chat_model(settings, forwards=forwards)
        self.embedder, self.judge = factory.embedders(settings, self.disk)
        self.reranker = factory.reranker(settings)
        self.dependencies = dependencies.of(settings)

        redis = settings.redis_url.get_secret_value() if settings.redis_url else None
        self.limiter = Limiter(settings.project_limits, main, redis, settings.database_url is not None)

        edge, self.qdrant = vector_engines(settings, name, self.disk)
        engines: list[VectorEngine] = [self.qdrant, edge] if self.qdrant else [edge]
        self.collections = Collections(
            manifests,
            engines,
            self.embedder,
            name,
            most_open=settings.collections_open,
            idle_seconds=settings.collection_idle_seconds,
            plugin_seconds=settings.plugin_seconds,
            limits=StorageLimits(self.limiter, self.kept_bytes),
        )
        self.rooms = Rooms(self.limiter, main, self._bytes_of_collections)
        self.index_builder = IndexBuilder(self.collections, edge)
        self.imports = Imports(self.collections)
        self.parsers = ParsingPool(Limits(settings.file_seconds, settings.file_memory_mb * 2**20))
        self.ingestion = Ingestion(self.collections, self.embedder, self.parsers)
        self.reading_ahead = self._reading_ahead()
        self.retriever = Retriever(
            self.collections, self.embedder, self.reranker, settings.plugin_seconds, self.reading_ahead
        )
        self.answering = Answering(
            self.chat, factory.sifter(self.embedder), self.judge, self.retriever, settings.answer_links
        )

        self.chatting = Chatting(self.chat, self.answering)

        self.register = Register(main, manifests, settings.callers)
        self.keys = Keys(main, self.register)
        self.sharing = Sharing(manifests, self.register)
        self.models = ModelList(
            self.chat, self.embedder, settings.rerank_model, self.register, self.collections
        )
        self.register.default_model = self.models.default
        self.meter = usage.Meter(settings.hang_up_seconds, self.limiter.used)
        self.usage = usage.Book(self.meter, main, vitals)
        self.audited = audit.Audit(main, settings.audit_days, vitals)
        self.meter.watch(self.audited.ended)

        backups = Backups(
            self.collections, [main.engine, manifests], settings.backup_path, settings.disk_reserve_mb, name
        )
        self.responder = Responder(
            self.chat,
            self.answering,
            main,
            settings.response_days,
            self.jobs_disk,
            self.rooms,
        )
        self.agent_services = AgentServices(
            self.register, self.chat, self.embedder, self.judge, settings, self.parsers
        )
        services = JobServices(
            self.chat,
            self.embedder,
            self.judge,
            self.collections,
            settings.answer_links,
            backups,
            self.responder,
            self.prompts,
            settings.chats_at_once,
            self.agent_services,
        )
        places = Places(name, shared_collections=settings.qdrant_url is not None)
        others = forwards or settings.database_url is not None or redis is not None
        self.jobs = self._jobs(services, places, listens=others)
        self.submission = Submission(
            self.jobs,
            services,
            places,
            self.limiter,
            self.rooms,
            self.jobs_disk,
            private=settings.webhook_private,
        )
        self.chat_batches = ChatBatches(self.submission.begin, self.models.default, settings.usage_prices)
        self.responses = StoredResponses(self.responder, main, self.jobs, self.submission.begin)
        self.agents = AgentRuns(self.agent_services, self.jobs, self.submission.begin)
        self.responder.agents = self.agents

    async def kept_bytes(self, project: str) -> int:
        """Return the bytes of a project's jobs and stored responses."""
        return await self.database.read(kept.by, project)

    async def _bytes_of_collections(self, project: str) -> int:
        return (await self.collections.stored(project)).bytes

    def _reading_ahead(self) -> ReadingAhead:
        """Make it do nothing unless answers are quotes and a static model embeds: elsewhere it gains nothing."""
        settings = self.settings
        most = settings.read_ahead_chunks if settings.embedding_cache_mb else 0
        if self.chat.abstracts or not isinstance(self.embedder.model, StaticEmbedder):
            most = 0
        return ReadingAhead(self.collections, self.judge, most, layout.sentences, reading.is_english)

    def _queue(self) -> Wakeups:
        from .jobs.wakeups import Wakeups  # here, because huey imports the drivers of Redis and PostgreSQL

        redis = self.settings.redis_url
        return Wakeups(self.database.engine.url, redis.get_secret_value() if redis else None)

    def _jobs(self, services: JobServices, places: Places, *, listens: bool) -> Jobs:
        settings, days = self.settings, self.settings.job_result_days
        secret = (
            signatures.key(settings.webhook_secret.get_secret_value()) if settings.webhook_secret else None
        )
        deliveries = webhooks.Deliveries(self.database, secret, settings.webhook_private, days)
        capacity = WorkerCapacity(
            worker=places.data_dir,
            places=places.here,
            types=tuple(registry.TYPES),
            per_owner=settings.jobs_per_owner,
            lease=settings.job_lease,
        )
        worker = None
        if settings.workers:
            runner = Runner(
                self.database,
                services,
                self.register,
                self.jobs_disk,
                self.meter,
                self.limiter,
                self.rooms,
            )
            worker = Worker(
                self.database,
                runner,
                capacity,
                settings.workers,
                deliveries,
                self._limits_of_jobs,
                days,
                settings.job_days,
                self.jobs_disk,
                self.vitals,
            )
        return Jobs(self.database, self._queue, worker, deliveries, days, self.vitals, listens=listens)

    def _limits_of_jobs(self, owner: str, key: str) -> tuple[Sequence[Most], Room | None]:
        """Return the limits of jobs that a schedule submits for this owner and key."""
        caller = self.register.key(owner, key) or of_project(owner, key=key)
        return self.limiter.of_jobs(caller), self.rooms.at_once(caller)

    @classmethod
    async def open(cls, settings: Settings, *, forwards: bool) -> Components:
        """Make all parts. Raises Conflict if another process holds the data directory, BackendError if a setting cannot work."""
        import numpy  # noqa: F401  # before threads import it at the same time, when one may get it half imported

        async with AsyncExitStack() as opened:
            data_dir = await threads.files(DataDirLock, settings.data_dir)
            opened.callback(data_dir.release)
            Unfinished(settings.data_dir).refuse()
            plugins.load()
            databases: list[Engine] = []
            for where in settings.databases:
                databases.append(await threads.database(database.connect, where))
                opened.callback(databases[-1].dispose)
            vitals = Vitals()
            main = Database(databases[0], vitals)
            opened.push_async_callback(main.close)
            parts = cls(settings, main, databases[-1], data_dir, vitals, forwards=forwards)
            for part in (
                parts.usage,
                parts.embedder,
                parts.judge,
                parts.reranker,
                parts.chat,
                parts.collections,
                parts.index_builder,
                parts.reading_ahead,
                parts.parsers,
                parts.imports,
                parts.jobs,
                parts.register,
                parts.dependencies,
            ):
                opened.push_async_callback(part.close)
            if settings.otel:
                parts.meter.watch(otel.observer(export=forwards))
            parts._opened = opened.pop_all()
        return parts

    async def start(self) -> None:
        """Start the background work. Raises BackendError, with everything closed."""
        try:
            self.usage.start()
            await self.collections.physical.tidy()
            await self.register.look()
            await self.jobs.start()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Hand running jobs back, and close every file and connection."""
        await self._opened.aclose()


def _disk_of_jobs(settings: Settings, engine: Engine, disk: Disk) -> Disk | None:
    """Return the disk of the jobs' database; None if that is a server."""
    file = engine.url.database if engine.dialect.name == "sqlite" else None
    if not file:
        return None
    folder = Path(file).absolute().parent
    return disk if folder == settings.data_dir else Disk.of(folder, settings.disk_reserve_mb)


def vector_engines(settings: Settings, writer: str, disk: Disk) -> tuple[QdrantEdge, QdrantServer | None]:
    """Return Edge in this process, and the Qdrant server if one is set, which then gets all new collections."""
    edge = QdrantEdge(settings.data_dir / "collections", disk)
    if settings.qdrant_url is None:
        return edge, None
    key = settings.qdrant_api_key.get_secret_value() if settings.qdrant_api_key else None
    marks = settings.data_dir / "collections"
    return edge, QdrantServer(
        settings.qdrant_url,
        key,
        settings.upstream_timeout,
        marks,
        writer=writer,
        options=settings.qdrant_collection.given,
    )
