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
import importlib
import inspect
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
    "ModelResponse",
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
    """Base of every error, on either transport. Branch on the class or on `code`, never on the text.

    LLMBackendError        internal           500   unforeseen: a bug
    ├ InvalidRequest       invalid_request    422   does not fit the operation's schema
    ├ Unauthorized         unauthorized       401   no key, or a wrong one
    ├ Forbidden            forbidden          403   the key does not allow this
    ├ NotFound             not_found          404   no such collection, document, job or model
    ├ MethodNotAllowed     method_not_allowed 405   the path is right, the HTTP method is not
    ├ RequestTimeout       request_timeout    408   the request arrived too slowly
    ├ Conflict             conflict           409   exists already, is in use elsewhere, or does not match
    ├ JobExpired           job_expired        410   a job's result was deleted after its retention time
    ├ TooLarge             too_large          413   the request is larger than the server accepts
    ├ Overloaded           overloaded         429   try again later (details: retry_after, seconds)
    ├ InsufficientStorage  insufficient_storage  507 the server's disk is full; reading still works (details: path, free, needed)
    ├ BackendError         backend            502   a model or store behind us failed (details: backend)
    │ └ BackendTimeout     backend_timeout    504   ... or did not answer in time
    ├ TransportError       transport           -    the server was not reached (raised by the client only)
    └ StreamInterrupted    stream_interrupted  -    a stream broke off; `.text` has what arrived before
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
        """Short traceback for IPython and notebooks: the message, the caller's own lines, the message again."""
        import traceback

        frames: list[traceback.FrameSummary] = []
        for frame, line in traceback.walk_tb(self.__traceback__):
            module = frame.f_globals.get("__name__") or ""
            if module == __name__ or module.startswith("llmbackend"):
                break  # frames inside this file and the package do not help the caller
            if not module.startswith("IPython"):
                frames.append(traceback.FrameSummary(frame.f_code.co_filename, line, frame.f_code.co_name))
        said = f"{type(self).__name__}: {self.message}"
        where = [one.rstrip("\n") for one in traceback.format_list(frames)]
        return [said, "", *where, "", said] if where else [said]

    def to_dict(self) -> dict[str, Any]:
        """The error as it travels over the wire: `{code, message, details, request_id}`."""
        return {
            "code": self.code,
            "message": self.message,
            "details": self.details,
            "request_id": self.request_id,
        }

    @staticmethod
    def from_dict(error: Mapping[str, Any]) -> LLMBackendError:
        """Rebuild an error from `to_dict()`; an unknown code gives the base class."""
        classes = {kind.code: kind for kind in _subclasses(LLMBackendError)}
        kind = classes.get(str(error.get("code")), LLMBackendError)
        details = error.get("details")
        return kind(
            str(error.get("message", "unknown error")),
            details=details if isinstance(details, Mapping) else None,
            request_id=error.get("request_id"),
        )


class InvalidRequest(LLMBackendError):
    """The request is not valid; `details["errors"]` lists each place that does not fit the schema."""

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
    """The path does not take this HTTP method; the Allow header lists those it does."""

    code, status = "method_not_allowed", 405


class RequestTimeout(LLMBackendError):
    """The request arrived too slowly, and the server gave up on it."""

    code, status = "request_timeout", 408


class Conflict(LLMBackendError):
    """It exists already, is in use by another process, or does not match what is stored."""

    code, status = "conflict", 409


class JobExpired(LLMBackendError):
    """A job's result was deleted after its retention time (JOB_RESULT_DAYS on the server)."""

    code, status = "job_expired", 410


class TooLarge(LLMBackendError):
    """The request is larger than the server accepts; `details["limit"]` is what it accepts."""

    code, status = "too_large", 413


class Overloaded(LLMBackendError):
    """Too many requests for now; try again after `details["retry_after"]` seconds."""

    code, status = "overloaded", 429


class InsufficientStorage(LLMBackendError):
    """The server's disk is full; `details` has its `path`, and the bytes `free` and `needed`."""

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
    """A dict method on a record, callable as usual.

    If the record has a field of the same name, any other use of it raises an AttributeError that says how to get at
    the field.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.method = vars(dict)[name]

    def __get__(self, record: Record | None, owner: type[Record]) -> Any:
        method = self.method.__get__(record, owner)
        return method if record is None or self.name not in record else _Shadowing(self.name, method)


class _Shadowing:
    """A dict method that hides a field: the caller probably meant the field."""

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
    """A result with rich display in IPython and notebooks: drawn by the llmbackend package, else a plain table."""

    def _shown(self) -> Any:
        return self

    def _repr_html_(self) -> str:
        return _drawn(self._shown())

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text("…" if cycle else _written(self._shown()))


class Record(_Shown, dict[str, Any]):
    """A result: a plain dict whose keys are also attributes, with rich display in notebooks.

    Dict methods keep their meaning: if a field has the name of one (`items`, `keys`, `values`, `copy`, `get`, `pop`,
    `update`, …), use `record["items"]`; using `record.items` as if it were the value raises an AttributeError that says
    so.
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            known = ", ".join(self)
            raise AttributeError(f"this result has no {name!r}; it has: {known or 'nothing'}") from None

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self]


for _name in vars(dict):
    if not _name.startswith("_"):
        setattr(Record, _name, _Method(_name))


if TYPE_CHECKING:

    class _Typed(_Shown, dict[str, Any]):
        """A Record whose fields type checkers know, so that a misspelt one is reported."""

else:
    _Typed = Record

_Item = TypeVar("_Item", bound=Mapping[str, Any])
_Page = TypeVar("_Page")


class Records(_Shown, list[_Item]):
    """Several results: a plain list, shown as a table or as cards in notebooks.

    If filters found nothing, `notes` says which of their fields no document has, or holds another type of value;
    `print` shows them behind the list.
    """

    notes: Sequence[str] = ()

    def __repr__(self) -> str:
        told = super().__repr__()
        return f"{told}  # {'; '.join(self.notes)}" if self.notes else told

    @overload
    def __getitem__(self, index: SupportsIndex) -> _Item: ...
    @overload
    def __getitem__(self, index: slice) -> Records[_Item]: ...
    def __getitem__(self, index: Any) -> Any:
        found = list.__getitem__(self, index)
        if isinstance(index, slice):  # a slice keeps the type, and so the display
            found = type(self)(found)
            vars(found).update(vars(self))
        return found

    def __iter__(self) -> Iterator[_Item]:
        # pandas.DataFrame(result) iterates: give it the same columns as to_pandas().
        if sys._getframe(1).f_globals.get("__name__") == "pandas.core.internals.construction":
            return iter([cast(_Item, dict(flat_fields(record))) for record in list.__iter__(self)])
        return list.__iter__(self)

    def to_pandas(self) -> Any:
        """A pandas DataFrame with one row per record; nested fields become columns such as `metadata.year`."""
        pandas = _library("pandas")
        return pandas.DataFrame([dict(flat_fields(record)) for record in self])

    def to_polars(self) -> Any:
        """A polars DataFrame with the rows and columns of `to_pandas()`; columns of mixed types become text."""
        polars = _library("polars")
        return polars.DataFrame([_series(polars, *column) for column in _by_column(self).items()])

    def to_jsonl(self, path: str | os.PathLike[str]) -> None:
        """Write a JSON Lines file, one line per record; an existing file is replaced."""
        with open(f"{os.fsdecode(path)}.part", "w", encoding="utf-8") as file:
            for record in self:
                file.write(json.dumps(record, ensure_ascii=False, default=_jsonable) + "\n")
        os.replace(f"{os.fsdecode(path)}.part", path)

    def to_parquet(self, path: str | os.PathLike[str]) -> None:
        """Write a Parquet file with the rows and columns of `to_pandas()`; columns of mixed types become text."""
        pyarrow, parquet = _library("pyarrow"), _library("pyarrow.parquet")
        table = pyarrow.table({name: _column(values) for name, values in _by_column(self).items()})
        parquet.write_table(table, f"{os.fsdecode(path)}.part")
        os.replace(f"{os.fsdecode(path)}.part", path)


def _library(name: str) -> Any:
    """A library that a caller's own call wants, and that this file does without. Its absence says what to install."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        package = name.partition(".")[0]
        if error.name != package:
            raise
        raise ModuleNotFoundError(
            f"this needs {package}, which is not installed here: pip install {package}", name=package
        ) from None


def _by_column(records: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    rows = [dict(flat_fields(record)) for record in records]
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _series(polars: Any, name: str, values: list[Any]) -> Any:
    """A polars column: in the type that all values share, else text, with other values as JSON."""
    if not any(isinstance(one, (list, Mapping)) for one in values) or _are_alike(values):
        with suppress(polars.exceptions.PolarsError, OverflowError, TypeError):
            return polars.Series(name, values, strict=False)
    return polars.Series(name, _in_text(values))


def _are_alike(values: Iterable[Any]) -> bool:
    """Whether values, and those within them, are of one type: polars makes 2 of 2.5 in a list after one of integers."""
    known = [one for one in values if one is not None]
    if len(set(map(type, known))) > 1:
        return False
    if known and isinstance(known[0], list):
        return _are_alike(one for some in known for one in some)
    if known and isinstance(known[0], Mapping):
        names = known[0].keys()
        if any(one.keys() != names for one in known):
            return False
        return all(_are_alike([one[name] for one in known]) for name in names)
    return True


def _in_text(values: list[Any]) -> list[str | None]:
    return [None if _is_missing(one) else _as_text(one) for one in values]


def _as_text(value: Any) -> str:
    """A text as it is, other values that JSON has as JSON, and what it has not, such as a path, by `str`."""
    if isinstance(value, (bool, int, float, list, dict)):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def _column(values: list[Any]) -> Any:
    """An Arrow column: in the type that all values share, else text, with other values as JSON."""
    import pyarrow

    try:
        column = pyarrow.array(values)
        if not pyarrow.types.is_null(column.type) and not any(isinstance(one, dict) for one in values):
            return column
    except (pyarrow.ArrowException, OverflowError):
        pass
    return pyarrow.array(_in_text(values), pyarrow.string())


def _cells(name: str, rows: list[dict[str, Any]], type: Any = None) -> Any:
    """An Arrow column of rows' cells, of a type or, without one, of the type that all share, else as text.

    NaN, NaT and NA are null. Raises InvalidRequest for a cell that the type cannot hold.
    """
    import pyarrow

    values = [row.get(name) for row in rows]
    try:
        column = pyarrow.array(values, type, from_pandas=True)
        if not pyarrow.types.is_null(column.type):
            return column
        if any(isinstance(one, float) for one in values):  # NaN, and numbers may follow
            return column.cast(pyarrow.float64())
    except (pyarrow.ArrowException, TypeError, ValueError, OverflowError) as error:
        if type is not None and not pyarrow.types.is_string(type):
            said = f"by the first rows, the column {name!r} is {type}, and a later row has another type"
            raise InvalidRequest(
                f"batch_embed: {said} ({_said(error)}): give it one type, or leave it out"
            ) from error
    return pyarrow.array(_in_text(values), pyarrow.string())


def flat_fields(record: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Fields by dotted path: `metadata.year`."""
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from flat_fields(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


class KeyInfo(_Typed):
    """An API key without its secret; see `list_keys`."""

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
    """A new API key; `key` is the key itself.

    The repr hides it, so that no secret is left in a log or a notebook: print `.key` to see it.
    """

    key: str

    def __repr__(self) -> str:
        return repr(self._shown())

    def _shown(self) -> Record:
        return Record({**self, "key": f"{self['id']}_…"})


class IngestReport(_Typed):
    """What an ingest did; see `rag_ingest`. Only a plan has `documents` and `seconds`, only a table `columns`."""

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
    """A document of a collection: its id, number of chunks and metadata; see `list_documents`."""

    id: str
    chunks: int
    metadata: Any


class StoredDocument(DocumentInfo):
    """A document with its text; see `get_document`."""

    text: str


class ChunkInfo(_Typed):
    """A stored chunk; see `list_chunks`."""

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
    """A text and how well it answers a query; see `rerank`."""

    index: int
    score: float
    text: str


class ToolCall(_Typed):
    """A tool call that a model asks for."""

    id: str
    name: str
    arguments: Record


class Health(_Typed):
    """The state of a backend; see `health`."""

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
    """A passage that an answer is based on: a Hit with its `number` in the answer and the `quote` that fits best."""

    number: int
    quote: str


class Hits(Records[Hit]):
    """The passages that a search found; notebooks highlight the words of its `query` in them."""

    query: str = ""


_DIMENSIONS = ("project", "key", "model", "operation", "day")


class Usage(Records[Record]):
    """Usage, one row per combination of the dimensions asked for: a plain list with `plot()`; see `usage`."""

    def plot(self, axes: Any = None) -> Any:
        """Plot each row's tokens as bars; draws on `axes` if given, and returns the matplotlib axes."""
        return _pictures().plot_usage(self, axes)


class Job(_Typed):
    """A snapshot of a job; notebooks show it with a progress bar. See `get_job_status`."""

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
        told = (self["type"], self["status"], progress_text(self["progress"], self["type"]))
        return f"<Job {self['id']}: {', '.join(filter(None, told))}>"


_UNITS = {
    "batch_embed": "text",
    "batch_chat": "prompt",
    "reindex": "chunk",
    "reindex_collection": "chunk",
    "rag_ingest": "document",
    "analyze_documents": "document",
    "evaluate": "search",
}
"""What each job type, and long operation, counts."""


def progress_text(progress: Mapping[str, Any], job_type: str = "") -> str:
    """Progress in words: `3 of 7 files, 412 chunks, 1,200/s, 2 min left`."""
    done, total = progress.get("done") or 0, progress.get("total") or 0
    stages: Mapping[str, Mapping[str, Any]] = progress.get("stages") or {}
    unit = _UNITS.get(job_type) or ("file" if "parse" in stages else "document" if "chunk" in stages else "")
    stage = progress.get("stage") or ""
    counted = f"{done:,} of {total:,}" if total > done else f"{done:,}"
    if unit and max(done, total) != 1:
        unit += "es" if unit.endswith("ch") else "s"
    said = [f"{counted} {unit}".strip()]
    if not total and not done:
        said = [stage] if stage else []
    elif not total and not unit:
        said = [f"{counted} so far", *([stage] if stage not in ("", "done") else [])]
    elif (stages.get("write") or {}).get("done"):
        said.append(f"{stages['write']['done']:,} chunk{'' if stages['write']['done'] == 1 else 's'}")
    elif not unit and stage not in ("", "done"):
        said.append(stage)
    if progress.get("rate"):
        said.append(_rate(progress["rate"]))
    if progress.get("eta") is not None and total > done:
        said.append(f"{duration_text(max(1, round(progress['eta'])))} left")
    return ", ".join(said)


def _rate(a_second: float) -> str:
    """`1,200/s`, `2.5/s`, `6/min`."""
    if a_second >= 1:
        return f"{a_second:,.0f}/s" if a_second >= 10 else f"{a_second:.1f}/s"
    return f"{a_second * 60:.2g}/min"


def duration_text(seconds: float) -> str:
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
    """A result as HTML: drawn by the llmbackend package, or a plain table without it."""
    try:
        from llmbackend.notebook import html_of
    except ImportError:
        return _table(value)
    return html_of(value)


def _written(value: Any) -> str:
    """A result as readable text: by the llmbackend package, or Python's repr without it."""
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
"""How many items of a nested list a plain table shows."""


def _table(value: Any) -> str:
    """A result as an HTML table: one row per field of a record, or per record of a list."""
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


_NESTED = frozenset((dict, list))


def _records(value: Any) -> Any:
    """JSON objects as Record, lists of them as Records, all the way down."""
    if isinstance(value, dict):
        # Most values are scalars: recursing into each would take most of the time.
        record = Record(value)
        for key, item in value.items():
            if isinstance(item, (dict, list)):
                record[key] = _records(item)
        return record
    if isinstance(value, list):
        if not value:
            return Records()
        kinds = set(map(type, value))
        if kinds == {dict}:
            return Records(map(_records, value))
        if _NESTED.isdisjoint(kinds):
            return value
        items = [_records(item) if type(item) in _NESTED else item for item in value]
        return Records(items) if all(isinstance(item, Record) for item in items) else items
    return value


class Reply(_Shown, str):
    """A model's answer: a `str` with the attributes `model`, `usage` (token counts) and `finish_reason`.

    `message` is the answer as an assistant message, ready to append to the conversation, with any extra fields that
    the model's server wants back. `reasoning` is a reasoning model's thoughts, if the server returns them. `parsed` is
    the data that fits `schema`; None without one.
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
        """The model's thoughts; empty if there are none or the server does not return them."""
        return str(self.message.get("reasoning_content") or self.message.get("reasoning") or "")

    @property
    def tool_calls(self) -> Records[ToolCall]:
        """The tool calls that the model asks for, as `{id, name, arguments}` with `arguments` a dict.

        Raises BackendError if the model's arguments are not a JSON object; `message` has them verbatim.
        """
        return Records(_tool_call(call) for call in self.message.get("tool_calls") or ())


_Model = TypeVar("_Model")


class ParsedReply(Reply, Generic[_Model]):
    """A reply to a request whose `schema` is a pydantic class: `parsed` is an instance of it."""

    parsed: _Model


# Fields of a reply's message that belong in the conversation beside its text; servers reject some of the others.
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
            f"the model calls {name} with arguments that are not a JSON object: ask it again",
            details={"tool": name, "text": written},
        )
    return ToolCall(id=call.get("id", ""), name=name, arguments=_records(dict(arguments)))


class Answer(_Shown, str):
    """An answer from a collection: a `str` with `found` and `sources` (numbered passages, each with a quote).

    `citations` are the numbers of the sources it cites, as in "[1]". `found` is False if the passages do not answer the
    question: by the model's own word or, if `model` is "quotes", by how well the best sentence fits. A "quotes" answer
    is made of sentences of the documents, because no larger chat model is set to write one. `notes` are as those of
    Records. `explanation` is None unless `explain=True`.
    """

    found: bool
    citations: list[int]
    sources: Records[Source]
    model: str
    usage: Record
    notes: list[str]
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
        notes: Sequence[str] = (),
        explanation: Mapping[str, Any] | None = None,
    ) -> Answer:
        self = super().__new__(cls, text)
        self.found = found
        self.citations = list(citations)
        self.sources = Records(Source(_records(dict(source))) for source in sources)
        self.model = model
        self.usage = _records(dict(usage or {}))
        self.notes = list(notes)
        self.explanation = Explanation(_records(dict(explanation))) if explanation else None
        return self


