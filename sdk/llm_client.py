# SPDX-License-Identifier: Apache-2.0
"""One class for every LLM capability of an organisation: chat, embeddings, RAG, jobs, document analysis.

    from llm_client import LLMBackendClient

    client = LLMBackendClient()                                    # in this process (needs the llmbackend package)
    client = LLMBackendClient("http://localhost:8888", "a-key")    # the same calls over HTTP

Over HTTP this file is all you need: copy it next to your code; it runs on Python 3.9 and newer, and imports only
the standard library, requests and python-dotenv. To update it, copy the file of the version that your server has
(`client.health()["version"]`). Its sections, top to bottom: errors, results, streams, transports, the client.
"""

from __future__ import annotations

import base64
import binascii
import concurrent.futures
import contextlib
import datetime
import enum
import fnmatch
import functools
import glob
import html
import itertools
import json
import os
import re
import sys
import threading
import time
import unicodedata
import uuid
import warnings
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Generic,
    Literal,
    Protocol,
    SupportsIndex,
    TypeVar,
    Union,
    cast,
    overload,
)
from urllib.parse import quote, urlsplit

if TYPE_CHECKING:
    from llmbackend.llamaindex import Components

__version__ = "0.1.0"

__all__ = [
    "AgentRun",
    "AgentStream",
    "Analysis",
    "Answer",
    "AnswerStream",
    "BackendError",
    "BackendTimeout",
    "ChunkInfo",
    "CollectionHandle",
    "CollectionInfo",
    "Conflict",
    "CreatedKey",
    "DocumentInfo",
    "Embeddings",
    "EmbeddingsFile",
    "Evaluation",
    "Explanation",
    "Forbidden",
    "Health",
    "Hit",
    "Hits",
    "HttpTransport",
    "IngestReport",
    "InsufficientStorage",
    "InvalidRequest",
    "Job",
    "JobExpired",
    "KeyInfo",
    "LLMBackendClient",
    "LLMBackendError",
    "MethodNotAllowed",
    "ModelInfo",
    "NotFound",
    "Overloaded",
    "ParsedReply",
    "RankedText",
    "Record",
    "Records",
    "Reply",
    "ReplyStream",
    "RequestTimeout",
    "Source",
    "StoredDocument",
    "StreamInterrupted",
    "TooLarge",
    "ToolCall",
    "Transport",
    "TransportError",
    "Unauthorized",
    "Usage",
]

# ------------------------------------------------------------------------------------------------ errors


class LLMBackendError(Exception):
    """Whatever goes wrong, on either transport, is one of these (branch on the class or on `code`, never on the text).

    LLMBackendError        internal           500   unforeseen: a bug
    ├ InvalidRequest       invalid_request    422   does not fit the operation's schema
    ├ Unauthorized         unauthorized       401   no key, or a wrong one
    ├ Forbidden            forbidden          403   the key does not allow this
    ├ NotFound             not_found          404   no such collection, document, job or model
    ├ MethodNotAllowed     method_not_allowed 405   the path is right, the HTTP method is not
    ├ RequestTimeout       request_timeout    408   the request came too slowly
    ├ Conflict             conflict           409   exists already, is held by someone else, does not match
    ├ JobExpired           job_expired        410   a job's result was kept for its time, and is no more
    ├ TooLarge             too_large          413   the request is larger than the server accepts
    ├ Overloaded           overloaded         429   try again later (details: retry_after, seconds)
    ├ InsufficientStorage  insufficient_storage  507 the server's disk is full: reading goes on (details: path, free, needed)
    ├ BackendError         backend            502   a model or store behind us failed (details: backend)
    │ └ BackendTimeout     backend_timeout    504   ... or did not answer in time
    ├ TransportError       transport           -    the server was not reached (raised by the client only)
    └ StreamInterrupted    stream_interrupted  -    a stream broke off; `.text` has what came before
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500

    def __init__(
        self, message: str, *, details: Mapping[str, Any] | None = None, request_id: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details: dict[str, Any] = dict(details or {})
        self.request_id = request_id

    def _render_traceback_(self) -> list[str]:
        """How IPython and notebooks show it: the message, the caller's own lines, and the message again."""
        import traceback

        frames: list[traceback.FrameSummary] = []
        for frame, line in traceback.walk_tb(self.__traceback__):
            module = frame.f_globals.get("__name__") or ""
            if module == __name__ or module.startswith("llmbackend"):
                break  # the way through this file and the package is not the caller's to mend
            if not module.startswith("IPython"):
                frames.append(traceback.FrameSummary(frame.f_code.co_filename, line, frame.f_code.co_name))
        said = f"{type(self).__name__}: {self.message}"
        where = [one.rstrip("\n") for one in traceback.format_list(frames)]
        return [said, "", *where, "", said] if where else [said]

    def to_dict(self) -> dict[str, Any]:
        """The error as it travels: `{code, message, details, request_id}`."""
        return {
            "code": self.code,
            "message": self.message,
            "details": self.details,
            "request_id": self.request_id,
        }

    @staticmethod
    def from_dict(error: Mapping[str, Any]) -> LLMBackendError:
        """The same class again from `to_dict()`; a code this file does not know becomes the base class."""
        classes = {kind.code: kind for kind in _subclasses(LLMBackendError)}
        kind = classes.get(str(error.get("code")), LLMBackendError)
        details = error.get("details")
        return kind(
            str(error.get("message", "unknown error")),
            details=details if isinstance(details, Mapping) else None,
            request_id=error.get("request_id"),
        )


class InvalidRequest(LLMBackendError):
    """The request does not fit the operation; where its schema says so, `details["errors"]` lists each place."""

    code, status = "invalid_request", 422


class Unauthorized(LLMBackendError):
    """No API key was given, or a wrong one."""

    code, status = "unauthorized", 401


class Forbidden(LLMBackendError):
    """The API key is right but does not allow this operation."""

    code, status = "forbidden", 403


class NotFound(LLMBackendError):
    """There is no such collection, document, job or model."""

    code, status = "not_found", 404


class MethodNotAllowed(LLMBackendError):
    """The path takes other HTTP methods than this one; the header Allow lists them."""

    code, status = "method_not_allowed", 405


class RequestTimeout(LLMBackendError):
    """The request arrived too slowly, and was given up."""

    code, status = "request_timeout", 408


class Conflict(LLMBackendError):
    """It exists already, is held by another process, or does not match what is stored."""

    code, status = "conflict", 409


class JobExpired(LLMBackendError):
    """A job's result was kept for its time (JOB_RESULT_DAYS on the server), and is no more."""

    code, status = "job_expired", 410


class TooLarge(LLMBackendError):
    """The request is larger than the server accepts; `details["limit"]` tells how much it does."""

    code, status = "too_large", 413


class Overloaded(LLMBackendError):
    """Too many requests for now; `details["retry_after"]` (seconds) tells when to come back."""

    code, status = "overloaded", 429


class InsufficientStorage(LLMBackendError):
    """There is no room on the server's disk; `details` have its `path`, and the bytes `free` and `needed`."""

    code, status = "insufficient_storage", 507


class BackendError(LLMBackendError):
    """A model, embedding server or store behind llmbackend failed; `details["backend"]` names it."""

    code, status = "backend", 502


class BackendTimeout(BackendError):
    """Something behind llmbackend did not answer in time."""

    code, status = "backend_timeout", 504


class TransportError(LLMBackendError):
    """The llmbackend server could not be reached, or something else answered in its place."""

    code = "transport"


class StreamInterrupted(LLMBackendError):
    """A stream broke off before its end; `text` holds the pieces that had arrived."""

    code = "stream_interrupted"

    def __init__(
        self,
        message: str,
        *,
        text: str = "",
        details: Mapping[str, Any] | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message, details=details, request_id=request_id)
        self.text = text


def _subclasses(kind: type[LLMBackendError]) -> Iterator[type[LLMBackendError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _subclasses(child)


# ----------------------------------------------------------------------------------------------- results


class _Method:
    """A method of dict, on records: called, it is just that.

    Where the record has a field of the same name, whatever else is done with it raises an AttributeError, which says
    how to get at the field.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.method = vars(dict)[name]

    def __get__(self, record: Record | None, owner: type[Record]) -> Any:
        method = self.method.__get__(record, owner)
        return method if record is None or self.name not in record else _Shadowing(self.name, method)


class _Shadowing:
    """A method where a field was probably meant."""

    def __init__(self, name: str, method: Callable[..., Any]) -> None:
        self._name = name
        self._method = method

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._method(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<the method {self._name}() of a record; its field of that name is record[{self._name!r}]>"

    def _refuse(self, *_: object) -> Any:
        raise AttributeError(
            f"a record's .{self._name} is the method of dict: its field of that name is record[{self._name!r}]"
        )

    def __getattr__(self, name: str) -> Any:
        return object.__getattribute__(self, name) if name.startswith("__") else self._refuse()

    __getitem__ = __iter__ = __len__ = __contains__ = __bool__ = __eq__ = __ne__ = _refuse
    __lt__ = __le__ = __gt__ = __ge__ = __add__ = __radd__ = __int__ = __float__ = _refuse
    __hash__ = None  # type: ignore[assignment]


class _Shown:
    """A result that notebooks and IPython's terminal show as the llmbackend package draws it, or as a plain table."""

    def _shown(self) -> Any:
        return self

    def _repr_html_(self) -> str:
        return _drawn(self._shown())

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text("…" if cycle else _written(self._shown()))


class Record(_Shown, dict[str, Any]):
    """A result: a plain dict whose keys are also attributes, shown as what it is in notebooks.

    A dict's methods stay what they are: of a field that has the name of one (`items`, `keys`, `values`, `copy`, `get`,
    `pop`, `update`, …), `record["items"]` gives the value, and using `record.items` as if it were the value raises an
    AttributeError that says so.
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            known = ", ".join(self)
            raise AttributeError(f"this result has no {name!r}; it has: {known}") from None

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self]


for _name in vars(dict):
    if not _name.startswith("_"):
        setattr(Record, _name, _Method(_name))


if TYPE_CHECKING:

    class _Typed(_Shown, dict[str, Any]):
        """A Record, of which type checkers know the fields: others are none."""

else:
    _Typed = Record

_Item = TypeVar("_Item", bound=Mapping[str, Any])
_Page = TypeVar("_Page")


class Records(_Shown, list[_Item]):
    """Several results: a plain list, shown as one table or as cards in notebooks."""

    @overload
    def __getitem__(self, index: SupportsIndex) -> _Item: ...
    @overload
    def __getitem__(self, index: slice) -> Records[_Item]: ...
    def __getitem__(self, index: Any) -> Any:
        found = list.__getitem__(self, index)
        if isinstance(index, slice):  # some of them are shown as all are
            found = type(self)(found)
            vars(found).update(vars(self))
        return found

    def __iter__(self) -> Iterator[_Item]:
        # pandas.DataFrame(result) reads the items one by one. It is to have the columns of to_pandas().
        if sys._getframe(1).f_globals.get("__name__") == "pandas.core.internals.construction":
            return iter([cast(_Item, dict(_flat(record))) for record in list.__iter__(self)])
        return list.__iter__(self)

    def to_pandas(self) -> Any:
        """A pandas DataFrame with a row for each; fields within fields are columns such as `metadata.year`."""
        import pandas  # the caller wants pandas, so the caller has it

        return pandas.DataFrame([dict(_flat(record)) for record in self])

    def to_polars(self) -> Any:
        """A polars DataFrame, as `to_pandas()` has it. Values of several types in one column become text."""
        import polars  # the caller wants polars, so the caller has it

        return polars.DataFrame(
            [dict(_flat(record)) for record in self], infer_schema_length=None, strict=False
        )

    def to_jsonl(self, path: str | os.PathLike[str]) -> None:
        """Write a file with a line of JSON for each."""
        with open(f"{os.fsdecode(path)}.part", "w", encoding="utf-8") as file:
            for record in self:
                file.write(json.dumps(record, ensure_ascii=False, default=_jsonable) + "\n")
        os.replace(f"{os.fsdecode(path)}.part", path)

    def to_parquet(self, path: str | os.PathLike[str]) -> None:
        """Write a Parquet file with a row for each, as `to_pandas()` has it; values of several types become text."""
        import pyarrow  # the caller wants Parquet, so the caller has it
        from pyarrow import parquet

        rows = [dict(_flat(record)) for record in self]
        names = dict.fromkeys(name for row in rows for name in row)
        table = pyarrow.table({name: _column([row.get(name) for row in rows]) for name in names})
        parquet.write_table(table, f"{os.fsdecode(path)}.part")
        os.replace(f"{os.fsdecode(path)}.part", path)


def _column(values: list[Any]) -> Any:
    """As Arrow has it: in the type that all are of, else as text, what is none as JSON."""
    import pyarrow

    try:
        column = pyarrow.array(values)
        if not pyarrow.types.is_null(column.type) and not any(isinstance(one, dict) for one in values):
            return column
    except (pyarrow.ArrowException, OverflowError):
        pass
    texts = [
        one if one is None or isinstance(one, str) else json.dumps(one, ensure_ascii=False) for one in values
    ]
    return pyarrow.array(texts, pyarrow.string())


def _flat(record: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Fields by their paths: `metadata.year`."""
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


class KeyInfo(_Typed):
    """An API key, but for what is secret of it; see `list_keys`."""

    id: str
    project: str
    can: list[str]
    collections: list[str]
    models: list[str]
    rate: str | None
    concurrent: int | None
    tokens: str | None
    jobs: int | None
    chunks: int | None
    bytes: int | None
    note: str
    created_at: str
    created_by: str
    expires_at: str | None
    rotating_until: str | None
    revoked_at: str | None
    last_used_at: str | None


class CreatedKey(KeyInfo):
    """An API key as it was made. `key` is the key itself: it is shown nowhere, so that none is left in a log or a
    notebook; print that."""

    key: str

    def __repr__(self) -> str:
        return repr(self._shown())

    def _shown(self) -> Record:
        return Record({**self, "key": f"{self['id']}_…"})


class IngestReport(_Typed):
    """What became of documents; see `rag_ingest`. `documents` and `seconds` are a plan's, `columns` a table's."""

    added: int
    updated: int
    unchanged: int
    deleted: int
    failed: Records[Record]
    warnings: Records[Record]
    chunks: int
    tokens: int | None
    documents: int
    seconds: float
    columns: Record


class CollectionInfo(_Typed):
    """A collection; see `get_collection`."""

    name: str
    embedding_model: str
    sparse_model: str
    dimension: int
    chunk_size: int
    chunk_overlap: int
    documents: int | None
    chunks: int | None
    created_at: str
    indexes: Record
    engine: Record
    parser: str | None
    read_ahead: int | None
    damaged: bool
    problem: str | None


class DocumentInfo(_Typed):
    """A document of a collection: how many chunks it has, and its metadata."""

    id: str
    chunks: int
    metadata: Any


class StoredDocument(DocumentInfo):
    """A document with its text; see `get_document`."""

    text: str


class ChunkInfo(_Typed):
    """A chunk as it is stored; see `list_chunks`."""

    document_id: str
    chunk: int
    text: str
    metadata: Any


class ModelInfo(_Typed):
    """A model that this backend offers; see `models`."""

    id: str
    type: Literal["chat", "embedding", "agent", "rag"]
    owned_by: str
    created: int
    context_window: int | None
    tools: bool | None


class RankedText(_Typed):
    """A text by how well it answers a query; see `rerank`."""

    index: int
    score: float
    text: str


class ToolCall(_Typed):
    """A tool that a model asks to be called."""

    id: str
    name: str
    arguments: Record


class Health(_Typed):
    """How a backend is; see `health`."""

    status: Literal["ok", "failing"]
    problems: list[str]
    parts: Record
    version: str
    chat: str | None
    embeddings: str
    own_file_types: list[str]


class Hit(_Typed):
    """A passage that a search found; see `rag_search`."""

    text: str
    score: float
    document_id: str
    chunk: int
    collection: str
    metadata: Any
    duplicates: Records[Record]


class Source(Hit):
    """A passage that an answer was written from, by its number in the answer, with what of it fits best."""

    number: int
    quote: str


class Hits(Records[Hit]):
    """The passages that a search found, and its `query`, whose words notebooks mark in them."""

    query: str = ""


_DIMENSIONS = ("project", "key", "model", "operation", "day")


class Usage(Records[Record]):
    """What was used, a row for each combination of what was asked for: a plain list, and `plot()`."""

    def plot(self, axes: Any = None) -> Any:
        """Bars of the tokens of each row, on matplotlib's axes, which are returned."""
        return _pictures().plot_usage(self, axes)


class Job(_Typed):
    """A job as it was when asked for; in notebooks, with a bar."""

    id: str
    type: str
    status: Literal["queued", "running", "completed", "failed", "cancelled"]
    owner: str
    progress: Record
    attempts: int
    result: Any
    rows: Any
    expired: bool
    error: Any
    pending: Any
    priority: int
    run_at: str | None
    depends_on: list[str] | None
    webhook: Any
    created_at: str
    started_at: str | None
    finished_at: str | None

    def __repr__(self) -> str:
        return f"<Job {self['id']}: {self['type']}, {self['status']}, {_progress_text(self['progress'])}>"


_UNITS = {
    "batch_embed": "text",
    "batch_chat": "prompt",
    "reindex": "chunk",
    "reindex_collection": "chunk",
    "rag_ingest": "document",
    "analyze_documents": "document",
    "evaluate": "search",
}
"""What the types of jobs, and long operations, count."""


def _progress_text(progress: Mapping[str, Any], job_type: str = "") -> str:
    """How far it is, in words: `3 of 7 files, 412 chunks, 1,200/s, 2 min left`."""
    done, total = progress.get("done") or 0, progress.get("total") or 0
    stages: Mapping[str, Mapping[str, Any]] = progress.get("stages") or {}
    unit = _UNITS.get(job_type) or ("file" if "parse" in stages else "document" if "chunk" in stages else "")
    stage = progress.get("stage") or ""
    counted = f"{done:,} of {total:,}" if total > done else f"{done:,}"
    if unit and max(done, total) != 1:
        unit += "es" if unit.endswith("ch") else "s"
    said = [f"{counted} {unit}".strip()]
    if not total and not done:
        said = [stage or "not begun"]
    elif (stages.get("write") or {}).get("done"):
        said.append(f"{stages['write']['done']:,} chunk{'' if stages['write']['done'] == 1 else 's'}")
    elif not unit and stage not in ("", "done"):
        said.append(stage)
    if progress.get("rate"):
        said.append(_rate(progress["rate"]))
    if progress.get("eta") is not None and total > done:
        said.append(f"{_duration(progress['eta'])} left")
    return ", ".join(said)


def _rate(a_second: float) -> str:
    """`1,200/s`, `2.5/s`, `6/min`."""
    if a_second >= 1:
        return f"{a_second:,.0f}/s" if a_second >= 10 else f"{a_second:.1f}/s"
    return f"{a_second * 60:.2g}/min"


def _duration(seconds: float) -> str:
    """`20 ms`, `2.3 s`, `2 min`, `3 h 5 min`, `2 days 3 h`."""
    if seconds < 1:
        return f"{max(0, seconds) * 1000:.0f} ms"
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} day{'' if days == 1 else 's'}" + (f" {hours} h" if hours else "")
    return " ".join(filter(None, [f"{hours} h" if hours else "", f"{minutes} min" if minutes else ""]))


def _drawn(value: Any) -> str:
    """A result as HTML: as the llmbackend package draws it, or, without that, as a plain table."""
    try:
        from llmbackend.notebook import html_of
    except ImportError:
        return _table(value)
    return html_of(value)


def _written(value: Any) -> str:
    """A result as text for people, by the package, or, without that, as Python writes it."""
    try:
        from llmbackend.notebook import text_of
    except ImportError:
        if isinstance(value, str):
            return str(value)
        kind: Any = dict if isinstance(value, dict) else list if isinstance(value, list) else type(value)
        return cast(str, kind.__repr__(value))
    return text_of(value)


def _pictures() -> Any:
    try:
        from llmbackend import notebook
    except ImportError as error:
        raise TransportError(
            "pictures come with the package: pip install llmbackend", details={"missing": error.name}
        ) from error
    return notebook


SHOWN = 20
"""Items of a list within a record that a plain table shows."""


def _table(value: Any) -> str:
    """A result as a table of HTML: a record's fields below each other, a list's records."""
    if isinstance(value, str):
        about = {name: item for name, item in vars(value).items() if name in ("model", "sources") and item}
        return f"<p>{_cell(value, len(value))}</p>{_table(about)}"
    if isinstance(value, Mapping):
        rows = [[f"<th align='left'>{_cell(name)}</th>", _cell(item)] for name, item in value.items()]
    else:
        names = list(dict.fromkeys(name for record in value for name in record))
        rows = [[f"<th align='left'>{_cell(name)}</th>" for name in names]]
        rows += [[_cell(record.get(name, ""), 200) for name in names] for record in value]
    cells = [[cell if cell[:3] == "<th" else f"<td align='left'>{cell}</td>" for cell in row] for row in rows]
    return "<table>" + "".join(f"<tr>{''.join(row)}</tr>" for row in cells) + "</table>"


def _cell(value: Any, limit: int = 400) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{_cell(name)}: {_cell(item, limit)}" for name, item in value.items())
    if isinstance(value, list) and value and not isinstance(value[0], (int, float)):
        more = [f"and {len(value) - SHOWN} more"] if len(value) > SHOWN else []
        items = [*(_cell(item, limit) for item in value[:SHOWN]), *more]
        return "<ul>" + "".join(f"<li>{item}</li>" for item in items) + "</ul>"
    text = "" if value is None else str(value)
    return html.escape(text if len(text) <= limit else text[:limit] + "…")


def _records(value: Any) -> Any:
    """JSON objects as Record, lists of them as Records, all the way down."""
    if isinstance(value, dict):
        # Most are single values: a call for each takes longer than the rest.
        return Record(
            {key: _records(item) if isinstance(item, (dict, list)) else item for key, item in value.items()}
        )
    if isinstance(value, list):
        items = [_records(item) if isinstance(item, (dict, list)) else item for item in value]
        return Records(items) if all(isinstance(item, Record) for item in items) else items
    return value


class Reply(_Shown, str):
    """A model's answer: a `str`, with `model`, `usage` (token counts) and `finish_reason` beside it.

    `message` is the same as the assistant's message, to append to a conversation, with what else the model's server
    wants to have back. `reasoning` are a reasoning model's thoughts, where it tells them. `parsed` is what a `schema`
    was given for, else None.
    """

    model: str
    usage: Record
    finish_reason: str | None
    message: Record
    parsed: Any

    def __new__(
        cls,
        text: str,
        *,
        model: str = "",
        usage: Mapping[str, Any] | None = None,
        finish_reason: str | None = None,
        message: Mapping[str, Any] | None = None,
        parsed: Any = None,
    ) -> Reply:
        self = super().__new__(cls, text)
        self.model = model
        self.usage = _records(dict(usage or {}))
        self.finish_reason = finish_reason
        self.message = _records(dict(message or {"role": "assistant", "content": text}))
        self.parsed = parsed
        return self

    @property
    def reasoning(self) -> str:
        """The model's thoughts; empty where there are none, or its server keeps them to itself."""
        return str(self.message.get("reasoning_content") or self.message.get("reasoning") or "")

    @property
    def tool_calls(self) -> Records[ToolCall]:
        """The tools that the model asks to be called, as `{id, name, arguments}`, the arguments a dict.

        Raises BackendError where the model wrote arguments that are no JSON object; `message` has them as they are.
        """
        return Records(_tool_call(call) for call in self.message.get("tool_calls") or ())


_Model = TypeVar("_Model")


class ParsedReply(Reply, Generic[_Model]):
    """A reply to a question with a pydantic class as its `schema`: `parsed` is an instance."""

    parsed: _Model


# What of a reply's message belongs into the conversation beside its text; servers refuse what else some put there.
_BESIDE = (
    *(
        "reasoning_content",
        "reasoning",
        "annotations",
        "citations",
        "extra_content",
        "provider_specific_fields",
    ),
    *("reasoning_details", "search_results", "thinking_blocks"),
)
_MESSAGE = ("content", "tool_calls", *_BESIDE)


def _message(said: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: said[name] for name in _MESSAGE if said.get(name)}
    return {"role": "assistant", "content": None if "tool_calls" in kept else "", **kept}


def _tool_call(call: Mapping[str, Any]) -> ToolCall:
    function = call.get("function") or {}
    name, written = function.get("name", ""), function.get("arguments") or "{}"
    try:
        arguments = json.loads(written) if isinstance(written, str) else written
        if isinstance(arguments, str):  # some servers write them as JSON twice
            arguments = json.loads(arguments)
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, Mapping):
        raise BackendError(
            f"the model calls {name} with arguments that are no JSON object: ask it again",
            details={"tool": name, "text": written},
        )
    return ToolCall(id=call.get("id", ""), name=name, arguments=_records(dict(arguments)))


