"""The client for `await`. Written by sdk/make_async.py from sdk/llm_client.py: change that, and run it again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from array import array
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar, cast, overload

from llm_client import (
    _BESIDE,
    _DIMENSIONS,
    _EXPORT,
    _THINKS,
    _THOUGHT,
    CHUNKS_OF,
    EMBED_PAGE,
    ENDED,
    FILE_TYPES,
    ROUTES,
    ROWS_PAGE,
    AgentRun,
    Analysis,
    Answer,
    BackendTimeout,
    ChunkInfo,
    CollectionInfo,
    Conflict,
    CreatedKey,
    Document,
    DocumentInfo,
    Embeddings,
    EmbeddingsFile,
    Evaluation,
    File,
    Health,
    Hit,
    Hits,
    Image,
    IngestReport,
    InvalidRequest,
    Job,
    JobExpired,
    KeyInfo,
    LLMBackendError,
    ModelInfo,
    NotFound,
    ParsedReply,
    Progress,
    RankedText,
    Record,
    Records,
    Reply,
    Source,
    StoredDocument,
    StreamInterrupted,
    TooLarge,
    TransportError,
    Usage,
    _add,
    _agent_input,
    _as_list,
    _contents,
    _environment,
    _exported,
    _find_files,
    _further_on,
    _joined,
    _json_schema,
    _lots,
    _message,
    _Model,
    _named,
    _no_file,
    _of_all,
    _pace,
    _parsed,
    _pictures,
    _progress,
    _ProgressBar,
    _read_first,
    _records,
    _result,
    _Source,
    _stored,
    _suffix,
    _vectors_to,
    _with_images,
)

from .async_transports import AsyncHttpTransport, AsyncTransport, ahead, batches, in_thread, local_transport

_AsyncClient = TypeVar("_AsyncClient", bound="AsyncLLMBackendClient")


async def _events(
    chunks: AsyncIterator[bytes], alive: Callable[[], None] = lambda: None
) -> AsyncIterator[dict[str, Any]]:
    """The JSON events of a server-sent-event stream; ends at [DONE], raises what an error event carries.

    `alive` is called whenever anything comes, be it a heartbeat.
    """
    buffer = b""
    async for chunk in chunks:
        alive()
        buffer += chunk
        *events, buffer = buffer.replace(b"\r\n", b"\n").split(b"\n\n")
        for event in events:
            data = b"\n".join(line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:"))
            if not data:
                continue
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


async def _rows(chunks: AsyncIterator[bytes]) -> AsyncIterator[Any]:
    """The values of JSON lines; raises what a line that is an error carries."""
    buffer = b""
    async for chunk in chunks:
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


async def _close(chunks: AsyncIterator[bytes]) -> None:
    close = getattr(chunks, "close", None)
    if close is not None:
        await close()


class _TextStream(AsyncIterator[str]):
    """Pieces of text as they come; `close()` (or leaving a `with` block) stops the model's work too."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._events = _events(chunks)
        self._pieces: list[str] = []

    async def __anext__(self) -> str:
        try:
            while True:
                event = await anext(self._events)
                try:
                    piece = self._take(event)
                except (AttributeError, TypeError, ValueError) as error:
                    raise StreamInterrupted("the stream carries something that is no reply") from error
                if piece:
                    self._pieces.append(piece)
                    return piece
        except LLMBackendError as error:
            await self.close()
            raise StreamInterrupted(
                f"the stream broke off: {error}", text="".join(self._pieces), details=error.to_dict()
            ) from error

    def _take(self, event: dict[str, Any]) -> str:
        raise NotImplementedError

    async def close(self) -> None:
        """Stop reading and tell the other side to stop."""
        await _close(self._chunks)

    async def __aenter__(self) -> Any:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class AsyncReplyStream(_TextStream):
    """What `chat(stream=True)` returns: an iterator of text pieces; after the last, `reply` is the whole Reply."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
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
        text, beside = ("".join(self._pieces), self._beside)
        while (ended := _THOUGHT.search(text)) and (not _THINKS.search(text, 0, ended.start())):
            before = beside.get("reasoning_content") or beside.get("reasoning")
            thoughts, text = (text[: ended.start()].strip(), text[ended.end() :].lstrip())
            beside = {**beside, "reasoning_content": "\n".join(filter(None, [before, thoughts]))}
        calls = [self._tool_calls[index] for index in sorted(self._tool_calls)]
        return Reply(
            text,
            model=self._model,
            usage=self._usage,
            finish_reason=self._finish_reason,
            message=_message({**beside, "content": text, "tool_calls": calls}),
        )


class AsyncAnswerStream(_TextStream):
    """What `rag_query(stream=True)` returns: `sources` are there before the first piece; `answer` after the last."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        super().__init__(chunks)
        self._final: dict[str, Any] = {}
        self.sources: Records[Source] = Records()

    async def _begin(self) -> None:
        """Read the sources, which the server sends first."""
        first = await anext(self._events, None)
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