class Analysis(_Typed):
    """The analysis of a document; see `analyze_document`. Notebooks show it as a page to read."""

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
    """How an answer came about: `{question, candidates, fit, bar, found, model, …}`; notebooks draw it.

    `candidates` are the passages retrieved, best first: `{number, collection, document_id, chunk, text, score, dense,
    sparse, weight, fused, judge, judged, rerank, quote_score, dropped}`. `number` is the source's number, or None if
    the passage did not become a source. `dropped` is why the answer does not use it, else None: "duplicate" (of a
    better one), "min_score", "top_k" (not among the best), "budget" (no room in the model's context) or
    "postprocessor". If no model decides, `found` is whether `fit` reaches `bar`. `notes` lists fields of filters that no
    document has, or whose values are of another type. `ms` is the milliseconds of each step.
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
        """The candidates that the answer does not use."""
        return Records(one for one in self["candidates"] if one["dropped"])

    def __repr__(self) -> str:
        return _written(self)


def _waits(run_id: str, pending: Sequence[Mapping[str, Any]]) -> str:
    """What continues a run that waits for approval, and the calls that wait."""
    calls = [f"{one['tool']} {json.dumps(one['arguments'], ensure_ascii=False)}" for one in pending]
    return "\n".join([f"waits for client.approve({run_id!r}) or client.reject({run_id!r}):", *calls])


class AgentRun(_Typed):
    """The result of an agent's run: `{agent, status, answer, found, citations, sources, output, trace, usage, …}`.

    `str(run)` is the answer; without one, the calls that wait, the output or the notes. `output` is the structured result
    of an agent that declares one. `status` is "completed", "stopped" (a limit was reached: `notes` says which, and the
    answer is what was found so far) or "needs_approval": then `pending` lists the tool calls that wait, and
    `client.approve(run.run_id)` or `client.reject(run.run_id)` continues the run. `trace` is a tree of steps: `{name,
    kind, seconds, tokens, model, prompt, input, output, error, steps}`.
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
        """The answer; where there is none, the calls that wait, the output as JSON, or the notes."""
        if self["pending"]:
            return _waits(self["run_id"], self["pending"])
        if self["answer"]:
            return str(self["answer"])
        if self["output"] is not None:
            return json.dumps(self["output"], ensure_ascii=False, indent=2)
        return "\n".join(self["notes"])

    def table(self) -> Records[Record]:
        """The analyst's table, one row per document: each field's value, and its quote as `<field> quote`.

        Export it with `to_pandas()`, `to_polars()`, `to_jsonl(path)` or `to_parquet(path)`.
        """
        told = []
        for row in self["output"]["rows"]:
            line = {"document": row["document"], "collection": row["collection"], "error": row["error"]}
            for name, cell in row["cells"].items():
                column = f"{name} value" if name in ("document", "collection", "error") else name
                line[column], line[f"{name} quote"] = cell["value"], cell["quote"]
            told.append(Record(line))
        return Records(told)


class ModelResponse(Record):
    """A response of OpenAI's Responses API: `{id, status, output, usage, …}`; `str(response)` is its text."""

    @property
    def output_text(self) -> str:
        """The text of its messages."""
        parts = [part for item in self["output"] if item["type"] == "message" for part in item["content"]]
        return "".join(part["text"] for part in parts if part["type"] == "output_text")

    def __str__(self) -> str:
        return self.output_text or repr(self)


class Evaluation(_Typed):
    """How well search finds what it should: `{collection, k, scores, questions}`, with `worst()` and `plot()`.

    `scores` has one record per mode: `{mode, recall, mrr, ndcg, ms}`, means over all questions. `questions` has one
    record per question: `{question, gold, ranks, ndcg, first}`, the last three by mode: the rank of the first gold
    document (None: not among the first `k`), the nDCG, and the top document. `warnings` (`[{id, warning}]`) say how the
    file of questions was read.
    """

    collection: str
    k: int
    scores: Records[Record]
    questions: Records[Record]
    warnings: Records[Record]

    def worst(self, count: int = 10, mode: str = "hybrid") -> Records[Record]:
        """The `count` questions with the lowest nDCG in a mode, worst first."""
        return Records(sorted(self["questions"], key=lambda one: one["ndcg"][mode])[:count])

    def plot(self, axes: Any = None) -> Any:
        """Plot each mode's scores as bars; draws on `axes` if given, and returns the matplotlib axes."""
        return _pictures().plot_evaluation(self, axes)

    def __repr__(self) -> str:
        return _written(self)


class Embeddings(_Shown, Sequence[list[float]]):
    """Vectors of several texts, in order, in one block of float32.

    Indexing and iterating give lists of floats; `numpy()` gives a (count, dimension) float32 array without copying.
    Vectors have unit length, so the dot product is the cosine similarity. `cut` lists texts longer than the model's
    limit: `{index, tokens, limit, parts}`. `usage` has token counts, None if the model's server does not report them.
    `warnings` (`[{id, warning}]`) say how the file was read that the texts are from.
    """

    def __init__(
        self,
        values: array[float],
        dimension: int,
        *,
        model: str = "",
        usage: Mapping[str, Any] | None = None,
        cut: Sequence[Mapping[str, Any]] = (),
        warnings: Sequence[Mapping[str, Any]] = (),
    ):
        self.values = values
        self.dimension = dimension
        self.model = model
        self.usage = _records(dict(usage or {}))
        self.cut = Records(_records(dict(one)) for one in cut)
        self.warnings = Records(_records(dict(one)) for one in warnings)

    @staticmethod
    def decode(data: bytes | memoryview | str, dimension: int, **about: Any) -> Embeddings:
        """Decode little-endian float32, one vector after the other, raw or in base64.

        Raises TransportError if the data is neither, or does not divide into vectors of `dimension` floats.
        """
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
        numpy = _library("numpy")
        return numpy.frombuffer(self.values, dtype=numpy.float32).reshape(len(self), self.dimension)

    def to_pandas(self) -> Any:
        """A pandas DataFrame with one row per vector and one column per dimension."""
        pandas = _library("pandas")
        return pandas.DataFrame(self.numpy())

    def to_polars(self) -> Any:
        """A polars DataFrame with one column, `embedding`, of arrays."""
        polars = _library("polars")
        return polars.DataFrame({"embedding": polars.Series(self.numpy())})

    def plot(self, labels: Sequence[Any] | None = None, axes: Any = None) -> Any:
        """Plot the vectors in two dimensions (principal components), coloured by `labels`; returns the matplotlib axes."""
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
            about: Any = {"model": self.model, "usage": self.usage, "warnings": self.warnings}
            return Embeddings(values, self.dimension, cut=cut, **about)
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
    """Vectors that `batch_embed` wrote to a file: `{path, count, dimension, model, usage, cut, warnings}`."""

    path: str
    count: int
    dimension: int
    model: str
    usage: Record
    cut: Records[Record]
    warnings: Records[Record]

    def numpy(self) -> Any:
        """A (count, dimension) float32 numpy array; an .npy file is memory-mapped, so only what is used is read."""
        numpy = _library("numpy")
        if _suffix(self["path"]) == ".npy":
            return numpy.load(self["path"], mmap_mode="r")
        _library("pyarrow.parquet")
        column = _parquet("numpy", self["path"]).read(columns=["embedding"])["embedding"].combine_chunks()
        return column.flatten().to_numpy().reshape(self["count"], self["dimension"])


class _InMemory:
    """Target of `batch_embed` that keeps the vectors in memory."""

    partial = ""

    def __init__(self) -> None:
        self._blocks: list[memoryview] = []
        self._dimension = 0

    def write(self, block: memoryview, dimension: int) -> None:
        self._blocks.append(block)
        self._dimension = dimension

    def done(self, **about: Any) -> Any:
        return Embeddings.decode(b"".join(self._blocks), self._dimension, **about)

    def close(self) -> None:
        """Nothing to release."""


class _NpyFile:
    """NumPy's format: a header with the shape, then the vectors."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.partial = f", in {path}.part"
        self._file = open(f"{path}.part", "wb")  # noqa: SIM115 - closed by `close`
        self._count = self._dimension = 0
        self._head()

    def write(self, block: memoryview, dimension: int) -> None:
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
            if not self._count:
                os.remove(f"{self._path}.part")


class _ParquetFile:
    """The source's rows, each with its vector in a column `embedding`."""

    def __init__(self, path: str, source: _Source) -> None:
        self._path = path
        self.partial = f", in {path}.part"
        self._source = source
        self._writer: Any = None
        self._count = self._dimension = 0

    def write(self, block: memoryview, dimension: int) -> None:
        import pyarrow
        from pyarrow import parquet

        count = len(block) // (4 * dimension)
        rows = self._source.rows(count)
        if self._writer is None:
            schema = self._source.schema
            if schema is None:
                found = dict.fromkeys(name for row in rows for name in row)
                schema = pyarrow.schema({name: _cells(name, rows).type for name in found})
            self._columns = pyarrow.schema([one for one in schema if one.name != "embedding"])
            self._known = {"embedding", *self._columns.names}
            # None is null, and telling so of each number would take a fifth of the time.
            number = pyarrow.field("element", pyarrow.float32(), nullable=False)
            self._vectors = pyarrow.field("embedding", pyarrow.list_(number, dimension), nullable=False)
            schema = self._columns.append(self._vectors)
            # For vectors, dictionaries and min/max statistics are useless, and compression gains nothing.
            names = list(self._columns.names)
            self._writer = parquet.ParquetWriter(
                f"{self._path}.part",
                schema,
                use_dictionary=names,
                write_statistics=names,
                compression={"embedding.list.element": "NONE"},
            )
        if self._source.in_batches:
            table = pyarrow.Table.from_batches([rows])
            if table.schema != self._columns:
                table = table.select(self._columns.names).cast(self._columns)
        else:
            self._warn_of_late_columns(rows)
            cells = [_cells(one.name, rows, one.type) for one in self._columns]
            table = pyarrow.Table.from_arrays(cells, schema=self._columns)
        buffers = [None, pyarrow.py_buffer(block)]
        floats = pyarrow.Array.from_buffers(pyarrow.float32(), count * dimension, buffers)
        vectors = pyarrow.FixedSizeListArray.from_arrays(floats, type=self._vectors.type)
        self._writer.write_table(table.append_column(self._vectors, vectors))
        self._count, self._dimension = self._count + count, dimension

    def _warn_of_late_columns(self, rows: list[dict[str, Any]]) -> None:
        """Warn of columns that no row had when the file was begun: they are not in it."""
        for number, row in enumerate(rows, self._count):
            for name in row.keys() - self._known:
                self._known.add(name)
                warning = (
                    f"row {number} is the first with a column {name!r}, too late for the file, which lacks it"
                )
                self._source.warnings.append(Record(id=f"row {number}", warning=warning))

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
            raise InvalidRequest(f"batch_embed: out={path!r} must end in .npy or .parquet")
        try:
            yield target
        finally:
            target.close()
    except ImportError as error:
        raise InvalidRequest("batch_embed: writing Parquet needs pyarrow: pip install pyarrow") from error
    except OSError as error:
        raise InvalidRequest(f"batch_embed: {path} cannot be written: {_system_said(error)}") from error


def _pace(done: int, total: int | None, seconds: float) -> Record:
    """The progress of a long call, as the `progress` callback takes it."""
    rate = done / seconds if seconds > 0 else None
    eta = (total - done) / rate if rate and total is not None else None
    return Record(done=done, total=total, stage="embed", stages=Record(), rate=rate, eta=eta)


# ----------------------------------------------------------------------------------------------- streams


def _events(chunks: Iterator[bytes], alive: Callable[[], None] = lambda: None) -> Iterator[dict[str, Any]]:
    """The JSON events of a server-sent-event stream, up to [DONE]; an error event is raised as its error.

    `alive` is called whenever anything arrives, even a heartbeat.
    """
    buffer = b""
    for chunk in chunks:
        alive()
        buffer += chunk
        *events, buffer = buffer.replace(b"\r\n", b"\n").split(b"\n\n")
        for event in events:
            data = b"\n".join(line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:"))
            if not data:
                continue  # a comment, sent to keep the connection open
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
    """Pieces of text as they arrive; `close()`, or leaving a `with` block, stops the model's work too."""

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
                    raise StreamInterrupted("the stream carries something that is not a reply") from error
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
    """Returned by `chat(stream=True)`: an iterator of text pieces; after the last, `reply` is the whole Reply."""

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
        """Add a part of a tool call: its id and name come first, then its arguments piece by piece."""
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
        """What has arrived so far, as a Reply; complete once the stream has ended."""
        text, beside = "".join(self._pieces), self._beside
        while (ended := _THOUGHT.search(text)) and not _THINKS.search(text, 0, ended.start()):
            # The chat template opened the thoughts, or they were nested: only the closing tag shows it.
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
    """A field's value so far, extended by its next piece."""
    if isinstance(before, dict) and isinstance(more, dict):
        return {**before, **more}
    for kind in (str, list):
        if isinstance(before, kind) and isinstance(more, kind):
            return cast(Any, before) + more
    return more


class AnswerStream(_TextStream):
    """Returned by `rag_query(stream=True)`: text pieces; `sources` are there before the first, `answer` after the last."""

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
            notes=self._final.get("notes", ()),
            explanation=self._final.get("explanation"),
        )


