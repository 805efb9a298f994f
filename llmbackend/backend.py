"""The core: one method an operation, each putting the rooms together. Knows nothing of HTTP, paths or JSON."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, aclosing, suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from anyio import CancelScope
from sqlalchemy import text

from . import __version__, audit, doctor, loading, otel, panics, plugins, schemas, threads, tracing, usage
from .access import issuing, keys, shares
from .access.decision import Asks
from .access.limits import Limiter
from .access.names import QualifiedName
from .access.register import Register
from .agents.runs import AgentRuns
from .agents.services import AgentServices
from .backup import job as _backup_job  # noqa: F401  # registers the type
from .backup.making import Backups
from .backup.unfinished import Unfinished
from .disk import SMALL, Disk
from .errors import BackendError, InvalidRequest, NotFound, Overloaded
from .inference import factory, structured
from .inference.embeddings import EmbeddingBatch, require
from .jobs import reading, registry, results, schedules, types, webhooks  # noqa: F401  # types: registers those that are built in
from .jobs.context import JobServices
from .jobs.leases import WorkerCapacity
from .jobs.ledger import NewJob
from .jobs.registry import Where
from .jobs.responding import KeptResponses
from .jobs.service import Jobs
from .jobs.wakeups import Wakeups
from .jobs.worker import Worker
from .knowledge.answers import answers, rag_model
from .knowledge.collections.collection import Collection
from .knowledge.collections.collections import Collections, chunking
from .knowledge.collections.index_building import IndexBuilder
from .knowledge.collections.rebuild import Progress, reindex
from .knowledge.collections.transfer import Imports, export_page
from .knowledge.engines.filters import conditions
from .knowledge.engines.interface import VectorEngine
from .knowledge.engines.qdrant_edge import QdrantEdge
from .knowledge.engines.qdrant_server import QdrantServer
from .knowledge.files.documents import from_files
from .knowledge.files.pool import Limits, ParsingPool
from .knowledge.ingest.ingest import Incoming, Stages, StagesProgress, ingest, plan, silent
from .knowledge.retrieval.retrieval import Retriever
from .responses.responder import Responder
from .settings import Settings
from .sse import DONE, HEARTBEAT, event, named_event
from .storage import database
from .storage.data_dir import DataDirLock
from .storage.database import Database
from .vitals import Vitals

if TYPE_CHECKING:
    from sqlalchemy import Engine


COPIED = 2**21  # bytes of vectors that are copied on the loop, which is over before a thread has begun


class State(NamedTuple):
    """How full and how busy everything is."""

    jobs: dict[tuple[str, str], int]
    """By type and status."""
    ages: dict[tuple[str, str], float]
    collections: int
    disk_free: int
    disk_reserve: int
    cache_bytes: int
    cache_hits: int
    cache_misses: int
    tokens: dict[tuple[str, str], int]
    """By model, and whether they were prompt, completion or embedded."""
    upstream_errors: dict[tuple[str, str], int]
    limits: dict[str, int]
    parts: dict[str, str]


class Backend:
    """Open with `await Backend.open(settings)`, on the event loop that will use it; close when done."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        manifests: Engine,
        data_dir: DataDirLock,
        vitals: Vitals,
        *,
        forwards: bool,
    ) -> None:
        self.settings = settings
        self._data_dir = data_dir
        self._database = database
        self._vitals = vitals
        self._opened = AsyncExitStack()  # what to close, the last opened first
        self._disk = Disk.of(settings.data_dir, settings.disk_reserve_mb)
        engine = database.engine
        file = engine.url.database if engine.dialect.name == "sqlite" else None
        self._jobs_disk = self._disk_of(Path(file).absolute().parent) if file else None
        self._chat = factory.chat_model(settings, forwards=forwards)
        self._embedder, self._judge = factory.embedders(settings, self._disk)
        self._sifter = factory.sifter(self._embedder)
        self._reranker = factory.reranker(settings)
        edge, self._qdrant = vector_engines(settings, data_dir.name, self._disk)
        engines: list[VectorEngine] = [self._qdrant, edge] if self._qdrant else [edge]
        self._collections = Collections(
            manifests,
            engines,
            self._embedder,
            data_dir.name,
            most_open=settings.collections_open,
            idle_seconds=settings.collection_idle_seconds,
            plugin_seconds=settings.plugin_seconds,
        )
        self._retriever = Retriever(
            self._collections, self._embedder, self._reranker, self._judge, settings.plugin_seconds
        )
        backups = Backups(
            self._collections,
            [engine, manifests],
            settings.backup_path,
            settings.disk_reserve_mb,
            data_dir.name,
        )
        self._index_builder = IndexBuilder(self._collections, edge)
        self._parsers = ParsingPool(Limits(settings.file_seconds, settings.file_memory_mb * 2**20))
        self._imports = Imports(self._collections)
        self._responder = Responder(
            self._chat,
            self._sifter,
            self._retriever,
            self._database,
            settings.answer_links,
            settings.response_days,
            self._jobs_disk,
        )
        self._services = JobServices(
            self._chat,
            self._embedder,
            self._judge,
            self._collections,
            settings.answer_links,
            backups,
            self._responder,
        )
        self._manifests = manifests
        self.register = Register(self._database, manifests, settings.callers)
        self.register.default_model = self._default_model
        self._services = replace(
            self._services,
            agents=AgentServices(self, self.register, self._chat, self._embedder, self._judge, settings),
        )
        redis = settings.redis_url.get_secret_value() if settings.redis_url else None
        shared = settings.database_url is not None
        self.limiter = Limiter(settings.project_limits, self._database, redis, shared)
        self.meter = usage.Meter(self.limiter.used)
        self.audited = audit.Audit(self._database, settings.audit_days, self._vitals)
        self.meter.watch(self.audited.ended)
        self._jobs = self._open_jobs(engine)
        self._responses = KeptResponses(self._responder, self._database, self._jobs, self._submit_response)
        self._agents = AgentRuns(self._services.agents, self._jobs, self._agent_job)
        self._usage = usage.Book(self.meter, self._database, self._vitals)

    @classmethod
    async def open(cls, settings: Settings, *, forwards: bool = False) -> Backend:
        """One that `forwards` hands chat on as its server sends it, unread: for callers over HTTP.

        Raises Conflict if another process holds the data directory, BackendError if a setting cannot work.
        """
        import numpy  # noqa: F401  # before threads do: at the same time, one may get it half imported

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
            backend = cls(settings, main, databases[-1], data_dir, vitals, forwards=forwards)
            for part in (
                backend._usage,
                backend._embedder,
                backend._judge,
                backend._reranker,
                backend._chat,
                backend._collections,
                backend._index_builder,
                backend._parsers,
                backend._imports,
                backend._jobs,
                backend.register,
            ):
                opened.push_async_callback(part.close)
            backend._usage.start()
            if settings.otel:
                backend.meter.watch(otel.observer(export=forwards))
            await backend._collections.physical.tidy()
            await backend.register.look()
            await backend._jobs.start()
            backend._opened = opened.pop_all()
        return backend

    def _disk_of(self, folder: Path) -> Disk:
        same = folder == self.settings.data_dir
        return self._disk if same else Disk.of(folder, self.settings.disk_reserve_mb)

    def _open_jobs(self, engine: Engine) -> Jobs:
        settings, name = self.settings, self._data_dir.name
        redis = settings.redis_url.get_secret_value() if settings.redis_url else None
        secret = webhooks.key(settings.webhook_secret.get_secret_value()) if settings.webhook_secret else None
        queue = Wakeups(engine.url, redis)
        deliveries = webhooks.Deliveries(
            self._database, secret, settings.webhook_private, settings.job_result_days
        )
        capacity = WorkerCapacity(
            worker=name,
            places=("", name, self._place("collections")),
            types=list(registry.TYPES),
            per_owner=settings.jobs_per_owner,
            lease=settings.job_lease,
        )
        worker = None
        if settings.workers:
            worker = Worker(
                self._database,
                self._services,
                self.register,
                capacity,
                settings.workers,
                deliveries,
                settings.job_result_days,
                self._jobs_disk,
                self._vitals,
                self.meter,
                self.limiter,
            )
        return Jobs(self._database, queue, worker, deliveries, settings.job_result_days, self._vitals)

    async def close(self) -> None:
        """Give running jobs back, and let go of every file and connection."""
        await self._opened.aclose()

    # Chat

    async def chat(self, request: schemas.ChatRequest) -> schemas.ChatCompletion | bytes:
        """Reply to a conversation (OpenAI's chat completions; the model rag/<collection> answers from it).

        Refused: a prompt, or max_tokens, beyond the model's context; schema with stream, response_format or n, or one that is
        no JSON Schema; a URL of an image that may not be fetched; what the model does not take, such as tools.
        """
        if request.model and request.model.startswith(rag_model.PREFIX):
            answer = await self.rag_query(rag_model.query(request))
            return schemas.ChatCompletion.model_validate(rag_model.completion(request.model, answer))
        if request.json_schema is not None:
            shaped = await structured.complete(self._chat, _wire(request), request.json_schema)
            return json.dumps(shaped).encode()
        return await self._chat.reply(_wire(request))

    def chat_stream(self, request: schemas.ChatRequest) -> AsyncIterator[bytes]:
        if request.model and request.model.startswith(rag_model.PREFIX):
            usage = bool(request.stream_options and request.stream_options.include_usage)
            return rag_model.chunks(request.model, self._answer(rag_model.query(request)), usage)
        return self._chat.events(_wire(request))

    # Responses

    async def respond(self, request: schemas.RespondRequest) -> bytes:
        """Respond to a conversation (OpenAI's responses; the model rag/<collection> answers from it).

        Refused: as of a chat; tools that would be run here, but for file_search; a conversation; background with store=false;
        the output of a function that nobody has called.
        """
        if request.background:
            return _response(await self._responses.begin(request))
        return _response(await self._responder.respond(await self._responder.begin(request)))

    async def respond_stream(self, request: schemas.RespondRequest) -> AsyncIterator[bytes]:
        if request.background:
            begun = await self._responses.begin(request)
            events = self._responses.events(_reach(), begun["id"])
        else:
            events = self._responder.stream(await self._responder.begin(request))
        async with aclosing(events):
            async for one in events:
                yield named_event(one)
        yield DONE

    async def _submit_response(self, params: dict[str, Any]) -> str:
        request = schemas.SubmitJobRequest(job_type="respond", params=params)
        return (await self.submit_job(request)).id

    async def get_response(self, request: schemas.GetResponseRequest) -> bytes:
        """Tell a response that is kept, be it still in the making."""
        return _response(await self._responses.get(_reach(), request.response_id))

    async def get_response_stream(self, request: schemas.GetResponseRequest) -> AsyncIterator[bytes]:
        events = self._responses.events(_reach(), request.response_id, request.starting_after)
        async with aclosing(events):
            async for one in events:
                yield named_event(one)
        yield DONE

    async def delete_response(self, request: schemas.StoredResponseRequest) -> schemas.ResponseDeleted:
        """Forget a response; one that is still in the making is stopped."""
        return await self._responses.delete(_reach(), request.response_id)

    async def cancel_response(self, request: schemas.StoredResponseRequest) -> bytes:
        """Stop a response that is made in the background.

        Refused: one that is not.
        """
        return _response(await self._responses.cancel(_reach(), request.response_id))

    async def list_input_items(self, request: schemas.ListInputItemsRequest) -> schemas.InputItemList:
        """List what a response was made from, a page at a time.

        Refused: after an item that it does not have.
        """
        return await self._responses.input_items(_reach(), request)

    async def models(self, request: schemas.Empty) -> schemas.ModelList:
        """List the models that the caller may use: chat, embedding, and rag/<collection> for each collection."""
        caller = tracing.current().caller
        found: list[schemas.Model] = []
        if "chat" in caller.can:
            found += await self._chat_models()
            found.append(schemas.Model(id=self._embedder.name, type="embedding"))
        found = [model for model in found if caller.models.fit(model.id)]
        if "read" in caller.can:
            await self.register.fresh()
            names = sorted(name.shown_to(caller) for name in self._collections.names() if self._visible(name))
            found += [schemas.Model(id=f"{rag_model.PREFIX}{name}", type="rag") for name in names]
        return schemas.ModelList(data=found)

    async def _chat_models(self) -> list[schemas.Model]:
        names = await self._chat.models()
        named = self._chat.name if self._chat.name in names else next(iter(names), None)
        context = (await self._chat.window()).context if names else None
        return [
            schemas.Model(
                id=name,
                type="chat",
                context_window=context if name == named else None,
                tools=self._chat.abstracts,
            )
            for name in names
        ]

    async def get_model(self, request: schemas.ModelRequest) -> schemas.Model:
        """Describe a model."""
        for model in (await self.models(schemas.Empty())).data:
            if model.id == request.model:
                return model
        raise NotFound(
            f"no model {request.model!r}: see the list of models", details={"model": request.model}
        )

    def _visible(self, name: QualifiedName) -> bool:
        """Whether the caller may know of that collection."""
        caller = tracing.current().caller
        its_own = caller.everywhere or name.project == caller.project
        return (its_own or name in self.register.shared_with(caller.project)) and caller.collections.fit(
            name.shown_to(caller)
        )

    async def _default_model(self, kind: Asks) -> str:
        """The one that answers where none is named; empty where that is not known."""
        if kind == "embedding":
            return self._embedder.name
        if kind == "rerank":
            return self.settings.rerank_model or ""
        return self._chat.name or next(iter(await self._chat.models()), "")

    # Embeddings

    async def embed(self, request: schemas.EmbedRequest) -> schemas.EmbeddingList | schemas.Block:
        """Embed texts as unit-length vectors, in their order (OpenAI's embeddings).

        Refused: dimensions and token ids that the model does not have; a text too long where too_long is error.
        """
        require(self._embedder, request.model)
        texts, dimensions = request.texts, request.dimensions
        if "" in texts:
            index = texts.index("")
            raise InvalidRequest(f"input.{index}: an empty text has no vector", details={"index": index})
        if texts:
            vectors = await self._embedder.embed(
                texts, dimensions=dimensions, too_long=request.too_long, role=request.input_type
            )
        else:
            vectors = await self._embedder.embed_tokens(request.token_ids, dimensions=dimensions)
        pack = partial(self._embedding_list, vectors, request.encoding_format)
        if request.encoding_format == "bytes" and vectors.values.nbytes <= COPIED:
            return pack()
        return await threads.processor(pack)

    def _embedding_list(
        self, vectors: EmbeddingBatch, encoding: str
    ) -> schemas.EmbeddingList | schemas.Block:
        tokens = vectors.total
        result = schemas.EmbeddingList(
            data=[],
            model=self._embedder.name,
            usage=schemas.EmbeddingUsage(prompt_tokens=tokens, total_tokens=tokens),
            cut=[schemas.CutText(**asdict(cut)) for cut in vectors.cut],
        )
        values = vectors.values.astype("<f4", order="C", copy=False)
        if encoding == "bytes":
            head = {**result.model_dump(exclude={"data"}), "dimension": values.shape[1]}
            return schemas.Block(b"".join((json.dumps(head).encode(), b"\n", values.data)))
        rows = [base64.b64encode(row).decode() for row in values] if encoding == "base64" else values.tolist()
        # Built without validation: these are our own rows, and there may be a million numbers in them.
        result.data = [
            schemas.Embedding.model_construct(object="embedding", index=index, embedding=row)
            for index, row in enumerate(rows)
        ]
        return result

    # Rerank

    async def rerank(self, request: schemas.RerankRequest) -> schemas.RerankResponse:
        """Order texts by how well they answer a query (Jina's and Cohere's rerank).

        Refused: a text that, with the query, is longer than the model takes.
        """
        texts = request.documents
        ranks = await self._reranker.rerank(request.query, texts, request.model)
        usage = schemas.RerankUsage(prompt_tokens=ranks.tokens, total_tokens=ranks.tokens)
        best = sorted(range(len(texts)), key=ranks.scores.__getitem__, reverse=True)[: request.top_n]
        results = [
            schemas.RerankResult(
                index=index,
                relevance_score=ranks.scores[index],
                document=schemas.RerankDocument(text=texts[index]) if request.return_documents else None,
            )
            for index in best
        ]
        return schemas.RerankResponse(model=ranks.model, results=results, usage=usage)

    # RAG

    async def rag_ingest(self, request: schemas.RagIngestRequest) -> schemas.IngestReport:
        """Put documents into a collection; what is stored already costs nothing.

        Refused: chunk_overlap that is not smaller than chunk_size; metadata beyond its limits.
        """
        return await self._ingest(request, request.documents)

    async def rag_ingest_stream(self, request: schemas.RagIngestRequest) -> AsyncIterator[bytes]:
        async for item in _with_progress(lambda tell: self._ingest(request, request.documents, (), tell)):
            yield event(item)
        yield DONE

    async def rag_ingest_files(self, request: schemas.RagIngestFilesRequest) -> schemas.IngestReport:
        """Put files into a collection: text, Markdown, HTML, PDF, Office, tables, notebooks and mail.

        Refused: chunk_overlap that is not smaller than chunk_size; content that is not base64; a name without letters. A file
        that cannot be read is in the report's `failed`.
        """
        return await self._ingest(request, self._incoming(request), request.keep)

    async def rag_ingest_files_stream(self, request: schemas.RagIngestFilesRequest) -> AsyncIterator[bytes]:
        parsed = self._incoming(request)
        async for item in _with_progress(lambda tell: self._ingest(request, parsed, request.keep, tell)):
            yield event(item)
        yield DONE

    def _incoming(self, request: schemas.RagIngestFilesRequest) -> Incoming:
        return Incoming(from_files(self._parsers, request.files), len(request.files))

    async def _ingest(
        self,
        request: schemas.RagIngestRequest | schemas.RagIngestFilesRequest,
        documents: list[str | schemas.Document] | Incoming,
        keep: Sequence[str] = (),
        progress: StagesProgress = silent,
    ) -> schemas.IngestReport:
        asked = (_named(request.collection), request.chunk_size, request.chunk_overlap)
        if not request.plan:
            collection = await self._collections.get_or_create(*asked)
            return await ingest(
                collection, documents, self._embedder, sync=request.sync, keep=keep, progress=progress
            )
        there: Collection | None = None
        with suppress(NotFound):
            there = await self._collections.matching(*asked)
        return await plan(
            there,
            documents,
            self._embedder.uncached,
            chunking=there.chunking if there else chunking(request.chunk_size, request.chunk_overlap),
            sync=request.sync,
            keep=keep,
            progress=progress,
        )

    async def rag_search(self, request: schemas.RagSearchRequest) -> schemas.SearchResult:
        """Find the passages nearest to a query.

        Refused: filters that are none, or more than there may be.
        """
        candidates = await self._retriever.candidates(request, request.query)
        return schemas.SearchResult(hits=[it.hit for it in candidates if it.dropped is None])

    async def rag_query(self, request: schemas.RagQueryRequest) -> schemas.QueryAnswer:
        """Answer a question from a collection's documents, with sources.

        Refused: filters that are none, or more than there may be; a question beyond the model's context.
        """
        return await answers.whole(self._answer(request))

    async def rag_query_stream(self, request: schemas.RagQueryRequest) -> AsyncIterator[bytes]:
        async for item in self._answer(request):
            yield event(item)
        yield DONE

    def _answer(self, request: schemas.RagQueryRequest) -> AsyncIterator[dict[str, Any]]:
        links = self.settings.answer_links
        return answers.stream(self._chat, self._sifter, self._retriever, request, links=links)

    async def evaluate(self, request: schemas.EvaluateRequest) -> schemas.Evaluation:
        """Measure how well a collection's search finds the documents that answer some questions.

        Refused: gold documents that are not in the collection, or too many of all questions together.
        """
        return await self._evaluate(request, lambda done, total, stage: None)

    async def evaluate_stream(self, request: schemas.EvaluateRequest) -> AsyncIterator[bytes]:
        async for item in _with_progress(lambda progress: self._evaluate(request, progress)):
            yield event(item)
        yield DONE

    async def _evaluate(self, request: schemas.EvaluateRequest, progress: Progress) -> schemas.Evaluation:
        from .knowledge.retrieval.evaluation import evaluate

        collection = await self._collections.get(_named(request.collection))
        return await evaluate(
            collection, request.questions, request.k, self._embedder, self._reranker, progress
        )

    # Collections and documents

    async def list_collections(self, request: schemas.ListCollectionsRequest) -> schemas.CollectionList:
        """List the collections."""
        await self.register.fresh()
        infos = await self._collections.infos(self._visible, counts=request.counts)
        return schemas.CollectionList(collections=sorted(infos, key=lambda info: info.name))

    async def create_collection(self, request: schemas.CreateCollectionRequest) -> schemas.CollectionInfo:
        """Make an empty collection.

        Refused: chunk_overlap that is not smaller than chunk_size; indexes of too many fields; engine without a Qdrant server;
        a parser that there is not.
        """
        await self._collections.create(
            _named(request.collection),
            request.chunk_size,
            request.chunk_overlap,
            request.indexes or {},
            request.engine.given if request.engine else {},
            request.parser,
        )
        return await self._collections.info(_named(request.collection))

    async def get_collection(self, request: schemas.CollectionRequest) -> schemas.CollectionInfo:
        """Describe a collection."""
        return await self._collections.info(_named(request.collection))

    async def set_indexes(self, request: schemas.SetIndexesRequest) -> schemas.CollectionInfo:
        """Make, change or remove indexes of metadata fields.

        Refused: indexes of too many fields.
        """
        return await self._collections.set_indexes(_named(request.collection), request.indexes)

    async def delete_collection(self, request: schemas.CollectionRequest) -> schemas.CollectionDeleted:
        """Remove a collection with all its documents."""
        documents = await self._collections.delete(_named(request.collection))
        await self.register.look()  # a share goes with it
        return schemas.CollectionDeleted(deleted=request.collection, documents=documents)

    async def reindex_collection(self, request: schemas.ReindexRequest) -> schemas.ReindexReport:
        """Embed a collection's texts anew, with the model set now.

        Refused: another model than that.
        """
        return await reindex(self._collections, _named(request.collection), model=request.model)

    async def reindex_collection_stream(self, request: schemas.ReindexRequest) -> AsyncIterator[bytes]:
        def work(progress: Progress) -> Awaitable[schemas.ReindexReport]:
            return reindex(
                self._collections, _named(request.collection), model=request.model, progress=progress
            )

        async for item in _with_progress(work):
            yield event(item)
        yield DONE

    async def export_collection(self, request: schemas.ExportRequest) -> schemas.CollectionExport:
        """Give a collection's chunks with their vectors, a page at a time.

        Refused: a cursor that no earlier page gave.
        """
        return await export_page(self._collections, _named(request.collection), request.limit, request.cursor)

    async def import_collection(self, request: schemas.ImportRequest) -> schemas.ImportedCollection:
        """Take in an exported collection, a page at a time; it is there with the last.

        Refused: a vector that is not base64 of float32, of the manifest's dimension, finite; a number that is not less than its
        total; a document of which a chunk is missing or there twice; metadata or a place beyond their limits.
        """
        return await self._imports.take(_named(request.collection), request)

    async def list_documents(self, request: schemas.ListDocumentsRequest) -> schemas.DocumentList:
        """List a collection's documents, a page at a time.

        Refused: a cursor that no earlier page gave.
        """
        collection = await self._collections.get(_named(request.collection))
        page = await collection.documents(request.limit, request.cursor)
        documents = [
            schemas.DocumentInfo.model_construct(
                id=head.document_id, chunks=head.total, metadata=head.metadata
            )
            for head in page.heads
        ]
        return schemas.DocumentList(documents=documents, cursor=page.cursor)

    async def list_chunks(self, request: schemas.ListChunksRequest) -> schemas.ChunkList:
        """List a collection's chunks, a page at a time: all, some documents', or those that filters select.

        Refused: a cursor that no earlier page gave; filters that are none, or more than there may be.
        """
        where = conditions(request.filters)
        collection = await self._collections.get(_named(request.collection))
        if where:
            await collection.prepare(where)
        page = await collection.passages(request.limit, request.cursor, request.ids, where)
        chunks = [
            schemas.ChunkInfo.model_construct(
                document_id=chunk.document_id,
                chunk=chunk.number,
                text=chunk.text,
                metadata={**chunk.place, **chunk.metadata},
            )
            for chunk in page.heads
        ]
        return schemas.ChunkList(chunks=chunks, cursor=page.cursor)

    async def delete_documents(self, request: schemas.DeleteDocumentsRequest) -> schemas.DocumentsDeleted:
        """Remove documents from a collection."""
        collection = await self._collections.get(_named(request.collection))
        return schemas.DocumentsDeleted(deleted=await collection.delete(request.ids, flush=True))

    # Analysis

    async def analyze_document(self, request: schemas.AnalyzeRequest) -> schemas.Analysis:
        """Tell a document's sentiment, key points and summary.

        Refused: a text that the model's server does not take.
        """
        await threads.files(loading.llamaindex)
        from .analysis.workflow import analyze

        return await analyze(
            self._chat, self._embedder, self._judge, request.text, self.settings.answer_links
        )

    # Jobs

    async def submit_job(self, request: schemas.SubmitJobRequest) -> schemas.JobId:
        """Hand over long work.

        Refused: params that do not fit the type; a moment that is none; a webhook that may not be called, or without
        WEBHOOK_SECRET on the server.
        """
        if request.webhook is not None:
            secret = self._jobs.deliveries.secret
            webhooks.check(request.webhook, secret, self.settings.webhook_private)
        await self._check_jobs()
        job = replace(
            await self._new_job(request.job_type, request.params, request.priority),
            run_at=request.moment,
            depends_on=request.depends_on or (),
            idempotency_key=request.idempotency_key,
            webhook=request.webhook,
        )
        return schemas.JobId(id=await self._jobs.submit(job))

    async def _check_jobs(self) -> None:
        """Raises Overloaded if the caller's project has as many jobs as it may."""
        caller = tracing.current().caller
        if (most := self.limiter.jobs_of(caller.project)) is None:
            return
        if await self._database.read(reading.open_jobs, caller.project) >= most:
            error = Overloaded(
                f"this project's limit of {most} jobs that wait or are at work is reached: try again later",
                details={"limit": str(most), "what": "jobs", "retry_after": 5},
            )
            self.limiter.reached(error, caller)
            raise error

    async def _new_job(self, job_type: str, params: dict[str, Any], priority: int) -> NewJob:
        caller = tracing.current().caller
        check = partial(registry.checked, job_type, params, self._services)
        large = any(isinstance(value, list) and len(value) > 1000 for value in params.values())
        kind, valid = await threads.processor(check) if large else check()  # would hold up the loop
        if self._jobs_disk is not None:
            self._jobs_disk.require(SMALL + 2 * len(valid))
        return NewJob(
            type=kind.name,
            params=valid,
            owner=caller.project,
            key=caller.key,
            place=self._place(kind.where),
            priority=priority,
        )

    async def _agent_job(self, job_type: str, params: dict[str, Any]) -> NewJob:
        await self._check_jobs()
        return await self._new_job(job_type, params, 0)

    def _place(self, where: Where) -> str:
        """The name of the place that a job of this kind is bound to."""
        if where == "anywhere":
            return ""
        shared = where == "collections" and self.settings.qdrant_url is not None
        return "qdrant" if shared else self._data_dir.name

    async def get_job_status(self, request: schemas.JobRequest) -> schemas.JobStatus:
        """Tell how far a job is, and its result once it is there."""
        return await self._jobs.status(_reach(), request.job_id)

    async def list_jobs(self, request: schemas.ListJobsRequest) -> schemas.JobList:
        """List the newest jobs, without their results."""
        jobs = await self._jobs.listed(_reach(), request.status, request.job_type, request.limit)
        return schemas.JobList(jobs=jobs)

    async def get_job_result(self, request: schemas.JobResultRequest) -> schemas.JobResult | schemas.Block:
        """Read a completed job's result, a page of rows at a time."""
        head, total, chunks = await self._jobs.page(_reach(), request.job_id, request.offset, request.limit)
        if request.encoding_format == "bytes" and chunks and chunks[0].dimension:
            about = {
                "result": head,
                "offset": request.offset,
                "total": total,
                "dimension": chunks[0].dimension,
            }
            vectors = b"".join(chunk.data for chunk in chunks)
            return schemas.Block(json.dumps(about).encode() + b"\n" + vectors)
        rows = await threads.processor(results.values, chunks)
        return schemas.JobResult(result=head, offset=request.offset, total=total, rows=rows)

    async def get_job_result_stream(self, request: schemas.JobResultRequest) -> AsyncIterator[bytes]:
        offset, total = request.offset, request.offset + 1
        while offset < total:
            _, total, chunks = await self._jobs.page(_reach(), request.job_id, offset, request.limit)
            yield await threads.processor(results.text, chunks)
            offset += request.limit

    async def job_events(self, request: schemas.JobEventsRequest) -> schemas.JobEvents:
        """Watch a job: server-sent events, one each time that it has changed, until it ends."""
        version, job = await self._jobs.look(_reach(), request.job_id)
        events = [schemas.JobEvent(id=version, job=job)] if version > request.last_event_id else []
        return schemas.JobEvents(events=events)

    async def job_events_stream(self, request: schemas.JobEventsRequest) -> AsyncIterator[bytes]:
        await self._jobs.look(_reach(), request.job_id)  # raises NotFound
        yield HEARTBEAT  # at once: whoever comes back for what is new learns that we are there
        async for version, job in self._jobs.watch(_reach(), request.job_id, request.last_event_id):
            yield event({"id": version, "job": job.model_dump()}, version)
        yield DONE

    async def cancel_job(self, request: schemas.JobRequest) -> schemas.JobStatus:
        """Stop a job."""
        return await self._jobs.cancel(_reach(), request.job_id)

    async def retry_job(self, request: schemas.JobRequest) -> schemas.JobStatus:
        """Have a job that failed or was cancelled go on from its last checkpoint."""
        return await self._jobs.retry(tracing.current().caller, request.job_id)

    # Agents

    async def list_agents(self, request: schemas.Empty) -> schemas.AgentList:
        """List the agents and the tools that there are."""
        return self._agents.listed()

    async def run_agent(self, request: schemas.RunAgentRequest) -> schemas.AgentRun:
        """Have an agent do a task, with tools, over collections.

        Refused: an agent, or a tool, that there is not; an input that does not fit the agent.
        """
        return await self._agents.run(request)

    async def run_agent_stream(self, request: schemas.RunAgentRequest) -> AsyncIterator[bytes]:
        async for item in self._agents.events(request):
            yield event(item)
        yield DONE

    async def approve(self, request: schemas.ApproveRequest) -> schemas.JobStatus:
        """Have a run that waits for it do what it asked for, and go on."""
        return await self._agents.decide(request.run_id, True)

    async def reject(self, request: schemas.RejectRequest) -> schemas.JobStatus:
        """Refuse what a run waits for; it goes on without."""
        return await self._agents.decide(request.run_id, request.why)

    # Schedules

    async def set_schedule(self, request: schemas.SetScheduleRequest) -> schemas.Schedule:
        """Submit a job again and again, at the times of a cron line; replaces a schedule of that name.

        Refused: a cron line that is none, or never due; a time zone that there is not; params that do not fit the type.
        """
        job = await self._new_job(request.job_type, request.params, request.priority)
        return await self._database.write(schedules.put, request.name, request.cron, request.timezone, job)

    async def list_schedules(self, request: schemas.Empty) -> schemas.ScheduleList:
        """List the caller's schedules."""
        found = await self._database.read(schedules.listed, tracing.current().caller.project)
        return schemas.ScheduleList(schedules=found)

    async def delete_schedule(self, request: schemas.ScheduleRequest) -> schemas.ScheduleDeleted:
        """End a schedule; jobs that it has submitted go on."""
        await self._database.write(schedules.remove, tracing.current().caller.project, request.name)
        return schemas.ScheduleDeleted(deleted=request.name)

    # Keys, and what projects share

    async def share_collection(self, request: schemas.ShareRequest) -> schemas.Share:
        """Let another project read a collection, or write to it, too; or share it otherwise than before.

        Refused: the collection's own project.
        """
        name = _named(request.collection)
        if request.with_project == name.project:
            raise InvalidRequest("with_project: it is the collection's own project, which may do all anyway")
        await self._collections.get(name)  # raises NotFound
        share = shares.Share(name, request.with_project, request.can, time.time())
        await threads.database(self._write_shares, shares.put, share)
        return await self._shared(share)

    async def unshare_collection(self, request: schemas.UnshareRequest) -> schemas.Share:
        """Share a collection with a project no more."""
        name = _named(request.collection)
        await self._collections.get(name)  # raises NotFound
        ended = await threads.database(self._write_shares, shares.remove, name, request.with_project)
        return await self._shared(ended)

    async def _shared(self, share: shares.Share) -> schemas.Share:
        await self.register.look()
        return _described(share)

    def _write_shares(self, work: Callable[..., Any], *args: Any) -> Any:
        with database.transaction(self._manifests) as connection:
            return work(connection, *args)

    async def list_shares(self, request: schemas.Empty) -> schemas.ShareList:
        """List the collections that the caller's project shares, and those that are shared with it."""
        await self.register.look()
        caller = tracing.current().caller
        found = [
            _described(share)
            for share in self.register.shares
            if caller.reach in (None, share.collection.project, share.with_project)
            and caller.collections.fit(share.collection.shown_to(caller))
        ]
        return schemas.ShareList(shares=found)

    async def create_key(self, request: schemas.CreateKeyRequest) -> schemas.CreatedKey:
        """Make an API key, which is told this once.

        Refused: what is no rate.
        """
        new = issuing.new_key(tracing.current().caller, request)
        key, row = await self._database.write(keys.create, new)
        tracing.current().target = row.id
        await self.register.look()
        return issuing.created(key, row)

    async def list_keys(self, request: schemas.ListKeysRequest) -> schemas.KeyList:
        """List the API keys of the caller's project, or of all to the administrator; not what they are."""
        rows = await self._database.read(keys.listed, _reach() or request.project)
        found = [issuing.described(row) for row in rows if request.project in (None, row.project)]
        return schemas.KeyList(keys=found)

    async def rotate_key(self, request: schemas.RotateKeyRequest) -> schemas.CreatedKey:
        """Give an API key another secret, which is told this once; the one before counts for a while."""
        caller, moment = tracing.current().caller, time.time()
        await self.register.look()
        if (there := self.register.key(caller.reach, request.key)) is not None:
            issuing.require_within(there, caller)
        until = moment + issuing.seconds(request.overlap)
        key, row = await self._database.write(keys.rotate, caller.reach, request.key, until, moment)
        await self.register.look()
        return issuing.created(key, row)

    async def revoke_key(self, request: schemas.KeyRequest) -> schemas.KeyInfo:
        """Have an API key count no more, from the next second on."""
        row = await self._database.write(keys.revoke, _reach(), request.key, time.time())
        await self.register.look()
        return issuing.described(row)

    # Audit and usage

    async def audit(self, request: schemas.AuditRequest) -> schemas.AuditLog:
        """List who changed keys, deleted, shared, exported, imported or was refused, the newest first.

        Refused: since that is neither days nor a date.
        """
        await self.audited.settled()
        reach = tracing.current().caller.reach
        rows = await self._database.read(
            audit.read, reach, request.first, request.action, request.before, request.limit
        )
        return schemas.AuditLog(entries=[schemas.AuditEntry.model_validate(row) for row in rows])

    async def usage(self, request: schemas.UsageRequest) -> schemas.UsageReport:
        """Tell who used how much: requests, errors, tokens, milliseconds and chunks, by project, key, model, operation and day.

        Refused: anything else in by; since and until that are neither days nor dates.
        """
        await self._usage.flush()
        since, until = request.days
        rows = await self._database.read(
            usage.read,
            tracing.current().caller.reach,
            request.by.split(","),
            since,
            until,
            self.settings.usage_prices,
        )
        return schemas.UsageReport(
            since=since, until=until, rows=[schemas.UsageRow.model_validate(row) for row in rows]
        )

    # Health

    def _parts(self) -> dict[str, str]:
        return {"disk": self._disk.problem or "ok", **self._chat.servers(), **self._vitals.parts()}

    async def state(self) -> State:
        """How full and how busy everything is, for metrics."""
        jobs, ages = await self._database.read(reading.waiting)
        file = self.settings.data_dir / "embeddings.db"
        return State(
            jobs=jobs,
            ages=ages,
            collections=self._collections.open_count,
            disk_free=self._disk.free,
            disk_reserve=self._disk.reserve,
            cache_bytes=file.stat().st_size if file.exists() else 0,
            cache_hits=self._embedder.hits,
            cache_misses=self._embedder.misses,
            tokens=self.meter.tokens(),
            upstream_errors=dict(self.meter.failures),
            limits=self.limiter.reached_by_kind(),
            parts=self._parts(),
        )

    async def health(self, request: schemas.Empty) -> schemas.Health:
        """Tell that the backend is ready, and which models it would ask."""
        # What fails without room; with Qdrant and PostgreSQL elsewhere, there is only a cache in the data directory.
        vectors = self._disk if self.settings.qdrant_url is None else None
        disks = {disk for disk in (vectors, self._jobs_disk) if disk is not None}
        problems = [problem for disk in disks if (problem := disk.problem)]
        problems += [f"{part}: {error}" for part, error in self._vitals.problems().items()]
        if problems:  # the database may be well again, with nobody writing
            self._database.write(lambda connection: connection.execute(text("SELECT 1")), durable=False)
        return schemas.Health(
            status="failing" if problems else "ok",
            problems=problems,
            parts=self._parts(),
            version=__version__,
            chat=self._chat.name,
            embeddings=self._embedder.name,
            own_file_types=list(plugins.READERS),
        )

    async def doctor(self, request: schemas.Empty) -> schemas.Diagnosis:
        """Check each model server, the embedded models and the data directory."""
        checks = await doctor.examine(
            self.settings,
            self._chat,
            self._embedder.model,
            self._judge,
            self._reranker,
            self._qdrant,
            self._disk,
            self._collections.lacking_parsers(),
        )
        keys_of_all = self.register.standing_keys
        if tracing.current().caller.everywhere and (keys_of_all or self.limiter.hits):
            checks.append(doctor.access(keys_of_all, self.limiter.hits))
        return schemas.Diagnosis(ok=all(check.ok for check in checks), version=__version__, checks=checks)


