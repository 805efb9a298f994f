"""The product on one page: every operation with its route, request and response.

Local calls, HTTP routes, the OpenAPI document and the SDK's shape test are loops over this table. A new operation is a
model in schemas/, a method of Backend (and `<name>_stream` if it streams), a row here, and a method of the SDK.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple, cast

from pydantic import ValidationError

from . import audit, json_reading, json_writing, panics, precedence, schemas, sse, threads
from .access.caller import RIGHTS, Right
from .access.decision import AccessNeeded, Asks, collections_in
from .access.near import suggest
from .answers import rag_model
from .backend import Backend
from .errors import (
    BackendError,
    BackendTimeout,
    Conflict,
    Forbidden,
    InsufficientStorage,
    InvalidRequest,
    JobExpired,
    LLMBackendError,
    NotFound,
    Overloaded,
    RequestTimeout,
    TooLarge,
    Unauthorized,
    as_json,
    invalid,
    names_in,
)
from .jobs.registry import TYPES, access_needed
from .responses import access_needed as response_access
from .tracing import Trace, tracing

log = logging.getLogger(__name__)

LARGE = 2**16  # bytes from which on a body is parsed in a thread
OF_VALUE = 256  # bytes of memory for a JSON value, besides its text: a message of two fields takes 750

Body = bytes | bytearray | dict[str, Any]
"""An operation's fields, as JSON or as the equivalent objects."""


Scope = Literal["public", "any", "read", "write", "jobs", "chat", "admin"]


@dataclass(frozen=True)
class Operation:
    """A row of the table: an operation with its route, models and rights."""

    name: str
    method: Literal["GET", "POST", "DELETE"]
    path: str
    request: type[schemas.Request]
    response: type[schemas.Response]
    scope: Scope
    """The right that the operation needs; "any" means any key, "public" none at all."""
    streams: bool = False
    media: str = "text/event-stream"  # the media type of its stream
    bulky: bool = False  # whether its result may be megabytes
    asks: Asks | None = None  # the kind of model that it asks: the named one, or the default
    owners_only: bool = False  # whether projects that a collection is shared with are excluded

    @property
    def summary(self) -> str:
        """The first line of the Backend method's docstring."""
        return self._said.partition("\n")[0]

    @property
    def refusals(self) -> str:
        """The rest of the docstring: which requests are refused although they match the schema."""
        return " ".join(self._said.partition("\n")[2].split())

    @cached_property
    def rights(self) -> tuple[Right, ...]:
        """The rights that the operation needs, unless a request's content needs others."""
        rights: tuple[Any, ...] = (self.scope,) if self.scope in RIGHTS else ()
        return (*rights, "chat") if self.scope == "jobs" and self.asks else rights  # the job asks a model

    @property
    def _said(self) -> str:
        return (getattr(Backend, self.name).__doc__ or "").strip()

    @property
    def errors(self) -> list[type[LLMBackendError]]:
        """The errors that it may return, by status."""
        kinds = {LLMBackendError, InvalidRequest}
        if self.scope != "public":
            kinds |= {Unauthorized, Forbidden, Overloaded, BackendError}
            if self.scope not in ("jobs", "admin"):
                kinds.add(BackendTimeout)
            if self.method == "POST":
                kinds |= {RequestTimeout, TooLarge}
            if self.method != "GET" and self.scope in ("write", "jobs", "admin"):
                kinds.add(InsufficientStorage)
            if "approve" in self.request.model_fields:  # the run is then a job
                kinds.add(InsufficientStorage)
            if self.request is not schemas.Empty:
                kinds |= {NotFound, Conflict}
            if "job_id" in self.request.model_fields:
                kinds.add(JobExpired)
        return sorted(kinds, key=lambda kind: kind.status)