class AgentStream(Iterator[Record]):
    """Returned by `run_agent(stream=True)`: an iterator of events, each with a `type`; after the last, `run` is the AgentRun.

    Events: `step` (`{id, parent, name, kind, status}`, began or ended), `text` (`{delta}`), `tool_call` (`{id, tool,
    arguments}`), `tool_result` (`{id, tool, output, failed}`), `needs_approval` (`{run_id, pending}`), `done` (`{run}`).
    `close()`, or leaving a `with` block, ends the run unless it is a job.
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
        """The finished run. Raises Conflict until the `done` event has been read."""
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
    """A progress bar on stderr: tqdm's, or a line of text if tqdm is not installed."""

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
        """Show progress, given as such or as a Job."""
        progress = self._timed(state)
        told = progress_text(progress, state.get("type") or self._operation)
        if self._bar is None:
            print(f"\r{told:<78.78}", end="", file=sys.stderr, flush=True)
            return
        self._bar.total = progress.get("total") or None
        self._bar.n = progress.get("done") or 0
        self._bar.set_description_str(told)

    def _timed(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        """Progress with a rate and the time left: a job reports them, those of a call are measured here."""
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
    """A progress bar below the running notebook cell."""

    def __init__(self, display: Any, operation: str = "") -> None:  # tqdm's needs ipywidgets
        self._began = time.monotonic()
        self._operation = operation
        self._handle = display({"text/html": "", "text/plain": ""}, raw=True, display_id=True)

    def __call__(self, state: Mapping[str, Any]) -> None:
        shown = state if isinstance(state, Job) else Record({**self._timed(state), "type": self._operation})
        self._handle.update({"text/html": _drawn(shown), "text/plain": _written(shown)}, raw=True)

    def close(self) -> None:
        """The bar stays as it was last."""


Progress = Callable[[Any], None]  # called with a Record, or a Job


@contextlib.contextmanager
def _progress(choice: bool | Progress | None, operation: str = "") -> Iterator[Progress | None]:
    """True: a bar. None: a bar in a notebook or on a terminal. A function is called at each step."""
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
    """IPython's `display` if this code runs in a notebook, else None."""
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
    "delete_job": ("DELETE", "/v1/jobs/{job_id}"),
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
    """Carries an operation's arguments (JSON, see `encoded`) to where it runs, and its JSON result back.

    The client closes the transport that it was given. One for a test:

        class Canned:
            def call(self, operation, given):
                return b'{"data": []}'
    """

    def call(self, operation: str, given: dict[str, Any]) -> bytes:
        """The operation's JSON result as UTF-8. Raises the server's LLMBackendError, or TransportError."""

    def stream(self, operation: str, given: dict[str, Any]) -> Iterator[bytes]:
        """The operation's server-sent events in pieces. A refused request raises before the first piece."""

    def close(self) -> None:
        """Release connections and files."""


def encoded(operation: str, given: dict[str, Any]) -> bytes:
    """An operation's arguments as JSON. Raises InvalidRequest for values that JSON cannot hold.

    Half a surrogate pair becomes U+FFFD: some models write them, and a text cut in the middle may end in one.
    """
    try:
        text = json.dumps(given, allow_nan=False, default=_jsonable)
        if "\\u" in text:  # json writes ASCII twice as fast, but UTF-8 is smaller for other characters
            text = json.dumps(given, allow_nan=False, ensure_ascii=False, default=_jsonable)
        try:
            return text.encode()
        except UnicodeEncodeError:  # join the halves that belong together
            return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
    except (TypeError, ValueError, RecursionError) as error:
        place, reason = _not_json(given) or (["an argument"], f"is not JSON: {error}")
        found = {"type": "json", "loc": place, "msg": reason}
        raise InvalidRequest(
            f"{operation}: {position(place)} {reason}", details={"errors": [found]}
        ) from error


SAFE = frozenset(name for name, (method, _) in ROUTES.items() if method == "GET") | {
    "chat", "embed", "rerank", "list_chunks", "rag_search", "rag_query", "evaluate", "analyze_document", "submit_job",
    "cancel_job", "set_schedule", "set_indexes",
}  # fmt: skip
"""Operations that may be repeated without further effect, and so retried (`submit_job` by its idempotency key)."""

CONNECT_SECONDS = 10
PAUSE = 0.25  # seconds before the first retry; each later one waits twice as long
LONGEST_PAUSE = 60.0  # seconds; the error is raised if the server asks for a longer wait


class _HttpAddress:
    """A server's address, timeout, retries and key; builds requests and checks replies."""

    def __init__(self, api_url: str, timeout: float, retries: int, api_key: str | None) -> None:
        url = _checked_url(api_url)
        if api_key is not None and not isinstance(api_key, str):
            raise InvalidRequest(f"api_key must be text, not {type(api_key).__name__}")
        if api_key and api_key.lower().startswith("bearer "):
            raise InvalidRequest("api_key is the key alone: leave out the word Bearer")
        if api_key and not (api_key.isascii() and api_key.isprintable()):
            raise InvalidRequest("api_key has characters that an HTTP header cannot carry")
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout > 0:
            raise InvalidRequest(f"timeout must be a number of seconds above 0, such as 600, not {timeout!r}")
        if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
            raise InvalidRequest(f"retries must be a whole number, 0 or more, not {retries!r}")
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
        """Raise the error that a reply carries; warn once if the server's version differs from this file's.

        `content` is needed only if the status is not 200.
        """
        unwell = operation == "health" and status == 503 and b'"problems"' in content
        if status != 200 and not unwell:
            raise _error_of(status, content, self.api_url)
        if "X-LLMBackend-Overhead-Ms" not in headers:
            page = "html" in headers.get("Content-Type", "")
            what = (
                "a web page, such as a sign-in or another program's"
                if page
                else "something that is not from an llmbackend server"
            )
            raise TransportError(f"{self.api_url} returns {what}: correct the URL")
        served = headers.get("X-LLMBackend-Version")
        if served is None or served == self._server_version:
            return
        self._server_version = served
        if served.split(".")[:2] != __version__.split(".")[:2]:
            _warn(
                f"{self.api_url} is llmbackend {served}, and this client is {__version__}: some calls may differ; "
                f"install llmbackend {served}, or copy its sdk/llm_client.py"
            )

    def pause(self, operation: str, error: LLMBackendError, retry: int) -> float | None:
        """Seconds to wait before retrying a failed call, `retry` counting from 0; None if it must not be retried."""
        pause = PAUSE * 2**retry
        if retry >= self.retries:
            return None
        if isinstance(error, Overloaded):
            if operation not in SAFE and "ingested" in error.details:  # part of it has been done
                return None
            pause = max(pause, float(error.details.get("retry_after") or 0))
            return pause if pause <= LONGEST_PAUSE else None
        if not isinstance(error, TransportError) or not error.details.get("retry"):
            return None
        return pause if operation in SAFE or not error.details["sent"] else None

    def unanswered(self, kind: str, error: Exception) -> TransportError:
        """The error for a missing answer, with the cause and what to do.

        Its `details` say whether the request was `sent`, so may have been carried out, and whether to `retry`.
        """
        why = {
            "timeout": f"within {self.timeout:g} s: give the client a larger timeout=, or run it as a job (submit_job)",
            "connecting": f"(no connection within {CONNECT_SECONDS} s): correct the URL, or check whether a firewall blocks it",
            "certificate": "(its certificate is not trusted): name your organisation's certificates in REQUESTS_CA_BUNDLE",
            "tls": "(it does not speak https): is it http://… instead of https://…?",
            "proxy": "(the proxy of HTTP_PROXY or HTTPS_PROXY refuses): add the host to NO_PROXY, or correct the proxy",
            "name": "(no host of that name): correct the URL",
            "refused": "(no connection): is the server running there?",
            "broken": "(it broke the connection): has it stopped",
        }.get(kind, f"({type(error).__name__}: {str(error)[:200]})")
        if kind == "broken":
            why += ", or is it https://… instead of http://…?" if self.api_url.startswith("http:") else "?"
        sent = kind in ("timeout", "broken", "other")
        return TransportError(
            f"no answer from {self.api_url} {why}",
            details={"sent": sent, "retry": kind in ("refused", "broken")},
        )


class HttpTransport:
    """Operations over HTTP.

    `timeout` is the longest wait in seconds for the server to send anything. `retries` is how often a call is repeated
    if the server cannot be reached or replies 429 or, for calls that change nothing, if the connection breaks.
    """

    def __init__(
        self, api_url: str, api_key: str | None = None, timeout: float = 600, retries: int = 2
    ) -> None:
        self._address = _HttpAddress(api_url, timeout, retries, api_key)
        self.api_url = self._address.api_url
        self._closed = threading.Event()
        self._open()

    def _open(self) -> None:
        import requests  # here, so that in-process clients do not pay for the import

        self._pid = os.getpid()
        self._session = requests.Session()
        self._session.headers["User-Agent"] = (
            f"llmbackend-python/{__version__} requests/{requests.__version__}"
        )

        def authorize(request: Any) -> Any:
            # Set here, because requests would replace a header by the entry for this host in ~/.netrc.
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
        """The response; with `stream`, its body is not read yet."""
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
    """The kind of failure, as `_HttpAddress.unanswered` names it."""
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


def _warn(message: str) -> None:
    """Warn at the line of the caller of this file."""
    depth, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename == __file__:
        depth, frame = depth + 1, frame.f_back
    warnings.warn(message, stacklevel=depth)


class _HttpChunks(Iterator[bytes]):
    """A reply's body as it arrives. `close()` ends it, from any thread."""

    def __init__(self, response: Any, url: str) -> None:
        # Without a chunk size, each piece is yielded as it arrives instead of filling a buffer first.
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
        except Exception as error:  # after close(), any error of the reading thread just means the end
            if self._closed:
                raise StopIteration from None
            raise TransportError(f"the connection to {self._url} broke: {error}") from error

    def close(self) -> None:
        self._closed = True
        with suppress(Exception):  # older versions of urllib3 lack it
            self._response.raw.shutdown()  # wakes a thread that is reading
        self._response.close()

    def __del__(self) -> None:
        self.close()


def _checked_url(url: Any) -> str:
    """A server's URL, stripped. Raises InvalidRequest, without showing a password, if it is not one."""
    try:
        parts = urlsplit(url.strip())
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except (AttributeError, ValueError):
        known = False
    if isinstance(url, str) and "@" in url:
        raise InvalidRequest(
            "api_url contains a user and password, which are not sent: leave them out, and give the key as api_key"
        )
    if not known:
        raise InvalidRequest(f"api_url must be like http://host:port, not {url!r}")
    if parts.query or parts.fragment:
        raise InvalidRequest(
            f"api_url must be like http://host:port: leave out the part after ? or # in {url!r}"
        )
    return cast(str, url.strip())


_SIGN_IN = "a proxy in front of the server requires its own sign-in: have it let these requests through"
_AWAY = "a proxy cannot reach the server behind it: is the server running?"
_FIXES = {
    **dict.fromkeys(
        (301, 302, 303, 307, 308), "it redirects (to https, or to a sign-in): give the URL it redirects to"
    ),
    **dict.fromkeys((401, 403, 407), _SIGN_IN),
    **dict.fromkeys((502, 503), _AWAY),
    504: "a proxy gave up waiting for the server: raise its timeout, or run it as a job (submit_job)",
    413: "a proxy refuses a request this large: raise its limit (nginx: client_max_body_size), or send less at a time",
}


def _error_of(status: int, content: bytes, url: str) -> LLMBackendError:
    try:
        return LLMBackendError.from_dict(json.loads(content)["error"])
    except (ValueError, KeyError, TypeError, AttributeError):
        # Not our server: a proxy's page, or another service on that port.
        fix = "is it https://… instead of http://…?" if b"HTTPS" in content[:2000] else _FIXES.get(status)
        message = f"{url} answered {status}, but not as an llmbackend server: {fix or 'correct the URL'}"
        if status in (502, 503, 504):  # a proxy in front of a server that is restarting
            return TransportError(message, details={"sent": True, "retry": True})
        return TransportError(message)


# --------------------------------------------------------------------------------------------- the client

Document = Union[str, Mapping[str, Any]]
Id = Union[str, int]  # of a document: a number is taken as text
Image = Union[str, "os.PathLike[str]", bytes]  # a URL or a path, a path, the file itself
File = Union[str, "os.PathLike[str]", tuple[str, bytes]]  # a file, a folder or a pattern; a name and content

FILE_TYPES = ".txt .md .markdown .rst .html .htm .pdf .docx .pptx .xlsx .odt .epub .csv .tsv .json .jsonl .ipynb .eml .mhtml .mht"
UPLOAD_BYTES = 16 * 2**20  # of files in one request, unless one of them alone has more

EMBED_PAGE = 2048  # texts in one request: OpenAI's limit, and the server's
CHUNKS_OF = 100  # documents whose chunks are listed by one request
ROWS_PAGE = 2048  # rows of a job's result in one answer
ENDED = ("completed", "failed", "cancelled")  # a job's last status
_Client = TypeVar("_Client", bound="LLMBackendClient")


class LLMBackendClient:
    """Chat, embeddings, RAG, jobs and document analysis, in this process or over HTTP.

    `LLMBackendClient()` runs everything in this process with embedded models: nothing to start.
    `LLMBackendClient(api_url, api_key)` makes the same calls on a server. Without arguments, LLM_BACKEND_URL and
    LLM_BACKEND_API_KEY from the environment, or from a `.env` file in the working directory, may name a server.
    Results and errors are the same either way; every error is an LLMBackendError.

    Over HTTP, `timeout` is the longest wait in seconds for the server to send anything, and `retries` how often a call
    is repeated if it does not reach the server, gets a 429 or, for calls that change nothing, loses its connection.
    `base_url` is an alias of `api_url`, as in OpenAI's client.

    Threads may share a client. Over HTTP it can be pickled for other processes (the pickle contains the API key);
    copying gives the same client. Close it, or use it in a `with` block, to release its files.
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
            raise InvalidRequest("api_url and base_url mean the same: give only one of them")
        if transport is None:
            api_url = base_url if api_url is None else api_url
            if api_url is not None and not str(api_url).strip():
                raise InvalidRequest(
                    "api_url is empty: is the variable set that it comes from? Leave api_url out to work in this process"
                )
            environment = _environment()
            named = environment.get("LLM_BACKEND_URL")
            api_url = api_url or named
            if api_url:
                # If the environment names a server, its key is for that server only.
                if api_key is None and (not named or api_url.rstrip("/") == named.rstrip("/")):
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
        """Release connections, files and threads; the client cannot be used afterwards."""
        self._transport.close()

    def __getitem__(self, collection: str) -> CollectionHandle:
        """A handle on a collection, which need not exist yet: `client["hr_policies"].search("Vacation policy?")`."""
        return CollectionHandle(self, collection)

    __iter__ = None  # else Python would iterate by `client[0]`, `client[1]`, …

    def _ipython_key_completions_(self) -> list[str]:
        try:
            return [str(one["name"]) for one in self.list_collections(counts=False)]
        except LLMBackendError:  # IPython would print a traceback while the user types
            return []

    # Every operation passes through one of these.

    def _call(self, operation: str, **fields: Any) -> Record:
        given = self._given(operation, fields)
        if hasattr(self._transport, "read"):  # in process, without writing JSON and reading it again
            return _result(self._transport.read(operation, given))
        return _result(self._transport.call(operation, given))

    def _stream(self, operation: str, **fields: Any) -> Iterator[bytes]:
        """A streaming operation's events, or lines, as raw pieces."""
        return self._transport.stream(operation, self._given(operation, {**fields, "stream": True}))

    def _watched(self, operation: str, progress: bool | Progress | None, **fields: Any) -> Record:
        """The report of a long operation, with a progress bar or callback."""
        with _progress(progress, operation) as tell:
            return self._reported(operation, tell, fields)

    def _reported(self, operation: str, tell: Progress | None, fields: Mapping[str, Any]) -> Record:
        """The report of a long operation; streams its progress to `tell` if given."""
        if tell is None:
            return self._call(operation, **fields)
        report = Record()
        stream = self._stream(operation, **fields)
        try:
            for event in _events(stream):
                if "progress" in event:
                    tell(_records(event["progress"]))
                report = _records(event.get("report", {})) or report
        finally:  # an interrupted call must not leave the operation running
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
                reason = (
                    f"it is part of a path, and cannot be {value!r}"
                    if name in given
                    else "is missing, or None"
                )
                found = {"type": "path", "loc": [name], "msg": reason}
                raise InvalidRequest(f"{operation}: {name}: {reason}", details={"errors": [found]})
        if method in ("GET", "DELETE"):  # these travel in the URL, as text
            given = {name: str(value) for name, value in given.items()}
        return given

    @functools.cached_property
    def llamaindex(self) -> Components:
        """LlamaIndex components backed by this client: `llm()`, `embed_model()`, `retriever()`, `query_engine()`, …

        They work the same in process and over HTTP. Raises TransportError if the llmbackend package is not installed.
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
        """Send a message, or a conversation (a list of OpenAI-style messages `{role, content}`), to a chat model.

        Returns a Reply: a `str` with `model`, `usage`, `finish_reason`, and `message` to append to the conversation.
        With `stream=True`, returns a ReplyStream: an iterator of text pieces, with the whole in `.reply` at the end.

        `images` (URLs, paths or bytes of PNG, JPEG, GIF or WebP) are added to the last message. `tools` are OpenAI's
        `{"type": "function", "function": {name, description, parameters}}`; the reply's `tool_calls` are the calls the
        model asks for, and their results go back as `{"role": "tool", "tool_call_id", "content"}`. `schema` is a JSON
        Schema or a pydantic class: the reply is JSON that fits it, and `parsed` is that data, or an instance. A reply
        that does not fit is asked for once more; a second misfit is a BackendError with it in `details["text"]`.
        `temperature` is 0 to 2, `top_p` 0 to 1; `max_tokens` limits the reply, which ends before any text in `stop`.

        Raises InvalidRequest, NotFound (unknown model), BackendError, BackendTimeout; while streaming,
        StreamInterrupted with the text so far.
        """
        turns = _turns(messages, images)
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
        choice, told = result["choices"][0], result.get("usage")
        text, message = choice["message"].get("content") or "", _message(choice["message"])
        kind = ParsedReply if hasattr(schema, "model_validate_json") else Reply
        return kind(
            text,
            model=result.get("model") or "",
            usage=told if isinstance(told, dict) else None,  # the server's own, and no part of the answer
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
    ) -> ModelResponse | Iterator[Record]:
        """Answer a message, or a list of items, as OpenAI's Responses API does; returns a ModelResponse.

        Its text is `output_text`. It is stored unless `store=False`: continue it with `previous_response_id`, read it
        again with `get_response`. Among `tools`, functions are for the caller to run; `{"type": "file_search",
        "vector_store_ids": [collection]}` searches collections first, and the text's `annotations` quote what it cites.
        `text` sets a `format`, such as a JSON Schema. With `background=True` a job makes the response. With
        `stream=True`, returns an iterator of OpenAI's events, which raises StreamInterrupted if it breaks off.

        Raises InvalidRequest, NotFound (model, collection, response), Conflict (the previous response is still being
        made), BackendError, BackendTimeout.
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
        return ModelResponse(self._call("respond", **fields))

    def _told(self, chunks: Iterator[bytes]) -> Iterator[Record]:
        """A response's events."""
        try:
            for event in _events(chunks):
                told = _records(event)
                if "response" in told:
                    told["response"] = ModelResponse(told["response"])
                yield told
        except LLMBackendError as error:
            raise StreamInterrupted(f"the stream broke off: {error}", details=error.to_dict()) from error
        finally:
            _close(chunks)

    def get_response(
        self, response_id: str, *, stream: bool = False, starting_after: int | None = None
    ) -> ModelResponse | Iterator[Record]:
        """A stored response by its id; with `stream=True`, its events once it has ended. Raises NotFound."""
        if stream:
            fields = {"response_id": response_id, "starting_after": starting_after}
            return self._told(self._stream("get_response", **fields))
        return ModelResponse(self._call("get_response", response_id=response_id))

    def delete_response(self, response_id: str) -> Record:
        """Delete a stored response; one still being made is stopped. Raises NotFound."""
        return self._call("delete_response", response_id=response_id)

    def cancel_response(self, response_id: str) -> ModelResponse:
        """Stop a response made in the background; returns it. Raises NotFound, InvalidRequest for any other response."""
        return ModelResponse(self._call("cancel_response", response_id=response_id))

    def list_input_items(
        self, response_id: str, *, limit: int = 20, order: str = "desc", after: str | None = None
    ) -> Records[Record]:
        """A page of the items that a response was made from, after the item with the id `after`. Raises NotFound."""
        page = self._call("list_input_items", response_id=response_id, limit=limit, order=order, after=after)
        return Records(page["data"])

    def models(self) -> Records[ModelInfo]:
        """The available models as `{id, type, …}`: chat and embedding models, agents, and a `rag/<collection>` each."""
        return Records(map(ModelInfo, self._call("models")["data"]))

    def get_model(self, model: str) -> ModelInfo:
        """One of `models()` by its id. Raises NotFound."""
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
        """Embed texts: returns their unit-length vectors in order, as a sequence of lists of floats or by `.numpy()`.

        A text longer than the model's limit is embedded in parts and gets their mean ("split"), is cut off ("truncate")
        or refused ("error"); `.cut` lists such texts. `dimensions` shortens the vectors, if the model supports it.
        `input_type` is for models with different prompts for questions ("query") and for texts to be found ("passage"):
        they get the prompts that collections use.

        Raises InvalidRequest (no texts; an empty or refused text, whose position is `details["index"]`), NotFound
        (unknown model), BackendError.
        """
        if hasattr(texts, "__next__") or hasattr(texts, "__aiter__"):  # an iterator: read it page by page
            return self.batch_embed(
                texts, model=model, dimensions=dimensions, too_long=too_long, input_type=input_type
            )
        if (path := _path_meant(texts)) is not None:
            read = f"give Path({path!r}).read_text()"
            fix = f"batch_embed({path!r}) embeds its rows" if _suffix(path) in ROWS else read
            raise InvalidRequest(f"embed: this is {_no_text(path, fix)}")
        given = _all_texts(_as_list(_read_first("embed", texts) if isinstance(texts, os.PathLike) else texts))
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
            blocks.append(memoryview(reply)[len(head) :])  # not copied: it may be megabytes
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
        """Embed any number of texts, as `embed` does, reading them as it goes.

        `texts` is a list, an iterator, a column, or a table or file of rows as in `rag_ingest`, with `text` naming the
        column. With `out`, the vectors are written to that file, and memory use stays flat: "vectors.npy" is NumPy's
        format, "vectors.parquet" has the source's columns (as text, if their types are mixed) and `embedding`. An existing
        file is replaced once all is written; if the source breaks, what was done is in "vectors.npy.part". `progress` is as
        in `rag_ingest`.

        Returns Embeddings, or with `out` an EmbeddingsFile; `warnings` say if a file's encoding was guessed. Raises as
        `embed` does; `details["embedded"]` is how many texts were done.
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
                    lambda page: self._given("embed", {"input": page or _all_texts(page), **fields}),
                ):
                    head = reply[: reply.find(b"\n") + 1]
                    result = _result(head)
                    target.write(memoryview(reply)[len(head) :], result["dimension"])  # not copied: megabytes
                    cut += [Record({**one, "index": one["index"] + done}) for one in result["cut"]]
                    _add(usage, result["usage"])
                    done += len(page) if isinstance(page, list) else 1
                    if tell is not None:
                        tell(_pace(done, source.total, time.monotonic() - began))
            except LLMBackendError as error:
                error = _further_on(error, done) if isinstance(error, InvalidRequest) else error
                source.tell(error, "embedded", done, f"texts before it are embedded{target.partial}")
                raise error from error.__cause__
            made: Embeddings | EmbeddingsFile = target.done(
                model=result["model"], usage=usage, cut=cut, warnings=source.warnings
            )
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
        """Embed one text: returns its unit-length vector as a list of floats. Takes and raises what `embed` does."""
        return self.embed(
            [text], model=model, dimensions=dimensions, too_long=too_long, input_type=input_type
        )[0]

    # Rerank

    def rerank(
        self, query: str, documents: Sequence[str], *, top_n: int | None = None, model: str | None = None
    ) -> Records[RankedText]:
        """Order texts by how well they answer a query, best first; returns `{index, score, text}` for all or `top_n`.

        `index` is a text's position in `documents`, from 0. Scores are the model's own, usually 0 to 1, and comparable
        only within one call. Needs a rerank server behind llmbackend.

        Raises InvalidRequest (an empty text or query, no documents), NotFound (unknown model), BackendError
        (no reranker is set, or it failed), BackendTimeout.
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
        """Add documents to a collection, which is created if it does not exist.

        A document is a text, `{id, text, metadata}`, or one of LlamaIndex's or LangChain's; a bare text's id is its
        content hash. A document that is already split has `chunks` (`[{text, metadata, place}]`) instead of `text`; they
        are stored as they are. A table (a pandas or polars DataFrame, an Arrow table or reader, a Hugging Face dataset,
        a list of dicts with other names, or the path of a .parquet, .jsonl, .csv or .tsv file) is one document per row;
        `id`, `text` and `metadata` name its columns.
        By default `text` is the column with a usual name for it, `metadata` all other columns, and the id a hash of the
        row; the report's `columns` says what was chosen. Empty cells are left out; rows without text, or with an empty cell
        in the column `id`, are listed in `failed`. `metadata={…}` is added to every document. For files, use
        `rag_ingest_files`. A .csv or .tsv file is UTF-8, with commas, semicolons, tabs or `|` between its values. A metadata
        column is read as numbers if its first 1,000 rows have only plain numbers (42, -1.5; no leading zeros, no thousands
        separators; between semicolons also 1.234,56), as days ("2025-12-31") if they only have such as 31.12.2025, and
        else as text. To choose types yourself, give a DataFrame: `pandas.read_csv(path, dtype={"code": str})`.

        Iterators, readers and files of rows are read as they are sent, about 2,000 documents at a time, so memory use stays
        flat. If one breaks off or contains an error, InvalidRequest names the row (with the source's own error as its
        cause), and `details["ingested"]` is how many documents before it are stored. Metadata is JSON; dates and times
        become RFC 3339 (UTC if they have no zone), UUIDs, enums and decimals become text or numbers. Ingesting again is
        safe: an unchanged document costs nothing, a changed one replaces its old version, and `sync=True` removes
        documents that are not given. `chunk_size` and `chunk_overlap` (tokens) are fixed when the collection is created.

        Returns `{added, updated, unchanged, deleted, failed: [{id, error}], warnings, chunks, tokens}`: the first four
        count documents; `chunks` is the number of chunks written, and `tokens` what the embedding model read for them (None
        if its server does not report it). With `plan=True` nothing is written: the report says what would be, with the
        number of `documents`, and `tokens` and `seconds` estimated from a sample.

        `progress` is True for a bar, or a function called with `{done, total, stage, stages}`: documents done and in all,
        the first unfinished stage, and each stage's own `{done, total}`: parse (of files) and chunk in documents, embed
        and write in chunks.

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
                    if not (batch or source.failed):
                        raise InvalidRequest("rag_ingest: there are no documents")
                    requests += 1
                    alone = source.ended and source.broken is None and requests == 1
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
        """Delete documents that the source neither has nor failed to give; returns how many."""
        kept = (source.ids or set()) | {one["id"] for one in (*report["failed"], *source.failed)}
        try:
            gone = [one["id"] for one in self.list_documents(collection) if one["id"] not in kept]
        except NotFound:  # a plan for a collection that does not exist yet
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
        """Add files to a collection: md, rst, html, pdf, docx, pptx, xlsx, odt, epub, csv, json, jsonl, ipynb, eml, and any text.

        Any other file (`.py`, `.log`, `.yaml`) is read if its content is text, and else listed in `failed`.
        `paths` are files, folders, patterns such as "docs/**/*.pdf", or `(name, bytes)`. They are read on the caller's
        machine and sent; hidden files in a folder are skipped. A document's id, and its metadata field `source`, is the
        file's path relative to the given folder or the fixed part of the pattern, or else its name. Passages of PDFs and
        slides have `page` in their metadata, and those below headings have `headings`. If short sections were joined into one
        passage, their titles are in `sections`; a filter on `headings` finds these, too.

        Returns a report as `rag_ingest` does. A file that cannot be read is listed in `failed` with the reason, and the
        others are still ingested. `warnings` (`[{id, warning}]`) say what was replaced or left out of a file. Attachments of a
        mail become documents of their own, with the mail's id as `part_of` in their metadata. `sync=True` removes
        documents that are not among these files, except those whose file failed. With `plan=True` the files are read, but
        nothing is written.

        Raises InvalidRequest (no such file, or no files found), and as `rag_ingest` does.
        """
        found = find_files(paths)
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
        lots = file_lots(found, total["failed"], self._file_types(found))
        here = done = len(total["failed"])  # files that are not even sent
        with _progress(progress) as tell:
            for lot in lots:
                before = len(total["failed"])
                files = list(file_contents(lot, total["failed"]))
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
        """The file extensions that can be read: ours and, if other files are among these, those of a project's readers."""
        known = {"", *FILE_TYPES.split()}
        if {_suffix(name) for name, _ in found} <= known:
            return known
        return known | set(self._call("health").get("own_file_types", ()))

    def _sent(
        self, files: Sequence[Any], fields: Mapping[str, Any], progress: Progress | None
    ) -> Iterator[Record]:
        """The reports on files, sent in halves again and again if the server finds them too large; only the last syncs."""
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
        """Find the passages that match a query best, without asking a chat model.

        Returns Hits, best first: each is `{text, score, document_id, chunk, collection, metadata, duplicates}`. Passages
        with the same text are returned once; `duplicates` lists where else they are.

        `filters` selects by metadata: `{"year": 2026}`, `{"team": ["hr", "it"]}` (any of these), `{"year": {"gte": 2020}}`
        (also gt, lt, lte; dates and times too), `{"team": {"exists": True}}`, `{"team": {"not": "hr"}}`; several fields must
        all match. Combine with `{"or": [filters, …]}`, `{"and": [filters, …]}` and `{"not": filters}`. `author.name` is a
        nested field, `authors[].name` a field of any object in a list.

        A higher `score` is better. With mode "dense" it is the cosine (at most 1), with "sparse" BM25 (0 and up), with
        "hybrid" both fused (0 to about 1: it ranks hits, and is no measure of similarity), with `rerank` the reranker's
        (usually 0 to 1). `rerank` is True or a model's name: the reranker orders the 50 best. `min_score` drops hits
        that score lower, on the same scale.

        A `vector`, made by the collection's embedding model, replaces the query's own. Without a query, the search is by
        cosine alone.

        `retriever` and `postprocessors` name parts that a project has registered where llmbackend runs
        (llmbackend.plugins): a retriever finds the passages, and each postprocessor in turn reorders the 50 best or drops
        some of them. If a part fails or takes too long, a BackendError or BackendTimeout names it.

        Raises InvalidRequest, NotFound (no such collection), Conflict (embedded by a model other than the one in use),
        BackendError (also if no reranker is set).
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
        hits.query, hits.notes = query or "", result.get("notes", ())
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
        """Answer a question from a collection's documents, citing its sources.

        Returns an Answer: a `str` with `found` (False if the passages do not answer the question), `citations` and
        `sources`, which are the passages of `rag_search` with a `number` and the best `quote`. With `stream=True`, returns
        an AnswerStream: an iterator of text pieces that has `.sources` at once and `.answer` at the end.

        `history` is the conversation so far, as in `chat`, for questions such as "And in winter?". `explain=True` adds
        `.explanation`: the question searched for, each candidate with its scores and why it was dropped, if it was,
        prompt tokens, and milliseconds by step; notebooks draw it. The other arguments are as in `rag_search`.

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
            notes=result.get("notes", ()),
            explanation=result.get("explanation"),
        )

    # Evaluation

    def evaluate(
        self,
        collection: str,
        questions: Sequence[Mapping[str, Any]] | Any,
        *,
        k: int = 10,
        progress: bool | Progress | None = None,
    ) -> Evaluation:
        """Measure how well each search mode finds the documents that answer some questions.

        A question is `{question, gold}`: the id of the document that answers it, a list of ids, or a dict of ids with
        their relevance (1, 2, …). A table, or a .jsonl, .csv or .parquet file, has one in each row.

        Returns an Evaluation: a dict whose `scores` have recall, MRR and nDCG over the first `k`
        documents for dense, sparse and hybrid search, and for hybrid with rerank if a reranker is set. `questions` has
        the result of each question, `worst()` the ones to look into, `plot()` draws the scores. `progress` is as in
        `rag_ingest`, counting searches.

        Raises InvalidRequest (also if a gold document is not in the collection), NotFound, Conflict, BackendError.
        """
        asked, warnings = _questions(questions)
        fields = {"collection": collection, "questions": asked, "k": k}
        return Evaluation(self._watched("evaluate", progress, **fields), warnings=warnings)

    # Collections and documents

    def list_collections(self, *, counts: bool = True) -> Records[CollectionInfo]:
        """All collections, each as `get_collection` returns it.

        With `counts=False` no vector engine is asked, and `documents` and `chunks` are None.
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
        """Create an empty collection; returns it as `get_collection` does.

        `chunk_size` and `chunk_overlap` are in tokens. `indexes` are for metadata fields that filters will use, so that
        they stay fast in large collections: `{"kind": "keyword", "signed": "datetime", "price": "float"}`, also "bool",
        and "integer" if all numbers are whole. Filters create missing indexes themselves where they can. `engine` sets
        options of a Qdrant server for this collection: `shard_number`, `replication_factor`, `write_consistency_factor`,
        `on_disk`, `quantization` ("int8"). `parser` names a node parser that a project has registered where llmbackend
        runs (llmbackend.plugins); it splits all documents of the collection.

        Raises Conflict (the name is taken), InvalidRequest.
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
        """Create or change indexes on metadata fields, as in `create_collection`; None removes one, others stay.

        Filters find the same without an index, but more slowly in large collections; a Qdrant server in strict mode, as
        in Qdrant Cloud, refuses filters without one. The embedded engine builds indexes in the background.

        Returns the collection as `get_collection` does. Raises NotFound, InvalidRequest (also if there are too many, or none
        to remove).
        """
        return CollectionInfo(self._call("set_indexes", collection=collection, indexes=indexes))

    def get_collection(self, collection: str) -> CollectionInfo:
        """Describe a collection: `{name, embedding_model, sparse_model, dimension, chunk_size, chunk_overlap, documents,
        chunks, created_at, indexes, engine, …}`.

        `chunk_size` and `chunk_overlap` are in tokens; `engine` has the Qdrant server options it was created with. If the
        collection could not be read the last time, `damaged` is True, `problem` says why and what to do, and `documents`
        and `chunks` are None. Raises NotFound.
        """
        return CollectionInfo(self._call("get_collection", collection=collection))

    def delete_collection(self, collection: str) -> Record:
        """Delete a collection with all its documents; returns `{deleted, documents}`.

        `documents` is None if the number is unknown: the collection is damaged, or was not opened since a crash. Raises
        NotFound.
        """
        return self._call("delete_collection", collection=collection)

    def reindex_collection(
        self, collection: str, *, model: str | None = None, progress: bool | Progress | None = None
    ) -> Record:
        """Embed a collection's stored texts again with the embedding model that is set now.

        A collection embedded by another model can be neither searched nor added to until this is done. Otherwise it
        stays in use meanwhile; if reindexing fails, it stays as it was. `model`, if given, must be the model that is
        set. `progress` is as in `rag_ingest`, in chunks.

        Returns `{collection, from_model, to_model, documents, chunks, tokens, seconds}`. Raises NotFound, Conflict
        (already being reindexed), InvalidRequest (another `model`), BackendError.
        """
        return self._watched("reindex_collection", progress, collection=collection, model=model)

    def export_collection(self, collection: str, path: str | os.PathLike[str]) -> Record:
        """Write a collection to a JSON Lines file: its manifest first, then its chunks with their vectors.

        `import_collection` reads it, here or on another backend, with any vector engine. An existing file is replaced
        once all is written. Returns `{collection, chunks}`. Raises NotFound, InvalidRequest (the file cannot be
        written).
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
        """Create a collection from a file that `export_collection` wrote, under its old name or another.

        It appears only once all of it is imported. If another embedding model made it, it can be listed at once, and
        searched after `reindex_collection`. Returns `{collection, documents, chunks}`. Raises Conflict (the name is
        taken), InvalidRequest (no such file, or not a complete export).
        """
        source = os.fspath(path)
        try:
            with open(source, encoding="utf-8") as file:
                head = _exported(file.readline(), source, 1)
                if head.pop("format", None) != _EXPORT:
                    raise InvalidRequest(f"import_collection: {source} is not an exported collection")
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
        except OSError as error:
            raise InvalidRequest(f"import_collection: {source} cannot be read: {error}") from error
        except UnicodeDecodeError as error:
            raise InvalidRequest(
                f"import_collection: {source} cannot be read: it is no text, so no exported collection"
            ) from error
        return Record(collection=given["collection"], documents=done["documents"], chunks=done["chunks"])

    def list_documents(self, collection: str, *, limit: int | None = None) -> Records[DocumentInfo]:
        """A collection's documents as `{id, chunks, metadata}`: all, or the first `limit`. Raises NotFound.

        They are sorted by id, but which documents are the first `limit` is not defined. A document that is replaced meanwhile
        appears once.
        """
        found = self._paged("list_documents", "documents", limit, key="id", collection=collection)
        return Records(map(DocumentInfo, sorted(found, key=lambda document: document["id"])))

    def list_chunks(
        self,
        collection: str,
        *,
        ids: Sequence[Id] | None = None,
        filters: Mapping[str, Any] | None = None,
        limit: int | None = None,
    ) -> Records[ChunkInfo]:
        """A collection's stored chunks as `{document_id, chunk, text, metadata}`.

        All of them, or those of the documents `ids`, or those that match `filters` (as in `rag_search`); at most `limit`.
        `chunk` is a chunk's position in its document. Without a `limit`, a document's chunks come one after the other, in
        order. Raises NotFound, InvalidRequest.
        """
        given = _ids(_as_list(ids))
        if isinstance(given, list) and len(given) > CHUNKS_OF:
            found: Records[ChunkInfo] = Records()
            for start in range(0, len(given), CHUNKS_OF):
                left = None if limit is None else limit - len(found)
                if left is None or left > 0 or not found:
                    some = given[start : start + CHUNKS_OF]
                    found += self.list_chunks(collection, ids=some, filters=filters, limit=left)
            return found
        listed = self._paged(
            "list_chunks", "chunks", limit, collection=collection, ids=given, filters=filters
        )
        if limit is None:
            places: dict[str, int] = {}
            for one in listed:
                places.setdefault(one["document_id"], len(places))
            listed.sort(key=lambda one: (places[one["document_id"]], one["chunk"]))
        chunks = Records(map(ChunkInfo, listed))
        chunks.notes = listed.notes
        return chunks

    def _paged(
        self, operation: str, name: str, limit: int | None, key: str | None = None, **fields: Any
    ) -> Records[Record]:
        """The items that an operation lists page by page: all or the first `limit`; a repeated `key` replaces the earlier."""
        items: Records[Any] = Records()
        places: dict[Any, int] = {}
        cursor: str | None = None
        page: Any = limit
        while True:
            if limit is None:
                page = 1000
            elif isinstance(limit, int) and limit > 0:  # the operation refuses anything else
                page = min(1000, limit - len(items))
            result = self._call(operation, limit=page, cursor=cursor, **fields)
            for item in result[name]:
                place = places.setdefault(item[key], len(items)) if key else len(items)
                items[place : place + 1] = [item]
            cursor, items.notes = result.get("cursor"), result.get("notes", ())
            if cursor is None or len(items) == limit:
                return items

    def get_document(self, id: Id, collection: str) -> StoredDocument:
        """A stored document: `{id, text, metadata, chunks}`.

        The text is joined from its chunks (`chunks` is their number), so white space between them may differ from the
        original. Raises NotFound (the document or the collection).
        """
        try:
            return StoredDocument(self._call("get_document", id=_ids(id), collection=collection))
        except NotFound as error:
            _tell_order(error, collection, id, "get_document takes the id first, then the collection")
            raise

    def delete_documents(
        self,
        collection: str,
        ids: Id | Sequence[Id] | None = None,
        *,
        filters: Mapping[str, Any] | None = None,
        where: Mapping[str, Any] | None = None,
    ) -> Record:
        """Delete documents by `ids`, or those with a chunk that matches `filters` (as in `rag_search`).

        Returns `{deleted}`, the number of documents, with `notes` if filters that cannot match delete none. `where` is an
        earlier name of `filters`. Raises NotFound (the collection), InvalidRequest (both or neither given).
        """
        given = _ids(_as_list(ids))
        given = [given] if isinstance(given, str) else given
        if not isinstance(collection, str):
            said = "delete_documents takes the collection first, then the ids"
            raise InvalidRequest(f"delete_documents: collection is {_called(collection)}: {said}")
        try:
            result = self._call(
                "delete_documents", collection=collection, ids=given, filters=filters, where=where
            )
        except NotFound as error:
            _tell_order(error, collection, ids, "delete_documents takes the collection first, then the ids")
            raise
        if not result.get("notes"):
            result.pop("notes", None)
        return result

    # Analysis

    def analyze_document(self, text: str) -> Analysis:
        """Analyze a text: `{sentiment, sentiment_score, key_points, positions, summary, coverage, facts, notes, model}`.

        `sentiment` is positive, negative, neutral or mixed, `sentiment_score` -1 (negative) to 1 (English only; other
        texts are neutral). `key_points` is a list of sentences; `positions` has the `{start, end}` of each in the text, or
        None for one in a model's own words. With the embedded model, summary and key points are sentences of the text,
        verbatim except for white space. With a larger one, statements with numbers or quotations that the text does not
        have are left out, and `notes` says so. `coverage` is `{parts, read, words}`. `facts`, for English contracts, has
        `parties`, `dates`, `amounts` and `obligations`, each `{text, start, end}`.

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
        """Start long work in the background; returns the job's id at once. Jobs survive a restart.

        Types: `batch_embed` (`{texts, model?}`), `batch_chat` (`{prompts, system?, schema?, model?, temperature?,
        max_tokens?, retries?}`, a prompt being a text or messages), `rag_ingest` (`rag_ingest`'s arguments), `reindex`
        (`{collection, model?}`), `analyze_documents` (`{documents}`), `respond` (`respond`'s arguments), `run_agent`
        (`run_agent`'s arguments), `agent/researcher`, `agent/analyst`, `agent/triage` and likewise for each agent (the
        same, with its own `input` schema), `backup` (`{keep?}`, of the whole server), and a project's own types.

        An owner's jobs with higher `priority` (-100 to 100) run first. `run_at`, a datetime or ISO 8601 text with a UTC
        offset, is the earliest start. `depends_on` lists ids of jobs that must complete first; if one fails or is
        cancelled, this job fails. Submitting again with the same `idempotency_key` returns the same job, so a call whose
        reply was lost can be repeated. `webhook` is a URL that is notified when the job ends, repeatedly until it
        accepts (https://www.standardwebhooks.com).

        Raises InvalidRequest (unknown type, wrong params), NotFound (a job in `depends_on`), Conflict (one of those
        failed, or the key belongs to a different job).
        """
        others = [depends_on] if isinstance(depends_on, str) else _as_list(depends_on)
        moment = run_at.astimezone().isoformat() if hasattr(run_at, "astimezone") else run_at
        if str(job_type).startswith(("agent/", "run_agent")) and "input" in params:
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
        """Send many prompts to a chat model in a background job; returns the job's id.

        `prompts` are texts or messages, or a table or file of rows as in `rag_ingest`, with `text` naming the column. Equal
        prompts are asked once, unless `temperature` makes replies random. With `schema` (a JSON Schema or a pydantic
        class) each reply is JSON that fits it, and `parsed` is that data. A prompt that fails is retried `retries` times,
        then its reply has an `error`; the others go on. `wait_for_job(id).replies` has all replies,
        `get_job_result(id, partial=True).rows` those so far. With `plan=True` nothing is asked; returns `{count, distinct,
        model, prompt_tokens, completion_tokens, cost}`, an estimate whose last two are upper bounds.

        Raises InvalidRequest, NotFound (unknown model).
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
        """The state of a job: `{id, type, status, owner, progress, attempts, result, error, priority, created_at, …}`.

        `status` is queued, running, completed, failed or cancelled; `progress` is `{done, total, stage, rate, eta}` with
        the rate per second and the eta in seconds. Once completed, `result` has all its rows (`get_job_result` reads them
        in pages), until it has `expired`. Once failed, `error` is `{code, message, details}`. Raises NotFound.
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
        """A page of a completed job's result: `{result, offset, total, rows}`. May be called any number of times.

        `rows` are up to `limit` rows from `offset` on; vectors come as Embeddings. With `stream=True`, returns an iterator
        of all rows from `offset` on that keeps only a page in memory; vectors come as `{index, embedding}`. With
        `partial=True` it also works on a job that is not completed, with the rows so far.

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
        """The job with all rows of its result, vectors as Embeddings."""
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
        """Watch a job: yields `{id, job}` at once and after each change, until the job has ended.

        `job` is as in `list_jobs`. Changes in quick succession are merged into one event. Give `last_event_id`, the `id`
        of the last event seen, to continue without repeats. Waits up to a minute for a server that is restarting. Raises
        NotFound.
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
        """Wait for a job to end; returns its result.

        Waits up to a minute for a server that is restarting. `progress` is as in `rag_ingest`. If the job waits for `approve`
        or `reject`, a UserWarning says so. Raises the job's own error if it failed, Conflict if it was cancelled,
        JobExpired, NotFound, BackendTimeout if it is not done after `timeout` seconds (the job goes on).
        """
        with _progress(progress) as tell:
            job = self._ended(job_id, timeout, tell)
        if job["status"] == "failed":
            raise LLMBackendError.from_dict(job["error"])
        if job["status"] == "cancelled":
            raise Conflict(f"job {job_id} was cancelled", details={"job_id": job_id})
        if job["expired"]:
            raise JobExpired(
                f"the result of job {job_id} has expired and was deleted: submit the job again",
                details={"job_id": job_id},
            )
        return job["result"]

    def _ended(self, job_id: str, timeout: float | None, tell: Progress | None) -> Job:
        """The job, once it has ended. Raises BackendTimeout."""
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = 0.02
        seen: float | None = None
        told: Any = None
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
            if job.get("pending") and job["pending"] != told:
                told = job["pending"]
                _warn(f"job {job_id} {_waits(job_id, told)}")
            if deadline is not None and time.monotonic() >= deadline:
                goes_on = (
                    f"waits for client.approve({job_id!r}) or client.reject({job_id!r})"
                    if job.get("pending")
                    else f"is still {job['status']} after {timeout} s; it goes on: wait again"
                )
                raise BackendTimeout(
                    f"job {job_id} {goes_on}",
                    details={"job_id": job_id, "status": job["status"]},
                )
            time.sleep(pause if deadline is None else max(0.0, min(pause, deadline - time.monotonic())))
            pause = min(pause * 1.5, 1.0)

    def list_jobs(
        self, *, status: str | None = None, job_type: str | None = None, limit: int = 50
    ) -> Records[Job]:
        """The newest jobs, up to `limit`, as `get_job_status` returns them but without results."""
        result = self._call("list_jobs", status=status, job_type=job_type, limit=limit)
        return Records(Job(job) for job in result["jobs"])

    def cancel_job(self, job_id: str) -> Job:
        """Cancel a job before its next step; returns it. A job that has ended stays as it is. Raises NotFound."""
        return self._with_rows(self._call("cancel_job", job_id=job_id))

    def delete_job(self, job_id: str) -> Record:
        """Delete a job that has ended, with its params and result; returns `{deleted}`.

        Raises NotFound, Conflict (the job is queued or running: cancel it first).
        """
        return self._call("delete_job", job_id=job_id)

    def retry_job(self, job_id: str) -> Job:
        """Resume a failed or cancelled job from its last checkpoint; returns it.

        Raises NotFound, Conflict (it has neither failed nor been cancelled, or a job that it depends on has).
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
        """Run an agent on a task; returns an AgentRun, or with `stream=True` an AgentStream of its events.

        `agent` is one of `list_agents()`: `researcher` answers a question from several `collections` (by default all that
        the key may read), `analyst` and `triage` read documents and messages, and a project may add its own. `tools` are
        names of tools or, in process, functions; by default the agent's own, none of which writes. With
        `approve="writes"` the run is a job, with its id as `run_id`, and calls of tools that write wait for `approve` or
        `reject`; `submit_job("run_agent", {…})` makes a job of any run. `input` is the agent's structured input, a dict or
        a pydantic object; `input={"files": paths}` gives the analyst files, folders and patterns as in `rag_ingest_files`.
        A run stops at `max_steps` (calls of models and tools), `max_tokens` or `max_seconds`, with what it has by then.

        Raises InvalidRequest (no such agent or tool, or an input that does not fit), Forbidden, BackendTimeout, and
        BackendError, whose `details` have the failed `step` and the `trace`.
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
        """A tool's name; a function is registered in this process first."""
        if isinstance(tool, str):
            return tool
        offer = getattr(self._transport, "offer_tool", None)
        if offer is None:
            raise InvalidRequest(
                "tools: a server only runs its own tools: give their names; functions work in process only"
            )
        return str(offer(tool))

    def list_agents(self) -> Record:
        """The available agents and tools: `{agents, tools}`.

        `agents` are `{name, description, own, tools, input, output}`, the last two JSON Schemas of an agent's structured
        input and output, if it has any; `tools` are `{name, description, writes, parameters}`.
        """
        return self._call("list_agents")

    def approve(self, run_id: str) -> Job:
        """Approve the tool calls that a run waits for (`status` "needs_approval"); it continues. Returns its job.

        `wait_for_job(run_id)` gives its result. Raises NotFound, Conflict (the run does not wait for approval).
        """
        return Job(self._call("approve", run_id=run_id))

    def reject(self, run_id: str, *, why: str = "") -> Job:
        """Reject the tool calls that a run waits for; the agent is told `why`, and continues without them.

        Returns and raises what `approve` does.
        """
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
        """Submit a job at the times of a cron expression such as "30 2 * * MON-FRI".

        Its fields are minute, hour, day, month and weekday; with six fields, the first is seconds ("0 30 2 * * MON-FRI").
        Times are local to `timezone` ("Europe/Berlin"). If nothing was running at the time, the job is submitted once
        later; if the schedule's last job has not ended, none is, and the schedule's `error` says so. A schedule of the same
        name is replaced. Returns `{name, cron, timezone, job_type, priority, next_at, error}`. Raises InvalidRequest, as
        `submit_job` does.
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
        """The schedules of this key's project, each as `set_schedule` returns it.

        The administrator sees those of all projects, named `project/name`, which `delete_schedule` takes too.
        """
        return Records(self._call("list_schedules")["schedules"])

    def delete_schedule(self, name: str) -> Record:
        """Delete a schedule; jobs that it has submitted go on. Returns `{deleted}`. Raises NotFound."""
        return self._call("delete_schedule", name=name)

    # Keys, and what projects share

    def share_collection(self, collection: str, with_project: str, *, can: str = "read") -> Record:
        """Share a collection with another project, which may then "read" it, or "write" to it too; changes an existing share.

        The other project sees it as `project/collection`, with this project's name, and as the model
        `rag/project/collection`. Only this project can delete or share it. Returns `{collection, with_project, can,
        created_at}`. Raises NotFound (also, for the administrator, if no project has the name, and one has a similar name),
        InvalidRequest.
        """
        return self._call("share_collection", collection=collection, with_project=with_project, can=can)

    def unshare_collection(self, collection: str, with_project: str) -> Record:
        """Stop sharing a collection with a project; takes effect within a second in every process.

        Returns what `share_collection` returned. Raises NotFound.
        """
        return self._call("unshare_collection", collection=collection, with_project=with_project)

    def list_shares(self) -> Records[Record]:
        """The collections that this project shares or that are shared with it, each as `share_collection` returns it."""
        return Records(self._call("list_shares")["shares"])

    def create_key(
        self,
        *,
        project: str | None = None,
        can: str | Sequence[str] | None = None,
        collections: str | Sequence[str] | None = None,
        models: str | Sequence[str] | None = None,
        expires: str | None = None,
        rate: str | None = None,
        concurrent: int | None = None,
        tokens: str | None = None,
        jobs: int | None = None,
        chunks: int | str | None = None,
        bytes: int | str | None = None,
        note: str = "",
    ) -> CreatedKey:
        """Create an API key with at most this client's own rights. Only the administrator creates keys of other projects.

        `can` lists rights: "read" (search, query and list collections), "write" (create, fill and delete them), "jobs" (jobs
        and schedules), "chat" (ask models) and "admin" (keys and shares of the project). `collections` and `models` are
        names, in which `*` matches anything; one of each may be a string. Whatever is left out is as for this client, except "admin". `expires` is
        like "90d", "12h" or "30min". `rate` limits requests, as in "60/min"; `tokens` what models read and write, as in
        "1M/day" or "1M/day,20M/month"; `concurrent` the requests in flight; `jobs` the jobs queued or running. The key
        can store nothing more while its project stores `chunks` chunks or `bytes` bytes (numbers, or "100k", "10G"): of
        collections, of jobs with their results, and of responses.

        Returns the key as `list_keys` does, and `key`: the key itself, which is not shown again. Raises Forbidden (more
        rights than this client has).
        """
        created = self._call(
            "create_key",
            project=project,
            can=_each(can),
            collections=_each(collections),
            models=_each(models),
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
        """The API keys of this client's project; for the administrator, those of all projects.

        Each is `{id, project, can, collections, models, rate, concurrent, tokens, jobs, chunks, bytes, note, created_at,
        created_by, expires_at, rotating_until, revoked_at, last_used_at}`. The `id` is the beginning of the key.
        """
        return Records(map(KeyInfo, self._call("list_keys", project=project)["keys"]))

    def rotate_key(self, key: str, *, overlap: str = "1h") -> CreatedKey:
        """Give the API key with that id a new secret, shown once; the previous secret works for the `overlap`.

        The key keeps its id, rights, jobs and schedules. Only one previous secret works at a time. Returns as
        `create_key` does. Raises NotFound, Forbidden (the key has more rights than this client).
        """
        return CreatedKey(self._call("rotate_key", key=key, overlap=overlap))

    def revoke_key(self, key: str) -> KeyInfo:
        """Revoke the API key with that id; takes effect within a second in every process.

        Its streams and jobs are ended, and its schedules stop; other calls in flight are still answered. Returns the key
        as `list_keys` does. Raises NotFound.
        """
        return KeyInfo(self._call("revoke_key", key=key))

    # Audit and usage

    def audit(
        self, *, since: str = "30d", action: str | None = None, before: int | None = None, limit: int = 100
    ) -> Records[Record]:
        """The audit log, newest first: who changed keys, deleted, shared, exported, imported or was refused.

        Each entry is `{number, at, project, caller, client, request_id, action, target, outcome}`. `action` selects an
        operation such as "revoke_key", or "refused"; `before` is the last `number` of the previous page. Needs the right
        "admin"; a project's key sees its own project.
        """
        return Records(self._call("audit", since=since, action=action, before=before, limit=limit)["entries"])

    def prompts(self) -> Records[Record]:
        """The prompts in use: `{name, version, text, collection, own}`, including those of collections the key may read."""
        return Records(self._call("prompts")["prompts"])

    def usage(
        self, *, by: str | Sequence[str] = "project,model", since: str = "30d", until: str | None = None
    ) -> Usage:
        """Usage up to now: rows of `{requests, errors, prompt_tokens, completion_tokens, embedded_tokens, …}`.

        `by` is any of "project", "key", "model", "operation" and "day", separated by commas or as a list: one row per
        combination. `since` and `until` are days in UTC: "7d" (the last seven, today included) or a date such as
        "2026-11-28". `estimated_tokens` are the tokens that no server reported; `cost` is by the server's prices, else
        None. A key sees its own project. Returns Usage, a table in notebooks with `.plot()`.
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
        """The backend's state: `{status, problems, parts, version, chat, embeddings, own_file_types}`.

        `status` is "ok", or "failing" if something does not work: then `problems` say what is wrong and what to do. `parts`
        has "ok" or a problem for each part used so far. `chat` and `embeddings` name the models in use.
        """
        return Health(self._call("health"))

    def doctor(self) -> Record:
        """Check everything behind llmbackend: returns `{ok, version, checks}` within a few seconds.

        There is one check for each model server and embedded model, the Qdrant server and the data directory: `{name,
        server, ok, url, models, version, limits, latency_ms, fix}`, where `fix` says what is wrong and what to do.
        """
        return self._call("doctor")