def _response(response: dict[str, Any]) -> bytes:
    return json.dumps(response).encode()


def _described(share: shares.Share) -> schemas.Share:
    return schemas.Share(
        collection=share.collection.shown_to(tracing.current().caller),
        with_project=share.with_project,
        can=share.can,
        created_at=issuing.stamp(share.created_at),
    )


def _named(name: str) -> QualifiedName:
    """Which collection the caller means; raises Forbidden if nobody decided that it may be touched."""
    return tracing.current().collection(name)


def _reach() -> str | None:
    """The project of whose jobs and keys the caller may know; None for all."""
    return tracing.current().caller.reach


def vector_engines(settings: Settings, writer: str, disk: Disk) -> tuple[QdrantEdge, QdrantServer | None]:
    """That of this process, and the server, if one is set: new collections are made there then."""
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


def _wire(request: schemas.ChatRequest) -> dict[str, Any]:
    """The fields given that are passed on, as OpenAI's wire has them."""
    return request.model_dump(exclude_unset=True, exclude_none=True, by_alias=True)


async def _with_progress(
    work: Callable[[Callable[..., None]], Awaitable[schemas.Response]],
) -> AsyncIterator[dict[str, Any]]:
    """`{"progress": {…}}` while the work goes on, `{"report": {…}}` at its end. Leaving early cancels the work."""
    items: asyncio.Queue[dict[str, Any] | BaseException] = asyncio.Queue()
    scope = CancelScope()

    def progress(done: int, total: int, stage: str, stages: Stages | None = None) -> None:
        further = {} if stages is None else {"stages": stages}
        items.put_nowait({"progress": {"done": done, "total": total, "stage": stage, **further}})

    async def run() -> None:
        with scope:
            try:
                with panics.caught():
                    items.put_nowait({"report": (await work(progress)).model_dump()})
            except Exception as error:
                items.put_nowait(error)

    def ended(task: asyncio.Task[None]) -> None:
        # Cancelled from elsewhere, it has put nothing, and whoever waits must not wait for ever.
        items.put_nowait(BackendError("the work was stopped before its end: try again", details={}))

    running = asyncio.create_task(run())
    running.add_done_callback(ended)
    try:
        while True:
            item = await items.get()
            if isinstance(item, BaseException):
                raise item
            yield item
            if "report" in item:
                return
    finally:
        scope.cancel()
        with CancelScope(shield=True):
            await asyncio.wait([running])
