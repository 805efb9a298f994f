"""The core: one method for each operation, which connects the packages. It knows nothing of HTTP, paths or JSON."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING

from . import health, json_writing, progress, schemas, sse, tracing
from .compose import Components
from .inference import packing
from .inference.rerank import reranked
from .jobs import schedules
from .knowledge.collections import documents, pages
from .knowledge.collections.collection import Collection
from .knowledge.collections.rebuild import reindex
from .knowledge.collections.transfer import export_page
from .knowledge.retrieval.evaluation import evaluate
from .settings import Settings

if TYPE_CHECKING:
    from .access.caller import Caller
    from .access.names import QualifiedName


class Backend:
    """Open it with `await Backend.open(settings)`, on the event loop that will use it, and close it when done."""

    def __init__(self, parts: Components) -> None:
        self.parts = parts
        parts.agent_services.operations = self
        self.settings = parts.settings
        self.register = parts.register
        self.limiter = parts.limiter
        self.meter = parts.meter
        self.audited = parts.audited
        self._chat = parts.chat
        self._embedder = parts.embedder
        self._collections = parts.collections
        self._database = parts.database
        self._jobs = parts.jobs

    @classmethod
    async def open(cls, settings: Settings, *, forwards: bool = False) -> Backend:
        """Open a backend. With `forwards`, chat is passed on as its server sends it, unread, for callers over
        HTTP.

        Raises Conflict if another process holds the data directory, and BackendError if a setting cannot
        work.
        """
        parts = await Components.open(settings, forwards=forwards)
        backend = cls(parts)
        await parts.start()  # after construction, because jobs may call it
        return backend

    async def close(self) -> None:
        """Hand running jobs back, and release every file and connection."""
        await self.parts.close()

    # Chat

    async def chat(self, request: schemas.ChatRequest) -> schemas.ChatCompletion | bytes:
        """Reply to a conversation (OpenAI's chat completions; the model rag/<collection> answers from it).

        Refused: a prompt, or max_tokens, beyond the model's context; schema with stream, response_format or n, or one that is
        not a JSON Schema; an image URL that may not be fetched; what the model does not take, such as tools.
        """
        return await self.parts.chatting.reply(request)

    def chat_stream(self, request: schemas.ChatRequest) -> AsyncIterator[bytes]:
        return self.parts.chatting.events(request)

    # Responses

    async def respond(self, request: schemas.RespondRequest) -> bytes:
        """Respond to a conversation (OpenAI's responses; the model rag/<collection> answers from it).

        Refused: what a chat refuses; tools that would run on the server, except file_search; a conversation;
        background with store=false; the output of a function that was not called.
        """
        if request.background:
            return await json_writing.dumps(await self.parts.responses.begin(request))
        return await json_writing.dumps(
            await self.parts.responder.respond(await self.parts.responder.begin(request))
        )

    async def respond_stream(self, request: schemas.RespondRequest) -> AsyncIterator[bytes]:
        if request.background:
            begun = await self.parts.responses.begin(request)
            items = self.parts.responses.events(_reach(), begun["id"])
        else:
            items = self.parts.responder.stream(await self.parts.responder.begin(request))
        async with aclosing(sse.events(items, sse.named_event)) as events:
            async for event in events:
                yield event

    async def get_response(self, request: schemas.GetResponseRequest) -> bytes:
        """Read a stored response, finished or not."""
        return await json_writing.dumps(await self.parts.responses.get(_reach(), request.response_id))

    def get_response_stream(self, request: schemas.GetResponseRequest) -> AsyncIterator[bytes]:
        items = self.parts.responses.events(_reach(), request.response_id, request.starting_after)
        return sse.events(items, sse.named_event)

    async def delete_response(self, request: schemas.StoredResponseRequest) -> schemas.ResponseDeleted:
        """Delete a response; an unfinished one is stopped."""
        return await self.parts.responses.delete(_reach(), request.response_id)

    async def cancel_response(self, request: schemas.StoredResponseRequest) -> bytes:
        """Stop a response that runs in the background.

        Refused: a response that does not run in the background.
        """
        return await json_writing.dumps(await self.parts.responses.cancel(_reach(), request.response_id))

    async def list_input_items(self, request: schemas.ListInputItemsRequest) -> schemas.InputItemList:
        """List a response's input items, a page at a time.

        Refused: an `after` that names none of its items.
        """
        return await self.parts.responses.input_items(_reach(), request)

    async def models(self, request: schemas.Empty) -> schemas.ModelList:
        """List the models that the caller may use: chat, embedding, and rag/<collection> for each collection."""
        return schemas.ModelList(data=await self.parts.models.of(_caller()))

    async def get_model(self, request: schemas.ModelRequest) -> schemas.Model:
        """Describe a model."""
        return await self.parts.models.one(_caller(), request.model)

    # Embeddings

    async def embed(self, request: schemas.EmbedRequest) -> schemas.EmbeddingList | schemas.Block:
        """Embed texts as unit-length vectors, in their order (OpenAI's embeddings).

        Refused: dimensions and token ids that the model does not take; a text that is too long, if too_long
        is error.
        """
        return await packing.embed(self._embedder, request)

    # Rerank

    async def rerank(self, request: schemas.RerankRequest) -> schemas.RerankResponse:
        """Order texts by how well they answer a query (Jina's and Cohere's rerank).

        Refused: a text that, with the query, is longer than the model takes.
        """
        return await reranked(self.parts.reranker, request)

    # RAG

    async def rag_ingest(self, request: schemas.RagIngestRequest) -> schemas.IngestReport:
        """Put documents into a collection; unchanged ones cost nothing.

        Refused: chunk_overlap that is not smaller than chunk_size; metadata beyond its limits.
        """
        return await self.parts.ingestion.documents(request)

    def rag_ingest_stream(self, request: schemas.RagIngestRequest) -> AsyncIterator[bytes]:
        return progress.events(partial(self.parts.ingestion.documents, request))

    async def rag_ingest_files(self, request: schemas.RagIngestFilesRequest) -> schemas.IngestReport:
        """Put files into a collection: text, Markdown, HTML, PDF, Office, tables, notebooks and mail.

        Refused: chunk_overlap that is not smaller than chunk_size; content that is not base64; a name without
        letters. Files that cannot be read do not fail the request: they are in the report's `failed`.
        """
        return await self.parts.ingestion.files(request)

    def rag_ingest_files_stream(self, request: schemas.RagIngestFilesRequest) -> AsyncIterator[bytes]:
        return progress.events(partial(self.parts.ingestion.files, request))

    async def rag_search(self, request: schemas.RagSearchRequest) -> schemas.SearchResult:
        """Find the passages nearest to a query.

        Refused: invalid or too many filters; neither query nor vector; a vector of another dimension than the collection's,
        or all zeros, or with options that need a query's words.
        """
        return await self.parts.retriever.search(request)

    async def rag_query(self, request: schemas.RagQueryRequest) -> schemas.QueryAnswer:
        """Answer a question from a collection's documents, with sources.

        Refused: invalid or too many filters; a question beyond the model's context.
        """
        return await self.parts.answering.answered(request)

    def rag_query_stream(self, request: schemas.RagQueryRequest) -> AsyncIterator[bytes]:
        return sse.events(self.parts.answering.piecewise(request))

    async def evaluate(self, request: schemas.EvaluateRequest) -> schemas.Evaluation:
        """Measure how well a collection's search finds the documents that answer some questions.

        Refused: gold documents that are not in the collection, or too many in all.
        """
        return await evaluate(self.parts.retriever, request)

    def evaluate_stream(self, request: schemas.EvaluateRequest) -> AsyncIterator[bytes]:
        return progress.events(partial(evaluate, self.parts.retriever, request))

    # Collections and documents

    async def list_collections(self, request: schemas.ListCollectionsRequest) -> schemas.CollectionList:
        """List the collections."""
        await self.register.fresh()
        visible = partial(self.register.visible, caller=_caller())
        infos = await self._collections.infos(visible, counts=request.counts)
        return schemas.CollectionList(collections=sorted(infos, key=lambda info: info.name))

    async def create_collection(self, request: schemas.CreateCollectionRequest) -> schemas.CollectionInfo:
        """Create an empty collection.

        Refused: chunk_overlap that is not smaller than chunk_size; indexes of too many fields; engine options
        without a Qdrant server; an unknown parser.
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
        """Create, change or remove indexes of metadata fields.

        Refused: indexes of too many fields, and removing one that is not there.
        """
        return await self._collections.set_indexes(_named(request.collection), request.indexes)

    async def delete_collection(self, request: schemas.CollectionRequest) -> schemas.CollectionDeleted:
        """Delete a collection with all its documents."""
        documents = await self._collections.delete(_named(request.collection))
        await self.register.look()  # its shares are gone, too
        return schemas.CollectionDeleted(deleted=request.collection, documents=documents)

    async def reindex_collection(self, request: schemas.ReindexRequest) -> schemas.ReindexReport:
        """Embed a collection's texts again, with the current model.

        Refused: any other model.
        """
        return await reindex(self._collections, _named(request.collection), model=request.model)

    def reindex_collection_stream(self, request: schemas.ReindexRequest) -> AsyncIterator[bytes]:
        name = _named(request.collection)
        return progress.events(
            lambda tell: reindex(self._collections, name, model=request.model, progress=tell)
        )

    async def export_collection(self, request: schemas.ExportRequest) -> schemas.CollectionExport:
        """Export a collection's chunks with their vectors, a page at a time.

        Refused: a cursor that is not from an earlier page.
        """
        return await export_page(self._collections, _named(request.collection), request.limit, request.cursor)

    async def import_collection(self, request: schemas.ImportRequest) -> schemas.ImportedCollection:
        """Import an exported collection, a page at a time; it exists when the last page has come.

        Refused: a vector that is not base64 of finite float32 of the manifest's dimension; a number that is not less than its
        total; a document with a chunk missing or given twice; metadata or a place beyond their limits.
        """
        return await self.parts.imports.take(_named(request.collection), request)

    async def list_documents(self, request: schemas.ListDocumentsRequest) -> schemas.DocumentList:
        """List a collection's documents, a page at a time.

        Refused: a cursor that is not from an earlier page.
        """
        return await pages.documents(await self._collection(request.collection), request)

    async def list_chunks(self, request: schemas.ListChunksRequest) -> schemas.ChunkList:
        """List a collection's chunks by page: all, those of some documents, or those that filters match.

        Refused: a cursor that is not from an earlier page; invalid or too many filters.
        """
        return await pages.chunks(await self._collection(request.collection), request)

    async def get_document(self, request: schemas.GetDocumentRequest) -> schemas.StoredDocument:
        """Read a document's text and metadata, as they are stored."""
        return await documents.stored(await self._collection(request.collection), request.id)

    async def delete_documents(self, request: schemas.DeleteDocumentsRequest) -> schemas.DocumentsDeleted:
        """Delete documents of a collection, by their ids or by a filter.

        Refused: ids and filters together, or neither; invalid or too many filters.
        """
        return await documents.delete(await self._collection(request.collection), request)

    def collections_known(self) -> list[str]:
        """The collections that the caller may list, as it writes them. Very new ones of other processes may
        be missing."""
        caller = _caller()
        if "read" not in caller.can:
            return []
        names = self._collections.names()
        return [name.shown_to(caller) for name in names if self.register.visible(name, caller)]

    async def _collection(self, name: str) -> Collection:
        """The collection of that name. Raises NotFound."""
        return await self._collections.get(_named(name))

    # Analysis

    async def analyze_document(self, request: schemas.AnalyzeRequest) -> schemas.Analysis:
        """Analyse a document: sentiment, key points and summary.

        Refused: a text that the model's server does not take.
        """
        from .analysis.document import analyze

        judge, links = self.parts.judge, self.settings.answer_links
        return await analyze(self._chat, self._embedder, judge, request.text, links)

    # Jobs

    async def submit_job(self, request: schemas.SubmitJobRequest) -> schemas.JobId:
        """Submit a job.

        Refused: params that do not fit the type; an invalid time; a webhook that may not be called, or without
        WEBHOOK_SECRET on the server.
        """
        return await self.parts.submission.submit(_caller(), request)

    async def batch_chat(self, request: schemas.BatchChatRequest) -> schemas.BatchChat:
        """Ask a chat model many prompts in one job, or estimate what that would take.

        Refused: no prompts.
        """
        return await self.parts.chat_batches.begin(request)

    async def get_job_status(self, request: schemas.JobRequest) -> schemas.JobStatus:
        """Get a job's status and progress, and its result when there is one."""
        return await self._jobs.status(_reach(), request.job_id)

    async def list_jobs(self, request: schemas.ListJobsRequest) -> schemas.JobList:
        """List the newest jobs, without their results."""
        jobs = await self._jobs.listed(_reach(), request.status, request.job_type, request.limit)
        return schemas.JobList(jobs=jobs)

    async def get_job_result(self, request: schemas.JobResultRequest) -> schemas.JobResult | schemas.Block:
        """Read a completed job's result, a page of rows at a time."""
        return await self._jobs.result(_reach(), request)

    def get_job_result_stream(self, request: schemas.JobResultRequest) -> AsyncIterator[bytes]:
        return self._jobs.result_lines(_reach(), request)

    async def job_events(self, request: schemas.JobEventsRequest) -> schemas.JobEvents:
        """Watch a job: a server-sent event for each change, until it ends."""
        return await self._jobs.news(_reach(), request)

    def job_events_stream(self, request: schemas.JobEventsRequest) -> AsyncIterator[bytes]:
        return self._jobs.events(_reach(), request)

    def end_watches(self) -> None:
        """End the streams of job events, for which a server that stops would wait in vain."""
        self._jobs.end_watches()

    async def cancel_job(self, request: schemas.JobRequest) -> schemas.JobStatus:
        """Cancel a job."""
        return await self._jobs.cancel(_reach(), request.job_id)

    async def delete_job(self, request: schemas.JobRequest) -> schemas.JobDeleted:
        """Delete a job that has ended, with its params and result.

        Refused: a job that is queued or running.
        """
        await self._jobs.delete(_reach(), request.job_id)
        return schemas.JobDeleted(deleted=request.job_id)

    async def retry_job(self, request: schemas.JobRequest) -> schemas.JobStatus:
        """Continue a failed or cancelled job from its last checkpoint."""
        return await self.parts.submission.retry(_caller(), request.job_id)

    # Agents

    async def list_agents(self, request: schemas.Empty) -> schemas.AgentList:
        """List the agents and tools."""
        return await self.parts.agents.listed()

    async def run_agent(self, request: schemas.RunAgentRequest) -> schemas.AgentRun:
        """Run an agent on a task, with tools and collections.

        Refused: an unknown agent or tool; an input that does not fit the agent.
        """
        return await self.parts.agents.run(request)

    def run_agent_stream(self, request: schemas.RunAgentRequest) -> AsyncIterator[bytes]:
        return sse.events(self.parts.agents.events(request))

    async def approve(self, request: schemas.ApproveRequest) -> schemas.JobStatus:
        """Approve the calls that a run waits for; it continues."""
        return await self.parts.agents.decide(request.run_id, True)

    async def reject(self, request: schemas.RejectRequest) -> schemas.JobStatus:
        """Reject the calls that a run waits for; it continues without them."""
        return await self.parts.agents.decide(request.run_id, request.why)

    # Schedules

    async def set_schedule(self, request: schemas.SetScheduleRequest) -> schemas.Schedule:
        """Create or replace a schedule, which submits a job at the times of a cron expression.

        Refused: an invalid cron expression, or one that is never due; an unknown time zone; params that do
        not fit the type.
        """
        job = await self.parts.submission.new(_caller(), request.job_type, request.params, request.priority)
        return await self._database.write(schedules.put, request.name, request.cron, request.timezone, job)

    async def list_schedules(self, request: schemas.Empty) -> schemas.ScheduleList:
        """List the schedules of the caller's project; for the administrator, those of all projects."""
        found = await self._database.read(schedules.listed, _caller())
        return schemas.ScheduleList(schedules=found)

    async def delete_schedule(self, request: schemas.ScheduleRequest) -> schemas.ScheduleDeleted:
        """Delete a schedule; jobs that it has submitted are not affected."""
        await self._database.write(schedules.remove, _caller(), request.name)
        return schemas.ScheduleDeleted(deleted=request.name)

    # Keys, and what projects share

    async def share_collection(self, request: schemas.ShareRequest) -> schemas.Share:
        """Share a collection with another project, to read or to write it; replaces an earlier share.

        Refused: the collection's own project; for the administrator, a name that no project has and that looks misspelt.
        """
        await self._collection(request.collection)
        return await self.parts.sharing.share(_caller(), _named(request.collection), request)

    async def unshare_collection(self, request: schemas.UnshareRequest) -> schemas.Share:
        """Stop sharing a collection with a project."""
        await self._collection(request.collection)
        name = _named(request.collection)
        return await self.parts.sharing.unshare(_caller(), name, request.with_project)

    async def list_shares(self, request: schemas.Empty) -> schemas.ShareList:
        """List the collections that the caller's project shares, and those shared with it."""
        return await self.parts.sharing.listed(_caller())

    async def create_key(self, request: schemas.CreateKeyRequest) -> schemas.CreatedKey:
        """Create an API key; it is shown only in this reply.

        Refused: an invalid rate.
        """
        return await self.parts.keys.create(_caller(), request)

    async def list_keys(self, request: schemas.ListKeysRequest) -> schemas.KeyList:
        """List the API keys of the caller's project, without the keys themselves.

        The administrator gets those of all projects, or of one.
        """
        return await self.parts.keys.listed(_caller(), request.project)

    async def rotate_key(self, request: schemas.RotateKeyRequest) -> schemas.CreatedKey:
        """Give an API key a new secret, shown only in this reply; the old one stays valid for a while."""
        return await self.parts.keys.rotate(_caller(), request)

    async def revoke_key(self, request: schemas.KeyRequest) -> schemas.KeyInfo:
        """Revoke an API key; this takes effect within a second."""
        return await self.parts.keys.revoke(_caller(), request.key)

    # Audit and usage

    async def audit(self, request: schemas.AuditRequest) -> schemas.AuditLog:
        """Read the audit log, newest first: changes of keys, deletions, shares, exports, imports, refusals.

        Refused: a since that is neither a number of days nor a date.
        """
        return await self.audited.log(_reach(), request)

    async def prompts(self, request: schemas.Empty) -> schemas.PromptList:
        """List the prompts with their versions, including those of collections that the caller may read."""
        await self.register.fresh()
        caller = tracing.current().caller
        return schemas.PromptList(prompts=self.parts.prompts.shown(partial(self._readable, caller), caller))

    def _readable(self, caller: Caller, name: QualifiedName) -> bool:
        return "read" in caller.can and self.register.visible(name, caller)

    async def usage(self, request: schemas.UsageRequest) -> schemas.UsageReport:
        """Report usage: requests, errors, tokens, milliseconds and chunks, by project, key, model, operation and day.

        Refused: an unknown dimension in by; a since or until that is neither a number of days nor a date.
        """
        return await self.parts.usage.report(_reach(), request, self.settings.usage_prices)

    # Health

    async def state(self) -> health.State:
        """Sizes and load of all parts, for metrics."""
        return await health.state(self.parts)

    async def health(self, request: schemas.Empty) -> schemas.Health:
        """Check whether the backend is ready, and which models it uses."""
        return await health.ready(self.parts)

    async def doctor(self, request: schemas.Empty) -> schemas.Diagnosis:
        """Check each model server, the embedded models and the data directory."""
        return await health.diagnosis(self.parts, _caller())


def _caller() -> Caller:
    return tracing.current().caller


def _named(name: str) -> QualifiedName:
    """The collection that the caller means. Raises Forbidden if the call has not been permitted to use it."""
    return tracing.current().collection(name)


def _reach() -> str | None:
    """The project whose jobs, keys and responses the caller may see; None means all."""
    return _caller().reach