class Answer(_Shown, str):
    """An answer from a collection: a `str`, with `sources` (numbered passages with a quote) and `found`.

    `citations` are the numbers of the sources that it cites, as in "[1]". `found` is False where the passages do not
    tell: by the model's own word, or, where `model` is "quotes", by how well the best sentence fits the question. Such an
    answer has the documents' own words, which a larger model would put into its own.
    `explanation` is there where `explain=True` asked for it.
    """

    found: bool
    citations: list[int]
    sources: Records[Source]
    model: str
    usage: Record
    explanation: Explanation | None

    def __new__(
        cls,
        text: str,
        *,
        found: bool = True,
        citations: Sequence[int] = (),
        sources: Sequence[Mapping[str, Any]] = (),
        model: str = "",
        usage: Mapping[str, Any] | None = None,
        explanation: Mapping[str, Any] | None = None,
    ) -> Answer:
        self = super().__new__(cls, text)
        self.found = found
        self.citations = list(citations)
        self.sources = Records(Source(_records(dict(source))) for source in sources)
        self.model = model
        self.usage = _records(dict(usage or {}))
        self.explanation = Explanation(_records(dict(explanation))) if explanation else None
        return self


class Analysis(_Typed):
    """What a document says; see `analyze_document`. In notebooks, a page to read."""

    sentiment: Literal["positive", "negative", "neutral", "mixed"]
    sentiment_score: float
    key_points: list[str]
    positions: list[Any]
    summary: str
    coverage: Any
    facts: Any
    notes: list[str]
    prompts: list[str]
    model: str


class Explanation(_Typed):
    """How an answer came about: `{question, candidates, fit, bar, found, model, …}`; a picture in notebooks.

    `candidates` are the passages that retrieval came upon: `{number, collection, document_id, chunk, text, score,
    dense, sparse, weight, fused, judge, judged, rerank, quote_score, dropped}`, best first. `number` is the source's, None where it was
    dropped before. `dropped` is why the answer was not written from it: "duplicate" (of a better one), "min_score",
    "top_k" (not among the best), "budget" (no room in the model's context), "postprocessor" (one left it out), else None. Where no model
    judges, `found` is whether `fit` reaches `bar`. `notes` tell of filters' fields that no document has, or that hold
    something else than was asked for. `ms` has the milliseconds of each step.
    """

    question: str
    candidates: Records[Record]
    fit: float | None
    bar: float | None
    found: bool
    model: str
    prompt: str | None
    prompt_tokens: int
    notes: list[str]
    ms: Record

    @property
    def dropped(self) -> Records[Record]:
        """The candidates that the answer was not written from."""
        return Records(one for one in self["candidates"] if one["dropped"])

    def __repr__(self) -> str:
        return _written(self)


class AgentRun(_Typed):
    """What came of an agent's task: `{agent, status, answer, found, citations, sources, output, trace, usage, …}`.

    `str(run)` is the answer; `output` is what an agent with a shape of its own gave. `status` is "completed", "stopped" (at
    a limit, which `notes` tell, with what was found until then) or "needs_approval": then `pending` are the calls that wait,
    and `client.approve(run.run_id)` or `client.reject(run.run_id)` has it go on. `trace` is a tree of steps: `{name, kind,
    seconds, tokens, model, prompt, input, output, error, steps}`.
    """

    agent: str
    run_id: str | None
    status: Literal["completed", "stopped", "needs_approval"]
    answer: str
    found: bool
    citations: list[int]
    sources: Records[Source]
    output: Any
    notes: list[str]
    pending: Records[Record]
    trace: Record
    model: str
    usage: Record

    def __str__(self) -> str:
        return str(self["answer"])

    def table(self) -> Records[Record]:
        """The analyst's table, a row a document: each field's value, and its quote under `<field> quote`.

        It leaves by `to_pandas()`, `to_polars()`, `to_jsonl(path)` and `to_parquet(path)`.
        """
        told = []
        for row in self["output"]["rows"]:
            line = {"document": row["document"], "collection": row["collection"], "error": row["error"]}
            for name, cell in row["cells"].items():
                column = f"{name} value" if name in ("document", "collection", "error") else name
                line[column], line[f"{name} quote"] = cell["value"], cell["quote"]
            told.append(Record(line))
        return Records(told)


class Evaluation(_Typed):
    """How well search finds what it should: `{collection, k, scores, questions}`, and `worst()` and `plot()`.

    `scores` has for each mode `{mode, recall, mrr, ndcg, ms}`, the means over all questions; `questions` has for each
    `{question, gold, ranks, ndcg, first}`: by mode, the rank of the first gold document (None: not among the first
    `k`), the nDCG, and the document that stands first.
    """

    collection: str
    k: int
    scores: Records[Record]
    questions: Records[Record]

    def worst(self, count: int = 10, mode: str = "hybrid") -> Records[Record]:
        """The questions that a mode does worst at."""
        return Records(sorted(self["questions"], key=lambda one: one["ndcg"][mode])[:count])

    def plot(self, axes: Any = None) -> Any:
        """Bars of each mode's scores, on matplotlib's axes, which are returned."""
        return _pictures().plot_evaluation(self, axes)

    def __repr__(self) -> str:
        return _written(self)


class Embeddings(_Shown, Sequence[list[float]]):
    """Vectors of several texts, in their order, in one block of float32.

    Indexing and iterating give a list of floats each; `numpy()` gives a (count, dimension) float32 array
    without copying. Vectors have unit length, so a dot product is the cosine similarity. `cut` tells of
    texts longer than the model takes: `{index, tokens, limit, parts}`. `usage` counts tokens, which are None
    where the model's server does not tell.
    """

    def __init__(
        self,
        values: array[float],
        dimension: int,
        *,
        model: str = "",
        usage: Mapping[str, Any] | None = None,
        cut: Sequence[Mapping[str, Any]] = (),
    ):
        self.values = values
        self.dimension = dimension
        self.model = model
        self.usage = _records(dict(usage or {}))
        self.cut = Records(_records(dict(one)) for one in cut)

    @staticmethod
    def decode(data: bytes | memoryview | str, dimension: int, **about: Any) -> Embeddings:
        """From little-endian float32, one vector after the other, or from the base64 of that."""
        values = array("f")
        try:
            values.frombytes(base64.b64decode(data, validate=True) if isinstance(data, str) else data)
        except (binascii.Error, ValueError, TypeError) as error:
            raise TransportError(
                "the server sent vectors that are neither float32 nor base64 of it"
            ) from error
        if sys.byteorder == "big":
            values.byteswap()
        if len(values) % (dimension or 1):
            raise TransportError("the server sent vectors of different lengths")
        return Embeddings(values, dimension, **about)

    def numpy(self) -> Any:
        """A (count, dimension) float32 numpy array that shares this memory."""
        import numpy  # the caller wants numpy, so the caller has it

        return numpy.frombuffer(self.values, dtype=numpy.float32).reshape(len(self), self.dimension)

    def to_pandas(self) -> Any:
        """A pandas DataFrame with a row for each vector, and a column for each dimension."""
        import pandas  # the caller wants pandas, so the caller has it

        return pandas.DataFrame(self.numpy())

    def to_polars(self) -> Any:
        """A polars DataFrame with one column, `embedding`, of arrays."""
        import polars  # the caller wants polars, so the caller has it

        return polars.DataFrame({"embedding": polars.Series(self.numpy())})

    def plot(self, labels: Sequence[Any] | None = None, axes: Any = None) -> Any:
        """The vectors as points in two dimensions (principal components), coloured by labels; returns matplotlib's axes."""
        return _pictures().plot_vectors(self, labels, axes)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        matrix = self.numpy()
        return matrix.astype(dtype) if dtype is not None else (matrix.copy() if copy else matrix)

    def __len__(self) -> int:
        return len(self.values) // self.dimension if self.dimension else 0

    @overload
    def __getitem__(self, index: int) -> list[float]: ...
    @overload
    def __getitem__(self, index: slice) -> Embeddings: ...
    def __getitem__(self, index: int | slice) -> list[float] | Embeddings:
        if isinstance(index, slice):
            rows = range(len(self))[index]
            values = array("f")
            for row in rows:
                values.extend(self.values[row * self.dimension : (row + 1) * self.dimension])
            cut = [{**one, "index": rows.index(one["index"])} for one in self.cut if one["index"] in rows]
            return Embeddings(values, self.dimension, model=self.model, usage=self.usage, cut=cut)
        row = range(len(self))[index]
        return self.values[row * self.dimension : (row + 1) * self.dimension].tolist()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Embeddings):
            return NotImplemented
        return self.dimension == other.dimension and self.values == other.values

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<Embeddings: {len(self)} vectors of {self.dimension} dimensions by {self.model!r}>"


class EmbeddingsFile(_Typed):
    """Vectors that `batch_embed` wrote to a file: `{path, count, dimension, model, usage, cut}`."""

    path: str
    count: int
    dimension: int
    model: str
    usage: Record
    cut: Records[Record]

    def numpy(self) -> Any:
        """A (count, dimension) float32 numpy array; of an .npy file, memory-mapped: what is looked at is read."""
        import numpy  # the caller wants numpy, so the caller has it

        if _suffix(self["path"]) == ".npy":
            return numpy.load(self["path"], mmap_mode="r")
        from pyarrow import parquet

        column = parquet.read_table(self["path"], columns=["embedding"])["embedding"].combine_chunks()
        return column.flatten().to_numpy().reshape(self["count"], self["dimension"])


class _InMemory:
    """Where `batch_embed` puts vectors that stay in memory."""

    partial = ""

    def __init__(self) -> None:
        self._blocks: list[bytes] = []
        self._dimension = 0

    def write(self, block: bytes, dimension: int) -> None:
        self._blocks.append(block)
        self._dimension = dimension

    def done(self, **about: Any) -> Any:
        return Embeddings.decode(b"".join(self._blocks), self._dimension, **about)

    def close(self) -> None:
        """There is nothing to let go of."""


class _NpyFile:
    """NumPy's format: a head that tells the shape, then the vectors."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.partial = f", in {path}.part"
        self._file = open(f"{path}.part", "wb")  # noqa: SIM115 - closed by `close`
        self._count = self._dimension = 0
        self._head()

    def write(self, block: bytes, dimension: int) -> None:
        if self._dimension not in (0, dimension):
            raise TransportError("the server sent vectors of different lengths")
        self._file.write(block)
        self._dimension = dimension
        self._count += len(block) // (4 * dimension)

    def _head(self) -> None:
        self._file.seek(0)
        shape = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({self._count}, {self._dimension}), }}"
        self._file.write(b"\x93NUMPY\x01\x00\x76\x00" + shape.ljust(117).encode() + b"\n")

    def done(self, **about: Any) -> Any:
        self.close()
        os.replace(f"{self._path}.part", self._path)
        return EmbeddingsFile(path=self._path, count=self._count, dimension=self._dimension, **about)

    def close(self) -> None:
        if not self._file.closed:
            self._head()
            self._file.close()


class _ParquetFile:
    """The rows that the texts come from, each with its vector as `embedding`."""

    def __init__(self, path: str, source: _Source) -> None:
        self._path = path
        self.partial = f", in {path}.part"
        self._source = source
        self._writer: Any = None
        self._count = self._dimension = 0

    def write(self, block: bytes, dimension: int) -> None:
        import pyarrow
        from pyarrow import parquet

        count = len(block) // (4 * dimension)
        rows = self._source.rows(count)
        if self._writer is None:
            schema = self._source.schema
            if schema is None:
                schema = pyarrow.Table.from_pylist(rows).schema
                untold = pyarrow.types.is_null
                schema = pyarrow.schema(
                    [one.with_type("string") if untold(one.type) else one for one in schema]
                )
            self._columns = pyarrow.schema([one for one in schema if one.name != "embedding"])
            self._vectors = pyarrow.list_(pyarrow.float32(), dimension)
            schema = self._columns.append(pyarrow.field("embedding", self._vectors))
            # Of vectors, neither a dictionary nor what is smallest and largest tells anything, nor do they compress.
            names = list(self._columns.names)
            self._writer = parquet.ParquetWriter(
                f"{self._path}.part",
                schema,
                use_dictionary=names,
                write_statistics=names,
                compression={"embedding.list.element": "NONE"},
            )
        if self._source.in_batches:
            table = pyarrow.Table.from_batches([rows]).select(self._columns.names).cast(self._columns)
        else:
            table = pyarrow.Table.from_pylist(rows, schema=self._columns)
        buffers = [None, pyarrow.py_buffer(block)]
        floats = pyarrow.Array.from_buffers(pyarrow.float32(), count * dimension, buffers)
        vectors = pyarrow.FixedSizeListArray.from_arrays(floats, dimension)
        self._writer.write_table(table.append_column("embedding", vectors))
        self._count, self._dimension = self._count + count, dimension

    def done(self, **about: Any) -> Any:
        self.close()
        os.replace(f"{self._path}.part", self._path)
        return EmbeddingsFile(path=self._path, count=self._count, dimension=self._dimension, **about)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


@contextlib.contextmanager
def _vectors_to(out: Any, source: _Source) -> Iterator[Any]:
    path = None if out is None else os.fsdecode(out)
    target: Any
    try:
        if path is None:
            target = _InMemory()
        elif _suffix(path) == ".npy":
            target = _NpyFile(path)
        elif _suffix(path) == ".parquet":
            import pyarrow  # noqa: F401

            source.keeps_rows = True
            target = _ParquetFile(path, source)
        else:
            raise InvalidRequest(f"batch_embed: out={path!r} is to end in .npy or .parquet")
        try:
            yield target
        finally:
            target.close()
    except ImportError as error:
        raise InvalidRequest("batch_embed: writing Parquet needs pyarrow: pip install pyarrow") from error
    except OSError as error:
        raise InvalidRequest(f"batch_embed: {path} cannot be written: {error}") from error


def _pace(done: int, total: int | None, seconds: float) -> Record:
    """How far a long call is, as `progress` takes it."""
    rate = done / seconds if seconds > 0 else None
    eta = (total - done) / rate if rate and total is not None else None
    return Record(done=done, total=total, stage="embed", stages=Record(), rate=rate, eta=eta)


# ----------------------------------------------------------------------------------------------- streams


def _events(chunks: Iterator[bytes], alive: Callable[[], None] = lambda: None) -> Iterator[dict[str, Any]]:
    """The JSON events of a server-sent-event stream; ends at [DONE], raises what an error event carries.

    `alive` is called whenever anything comes, be it a heartbeat.
    """
    buffer = b""
    for chunk in chunks:
        alive()
        buffer += chunk
        *events, buffer = buffer.replace(b"\r\n", b"\n").split(b"\n\n")
        for event in events:
            data = b"\n".join(line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:"))
            if not data:
                continue  # a comment: servers send them to keep the connection open
            if data == b"[DONE]":
                return
            try:
                message = json.loads(data)
            except ValueError:
                message = None
            if not isinstance(message, dict):
                raise StreamInterrupted("the stream carries something that is not an event")
            if message.get("error"):
                error = message["error"]
                raise LLMBackendError.from_dict(error if isinstance(error, dict) else {"message": error})
            yield message
    raise StreamInterrupted("the stream ended before its last event")


def _close(chunks: Iterator[bytes]) -> None:
    close = getattr(chunks, "close", None)
    if close is not None:
        close()


class _TextStream(Iterator[str]):
    """Pieces of text as they come; `close()` (or leaving a `with` block) stops the model's work too."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._events = _events(chunks)
        self._pieces: list[str] = []

    def __next__(self) -> str:
        try:
            while True:
                event = next(self._events)
                try:
                    piece = self._take(event)
                except (AttributeError, TypeError, ValueError) as error:
                    raise StreamInterrupted("the stream carries something that is no reply") from error
                if piece:
                    self._pieces.append(piece)
                    return piece
        except LLMBackendError as error:
            self.close()
            raise StreamInterrupted(
                f"the stream broke off: {error}", text="".join(self._pieces), details=error.to_dict()
            ) from error

    def _take(self, event: dict[str, Any]) -> str:
        raise NotImplementedError

    def close(self) -> None:
        """Stop reading and tell the other side to stop."""
        _close(self._chunks)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_THOUGHT = re.compile(r"(?<![`\"'])</(?:think|thinking|thought|reasoning)>(?![`\"'])", re.IGNORECASE)
_THINKS = re.compile(r"<(?:think|thinking|thought|reasoning)>", re.IGNORECASE)


class ReplyStream(_TextStream):
    """What `chat(stream=True)` returns: an iterator of text pieces; after the last, `reply` is the whole Reply."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        super().__init__(chunks)
        self._model = ""
        self._usage: dict[str, Any] = {}
        self._finish_reason: str | None = None
        self._beside: dict[str, Any] = {}
        self._tool_calls: dict[int, dict[str, Any]] = {}

    def _take(self, event: dict[str, Any]) -> str:
        self._model = event.get("model") or self._model
        self._usage = dict(event.get("usage") or self._usage)
        piece = ""
        for choice in event.get("choices") or ():
            self._finish_reason = choice.get("finish_reason") or self._finish_reason
            delta = choice.get("delta") or {}
            piece += delta.get("content") or ""
            for name in _BESIDE:
                if delta.get(name):
                    self._beside[name] = _joined(self._beside.get(name), delta[name])
            for part in delta.get("tool_calls") or ():
                self._take_call(part)
        return piece

    def _take_call(self, part: dict[str, Any]) -> None:
        """A tool call comes in parts: its id and name first, then its arguments bit by bit."""
        call = self._tool_calls.setdefault(
            part.get("index") or 0, {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
        )
        said = part.get("function") or {}
        for name in ("extra_content", "provider_specific_fields"):
            if part.get(name):
                call[name] = _joined(call.get(name), part[name])
        call["id"] = part.get("id") or call["id"]
        call["function"]["name"] = said.get("name") or call["function"]["name"]
        call["function"]["arguments"] += said.get("arguments") or ""

    @property
    def reply(self) -> Reply:
        """What has come so far, as a Reply; complete once the stream has ended."""
        text, beside = "".join(self._pieces), self._beside
        while (ended := _THOUGHT.search(text)) and not _THINKS.search(text, 0, ended.start()):
            # Its template opened the thoughts, or there were others within: nobody could tell before.
            before = beside.get("reasoning_content") or beside.get("reasoning")
            thoughts, text = text[: ended.start()].strip(), text[ended.end() :].lstrip()
            beside = {**beside, "reasoning_content": "\n".join(filter(None, [before, thoughts]))}
        calls = [self._tool_calls[index] for index in sorted(self._tool_calls)]
        return Reply(
            text,
            model=self._model,
            usage=self._usage,
            finish_reason=self._finish_reason,
            message=_message({**beside, "content": text, "tool_calls": calls}),
        )


def _joined(before: Any, more: Any) -> Any:
    """What has come of a field, and the next piece of it."""
    if isinstance(before, dict) and isinstance(more, dict):
        return {**before, **more}
    for kind in (str, list):
        if isinstance(before, kind) and isinstance(more, kind):
            return cast(Any, before) + more
    return more


class AnswerStream(_TextStream):
    """What `rag_query(stream=True)` returns: `sources` are there before the first piece; `answer` after the last."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        super().__init__(chunks)
        self._final: dict[str, Any] = {}
        self.sources: Records[Source] = Records()

    def _begin(self) -> None:
        """Read the sources, which the server sends first."""
        first = next(self._events, None)
        if first is None or "sources" not in first:
            raise StreamInterrupted("the stream does not begin with the answer's sources")
        self.sources = Records(map(Source, _records(first["sources"])))

    def _take(self, event: dict[str, Any]) -> str:
        if "answer" in event:
            self._final = event["answer"]
        return event.get("delta") or ""

    @property
    def answer(self) -> Answer:
        """The text so far, as an Answer; complete once the stream has ended."""
        return Answer(
            self._final.get("answer", "".join(self._pieces)),
            found=self._final.get("found", bool(self.sources)),
            citations=self._final.get("citations", ()),
            sources=self.sources,
            model=self._final.get("model", ""),
            usage=self._final.get("usage"),
            explanation=self._final.get("explanation"),
        )