class _Handle(_Shown):
    """How a collection's handle is drawn."""

    name: str

    def _about(self) -> Mapping[str, Any]:
        """The collection's counts and model, where they can be had without `await`."""
        return {}

    def _shown(self) -> Any:
        waits = "await " if inspect.iscoroutinefunction(getattr(self, "search", None)) else ""
        calls = [f"{waits}client[{self.name!r}].{call}" for call in HANDLE_CALLS]
        return Record({"handle": self.name, **self._about(), "calls": calls})


HANDLE_CALLS = ("ingest(documents)", "search(query)", "query(question)", "documents()", "map()")
"""What is drawn with a collection's handle as ways to use it."""


class CollectionHandle(_Handle):
    """A collection, as `client["hr_policies"]`: the client's methods without the collection's name.

    `options` are passed on to the client's method.
    """

    def __init__(self, client: LLMBackendClient, name: str) -> None:
        if not isinstance(name, str):
            raise InvalidRequest(f"client[…] takes a collection's name, not {type(name).__name__}")
        self._client = client
        self.name = name

    def __repr__(self) -> str:
        return f"{self._client!r}[{self.name!r}]"

    def _about(self) -> Mapping[str, Any]:
        try:
            about = self.stats()
        except NotFound:
            return {"note": "there is no such collection yet: ingest makes it"}
        except LLMBackendError as error:
            return {"note": error.message}
        return {
            name: about[name]
            for name in ("documents", "chunks", "embedding_model", "problem")
            if about.get(name) is not None
        }

    def ingest(self, documents: Any, **options: Any) -> IngestReport:
        """Add documents, as `rag_ingest` does."""
        return self._client.rag_ingest(documents, self.name, **options)

    def ingest_files(self, paths: File | Sequence[File], **options: Any) -> IngestReport:
        """Add files, as `rag_ingest_files` does."""
        return self._client.rag_ingest_files(paths, self.name, **options)

    def search(self, query: str | None = None, **options: Any) -> Hits:
        """Find the passages that match a query, or a `vector`, best, as `rag_search` does."""
        return self._client.rag_search(query, self.name, **options)

    def query(self, question: str, **options: Any) -> Any:
        """Answer a question from its documents, as `rag_query` does."""
        return self._client.rag_query(question, self.name, **options)

    def documents(self, *, limit: int | None = None) -> Records[DocumentInfo]:
        """Its documents, as `list_documents` returns them."""
        return self._client.list_documents(self.name, limit=limit)

    def get(self, id: Id) -> StoredDocument:
        """A stored document, as `get_document` returns it."""
        return self._client.get_document(id, self.name)

    def delete(
        self,
        ids: Id | Sequence[Id] | None = None,
        *,
        filters: Mapping[str, Any] | None = None,
        where: Mapping[str, Any] | None = None,
    ) -> Record:
        """Delete documents by ids or by filters, as `delete_documents` does."""
        return self._client.delete_documents(self.name, ids, filters=filters, where=where)

    def stats(self) -> CollectionInfo:
        """Its counts and options, as `get_collection` returns them."""
        return self._client.get_collection(self.name)

    def evaluate(self, questions: Sequence[Mapping[str, Any]] | Any, **options: Any) -> Evaluation:
        """Measure how well search finds the documents that answer some questions, as `evaluate` does."""
        return self._client.evaluate(self.name, questions, **options)

    def map(
        self, color: str | None = None, query: str | None = None, *, limit: int = 2000, axes: Any = None
    ) -> Any:
        """Plot its documents as points in two dimensions, similar ones close together; returns the matplotlib axes.

        A point is the mean of a document's chunk vectors (among the collection's first `limit` chunks), coloured by the
        metadata field `color`. `query` is marked among them.
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
    """Parse a line of an exported collection. Raises InvalidRequest, with the line number."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InvalidRequest(f"import_collection: line {number} of {source} is not a JSON object")
    return value