# fmt: off
OPERATIONS: dict[str, Operation] = {row.name: row for row in (
    Operation("chat", "POST", "/v1/chat/completions", schemas.ChatRequest, schemas.ChatCompletion, "chat", streams=True, asks="chat"),
    Operation("embed", "POST", "/v1/embeddings", schemas.EmbedRequest, schemas.EmbeddingList, "chat", bulky=True, asks="embedding"),
    Operation("rerank", "POST", "/v1/rerank", schemas.RerankRequest, schemas.RerankResponse, "chat", bulky=True, asks="rerank"),
    Operation("respond", "POST", "/v1/responses", schemas.RespondRequest, schemas.ResponseObject, "chat", streams=True, asks="chat"),
    Operation("get_response", "GET", "/v1/responses/{response_id}", schemas.GetResponseRequest, schemas.ResponseObject, "chat", streams=True),
    Operation("delete_response", "DELETE", "/v1/responses/{response_id}", schemas.StoredResponseRequest, schemas.ResponseDeleted, "chat"),
    Operation("cancel_response", "POST", "/v1/responses/{response_id}/cancel", schemas.StoredResponseRequest, schemas.ResponseObject, "chat"),
    Operation("list_input_items", "GET", "/v1/responses/{response_id}/input_items", schemas.ListInputItemsRequest, schemas.InputItemList, "chat"),
    Operation("models", "GET", "/v1/models", schemas.Empty, schemas.ModelList, "any"),
    Operation("get_model", "GET", "/v1/models/{model}", schemas.ModelRequest, schemas.Model, "any"),
    Operation("rag_ingest", "POST", "/v1/rag/ingest", schemas.RagIngestRequest, schemas.IngestReport, "write", streams=True),
    Operation("rag_ingest_files", "POST", "/v1/rag/ingest/files", schemas.RagIngestFilesRequest, schemas.IngestReport, "write", streams=True),
    Operation("rag_search", "POST", "/v1/rag/search", schemas.RagSearchRequest, schemas.SearchResult, "read", bulky=True),
    Operation("rag_query", "POST", "/v1/rag/query", schemas.RagQueryRequest, schemas.QueryAnswer, "read", streams=True, bulky=True, asks="chat"),
    Operation("evaluate", "POST", "/v1/rag/evaluate", schemas.EvaluateRequest, schemas.Evaluation, "read", streams=True, bulky=True),
    Operation("list_collections", "GET", "/v1/collections", schemas.ListCollectionsRequest, schemas.CollectionList, "read"),
    Operation("create_collection", "POST", "/v1/collections", schemas.CreateCollectionRequest, schemas.CollectionInfo, "write"),
    Operation("get_collection", "GET", "/v1/collections/{collection}", schemas.CollectionRequest, schemas.CollectionInfo, "read"),
    Operation("set_indexes", "POST", "/v1/collections/{collection}/indexes", schemas.SetIndexesRequest, schemas.CollectionInfo, "write"),
    Operation("delete_collection", "DELETE", "/v1/collections/{collection}", schemas.CollectionRequest, schemas.CollectionDeleted, "write", owners_only=True),
    Operation("reindex_collection", "POST", "/v1/collections/{collection}/reindex", schemas.ReindexRequest, schemas.ReindexReport, "write", streams=True),
    Operation("export_collection", "GET", "/v1/collections/{collection}/export", schemas.ExportRequest, schemas.CollectionExport, "read", bulky=True),
    Operation("import_collection", "POST", "/v1/collections/{collection}/import", schemas.ImportRequest, schemas.ImportedCollection, "write"),
    Operation("list_documents", "GET", "/v1/collections/{collection}/documents", schemas.ListDocumentsRequest, schemas.DocumentList, "read", bulky=True),
    Operation("list_chunks", "POST", "/v1/collections/{collection}/chunks", schemas.ListChunksRequest, schemas.ChunkList, "read", bulky=True),
    Operation("get_document", "GET", "/v1/collections/{collection}/document", schemas.GetDocumentRequest, schemas.StoredDocument, "read", bulky=True),
    Operation("delete_documents", "POST", "/v1/collections/{collection}/documents/delete", schemas.DeleteDocumentsRequest, schemas.DocumentsDeleted, "write"),
    Operation("analyze_document", "POST", "/v1/analyze", schemas.AnalyzeRequest, schemas.Analysis, "chat", asks="chat"),
    Operation("submit_job", "POST", "/v1/jobs", schemas.SubmitJobRequest, schemas.JobId, "jobs"),
    Operation("batch_chat", "POST", "/v1/jobs/batch_chat", schemas.BatchChatRequest, schemas.BatchChat, "jobs", asks="chat"),
    Operation("get_job_status", "GET", "/v1/jobs/{job_id}", schemas.JobRequest, schemas.JobStatus, "jobs", bulky=True),
    Operation("list_jobs", "GET", "/v1/jobs", schemas.ListJobsRequest, schemas.JobList, "jobs"),
    Operation("get_job_result", "GET", "/v1/jobs/{job_id}/result", schemas.JobResultRequest, schemas.JobResult, "jobs", streams=True, media="application/jsonl", bulky=True),
    Operation("job_events", "GET", "/v1/jobs/{job_id}/events", schemas.JobEventsRequest, schemas.JobEvents, "jobs", streams=True),
    Operation("retry_job", "POST", "/v1/jobs/{job_id}/retry", schemas.JobRequest, schemas.JobStatus, "jobs"),
    Operation("cancel_job", "POST", "/v1/jobs/{job_id}/cancel", schemas.JobRequest, schemas.JobStatus, "jobs"),
    Operation("delete_job", "DELETE", "/v1/jobs/{job_id}", schemas.JobRequest, schemas.JobDeleted, "jobs"),
    Operation("list_agents", "GET", "/v1/agents", schemas.Empty, schemas.AgentList, "any"),
    Operation("run_agent", "POST", "/v1/agents/run", schemas.RunAgentRequest, schemas.AgentRun, "chat", streams=True, bulky=True, asks="chat"),
    Operation("approve", "POST", "/v1/agents/runs/{run_id}/approve", schemas.ApproveRequest, schemas.JobStatus, "jobs"),
    Operation("reject", "POST", "/v1/agents/runs/{run_id}/reject", schemas.RejectRequest, schemas.JobStatus, "jobs"),
    Operation("set_schedule", "POST", "/v1/schedules", schemas.SetScheduleRequest, schemas.Schedule, "jobs"),
    Operation("list_schedules", "GET", "/v1/schedules", schemas.Empty, schemas.ScheduleList, "jobs"),
    Operation("delete_schedule", "DELETE", "/v1/schedules/{name}", schemas.ScheduleRequest, schemas.ScheduleDeleted, "jobs"),
    Operation("share_collection", "POST", "/v1/collections/{collection}/shares", schemas.ShareRequest, schemas.Share, "admin", owners_only=True),
    Operation("unshare_collection", "DELETE", "/v1/collections/{collection}/shares/{with_project}", schemas.UnshareRequest, schemas.Share, "admin", owners_only=True),
    Operation("list_shares", "GET", "/v1/shares", schemas.Empty, schemas.ShareList, "admin"),
    Operation("create_key", "POST", "/v1/keys", schemas.CreateKeyRequest, schemas.CreatedKey, "admin"),
    Operation("list_keys", "GET", "/v1/keys", schemas.ListKeysRequest, schemas.KeyList, "admin"),
    Operation("rotate_key", "POST", "/v1/keys/{key}/rotate", schemas.RotateKeyRequest, schemas.CreatedKey, "admin"),
    Operation("revoke_key", "DELETE", "/v1/keys/{key}", schemas.KeyRequest, schemas.KeyInfo, "admin"),
    Operation("audit", "GET", "/v1/audit", schemas.AuditRequest, schemas.AuditLog, "admin"),
    Operation("prompts", "GET", "/v1/prompts", schemas.Empty, schemas.PromptList, "any"),
    Operation("usage", "GET", "/v1/usage", schemas.UsageRequest, schemas.UsageReport, "any"),
    Operation("health", "GET", "/health/ready", schemas.Empty, schemas.Health, "public"),
    Operation("doctor", "GET", "/v1/doctor", schemas.Empty, schemas.Diagnosis, "admin"),
)}
# fmt: on