class AsyncAgentStream(AsyncIterator[Record]):
    """What `run_agent(stream=True)` returns: an iterator of events, each with a `type`; after the last, `run` is the AgentRun.

    `step` (`{id, parent, name, kind, status}`, which began or ended), `text` (`{delta}`), `tool_call` (`{id, tool,
    arguments}`), `tool_result` (`{id, tool, output, failed}`), `needs_approval` (`{run_id, pending}`), `done` (`{run}`).
    `close()`, or leaving a `with` block, ends the run, unless it is a job.
    """

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._events = _events(chunks)
        self._run: AgentRun | None = None

    async def __anext__(self) -> Record:
        try:
            event = _records(await anext(self._events))
        except LLMBackendError:
            await self.close()
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

    async def close(self) -> None:
        """Stop reading and tell the other side to stop."""
        await _close(self._chunks)

    async def __aenter__(self) -> AsyncAgentStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class AsyncLLMBackendClient:
    """Chat, embeddings, RAG, jobs and document analysis for `await`, in this process or over HTTP.

    The calls, results and errors of LLMBackendClient, which says what they are; made by the same arguments.

        async with AsyncLLMBackendClient() as client:
            reply = await client.chat("Analyze this data...")
            async for piece in await client.chat("Go on.", stream=True):
                print(piece, end="")

    In this process the work is done on the loop that first uses the client, which is to be the only one. Cancelling
    the task that waits for a call ends the call's work. Use `async with`, or `await client.close()` before the loop ends.
    """

    def __init__(
        self,
        api_url: str | None = None,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        timeout: float = 600,
        retries: int = 2,
        transport: AsyncTransport | None = None,
    ) -> None:
        if api_url and base_url:
            raise InvalidRequest("api_url and base_url are two names of one thing: give one of them")
        if transport is None:
            api_url = api_url or base_url
            environment = _environment()
            named = environment.get("LLM_BACKEND_URL")
            api_url = api_url or named
            if api_url:
                if api_key is None and api_url == named:
                    api_key = environment.get("LLM_BACKEND_API_KEY")
                transport = AsyncHttpTransport(api_url, api_key, timeout, retries)
            else:
                transport = local_transport()
        self._transport = transport

    def __repr__(self) -> str:
        return f"AsyncLLMBackendClient({self._transport!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {"_transport": self._transport}

    def __deepcopy__(self: _AsyncClient, memo: Any) -> _AsyncClient:
        return self

    async def __aenter__(self: _AsyncClient) -> _AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of connections, files and threads; the client is not usable afterwards."""
        await self._transport.close()

    def __getitem__(self, collection: str) -> AsyncCollectionHandle:
        """A collection by its name, whether it is there or not: `client["hr_policies"].search("Vacation policy?")`."""
        return AsyncCollectionHandle(self, collection)

    __iter__ = None

    async def _call(self, operation: str, **fields: Any) -> Record:
        return _result(await self._transport.call(operation, self._given(operation, fields)))

    async def _stream(self, operation: str, **fields: Any) -> AsyncIterator[bytes]:
        """A streaming operation's events, or lines."""
        return await self._transport.stream(operation, self._given(operation, {**fields, "stream": True}))

    async def _watched(self, operation: str, progress: bool | Progress | None, **fields: Any) -> Record:
        """The report of a long operation, with a bar or whatever else shows its progress."""
        with _progress(progress, operation) as tell:
            return await self._reported(operation, tell, fields)

    async def _reported(self, operation: str, tell: Progress | None, fields: Mapping[str, Any]) -> Record:
        """The report of a long operation; where somebody wants to know, its progress on the way."""
        if tell is None:
            return await self._call(operation, **fields)
        report = Record()
        stream = await self._stream(operation, **fields)
        try:
            async for event in _events(stream):
                if "progress" in event:
                    tell(_records(event["progress"]))
                report = _records(event.get("report", {})) or report
        finally:
            await _close(stream)
        return report

    @staticmethod
    def _given(operation: str, fields: dict[str, Any]) -> dict[str, Any]:
        given = {name: value for name, value in fields.items() if value is not None}
        method, path = ROUTES[operation]
        for name in [part[1:-1] for part in path.split("/") if part.startswith("{")]:
            value = str(given.get(name, ""))
            parts = value.split("/", 1) if name == "collection" else [value]
            slashes = name != "model" and any("/" in part for part in parts)
            if slashes or {"", ".", ".."}.intersection(parts):
                reason = f"it is part of a path, and cannot be {value!r}"
                found = {"type": "path", "loc": [name], "msg": reason}
                raise InvalidRequest(f"{operation}: {name}: {reason}", details={"errors": [found]})
        if method in ("GET", "DELETE"):
            given = {name: str(value) for name, value in given.items()}
        return given

    @overload
    async def chat(
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
    async def chat(
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
    async def chat(
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
    ) -> AsyncReplyStream: ...

    async def chat(
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
    ) -> Reply | AsyncReplyStream:
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
            return AsyncReplyStream(await self._stream("chat", **fields, stream_options=usage))
        result = await self._call("chat", **fields)
        choice = result["choices"][0]
        text, message = (choice["message"].get("content") or "", _message(choice["message"]))
        kind = ParsedReply if hasattr(schema, "model_validate_json") else Reply
        return kind(
            text,
            model=result.get("model") or "",
            usage=result.get("usage"),
            finish_reason=choice.get("finish_reason"),
            message=message,
            parsed=None if schema is None or "tool_calls" in message else _parsed(text, schema),
        )

    async def respond(
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
    ) -> Record | AsyncIterator[Record]:
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
            return self._told(await self._stream("respond", **fields))
        return await self._call("respond", **fields)

    async def _told(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[Record]:
        """A response's events."""
        try:
            async for event in _events(chunks):
                yield _records(event)
        except LLMBackendError as error:
            raise StreamInterrupted(f"the stream broke off: {error}", details=error.to_dict()) from error
        finally:
            await _close(chunks)

    async def get_response(
        self, response_id: str, *, stream: bool = False, starting_after: int | None = None
    ) -> Record | AsyncIterator[Record]:
        """A response that was kept, by its id; with `stream=True` its events, once it is over. Raises NotFound."""
        if stream:
            fields = {"response_id": response_id, "starting_after": starting_after}
            return self._told(await self._stream("get_response", **fields))
        return await self._call("get_response", response_id=response_id)

    async def delete_response(self, response_id: str) -> Record:
        """Forget a response; one that is being made is stopped. Raises NotFound."""
        return await self._call("delete_response", response_id=response_id)

    async def cancel_response(self, response_id: str) -> Record:
        """Stop a response that is made in the background. Raises NotFound, InvalidRequest for others."""
        return await self._call("cancel_response", response_id=response_id)

    async def list_input_items(
        self, response_id: str, *, limit: int = 20, order: str = "desc", after: str | None = None
    ) -> Records[Record]:
        """What a response was made from: a page of items, after the one with the id `after`. Raises NotFound."""
        page = await self._call(
            "list_input_items", response_id=response_id, limit=limit, order=order, after=after
        )
        return Records(page["data"])

    async def models(self) -> Records[ModelInfo]:
        """The models this backend offers, as `{id, type}`: chat and embedding models, and `rag/<collection>`."""
        return Records(map(ModelInfo, (await self._call("models"))["data"]))

    async def get_model(self, model: str) -> ModelInfo:
        """A model of `models()` by its id. Raises NotFound."""
        return ModelInfo(await self._call("get_model", model=model))

    async def embed(
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
        if hasattr(texts, "__next__") or hasattr(texts, "__aiter__"):
            return await self.batch_embed(
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
                reply = await self._transport.call("embed", self._given("embed", {"input": page, **fields}))
            except InvalidRequest as error:
                raise _further_on(error, start) from error.__cause__
            head = reply[: reply.find(b"\n") + 1]
            result = _result(head)
            blocks.append(memoryview(reply)[len(head) :])
            cut += [Record({**one, "index": one["index"] + start}) for one in result["cut"]]
            _add(usage, result["usage"])
        data = blocks[0] if len(blocks) == 1 else b"".join(blocks)
        return Embeddings.decode(data, result["dimension"], model=result["model"], usage=usage, cut=cut)

    @overload
    async def batch_embed(
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
    async def batch_embed(
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

    async def batch_embed(
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
        done, began = (0, time.monotonic())
        with _progress(progress, "batch_embed") as tell, _vectors_to(out, source) as target:
            try:
                async for page, reply in ahead(
                    self._transport,
                    "embed",
                    batches(source),
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

    async def embed_single(
        self,
        text: str,
        *,
        model: str | None = None,
        dimensions: int | None = None,
        too_long: Literal["split", "truncate", "error"] = "split",
        input_type: Literal["query", "passage"] | None = None,
    ) -> list[float]:
        """The unit-length vector of one text, as a list of floats. Takes and raises what `embed` does."""
        return (
            await self.embed(
                [text], model=model, dimensions=dimensions, too_long=too_long, input_type=input_type
            )
        )[0]

    async def rerank(
        self, query: str, documents: Sequence[str], *, top_n: int | None = None, model: str | None = None
    ) -> Records[RankedText]:
        """Texts ordered by how well they answer a query, best first: `{index, score, text}`, all or `top_n` of them.

        `index` is a text's place in `documents`, from 0. Scores are the model's, mostly from 0 to 1, and
        compare within one answer only. Needs a rerank server behind llmbackend.

        Raises InvalidRequest (an empty text or query, no documents), NotFound (unknown model), BackendError
        (none is set, or it failed), BackendTimeout.
        """
        texts = _as_list(documents)
        result = await self._call(
            "rerank", query=query, documents=texts, top_n=top_n, model=model, return_documents=False
        )
        return Records(
            RankedText(index=one["index"], score=one["relevance_score"], text=texts[one["index"]])
            for one in result["results"]
        )

    async def rag_ingest(
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
                async for batch in batches(source):
                    requests += 1
                    alone = source.ended and requests == 1
                    given = {**fields, "documents": batch, "sync": sync and alone}
                    _add(total, await self._reported("rag_ingest", source.telling(tell, total), given))
            except LLMBackendError as error:
                source.tell(
                    error, "ingested", _stored(total), "documents before it are in: run it again to go on"
                )
                raise
            if sync and requests > 1:
                total["deleted"] += await self._swept(collection, source, total, plan)
        total["failed"].extend(source.failed)
        total["warnings"].extend(source.warnings)
        if source.columns is not None:
            total["columns"] = Record(source.columns)
        return total

    async def _swept(self, collection: str, source: _Source, report: Mapping[str, Any], plan: bool) -> int:
        """Remove what a source does not have, nor failed; returns how many documents that are."""
        kept = (source.ids or set()) | {one["id"] for one in (*report["failed"], *source.failed)}
        try:
            gone = [one["id"] for one in await self.list_documents(collection) if one["id"] not in kept]
        except NotFound:
            return 0
        for start in range(0, 0 if plan else len(gone), 1000):
            await self.delete_documents(collection, gone[start : start + 1000])
        return len(gone)

    async def rag_ingest_files(
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
        found = _named(await in_thread(_find_files, paths))
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
        lots = _lots(found, total["failed"], await self._file_types(found))
        here = done = len(total["failed"])
        with _progress(progress) as tell:
            for lot in lots:
                before = len(total["failed"])
                files = list(await in_thread(_contents, lot, total["failed"]))
                here += len(total["failed"]) - before
                if sync and lot is lots[-1]:
                    fields |= {"sync": True, "keep": [name for name, _ in found]}
                if files or "sync" in fields:
                    async for part in self._sent(files, fields, _of_all(tell, done, len(found))):
                        _add(total, part)
                del files
                done += len(lot)
        if plan:
            total["documents"] += here
        return total

    async def _file_types(self, found: Sequence[tuple[str, Any]]) -> set[str]:
        """The ends of files' names that are read: ours and, if others are among these, those of a project's readers."""
        known = {"", *FILE_TYPES.split()}
        if {_suffix(name) for name, _ in found} <= known:
            return known
        return known | set((await self._call("health")).get("own_file_types", ()))

    async def _sent(
        self, files: Sequence[Any], fields: Mapping[str, Any], progress: Progress | None
    ) -> AsyncIterator[Record]:
        """The reports on files, which go in parts where the server takes less at a time; only the last part syncs."""
        try:
            yield (await self._reported("rag_ingest_files", progress, {**fields, "files": files}))
        except TooLarge as error:
            if not files:
                raise
            middle = len(files) // 2
            if middle:
                async for one in self._sent(files[:middle], {**fields, "sync": False}, progress):
                    yield one
                async for one in self._sent(files[middle:], fields, progress):
                    yield one
                return
            yield Record(failed=[Record(id=files[0]["name"], error=error.message)])
            if fields.get("sync"):
                async for one in self._sent([], fields, progress):
                    yield one

    async def rag_search(
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
        result = await self._call(
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
    async def rag_query(
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
    async def rag_query(
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
    ) -> AsyncAnswerStream: ...

    async def rag_query(
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
    ) -> Answer | AsyncAnswerStream:
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
            answer = AsyncAnswerStream(await self._stream("rag_query", **fields))
            await answer._begin()
            return answer
        result = await self._call("rag_query", **fields)
        return Answer(
            result["answer"],
            found=result["found"],
            citations=result["citations"],
            sources=result["sources"],
            model=result["model"],
            usage=result["usage"],
            explanation=result.get("explanation"),
        )

    async def evaluate(
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
        return Evaluation(await self._watched("evaluate", progress, **fields))

    async def list_collections(self, *, counts: bool = True) -> Records[CollectionInfo]:
        """All collections, as `get_collection` describes each.

        Without `counts`, `documents` and `chunks` are None, and no vector engine is asked.
        """
        return Records(
            map(CollectionInfo, (await self._call("list_collections", counts=counts))["collections"])
        )

    async def create_collection(
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
            await self._call(
                "create_collection",
                collection=collection,
                chunk_size=chunk_size,
                chunk_overlap=chunk_overlap,
                indexes=indexes,
                engine=engine,
                parser=parser,
            )
        )

    async def set_indexes(self, collection: str, indexes: Mapping[str, str | None]) -> CollectionInfo:
        """Make or change indexes of metadata fields, as `create_collection` takes them; None removes one.

        The others stay. Filters find the same with and without, but in large collections not as fast, and a Qdrant
        server in strict mode, as Qdrant Cloud's are, takes none without. In this process's own engine they are built in
        the background. Returns the collection's description. Raises NotFound, InvalidRequest (they are too many).
        """
        return CollectionInfo(await self._call("set_indexes", collection=collection, indexes=indexes))

    async def get_collection(self, collection: str) -> CollectionInfo:
        """`{name, embedding_model, sparse_model, dimension, chunk_size, chunk_overlap, documents, chunks, created_at, indexes,
        engine}`, the last of which are the options of a Qdrant server that it was made with.

        One that could not be read when it was last asked also has `damaged`, which is True, and `problem`: why, and what to do; its `documents`
        and `chunks` are None.
        Raises NotFound.
        """
        return CollectionInfo(await self._call("get_collection", collection=collection))

    async def delete_collection(self, collection: str) -> Record:
        """Remove a collection with all its documents; returns `{deleted, documents}`.

        `documents` is None where that is not known: of a damaged one, and of one not opened since a kill. Raises NotFound.
        """
        return await self._call("delete_collection", collection=collection)

    async def reindex_collection(
        self, collection: str, *, model: str | None = None, progress: bool | Progress | None = None
    ) -> Record:
        """Embed a collection's stored texts anew with the embedding model that is set now.

        For a collection that another model made, which is neither searched nor added to until then. It goes on
        being used meanwhile, and stays as it was if this fails. `model`, where given, must be the one that is set.
        `progress` as in `rag_ingest`, in chunks.

        Returns `{collection, from_model, to_model, documents, chunks, tokens, seconds}`. Raises NotFound, Conflict (it is
        being reindexed already), InvalidRequest (another `model`), BackendError.
        """
        return await self._watched("reindex_collection", progress, collection=collection, model=model)

    async def export_collection(self, collection: str, path: str | os.PathLike[str]) -> Record:
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
                    page = await self._call("export_collection", collection=collection, cursor=cursor)
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

    async def import_collection(
        self, path: str | os.PathLike[str], *, collection: str | None = None
    ) -> Record:
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
                token = (await self._call("import_collection", manifest=head, **given))["token"]
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
                        if len(chunks) == 500 or size > 4000000:
                            await self._call("import_collection", chunks=chunks, **given)
                            chunks, size = ([], 0)
                    if end != count:
                        raise InvalidRequest(f"import_collection: {source} ends too early: export it again")
                    done = await self._call("import_collection", chunks=chunks, last=True, **given)
                except BaseException:
                    with contextlib.suppress(LLMBackendError):
                        await self._call("import_collection", abort=True, **given)
                    raise
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidRequest(f"import_collection: {source} cannot be read: {error}") from error
        return Record(collection=given["collection"], documents=done["documents"], chunks=done["chunks"])

    async def list_documents(self, collection: str, *, limit: int | None = None) -> Records[DocumentInfo]:
        """A collection's documents as `{id, chunks, metadata}`: all, or the first `limit`. Raises NotFound.

        What is replaced meanwhile is there once.
        """
        return Records(
            map(
                DocumentInfo,
                await self._paged("list_documents", "documents", limit, key="id", collection=collection),
            )
        )

    async def list_chunks(
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
                if left is None or left > 0 or (not found):
                    some = given[start : start + CHUNKS_OF]
                    found += await self.list_chunks(collection, ids=some, filters=filters, limit=left)
            return found
        return Records(
            map(
                ChunkInfo,
                await self._paged(
                    "list_chunks", "chunks", limit, collection=collection, ids=given, filters=filters
                ),
            )
        )

    async def _paged(
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
            elif isinstance(limit, int) and limit > 0:
                page = min(1000, limit - len(items))
            result = await self._call(operation, limit=page, cursor=cursor, **fields)
            for item in result[name]:
                place = places.setdefault(item[key], len(items)) if key else len(items)
                items[place : place + 1] = [item]
            cursor = result.get("cursor")
            if cursor is None or len(items) == limit:
                return items

    async def get_document(self, id: str, collection: str) -> StoredDocument:
        """A document as it is stored: `{id, text, metadata, chunks}`.

        The text is put together from its chunks, as many as `chunks` says: white space between them may be another.
        Raises NotFound (the document, or the collection).
        """
        return StoredDocument(await self._call("get_document", id=id, collection=collection))

    async def delete_documents(
        self, collection: str, ids: Sequence[str] | None = None, *, where: Mapping[str, Any] | None = None
    ) -> Record:
        """Remove documents by their ids, or those of which a chunk fits `where`, which are filters as in `rag_search`.

        Returns `{deleted}`, how many there were. Raises NotFound (the collection), InvalidRequest (both, or neither).
        """
        given = _as_list(ids)
        return await self._call("delete_documents", collection=collection, ids=given, where=where)

    async def analyze_document(self, text: str) -> Analysis:
        """What a document says: `{sentiment, sentiment_score, key_points, positions, summary, coverage, facts, notes, model}`.

        `sentiment` is positive, negative, neutral or mixed, `sentiment_score` from -1 (negative) to 1 (English texts;
        others are neutral). `key_points` is a list of sentences, and `positions` has for each `{start, end}` in the text,
        or None where it is in a model's own words. With the embedded model, summary and key points are sentences of the
        text, as they stand there but for their white space; of a larger one's, what has numbers or quotations that the
        text does not have is left out, and `notes` says so. `coverage` is `{parts, read, words}`; `facts`, of English
        contracts, has `parties`, `dates`, `amounts` and `obligations`, each `{text, start, end}`.
        Raises InvalidRequest (empty text), BackendError.
        """
        return Analysis(await self._call("analyze_document", text=_read_first("analyze_document", text)))

    async def submit_job(
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
            params = {**params, "input": await in_thread(_agent_input, params["input"])}
        return str(
            (
                await self._call(
                    "submit_job",
                    job_type=job_type,
                    params=params,
                    priority=priority,
                    run_at=moment,
                    depends_on=others,
                    idempotency_key=idempotency_key,
                    webhook=webhook,
                )
            )["id"]
        )

    async def batch_chat(
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
            async for page in batches(_Source("batch_chat", prompts, text=text, texts=True)):
                given += page
        told = await self._call(
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

    async def get_job_status(self, job_id: str) -> Job:
        """A job: `{id, type, status, owner, progress, attempts, result, error, priority, created_at, …}`.

        `status` is queued, running, completed, failed or cancelled, `progress` `{done, total, stage, rate,
        eta}` (a second, seconds). `result` is there once completed, with all its rows however many
        (`get_job_result` reads them in pages), until it has `expired`; `error` (`{code, message, details}`)
        once failed. Raises NotFound.
        """
        return await self._with_rows(await self._call("get_job_status", job_id=job_id))

    @overload
    async def get_job_result(
        self,
        job_id: str,
        *,
        offset: int = 0,
        limit: int = 1000,
        partial: bool = False,
        stream: Literal[False] = False,
    ) -> Record: ...

    @overload
    async def get_job_result(
        self, job_id: str, *, offset: int = 0, limit: int = 1000, partial: bool = False, stream: Literal[True]
    ) -> AsyncIterator[Any]: ...

    async def get_job_result(
        self, job_id: str, *, offset: int = 0, limit: int = 1000, partial: bool = False, stream: bool = False
    ) -> Record | AsyncIterator[Any]:
        """A page of a completed job's result: `{result, offset, total, rows}`, as often as you like.

        `rows` are the `limit` rows from `offset` on: Embeddings, where they are vectors. With
        `stream=True`, an iterator of all rows from `offset` on, one after the other, of which only a page
        is in memory; vectors come as `{index, embedding}`. `partial` gives the rows that there are so far, of a
        job that is not completed, too.

        Raises NotFound, Conflict (not completed), JobExpired.
        """
        fields = {"job_id": job_id, "offset": offset, "limit": limit, "partial": partial or None}
        if stream:
            return _rows(await self._stream("get_job_result", **fields))
        given = self._given("get_job_result", {**fields, "encoding_format": "bytes"})
        head, has_block, block = (await self._transport.call("get_job_result", given)).partition(b"\n")
        page = _result(head)
        if has_block:
            page["rows"] = Embeddings.decode(block, page["dimension"], model=page.result.get("model", ""))
        return page

    async def _with_rows(self, job: Record) -> Job:
        """With the rows of its result as a caller wants them: all there, and vectors as Embeddings."""
        result, rows = (job["result"], job["rows"])
        if result is not None and rows is not None:
            if not rows["inline"]:
                result[rows["name"]] = await self._all_rows(job["id"], rows["count"])
            elif rows["dimension"]:
                packed, model = (result[rows["name"]], result.get("model", ""))
                result[rows["name"]] = Embeddings.decode(packed, rows["dimension"], model=model)
        return Job(job)

    async def _all_rows(self, job_id: str, count: int) -> Any:
        values: array[float] = array("f")
        others: list[Any] = []
        for offset in range(0, count, ROWS_PAGE):
            page = await self.get_job_result(job_id, offset=offset, limit=ROWS_PAGE)
            if isinstance(page["rows"], Embeddings):
                values.extend(page["rows"].values)
            else:
                others += page["rows"]
        if values:
            return Embeddings(values, page["dimension"], model=page["result"].get("model", ""))
        return _records(others)

    async def job_events(self, job_id: str, *, last_event_id: int = 0) -> AsyncIterator[Record]:
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
                stream = await self._stream("job_events", job_id=job_id, last_event_id=last_event_id)
                async for event in _events(stream, alive):
                    last_event_id = event["id"]
                    yield Record(id=last_event_id, job=Job(_records(event["job"])))
                return
            except (TransportError, StreamInterrupted) as error:
                away = away or time.monotonic()
                if error.details.get("closed") or time.monotonic() - away > 60:
                    raise
                await asyncio.sleep(0.5)

    async def wait_for_job(
        self, job_id: str, timeout: float | None = None, *, progress: bool | Progress | None = None
    ) -> Any:
        """The result of a job, once it is there.

        Raises the job's own error if it failed, Conflict if it was cancelled, JobExpired, BackendTimeout if it
        is not done after `timeout` seconds (it goes on), NotFound. A server that is away for up to a minute, to be
        started again, is waited for. `progress` as in `rag_ingest`.
        """
        with _progress(progress) as tell:
            job = await self._ended(job_id, timeout, tell)
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

    async def _ended(self, job_id: str, timeout: float | None, tell: Progress | None) -> Job:
        """The job, once it has ended; raises BackendTimeout."""
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = 0.02
        seen: float | None = None
        while True:
            try:
                job = await self.get_job_status(job_id)
            except TransportError as error:
                now = time.monotonic()
                gone = error.details.get("closed")
                if gone or seen is None or now - seen > 60 or (deadline and now > deadline):
                    raise
                await asyncio.sleep(1)
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
            await asyncio.sleep(
                pause if deadline is None else max(0.0, min(pause, deadline - time.monotonic()))
            )
            pause = min(pause * 1.5, 1.0)

    async def list_jobs(
        self, *, status: str | None = None, job_type: str | None = None, limit: int = 50
    ) -> Records[Job]:
        """The newest jobs as `get_job_status` gives them, without their results."""
        result = await self._call("list_jobs", status=status, job_type=job_type, limit=limit)
        return Records(Job(job) for job in result["jobs"])

    async def cancel_job(self, job_id: str) -> Job:
        """Stop a job before its next step; returns its status. One that has ended stays as it is. Raises NotFound."""
        return await self._with_rows(await self._call("cancel_job", job_id=job_id))

    async def retry_job(self, job_id: str) -> Job:
        """Have a job that failed or was cancelled go on from its last checkpoint; returns its status.

        Raises NotFound, Conflict (it did neither, or one that it depends on did).
        """
        return await self._with_rows(await self._call("retry_job", job_id=job_id))

    @overload
    async def run_agent(
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
    async def run_agent(
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
    ) -> AsyncAgentStream: ...

    async def run_agent(
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
    ) -> AgentRun | AsyncAgentStream:
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
            "input": await in_thread(_agent_input, input),
            "model": model,
            "max_steps": max_steps,
            "max_tokens": max_tokens,
            "max_seconds": max_seconds,
        }
        if stream:
            return AsyncAgentStream(await self._stream("run_agent", **fields))
        return AgentRun(await self._call("run_agent", **fields))

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

    async def list_agents(self) -> Record:
        """What there is to run: `{agents, tools}`.

        `agents` are `{name, description, own, tools, input, output}`, the last two JSON Schemas of what one takes and gives
        in a shape of its own; `tools` are `{name, description, writes, parameters}`.
        """
        return await self._call("list_agents")

    async def approve(self, run_id: str) -> Job:
        """Have a run that waits for it (`status` "needs_approval") call what it asked for, and go on; the run, as a job.

        `wait_for_job(run_id)` gives its result. Raises NotFound, and Conflict for one that waits for nobody's word.
        """
        return Job(await self._call("approve", run_id=run_id))

    async def reject(self, run_id: str, *, why: str = "") -> Job:
        """Refuse what a run waits for: it is told `why`, and goes on without; the run, as a job. Raises as `approve`."""
        return Job(await self._call("reject", run_id=run_id, why=why))

    async def set_schedule(
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
        return await self._call(
            "set_schedule",
            name=name,
            cron=cron,
            job_type=job_type,
            params=params,
            timezone=timezone,
            priority=priority,
        )

    async def list_schedules(self) -> Records[Record]:
        """The schedules of this key's project, as `set_schedule` returns each; for the administrator, those of all.

        There, those of other projects are named `project/name`, by which `delete_schedule` takes them, too.
        """
        return Records((await self._call("list_schedules"))["schedules"])

    async def delete_schedule(self, name: str) -> Record:
        """End a schedule; jobs that it has submitted go on. Returns `{deleted}`. Raises NotFound."""
        return await self._call("delete_schedule", name=name)

    async def share_collection(self, collection: str, with_project: str, *, can: str = "read") -> Record:
        """Let another project use a collection: "read" it, or "write" to it, too; or share it otherwise than before.

        There it is called `project/collection`, by this project's name, in lists, searches and as the model
        `rag/project/collection`. Deleting and sharing it stay this project's. Returns `{collection, with_project, can,
        created_at}`. Raises NotFound, InvalidRequest.
        """
        return await self._call("share_collection", collection=collection, with_project=with_project, can=can)

    async def unshare_collection(self, collection: str, with_project: str) -> Record:
        """Share a collection with that project no more, from the next second on in every process.

        Returns as `share_collection` did. Raises NotFound.
        """
        return await self._call("unshare_collection", collection=collection, with_project=with_project)

    async def list_shares(self) -> Records[Record]:
        """The collections that this project shares, and those that are shared with it, as `share_collection` returns."""
        return Records((await self._call("list_shares"))["shares"])

    async def create_key(
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
        created = await self._call(
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

    async def list_keys(self, *, project: str | None = None) -> Records[KeyInfo]:
        """The API keys of this client's project, or of all projects to the administrator: `{id, project, can,
        collections, models, rate, concurrent, tokens, jobs, chunks, bytes, note, created_at, created_by, expires_at, rotating_until,
        revoked_at, last_used_at}`. The `id` is what the key begins with.
        """
        return Records(map(KeyInfo, (await self._call("list_keys", project=project))["keys"]))

    async def rotate_key(self, key: str, *, overlap: str = "1h") -> CreatedKey:
        """Give the API key of that id another secret, and tell it once; the secret before counts for the `overlap`.

        Its id stays, and so do its rights, its jobs and its schedules. Rotated again, only the last secret before counts.
        Returns as `create_key`. Raises NotFound, Forbidden (it may do more than this client).
        """
        return CreatedKey(await self._call("rotate_key", key=key, overlap=overlap))

    async def revoke_key(self, key: str) -> KeyInfo:
        """Have the API key of that id count no more, within a second, in every process.

        Streams and jobs that came with it are ended; a call that does not stream is answered. Schedules submit nothing
        more. Returns as `list_keys`. Raises NotFound.
        """
        return KeyInfo(await self._call("revoke_key", key=key))

    async def audit(
        self, *, since: str = "30d", action: str | None = None, before: int | None = None, limit: int = 100
    ) -> Records[Record]:
        """Who changed keys, deleted, shared, exported, imported or was refused, the newest first: `{number, at, project,
        caller, client, request_id, action, target, outcome}`.

        `action` is an operation such as "revoke_key", or "refused"; `before` is the last `number` of the page before. For
        keys with the right "admin", who see their own project.
        """
        return Records(
            (await self._call("audit", since=since, action=action, before=before, limit=limit))["entries"]
        )

    async def prompts(self) -> Records[Record]:
        """What models are told: `{name, version, text, collection, own}`, those of collections that the key may read, too."""
        return Records((await self._call("prompts"))["prompts"])

    async def usage(
        self, *, by: str | Sequence[str] = "project,model", since: str = "30d", until: str | None = None
    ) -> Usage:
        """Who used how much, up to now: a list of `{requests, errors, prompt_tokens, completion_tokens, embedded_tokens, …}`.

        `by` is some of "project", "key", "model", "operation" and "day": there is a row for each combination, with those
        names in it. `since` and `until` are days: "7d" (so many, up to today), or a date such as "2026-11-28", in UTC.
        `estimated_tokens` are those among the tokens that no server told; `cost` is by the server's prices, or None.
        A key sees its own project. A table in notebooks, and `.plot()`.
        """
        names = by if isinstance(by, str) else ",".join(by)
        result = await self._call("usage", by=names, since=since, until=until)
        shown = (*result["rows"][0],) if result["rows"] else ()
        hidden = {name for name in _DIMENSIONS if name not in names.split(",")}
        hidden |= {"cost"} if all(row["cost"] is None for row in result["rows"]) else set()
        return Usage(
            Record({name: row[name] for name in shown if name not in hidden}) for row in result["rows"]
        )

    async def health(self) -> Health:
        """`{status, problems, parts, version, chat, embeddings, own_file_types}`: "ok", and which models answer.

        Where something does not work, the status is "failing", and `problems` tell what it is and what to do. `parts`
        has each part that was at work, with "ok" or what is wrong.
        """
        return Health(await self._call("health"))

    async def doctor(self) -> Record:
        """Whether everything behind llmbackend works: `{ok, version, checks}`, in a few seconds at most.

        There is a check for each model server, embedded model, a Qdrant server and the data directory: `{name,
        server, ok, url, models, version, limits, latency_ms, fix}`, where `fix` says what is wrong and what to do.
        """
        return await self._call("doctor")


class AsyncCollectionHandle:
    """One collection of a client's, by `client["hr_policies"]`: the client's calls without its name.

    `options` are those that the client's methods have.
    """

    def __init__(self, client: AsyncLLMBackendClient, name: str) -> None:
        if not isinstance(name, str):
            raise InvalidRequest(f"client[…] takes a collection's name, not {type(name).__name__}")
        self._client = client
        self.name = name

    def __repr__(self) -> str:
        return f"{self._client!r}[{self.name!r}]"

    async def ingest(self, documents: Any, **options: Any) -> IngestReport:
        """Put documents into it, as `rag_ingest` does."""
        return await self._client.rag_ingest(documents, self.name, **options)

    async def ingest_files(self, paths: File | Sequence[File], **options: Any) -> IngestReport:
        """Put files into it, as `rag_ingest_files` does."""
        return await self._client.rag_ingest_files(paths, self.name, **options)

    async def search(self, query: str | None = None, **options: Any) -> Hits:
        """The passages nearest to a query, or to a `vector`, as `rag_search` gives them."""
        return await self._client.rag_search(query, self.name, **options)

    async def query(self, question: str, **options: Any) -> Any:
        """An answer from its documents, as `rag_query` gives it."""
        return await self._client.rag_query(question, self.name, **options)

    async def documents(self, *, limit: int | None = None) -> Records[DocumentInfo]:
        """Its documents, as `list_documents` gives them."""
        return await self._client.list_documents(self.name, limit=limit)

    async def get(self, id: str) -> StoredDocument:
        """A document as it is stored, as `get_document` gives it."""
        return await self._client.get_document(id, self.name)

    async def delete(
        self, ids: str | Sequence[str] | None = None, *, where: Mapping[str, Any] | None = None
    ) -> Record:
        """Remove documents by their ids, or by filters, as `delete_documents` does."""
        given = [ids] if isinstance(ids, str) else ids
        return await self._client.delete_documents(self.name, given, where=where)

    async def stats(self) -> CollectionInfo:
        """What it has and was made with, as `get_collection` tells it."""
        return await self._client.get_collection(self.name)

    async def evaluate(self, questions: Sequence[Mapping[str, Any]], **options: Any) -> Evaluation:
        """How well search finds the documents that answer some questions, as `evaluate` tells it."""
        return await self._client.evaluate(self.name, questions, **options)

    async def map(
        self, color: str | None = None, query: str | None = None, *, limit: int = 2000, axes: Any = None
    ) -> Any:
        """Its documents as points in two dimensions, on matplotlib's axes, which are returned.

        Each is the mean of its chunks' vectors (of the collection's first `limit` chunks), coloured by the metadata field
        `color`, and near others that are like it. `query` is marked among them.
        """
        chunks: list[Any] = []
        cursor: str | None = None
        while len(chunks) < limit:
            page = await self._client._call("export_collection", collection=self.name, cursor=cursor)
            chunks += page["chunks"]
            cursor = page.get("cursor")
            if cursor is None:
                break
        asked = await self._client.embed([query], input_type="query") if query else None
        return _pictures().plot_collection(self.name, chunks[:limit], color, query, asked, axes)