def _result(reply: bytes | dict[str, Any]) -> Record:
    try:
        result = reply if isinstance(reply, dict) else json.loads(reply)
    except ValueError as error:
        raise TransportError("the answer was not JSON: is this an llmbackend server?") from error
    if not isinstance(result, dict):
        raise TransportError("the answer was not a JSON object: is this an llmbackend server?")
    return cast(Record, _records(result))


def _rows(chunks: Iterator[bytes]) -> Iterator[Any]:
    """The values of JSON lines; a line with an error is raised as that error."""
    buffer = b""
    for chunk in chunks:
        *lines, buffer = (buffer + chunk).split(b"\n")
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:
                raise StreamInterrupted("the stream carries something that is not a row") from None
            if isinstance(row, dict) and row.keys() == {"error"} and isinstance(row["error"], dict):
                raise LLMBackendError.from_dict(row["error"])
            yield _records(row)
    if buffer:
        raise StreamInterrupted("the stream ended within a row")


def _further_on(error: InvalidRequest, start: int) -> InvalidRequest:
    """A page's error with the text's index counted from the first page; the page begins at `start`."""
    index = error.details.get("index")
    if not start or index is None or "row" in error.details:  # a row counts from the source's start already
        return error
    message = error.message.replace(f"input[{index}]:", f"input[{start + index}]:", 1)
    details = {**error.details, "index": start + index}
    return InvalidRequest(message, details=details, request_id=error.request_id)