class _Form(NamedTuple):
    """What a result is returned as."""

    short: Callable[[schemas.Response], Any]
    long: Callable[[schemas.Response], Any]
    """Makes the same of a long result, in pieces, in a thread."""


_JSON = _Form(lambda result: result.model_dump_json().encode(), json_writing.write)
_OBJECTS = _Form(lambda result: result.model_dump(mode="json"), json_writing.objects)


async def call(backend: Backend, trace: Trace, body: Body) -> bytes:
    """Call the trace's operation; return its JSON (or a Block). Every failure is raised as an LLMBackendError."""
    return cast(bytes, await answer(backend, trace, body))


async def read(backend: Backend, trace: Trace, body: Body) -> bytes | dict[str, Any]:
    """Call an operation; return its result as objects, or as a Block."""
    return cast(bytes | dict[str, Any], await answer(backend, trace, body, form=_OBJECTS))


async def stream(backend: Backend, trace: Trace, body: Body) -> AsyncIterator[bytes]:
    """Call a streaming operation; return its server-sent events, or lines.

    An error before the first event is raised here. A later error, or one after the first heartbeat was due,
    is an error event.
    """
    events = await answer(backend, trace, body, streams=lambda request: True)
    return cast(AsyncIterator[bytes], events)


async def answer(
    backend: Backend,
    trace: Trace,
    body: Body,
    fields: Mapping[str, Any] | None = None,
    streams: Callable[[Any], bool] = lambda request: False,
    form: _Form = _JSON,
) -> bytes | AsyncIterator[bytes]:
    """The result of `call` or `stream`, whichever the body and the further fields ask for."""
    name = trace.operation
    trace.meter = backend.meter
    trace.prompts = backend.parts.prompts
    if OPERATIONS[name].scope != "public":
        trace.begin()
    with _calling(trace):
        request = await _request(backend, name, body, trace, fields)
        del body  # may be large, and is no longer needed
        trace.target = audit.target(name, request)
        try:
            await _permit(backend, name, request, trace)
            if streams(request):
                return await _begun(backend, name, request, trace)
            result: schemas.Response | bytes = await getattr(backend, name)(request)
        except NotFound as error:
            suggest(error, backend.collections_known())
            raise
        if isinstance(result, bytes):  # passed through from a model server, or a Block
            reply = result
        elif OPERATIONS[name].bulky and not json_writing.few(result):
            reply = await threads.processor(form.long, result)
        else:
            reply = form.short(result)
    trace.finish("ok")
    return reply


