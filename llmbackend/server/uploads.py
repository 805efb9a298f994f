"""File uploads as multipart/form-data, from browsers and `curl -F`, parsed into an operation's fields."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from .. import schemas, threads
from ..disk import Disk, translated
from ..errors import BackendError, InvalidRequest
from ..operations import Operation
from ..settings import Settings
from .bodies import Body

FORM = "multipart/form-data"
MOST_FILES = schemas.FILES


def takes(operation: Operation) -> bool:
    """Whether an operation takes files."""
    return "files" in operation.request.model_fields


async def as_fields(
    operation: Operation, request: Request, content: Body, settings: Settings
) -> dict[str, Any]:
    """The operation's fields from a form. Large files are kept on disk until the form is complete.

    Raises InvalidRequest if the form cannot be read, InsufficientStorage if the disk has no room for its files.
    """
    try:
        with _room(request, settings):
            form = await _parser(request, content).parse()
    except MultiPartException as error:
        raise InvalidRequest(f"{operation.name}: the form cannot be read: {error.message}") from error
    try:
        return await threads.processor(_fields, operation, form)
    finally:
        await form.close()


def _parser(request: Request, content: Body) -> MultiPartParser:
    # MultiPartParser only iterates over it.
    return MultiPartParser(request.headers, content, max_files=MOST_FILES)  # type: ignore[arg-type]


@contextmanager
def _room(request: Request, settings: Settings) -> Iterator[None]:
    told = request.headers.get("content-length", "")
    size = int(told) if told.isdecimal() else settings.max_body_bytes
    if size <= MultiPartParser.spool_max_size:  # all of it stays in memory
        yield
        return
    disk = _temporary(settings.disk_reserve_mb)
    with disk.writing(size), translated(disk.folder):
        yield


@cache
def _temporary(reserve_mb: int | None) -> Disk:
    """The disk that uploaded files are kept on."""
    try:
        return Disk.of(Path(tempfile.gettempdir()), reserve_mb)
    except FileNotFoundError as error:
        raise BackendError(
            "there is no writable folder for temporary files: make room on its disk, or set TMPDIR to another",
            details={"backend": "temporary files"},
        ) from error


def _fields(operation: Operation, form: FormData) -> dict[str, Any]:
    files: list[dict[str, Any]] = []
    fields: dict[str, Any] = {}
    for name, value in form.multi_items():
        if not isinstance(value, UploadFile):
            fields[name] = _value(operation, name, value)
        elif value.filename or value.size:  # browsers send an empty file field as a file without a name
            files.append({"name": value.filename or "", "content": value.file.read()})
    return {**fields, "files": files}


def _value(operation: Operation, name: str, text: str) -> Any:
    """A field's value in its declared type; an invalid one stays text, for validation to refuse."""
    field = operation.request.model_fields.get(name)
    if field is None:
        return text
    kind: Any = Annotated[field.annotation, field]
    try:
        return TypeAdapter(kind).validate_strings(text, strict=False)
    except ValidationError:
        return text