def _add(total: dict[str, Any], part: Mapping[str, Any]) -> None:
    """Add a partial report to the total; a value that is None in one part is None in the total."""
    for name, value in part.items():
        if name not in total:
            total[name] = value
        else:
            both = value is not None and total[name] is not None
            total[name] = type(total[name])(total[name] + value) if both else None


def _each(names: Any) -> Any:
    """A single name as a list."""
    return [names] if isinstance(names, str) else names


def _as_list(value: Any) -> Any:
    """Any iterable as a list; a list, a text or a non-iterable is returned as it is, for validation to judge.

    A table gives its only column. Raises InvalidRequest if it has more than one.
    """
    if value is None or isinstance(value, (str, list)):
        return value
    if (names := _columns(value)) is not None:
        if len(names) != 1:
            raise InvalidRequest(
                f"a table of {len(names)} columns ({_some(names)}): give one, such as table[{names[0]!r}]"
            )
        return [row[names[0]] for row in _table_rows(value)]
    if hasattr(value, "to_pylist"):  # an Arrow column, whose items are Arrow scalars
        return value.to_pylist()
    one = isinstance(value, (str, bytes, bytearray, memoryview, Mapping))
    return value if one or not hasattr(value, "__iter__") else list(value)


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
    """The column names of a table (pandas, polars, Arrow or a dataset); None if it is not a table."""
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
        raise InvalidRequest(f"the table has more than one column {twice[0]!r}: give each its own name")
    return told


def _with_index(table: Any) -> Any:
    """A pandas table whose named index, which often is the id, is a column as well."""
    names = getattr(getattr(table, "index", None), "names", None)
    if not names or not hasattr(table, "itertuples") or not all(isinstance(name, str) for name in names):
        return table
    return table if set(names) & set(_columns(table) or ()) else table.reset_index()


def _arrow_batches(table: Any) -> tuple[Any, Iterator[Any]] | None:
    """The schema and record batches of an Arrow table or reader, or a polars table; None for anything else."""
    if hasattr(table, "iter_rows") and hasattr(table, "to_arrow"):  # polars
        with suppress(ImportError):
            table = table.to_arrow()
    if type(table).__module__.partition(".")[0] != "pyarrow":
        return None
    return table.schema, _parts(table)


def _parts(table: Any) -> Iterator[Any]:
    """The parts of an Arrow table, dataset or reader; a record batch is one, and would give its columns."""
    if hasattr(table, "to_batches"):
        return iter(table.to_batches())
    return iter([table] if hasattr(table, "to_pylist") else table)


def _table_rows(table: Any) -> Iterator[dict[str, Any]]:
    names = _columns(table) or []
    if hasattr(table, "itertuples"):
        rows: Iterable[Any] = table.itertuples(index=False, name=None)
        return (dict(zip(names, row)) for row in rows)
    if hasattr(table, "iter_rows"):  # polars
        return cast(Iterator[dict[str, Any]], table.iter_rows(named=True))
    return (  # Arrow, and datasets that may exceed memory
        row
        for part in _parts(table)
        for row in (part.to_pylist() if hasattr(part, "to_pylist") else [dict(part)])
    )


def _chosen(
    operation: str,
    names: list[str],
    id: str | None,
    text: str | None,
    metadata: Sequence[str] | None,
    *,
    own: list[str] | None = None,
) -> dict[str, Any]:
    """Choose the columns of a document's id, text and metadata. Raises InvalidRequest if none has the text.

    `own` are the columns without those of an index. A name may be a number, as the columns of some tables are.
    """
    metadata = [metadata] if isinstance(metadata, (str, int)) else metadata
    id, text = (None if name is None else str(name) for name in (id, text))
    metadata = None if metadata is None else list(map(str, metadata))
    own = names if own is None else own
    for name in (id, text, *(metadata or ())):
        if name is not None and name not in names:
            raise InvalidRequest(f"{operation}: there is no column {name!r}: the table has {_some(names)}")
    known = {name.lower(): name for name in reversed(names)}
    if text is None:
        text = next((known[name] for name in TEXT_COLUMNS if name in known), None)
    if text is None and len(own) == 1:
        text = own[0]
    if text is None:
        example = f"{names[0]!r}" if names else "…"
        there = f"there are {_some(names)}" if names else "the first row has none"
        said = f"Name it, as in text={example} (and others by id= and metadata=): {there}"
        raise InvalidRequest(f"{operation}: which column has the text? {said}")
    if id is None:
        id = next((known[name] for name in ID_COLUMNS if name in known and known[name] != text), None)
    others = [name for name in names if name not in (id, text)] if metadata is None else metadata
    return {"id": id, "text": text, "metadata": others}


class _Source:
    """A source of documents or texts of any kind, read lazily.

    Rows of a table or file (Parquet, JSON Lines, CSV) become documents by their `columns`; rows that do not are in
    `failed` and `warnings`. `total` is the number of items, if known.
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
        self.given: list[Any] = []  # the rows that texts came from, if `keeps_rows`
        self.keeps_rows = False
        self.schema: Any = None  # the Arrow schema, if known
        self.in_batches = False  # whether items are Arrow record batches, whose texts alone are converted
        self._operation = operation
        self._common = dict(metadata) if isinstance(metadata, Mapping) else {}
        self._named = (id, text, None if isinstance(metadata, Mapping) else metadata)
        self._texts = texts
        self._batch: list[Any] = []
        self._places: list[int] = []
        self._sent: list[int] = []
        self._size = self._read = 0
        self._seen: set[str] = set()
        self._about: set[str] = set()  # columns of metadata so far
        # How the cells of columns are read that are numbers or days written as text
        self._readers: dict[str, _Reader] = {}
        self._misfits: set[str] = set()  # those with a cell that is none
        self._state = Record()
        self._most = (EMBED_PAGE if texts else STREAM_OF, STREAM_BYTES)
        self.items = self._opened(given)
        if self._are_named and (self._alone or (texts and not self._rows)):
            raise self._no_row("this is not a table")

    @property
    def _are_named(self) -> bool:
        """Whether the caller names columns."""
        return any(name is not None for name in self._named)

    def _no_row(self, what: str) -> InvalidRequest:
        said = f"id, text and metadata name the columns of a table, and {what}"
        return InvalidRequest(f"{self._operation}: {said}")

    def _opened(self, given: Any) -> Any:
        self._rows, self._alone = True, False
        if (
            isinstance(given, (str, os.PathLike))
            and _suffix(os.fsdecode(given)) in ROWS
            and _path_meant(given)
        ):
            return self._file(os.fsdecode(given))
        if (names := _columns(given)) is not None:
            own, given = names, _with_index(given)
            self.columns = _chosen(self._operation, _columns(given) or [], *self._named, own=own)
            self.total = len(given) if hasattr(given, "__len__") else getattr(given, "num_rows", None)
            if self._texts and (of_arrow := _arrow_batches(given)) is not None:
                self.in_batches, (self.schema, items) = True, of_arrow
                return items
            return _table_rows(given)
        if isinstance(given, Mapping):  # Hugging Face's DatasetDict
            for name, table in given.items():
                if _columns(table) is not None:
                    said = f"tables by name: give one, such as [{name!r}]"
                    raise InvalidRequest(f"{self._operation}: {_called(given)} has {said}")
        self._rows = False
        if not self._texts and (not _is_several(given) or hasattr(given, "readline")):
            raise InvalidRequest(f"{self._operation}: documents is {_called(given)}{_how(given)}")
        if isinstance(given, (str, Mapping, os.PathLike)) or _is_foreign(given):
            self._alone = True
            return [given]
        if hasattr(given, "to_pylist"):  # an Arrow column, whose items are Arrow scalars
            given = given.to_pylist()
        if hasattr(given, "__len__"):
            self.total = len(given)
            if not self._texts:
                self._most = (WHOLE_OF, WHOLE_BYTES)  # send what is in memory in one request if possible
        return given

    def _file(self, path: str) -> Iterator[Any]:
        def warn(warning: str) -> None:
            self.warnings.append(Record(id=path, warning=warning))

        if _suffix(path) == ".parquet":
            file = _parquet(self._operation, path)
            self.columns = _chosen(self._operation, list(file.schema_arrow.names), *self._named)
            self.total = file.metadata.num_rows
            self.schema = file.schema_arrow
            if self._texts:
                self.in_batches = True
                return self._read_parquet(file)
            return (row for batch in file.iter_batches(1024) for row in batch.to_pylist())
        if _suffix(path) in (".csv", ".tsv"):
            names, rows, separator = _separated(self._operation, path, warn)
            self.columns = _chosen(self._operation, names, *self._named)
            return rows if self._texts else self._with_kinds(rows, separator, warn)
        return _json_lines(self._operation, path)

    def _with_kinds(
        self, rows: Iterator[dict[str, Any]], separator: str, warn: _Warn
    ) -> Iterator[dict[str, Any]]:
        """Yield the rows, once the first of them have shown which metadata columns are numbers or days."""
        assert self.columns is not None
        first: list[dict[str, Any]] = []
        size, wrong = 0, None
        try:
            for row in itertools.islice(rows, NUMBERS_BY):
                first.append(row)
                size += sum(len(cell) for cell in row.values() if cell is not None)
                if size > STREAM_BYTES:
                    break
        except InvalidRequest as error:
            wrong = error
        for name in self.columns["metadata"]:
            cells = [row[name] for row in first if row[name] is not None]
            read = _reader_of(cells, separator)
            pointed = [cell.strip() for cell in cells if "." in cell]
            if read is _number and separator == ";" and pointed and all(map(_GROUPED.fullmatch, pointed)):
                warn(f"column {name!r} is kept as text: {pointed[0]} may be a thousand times as much")
            elif read is not None:
                self._readers[name] = read
        yield from first
        if wrong is not None:
            raise wrong
        yield from rows

    def _read_parquet(self, file: Any) -> Iterator[Any]:
        assert self.columns is not None
        yield from file.iter_batches(EMBED_PAGE, columns=None if self.keeps_rows else [self.columns["text"]])

    def texts_of(self, batch: Any) -> Iterator[list[str]]:
        """The texts of an Arrow record batch, request by request. Raises InvalidRequest for a row without text."""
        assert self.columns is not None
        column = batch.column(self.columns["text"])
        most = EMBED_PAGE if column.nbytes <= STREAM_BYTES else 1 + (len(column) - 1) // 2
        if len(column) > most:
            for start in range(0, len(column), most):
                yield from self.texts_of(batch.slice(start, most))
            return
        texts, wrong = column.to_pylist(), None
        if not (set(map(type, texts)) == {str} and all(map(str.strip, texts))):
            for place, text in enumerate(texts):
                try:
                    texts[place] = self._text(text, self._read + place)
                except InvalidRequest as error:
                    texts, batch, wrong = texts[:place], batch.slice(0, place), error
                    break
        self._read += len(texts)
        if self.keeps_rows and texts:
            self.given.append(batch)
        if texts:
            yield texts
        if wrong is not None:
            raise wrong

    def _text(self, text: Any, number: int) -> str:
        """A row's text. Raises InvalidRequest if it is empty."""
        if _is_missing(text) or not str(text).strip():
            assert self.columns is not None
            error = f"row {number} has no text in column {self.columns['text']!r}"
            raise InvalidRequest(f"{self._operation}: {error}", details={"index": number, "row": number})
        return self._letters(text, number)

    def _letters(self, text: Any, number: int) -> str:
        """A cell as text: a number or time is converted; bytes and containers raise InvalidRequest."""
        if isinstance(text, (bytes, bytearray, memoryview, Mapping, list, tuple, set)):
            assert self.columns is not None
            error = f"row {number} has a {type(text).__name__} in column {self.columns['text']!r}, not a text"
            raise InvalidRequest(f"{self._operation}: {error}", details={"index": number, "row": number})
        return str(text)

    @property
    def is_list(self) -> bool:
        """Whether it is a plain list of texts, ready to send."""
        return self._texts and isinstance(self.items, list) and not self._alone

    @property
    def full(self) -> bool:
        """Whether the batch exceeds one request."""
        return len(self._batch) > self._most[0] or (self._size > self._most[1] and len(self._batch) > 1)

    def read_on(self, items: Iterator[Any]) -> Iterator[list[Any]]:
        """The next requests' worth of items."""
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
        except Exception as error:
            self.end_by(error)
        yield self.batch()

    def end_by(self, error: Exception) -> None:
        """Keep an error until what came before it is sent; raise it if that is to be sent whole or not at all."""
        if isinstance(error, LLMBackendError) and self._most[0] == WHOLE_OF:
            raise error
        self.broken, self.ended = error, True

    def take(self, item: Any) -> None:
        self._read += 1
        if self._read == 1 and not (self._rows or self._texts or self._alone):
            self._rows = isinstance(item, Mapping) and (self._are_named or _is_row(item))
            if self._are_named and not self._rows:
                raise self._no_row(f"documents[0] is {_called(item)}: this is not a table")
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
        """Take one request's worth of what has been read."""
        count = len(self._batch) if self.ended else len(self._batch) - 1
        batch, self._batch = self._batch[:count], self._batch[count:]
        self._sent, self._places = self._places[:count], self._places[count:]
        self._size = sum(map(_weight, self._batch))
        return batch

    def rows(self, count: int) -> Any:
        """Take the rows that a batch of texts came from: dicts, or an Arrow record batch."""
        if self.in_batches:
            return self.given.pop(0)
        rows, self.given = self.given[:count], self.given[count:]
        return [dict(one) if isinstance(one, Mapping) else {"text": one} for one in rows]

    def check(self) -> None:
        """Raise InvalidRequest if the source broke off, or the error that it told itself."""
        if isinstance(self.broken, LLMBackendError):
            raise self.broken
        if self.broken is not None:
            error = self.broken
            raise InvalidRequest(
                f"{self._operation}: the source broke at row {self._read} ({type(error).__name__}: {_said(error)})",
                details={"row": self._read},
            ) from error

    def tell(self, error: LLMBackendError, name: str, done: int, what: str) -> None:
        """Add to an error how much was done before it, and the row's number in the source."""
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
        """A callback that reports one request's progress as part of the whole source, with the report so far."""
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
        """A row as a document, or its text; None if it is rejected."""
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
        if columns["id"] is not None and (_is_missing(id) or not str(id).strip()):
            error = f"row {number} has no id in column {columns['id']!r}"
            self.failed.append(Record(id=f"row {number}", error=error))
            return None
        others = row if metadata is None else columns["metadata"]
        about = {
            name: row[name]
            for name in others
            if name not in (columns["id"], columns["text"]) and not _is_missing(row.get(name))
        }
        if new := about.keys() - self._about:  # rows may have fields that the first one lacks
            self._about |= new
            columns["metadata"] += [name for name in about if name in new and name not in columns["metadata"]]
        if metadata is None and isinstance(inner := about.get("metadata"), Mapping):  # as a document has it
            about = {**about, **inner}
            del about["metadata"]
        odd = self._read_cells(about)
        about = {**self._common, **about}
        document = _identified(
            {"text": self._letters(text, number), "metadata": about}, None if id is None else _whole(id)
        )
        for name in odd:
            kind = "days" if self._readers[name] is _day else "numbers"
            warning = (
                f"row {number} has {about[name]!r} in column {name!r}, and the rows before have {kind}: "
                "it is kept as text, as are others like it"
            )
            self.warnings.append(Record(id=document["id"], warning=warning))
        if document["id"] not in self._seen:
            if len(self._seen) == SEEN:
                self._seen.clear()
            self._seen.add(document["id"])
            return document
        if id is None:
            warning = f"row {number} is the same as another, and was left out"
            self.warnings.append(Record(id=document["id"], warning=warning))
        else:
            self.failed.append(Record(id=document["id"], error=f"row {number} has the id of another row"))
        return None

    def _read_cells(self, about: dict[str, Any]) -> list[str]:
        """Convert cells of columns of numbers or days; return the columns in which this row has the first other cell."""
        odd = []
        for name in self._readers.keys() & about.keys():
            if (value := self._readers[name](about[name])) is not None:
                about[name] = value
            elif name not in self._misfits:
                self._misfits.add(name)
                odd.append(name)
        return odd

    def _of_item(self, item: Any) -> Any:
        """A document as it is sent. Raises InvalidRequest for a file's path, which was meant to be read."""
        if self._texts:
            return _read_first(self._operation, item) if self._alone else item
        if (path := _path_meant(item)) is not None or (self._alone and _is_called_like_a_file(item)):
            said = _no_text(path or item, f"rag_ingest_files({path or item!r}, …) reads files")
            raise InvalidRequest(f"{self._place()} is {said}")
        if isinstance(item, str):
            return {"id": _id_of(item), "text": item, "metadata": self._common} if self._common else item
        if _is_foreign(item):
            item = _of_foreign(item)
        if not isinstance(item, Mapping) or (self._alone and isinstance(_of(item, "text"), (list, tuple))):
            raise InvalidRequest(f"{self._place()} is {_called(item)}{_how(item)}")
        if (wrong := _amiss(item)) is not None:
            details = {"index": self._read - 1, "row": self._read - 1}
            raise InvalidRequest(f"{self._place()}{wrong}", details=details)
        if self._common and isinstance(item.get("metadata", {}), Mapping):
            return {**item, "metadata": {**self._common, **item.get("metadata", {})}}
        return item

    def _place(self) -> str:
        return f"{self._operation}: documents" + ("" if self._alone else f"[{self._read - 1}]")