async def _begun(backend: Backend, name: str, request: schemas.Request, trace: Trace) -> AsyncIterator[bytes]:
    events = getattr(backend, f"{name}_stream")(request)
    first = asyncio.ensure_future(anext(events, b""))
    try:
        done, _ = await asyncio.wait([first], timeout=backend.settings.heartbeat_seconds)
    except asyncio.CancelledError:
        first.cancel()
        await asyncio.wait([first])
        raise
    trace.stand_back()
    if done:
        first.result()
    return _rest(backend, OPERATIONS[name], trace, first, events)


async def _permit(backend: Backend, name: str, request: schemas.Request, trace: Trace) -> None:
    """Raise Unauthorized, Forbidden or NotFound unless the call is allowed. Every call passes through here."""
    operation, caller = OPERATIONS[name], trace.caller
    if operation.scope == "public":
        return
    trace.granted = await backend.register.permit(caller, _access_needed(operation, request))
    if isinstance(request, schemas.SubmitJobRequest | schemas.SetScheduleRequest):
        kind = TYPES.get(request.job_type)
        if kind is not None:  # its access is checked again when it runs
            await backend.register.permit(caller, access_needed(kind, request.params))


def _access_needed(operation: Operation, request: schemas.Request) -> AccessNeeded:
    given = vars(request)  # a missing attribute of a pydantic model takes long
    if isinstance(request, schemas.RespondRequest):
        return response_access.access_needed(given)
    rights = operation.rights
    collections = collections_in(given.get("collection"))
    models: list[tuple[Asks, str | None]] = []
    model = given.get("model")
    if operation.name == "chat" and model and model.startswith(rag_model.PREFIX):
        # This is rag_query, by another route.
        rights, collections, model = ("read",), (model.removeprefix(rag_model.PREFIX),), None
    if operation.asks:
        models.append((operation.asks, model))
    if rerank := given.get("rerank"):
        models.append(("rerank", rerank if isinstance(rerank, str) else None))
    return AccessNeeded(rights, collections, models, operation.owners_only)