class AgentStream(Iterator[Record]):
    """What `run_agent(stream=True)` returns: an iterator of events, each with a `type`; after the last, `run` is the AgentRun.

    `step` (`{id, parent, name, kind, status}`, which began or ended), `text` (`{delta}`), `tool_call` (`{id, tool,
    arguments}`), `tool_result` (`{id, tool, output, failed}`), `needs_approval` (`{run_id, pending}`), `done` (`{run}`).
    `close()`, or leaving a `with` block, ends the run, unless it is a job.
    """

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._events = _events(chunks)
        self._run: AgentRun | None = None

    def __next__(self) -> Record:
        try:
            event = _records(next(self._events))
        except LLMBackendError:
            self.close()
            raise
        if event.get("type") == "done":
            event["run"] = self._run = AgentRun(event["run"])
        return cast(Record, event)

    @property
    def run(self) -> AgentRun:
        """The run, once `done` has come; raises Conflict before."""
        if self._run is None:
            raise Conflict("the run has not ended: read its events to the end")
        return self._run

    def close(self) -> None:
        """Stop reading and tell the other side to stop."""
        _close(self._chunks)

    def __enter__(self) -> AgentStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _ProgressBar:
    """A bar on stderr, with what is done in words: tqdm's, or a line of text where this file came without it."""

    def __init__(self, operation: str = "") -> None:
        self._began = time.monotonic()
        self._operation = operation
        try:
            from tqdm import tqdm
        except ImportError:
            self._bar: Any = None
        else:
            self._bar = tqdm(
                file=sys.stderr, dynamic_ncols=True, bar_format="{percentage:3.0f}%|{bar:20}| {desc}"
            )

    def __call__(self, state: Mapping[str, Any]) -> None:
        """Shows progress, or a job's."""
        progress = self._timed(state)
        told = _progress_text(progress, state.get("type") or self._operation)
        if self._bar is None:
            print(f"\r{told:<78.78}", end="", file=sys.stderr, flush=True)
            return
        self._bar.total = progress.get("total") or None
        self._bar.n = progress.get("done") or 0
        self._bar.set_description_str(told)

    def _timed(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        """With a rate and the time that is left: a job's is told, that of a call is taken here."""
        progress: Mapping[str, Any] = state.get("progress") or state
        took, done, total = time.monotonic() - self._began, progress.get("done"), progress.get("total")
        if "rate" in progress or took < 0.5:
            return progress
        chunks = (progress.get("stages") or {}).get("write") or {}
        left = took * (total - done) / done if done and total else None
        return {**progress, "rate": (chunks.get("done") or done or 0) / took, "eta": left}

    def close(self) -> None:
        if self._bar is None:
            print(file=sys.stderr)
        else:
            self._bar.close()


class _NotebookBar(_ProgressBar):
    """A bar below the cell that runs."""

    def __init__(self, display: Any, operation: str = "") -> None:  # tqdm's needs ipywidgets
        self._began = time.monotonic()
        self._operation = operation
        self._handle = display({"text/html": "", "text/plain": ""}, raw=True, display_id=True)

    def __call__(self, state: Mapping[str, Any]) -> None:
        shown = state if isinstance(state, Job) else Record({**self._timed(state), "type": self._operation})
        self._handle.update({"text/html": _drawn(shown), "text/plain": _written(shown)}, raw=True)

    def close(self) -> None:
        """It stays as it was last."""


Progress = Callable[[Any], None]  # called with a Record, or a Job


@contextlib.contextmanager
def _progress(choice: bool | Progress | None, operation: str = "") -> Iterator[Progress | None]:
    """True: a bar. None: a bar if somebody is looking at a terminal. A function is called with each step."""
    if callable(choice):
        yield choice
        return
    display = _notebook()
    if choice is None:
        choice = display is not None or (sys.stderr is not None and sys.stderr.isatty())
    if not choice:
        yield None
        return
    bar = _ProgressBar(operation) if display is None else _NotebookBar(display, operation)
    try:
        yield bar
    finally:
        bar.close()


def _notebook() -> Any:
    """IPython's `display`, where this code runs in a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return ipython.display.display if ipython is not None and hasattr(shell, "kernel") else None


# -------------------------------------------------------------------------------------------- transports

# Where each operation lives over HTTP. A test compares this with the server's table.
ROUTES: dict[str, tuple[str, str]] = {
    "chat": ("POST", "/v1/chat/completions"),
    "embed": ("POST", "/v1/embeddings"),
    "rerank": ("POST", "/v1/rerank"),
    "respond": ("POST", "/v1/responses"),
    "get_response": ("GET", "/v1/responses/{response_id}"),
    "delete_response": ("DELETE", "/v1/responses/{response_id}"),
    "cancel_response": ("POST", "/v1/responses/{response_id}/cancel"),
    "list_input_items": ("GET", "/v1/responses/{response_id}/input_items"),
    "models": ("GET", "/v1/models"),
    "get_model": ("GET", "/v1/models/{model}"),
    "rag_ingest": ("POST", "/v1/rag/ingest"),
    "rag_ingest_files": ("POST", "/v1/rag/ingest/files"),
    "rag_search": ("POST", "/v1/rag/search"),
    "rag_query": ("POST", "/v1/rag/query"),
    "evaluate": ("POST", "/v1/rag/evaluate"),
    "list_collections": ("GET", "/v1/collections"),
    "create_collection": ("POST", "/v1/collections"),
    "get_collection": ("GET", "/v1/collections/{collection}"),
    "set_indexes": ("POST", "/v1/collections/{collection}/indexes"),
    "delete_collection": ("DELETE", "/v1/collections/{collection}"),
    "reindex_collection": ("POST", "/v1/collections/{collection}/reindex"),
    "export_collection": ("GET", "/v1/collections/{collection}/export"),
    "import_collection": ("POST", "/v1/collections/{collection}/import"),
    "list_documents": ("GET", "/v1/collections/{collection}/documents"),
    "list_chunks": ("POST", "/v1/collections/{collection}/chunks"),
    "get_document": ("GET", "/v1/collections/{collection}/document"),
    "delete_documents": ("POST", "/v1/collections/{collection}/documents/delete"),
    "analyze_document": ("POST", "/v1/analyze"),
    "submit_job": ("POST", "/v1/jobs"),
    "batch_chat": ("POST", "/v1/jobs/batch_chat"),
    "get_job_status": ("GET", "/v1/jobs/{job_id}"),
    "list_jobs": ("GET", "/v1/jobs"),
    "get_job_result": ("GET", "/v1/jobs/{job_id}/result"),
    "job_events": ("GET", "/v1/jobs/{job_id}/events"),
    "retry_job": ("POST", "/v1/jobs/{job_id}/retry"),
    "cancel_job": ("POST", "/v1/jobs/{job_id}/cancel"),
    "list_agents": ("GET", "/v1/agents"),
    "run_agent": ("POST", "/v1/agents/run"),
    "approve": ("POST", "/v1/agents/runs/{run_id}/approve"),
    "reject": ("POST", "/v1/agents/runs/{run_id}/reject"),
    "set_schedule": ("POST", "/v1/schedules"),
    "list_schedules": ("GET", "/v1/schedules"),
    "delete_schedule": ("DELETE", "/v1/schedules/{name}"),
    "share_collection": ("POST", "/v1/collections/{collection}/shares"),
    "unshare_collection": ("DELETE", "/v1/collections/{collection}/shares/{with_project}"),
    "list_shares": ("GET", "/v1/shares"),
    "create_key": ("POST", "/v1/keys"),
    "list_keys": ("GET", "/v1/keys"),
    "rotate_key": ("POST", "/v1/keys/{key}/rotate"),
    "revoke_key": ("DELETE", "/v1/keys/{key}"),
    "audit": ("GET", "/v1/audit"),
    "prompts": ("GET", "/v1/prompts"),
    "usage": ("GET", "/v1/usage"),
    "health": ("GET", "/health/ready"),
    "doctor": ("GET", "/v1/doctor"),
}


class Transport(Protocol):
    """Carries an operation's arguments, as JSON has them (`encoded`), to where it runs and brings its JSON back.

    The client that was given one closes it. A test's own:

        class Canned:
            def call(self, operation, given):
                return b'{"data": []}'
    """

    def call(self, operation: str, given: dict[str, Any]) -> bytes:
        """The operation's JSON result, UTF-8; raises the LLMBackendError that the server tells, or TransportError."""

    def stream(self, operation: str, given: dict[str, Any]) -> Iterator[bytes]:
        """The operation's server-sent events, piecewise; raises before the first piece if the request is refused."""

    def close(self) -> None:
        """Let go of connections and files."""


def encoded(operation: str, given: dict[str, Any]) -> bytes:
    """An operation's arguments as JSON; raises InvalidRequest for what JSON has not.

    Half a surrogate pair is no character, and becomes U+FFFD: models write some, and a text cut anywhere ends in one.
    """
    try:
        text = json.dumps(given, allow_nan=False, default=_jsonable)
        if "\\u" in text:  # ASCII is written twice as fast; other characters take less room as they are
            text = json.dumps(given, allow_nan=False, ensure_ascii=False, default=_jsonable)
        try:
            return text.encode()
        except UnicodeEncodeError:  # halves that belong together are joined
            return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
    except (TypeError, ValueError, RecursionError) as error:
        place, reason = _not_json(given) or (["an argument"], f"is not JSON: {error}")
        found = {"type": "json", "loc": place, "msg": reason}
        raise InvalidRequest(f"{operation}: {_where(place)} {reason}", details={"errors": [found]}) from error


SAFE = frozenset(name for name, (method, _) in ROUTES.items() if method == "GET") | {
    "chat", "embed", "rerank", "list_chunks", "rag_search", "rag_query", "evaluate", "analyze_document", "submit_job",
    "cancel_job", "set_schedule", "set_indexes",
}  # fmt: skip
"""Operations that leave nothing more behind if they are done twice: `submit_job` by its idempotency key."""

CONNECT_SECONDS = 10
PAUSE = 0.25  # seconds before the first retry; each later one waits twice as long
LONGEST_PAUSE = 60.0  # seconds; a server that says to come back later than that is not waited for


class _HttpAddress:
    """Where a server is, how long and how often it is tried, and what an operation's request to it looks like."""

    def __init__(self, api_url: str, timeout: float, retries: int, api_key: str | None) -> None:
        url = _checked_url(api_url)
        if api_key and api_key.lower().startswith("bearer "):
            raise InvalidRequest("api_key is the key alone: leave out the word before it")
        if api_key and not (api_key.isascii() and api_key.isprintable()):
            raise InvalidRequest("api_key has characters that an HTTP header cannot carry")
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout > 0:
            raise InvalidRequest(f"timeout is a number of seconds above 0, such as 600, not {timeout!r}")
        if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
            raise InvalidRequest(f"retries is a number from 0 on, not {retries!r}")
        self.api_url = url.rstrip("/")
        if self.api_url.endswith("/v1"):  # as OpenAI's clients have it
            self.api_url = self.api_url[: -len("/v1")].rstrip("/")
        self.timeout = timeout
        self.retries = retries
        self.api_key = api_key
        self.given = (api_url, api_key, timeout, retries)
        self._server_version: str | None = None

    def request(self, operation: str, given: dict[str, Any]) -> dict[str, Any]:
        """An operation's `{method, url, params, data, headers}`."""
        if operation == "submit_job" and given.get("idempotency_key") is None:
            given = {
                **given,
                "idempotency_key": uuid.uuid4().hex,
            }  # an answer that was lost can be asked for again
        body = encoded(operation, given)
        method, path = ROUTES[operation]
        query: dict[str, Any] = {}
        if "{" in path or method in ("GET", "DELETE"):
            fields = json.loads(body)
            for name in [part[1:-1] for part in path.split("/") if part.startswith("{")]:
                path = path.replace("{" + name + "}", quote(str(fields.pop(name)), safe=""))
            if method in ("GET", "DELETE"):
                query, body = fields, b""
            else:
                body = json.dumps(fields).encode()
        headers = {"Content-Type": "application/json"} if body else None
        url = self.api_url + path
        return {"method": method, "url": url, "params": query, "data": body or None, "headers": headers}

    def check(self, operation: str, status: int, headers: Mapping[str, str], content: bytes) -> None:
        """Raises what a reply says that is none of success; warns once of a server of another version than this file's.

        `content` is there where the status is not 200.
        """
        unwell = operation == "health" and status == 503 and b'"problems"' in content
        if status != 200 and not unwell:
            raise _error_of(status, content, self.api_url)
        if "X-LLMBackend-Overhead-Ms" not in headers:
            page = "html" in headers.get("Content-Type", "")
            what = (
                "with a page, such as a sign-in's or another program's"
                if page
                else "as no server of llmbackend does"
            )
            raise TransportError(f"{self.api_url} answers {what}: correct the URL")
        served = headers.get("X-LLMBackend-Version")
        if served is None or served == self._server_version:
            return
        self._server_version = served
        if served.split(".")[:2] != __version__.split(".")[:2]:
            warnings.warn(
                f"{self.api_url} is llmbackend {served}, and this client is of {__version__}: some calls may differ; "
                f"install llmbackend {served}, or copy its sdk/llm_client.py",
                stacklevel=_frames_of_ours(),
            )

    def pause(self, operation: str, error: LLMBackendError, retry: int) -> float | None:
        """Seconds after which a call that failed, the first time with `retry` 0, may be tried again; None: it may not."""
        pause = PAUSE * 2**retry
        if retry >= self.retries:
            return None
        if isinstance(error, Overloaded):
            if operation not in SAFE and "ingested" in error.details:  # a part of it has been done
                return None
            pause = max(pause, float(error.details.get("retry_after") or 0))
            return pause if pause <= LONGEST_PAUSE else None
        if not isinstance(error, TransportError) or not error.details.get("retry"):
            return None
        return pause if operation in SAFE or not error.details["sent"] else None

    def unanswered(self, kind: str, error: Exception) -> TransportError:
        """Why no answer came, and what to do.

        `details` tell whether the request was `sent`, so that it may have been carried out, and whether to `retry`.
        """
        why = {
            "timeout": f"within {self.timeout:g} s: give the client a larger timeout=, or have it done as a job (submit_job)",
            "connecting": f"(no connection within {CONNECT_SECONDS} s): correct the URL, or see whether a firewall is between",
            "certificate": "(its certificate is not trusted): name your organisation's certificates in REQUESTS_CA_BUNDLE",
            "tls": "(it does not speak https): is it http://… in place of https://…?",
            "proxy": "(the proxy of HTTP_PROXY or HTTPS_PROXY refuses): add the host to NO_PROXY, or correct the proxy",
            "name": "(no host of that name): correct the URL",
            "refused": "(no connection): is the server running there?",
            "broken": "(it broke the connection)",
        }.get(kind, f"({type(error).__name__}: {str(error)[:200]})")
        if kind == "broken" and self.api_url.startswith("http:"):
            why += ": is it https://… in place of http://…?"
        sent = kind in ("timeout", "broken", "other")
        return TransportError(
            f"no answer from {self.api_url} {why}",
            details={"sent": sent, "retry": kind in ("refused", "broken")},
        )


class HttpTransport:
    """Operations over HTTP.

    `timeout` is the longest wait, in seconds, for the server to send anything. `retries` is how often a call is
    tried again: where the server could not be reached or said to come back later (429), and, for calls that change
    nothing, where the connection broke before the answer came.
    """

    def __init__(
        self, api_url: str, api_key: str | None = None, timeout: float = 600, retries: int = 2
    ) -> None:
        self._address = _HttpAddress(api_url, timeout, retries, api_key)
        self.api_url = self._address.api_url
        self._closed = threading.Event()
        self._open()

    def _open(self) -> None:
        import requests  # imported here so that in-process users do not wait for it

        self._pid = os.getpid()
        self._session = requests.Session()
        self._session.headers["User-Agent"] = (
            f"llmbackend-python/{__version__} requests/{requests.__version__}"
        )

        def authorize(request: Any) -> Any:
            # Set here and not as a header, which requests would replace by what ~/.netrc says of this host.
            if self._address.api_key:
                request.headers["Authorization"] = f"Bearer {self._address.api_key}"
            return request

        self._session.auth = authorize

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._address.given  # connections stay here

    def __repr__(self) -> str:
        return f"HttpTransport({self.api_url!r})"

    def call(self, operation: str, given: dict[str, Any]) -> bytes:
        return cast(bytes, self._send(operation, given, stream=False).content)

    def stream(self, operation: str, given: dict[str, Any]) -> Iterator[bytes]:
        return _HttpChunks(self._send(operation, given, stream=True), self.api_url)

    def _send(self, operation: str, given: dict[str, Any], *, stream: bool) -> Any:
        """The response; with `stream`, its body is still to be read."""
        request = self._address.request(operation, given)
        for retry in itertools.count():
            if self._closed.is_set():
                raise TransportError("this client is closed: make a new one", details={"closed": True})
            try:
                return self._sent(operation, request, stream)
            except LLMBackendError as error:
                pause = self._address.pause(operation, error, retry)
                if pause is None:
                    raise
            self._closed.wait(pause)

    def _sent(self, operation: str, request: dict[str, Any], stream: bool) -> Any:
        import requests

        if self._pid != os.getpid():  # forked: its connections are the parent's
            self._open()
        limits = (CONNECT_SECONDS, self._address.timeout)
        try:
            response = self._session.request(**request, timeout=limits, stream=stream, allow_redirects=False)
            status = response.status_code
            self._address.check(
                operation, status, response.headers, b"" if status == 200 else response.content
            )
        except requests.RequestException as error:
            raise self._address.unanswered(_kind(error), error) from error
        return response

    def close(self) -> None:
        self._closed.set()
        self._session.close()


def _kind(error: Exception) -> str:
    """What kept requests from an answer, as `_HttpAddress.unanswered` has it."""
    from requests import exceptions

    text = str(error)
    if isinstance(error, exceptions.SSLError):
        return "certificate" if "CERTIFICATE_VERIFY" in text else "tls"
    for kind, found in (
        ("timeout", isinstance(error, exceptions.ReadTimeout) or "Read timed out" in text),
        ("connecting", isinstance(error, exceptions.ConnectTimeout)),
        ("proxy", isinstance(error, exceptions.ProxyError)),
        ("name", "Failed to resolve" in text or "NameResolution" in text),
        ("refused", "NewConnectionError" in text or "Failed to establish" in text),
        ("broken", isinstance(error, (exceptions.ConnectionError, exceptions.ChunkedEncodingError))),
    ):
        if found:
            return kind
    return "other"


def _certificates() -> str:
    """The file or folder of certificates that requests trusts."""
    from requests.utils import DEFAULT_CA_BUNDLE_PATH

    named = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    return named or DEFAULT_CA_BUNDLE_PATH


def _frames_of_ours() -> int:
    """How far up the caller of this file is, as `warnings.warn` counts from the function that calls this."""
    depth, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename == __file__:
        depth, frame = depth + 1, frame.f_back
    return depth


class _HttpChunks(Iterator[bytes]):
    """A reply's body as it arrives. `close()` ends it, from whichever thread."""

    def __init__(self, response: Any, url: str) -> None:
        # No chunk size: each piece is handed on as it arrives, none is held back to fill a buffer.
        self._pieces = response.iter_content(chunk_size=None)
        self._response = response
        self._url = url
        self._closed = False

    def __next__(self) -> bytes:
        if self._closed:
            raise StopIteration
        try:
            return cast(bytes, next(self._pieces))
        except StopIteration:
            raise
        except Exception as error:  # once closed, whatever the reading thread trips over is the end
            if self._closed:
                raise StopIteration from None
            raise TransportError(f"the connection to {self._url} broke: {error}") from error

    def close(self) -> None:
        self._closed = True
        with suppress(Exception):  # as far as this urllib3 can, and if there is more to come
            self._response.raw.shutdown()  # wakes a thread that is waiting for it
        self._response.close()

    def __del__(self) -> None:
        self.close()


def _checked_url(url: Any) -> str:
    """A server's URL without spaces around it; raises InvalidRequest, which shows no password, for what is none."""
    try:
        parts = urlsplit(url.strip())
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except (AttributeError, ValueError):
        known = False
    if isinstance(url, str) and "@" in url:
        raise InvalidRequest(
            "api_url has a user and a password before its @, which are not sent: leave them out, and give the key as api_key"
        )
    if not known:
        raise InvalidRequest(f"api_url must be like http://host:port, not {url!r}")
    if parts.query or parts.fragment:
        raise InvalidRequest(
            f"api_url must be like http://host:port: leave out what begins with ? or #, of {url!r}"
        )
    return cast(str, url.strip())


_SIGN_IN = "what stands before the server wants a sign-in of its own: have it let these requests through"
_AWAY = "a proxy does not reach the server behind it: is that running?"
_FIXES = {
    **dict.fromkeys(
        (301, 302, 303, 307, 308), "it leads elsewhere (to https, or a sign-in): give the URL it leads to"
    ),
    **dict.fromkeys((401, 403, 407), _SIGN_IN),
    **dict.fromkeys((502, 503), _AWAY),
    504: "a proxy waited for the server no longer: give it more time, or have it done as a job (submit_job)",
    413: "a proxy takes no request so large: raise its limit (nginx: client_max_body_size), or send less at a time",
}


def _error_of(status: int, content: bytes, url: str) -> LLMBackendError:
    try:
        return LLMBackendError.from_dict(json.loads(content)["error"])
    except (ValueError, KeyError, TypeError, AttributeError):
        # Not our server: a proxy's page, or another service on that port.
        fix = "is it https://… in place of http://…?" if b"HTTPS" in content[:2000] else _FIXES.get(status)
        message = (
            f"{url} answered {status} with something that is not llmbackend's: {fix or 'correct the URL'}"
        )
        if status in (502, 503, 504):  # a proxy before a server that is being started again
            return TransportError(message, details={"sent": True, "retry": True})
        return TransportError(message)


# --------------------------------------------------------------------------------------------- the client

Document = Union[str, Mapping[str, Any]]
Image = Union[str, "os.PathLike[str]", bytes]  # a URL or a path, a path, the file itself
File = Union[str, "os.PathLike[str]", tuple[str, bytes]]  # a file, a folder or a pattern; a name and content

FILE_TYPES = ".txt .md .markdown .rst .html .htm .pdf .docx .pptx .xlsx .csv .tsv .json .jsonl .ipynb .eml"
UPLOAD_BYTES = 16 * 2**20  # of files in one request, unless one of them alone has more

EMBED_PAGE = 2048  # texts in one request: OpenAI's limit, and the server's
CHUNKS_OF = 100  # documents whose chunks are listed by one request
ROWS_PAGE = 2048  # rows of a job's result in one answer
ENDED = ("completed", "failed", "cancelled")  # a job's last status
_Client = TypeVar("_Client", bound="LLMBackendClient")


class LLMBackendClient:
    """Chat, embeddings, RAG, jobs and document analysis, in this process or over HTTP.

    `LLMBackendClient()` runs everything in this process on an embedded default: nothing to start.
    `LLMBackendClient(api_url, api_key)` makes the same calls on a server. Without arguments the
    environment (or a `.env` file in the working directory) may name the server: LLM_BACKEND_URL and
    LLM_BACKEND_API_KEY. Results and errors are the same on both; every error is an LLMBackendError.

    Over HTTP, `timeout` is the longest wait for the server to send anything, in seconds, and `retries` how often a
    call is tried again that did not reach the server, was told to come back later, or, where it changes nothing, lost
    its connection. `base_url` is another name of `api_url`, for those who are used to OpenAI's client.

    A client may be shared by threads. Over HTTP it may be sent to other processes (a pickle of it holds its API key); a
    copy is the client itself. Close it, or use it in a `with` block, to let go of its files.
    """

    def __init__(
        self,
        api_url: str | None = None,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        timeout: float = 600,
        retries: int = 2,
        transport: Transport | None = None,
    ) -> None:
        if api_url and base_url:
            raise InvalidRequest("api_url and base_url are two names of one thing: give one of them")
        if transport is None:
            api_url = api_url or base_url
            environment = _environment()
            named = environment.get("LLM_BACKEND_URL")
            api_url = api_url or named
            if api_url:
                if api_key is None and api_url == named:  # the key is for that server, and for no other
                    api_key = environment.get("LLM_BACKEND_API_KEY")
                transport = HttpTransport(api_url, api_key, timeout, retries)
            else:
                transport = _local_transport()
        self._transport = transport

    def __repr__(self) -> str:
        return f"LLMBackendClient({self._transport!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {"_transport": self._transport}

    def __deepcopy__(self: _Client, memo: Any) -> _Client:
        return self

    def __enter__(self: _Client) -> _Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of connections, files and threads; the client is not usable afterwards."""
        self._transport.close()

    def __getitem__(self, collection: str) -> CollectionHandle:
        """A collection by its name, whether it is there or not: `client["hr_policies"].search("Vacation policy?")`."""
        return CollectionHandle(self, collection)

    __iter__ = None  # which Python would make of `client[0]`, `client[1]`, …

    def _ipython_key_completions_(self) -> list[str]:
        return [str(one["name"]) for one in self.list_collections(counts=False)]

    # Every operation passes through one of these.

    def _call(self, operation: str, **fields: Any) -> Record:
        return _result(self._transport.call(operation, self._given(operation, fields)))

    def _stream(self, operation: str, **fields: Any) -> Iterator[bytes]:
        """A streaming operation's events, or lines."""
        return self._transport.stream(operation, self._given(operation, {**fields, "stream": True}))

    def _watched(self, operation: str, progress: bool | Progress | None, **fields: Any) -> Record:
        """The report of a long operation, with a bar or whatever else shows its progress."""
        with _progress(progress, operation) as tell:
            return self._reported(operation, tell, fields)

    def _reported(self, operation: str, tell: Progress | None, fields: Mapping[str, Any]) -> Record:
        """The report of a long operation; where somebody wants to know, its progress on the way."""
        if tell is None:
            return self._call(operation, **fields)
        report = Record()
        stream = self._stream(operation, **fields)
        try:
            for event in _events(stream):
                if "progress" in event:
                    tell(_records(event["progress"]))
                report = _records(event.get("report", {})) or report
        finally:  # one who interrupts it does not leave it running
            _close(stream)
        return report

    @staticmethod
    def _given(operation: str, fields: dict[str, Any]) -> dict[str, Any]:
        given = {name: value for name, value in fields.items() if value is not None}
        method, path = ROUTES[operation]
        for name in [part[1:-1] for part in path.split("/") if part.startswith("{")]:
            value = str(given.get(name, ""))
            parts = value.split("/", 1) if name == "collection" else [value]  # project/collection
            slashes = name != "model" and any("/" in part for part in parts)
            if slashes or {"", ".", ".."}.intersection(parts):
                reason = f"it is part of a path, and cannot be {value!r}"
                found = {"type": "path", "loc": [name], "msg": reason}
                raise InvalidRequest(f"{operation}: {name}: {reason}", details={"errors": [found]})
        if method in ("GET", "DELETE"):  # these travel in the URL, as text
            given = {name: str(value) for name, value in given.items()}
        return given

    @functools.cached_property
    def llamaindex(self) -> Components:
        """This client's models, collections, parsers and answers as LlamaIndex's classes: `llm()`, `embed_model()`, …

        They are the same in process and over HTTP, but need the llmbackend package: raises TransportError without it.
        """
        try:
            from llmbackend.llamaindex import Components
        except ModuleNotFoundError as error:
            raise TransportError(
                "LlamaIndex's classes come with the package: pip install llmbackend",
                details={"missing": error.name},
            ) from error
        return Components(self)

    # Chat

    @overload
    def chat(
        self,
        messages: str | Sequence[Mapping[str, Any]],
        *,
        system: str | None = None,
        images: Image | Sequence[Image] | None = None,
        model: str | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        max_tokens: int | None = None,
        stop: str | Sequence[str] | None = None,
        seed: int | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: str | Mapping[str, Any] | None = None,
        schema: type[_Model],
        stream: Literal[False] = False,
    ) -> ParsedReply[_Model]: ...

    @overload
    def chat(
        self,
        messages: str | Sequence[Mapping[str, Any]],
        *,
        system: str | None = None,
        images: Image | Sequence[Image] | None = None,
        model: str | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        max_tokens: int | None = None,
        stop: str | Sequence[str] | None = None,
        seed: int | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: str | Mapping[str, Any] | None = None,
        schema: Mapping[str, Any] | None = None,
        stream: Literal[False] = False,
    ) -> Reply: ...

    @overload
    def chat(
        self,
        messages: str | Sequence[Mapping[str, Any]],
        *,
        system: str | None = None,
        images: Image | Sequence[Image] | None = None,
        model: str | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        max_tokens: int | None = None,
        stop: str | Sequence[str] | None = None,
        seed: int | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: str | Mapping[str, Any] | None = None,
        stream: Literal[True],
    ) -> ReplyStream: ...

    def chat(
        self,
        messages: str | Sequence[Mapping[str, Any]],
        *,
        system: str | None = None,
        images: Image | Sequence[Image] | None = None,
        model: str | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        max_tokens: int | None = None,
        stop: str | Sequence[str] | None = None,
        seed: int | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: str | Mapping[str, Any] | None = None,
        schema: Any = None,
        stream: bool = False,
    ) -> Reply | ReplyStream:
        """The model's reply to a message, or to a conversation: a list of OpenAI-style messages `{role, content}`.

        Returns a Reply: a `str` with `model`, `usage`, `finish_reason`, and `message` to append to the
        conversation. With `stream=True` an iterator of text pieces that ends with `.reply`.

        `images` (URLs, paths or bytes of PNG, JPEG, GIF or WebP) go with the last message. `tools` are OpenAI's
        `{"type": "function", "function": {name, description, parameters}}`; what the model wants called is in the
        reply's `tool_calls`, and what comes of it is sent back as `{"role": "tool", "tool_call_id", "content"}`.
        `schema` is a JSON Schema, or a pydantic class: the reply is JSON that fits, and its `parsed` that data, or
        an instance. It is asked for once more if it does not fit; then BackendError has it in `details["text"]`.
        `temperature` is 0 to 2, `top_p` 0 to 1; `max_tokens` bounds the reply, which ends before a text of `stop`.

        Raises InvalidRequest, NotFound (unknown model), BackendError, BackendTimeout; while streaming,
        StreamInterrupted with the text so far.
        """
        turns: Any = (
            [{"role": "user", "content": messages}] if isinstance(messages, str) else _as_list(messages)
        )
        if system is not None and isinstance(turns, list):
            turns = [{"role": "system", "content": system}, *turns]
        if images is not None:
            turns = _with_images(turns, images)
        fields = {
            "messages": turns,
            "model": model,
            "temperature": temperature,
            "top_p": top_p,
            "max_tokens": max_tokens,
            "stop": stop,
            "seed": seed,
            "tools": tools,
            "tool_choice": tool_choice,
            "schema": _json_schema(schema),
        }
        if stream:
            usage = {"include_usage": True}
            return ReplyStream(self._stream("chat", **fields, stream_options=usage))
        result = self._call("chat", **fields)
        choice = result["choices"][0]
        text, message = choice["message"].get("content") or "", _message(choice["message"])
        kind = ParsedReply if hasattr(schema, "model_validate_json") else Reply
        return kind(
            text,
            model=result.get("model") or "",
            usage=result.get("usage"),
            finish_reason=choice.get("finish_reason"),
            message=message,
            parsed=None if schema is None or "tool_calls" in message else _parsed(text, schema),
        )

    # Responses

    def respond(
        self,
        input: str | Sequence[Mapping[str, Any]],
        *,
        model: str | None = None,
        instructions: str | None = None,
        previous_response_id: str | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: str | Mapping[str, Any] | None = None,
        text: Mapping[str, Any] | None = None,
        include: Sequence[str] | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        max_output_tokens: int | None = None,
        metadata: Mapping[str, str] | None = None,
        store: bool = True,
        background: bool = False,
        stream: bool = False,
    ) -> Record | Iterator[Record]:
        """OpenAI's response object to a message, or to a list of items, as `/v1/responses` gives it.

        It is kept (unless `store=False`): `previous_response_id` goes on from it, `get_response` reads it again.
        Of `tools`, functions are the caller's to run; `{"type": "file_search", "vector_store_ids": [collection]}`
        searches collections first, and the text's `annotations` quote what it cites. `text` has a `format`, such
        as a JSON Schema's. With `background=True` a job makes it. With `stream=True`: an iterator of OpenAI's
        events, which raises StreamInterrupted where it breaks off.

        Raises InvalidRequest, NotFound (model, collection, response), Conflict (the previous one is not over
        yet), BackendError, BackendTimeout.
        """
        fields = {
            "input": input if isinstance(input, str) else _as_list(input),
            "model": model,
            "instructions": instructions,
            "previous_response_id": previous_response_id,
            "tools": tools,
            "tool_choice": tool_choice,
            "text": text,
            "include": include,
            "temperature": temperature,
            "top_p": top_p,
            "max_output_tokens": max_output_tokens,
            "metadata": metadata,
            "store": store,
            "background": background,
        }
        if stream:
            return self._told(self._stream("respond", **fields))
        return self._call("respond", **fields)

    def _told(self, chunks: Iterator[bytes]) -> Iterator[Record]:
        """A response's events."""
        try:
            for event in _events(chunks):
                yield _records(event)
        except LLMBackendError as error:
            raise StreamInterrupted(f"the stream broke off: {error}", details=error.to_dict()) from error
        finally:
            _close(chunks)

    def get_response(
        self, response_id: str, *, stream: bool = False, starting_after: int | None = None
    ) -> Record | Iterator[Record]:
        """A response that was kept, by its id; with `stream=True` its events, once it is over. Raises NotFound."""
        if stream:
            fields = {"response_id": response_id, "starting_after": starting_after}
            return self._told(self._stream("get_response", **fields))
        return self._call("get_response", response_id=response_id)

    def delete_response(self, response_id: str) -> Record:
        """Forget a response; one that is being made is stopped. Raises NotFound."""
        return self._call("delete_response", response_id=response_id)

    def cancel_response(self, response_id: str) -> Record:
        """Stop a response that is made in the background. Raises NotFound, InvalidRequest for others."""
        return self._call("cancel_response", response_id=response_id)

    def list_input_items(
        self, response_id: str, *, limit: int = 20, order: str = "desc", after: str | None = None
    ) -> Records[Record]:
        """What a response was made from: a page of items, after the one with the id `after`. Raises NotFound."""
        page = self._call("list_input_items", response_id=response_id, limit=limit, order=order, after=after)
        return Records(page["data"])

    def models(self) -> Records[ModelInfo]:
        """The models this backend offers, as `{id, type}`: chat and embedding models, and `rag/<collection>`."""
        return Records(map(ModelInfo, self._call("models")["data"]))

    def get_model(self, model: str) -> ModelInfo:
        """A model of `models()` by its id. Raises NotFound."""
        return ModelInfo(self._call("get_model", model=model))

    # Embeddings

    def embed(
        self,
        texts: Sequence[str],
        *,
        model: str | None = None,
        dimensions: int | None = None,
        too_long: Literal["split", "truncate", "error"] = "split",
        input_type: Literal["query", "passage"] | None = None,
    ) -> Embeddings:
        """Unit-length vectors of texts, in their order: a sequence of lists of floats, or `.numpy()`.

        A text longer than the model takes is embedded in parts whose mean is its vector, cut off
        ("truncate"), or refused ("error"); `.cut` tells which were cut. `dimensions` shortens the
        vectors, where the model is made for it. `input_type` is for models that read questions ("query") and
        texts to be found ("passage") by different prompts: they get those that collections use.

        Raises InvalidRequest (an empty or refused text: `details["index"]` is its place; nothing to
        embed), NotFound (unknown model), BackendError.
        """
        if hasattr(texts, "__next__") or hasattr(texts, "__aiter__"):  # to be read as it comes
            return self.batch_embed(
                texts, model=model, dimensions=dimensions, too_long=too_long, input_type=input_type
            )
        given = _as_list(_read_first("embed", texts) if isinstance(texts, os.PathLike) else texts)
        pages = [given]
        if isinstance(given, list) and len(given) > EMBED_PAGE:
            pages = [given[start : start + EMBED_PAGE] for start in range(0, len(given), EMBED_PAGE)]
        fields = {
            "model": model,
            "dimensions": dimensions,
            "too_long": too_long,
            "input_type": input_type,
            "encoding_format": "bytes",
        }
        blocks: list[memoryview] = []
        usage: dict[str, int | None] = {}
        cut: Records[Record] = Records()
        for number, page in enumerate(pages):
            start = number * EMBED_PAGE
            try:
                reply = self._transport.call("embed", self._given("embed", {"input": page, **fields}))
            except InvalidRequest as error:
                raise _further_on(error, start) from error.__cause__
            head = reply[: reply.find(b"\n") + 1]
            result = _result(head)
            blocks.append(memoryview(reply)[len(head) :])  # there may be megabytes of it
            cut += [Record({**one, "index": one["index"] + start}) for one in result["cut"]]
            _add(usage, result["usage"])
        data = blocks[0] if len(blocks) == 1 else b"".join(blocks)
        return Embeddings.decode(data, result["dimension"], model=result["model"], usage=usage, cut=cut)

    @overload
    def batch_embed(
        self,
        texts: Iterable[str] | Any,
        *,
        out: None = None,
        text: str | None = None,
        model: str | None = None,
        dimensions: int | None = None,
        too_long: Literal["split", "truncate", "error"] = "split",
        input_type: Literal["query", "passage"] | None = None,
        progress: bool | Progress | None = None,
    ) -> Embeddings: ...

    @overload
    def batch_embed(
        self,
        texts: Iterable[str] | Any,
        *,
        out: str | os.PathLike[str],
        text: str | None = None,
        model: str | None = None,
        dimensions: int | None = None,
        too_long: Literal["split", "truncate", "error"] = "split",
        input_type: Literal["query", "passage"] | None = None,
        progress: bool | Progress | None = None,
    ) -> EmbeddingsFile: ...

    def batch_embed(
        self,
        texts: Iterable[str] | Any,
        *,
        out: str | os.PathLike[str] | None = None,
        text: str | None = None,
        model: str | None = None,
        dimensions: int | None = None,
        too_long: Literal["split", "truncate", "error"] = "split",
        input_type: Literal["query", "passage"] | None = None,
        progress: bool | Progress | None = None,
    ) -> Embeddings | EmbeddingsFile:
        """Vectors of any number of texts, as `embed` makes them, read as they are embedded.

        `texts` are a list, an iterator, a column, or a table or file of rows as `rag_ingest` takes them, whose column
        `text` has the texts. With `out`, the vectors go to that file, and memory does not grow with them: "vectors.npy" is
        NumPy's, and "vectors.parquet" has the source's columns, too, and `embedding`. A file of that name is replaced once
        all are there; what a source that breaks had before is in "vectors.npy.part". `progress` as in `rag_ingest`.

        Raises as `embed` does, `details["embedded"]` telling how many were done.
        """
        source = _Source("batch_embed", texts, text=text, texts=True)
        fields = {
            "model": model,
            "dimensions": dimensions,
            "too_long": too_long,
            "input_type": input_type,
            "encoding_format": "bytes",
        }
        usage: dict[str, int | None] = {}
        cut: Records[Record] = Records()
        done, began = 0, time.monotonic()
        with _progress(progress, "batch_embed") as tell, _vectors_to(out, source) as target:
            try:
                for page, reply in _ahead(
                    self._transport,
                    "embed",
                    _batches(source),
                    lambda page: self._given("embed", {"input": page, **fields}),
                ):
                    head, _, block = reply.partition(b"\n")
                    result = _result(head)
                    target.write(block, result["dimension"])
                    cut += [Record({**one, "index": one["index"] + done}) for one in result["cut"]]
                    _add(usage, result["usage"])
                    done += len(page) if isinstance(page, list) else 1
                    if tell is not None:
                        tell(_pace(done, source.total, time.monotonic() - began))
            except LLMBackendError as error:
                error = _further_on(error, done) if isinstance(error, InvalidRequest) else error
                source.tell(error, "embedded", done, f"texts before it are embedded{target.partial}")
                raise error from error.__cause__
            made: Embeddings | EmbeddingsFile = target.done(model=result["model"], usage=usage, cut=cut)
        return made

    def embed_single(
        self,
        text: str,
        *,
        model: str | None = None,
        dimensions: int | None = None,
        too_long: Literal["split", "truncate", "error"] = "split",
        input_type: Literal["query", "passage"] | None = None,
    ) -> list[float]:
        """The unit-length vector of one text, as a list of floats. Takes and raises what `embed` does."""
        return self.embed(
            [text], model=model, dimensions=dimensions, too_long=too_long, input_type=input_type
        )[0]

    # Rerank

    def rerank(
        self, query: str, documents: Sequence[str], *, top_n: int | None = None, model: str | None = None
    ) -> Records[RankedText]:
        """Texts ordered by how well they answer a query, best first: `{index, score, text}`, all or `top_n` of them.

        `index` is a text's place in `documents`, from 0. Scores are the model's, mostly from 0 to 1, and
        compare within one answer only. Needs a rerank server behind llmbackend.

        Raises InvalidRequest (an empty text or query, no documents), NotFound (unknown model), BackendError
        (none is set, or it failed), BackendTimeout.
        """
        texts = _as_list(documents)
        result = self._call(
            "rerank", query=query, documents=texts, top_n=top_n, model=model, return_documents=False
        )
        return Records(
            RankedText(index=one["index"], score=one["relevance_score"], text=texts[one["index"]])
            for one in result["results"]
        )

    # RAG

    def rag_ingest(
        self,
        documents: Document | Iterable[Document] | Any,
        collection: str,
        *,
        id: str | None = None,
        text: str | None = None,
        metadata: Sequence[str] | Mapping[str, Any] | None = None,
        chunk_size: int | None = None,
        chunk_overlap: int | None = None,
        sync: bool = False,
        plan: bool = False,
        progress: bool | Progress | None = None,
    ) -> IngestReport:
        """Put documents into a collection (made if there is none) so that they can be searched.

        A document is a text, `{id, text, metadata}`, or LlamaIndex's or LangChain's; a bare text's id is its content
        hash. One that is split already has `chunks` instead of its text, `[{text, metadata, place}]`, which stay as
        they are. A table (a DataFrame of pandas or polars, an Arrow table or reader, a Hugging Face dataset, or the path of a
        .parquet, .jsonl or .csv file) has a document a row: `id`, `text` and `metadata` name its columns. Without `text`,
        its usual names are looked for, and without `metadata`, all other columns are it; without `id`, a row's hash is; the
        report's `columns` tells which were taken. Cells without a value are left out, and rows without a text are among
        `failed`. `metadata={…}` goes to every document. For files there is `rag_ingest_files`.

        Iterators, readers and files of rows are read as they are sent, some 2,000 documents at a time, so that memory does
        not grow with them. Where one breaks off, or has something wrong in it, InvalidRequest tells the row, and
        `details["ingested"]` how many documents before it are in; the source's own error is its cause. Metadata is JSON;
        dates and times become RFC 3339 (in UTC without a zone), UUIDs, enums and decimals text or numbers. Ingesting
        again is safe: a document whose content is stored already costs nothing, one whose text changed
        replaces its old version, and `sync=True` removes those not given. `chunk_size` and
        `chunk_overlap` (tokens) are fixed when the collection is made.

        Returns `{added, updated, unchanged, deleted, failed: [{id, error}], warnings, chunks, tokens}`: the first
        four count documents, `chunks` those written now, `tokens` what the embedding model read for them (None
        where its server does not tell). With `plan=True` nothing is written: the report tells
        what would be, with `documents` in all, and `tokens` and `seconds` estimated from some chunks.

        `progress` is True for a bar, or a function called with `{done, total, stage, stages}`: documents
        done and in all, the first stage that is not through, and for each (parse, of files; chunk; embed;
        write) its own `{done, total}`, of documents in the first two, of chunks in the others.

        Raises InvalidRequest, Conflict (made with another embedding model or chunking), BackendError.
        """
        source = _Source("rag_ingest", documents, id=id, text=text, metadata=metadata, noted=sync)
        fields = {
            "collection": collection,
            "chunk_size": chunk_size,
            "chunk_overlap": chunk_overlap,
            "plan": plan,
        }
        total = IngestReport()
        requests = 0
        with _progress(progress) as tell:
            try:
                for batch in _batches(source):
                    requests += 1
                    alone = source.ended and requests == 1
                    given = {**fields, "documents": batch, "sync": sync and alone}
                    _add(total, self._reported("rag_ingest", source.telling(tell, total), given))
            except LLMBackendError as error:
                source.tell(
                    error, "ingested", _stored(total), "documents before it are in: run it again to go on"
                )
                raise
            if sync and requests > 1:
                total["deleted"] += self._swept(collection, source, total, plan)
        total["failed"].extend(source.failed)
        total["warnings"].extend(source.warnings)
        if source.columns is not None:
            total["columns"] = Record(source.columns)
        return total

    def _swept(self, collection: str, source: _Source, report: Mapping[str, Any], plan: bool) -> int:
        """Remove what a source does not have, nor failed; returns how many documents that are."""
        kept = (source.ids or set()) | {one["id"] for one in (*report["failed"], *source.failed)}
        try:
            gone = [one["id"] for one in self.list_documents(collection) if one["id"] not in kept]
        except NotFound:  # planned for a collection to come
            return 0
        for start in range(0, 0 if plan else len(gone), 1000):
            self.delete_documents(collection, gone[start : start + 1000])
        return len(gone)

    def rag_ingest_files(
        self,
        paths: File | Sequence[File],
        collection: str,
        *,
        chunk_size: int | None = None,
        chunk_overlap: int | None = None,
        sync: bool = False,
        plan: bool = False,
        progress: bool | Progress | None = None,
    ) -> IngestReport:
        """Put files into a collection: txt, md, rst, html, pdf, docx, pptx, xlsx, csv, json, jsonl, ipynb and eml.

        `paths` are files, folders, patterns such as "docs/**/*.pdf", and `(name, bytes)`. They are read here, where
        the caller is, and sent; a folder's hidden files are left out. A document's id is the file's path below the
        folder given, or below what of a pattern is fixed, or its name; its metadata have it as `source`. Passages
        of a PDF or of slides have a `page`, and those below headings `headings`, for filters too.

        Returns a report as `rag_ingest` does; a file that cannot be read is one of `failed`, with the reason, and
        the others go on. `warnings` `[{id, warning}]` tell what of a file was replaced or left out. Files attached
        to a mail become documents of their own, with the mail's id in their metadata (`part_of`). `sync=True` removes documents that are not among these files, but none whose file failed.
        With `plan=True` the files are read, and nothing is written.

        Raises InvalidRequest (no such file, nothing there), and as `rag_ingest` does.
        """
        found = _named(_find_files(paths))
        if not found:
            raise _no_file(["paths"], "there are no files in it")
        unread = [name for name, file in found if isinstance(file, OSError) and name.endswith("/")]
        if sync and unread:
            raise _no_file(["paths"], f"sync would remove what is in {unread[0]!r}, which cannot be read")
        fields: dict[str, Any] = {
            "collection": collection,
            "chunk_size": chunk_size,
            "chunk_overlap": chunk_overlap,
            "plan": plan,
        }
        total = IngestReport(
            added=0,
            updated=0,
            unchanged=0,
            deleted=0,
            failed=Records(),
            warnings=Records(),
            chunks=0,
            tokens=0,
        )
        if plan:
            total.update(documents=0, seconds=0.0)
        lots = _lots(found, total["failed"], self._file_types(found))
        here = done = len(total["failed"])  # of those that are not even sent
        with _progress(progress) as tell:
            for lot in lots:
                before = len(total["failed"])
                files = list(_contents(lot, total["failed"]))
                here += len(total["failed"]) - before
                if sync and lot is lots[-1]:
                    fields |= {"sync": True, "keep": [name for name, _ in found]}
                if files or "sync" in fields:
                    for part in self._sent(files, fields, _of_all(tell, done, len(found))):
                        _add(total, part)
                del files  # before the next are read
                done += len(lot)
        if plan:
            total["documents"] += here
        return total

    def _file_types(self, found: Sequence[tuple[str, Any]]) -> set[str]:
        """The ends of files' names that are read: ours and, if others are among these, those of a project's readers."""
        known = {"", *FILE_TYPES.split()}
        if {_suffix(name) for name, _ in found} <= known:
            return known
        return known | set(self._call("health").get("own_file_types", ()))

    def _sent(
        self, files: Sequence[Any], fields: Mapping[str, Any], progress: Progress | None
    ) -> Iterator[Record]:
        """The reports on files, which go in parts where the server takes less at a time; only the last part syncs."""
        try:
            yield self._reported("rag_ingest_files", progress, {**fields, "files": files})
        except TooLarge as error:
            if not files:
                raise
            middle = len(files) // 2
            if middle:
                yield from self._sent(files[:middle], {**fields, "sync": False}, progress)
                yield from self._sent(files[middle:], fields, progress)
                return
            yield Record(failed=[Record(id=files[0]["name"], error=error.message)])
            if fields.get("sync"):
                yield from self._sent([], fields, progress)

    def rag_search(
        self,
        query: str | None = None,
        collection: str | Sequence[str] | None = None,
        *,
        vector: Sequence[float] | None = None,
        top_k: int = 5,
        filters: Mapping[str, Any] | None = None,
        mode: Literal["hybrid", "dense", "sparse"] = "hybrid",
        rerank: bool | str = False,
        min_score: float | None = None,
        retriever: str | None = None,
        postprocessors: Sequence[str] | None = None,
    ) -> Hits:
        """The passages nearest to a query, best first, without asking a model.

        Each is `{text, score, document_id, chunk, collection, metadata, duplicates}`. `filters` selects on
        metadata: `{"year": 2026}`, `{"team": ["hr", "it"]}` (any of), `{"year": {"gte": 2020}}` (also gt, lt,
        lte; dates and times too), `{"team": {"exists": True}}`, `{"team": {"not": "hr"}}`, all of them; and
        `{"or": [filters, …]}`, `{"and": [filters, …]}`, `{"not": filters}`. `author.name` is a field within a field,
        `authors[].name` one of the objects in a list. Of passages with the same text only the best comes, and its
        `duplicates` tell where else it is.

        A higher `score` is better: in mode "dense" the cosine (at most 1), in "sparse" BM25 (from 0, no
        limit), in "hybrid" both fused (0 to about 1: how far ahead of the others it is, not how like),
        with `rerank` the reranker's (mostly 0 to 1). `rerank` is True, or the name of a model: the configured
        reranker orders the 50 best. `min_score` leaves out what scores lower, on that same scale.

        With a `vector` of the collection's embedding model, that is searched for in place of the query's; without a
        query, by its cosines alone.

        `retriever` and `postprocessors` name parts that a project has registered where llmbackend runs
        (llmbackend.plugins): what finds the passages, and what reorders or drops some of the 50 best, one after the
        other. A part that fails, or takes too long, raises BackendError or BackendTimeout by its name.

        Raises InvalidRequest, NotFound (no such collection), Conflict (embedded by another model than the one
        in use), BackendError (also: no reranker is set).
        """
        result = self._call(
            "rag_search",
            query=query,
            vector=vector,
            collection=_as_list(collection),
            top_k=top_k,
            filters=filters,
            mode=mode,
            rerank=rerank,
            min_score=min_score,
            retriever=retriever,
            postprocessors=_as_list(postprocessors),
        )
        hits = Hits(map(Hit, result["hits"]))
        hits.query = query or ""
        return hits

    @overload
    def rag_query(
        self,
        question: str,
        collection: str | Sequence[str],
        *,
        top_k: int = 5,
        filters: Mapping[str, Any] | None = None,
        mode: Literal["hybrid", "dense", "sparse"] = "hybrid",
        rerank: bool | str = False,
        min_score: float | None = None,
        retriever: str | None = None,
        postprocessors: Sequence[str] | None = None,
        history: Sequence[Mapping[str, Any]] | None = None,
        explain: bool = False,
        stream: Literal[False] = False,
    ) -> Answer: ...

    @overload
    def rag_query(
        self,
        question: str,
        collection: str | Sequence[str],
        *,
        top_k: int = 5,
        filters: Mapping[str, Any] | None = None,
        mode: Literal["hybrid", "dense", "sparse"] = "hybrid",
        rerank: bool | str = False,
        min_score: float | None = None,
        retriever: str | None = None,
        postprocessors: Sequence[str] | None = None,
        history: Sequence[Mapping[str, Any]] | None = None,
        explain: bool = False,
        stream: Literal[True],
    ) -> AnswerStream: ...

    def rag_query(
        self,
        question: str,
        collection: str | Sequence[str],
        *,
        top_k: int = 5,
        filters: Mapping[str, Any] | None = None,
        mode: Literal["hybrid", "dense", "sparse"] = "hybrid",
        rerank: bool | str = False,
        min_score: float | None = None,
        retriever: str | None = None,
        postprocessors: Sequence[str] | None = None,
        history: Sequence[Mapping[str, Any]] | None = None,
        explain: bool = False,
        stream: bool = False,
    ) -> Answer | AnswerStream:
        """An answer from a collection's documents, with its sources.

        Returns an Answer: a `str` with `found` (False: the passages do not tell), `citations` and `sources`,
        the passages `rag_search` finds with a `number` and the `quote` that fits best. With
        `stream=True`, an iterator of text pieces whose `sources` are there first, ending with `.answer`.

        `history` is the conversation so far, as `chat` takes it, for questions such as "And in winter?".
        `explain=True` adds `.explanation`: the question as searched for, each candidate with its scores
        and why it was dropped if it was, prompt tokens, and milliseconds by step; a picture in notebooks.

        Raises as `rag_search` and `chat` do.
        """
        names = _as_list(collection)
        fields = {
            "question": question,
            "collection": names,
            "top_k": top_k,
            "filters": filters,
            "mode": mode,
            "rerank": rerank,
            "min_score": min_score,
            "retriever": retriever,
            "postprocessors": _as_list(postprocessors),
            "history": _as_list(history),
            "explain": explain,
        }
        if stream:
            answer = AnswerStream(self._stream("rag_query", **fields))
            answer._begin()
            return answer
        result = self._call("rag_query", **fields)
        return Answer(
            result["answer"],
            found=result["found"],
            citations=result["citations"],
            sources=result["sources"],
            model=result["model"],
            usage=result["usage"],
            explanation=result.get("explanation"),
        )

    # Evaluation

    def evaluate(
        self,
        collection: str,
        questions: Sequence[Mapping[str, Any]],
        *,
        k: int = 10,
        progress: bool | Progress | None = None,
    ) -> Evaluation:
        """How well search finds the documents that answer some questions, in each mode.

        A question is `{question, gold}`: the id of the document that answers it, a list of ids, or a dict of
        them with how relevant each is (1, 2, …). Returns an Evaluation: a dict whose `scores` have recall, MRR
        and nDCG of the first `k` documents for dense, sparse and hybrid search, and for hybrid with rerank
        where a reranker is set; `questions` has what became of each, `worst()` those to look into, `plot()` a
        picture. `progress` as in `rag_ingest`, counting searches.

        Raises InvalidRequest (also: gold that is not in the collection), NotFound, Conflict, BackendError.
        """
        fields = {"collection": collection, "questions": _as_list(questions), "k": k}
        return Evaluation(self._watched("evaluate", progress, **fields))

    # Collections and documents

    def list_collections(self, *, counts: bool = True) -> Records[CollectionInfo]:
        """All collections, as `get_collection` describes each.

        Without `counts`, `documents` and `chunks` are None, and no vector engine is asked.
        """
        return Records(map(CollectionInfo, self._call("list_collections", counts=counts)["collections"]))

    def create_collection(
        self,
        collection: str,
        *,
        chunk_size: int | None = None,
        chunk_overlap: int | None = None,
        indexes: Mapping[str, str] | None = None,
        engine: Mapping[str, Any] | None = None,
        parser: str | None = None,
    ) -> CollectionInfo:
        """Make an empty collection; returns its description.

        `indexes` are those of metadata fields that filters will ask for, so that these stay fast in large collections:
        `{"kind": "keyword", "signed": "datetime", "price": "float"}`, or "bool", or "integer" where all numbers are
        whole. A filter makes those that it lacks, if it can. `engine` are options of a Qdrant server, beside those that
        llmbackend is set to: `shard_number`, `replication_factor`, `write_consistency_factor`, `on_disk`, `quantization`
        ("int8"). `parser` names a node parser that a project has registered where llmbackend runs (llmbackend.plugins): it
        splits the collection's documents, always. Raises Conflict if there is one of that name, InvalidRequest.
        """
        return CollectionInfo(
            self._call(
                "create_collection",
                collection=collection,
                chunk_size=chunk_size,
                chunk_overlap=chunk_overlap,
                indexes=indexes,
                engine=engine,
                parser=parser,
            )
        )

    def set_indexes(self, collection: str, indexes: Mapping[str, str | None]) -> CollectionInfo:
        """Make or change indexes of metadata fields, as `create_collection` takes them; None removes one.

        The others stay. Filters find the same with and without, but in large collections not as fast, and a Qdrant
        server in strict mode, as Qdrant Cloud's are, takes none without. In this process's own engine they are built in
        the background. Returns the collection's description. Raises NotFound, InvalidRequest (they are too many).
        """
        return CollectionInfo(self._call("set_indexes", collection=collection, indexes=indexes))

    def get_collection(self, collection: str) -> CollectionInfo:
        """`{name, embedding_model, sparse_model, dimension, chunk_size, chunk_overlap, documents, chunks, created_at, indexes,
        engine}`, the last of which are the options of a Qdrant server that it was made with.

        One that could not be read when it was last asked also has `damaged`, which is True, and `problem`: why, and what to do; its `documents`
        and `chunks` are None.
        Raises NotFound.
        """
        return CollectionInfo(self._call("get_collection", collection=collection))

    def delete_collection(self, collection: str) -> Record:
        """Remove a collection with all its documents; returns `{deleted, documents}`.

        `documents` is None where that is not known: of a damaged one, and of one not opened since a kill. Raises NotFound.
        """
        return self._call("delete_collection", collection=collection)

    def reindex_collection(
        self, collection: str, *, model: str | None = None, progress: bool | Progress | None = None
    ) -> Record:
        """Embed a collection's stored texts anew with the embedding model that is set now.

        For a collection that another model made, which is neither searched nor added to until then. It goes on
        being used meanwhile, and stays as it was if this fails. `model`, where given, must be the one that is set.
        `progress` as in `rag_ingest`, in chunks.

        Returns `{collection, from_model, to_model, documents, chunks, tokens, seconds}`. Raises NotFound, Conflict (it is
        being reindexed already), InvalidRequest (another `model`), BackendError.
        """
        return self._watched("reindex_collection", progress, collection=collection, model=model)

    def export_collection(self, collection: str, path: str | os.PathLike[str]) -> Record:
        """Write a collection to a file: JSON Lines, what it was made with first, then its chunks with their vectors.

        It is to be taken in by `import_collection`, here or elsewhere, whatever engine is behind. A file of that name
        is replaced once all has come. Returns `{collection, chunks}`. Raises NotFound, InvalidRequest (the file
        cannot be written).
        """
        target = os.fspath(path)
        partial = f"{target}.part"
        manifest: Record | None = None
        count = 0
        try:
            with open(partial, "w", encoding="utf-8") as file:
                cursor: str | None = None
                while manifest is None or cursor:
                    page = self._call("export_collection", collection=collection, cursor=cursor)
                    if manifest is None:
                        manifest = page["manifest"]
                        file.write(
                            json.dumps({"format": _EXPORT, "collection": collection, **manifest}) + "\n"
                        )
                    for chunk in page["chunks"]:
                        file.write(json.dumps(chunk, ensure_ascii=False) + "\n")
                    count += len(page["chunks"])
                    cursor = page.get("cursor")
                file.write(json.dumps({"chunks": count}) + "\n")
            os.replace(partial, target)
        except OSError as error:
            raise InvalidRequest(
                f"export_collection: {target} cannot be written: {error.strerror}"
            ) from error
        finally:
            if os.path.exists(partial):
                os.remove(partial)
        return Record(collection=collection, chunks=count)

    def import_collection(self, path: str | os.PathLike[str], *, collection: str | None = None) -> Record:
        """Make a collection of a file that `export_collection` wrote, under its old name or another.

        It is there once all of it has come, and not before. Where another embedding model made it, it can be listed,
        and searched after `reindex_collection`. Returns `{collection, documents, chunks}`. Raises Conflict (there is
        one of that name), InvalidRequest (no such file, or not a whole export).
        """
        source = os.fspath(path)
        try:
            with open(source, encoding="utf-8") as file:
                head = _exported(file.readline(), source, 1)
                if head.pop("format", None) != _EXPORT:
                    raise InvalidRequest(f"import_collection: {source} is no exported collection")
                exported = str(head.pop("collection", ""))
                given: dict[str, Any] = {"collection": collection or exported}
                token = self._call("import_collection", manifest=head, **given)["token"]
                given["token"] = token
                try:
                    chunks: list[Any] = []
                    size = count = 0
                    end: Any = None
                    for number, line in enumerate(file, start=2):
                        record = _exported(line, source, number)
                        if record.keys() == {"chunks"}:
                            end = record["chunks"]
                            break
                        chunks.append(record)
                        count += 1
                        size += len(line)
                        if len(chunks) == 500 or size > 4_000_000:
                            self._call("import_collection", chunks=chunks, **given)
                            chunks, size = [], 0
                    if end != count:
                        raise InvalidRequest(f"import_collection: {source} ends too early: export it again")
                    done = self._call("import_collection", chunks=chunks, last=True, **given)
                except BaseException:
                    with contextlib.suppress(LLMBackendError):
                        self._call("import_collection", abort=True, **given)
                    raise
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidRequest(f"import_collection: {source} cannot be read: {error}") from error
        return Record(collection=given["collection"], documents=done["documents"], chunks=done["chunks"])

    def list_documents(self, collection: str, *, limit: int | None = None) -> Records[DocumentInfo]:
        """A collection's documents as `{id, chunks, metadata}`: all, or the first `limit`. Raises NotFound.

        What is replaced meanwhile is there once.
        """
        return Records(
            map(
                DocumentInfo,
                self._paged("list_documents", "documents", limit, key="id", collection=collection),
            )
        )

    def list_chunks(
        self,
        collection: str,
        *,
        ids: Sequence[str] | None = None,
        filters: Mapping[str, Any] | None = None,
        limit: int | None = None,
    ) -> Records[ChunkInfo]:
        """A collection's chunks as they are stored, as `{document_id, chunk, text, metadata}`.

        All, or those of the documents `ids`, or those that `filters` select, as in `rag_search`; the first `limit`.
        The chunks of a document may be anywhere among them: `chunk` tells their order. Raises NotFound,
        InvalidRequest.
        """
        given = _as_list(ids)
        if isinstance(given, list) and len(given) > CHUNKS_OF:
            found: Records[ChunkInfo] = Records()
            for start in range(0, len(given), CHUNKS_OF):
                left = None if limit is None else limit - len(found)
                if left is None or left > 0 or not found:
                    some = given[start : start + CHUNKS_OF]
                    found += self.list_chunks(collection, ids=some, filters=filters, limit=left)
            return found
        return Records(
            map(
                ChunkInfo,
                self._paged(
                    "list_chunks", "chunks", limit, collection=collection, ids=given, filters=filters
                ),
            )
        )

    def _paged(
        self, operation: str, name: str, limit: int | None, key: str | None = None, **fields: Any
    ) -> Records[Record]:
        """What an operation lists, all or the first `limit`, page by page; of those with the same `key` the last."""
        items: Records[Any] = Records()
        places: dict[Any, int] = {}
        cursor: str | None = None
        page: Any = limit
        while True:
            if limit is None:
                page = 1000
            elif isinstance(limit, int) and limit > 0:  # anything else the operation itself refuses
                page = min(1000, limit - len(items))
            result = self._call(operation, limit=page, cursor=cursor, **fields)
            for item in result[name]:
                place = places.setdefault(item[key], len(items)) if key else len(items)
                items[place : place + 1] = [item]
            cursor = result.get("cursor")
            if cursor is None or len(items) == limit:
                return items

    def get_document(self, id: str, collection: str) -> StoredDocument:
        """A document as it is stored: `{id, text, metadata, chunks}`.

        The text is put together from its chunks, as many as `chunks` says: white space between them may be another.
        Raises NotFound (the document, or the collection).
        """
        return StoredDocument(self._call("get_document", id=id, collection=collection))

    def delete_documents(
        self, collection: str, ids: Sequence[str] | None = None, *, where: Mapping[str, Any] | None = None
    ) -> Record:
        """Remove documents by their ids, or those of which a chunk fits `where`, which are filters as in `rag_search`.

        Returns `{deleted}`, how many there were. Raises NotFound (the collection), InvalidRequest (both, or neither).
        """
        given = _as_list(ids)
        return self._call("delete_documents", collection=collection, ids=given, where=where)

    # Analysis

    def analyze_document(self, text: str) -> Analysis:
        """What a document says: `{sentiment, sentiment_score, key_points, positions, summary, coverage, facts, notes, model}`.

        `sentiment` is positive, negative, neutral or mixed, `sentiment_score` from -1 (negative) to 1 (English texts;
        others are neutral). `key_points` is a list of sentences, and `positions` has for each `{start, end}` in the text,
        or None where it is in a model's own words. With the embedded model, summary and key points are sentences of the
        text, as they stand there but for their white space; of a larger one's, what has numbers or quotations that the
        text does not have is left out, and `notes` says so. `coverage` is `{parts, read, words}`; `facts`, of English
        contracts, has `parties`, `dates`, `amounts` and `obligations`, each `{text, start, end}`.
        Raises InvalidRequest (empty text), BackendError.
        """
        return Analysis(self._call("analyze_document", text=_read_first("analyze_document", text)))

    # Jobs

    def submit_job(
        self,
        job_type: str,
        params: Mapping[str, Any],
        *,
        priority: int = 0,
        run_at: Any = None,
        depends_on: str | Sequence[str] | None = None,
        idempotency_key: str | None = None,
        webhook: str | None = None,
    ) -> str:
        """Hand over long work; returns the job's id at once. The job survives a restart.

        Types: `batch_embed` (`{texts, model?}`), `batch_chat` (`{prompts, system?, schema?, model?, temperature?,
        max_tokens?, retries?}`, a prompt being a text or messages), `rag_ingest` (as `rag_ingest`'s arguments),
        `reindex` (`{collection, model?}`), `analyze_documents` (`{documents}`), `respond` (as `respond`'s arguments),
        `run_agent` (as `run_agent`'s arguments), `agent/researcher`, `agent/analyst`, `agent/triage` and the like for
        each agent (the same, its `input` in its own shape), `backup` (`{keep?}`, of the whole server), and a project's own.

        Of an owner's jobs, those of higher `priority` (-100 to 100) go first. `run_at`, a datetime or ISO
        8601 text with its offset from UTC, is the earliest moment; `depends_on` are ids of jobs to be
        completed before: if one fails or is cancelled, this one fails. Submitting again with the same
        `idempotency_key` gives the same job, so that a call whose answer was lost can be repeated.
        `webhook` is a URL that is told of the job's end (https://www.standardwebhooks.com), until it takes it.

        Raises InvalidRequest (unknown type, wrong params), NotFound (a job that it depends on), Conflict (one
        that failed; a key that was another job's).
        """
        others = [depends_on] if isinstance(depends_on, str) else _as_list(depends_on)
        moment = run_at.astimezone().isoformat() if hasattr(run_at, "astimezone") else run_at
        if job_type.startswith(("agent/", "run_agent")) and "input" in params:
            params = {**params, "input": _agent_input(params["input"])}
        return str(
            self._call(
                "submit_job",
                job_type=job_type,
                params=params,
                priority=priority,
                run_at=moment,
                depends_on=others,
                idempotency_key=idempotency_key,
                webhook=webhook,
            )["id"]
        )

    def batch_chat(
        self,
        prompts: Iterable[Any] | Any,
        *,
        text: str | None = None,
        system: str | None = None,
        schema: Any = None,
        model: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        retries: int = 1,
        plan: bool = False,
    ) -> Any:
        """Ask a chat model many things as a job; its id, as of `submit_job`.

        `prompts` are texts or messages, or a table or file of rows as `rag_ingest` takes them, whose column `text`
        has the texts. The same prompts are asked once, unless `temperature` lets chance in. With `schema`, a JSON
        Schema or a pydantic class, each reply is JSON that fits, and `parsed` that data. One that fails is asked
        `retries` times more, then told in its `error`, and leaves the others. `wait_for_job(id).replies` has all,
        `get_job_result(id, partial=True).rows` those so far. With `plan=True` nothing is asked: `{count, distinct,
        model, prompt_tokens, completion_tokens, cost}` tell what it would take, the last two at most.
        """
        given: list[Any] = []
        if isinstance(prompts, (list, tuple)):
            given = list(prompts)
        else:
            for page in _batches(_Source("batch_chat", prompts, text=text, texts=True)):
                given += page
        told = self._call(
            "batch_chat",
            prompts=given,
            system=system,
            schema=_json_schema(schema),
            model=model,
            temperature=temperature,
            max_tokens=max_tokens,
            retries=retries,
            plan=plan,
        )
        return told if plan else told["id"]

    def get_job_status(self, job_id: str) -> Job:
        """A job: `{id, type, status, owner, progress, attempts, result, error, priority, created_at, …}`.

        `status` is queued, running, completed, failed or cancelled, `progress` `{done, total, stage, rate,
        eta}` (a second, seconds). `result` is there once completed, with all its rows however many
        (`get_job_result` reads them in pages), until it has `expired`; `error` (`{code, message, details}`)
        once failed. Raises NotFound.
        """
        return self._with_rows(self._call("get_job_status", job_id=job_id))

    @overload
    def get_job_result(
        self,
        job_id: str,
        *,
        offset: int = 0,
        limit: int = 1000,
        partial: bool = False,
        stream: Literal[False] = False,
    ) -> Record: ...

    @overload
    def get_job_result(
        self, job_id: str, *, offset: int = 0, limit: int = 1000, partial: bool = False, stream: Literal[True]
    ) -> Iterator[Any]: ...

    def get_job_result(
        self, job_id: str, *, offset: int = 0, limit: int = 1000, partial: bool = False, stream: bool = False
    ) -> Record | Iterator[Any]:
        """A page of a completed job's result: `{result, offset, total, rows}`, as often as you like.

        `rows` are the `limit` rows from `offset` on: Embeddings, where they are vectors. With
        `stream=True`, an iterator of all rows from `offset` on, one after the other, of which only a page
        is in memory; vectors come as `{index, embedding}`. `partial` gives the rows that there are so far, of a
        job that is not completed, too.

        Raises NotFound, Conflict (not completed), JobExpired.
        """
        fields = {"job_id": job_id, "offset": offset, "limit": limit, "partial": partial or None}
        if stream:
            return _rows(self._stream("get_job_result", **fields))
        given = self._given("get_job_result", {**fields, "encoding_format": "bytes"})
        head, has_block, block = self._transport.call("get_job_result", given).partition(b"\n")
        page = _result(head)
        if has_block:
            page["rows"] = Embeddings.decode(block, page["dimension"], model=page.result.get("model", ""))
        return page

    def _with_rows(self, job: Record) -> Job:
        """With the rows of its result as a caller wants them: all there, and vectors as Embeddings."""
        result, rows = job["result"], job["rows"]
        if result is not None and rows is not None:
            if not rows["inline"]:
                result[rows["name"]] = self._all_rows(job["id"], rows["count"])
            elif rows["dimension"]:
                packed, model = result[rows["name"]], result.get("model", "")
                result[rows["name"]] = Embeddings.decode(packed, rows["dimension"], model=model)
        return Job(job)

    def _all_rows(self, job_id: str, count: int) -> Any:
        values: array[float] = array("f")
        others: list[Any] = []
        for offset in range(0, count, ROWS_PAGE):
            page = self.get_job_result(job_id, offset=offset, limit=ROWS_PAGE)
            if isinstance(page["rows"], Embeddings):
                values.extend(page["rows"].values)
            else:
                others += page["rows"]
        if values:
            return Embeddings(values, page["dimension"], model=page["result"].get("model", ""))
        return _records(others)

    def job_events(self, job_id: str, *, last_event_id: int = 0) -> Iterator[Record]:
        """Watch a job: `{id, job}` now, and each time that it has changed, until it has ended.

        `job` is as in `list_jobs`. What comes between two looks is told as one; with `last_event_id`, the
        `id` of the last event seen, nothing is told twice. A server that is away for up to a minute, to be
        started again, is waited for. Raises NotFound.
        """
        away: float | None = None

        def alive() -> None:
            nonlocal away
            away = None

        while True:
            try:
                stream = self._stream("job_events", job_id=job_id, last_event_id=last_event_id)
                for event in _events(stream, alive):
                    last_event_id = event["id"]
                    yield Record(id=last_event_id, job=Job(_records(event["job"])))
                return
            except (TransportError, StreamInterrupted) as error:
                away = away or time.monotonic()
                if error.details.get("closed") or time.monotonic() - away > 60:
                    raise
                time.sleep(0.5)

    def wait_for_job(
        self, job_id: str, timeout: float | None = None, *, progress: bool | Progress | None = None
    ) -> Any:
        """The result of a job, once it is there.

        Raises the job's own error if it failed, Conflict if it was cancelled, JobExpired, BackendTimeout if it
        is not done after `timeout` seconds (it goes on), NotFound. A server that is away for up to a minute, to be
        started again, is waited for. `progress` as in `rag_ingest`.
        """
        with _progress(progress) as tell:
            job = self._ended(job_id, timeout, tell)
        if job["status"] == "failed":
            raise LLMBackendError.from_dict(job["error"])
        if job["status"] == "cancelled":
            raise Conflict(f"job {job_id} was cancelled", details={"job_id": job_id})
        if job["expired"]:
            raise JobExpired(
                f"the result of job {job_id} was kept for its time, and is no more: submit it again",
                details={"job_id": job_id},
            )
        return job["result"]

    def _ended(self, job_id: str, timeout: float | None, tell: Progress | None) -> Job:
        """The job, once it has ended; raises BackendTimeout."""
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = 0.02
        seen: float | None = None
        while True:
            try:
                job = self.get_job_status(job_id)
            except TransportError as error:
                now = time.monotonic()
                gone = error.details.get("closed")
                if gone or seen is None or now - seen > 60 or (deadline and now > deadline):
                    raise
                time.sleep(1)
                continue
            seen = time.monotonic()
            if tell is not None:
                tell(job if isinstance(tell, _ProgressBar) else job["progress"])
            if job["status"] in ENDED:
                return job
            if deadline is not None and time.monotonic() >= deadline:
                raise BackendTimeout(
                    f"job {job_id} is still {job['status']} after {timeout} s; it goes on: wait again",
                    details={"job_id": job_id, "status": job["status"]},
                )
            time.sleep(pause if deadline is None else max(0.0, min(pause, deadline - time.monotonic())))
            pause = min(pause * 1.5, 1.0)

    def list_jobs(
        self, *, status: str | None = None, job_type: str | None = None, limit: int = 50
    ) -> Records[Job]:
        """The newest jobs as `get_job_status` gives them, without their results."""
        result = self._call("list_jobs", status=status, job_type=job_type, limit=limit)
        return Records(Job(job) for job in result["jobs"])

    def cancel_job(self, job_id: str) -> Job:
        """Stop a job before its next step; returns its status. One that has ended stays as it is. Raises NotFound."""
        return self._with_rows(self._call("cancel_job", job_id=job_id))

    def retry_job(self, job_id: str) -> Job:
        """Have a job that failed or was cancelled go on from its last checkpoint; returns its status.

        Raises NotFound, Conflict (it did neither, or one that it depends on did).
        """
        return self._with_rows(self._call("retry_job", job_id=job_id))

    # Agents

    @overload
    def run_agent(
        self,
        task: str,
        *,
        agent: str = "researcher",
        collections: str | Sequence[str] | None = None,
        tools: Sequence[Any] | None = None,
        approve: Literal["writes"] | None = None,
        input: Any = None,
        model: str | None = None,
        max_steps: int | None = None,
        max_tokens: int | None = None,
        max_seconds: float | None = None,
        stream: Literal[False] = False,
    ) -> AgentRun: ...

    @overload
    def run_agent(
        self,
        task: str,
        *,
        agent: str = "researcher",
        collections: str | Sequence[str] | None = None,
        tools: Sequence[Any] | None = None,
        approve: Literal["writes"] | None = None,
        input: Any = None,
        model: str | None = None,
        max_steps: int | None = None,
        max_tokens: int | None = None,
        max_seconds: float | None = None,
        stream: Literal[True],
    ) -> AgentStream: ...

    def run_agent(
        self,
        task: str,
        *,
        agent: str = "researcher",
        collections: str | Sequence[str] | None = None,
        tools: Sequence[Any] | None = None,
        approve: Literal["writes"] | None = None,
        input: Any = None,
        model: str | None = None,
        max_steps: int | None = None,
        max_tokens: int | None = None,
        max_seconds: float | None = None,
        stream: bool = False,
    ) -> AgentRun | AgentStream:
        """Have an agent do a task in steps: an AgentRun, or, with `stream=True`, an AgentStream of its events.

        `agent` is one of `list_agents()`: `researcher` answers a question over several `collections` (all that the key may
        read, if None), or one of a project's own. `tools` are names of tools, or, in this process, functions; None
        are the agent's own, none of which writes. With `approve="writes"`, calls of tools that write wait for `approve` or
        `reject`, and the run is a job, whose id is `run_id`; `submit_job("run_agent", {…})` makes one of any run. `input`
        is what the agent takes in a shape of its own, a dict or a pydantic object. A run ends at `max_steps` (calls
        of models and tools), `max_tokens` or `max_seconds`, with what was found until then.
        `input={"files": paths}` has the analyst read files, folders and patterns, as `rag_ingest_files` takes them.

        Raises InvalidRequest (no such agent or tool; an input that does not fit), Forbidden, BackendError, whose `details`
        tell the `step` that failed and the `trace`, and BackendTimeout.
        """
        names = None if tools is None else [self._tool_name(one) for one in tools]
        fields = {
            "task": task,
            "agent": agent,
            "collections": [collections] if isinstance(collections, str) else _as_list(collections),
            "tools": names,
            "approve": approve,
            "input": _agent_input(input),
            "model": model,
            "max_steps": max_steps,
            "max_tokens": max_tokens,
            "max_seconds": max_seconds,
        }
        if stream:
            return AgentStream(self._stream("run_agent", **fields))
        return AgentRun(self._call("run_agent", **fields))

    def _tool_name(self, tool: Any) -> str:
        """A function is offered to the core of this process, under a name."""
        if isinstance(tool, str):
            return tool
        offer = getattr(self._transport, "offer_tool", None)
        if offer is None:
            raise InvalidRequest(
                "tools: a server calls its own tools, by their names: functions are for clients in process"
            )
        return str(offer(tool))

    def list_agents(self) -> Record:
        """What there is to run: `{agents, tools}`.

        `agents` are `{name, description, own, tools, input, output}`, the last two JSON Schemas of what one takes and gives
        in a shape of its own; `tools` are `{name, description, writes, parameters}`.
        """
        return self._call("list_agents")

    def approve(self, run_id: str) -> Job:
        """Have a run that waits for it (`status` "needs_approval") call what it asked for, and go on; the run, as a job.

        `wait_for_job(run_id)` gives its result. Raises NotFound, and Conflict for one that waits for nobody's word.
        """
        return Job(self._call("approve", run_id=run_id))

    def reject(self, run_id: str, *, why: str = "") -> Job:
        """Refuse what a run waits for: it is told `why`, and goes on without; the run, as a job. Raises as `approve`."""
        return Job(self._call("reject", run_id=run_id, why=why))

    # Schedules

    def set_schedule(
        self,
        name: str,
        cron: str,
        job_type: str,
        params: Mapping[str, Any],
        *,
        timezone: str = "UTC",
        priority: int = 0,
    ) -> Record:
        """Submit a job again and again, at the times of a cron line such as "30 2 * * MON-FRI".

        Times are those of the clocks in `timezone` ("Europe/Berlin"); a moment at which no process ran is made
        up for once. A schedule of that name is replaced. Returns `{name, cron, timezone, job_type, priority,
        next_at}`. Raises InvalidRequest, as `submit_job` does.
        """
        return self._call(
            "set_schedule",
            name=name,
            cron=cron,
            job_type=job_type,
            params=params,
            timezone=timezone,
            priority=priority,
        )

    def list_schedules(self) -> Records[Record]:
        """The schedules of this key's project, as `set_schedule` returns each; for the administrator, those of all.

        There, those of other projects are named `project/name`, by which `delete_schedule` takes them, too.
        """
        return Records(self._call("list_schedules")["schedules"])

    def delete_schedule(self, name: str) -> Record:
        """End a schedule; jobs that it has submitted go on. Returns `{deleted}`. Raises NotFound."""
        return self._call("delete_schedule", name=name)

    # Keys, and what projects share

    def share_collection(self, collection: str, with_project: str, *, can: str = "read") -> Record:
        """Let another project use a collection: "read" it, or "write" to it, too; or share it otherwise than before.

        There it is called `project/collection`, by this project's name, in lists, searches and as the model
        `rag/project/collection`. Deleting and sharing it stay this project's. Returns `{collection, with_project, can,
        created_at}`. Raises NotFound, InvalidRequest.
        """
        return self._call("share_collection", collection=collection, with_project=with_project, can=can)

    def unshare_collection(self, collection: str, with_project: str) -> Record:
        """Share a collection with that project no more, from the next second on in every process.

        Returns as `share_collection` did. Raises NotFound.
        """
        return self._call("unshare_collection", collection=collection, with_project=with_project)

    def list_shares(self) -> Records[Record]:
        """The collections that this project shares, and those that are shared with it, as `share_collection` returns."""
        return Records(self._call("list_shares")["shares"])

    def create_key(
        self,
        *,
        project: str | None = None,
        can: Sequence[str] | None = None,
        collections: Sequence[str] | None = None,
        models: Sequence[str] | None = None,
        expires: str | None = None,
        rate: str | None = None,
        concurrent: int | None = None,
        tokens: str | None = None,
        jobs: int | None = None,
        chunks: int | None = None,
        bytes: int | None = None,
        note: str = "",
    ) -> CreatedKey:
        """Make an API key by which others may do a part of what this client may; only the administrator makes keys of
        another `project` than its own.

        `can` are rights: "read" (search, query and list collections), "write" (make, fill and delete them), "jobs" (jobs
        and schedules, with what they do), "chat" (ask models) and "admin" (keys and shares of the project). `collections`
        and `models` are names in which `*` stands for anything. What is left out is as this client's, but for "admin".
        `expires` is like "90d", "12h" or "30min". `rate` is for requests, as in "60/min", `tokens` for what models read
        and write, as in "1M/day" or "1M/day,20M/month", `concurrent` the number of requests under way at once, `jobs` that of
        its jobs that wait or are at work. `chunks` and `bytes` are what its project may have stored for it to store more.

        Returns what `list_keys` tells of it, and `key`: the key itself, which is not told again.
        Raises Forbidden (more than this client may itself).
        """
        created = self._call(
            "create_key",
            project=project,
            can=can,
            collections=collections,
            models=models,
            expires=expires,
            rate=rate,
            concurrent=concurrent,
            tokens=tokens,
            jobs=jobs,
            chunks=chunks,
            bytes=bytes,
            note=note,
        )
        return CreatedKey(created)

    def list_keys(self, *, project: str | None = None) -> Records[KeyInfo]:
        """The API keys of this client's project, or of all projects to the administrator: `{id, project, can,
        collections, models, rate, concurrent, tokens, jobs, chunks, bytes, note, created_at, created_by, expires_at, rotating_until,
        revoked_at, last_used_at}`. The `id` is what the key begins with.
        """
        return Records(map(KeyInfo, self._call("list_keys", project=project)["keys"]))

    def rotate_key(self, key: str, *, overlap: str = "1h") -> CreatedKey:
        """Give the API key of that id another secret, and tell it once; the secret before counts for the `overlap`.

        Its id stays, and so do its rights, its jobs and its schedules. Rotated again, only the last secret before counts.
        Returns as `create_key`. Raises NotFound, Forbidden (it may do more than this client).
        """
        return CreatedKey(self._call("rotate_key", key=key, overlap=overlap))

    def revoke_key(self, key: str) -> KeyInfo:
        """Have the API key of that id count no more, within a second, in every process.

        Streams and jobs that came with it are ended; a call that does not stream is answered. Schedules submit nothing
        more. Returns as `list_keys`. Raises NotFound.
        """
        return KeyInfo(self._call("revoke_key", key=key))

    # Audit and usage

    def audit(
        self, *, since: str = "30d", action: str | None = None, before: int | None = None, limit: int = 100
    ) -> Records[Record]:
        """Who changed keys, deleted, shared, exported, imported or was refused, the newest first: `{number, at, project,
        caller, client, request_id, action, target, outcome}`.

        `action` is an operation such as "revoke_key", or "refused"; `before` is the last `number` of the page before. For
        keys with the right "admin", who see their own project.
        """
        return Records(self._call("audit", since=since, action=action, before=before, limit=limit)["entries"])

    def prompts(self) -> Records[Record]:
        """What models are told: `{name, version, text, collection, own}`, those of collections that the key may read, too."""
        return Records(self._call("prompts")["prompts"])

    def usage(
        self, *, by: str | Sequence[str] = "project,model", since: str = "30d", until: str | None = None
    ) -> Usage:
        """Who used how much, up to now: a list of `{requests, errors, prompt_tokens, completion_tokens, embedded_tokens, …}`.

        `by` is some of "project", "key", "model", "operation" and "day": there is a row for each combination, with those
        names in it. `since` and `until` are days: "7d" (so many, up to today), or a date such as "2026-11-28", in UTC.
        `estimated_tokens` are those among the tokens that no server told; `cost` is by the server's prices, or None.
        A key sees its own project. A table in notebooks, and `.plot()`.
        """
        names = by if isinstance(by, str) else ",".join(by)
        result = self._call("usage", by=names, since=since, until=until)
        shown = (*result["rows"][0],) if result["rows"] else ()
        hidden = {name for name in _DIMENSIONS if name not in names.split(",")}
        hidden |= {"cost"} if all(row["cost"] is None for row in result["rows"]) else set()
        return Usage(
            Record({name: row[name] for name in shown if name not in hidden}) for row in result["rows"]
        )

    # Health

    def health(self) -> Health:
        """`{status, problems, parts, version, chat, embeddings, own_file_types}`: "ok", and which models answer.

        Where something does not work, the status is "failing", and `problems` tell what it is and what to do. `parts`
        has each part that was at work, with "ok" or what is wrong.
        """
        return Health(self._call("health"))

    def doctor(self) -> Record:
        """Whether everything behind llmbackend works: `{ok, version, checks}`, in a few seconds at most.

        There is a check for each model server, embedded model, a Qdrant server and the data directory: `{name,
        server, ok, url, models, version, limits, latency_ms, fix}`, where `fix` says what is wrong and what to do.
        """
        return self._call("doctor")


class CollectionHandle:
    """One collection of a client's, by `client["hr_policies"]`: the client's calls without its name.

    `options` are those that the client's methods have.
    """

    def __init__(self, client: LLMBackendClient, name: str) -> None:
        if not isinstance(name, str):
            raise InvalidRequest(f"client[…] takes a collection's name, not {type(name).__name__}")
        self._client = client
        self.name = name

    def __repr__(self) -> str:
        return f"{self._client!r}[{self.name!r}]"

    def ingest(self, documents: Any, **options: Any) -> IngestReport:
        """Put documents into it, as `rag_ingest` does."""
        return self._client.rag_ingest(documents, self.name, **options)

    def ingest_files(self, paths: File | Sequence[File], **options: Any) -> IngestReport:
        """Put files into it, as `rag_ingest_files` does."""
        return self._client.rag_ingest_files(paths, self.name, **options)

    def search(self, query: str | None = None, **options: Any) -> Hits:
        """The passages nearest to a query, or to a `vector`, as `rag_search` gives them."""
        return self._client.rag_search(query, self.name, **options)

    def query(self, question: str, **options: Any) -> Any:
        """An answer from its documents, as `rag_query` gives it."""
        return self._client.rag_query(question, self.name, **options)

    def documents(self, *, limit: int | None = None) -> Records[DocumentInfo]:
        """Its documents, as `list_documents` gives them."""
        return self._client.list_documents(self.name, limit=limit)

    def get(self, id: str) -> StoredDocument:
        """A document as it is stored, as `get_document` gives it."""
        return self._client.get_document(id, self.name)

    def delete(
        self, ids: str | Sequence[str] | None = None, *, where: Mapping[str, Any] | None = None
    ) -> Record:
        """Remove documents by their ids, or by filters, as `delete_documents` does."""
        given = [ids] if isinstance(ids, str) else ids
        return self._client.delete_documents(self.name, given, where=where)

    def stats(self) -> CollectionInfo:
        """What it has and was made with, as `get_collection` tells it."""
        return self._client.get_collection(self.name)

    def evaluate(self, questions: Sequence[Mapping[str, Any]], **options: Any) -> Evaluation:
        """How well search finds the documents that answer some questions, as `evaluate` tells it."""
        return self._client.evaluate(self.name, questions, **options)

    def map(
        self, color: str | None = None, query: str | None = None, *, limit: int = 2000, axes: Any = None
    ) -> Any:
        """Its documents as points in two dimensions, on matplotlib's axes, which are returned.

        Each is the mean of its chunks' vectors (of the collection's first `limit` chunks), coloured by the metadata field
        `color`, and near others that are like it. `query` is marked among them.
        """
        chunks: list[Any] = []
        cursor: str | None = None
        while len(chunks) < limit:
            page = self._client._call("export_collection", collection=self.name, cursor=cursor)
            chunks += page["chunks"]
            cursor = page.get("cursor")
            if cursor is None:
                break
        asked = self._client.embed([query], input_type="query") if query else None
        return _pictures().plot_collection(self.name, chunks[:limit], color, query, asked, axes)


_EXPORT = "llmbackend-collection-1"


def _exported(line: str, source: str, number: int) -> dict[str, Any]:
    """A line of an exported collection."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InvalidRequest(f"import_collection: line {number} of {source} is no JSON object")
    return value


def _result(reply: bytes) -> Record:
    try:
        result = json.loads(reply)
    except ValueError as error:
        raise TransportError("the answer was not JSON: is this an llmbackend server?") from error
    if not isinstance(result, dict):
        raise TransportError("the answer was no JSON object: is this an llmbackend server?")
    return cast(Record, _records(result))


def _rows(chunks: Iterator[bytes]) -> Iterator[Any]:
    """The values of JSON lines; raises what a line that is an error carries."""
    buffer = b""
    for chunk in chunks:
        *lines, buffer = (buffer + chunk).split(b"\n")
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:
                raise StreamInterrupted("the stream carries something that is no row") from None
            if isinstance(row, dict) and row.keys() == {"error"} and isinstance(row["error"], dict):
                raise LLMBackendError.from_dict(row["error"])
            yield _records(row)
    if buffer:
        raise StreamInterrupted("the stream ended within a row")


def _further_on(error: InvalidRequest, start: int) -> InvalidRequest:
    """An error of a page of texts that begins at `start`: a text's index, of the page, becomes that of the whole."""
    index = error.details.get("index")
    if not start or index is None or "row" in error.details:  # which is counted from the source's beginning
        return error
    message = error.message.replace(f"input.{index}:", f"input.{start + index}:", 1)
    details = {**error.details, "index": start + index}
    return InvalidRequest(message, details=details, request_id=error.request_id)


def _add(total: dict[str, Any], part: Mapping[str, Any]) -> None:
    """Add what a part of a reply counts and lists; what a part does not know, None, the whole does not."""
    for name, value in part.items():
        if name not in total:
            total[name] = value
        else:
            both = value is not None and total[name] is not None
            total[name] = type(total[name])(total[name] + value) if both else None


def _as_list(value: Any) -> Any:
    """Any iterable as a list. A text, and what is no iterable, stay as they are, for validation to judge.

    Of a table it is its only column; raises InvalidRequest for one that has more.
    """
    if (names := _columns(value)) is not None:
        if len(names) != 1:
            raise InvalidRequest(
                f"a table of {len(names)} columns ({_some(names)}): give one, such as table[{names[0]!r}]"
            )
        return [row[names[0]] for row in _table_rows(value)]
    if hasattr(value, "to_pylist"):  # Arrow's columns, whose items are none of Python's
        return value.to_pylist()
    return value if isinstance(value, (str, Mapping)) or not hasattr(value, "__iter__") else list(value)


TEXT_COLUMNS = (
    "text",
    "content",
    "page_content",
    "body",
    "document",
    "passage",
    "chunk",
    "description",
    "message",
)
ID_COLUMNS = ("id", "_id", "doc_id", "document_id", "uuid", "key")


def _columns(value: Any) -> list[str] | None:
    """The names of a table's columns: pandas' and polars', Arrow's, or a dataset's; None for what is no table."""
    if isinstance(value, (str, bytes, Mapping, Sequence, type)):
        return None
    if hasattr(value, "sink_parquet"):
        raise InvalidRequest(
            "a LazyFrame has no rows yet: give .collect(), or .sink_parquet(path) and then that path"
        )
    names = getattr(value, "column_names", None)  # Arrow, datasets
    schema_names = getattr(
        getattr(value, "schema", None), "names", None
    )  # of Arrow's readers, and its datasets
    if names is None and isinstance(schema_names, list):
        names = schema_names
    if names is None and (hasattr(value, "to_dicts") or hasattr(value, "itertuples")):  # polars, pandas
        names = value.columns
    if names is None or callable(names):
        return None
    told = [str(name) for name in names]
    if twice := [name for name in dict.fromkeys(told) if told.count(name) > 1]:
        raise InvalidRequest(f"the table has several columns {twice[0]!r}: give each a name of its own")
    return told


def _arrow_batches(table: Any) -> tuple[Any, Iterator[Any]] | None:
    """The schema and the record batches of a table, or reader, of Arrow's, or of polars'; None for another."""
    if hasattr(table, "iter_rows") and hasattr(table, "to_arrow"):  # polars
        with suppress(ImportError):
            table = table.to_arrow()
    if type(table).__module__.partition(".")[0] != "pyarrow":
        return None
    return table.schema, iter(table.to_batches() if hasattr(table, "to_batches") else table)


def _table_rows(table: Any) -> Iterator[dict[str, Any]]:
    names = _columns(table) or []
    if hasattr(table, "itertuples"):
        rows: Iterable[Any] = table.itertuples(index=False, name=None)
        return (dict(zip(names, row)) for row in rows)
    if hasattr(table, "iter_rows"):  # polars
        return cast(Iterator[dict[str, Any]], table.iter_rows(named=True))
    if hasattr(table, "to_batches"):  # Arrow's tables and its datasets, of more than memory holds
        return (row for batch in table.to_batches() for row in batch.to_pylist())
    return (
        row for part in table for row in (part.to_pylist() if hasattr(part, "to_pylist") else [dict(part)])
    )


def _chosen(
    operation: str, names: list[str], id: str | None, text: str | None, metadata: Sequence[str] | None
) -> dict[str, Any]:
    """Which columns are a document's id, text and metadata."""
    metadata = [metadata] if isinstance(metadata, str) else metadata
    for name in (id, text, *(metadata or ())):
        if name is not None and name not in names:
            raise InvalidRequest(f"{operation}: there is no column {name!r}: the table has {_some(names)}")
    known = {name.lower(): name for name in reversed(names)}
    if text is None:
        text = next((known[name] for name in TEXT_COLUMNS if name in known), None)
    if text is None and len(names) == 1:
        text = names[0]
    if text is None:
        example = f"{names[0]!r}: there are {_some(names)}" if names else "…: the first row has none"
        raise InvalidRequest(f"{operation}: which column has the text? Name it, as by text={example}")
    if id is None:
        id = next((known[name] for name in ID_COLUMNS if name in known and known[name] != text), None)
    others = [name for name in names if name not in (id, text)] if metadata is None else list(metadata)
    return {"id": id, "text": text, "metadata": others}


class _Source:
    """Documents, or texts, from wherever they come, read as they are wanted.

    Rows of a table or of a file (Parquet, JSON Lines, CSV) become documents by their `columns`; `failed` and `warnings`
    tell of those that are none. `total` is how many there are, where that is known.
    """

    def __init__(
        self,
        operation: str,
        given: Any,
        *,
        id: str | None = None,
        text: str | None = None,
        metadata: Any = None,
        texts: bool = False,
        noted: bool = False,
    ) -> None:
        self.failed: Records[Record] = Records()
        self.warnings: Records[Record] = Records()
        self.columns: dict[str, Any] | None = None
        self.total: int | None = None
        self.ended = False
        self.broken: Exception | None = None
        self.ids: set[str] | None = set() if noted else None
        self.given: list[Any] = []  # what texts were taken from, where that is to be kept
        self.keeps_rows = False
        self.schema: Any = None  # Arrow's, where it is known
        self.in_batches = False  # of Arrow's, of which only the texts become Python's
        self._operation = operation
        self._common = dict(metadata) if isinstance(metadata, Mapping) else {}
        self._named = (id, text, None if isinstance(metadata, Mapping) else metadata)
        self._texts = texts
        self._batch: list[Any] = []
        self._places: list[int] = []
        self._sent: list[int] = []
        self._size = self._read = 0
        self._seen: set[str] = set()
        self._state = Record()
        self._most = (EMBED_PAGE if texts else STREAM_OF, STREAM_BYTES)
        self.items = self._opened(given)
        if any(self._named) and not self._rows:
            raise InvalidRequest(
                f"{operation}: id, text and metadata name the columns of a table, and this is none"
            )

    def _opened(self, given: Any) -> Any:
        self._rows, self._alone = True, False
        if (
            isinstance(given, (str, os.PathLike))
            and _suffix(os.fsdecode(given)) in ROWS
            and _path_meant(given)
        ):
            return self._file(os.fsdecode(given))
        if (names := _columns(given)) is not None:
            self.columns = _chosen(self._operation, names, *self._named)
            self.total = len(given) if hasattr(given, "__len__") else getattr(given, "num_rows", None)
            if self._texts and (of_arrow := _arrow_batches(given)) is not None:
                self.in_batches, (self.schema, items) = True, of_arrow
                return items
            return _table_rows(given)
        self._rows = False
        if not self._texts and (not _is_several(given) or hasattr(given, "readline")):
            raise InvalidRequest(f"{self._operation}: documents is {_called(given)}{_how(given)}")
        if isinstance(given, (str, Mapping, os.PathLike)) or _is_foreign(given):
            self._alone = True
            return [given]
        if hasattr(given, "to_pylist"):  # Arrow's columns, whose items are none of Python's
            given = given.to_pylist()
        if hasattr(given, "__len__"):
            self.total = len(given)
            if not self._texts:
                self._most = (WHOLE_OF, WHOLE_BYTES)  # what is in memory goes in one request as far as it may
        return given

    def _file(self, path: str) -> Iterator[Any]:
        if _suffix(path) == ".parquet":
            try:
                from pyarrow import parquet
            except ImportError as error:
                raise InvalidRequest(
                    f"{self._operation}: reading Parquet needs pyarrow: pip install pyarrow"
                ) from error
            file = parquet.ParquetFile(path)
            self.columns = _chosen(self._operation, list(file.schema_arrow.names), *self._named)
            self.total = file.metadata.num_rows
            self.schema = file.schema_arrow
            if self._texts:
                self.in_batches = True
                return self._read_parquet(file)
            return (row for batch in file.iter_batches(1024) for row in batch.to_pylist())
        lines = open(path, encoding="utf-8-sig", newline="")  # noqa: SIM115 - until it is read, or let go of
        if _suffix(path) == ".csv":
            import csv

            return cast(Iterator[Any], csv.DictReader(lines))
        return (json.loads(line) for line in lines if not line.isspace())

    def _read_parquet(self, file: Any) -> Iterator[Any]:
        assert self.columns is not None
        yield from file.iter_batches(EMBED_PAGE, columns=None if self.keeps_rows else [self.columns["text"]])

    def texts_of(self, batch: Any) -> Iterator[list[str]]:
        """The texts of a record batch of Arrow's, request by request; raises InvalidRequest for a row without one."""
        assert self.columns is not None
        column = batch.column(self.columns["text"])
        most = EMBED_PAGE if column.nbytes <= STREAM_BYTES else 1 + (len(column) - 1) // 2
        if len(column) > most:
            for start in range(0, len(column), most):
                yield from self.texts_of(batch.slice(start, most))
            return
        texts = column.to_pylist()
        if not (set(map(type, texts)) == {str} and all(map(str.strip, texts))):
            texts = [self._text(text, self._read + place) for place, text in enumerate(texts)]
        self._read += len(texts)
        if self.keeps_rows:
            self.given.append(batch)
        yield texts

    def _text(self, text: Any, number: int) -> str:
        """What a row has as its text; raises InvalidRequest where that is nothing."""
        if _is_missing(text) or not str(text).strip():
            assert self.columns is not None
            error = f"row {number} has no text in column {self.columns['text']!r}"
            raise InvalidRequest(f"{self._operation}: {error}", details={"index": number, "row": number})
        return self._letters(text, number)

    def _letters(self, text: Any, number: int) -> str:
        """A cell as text, as numbers and times are; anything else would be stored as Python writes it."""
        if isinstance(text, (bytes, bytearray, memoryview, Mapping, list, tuple, set)):
            assert self.columns is not None
            error = (
                f"row {number} has a {type(text).__name__} in column {self.columns['text']!r}, and no text"
            )
            raise InvalidRequest(f"{self._operation}: {error}", details={"index": number, "row": number})
        return str(text)

    @property
    def is_list(self) -> bool:
        """Whether it is a list of texts as they are sent."""
        return self._texts and isinstance(self.items, list) and not self._alone

    @property
    def full(self) -> bool:
        """Whether there is more than goes into one request."""
        return len(self._batch) > self._most[0] or (self._size > self._most[1] and len(self._batch) > 1)

    def read_on(self, items: Iterator[Any]) -> Iterator[list[Any]]:
        """What goes into the next requests; an error of the source's own is kept as `broken`."""
        try:
            for item in items:
                if self.in_batches:
                    yield from self.texts_of(item)
                    continue
                self.take(item)
                if self.full:
                    break
            else:
                self.ended = True
        except LLMBackendError:
            raise
        except Exception as error:
            self.broken, self.ended = error, True
        yield self.batch()

    def take(self, item: Any) -> None:
        self._read += 1
        document = self._of_row(item) if self._rows and isinstance(item, Mapping) else self._of_item(item)
        if document is None:
            return
        self._batch.append(document)
        self._places.append(self._read - 1)
        if self.keeps_rows:
            self.given.append(item)
        self._size += _weight(document)
        if self.ids is not None:
            self.ids.add(_id_of(document))

    def batch(self) -> list[Any]:
        """What has been read and goes into one request."""
        count = len(self._batch) if self.ended else len(self._batch) - 1
        batch, self._batch = self._batch[:count], self._batch[count:]
        self._sent, self._places = self._places[:count], self._places[count:]
        self._size = sum(map(_weight, self._batch))
        return batch

    def rows(self, count: int) -> Any:
        """What the texts of a batch were taken from, and is no longer needed: rows, or a record batch of Arrow's."""
        if self.in_batches:
            return self.given.pop(0)
        rows, self.given = self.given[:count], self.given[count:]
        return [dict(one) if isinstance(one, Mapping) else {"text": one} for one in rows]

    def check(self) -> None:
        """Raises InvalidRequest where the source broke off."""
        if self.broken is not None:
            error = self.broken
            raise InvalidRequest(
                f"{self._operation}: the source broke at row {self._read} ({type(error).__name__}: {error})",
                details={"row": self._read},
            ) from error

    def tell(self, error: LLMBackendError, name: str, done: int, what: str) -> None:
        """Add to an error how much was done before it, and where in the source its row is."""
        message = error.message
        for found in error.details.get("errors", ()):
            place = found.get("loc", [])
            if len(place) > 1 and place[0] == "documents" and isinstance(place[1], int) and self._sent:
                row = self._sent[place[1]]
                message = re.sub(rf"documents([.[]){place[1]}\b", rf"documents\g<1>{row}", message)
                place[1] = row
        if done:
            error.details[name] = done + error.details.get(name, 0)
            message += f" ({error.details[name]} {what})"
        error.message, error.args = message, (message,)

    def telling(self, tell: Progress | None, report: Mapping[str, Any]) -> Progress | None:
        """Tells of a request's progress as of all that is read, with the report so far."""
        if tell is None or (self.ended and not report):
            return tell
        before, ended = self._state, self.ended

        def more(state: Record) -> None:
            stages = _sums(before.get("stages") or {}, state.get("stages") or {})
            stage = "read" if state.get("stage") == "done" and not ended else state.get("stage")
            done = (before.get("done") or 0) + (state.get("done") or 0)
            about = {"done": done, "total": self.total, "stage": stage, "stages": stages, "report": report}
            self._state = _records({**state, **about})
            tell(self._state)

        return more

    def _of_row(self, row: Mapping[str, Any]) -> Any:
        """A row as a document, or its text; None where it is none."""
        number = self._read - 1
        if self.columns is None:
            self.columns = _chosen(self._operation, [*row], *self._named)
        columns, metadata = self.columns, self._named[2]
        text = row.get(columns["text"])
        if self._texts:
            return self._text(text, number)
        if _is_missing(text) or not str(text).strip():
            error = f"row {number} has no text in column {columns['text']!r}"
            id = row.get(columns["id"])
            self.failed.append(Record(id=f"row {number}" if _is_missing(id) else str(id), error=error))
            return None
        id = row.get(columns["id"]) if columns["id"] is not None else None
        others = row if metadata is None else columns["metadata"]
        about = {
            name: row[name]
            for name in others
            if name not in (columns["id"], columns["text"]) and not _is_missing(row.get(name))
        }
        if metadata is None and isinstance(inner := about.get("metadata"), Mapping):  # as a document has it
            about = {**about, **inner}
            del about["metadata"]
        about = {**self._common, **about}
        document = _identified(
            {"text": self._letters(text, number), "metadata": about}, None if _is_missing(id) else _whole(id)
        )
        if document["id"] not in self._seen:
            if len(self._seen) == SEEN:
                self._seen.clear()
            self._seen.add(document["id"])
            return document
        if _is_missing(id):
            warning = f"row {number} is the same as another, and was left out"
            self.warnings.append(Record(id=document["id"], warning=warning))
        else:
            self.failed.append(Record(id=document["id"], error=f"row {number} has the id of another row"))
        return None

    def _of_item(self, item: Any) -> Any:
        """A document as it is sent; raises InvalidRequest for the path of a file, which was meant to be read."""
        if self._texts:
            return item
        if (path := _path_meant(item)) is not None:
            place = "documents" if self._alone else f"documents[{self._read - 1}]"
            fix = f"rag_ingest_files({path!r}, …) reads files"
            raise InvalidRequest(f"{self._operation}: {place} is the path {path!r}, not a text: {fix}")
        if _is_foreign(item):
            item = _of_foreign(item)
        if not isinstance(item, (str, Mapping)) or (
            self._alone and isinstance(_of(item, "text"), (list, tuple))
        ):
            place = "documents" if self._alone else f"documents[{self._read - 1}]"
            raise InvalidRequest(f"{self._operation}: {place} is {_called(item)}{_how(item)}")
        if not self._common:
            return item
        if isinstance(item, str):
            item = {"id": _id_of(item), "text": item}
        if isinstance(item, Mapping) and isinstance(item.get("metadata", {}), Mapping):
            return {**item, "metadata": {**self._common, **item.get("metadata", {})}}
        return item


ROWS = (".parquet", ".jsonl", ".ndjson", ".csv")
"""Ends of the names of files whose rows are documents."""

STREAM_OF, STREAM_BYTES = 2_000, 8 * 2**20
"""Documents in a request, of a source that is read as it comes, and about how large they are."""

WHOLE_OF, WHOLE_BYTES = 50_000, 16 * 2**20
"""The same of what is in memory: as long as it is one request, nothing of it is stored if something is wrong with it."""

SEEN = 1_000_000
"""Ids of rows that are remembered, to tell of rows that are there twice."""


def _batches(source: _Source) -> Iterator[list[Any]]:
    """What a source has, request by request; raises InvalidRequest where the source breaks, after what came before."""
    if hasattr(source.items, "__aiter__"):
        raise InvalidRequest("this is read by `async for`: give it to AsyncLLMBackendClient")
    if source.is_list or not hasattr(source.items, "__iter__"):
        yield from _pages(source)
        return
    items = iter(source.items)
    any_yet = False
    while not source.ended:
        for batch in source.read_on(items):
            if batch or not (any_yet or source.broken):
                any_yet = True
                yield batch
    source.check()


def _pages(source: _Source) -> Iterator[Any]:
    """A list of texts by pages; what is no list, for validation to judge."""
    given = source.items
    for start in range(0, len(given) or 1, EMBED_PAGE) if isinstance(given, list) else (0,):
        page = given[start : start + EMBED_PAGE] if isinstance(given, list) else given
        source.ended = not isinstance(given, list) or start + EMBED_PAGE >= len(given)
        if source.keeps_rows and isinstance(given, list):
            source.given += page
        yield page


AHEAD = 2
"""Requests under way while the reply to the one before them is read."""


def _ahead(
    transport: Transport, operation: str, pages: Iterator[_Page], given: Callable[[_Page], dict[str, Any]]
) -> Iterator[tuple[_Page, bytes]]:
    """Each page with the reply to it, in their order; the next are read and asked for meanwhile.

    A source that breaks is told once the pages before it have been given.
    """
    begin = getattr(transport, "begin", None)  # in this process, where it needs no thread to wait
    pool = concurrent.futures.ThreadPoolExecutor(AHEAD)  # which has no thread until it gets work
    waiting: deque[tuple[_Page, Any]] = deque()
    broken: LLMBackendError | None = None
    ended = False
    try:
        while waiting or not ended:
            try:
                while not ended and len(waiting) <= AHEAD:
                    page = next(pages)
                    asked = given(page)
                    reply = (
                        begin(operation, asked) if begin else pool.submit(transport.call, operation, asked)
                    )
                    waiting.append((page, reply))
            except StopIteration:
                ended = True
            except LLMBackendError as error:
                ended, broken = True, error
            if waiting:
                page, reply = waiting.popleft()
                yield page, reply.result()
    finally:
        for _, reply in waiting:
            reply.cancel()
        pool.shutdown(wait=False)
    if broken is not None:
        raise broken


def _weight(document: Any) -> int:
    """About how many bytes of a request a document takes."""
    if not isinstance(document, Mapping):
        return len(document) if isinstance(document, str) else 100
    text, metadata = document.get("text"), document.get("metadata")
    size = 100 + (len(text) if isinstance(text, str) else 0) + (len(repr(metadata)) if metadata else 0)
    return size + (len(repr(document["chunks"])) if document.get("chunks") else 0)


def _id_of(document: Any) -> str:
    """A document's id, which is of a bare text its hash."""
    if isinstance(document, Mapping):
        return unicodedata.normalize("NFC", str(document.get("id")))
    import hashlib

    return hashlib.sha256(str(document).encode("utf-8", "replace")).hexdigest()[:32]


def _sums(before: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: {key: (before.get(name, {}).get(key) or 0) + (count or 0) for key, count in counts.items()}
        for name, counts in more.items()
    }


def _identified(document: dict[str, Any], id: str | None) -> dict[str, Any]:
    """With its id; without one, a hash of its text and metadata."""
    if id is None:
        import hashlib

        content = json.dumps(document, default=str, sort_keys=True).encode(errors="replace")
        id = hashlib.sha256(content).hexdigest()[:32]
    return {"id": id, **document}


def _is_missing(value: Any) -> bool:
    """None, and the marks that NumPy and pandas have for no value."""
    try:
        return value is None or bool(value != value)
    except ArithmeticError:  # Decimal("sNaN")
        return True
    except (
        TypeError,
        ValueError,
    ):  # an array or a column; or pandas' NA, which is neither equal to itself nor not
        return type(value).__name__ == "NAType"


def _path_meant(item: Any) -> str | None:
    """The path of a file, where a document is given as one."""
    if isinstance(item, str):
        # Most do not look like a file's name, and asking the system takes longer than looking.
        ends = "." in item[-16:-1] and " " not in item.rpartition(".")[2]
        if not (ends or os.sep in item) or "\n" in item or len(item) >= 1024 or not os.path.exists(item):
            return None
    elif not isinstance(item, os.PathLike) or isinstance(os.fspath(item), bytes):
        return None
    return str(os.fspath(item))


def _is_several(given: Any) -> bool:
    """Whether it may be documents: one, or several."""
    if isinstance(given, (str, os.PathLike)) or _is_foreign(given):
        return True
    several = any(hasattr(given, name) for name in ("__iter__", "__aiter__", "__getitem__", "to_pylist"))
    return several and not isinstance(given, type)


def _called(item: Any) -> str:
    return "None" if item is None else f"a {type(item).__name__}"


def _how(item: Any) -> str:
    """What to give instead of something that is no document."""
    if isinstance(item, Mapping):
        return " of columns: give a table, such as pandas.DataFrame(documents)"
    if isinstance(item, (tuple, list)):
        return ": give texts, dicts with 'id' and 'text', or rows as a table, such as pandas.DataFrame(documents)"
    if isinstance(item, (bytes, bytearray)):
        return ": give text, as by .decode()"
    if hasattr(item, "readline"):
        return " that is open: rag_ingest_files(path) reads files; for a document a line, give list(file)"
    if hasattr(item, "itertuples") or hasattr(item, "to_dicts"):
        return ": one of several tables: ingest each by itself"
    return ": give texts, dicts with 'id' and 'text', a table, or, by rag_ingest_files, files"


def _of(item: Any, name: str) -> Any:
    return item.get(name) if isinstance(item, Mapping) else None


def _whole(id: Any) -> str:
    """An id as text. pandas makes floats of whole numbers where another row has none: 1.0 is the id "1"."""
    return str(int(id)) if isinstance(id, float) and id.is_integer() else str(id)


def _read_first(operation: str, text: Any) -> Any:
    """A text; raises InvalidRequest for the path of a file, which was meant to be read."""
    if (path := _path_meant(text)) is not None:
        raise InvalidRequest(
            f"{operation}: this is the path {path!r}, not a text: give Path({path!r}).read_text()"
        )
    return text


def _is_foreign(item: Any) -> bool:
    """Whether it is a document of LangChain's or LlamaIndex's."""
    return hasattr(item, "page_content") or (hasattr(item, "get_content") and hasattr(item, "metadata"))


def _of_foreign(item: Any) -> dict[str, Any]:
    text = item.page_content if hasattr(item, "page_content") else item.get_content()
    id = getattr(item, "id_", None) or getattr(item, "id", None)
    return _identified({"text": text, "metadata": dict(item.metadata or {})}, str(id) if id else None)


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:10])) + (", …" if len(names) > 10 else "")