ROWS = (".parquet", ".jsonl", ".ndjson", ".csv", ".tsv")
"""Extensions of files whose rows are documents."""


def _parquet(operation: str, path: str) -> Any:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise InvalidRequest(f"{operation}: reading Parquet needs pyarrow: pip install pyarrow") from error
    try:
        return parquet.ParquetFile(path)
    except FileNotFoundError as error:
        raise InvalidRequest(f"{operation}: there is no file {path!r}") from error
    except (OSError, ValueError) as error:  # Arrow's errors are ValueErrors
        if os.path.isdir(path):
            why = f"it is a folder): give pyarrow.dataset.dataset({path!r})"
        elif isinstance(error, OSError) and error.errno:
            why = f"{_system_said(error)})"
        else:
            why = "it is cut off, damaged or of another format): is it Parquet?"
        raise InvalidRequest(f"{operation}: {path!r} cannot be read ({why}") from error


def _said(error: Exception) -> str:
    """What a library's error says, in one line."""
    return " ".join(str(error).split())


def _system_said(error: OSError) -> str:
    """Why a system call failed, without what Arrow adds."""
    return os.strerror(error.errno) if error.errno else _said(error)


_Warn = Callable[[str], None]


def _text_lines(operation: str, path: str, warn: _Warn | None = None) -> Iterator[str]:
    """A text file's lines, read lazily. With `warn`, the encoding of a file that is not Unicode is guessed.

    Raises InvalidRequest if the file cannot be read, or without `warn`, is not Unicode.
    """
    read, ascii_so_far = 0, True
    try:
        with open(path, "rb") as file:
            is_utf16 = file.read(2) in (b"\xff\xfe", b"\xfe\xff")  # as Excel writes its "Unicode text"
        try:
            with open(path, encoding="utf-16" if is_utf16 else "utf-8-sig", newline="") as lines:
                for line in lines:
                    yield line
                    read += 1
                    ascii_so_far = ascii_so_far and line.isascii()
        except UnicodeDecodeError as error:
            ascii_so_far = ascii_so_far and error.object[: error.start].isascii()
            if warn is None or is_utf16 or not ascii_so_far:  # some of it is UTF-8
                raise
            encoding = _encoding_of(error.object)  # one that has ASCII's characters, too
            warn(f"it is not UTF-8, and was read as {encoding}")
            with open(path, encoding=encoding, newline="") as lines:
                yield from itertools.islice(lines, read, None)
    except UnicodeError as error:
        raise InvalidRequest(
            f"{operation}: {path!r} is not UTF-8 ({error}): save it as UTF-8 (in Excel: 'CSV UTF-8'), "
            "or give the table, as by pandas.read_csv(path, encoding='cp1252')",
            details={"path": path},
        ) from error
    except OSError as error:
        raise InvalidRequest(
            f"{operation}: {path!r} cannot be read: {error.strerror or error}", details={"path": path}
        ) from error


_ENCODINGS = [f"cp125{number}" for number in range(7)]
_ENCODINGS += ["koi8_r", "cp932", "euc_jp", "gb18030", "big5", "cp949"]


def _encoding_of(data: bytes) -> str:
    """Guess the encoding of a part of a file that is not Unicode; Western European if in doubt."""
    try:
        from charset_normalizer import from_bytes
    except ImportError:  # not every version of requests brings it along
        return "cp1252"
    telling = b"\n".join(line for line in data.splitlines() if not line.isascii())
    matches = from_bytes(telling, cp_isolation=_ENCODINGS)
    possible = {name for match in matches for name in (match.encoding, *match.could_be_from_charset)}
    best = matches.best()
    return "cp1252" if best is None or "cp1252" in possible else str(best.encoding)


def _json_lines(operation: str, path: str) -> Iterator[Any]:
    for number, line in enumerate(_text_lines(operation, path), 1):
        if line.isspace():
            continue
        try:
            item = json.loads(line)
        except ValueError as error:
            said = (
                f"{error.msg} at character {error.colno}"
                if isinstance(error, json.JSONDecodeError)
                else error
            )
            raise ValueError(f"{path!r}, line {number}, is no JSON: {said}") from error
        yield item


SEPARATORS = ",;\t|"
"""Separators of values in a .csv or .tsv file: the one is taken that gives the header the most columns."""

MOST_COLUMNS = 2**14
"""Most columns of a table, as in Excel."""

LARGEST_CELL = 16 * 2**20
"""Most characters of a cell; a longer one means that a quotation mark is never closed."""


def _separated(
    operation: str, path: str, warn: _Warn
) -> tuple[list[str], Iterator[dict[str, str | None]], str]:
    """The column names, rows and separator of a file of separated values; an empty cell is None.

    Raises InvalidRequest, which names the row, for a row that the header does not explain.
    """
    import csv

    csv.field_size_limit(max(csv.field_size_limit(), LARGEST_CELL))
    lines = _text_lines(operation, path, warn)
    before, head = 0, next(lines, "")
    announced = re.match(r"sep=(.)\s*$", head)  # Excel's
    while head and (not head.strip() or (announced and not before)):
        before, head = before + 1, next(lines, "")
    separators = announced[1] if announced else SEPARATORS
    most = max(map(head.count, separators))
    if most >= MOST_COLUMNS and '"' not in head:
        counted = f"{most + 1:,} columns, and {MOST_COLUMNS:,} are the most"
        raise InvalidRequest(
            f"{operation}: {path!r} has {counted}: give a table of those that are needed",
            details={"path": path, "limit": MOST_COLUMNS},
        )
    widths = {one: len(next(csv.reader([head.replace("\0", "")], delimiter=one), ())) for one in separators}
    separator = max(separators, key=lambda one: widths[one])
    reader = csv.reader(
        itertools.chain([head], lines), delimiter=separator, skipinitialspace=True, strict=True
    )

    def refused(what: str, row: int | None = None) -> InvalidRequest:
        place = f"{path!r}, line {before + reader.line_num}" + ("" if row is None else f" (row {row})")
        details = {"path": path, "line": before + reader.line_num}
        return InvalidRequest(
            f"{operation}: {place}: {what}", details=details if row is None else {**details, "row": row}
        )

    def malformed(error: Exception, row: int | None = None) -> InvalidRequest:
        fix = "a cell with quotation marks in it needs them doubled and others around it"
        return refused(f"{error}: {fix}", row)

    try:
        names = [name.strip() for name in next(reader, ())]
    except csv.Error as error:
        raise malformed(error) from error
    while names and not names[-1]:
        names.pop()
    if not names:
        raise InvalidRequest(f"{operation}: {path!r} is empty", details={"path": path})
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise refused(f"there is more than one column {name!r}: give each its own name")
        seen.add(name)

    def rows() -> Iterator[dict[str, str | None]]:
        number = 0
        try:
            for row in filter(None, reader):
                if any(map(str.strip, row[len(names) :])):
                    counted = f"{len(row)} cells, and the header has {len(names)}"
                    raise refused(f"{counted}: a cell with {separator!r} in it needs quotation marks", number)
                cells = [cell if cell.strip() else None for cell in row]
                yield dict(itertools.zip_longest(names, cells[: len(names)]))
                number += 1
        except csv.Error as error:
            raise malformed(error, number) from error

    return names, rows(), separator


NUMBERS_BY = 1_000
"""Rows of a .csv or .tsv file that decide whether a column holds numbers."""

_PLAIN_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?", re.ASCII)


def _number(cell: str) -> int | float | None:
    """The number that a cell is, as JSON writes one; None for anything else, and for an integer beyond 18 digits."""
    if (found := _PLAIN_NUMBER.fullmatch(cell.strip())) is None:
        return None
    if not (found[1] or found[2]):
        return int(cell) if len(cell.strip()) <= 18 else None  # fits into 64 bits
    value = float(cell)
    return value if abs(value) != float("inf") else None


_WITH_COMMA = re.compile(r"-?(?:0|[1-9]\d{0,2}(?:\.\d{3})+|[1-9]\d*)(?:,\d+)?", re.ASCII)
_GROUPED = re.compile(r"-?[1-9]\d{0,2}\.\d{3}", re.ASCII)


def _number_with_comma(cell: str) -> int | float | None:
    """The number that a cell is where the comma is the decimal sign and the point groups thousands: 1.234,56."""
    if _WITH_COMMA.fullmatch(cell.strip()) is None:
        return None
    return _number(cell.replace(".", "").replace(",", "."))


_DAY = re.compile(r"(\d{1,2})\.(\d{1,2})\.(\d{4})", re.ASCII)


def _day(cell: str) -> str | None:
    """The day that a cell is, as 2025-12-31 for 31.12.2025: between points, the day is first everywhere."""
    if (found := _DAY.fullmatch(cell.strip())) is None:
        return None
    day, month, year = map(int, found.groups())
    try:
        return datetime.date(year, month, day).isoformat()
    except ValueError:
        return None


_Reader = Callable[[str], Union[int, float, str, None]]


def _reader_of(cells: Sequence[str], separator: str) -> _Reader | None:
    """How the cells of a column are read if all are numbers, or all are days, else None.

    Spreadsheets separate cells by semicolons where the comma is the decimal sign.
    """
    readers: list[_Reader] = [_number, _number_with_comma, _day] if separator == ";" else [_number, _day]
    for read in readers:
        if cells and all(read(cell) is not None for cell in cells):
            return read
    return None


STREAM_OF, STREAM_BYTES = 2_000, 8 * 2**20
"""Limits of one request for a source that is read lazily: documents and, roughly, bytes."""

WHOLE_OF, WHOLE_BYTES = 50_000, 16 * 2**20
"""The same for a source in memory. Larger, because a single request stores nothing if any document is invalid."""

SEEN = 1_000_000
"""How many row ids are remembered to detect repeated rows."""


def _batches(source: _Source) -> Iterator[list[Any]]:
    """A source's items, request by request. If the source breaks, what came before is yielded, then InvalidRequest raised."""
    if hasattr(source.items, "__aiter__"):
        raise InvalidRequest("this is an asynchronous iterator: give it to AsyncLLMBackendClient")
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
    """A list of texts in pages; anything else as it is, for validation to judge."""
    given = source.items
    for start in range(0, len(given) or 1, EMBED_PAGE) if isinstance(given, list) else (0,):
        page = given[start : start + EMBED_PAGE] if isinstance(given, list) else given
        source.ended = not isinstance(given, list) or start + EMBED_PAGE >= len(given)
        if source.keeps_rows and isinstance(given, list):
            source.given += page
        yield page


AHEAD = 2
"""Requests in flight while the reply to the one before them is read."""


def _ahead(
    transport: Transport, operation: str, pages: Iterator[_Page], given: Callable[[_Page], dict[str, Any]]
) -> Iterator[tuple[_Page, bytes]]:
    """Each page with its reply, in order; the next pages are read and sent meanwhile.

    If the source breaks, its error is raised after the pages before it.
    """
    begin = getattr(transport, "begin", None)  # in process: needs no thread to wait for the reply
    pool = concurrent.futures.ThreadPoolExecutor(AHEAD)  # starts no thread until it is used
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
    """A rough estimate of a document's bytes in a request."""
    if isinstance(document, str):
        return len(document)
    if not isinstance(document, Mapping):
        return 100
    text, metadata = document.get("text"), document.get("metadata")
    size = 100 + (len(text) if isinstance(text, str) else 0) + (len(repr(metadata)) if metadata else 0)
    return size + (len(repr(document["chunks"])) if document.get("chunks") else 0)


def _id_of(document: Any) -> str:
    """A document's id; a bare text's is its hash."""
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
    """The document with the given id, or else a hash of its text and metadata."""
    if id is None:
        import hashlib

        content = json.dumps(document, default=str, sort_keys=True).encode(errors="replace")
        id = hashlib.sha256(content).hexdigest()[:32]
    return {"id": id, **document}


def _is_missing(value: Any) -> bool:
    """Whether it is None, or the missing value of NumPy or pandas."""
    try:
        return value is None or bool(value != value)
    except ArithmeticError:  # Decimal("sNaN")
        return True
    except (
        TypeError,
        ValueError,
    ):  # an array or a column, which are not missing, or pandas' NA, which has no truth value
        return type(value).__name__ == "NAType"


def _path_meant(item: Any) -> str | None:
    """The path if what is given as a document is that of an existing file, else None."""
    if isinstance(item, str):
        # Look at the text first: most are no file names, and a system call is slower.
        ends = "." in item[-16:-1] and " " not in item.rpartition(".")[2]
        if not (ends or os.sep in item) or "\n" in item or len(item) >= 1024 or not os.path.exists(item):
            return None
    elif not isinstance(item, os.PathLike) or isinstance(os.fspath(item), bytes):
        return None
    return str(os.fspath(item))


def _is_called_like_a_file(text: Any) -> bool:
    """Whether a text consists only of a path, a pattern or a URL, whether or not such a file exists."""
    if not isinstance(text, str) or "\n" in text or len(text) >= 1024:
        return False
    if re.match(r"https?://\S+$", text):
        return True
    if re.match(r"(~|\.\.?)?/|[A-Za-z]:\\|\.\.?\\", text):
        return bool(re.search(r"\.\w{1,8}$", text))
    return not re.search(r"\s", text) and (
        _suffix(text) in (*ROWS, *FILE_TYPES.split(), *INSTEAD) or ("/" in text and "*" in text)
    )


def _no_text(path: str, fix: str) -> str:
    """Say that a text is a file's path, and what to do."""
    if "://" in path:
        return f"the address {path!r}, and pages are not fetched: give the text"
    if not os.path.exists(path) and "*" not in path:
        return f"the path {path!r}, and there is no such file"
    return f"the path {path!r}, not a text: {fix}"


def _tell_order(error: NotFound, collection: str, other: Any, order: str) -> None:
    """Add the order of arguments to an error if the collection does not exist and no name is similar."""
    if (
        isinstance(other, str)
        and error.details.get("collection") == collection
        and "near" not in error.details
    ):
        error.message += f" ({order})"
        error.args = (error.message,)


DOCUMENT_FIELDS = {"id", "text", "metadata", "chunks"}


def _is_row(item: Mapping[str, Any]) -> bool:
    """Whether a dict has a document's values under names of its own, as a table's row has."""
    if _is_foreign(item) or "chunks" in item:
        return False
    return not item.keys() <= DOCUMENT_FIELDS or ("text" in item and "id" not in item)


def _amiss(document: Mapping[str, Any]) -> str | None:
    """What is wrong with a document's fields, and what to do; None if nothing is."""
    id = document.get("id")
    if isinstance(id, str) and "text" in document and document.keys() <= DOCUMENT_FIELDS:
        return None
    others = [str(name) for name in document if name not in DOCUMENT_FIELDS]
    table = "in a list of such rows, text= names its column"
    if "text" not in document and "chunks" not in document:
        if others:
            return f" has no 'text', but {_some(list(map(str, document)))}: {table}"
        return " has neither 'text' nor 'chunks'"
    if others:
        return f" has {_some(others)}, which is no part of a document: put it into its 'metadata'"
    if id is None:
        return " has no 'id': give one, or the text alone"
    return None if isinstance(id, str) else f".id is {_called(id)}: ids are text, as by str(id)"


def _turns(messages: Any, images: Any) -> Any:
    """One or more messages as a conversation. Raises InvalidRequest if there is no message."""
    if isinstance(messages, str):
        if not messages.strip() and not images:
            raise InvalidRequest("chat: the message is empty: there is nothing to reply to")
        return [{"role": "user", "content": messages}]
    turns = _as_list(messages)
    if not isinstance(turns, list):
        fix = "give a list of it" if isinstance(turns, Mapping) else "give a text, or a list of messages"
        raise InvalidRequest(f"chat: messages is {_called(turns)}: {fix}")
    for number, turn in enumerate(turns):
        if turn is None or isinstance(turn, (str, bytes, int, float)):
            fix = "a message is like {'role': 'user', 'content': '…'}"
            raise InvalidRequest(f"chat: messages[{number}] is {_called(turn)}: {fix}")
    return turns


