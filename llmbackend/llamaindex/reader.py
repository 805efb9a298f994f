"""Our file formats as a LlamaIndex reader."""

from __future__ import annotations

import asyncio
import base64
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from functools import cache
from typing import Any

from llama_index.core.readers.base import BaseReader
from llama_index.core.schema import Document

import llm_client

from ..errors import InvalidRequest
from ..files.documents import from_files
from ..files.pool import Limits, ParsingPool
from ..files.syntax import ParsedDocument
from ..plugins import READERS
from ..schemas import Document as Document_
from ..schemas import Failure, File
from .calling import call
from .node_parser import SYNTAX


class FileReader(BaseReader):
    """Reads files, folders and patterns into documents, as `rag_ingest_files` does, in processes without
    rights on this machine.

    A document's id is the file's path below its folder, or its name; its metadata have that as `source`. A
    file that cannot be read raises InvalidRequest; with `raise_on_error=False`, it is added to `failed`
    instead, and the others go on. `warnings` has what was replaced or left out of a file. It can be a
    `file_extractor` of SimpleDirectoryReader.
    """

    def __init__(self, limits: Limits, *, raise_on_error: bool = True) -> None:
        self.failed: list[dict[str, str]] = []
        self.warnings: list[dict[str, str]] = []
        self._limits = limits
        self._raise = raise_on_error

    def load_data(
        self,
        paths: llm_client.File | Sequence[llm_client.File],
        extra_info: dict[str, Any] | None = None,
        fs: Any = None,
    ) -> list[Document]:
        return list(self._read(self._found(paths, fs), extra_info or {}))

    async def aload_data(
        self,
        paths: llm_client.File | Sequence[llm_client.File],
        extra_info: dict[str, Any] | None = None,
        fs: Any = None,
    ) -> list[Document]:
        return await call(self.load_data, paths, extra_info, fs)

    def lazy_load_data(
        self,
        paths: llm_client.File | Sequence[llm_client.File],
        extra_info: dict[str, Any] | None = None,
        fs: Any = None,
    ) -> Iterable[Document]:
        """Yield the documents, reading some files at a time."""
        return self._read(self._found(paths, fs), extra_info or {})

    def _read(self, found: Sequence[tuple[str, Any]], extra: dict[str, Any]) -> Iterator[Document]:
        failed: llm_client.Records[llm_client.Record] = llm_client.Records()
        types = {"", *llm_client.FILE_TYPES.split(), *READERS}
        for lot in llm_client.file_lots(found, failed, types):
            files = [
                File.model_construct(name=one["name"], content=base64.b64decode(one["content"]))
                for one in llm_client.file_contents(lot, failed)
            ]
            self._fail(failed)
            failed.clear()
            for one in _parsers(self._limits, os.getpid()).parse(files):
                if isinstance(one, Failure):
                    self._fail([one.model_dump()])
                else:
                    assert isinstance(one, ParsedDocument), "files are parsed"
                    yield self._document(one, extra)
        self._fail(failed)

    def _document(self, parsed: ParsedDocument, extra: dict[str, Any]) -> Document:
        self.warnings += [{"id": parsed.id, "warning": said} for said in parsed.warnings]
        return Document(
            id_=parsed.id,
            text=parsed.text,
            metadata={**parsed.metadata, SYNTAX: parsed.syntax, **extra},
            excluded_embed_metadata_keys=[SYNTAX],
            excluded_llm_metadata_keys=[SYNTAX],
        )

    def _found(self, paths: Any, fs: Any) -> list[tuple[str, Any]]:
        if fs is not None:
            paths = (str(paths).rpartition("/")[2], fs.cat_file(str(paths)))
        return llm_client.find_files(paths)

    def _fail(self, failed: Sequence[Any]) -> None:
        """Raise an error for the first failure, or keep them all."""
        if failed and self._raise:
            raise InvalidRequest(
                f"{failed[0]['id']}: {failed[0]['error']}", details={"failed": [dict(one) for one in failed]}
            )
        self.failed += [dict(one) for one in failed]


class _Parsers:
    """Parsing processes, kept between calls, on an event loop of their own."""

    def __init__(self, limits: Limits) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="llmbackend-reader", daemon=True).start()
        self._pool: ParsingPool | None = None
        self._limits = limits

    def parse(self, files: Sequence[File]) -> list[Document_ | Failure]:
        work = asyncio.run_coroutine_threadsafe(self._parse(files), self._loop)
        return _result(work)

    async def _parse(self, files: Sequence[File]) -> list[Document_ | Failure]:
        if self._pool is None:
            self._pool = ParsingPool(self._limits)
        return [one async for _, some in from_files(self._pool, files) for one in some]


def _result(work: Future[list[Document_ | Failure]]) -> list[Document_ | Failure]:
    try:
        return work.result()
    except BaseException:  # an interrupted wait
        work.cancel()
        raise


@cache
def _parsers(limits: Limits, process: int) -> _Parsers:
    """The parsing processes of this process; after a fork, the child starts its own, because threads are not
    inherited."""
    return _Parsers(limits)