def _agent_input(value: Any) -> Any:
    """An agent's input: a pydantic object as its fields, a pydantic class as its JSON Schema, and `files` as they are sent."""
    if hasattr(value, "model_dump") and not isinstance(value, type):
        return value.model_dump(mode="json")
    if not isinstance(value, Mapping):
        return value
    plain = {name: _json_schema(one) if isinstance(one, type) else one for name, one in value.items()}
    if "files" in plain:
        plain["files"] = _files_sent(plain["files"])
    return plain


def _files_sent(paths: Any) -> Any:
    """Files, folders and patterns with what is in them; raises InvalidRequest for what cannot be read."""
    if isinstance(paths, (list, tuple)) and all(isinstance(one, Mapping) for one in paths):
        return paths  # they are so already
    failed: Records[Record] = Records()
    try:
        found = _named(_find_files(paths))
    except InvalidRequest as error:
        raise InvalidRequest(
            error.message.replace("rag_ingest_files: paths", "input.files"), details=error.details
        ) from None
    sent = list(_contents([one for one in found if not isinstance(one[1], OSError)], failed))
    failed.extend(
        Record(id=name, error=f"cannot be read: {file.strerror}")
        for name, file in found
        if isinstance(file, OSError)
    )
    if failed or not sent:
        why = f"{failed[0]['id']}: {failed[0]['error']}" if failed else "there are no files in it"
        raise InvalidRequest(f"input.files: {why}")
    return sent