def _is_token_ids(text: Any) -> bool:
    """Whether it is a text as token ids, which some embedding servers take."""
    return isinstance(text, list) and bool(text) and all(type(one) is int for one in text)


def _all_texts(texts: Any) -> Any:
    """Check a list of texts. Raises InvalidRequest if there are none, or if one is not a text."""
    if isinstance(texts, list) and texts:
        if set(map(type, texts)) == {str}:
            return texts
        odd = next(
            (
                place
                for place, text in enumerate(texts)
                if isinstance(text, (bytes, list, tuple)) and not _is_token_ids(text)
            ),
            None,
        )
        if odd is None:
            return texts  # NaN and the like, which the reading of values tells
        raise InvalidRequest(
            f"embed: texts[{odd}] is {_called(texts[odd])}, and no text", details={"index": odd}
        )
    if isinstance(texts, str):
        return texts
    told = (
        "there are no texts" if texts == [] else f"texts is {_called(texts)}: give a text, or a list of them"
    )
    raise InvalidRequest(f"embed: {told}")


def _questions(given: Any) -> tuple[Any, Records[Record]]:
    """Questions from a list, or from the rows of a table or file, and warnings; other columns are ignored."""
    warnings: Records[Record] = Records()
    if isinstance(given, (str, os.PathLike)):
        path = os.fsdecode(given)
        if _suffix(path) not in ROWS or not os.path.exists(path):
            raise InvalidRequest(f"evaluate: there is no .jsonl, .csv or .parquet file {path!r}")
        try:
            if _suffix(path) == ".parquet":
                given = list(_table_rows(_parquet("evaluate", path).read()))
            elif _suffix(path) in (".csv", ".tsv"):

                def warn(warning: str) -> None:
                    warnings.append(Record(id=path, warning=warning))

                given = list(_separated("evaluate", path, warn)[1])
            else:
                given = list(_json_lines("evaluate", path))
        except (OSError, ValueError, OverflowError) as error:
            raise InvalidRequest(f"evaluate: {path!r} cannot be read: {_said(error)}") from error
        rows = True
    else:
        rows = _columns(given) is not None
    questions = list(_table_rows(_with_index(given))) if _columns(given) is not None else _as_list(given)
    for number, one in enumerate(questions if isinstance(questions, list) else ()):
        if not isinstance(one, Mapping) or not {"question", "gold"} <= one.keys():
            has = f"has {_some(list(map(str, one)))}" if isinstance(one, Mapping) else f"is {_called(one)}"
            wanted = "{'question': '…', 'gold': 'the id of the document that answers it'}"
            raise InvalidRequest(f"evaluate: questions[{number}] {has}: it is like {wanted}")
    if isinstance(questions, list):  # a table's other columns are left out
        questions = [
            {**({"question": one["question"]} if rows else one), "gold": _ids(one["gold"])}
            for one in questions
        ]
    return questions, warnings


def _ids(value: Any) -> Any:
    """An id, or a list or relevance of ids, with numbers as text, as a table's ids are."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, Mapping):
        return {_ids(id): relevance for id, relevance in value.items()}
    if isinstance(value, (list, tuple)):
        return [_ids(id) for id in value]
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return _whole(value) if is_number and not _is_missing(value) else value


def _is_several(given: Any) -> bool:
    """Whether it can be one or several documents."""
    if isinstance(given, (str, os.PathLike)) or _is_foreign(given):
        return True
    if isinstance(given, (bytes, bytearray, memoryview)):
        return False
    several = any(hasattr(given, name) for name in ("__iter__", "__aiter__", "__getitem__", "to_pylist"))
    return several and not isinstance(given, type)


def _called(item: Any) -> str:
    name = type(item).__name__
    return "None" if item is None else f"{'an' if name[:1] in 'aeioAEIO' else 'a'} {name}"


def _how(item: Any) -> str:
    """What to give instead of something that is not a document, for the error about it."""
    if hasattr(item, "model_dump") and not isinstance(item, type):
        return ": give its fields, as by .model_dump()"
    if hasattr(item, "__dataclass_fields__") and not isinstance(item, type):
        return ": give its fields, as by dataclasses.asdict()"
    if isinstance(item, Mapping):
        return " of columns: give a table, such as pandas.DataFrame(documents)"
    if isinstance(item, (tuple, list)):
        return ": give texts, dicts with 'id' and 'text', or rows as a table, such as pandas.DataFrame(documents)"
    if isinstance(item, (bytes, bytearray)):
        return ": give text, such as by .decode()"
    if hasattr(item, "readline"):
        return " that is open: rag_ingest_files(path) reads files; for a document a line, give list(file)"
    if hasattr(item, "itertuples") or hasattr(item, "to_dicts"):
        return " inside a list: ingest each table by itself"
    return ": give texts, dicts with 'id' and 'text', or a table; for files, use rag_ingest_files"


def _of(item: Any, name: str) -> Any:
    return item.get(name) if isinstance(item, Mapping) else None


def _whole(id: Any) -> str:
    """An id as text: "1" for 1.0, because pandas turns an integer column with a missing value into floats."""
    return str(int(id)) if isinstance(id, float) and id.is_integer() else str(id)


def _read_first(operation: str, text: Any) -> Any:
    """A text. Raises InvalidRequest for a file's path, which was meant to be read."""
    if text is None:
        raise InvalidRequest(f"{operation}: the text is None")
    if (path := _path_meant(text)) is not None or _is_called_like_a_file(text):
        said = _no_text(path or text, f"give Path({path or text!r}).read_text()")
        raise InvalidRequest(f"{operation}: this is {said}")
    return text


def _is_foreign(item: Any) -> bool:
    """Whether it is a LangChain or LlamaIndex document."""
    return hasattr(item, "page_content") or (hasattr(item, "get_content") and hasattr(item, "metadata"))


def _of_foreign(item: Any) -> dict[str, Any]:
    text = item.page_content if hasattr(item, "page_content") else item.get_content()
    id = getattr(item, "id_", None) or getattr(item, "id", None)
    return _identified({"text": text, "metadata": dict(item.metadata or {})}, str(id) if id else None)


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:10])) + (", …" if len(names) > 10 else "")


def _agent_input(value: Any) -> Any:
    """An agent's input as JSON: pydantic objects as dicts, pydantic classes as JSON Schemas, `files` with their contents."""
    if hasattr(value, "model_dump") and not isinstance(value, type):
        return value.model_dump(mode="json")
    if not isinstance(value, Mapping):
        return value
    plain = {name: _json_schema(one) if isinstance(one, type) else one for name, one in value.items()}
    if "files" in plain:
        plain["files"] = _files_sent(plain["files"])
    return plain


def _files_sent(paths: Any) -> Any:
    """Files, folders and patterns as names and contents. Raises InvalidRequest for what cannot be read."""
    if isinstance(paths, (list, tuple)) and all(isinstance(one, Mapping) for one in paths):
        return paths  # converted already
    failed: Records[Record] = Records()
    try:
        found = find_files(paths)
    except InvalidRequest as error:
        raise InvalidRequest(
            error.message.replace("rag_ingest_files: paths", "input.files"), details=error.details
        ) from None
    sent = list(file_contents([one for one in found if not isinstance(one[1], OSError)], failed))
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
    """The JSON Schema of a pydantic class; anything else as it is, for validation to judge."""
    if not hasattr(schema, "model_json_schema"):
        return schema
    try:
        return schema.model_json_schema()
    except Exception as error:  # pydantic's errors; this file does not import pydantic
        raise InvalidRequest(f"chat: schema: {schema.__name__} has no JSON Schema: {_said(error)}") from error


def _parsed(text: str, schema: Any) -> Any:
    if not hasattr(schema, "model_validate_json"):
        return _records(json.loads(text))
    try:
        return schema.model_validate_json(text)
    except ValueError as error:  # from a validator that JSON Schema cannot express
        raise BackendError(
            f"the reply fits the schema, but not {schema.__name__}: {_said(error)}", details={"text": text}
        ) from error


def _with_images(turns: Any, images: Any) -> list[Any]:
    """The conversation with images added to its last message."""
    given = [images] if isinstance(images, (str, bytes, os.PathLike)) else _as_list(images)
    if not isinstance(given, list):
        raise _no_image(["images"], f"takes URLs, paths or bytes, not {type(images).__name__}")
    if not isinstance(turns, list) or not turns or not isinstance(turns[-1], Mapping):
        raise _no_image(["images"], "there is no message to add them to")
    last = turns[-1]
    if last.get("role") != "user":
        raise _no_image(
            ["images"], f"the last message must be the user's, and its role is {last.get('role')!r}"
        )
    text = last.get("content")
    parts = [{"type": "text", "text": text}] if isinstance(text, str) else list(text or [])
    urls = [_image_url(image, ["images", number]) for number, image in enumerate(given)]
    parts += [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [*turns[:-1], {**last, "content": parts}]


# Image kinds by offset and magic bytes.
_IMAGE_MARKS = (
    ("png", 0, b"\x89PNG\r\n\x1a\n"),
    ("jpeg", 0, b"\xff\xd8\xff"),
    ("gif", 0, b"GIF87a"),
    ("gif", 0, b"GIF89a"),
    ("webp", 8, b"WEBP"),
)


def _image_url(image: Any, place: list[str | int]) -> str:
    """An image as a URL: URLs as they are, files and bytes as data: URLs."""
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
    raise _no_image(place, "is not a PNG, JPEG, GIF or WebP image")


def _no_image(place: list[str | int], reason: str) -> InvalidRequest:
    found = {"type": "image", "loc": place, "msg": reason}
    return InvalidRequest(f"chat: {position(place)}: {reason}", details={"errors": [found]})


def find_files(paths: Any) -> list[tuple[str, Any]]:
    """Files as (document name, path or content)."""
    given = [paths] if _is_named_content(paths) or isinstance(paths, (str, os.PathLike)) else _as_list(paths)
    if not isinstance(given, list):
        raise _no_file(["paths"], f"takes paths, or (name, bytes), not {type(paths).__name__}")
    found: list[tuple[str, Any]] = []
    for number, one in enumerate(given):
        if _is_named_content(one):
            found.append((one[0], bytes(one[1])))
        elif isinstance(one, (str, os.PathLike)):
            found += _find(os.path.expanduser(os.fsdecode(one)), ["paths", number])
        else:
            raise _no_file(["paths", number], f"must be a path, or (name, bytes), not {type(one).__name__}")
    return _named([(_in_unicode(name), file) for name, file in found])


def _in_unicode(name: str) -> str:
    """A name in which bytes that are no UTF-8, as other systems write them, are as in URLs: JSON has no other form for them."""
    return re.sub("[\udc80-\udcff]", lambda found: f"%{ord(found[0]) - 0xDC00:02X}", name)


def _is_named_content(one: Any) -> bool:
    pair = isinstance(one, (list, tuple)) and len(one) == 2
    return pair and isinstance(one[0], str) and isinstance(one[1], (bytes, bytearray, memoryview))


def _find(path: str, place: list[str | int]) -> Iterator[tuple[str, Any]]:
    """The files below a path as (name, path); with an OSError instead of the path if one cannot be read."""
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


_NO_FILE = "is a pipe, a socket or a device, not a file"


def _walked(folder: str) -> Iterator[tuple[str, Any]]:
    """The files below a folder as (name, path), or (name, OSError) for what cannot be read."""
    unread: list[OSError] = []
    for here, folders, names in os.walk(folder, onerror=unread.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for inner in (os.path.join(here, name) for name in folders):
            if os.path.islink(inner):
                error = OSError(0, "a link to a folder is not followed: pass that folder")
                yield _below(folder, inner) + "/", error
        for file in (os.path.join(here, name) for name in sorted(names) if not name.startswith(".")):
            # Only pipes and devices are refused here, as reading them may never end; a broken link fails on reading.
            is_file = os.path.isfile(file) or not os.path.exists(file)
            yield _below(folder, file), file if is_file else OSError(0, f"it {_NO_FILE}")
    for error in unread:
        yield _below(folder, error.filename) + "/", error


def _matching(pattern: str) -> Iterator[tuple[str, Any]]:
    """The files that match a pattern, as `_walked` gives them, named relative to the pattern's fixed part."""
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
    ):  # not `glob`, which follows link cycles and skips what it cannot read
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
    """Whether files below a folder may match."""
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
    """Files with names in Unicode's NFC form, because systems differ in how they write accented letters.

    Files with equal names are put side by side, so that they are sent together and the second is reported.
    """
    named: dict[str, list[Any]] = {}
    for name, file in found:
        named.setdefault(unicodedata.normalize("NFC", name), []).append(file)
    return [(name, file) for name, files in named.items() for file in files]


def _stored(report: Mapping[str, Any]) -> int:
    return sum(report.get(name, 0) for name in ("added", "updated", "unchanged"))


def _of_all(report: Progress | None, before: int, total: int) -> Progress | None:
    """A callback that reports one lot's progress as part of all files."""
    if report is None:
        return None
    # Files inside files count as documents too, so cap the count.
    return lambda state: report(Record({**state, "done": min(before + state["done"], total), "total": total}))


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


NEITHER = "neither text nor PDF, Word, Excel, PowerPoint, OpenDocument text, EPUB or mail"
"""Says what a file is that cannot be read."""
INSTEAD = {
    type: what
    for types, what in (
        (".gz .bz2 .xz .zst .zip .7z .rar .tar .tgz", "unpack it first"),
        (".doc .dot .docm .dotx .rtf .pages .wpd .wps", "save it as .docx or .pdf"),
        (".xls .xlsb .xlsm .ods .numbers", "save it as .xlsx"),
        (".ppt .pps .ppsx .pptm .odp .key", "save it as .pptx or .pdf"),
        (".mobi .azw .azw3 .djvu .ps .xps", "convert it to .epub or .pdf"),
        (".msg", "save it as .eml"),
        (".parquet", "rag_ingest(path) stores its rows"),
    )
    for type in types.split()
}
"""What to do with files of a type that is not read."""


def _is_text(file: Any) -> bool:
    """Whether a file begins like text, so that it is worth sending; the server checks the whole file."""
    head = file
    if not isinstance(file, bytes):
        try:
            with open(file, "rb") as opened:
                head = opened.read(8192)
        except OSError:
            return True  # reading it will tell why not
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):  # UTF-16
        return True
    controls = head.translate(None, _WRITTEN)
    return b"\0" not in controls and len(controls) <= max(4, len(head) // 30)


_WRITTEN = bytes(byte for byte in range(256) if byte >= 32 or byte in b"\t\n\f\r\x1b")


def file_lots(
    found: Sequence[tuple[str, Any]], failed: Records[Record], types: set[str]
) -> list[list[tuple[str, Any]]]:
    """Files in lots, one per request; unreadable and unsupported ones go to `failed`."""
    lots: list[list[tuple[str, Any]]] = [[]]
    room = UPLOAD_BYTES
    for name, file in found:
        if isinstance(file, OSError):
            failed.append(Record(id=name, error=f"cannot be read: {file.strerror}"))
            continue
        if _suffix(name) not in types and not _is_text(file):
            instead = f": {INSTEAD[_suffix(name)]}" if _suffix(name) in INSTEAD else ""
            failed.append(Record(id=name, error=f"unsupported type {_suffix(name)}: {NEITHER}{instead}"))
            continue
        try:
            size = len(file) if isinstance(file, bytes) else os.path.getsize(file)
        except OSError:
            size = 0  # gone meanwhile: reading it will fail
        if lots[-1] and size > room and lots[-1][-1][0] != name:
            lots.append([])
            room = UPLOAD_BYTES
        lots[-1].append((name, file))
        room -= size
    return lots


def file_contents(lot: Sequence[tuple[str, Any]], failed: Records[Record]) -> Iterator[dict[str, str]]:
    """The files as they are sent, `{name, content}` in base64; those that cannot be read go to `failed`."""
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
    return InvalidRequest(f"rag_ingest_files: {position(place)}: {reason}", details={"errors": [found]})


def _jsonable(value: Any) -> Any:
    """A Python value as JSON has it. Raises TypeError if there is none.

    Dates and times become RFC 3339 (UTC if they have no zone), enums their values, UUIDs and paths text, decimals numbers
    if no digit is lost, NumPy and Arrow scalars Python values, arrays and other sequences lists.
    """
    import decimal  # here, because few values need it and the import takes time

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
            raise TypeError(f"is {value}, which is not finite: leave it out")
        number = float(value) if value.adjusted() > 20 or value != value.to_integral_value() else int(value)
        if number in (_INFINITE, -_INFINITE) or decimal.Decimal(repr(number)) != value:
            raise TypeError(
                f"is {_short(value)}, a decimal that a float cannot hold exactly: give it as text"
            )
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
        raise TypeError("is a set, which JSON does not have: give it as a list")
    several = hasattr(value, "__iter__") and not isinstance(value, (bytes, bytearray, memoryview, type))
    fix = "a list" if several else "text, or as a number"
    raise TypeError(f"is {_called(value)}, which JSON does not have ({_short(value)}): give it as {fix}")


_INFINITE = float("inf")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def position(place: Sequence[str | int]) -> str:
    """A position in the arguments, such as `documents[2500].metadata.price`."""
    named = (
        f"[{part}]" if isinstance(part, int) else f".{part if part.strip() else repr(part)}" for part in place
    )
    return "".join(named).lstrip(".")


def _not_json(given: Any) -> tuple[list[str | int], str] | None:
    """The position of the first value that JSON cannot hold, and what is wrong with it."""
    waiting: list[tuple[Any, list[str | int]]] = [(given, [])]
    while waiting:
        value, place = waiting.pop()
        if len(place) > 100:
            return place[:3], "is nested too deeply, or contains itself"
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
                return place, f"is {float(value)}, which is not finite: leave it out"
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
        from llmbackend.importing import uncollected

        with uncollected():
            from llmbackend.local import LocalTransport
    except ModuleNotFoundError as error:
        raise TransportError(
            "nothing to talk to: pass api_url=... (or set LLM_BACKEND_URL), or, to run in this process, "
            f"pip install 'llmbackend[embedded]' (missing: {error.name})"
        ) from error
    return LocalTransport()