async def _rest(
    backend: Backend, operation: Operation, trace: Trace, first: asyncio.Future[bytes], events: Any
) -> AsyncIterator[bytes]:
    outcome, event = "left", b"\n"
    try:
        async with aclosing(events):
            try:
                with panics.caught():
                    event = await first
                    yield event
                    traced, caller = tracing(trace), trace.caller
                    while True:
                        with traced:  # not around the yield: between two events, the reader's code runs
                            event = await anext(events)
                        if caller.standing.watched:
                            await backend.register.require(caller)
                        yield event
            except StopAsyncIteration:
                outcome = trace.failure or "ok"
            except Exception as error:
                ours = _ours(trace, error)
                outcome = ours.code
                error_event = {"error": as_json(ours)}
                if operation.media == "application/jsonl":
                    yield json.dumps(error_event).encode() + b"\n"
                else:
                    cut = b"" if event.endswith(b"\n") else b"\n\n"  # ends an event that broke off
                    yield cut + sse.event(error_event)
    finally:
        if not first.done():
            first.cancel()
        trace.finish(outcome)


class _calling(tracing):
    """Runs a call in its trace. Any error is raised as an LLMBackendError, and ends the trace."""

    __slots__ = ()

    def __exit__(self, *raised: object) -> None:
        try:
            if isinstance(error := raised[1], BaseException):
                self._fail(error)
        finally:
            super().__exit__()

    def _fail(self, raised: BaseException) -> None:
        error = panics.as_error(raised) if panics.panicked(raised) else raised
        if not isinstance(error, Exception):  # cancelled, because the caller has gone
            self._trace.finish("left")
            return
        ours = _ours(self._trace, error)
        self._trace.finish(ours.code)
        if ours is not raised:
            raise ours from raised


async def _request(
    backend: Backend, name: str, body: Body, trace: Trace, fields: Mapping[str, Any] | None = None
) -> schemas.Request:
    operation = OPERATIONS[name]
    limit = backend.settings.max_body_bytes
    if not isinstance(body, dict) and len(body) > limit:
        raise TooLarge(
            f"the request has {len(body)} bytes and {limit} are accepted: send less at a time, "
            "or raise MAX_BODY_BYTES",
            details={"limit": limit},
        )
    if operation.scope == "write" or len(body) > LARGE:
        await precedence.pause()
    elif operation.scope != "public":
        trace.go_first()
    try:
        if operation.method != "POST":
            # GET and DELETE have their fields in the URL, as text.
            return operation.request.model_validate_strings(
                body if isinstance(body, dict) else json.loads(body or b"{}"), strict=False
            )
        if isinstance(body, dict):
            return operation.request.model_validate({**body, **(fields or {})})
        if len(body) > LARGE:  # would block the event loop
            scanned = await threads.bodies(json_reading.scan, body, name)
            if trace.reserve is not None:
                trace.reserve(len(body) + OF_VALUE * scanned.values)
            return await threads.bodies(_read, operation, body, fields, scanned)
        if fields:
            return _read(operation, body or b"{}", fields)
        json_reading.check_depth(body, name)
        try:
            return operation.request.model_validate_json(body or b"{}")
        except ValidationError as error:
            no_json = error.errors(include_url=False, include_input=False)[0]["type"] == "json_invalid"
            if not no_json or (mended := json_reading.without_halves(body)) == body:
                raise
            return operation.request.model_validate_json(mended)
    except ValidationError as error:
        raise invalid(error, name, names_in(operation.request)) from error
    except ValueError as error:
        raise InvalidRequest(f"{name}: the body is not JSON: {error}") from error
    finally:
        if isinstance(body, bytearray):
            body.clear()  # it may be large and is no longer needed


def _read(
    operation: Operation,
    body: bytes | bytearray,
    fields: Mapping[str, Any] | None,
    scanned: json_reading.Scanned | None = None,
) -> schemas.Request:
    value = json_reading.read(body, operation.name, scanned)
    if fields and isinstance(value, dict):
        value.update(fields)
    try:
        return operation.request.model_validate(value)
    except ValidationError as error:
        refused = invalid(error, operation.name, names_in(operation.request))
    finally:
        value = None  # otherwise an error's traceback would keep it in memory
    raise refused


def _ours(trace: Trace, error: Exception) -> LLMBackendError:
    if isinstance(error, LLMBackendError):
        ours = error
    elif isinstance(error, ValidationError):
        ours = invalid(error, trace.operation)
    else:
        log.error("%s failed unexpectedly, id=%s", trace.operation, trace.request_id, exc_info=error)
        name = type(error).__name__
        ours = LLMBackendError(f"{trace.operation} failed unexpectedly ({name}): please report this")
    ours.request_id = trace.request_id
    return ours
