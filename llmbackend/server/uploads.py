"""File uploads as multipart/form-data, from browsers and `curl -F`, parsed into an operation's fields."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote_to_bytes

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
    return _Parser(request.headers, content, max_files=MOST_FILES)  # type: ignore[arg-type]


_QUOTED = re.compile(rb'"(?:\\.|[^"\\])*"')
_EXTENDED = re.compile(rb";\s*filename\*\s*=\s*(utf-8|iso-8859-1)'[\w-]*'([^;\s]+)", re.IGNORECASE)


class _Parser(MultiPartParser):
    """Also takes file names as RFC 5987 writes them (`filename*=utf-8''na%C3%AFve.txt`), as older versions of requests do."""

    def on_headers_finished(self) -> None:
        disposition = self._current_part.content_disposition or b""
        if found := _EXTENDED.search(_QUOTED.sub(b'""', disposition)):
            try:
                name = unquote_to_bytes(found[2]).decode(found[1].decode())
            except UnicodeDecodeError:
                raise MultiPartException(f"a file's name is not {found[1].decode()}") from None
            escaped = name.replace("\\", "\\\\").replace('"', '\\"').encode()
            # The last of several names counts.
            self._current_part.content_disposition = disposition + b'; filename="' + escaped + b'"'
        super().on_headers_finished()


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