def _json_schema(schema: Any) -> Any:
    """What a pydantic class is in JSON Schema; anything else as it is, for validation to judge."""
    if not hasattr(schema, "model_json_schema"):
        return schema
    try:
        return schema.model_json_schema()
    except Exception as error:  # pydantic's own, which this file does not know
        raise InvalidRequest(f"chat: schema: {schema.__name__} has no JSON Schema: {error}") from error


def _parsed(text: str, schema: Any) -> Any:
    if not hasattr(schema, "model_validate_json"):
        return _records(json.loads(text))
    try:
        return schema.model_validate_json(text)
    except ValueError as error:  # a validator that JSON Schema cannot tell of
        raise BackendError(
            f"the reply fits the schema, but is no {schema.__name__}: {error}", details={"text": text}
        ) from error


def _with_images(turns: Any, images: Any) -> list[Any]:
    """The conversation, with images in its last message."""
    given = [images] if isinstance(images, (str, bytes, os.PathLike)) else _as_list(images)
    if not isinstance(given, list):
        raise _no_image(["images"], f"takes URLs, paths or bytes, not {type(images).__name__}")
    if not isinstance(turns, list) or not turns or not isinstance(turns[-1], Mapping):
        raise _no_image(["images"], "there is no message that they could go with")
    last = turns[-1]
    if last.get("role") != "user":
        raise _no_image(
            ["images"], f"they go with a user's message, and the last is of role {last.get('role')!r}"
        )
    text = last.get("content")
    parts = [{"type": "text", "text": text}] if isinstance(text, str) else list(text or [])
    urls = [_image_url(image, ["images", number]) for number, image in enumerate(given)]
    parts += [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [*turns[:-1], {**last, "content": parts}]


# What an image's bytes have where.
_IMAGE_MARKS = (
    ("png", 0, b"\x89PNG\r\n\x1a\n"),
    ("jpeg", 0, b"\xff\xd8\xff"),
    ("gif", 0, b"GIF87a"),
    ("gif", 0, b"GIF89a"),
    ("webp", 8, b"WEBP"),
)


def _image_url(image: Any, place: list[str | int]) -> str:
    """An image as a URL: a URL as it is, a file or bytes as a data: URL."""
    if isinstance(image, str) and image.startswith(("http://", "https://", "data:")):
        return image
    if isinstance(image, (str, os.PathLike)):
        try:
            with open(image, "rb") as file:
                data = file.read()
        except (OSError, ValueError) as error:
            raise _no_image(place, f"cannot be read: {error}") from error
    elif isinstance(image, bytes):
        data = image
    else:
        raise _no_image(place, f"must be a URL, a path or bytes, not {type(image).__name__}")
    for kind, offset, mark in _IMAGE_MARKS:
        if data.startswith(mark, offset):
            return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    raise _no_image(place, "is no PNG, JPEG, GIF or WebP image")


def _no_image(place: list[str | int], reason: str) -> InvalidRequest:
    found = {"type": "image", "loc": place, "msg": reason}
    where = ".".join(map(str, place))
    return InvalidRequest(f"chat: {where}: {reason}", details={"errors": [found]})


def _find_files(paths: Any) -> list[tuple[str, Any]]:
    """Files by the names that their documents get: each a path, or its content."""
    given = [paths] if _is_named_content(paths) or isinstance(paths, (str, os.PathLike)) else _as_list(paths)
    if not isinstance(given, list):
        raise _no_file(["paths"], f"takes paths, not {type(paths).__name__}")
    found: list[tuple[str, Any]] = []
    for number, one in enumerate(given):
        if _is_named_content(one):
            found.append((one[0], bytes(one[1])))
        elif isinstance(one, (str, os.PathLike)):
            found += _find(os.path.expanduser(os.fsdecode(one)), ["paths", number])
        else:
            raise _no_file(["paths", number], f"must be a path, or (name, bytes), not {type(one).__name__}")
    return found


def _is_named_content(one: Any) -> bool:
    pair = isinstance(one, (list, tuple)) and len(one) == 2
    return pair and isinstance(one[0], str) and isinstance(one[1], (bytes, bytearray, memoryview))


def _find(path: str, place: list[str | int]) -> Iterator[tuple[str, Any]]:
    """The files below a path by their names; an OSError takes the place of what cannot be read."""
    if os.path.isdir(path):
        for name, file in _walked(path):
            if isinstance(file, OSError) and file.filename == path:
                raise _no_file(place, f"the folder {path!r} cannot be read: {file.strerror}")
            yield name, file
    elif os.path.isfile(path):
        yield os.path.basename(path), path
    elif os.path.exists(path):
        raise _no_file(place, f"{path!r} {_NO_FILE}")
    elif glob.has_magic(path):
        matches = list(_matching(path))
        if not matches:
            raise _no_file(place, f"no file matches {path!r}")
        yield from matches
    elif "://" in path:
        raise _no_file(place, "URLs are not fetched: download it, and pass the file")
    else:
        raise _no_file(place, f"there is no file or folder {path!r}")


_NO_FILE = "is a pipe, a socket or a device, and no file"


def _walked(folder: str) -> Iterator[tuple[str, Any]]:
    """What is below a folder, by name; what cannot be read comes as an OSError."""
    unread: list[OSError] = []
    for here, folders, names in os.walk(folder, onerror=unread.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for inner in (os.path.join(here, name) for name in folders):
            if os.path.islink(inner):
                error = OSError(0, "a link to a folder is not followed: pass that folder")
                yield _below(folder, inner) + "/", error
        for file in (os.path.join(here, name) for name in sorted(names) if not name.startswith(".")):
            # A broken link is no file either, as reading it will tell; reading a pipe would never end.
            is_file = os.path.isfile(file) or not os.path.exists(file)
            yield _below(folder, file), file if is_file else OSError(0, f"it {_NO_FILE}")
    for error in unread:
        yield _below(folder, error.filename) + "/", error


def _matching(pattern: str) -> Iterator[tuple[str, Any]]:
    """As a folder's, what matches a pattern, by names below what of it is fixed."""
    fixed = os.path.dirname(pattern[: re.search(r"[*?\[]", pattern).start()])  # type: ignore[union-attr]
    wanted = os.path.relpath(pattern, fixed or ".").split(os.sep)
    if "**" not in wanted:
        for file in sorted(glob.glob(pattern)):
            if not os.path.isdir(file):
                is_file = os.path.isfile(file) or not os.path.exists(file)
                yield _below(fixed or ".", file), file if is_file else OSError(0, f"it {_NO_FILE}")
        return
    for name, file in _walked(
        fixed or "."
    ):  # not `glob`, which follows links in circles and passes over what it cannot read
        parts = name.rstrip("/").split("/")
        if _fits(parts, wanted) if not name.endswith("/") else _leads_to(parts, wanted):
            yield name, file


def _fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern or not parts:
        return not parts and all(one == "**" for one in pattern)
    if pattern[0] == "**":
        return _fits(parts[1:], pattern) or _fits(parts, pattern[1:])
    return fnmatch.fnmatch(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


def _leads_to(folder: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether there may be files below a folder that match."""
    return (
        pattern[:1] == ["**"]
        or not folder
        or (
            len(pattern) > 1 and fnmatch.fnmatch(folder[0], pattern[0]) and _leads_to(folder[1:], pattern[1:])
        )
    )


def _below(folder: str, file: str) -> str:
    return os.path.relpath(file, folder).replace(os.sep, "/")


def _named(found: Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """With each name in one form of Unicode: systems differ in how they write an accented letter.

    Files of one name come one after the other, so that they are sent together, and the second is told.
    """
    named: dict[str, list[Any]] = {}
    for name, file in found:
        named.setdefault(unicodedata.normalize("NFC", name), []).append(file)
    return [(name, file) for name, files in named.items() for file in files]


def _stored(report: Mapping[str, Any]) -> int:
    return sum(report.get(name, 0) for name in ("added", "updated", "unchanged"))


def _of_all(report: Progress | None, before: int, total: int) -> Progress | None:
    """Tells of the files of one lot as some of all."""
    if report is None:
        return None
    # Files may have others in them, which count as documents, too.
    return lambda state: report(Record({**state, "done": min(before + state["done"], total), "total": total}))


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _lots(
    found: Sequence[tuple[str, Any]], failed: Records[Record], types: set[str]
) -> list[list[tuple[str, Any]]]:
    """Files in the lots in which they are sent, without those that nobody could read."""
    lots: list[list[tuple[str, Any]]] = [[]]
    room = UPLOAD_BYTES
    for name, file in found:
        if isinstance(file, OSError):
            failed.append(Record(id=name, error=f"cannot be read: {file.strerror}"))
            continue
        if _suffix(name) not in types:
            failed.append(Record(id=name, error=f"unsupported type {_suffix(name)}"))
            continue
        try:
            size = len(file) if isinstance(file, bytes) else os.path.getsize(file)
        except OSError:
            size = 0  # gone meanwhile, as reading it will tell
        if lots[-1] and size > room and lots[-1][-1][0] != name:
            lots.append([])
            room = UPLOAD_BYTES
        lots[-1].append((name, file))
        room -= size
    return lots


def _contents(lot: Sequence[tuple[str, Any]], failed: Records[Record]) -> Iterator[dict[str, str]]:
    """What can be read of them, as it is sent."""
    for name, file in lot:
        content = file
        if not isinstance(file, bytes):
            try:
                with open(file, "rb") as opened:
                    content = opened.read()
            except OSError as error:
                failed.append(Record(id=name, error=f"cannot be read: {error.strerror}"))
                continue
        yield {"name": name, "content": base64.b64encode(content).decode()}


def _no_file(place: list[str | int], reason: str) -> InvalidRequest:
    found = {"type": "file", "loc": place, "msg": reason}
    where = ".".join(map(str, place))
    return InvalidRequest(f"rag_ingest_files: {where}: {reason}", details={"errors": [found]})


def _jsonable(value: Any) -> Any:
    """A value of Python's that JSON has under another name; TypeError for what it has not.

    Dates and times become RFC 3339 (without a zone they are in UTC), enums their values, UUIDs and paths text, decimals
    numbers if they stay the same, scalars of NumPy and Arrow Python's own, arrays and other sequences lists.
    """
    import decimal  # here, for few values are of such kinds, and imports take their time

    if _is_missing(value):
        name = str(value).strip("<>")  # as in pandas' <NA>
        raise TypeError(f"is {'NaN' if name == 'nan' else name}: leave it out")
    if isinstance(value, datetime.datetime):
        return value.isoformat() + ("Z" if value.tzinfo is None else "")
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, decimal.Decimal):
        if value.is_infinite():
            raise TypeError(f"is {value}, which is no finite number: leave it out")
        number = float(value) if value.adjusted() > 20 or value != value.to_integral_value() else int(value)
        if number in (_INFINITE, -_INFINITE) or decimal.Decimal(repr(number)) != value:
            raise TypeError(f"is {_short(value)}, a decimal that no float is equal to: give it as text")
        return number
    if isinstance(value, os.PathLike) and isinstance(path := os.fspath(value), str):
        return path
    if hasattr(value, "tolist"):
        kind = getattr(getattr(value, "dtype", None), "kind", "")
        plain = value.astype("datetime64[us]").tolist() if kind == "M" else value.tolist()
        if plain is None or plain is value or kind == "m":
            raise TypeError(f"is {_short(value)}, which JSON does not have: give it as text, or as a number")
        return plain
    for method in ("as_py", "to_pylist", "to_list"):  # Arrow's values, its and polars' columns
        if hasattr(value, method):
            return getattr(value, method)()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray, memoryview)):
        return list(value)
    if isinstance(value, (set, frozenset)):
        raise TypeError("is a set, which has no order: give it as a list")
    raise TypeError(
        f"is a {type(value).__name__}, which JSON does not have ({_short(value)}): give it as text, or as a number"
    )


_INFINITE = float("inf")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _where(place: Sequence[str | int]) -> str:
    """A place in what was given, as in `documents[2500].metadata.price`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")


def _not_json(given: Any) -> tuple[list[str | int], str] | None:
    """Where the first value is that JSON does not have, and what is wrong with it."""
    waiting: list[tuple[Any, list[str | int]]] = [(given, [])]
    while waiting:
        value, place = waiting.pop()
        if len(place) > 100:
            return place[:3], "is nested too deep, or in itself"
        if isinstance(value, dict):
            for key in value:
                if not (key is None or isinstance(key, (str, int, float))):
                    return place, f"has a field whose name is a {type(key).__name__}: {_short(key)}"
            waiting += [(inner, [*place, str(key)]) for key, inner in reversed(value.items())]
        elif isinstance(value, (list, tuple)):
            waiting += [(inner, [*place, number]) for number, inner in reversed([*enumerate(value)])]
        elif isinstance(value, float):
            if value != value:
                return place, "is NaN: leave it out"
            if value in (_INFINITE, -_INFINITE):
                return place, f"is {float(value)}, which is no finite number: leave it out"
        elif not (value is None or isinstance(value, (str, int))):
            try:
                waiting.append((_jsonable(value), place))
            except (TypeError, ValueError, OverflowError) as error:
                return place, str(error)
    return None


def _environment() -> dict[str, str | None]:
    """LLM_BACKEND_* from the environment, else from `.env` in the working directory."""
    found: dict[str, str | None] = {}
    if os.path.isfile(".env"):
        from dotenv import dotenv_values

        try:
            found = dict(dotenv_values(".env", encoding="utf-8"))
        except UnicodeDecodeError:
            raise InvalidRequest("the file .env is not UTF-8 text") from None
    return {**found, **os.environ}


def _local_transport() -> Transport:
    try:
        from llmbackend.local import LocalTransport
    except ModuleNotFoundError as error:
        raise TransportError(
            "nothing to talk to: pass api_url=... (or set LLM_BACKEND_URL), or, to run in this process, "
            f"pip install 'llmbackend[embedded]' (missing: {error.name})"
        ) from error
    return LocalTransport()
