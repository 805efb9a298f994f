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
    ROWS,
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
    Id,
    Image,
    IngestReport,
    InvalidRequest,
    Job,
    JobExpired,
    KeyInfo,
    LLMBackendError,
    ModelInfo,
    ModelResponse,
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
    _all_texts,
    _as_list,
    _called,
    _each,
    _environment,
    _exported,
    _further_on,
    _Handle,
    _ids,
    _joined,
    _json_schema,
    _message,
    _Model,
    _no_file,
    _no_text,
    _of_all,
    _pace,
    _parsed,
    _path_meant,
    _pictures,
    _progress,
    _ProgressBar,
    _questions,
    _read_first,
    _records,
    _result,
    _Source,
    _stored,
    _suffix,
    _tell_order,
    _turns,
    _vectors_to,
    _waits,
    _warn,
    _with_images,
    file_contents,
    file_lots,
    find_files,
)

from .async_local import local_transport
from .async_transports import AsyncHttpTransport, AsyncTransport, ahead, batches, in_thread

_AsyncClient = TypeVar("_AsyncClient", bound="AsyncLLMBackendClient")


async def _events(
    chunks: AsyncIterator[bytes], alive: Callable[[], None] = lambda: None
) -> AsyncIterator[dict[str, Any]]:
    """The JSON events of a server-sent-event stream, up to [DONE]; an error event is raised as its error.

    `alive` is called whenever anything arrives, even a heartbeat.
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
    """The values of JSON lines; a line with an error is raised as that error."""
    buffer = b""
    async for chunk in chunks:
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


async def _close(chunks: AsyncIterator[bytes]) -> None:
    close = getattr(chunks, "close", None)
    if close is not None:
        await close()


class _TextStream(AsyncIterator[str]):
    """Pieces of text as they arrive; `close()`, or leaving a `with` block, stops the model's work too."""

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
                    raise StreamInterrupted("the stream carries something that is not a reply") from error
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
    """Returned by `chat(stream=True)`: an iterator of text pieces; after the last, `reply` is the whole Reply."""

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
    """Returned by `rag_query(stream=True)`: text pieces; `sources` are there before the first, `answer` after the last."""

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
            notes=self._final.get("notes", ()),
            explanation=self._final.get("explanation"),
        )


class AsyncAgentStream(AsyncIterator[Record]):
    """Returned by `run_agent(stream=True)`: an iterator of events, each with a `type`; after the last, `run` is the AgentRun.

    Events: `step` (`{id, parent, name, kind, status}`, began or ended), `text` (`{delta}`), `tool_call` (`{id, tool,
    arguments}`), `tool_result` (`{id, tool, output, failed}`), `needs_approval` (`{run_id, pending}`), `done` (`{run}`).
    `close()`, or leaving a `with` block, ends the run unless it is a job.
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
        """The finished run. Raises Conflict until the `done` event has been read."""
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
            raise InvalidRequest("api_url and base_url mean the same: give only one of them")
        if transport is None:
            api_url = base_url if api_url is None else api_url
            if api_url is not None and (not str(api_url).strip()):
                raise InvalidRequest(
                    "api_url is empty: is the variable set that it comes from? Leave api_url out to work in this process"
                )
            environment = _environment()
            named = environment.get("LLM_BACKEND_URL")
            api_url = api_url or named
            if api_url:
                if api_key is None and (not named or api_url.rstrip("/") == named.rstrip("/")):
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
        """Release connections, files and threads; the client cannot be used afterwards."""
        await self._transport.close()

    def __getitem__(self, collection: str) -> AsyncCollectionHandle:
        """A handle on a collection, which need not exist yet: `client["hr_policies"].search("Vacation policy?")`."""
        return AsyncCollectionHandle(self, collection)

    __iter__ = None

    async def _call(self, operation: str, **fields: Any) -> Record:
        given = self._given(operation, fields)
        if hasattr(self._transport, "read"):
            return _result(await self._transport.read(operation, given))
        return _result(await self._transport.call(operation, given))

    async def _stream(self, operation: str, **fields: Any) -> AsyncIterator[bytes]:
        """A streaming operation's events, or lines, as raw pieces."""
        return await self._transport.stream(operation, self._given(operation, {**fields, "stream": True}))

    async def _watched(self, operation: str, progress: bool | Progress | None, **fields: Any) -> Record:
        """The report of a long operation, with a progress bar or callback."""
        with _progress(progress, operation) as tell:
            return await self._reported(operation, tell, fields)

    async def _reported(self, operation: str, tell: Progress | None, fields: Mapping[str, Any]) -> Record:
        """The report of a long operation; streams its progress to `tell` if given."""
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
                reason = (
                    f"it is part of a path, and cannot be {value!r}"
                    if name in given
                    else "is missing, or None"
                )
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
            return AsyncReplyStream(await self._stream("chat", **fields, stream_options=usage))
        result = await self._call("chat", **fields)
        choice, told = (result["choices"][0], result.get("usage"))
        text, message = (choice["message"].get("content") or "", _message(choice["message"]))
        kind = ParsedReply if hasattr(schema, "model_validate_json") else Reply
        return kind(
            text,
            model=result.get("model") or "",
            usage=told if isinstance(told, dict) else None,
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
    ) -> ModelResponse | AsyncIterator[Record]:
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
            return self._told(await self._stream("respond", **fields))
        return ModelResponse(await self._call("respond", **fields))

    async def _told(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[Record]:
        """A response's events."""
        try:
            async for event in _events(chunks):
                told = _records(event)
                if "response" in told:
                    told["response"] = ModelResponse(told["response"])
                yield told
        except LLMBackendError as error:
            raise StreamInterrupted(f"the stream broke off: {error}", details=error.to_dict()) from error
        finally:
            await _close(chunks)

    async def get_response(
        self, response_id: str, *, stream: bool = False, starting_after: int | None = None
    ) -> ModelResponse | AsyncIterator[Record]:
        """A stored response by its id; with `stream=True`, its events once it has ended. Raises NotFound."""
        if stream:
            fields = {"response_id": response_id, "starting_after": starting_after}
            return self._told(await self._stream("get_response", **fields))
        return ModelResponse(await self._call("get_response", response_id=response_id))

    async def delete_response(self, response_id: str) -> Record:
        """Delete a stored response; one still being made is stopped. Raises NotFound."""
        return await self._call("delete_response", response_id=response_id)

    async def cancel_response(self, response_id: str) -> ModelResponse:
        """Stop a response made in the background; returns it. Raises NotFound, InvalidRequest for any other response."""
        return ModelResponse(await self._call("cancel_response", response_id=response_id))

    async def list_input_items(
        self, response_id: str, *, limit: int = 20, order: str = "desc", after: str | None = None
    ) -> Records[Record]:
        """A page of the items that a response was made from, after the item with the id `after`. Raises NotFound."""
        page = await self._call(
            "list_input_items", response_id=response_id, limit=limit, order=order, after=after
        )
        return Records(page["data"])

    async def models(self) -> Records[ModelInfo]:
        """The available models as `{id, type, …}`: chat and embedding models, agents, and a `rag/<collection>` each."""
        return Records(map(ModelInfo, (await self._call("models"))["data"]))

    async def get_model(self, model: str) -> ModelInfo:
        """One of `models()` by its id. Raises NotFound."""
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
        """Embed texts: returns their unit-length vectors in order, as a sequence of lists of floats or by `.numpy()`.

        A text longer than the model's limit is embedded in parts and gets their mean ("split"), is cut off ("truncate")
        or refused ("error"); `.cut` lists such texts. `dimensions` shortens the vectors, if the model supports it.
        `input_type` is for models with different prompts for questions ("query") and for texts to be found ("passage"):
        they get the prompts that collections use.

        Raises InvalidRequest (no texts; an empty or refused text, whose position is `details["index"]`), NotFound
        (unknown model), BackendError.
        """
        if hasattr(texts, "__next__") or hasattr(texts, "__aiter__"):
            return await self.batch_embed(
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
        done, began = (0, time.monotonic())
        with _progress(progress, "batch_embed") as tell, _vectors_to(out, source) as target:
            try:
                async for page, reply in ahead(
                    self._transport,
                    "embed",
                    batches(source),
                    lambda page: self._given("embed", {"input": page or _all_texts(page), **fields}),
                ):
                    head = reply[: reply.find(b"\n") + 1]
                    result = _result(head)
                    target.write(memoryview(reply)[len(head) :], result["dimension"])
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

    async def embed_single(
        self,
        text: str,
        *,
        model: str | None = None,
        dimensions: int | None = None,
        too_long: Literal["split", "truncate", "error"] = "split",
        input_type: Literal["query", "passage"] | None = None,
    ) -> list[float]:
        """Embed one text: returns its unit-length vector as a list of floats. Takes and raises what `embed` does."""
        return (
            await self.embed(
                [text], model=model, dimensions=dimensions, too_long=too_long, input_type=input_type
            )
        )[0]

    async def rerank(
        self, query: str, documents: Sequence[str], *, top_n: int | None = None, model: str | None = None
    ) -> Records[RankedText]:
        """Order texts by how well they answer a query, best first; returns `{index, score, text}` for all or `top_n`.

        `index` is a text's position in `documents`, from 0. Scores are the model's own, usually 0 to 1, and comparable
        only within one call. Needs a rerank server behind llmbackend.

        Raises InvalidRequest (an empty text or query, no documents), NotFound (unknown model), BackendError
        (no reranker is set, or it failed), BackendTimeout.
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
                async for batch in batches(source):
                    if not (batch or source.failed):
                        raise InvalidRequest("rag_ingest: there are no documents")
                    requests += 1
                    alone = source.ended and source.broken is None and (requests == 1)
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
        """Delete documents that the source neither has nor failed to give; returns how many."""
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
        found = await in_thread(find_files, paths)
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
        lots = file_lots(found, total["failed"], await self._file_types(found))
        here = done = len(total["failed"])
        with _progress(progress) as tell:
            for lot in lots:
                before = len(total["failed"])
                files = list(await in_thread(file_contents, lot, total["failed"]))
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
        """The file extensions that can be read: ours and, if other files are among these, those of a project's readers."""
        known = {"", *FILE_TYPES.split()}
        if {_suffix(name) for name, _ in found} <= known:
            return known
        return known | set((await self._call("health")).get("own_file_types", ()))

    async def _sent(
        self, files: Sequence[Any], fields: Mapping[str, Any], progress: Progress | None
    ) -> AsyncIterator[Record]:
        """The reports on files, sent in halves again and again if the server finds them too large; only the last syncs."""
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
        hits.query, hits.notes = (query or "", result.get("notes", ()))
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
            notes=result.get("notes", ()),
            explanation=result.get("explanation"),
        )

    async def evaluate(
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
        asked, warnings = await in_thread(_questions, questions)
        fields = {"collection": collection, "questions": asked, "k": k}
        return Evaluation(await self._watched("evaluate", progress, **fields), warnings=warnings)

    async def list_collections(self, *, counts: bool = True) -> Records[CollectionInfo]:
        """All collections, each as `get_collection` returns it.

        With `counts=False` no vector engine is asked, and `documents` and `chunks` are None.
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
        """Create or change indexes on metadata fields, as in `create_collection`; None removes one, others stay.

        Filters find the same without an index, but more slowly in large collections; a Qdrant server in strict mode, as
        in Qdrant Cloud, refuses filters without one. The embedded engine builds indexes in the background.

        Returns the collection as `get_collection` does. Raises NotFound, InvalidRequest (also if there are too many, or none
        to remove).
        """
        return CollectionInfo(await self._call("set_indexes", collection=collection, indexes=indexes))

    async def get_collection(self, collection: str) -> CollectionInfo:
        """Describe a collection: `{name, embedding_model, sparse_model, dimension, chunk_size, chunk_overlap, documents,
        chunks, created_at, indexes, engine, …}`.

        `chunk_size` and `chunk_overlap` are in tokens; `engine` has the Qdrant server options it was created with. If the
        collection could not be read the last time, `damaged` is True, `problem` says why and what to do, and `documents`
        and `chunks` are None. Raises NotFound.
        """
        return CollectionInfo(await self._call("get_collection", collection=collection))

    async def delete_collection(self, collection: str) -> Record:
        """Delete a collection with all its documents; returns `{deleted, documents}`.

        `documents` is None if the number is unknown: the collection is damaged, or was not opened since a crash. Raises
        NotFound.
        """
        return await self._call("delete_collection", collection=collection)

    async def reindex_collection(
        self, collection: str, *, model: str | None = None, progress: bool | Progress | None = None
    ) -> Record:
        """Embed a collection's stored texts again with the embedding model that is set now.

        A collection embedded by another model can be neither searched nor added to until this is done. Otherwise it
        stays in use meanwhile; if reindexing fails, it stays as it was. `model`, if given, must be the model that is
        set. `progress` is as in `rag_ingest`, in chunks.

        Returns `{collection, from_model, to_model, documents, chunks, tokens, seconds}`. Raises NotFound, Conflict
        (already being reindexed), InvalidRequest (another `model`), BackendError.
        """
        return await self._watched("reindex_collection", progress, collection=collection, model=model)

    async def export_collection(self, collection: str, path: str | os.PathLike[str]) -> Record:
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
        except OSError as error:
            raise InvalidRequest(f"import_collection: {source} cannot be read: {error}") from error
        except UnicodeDecodeError as error:
            raise InvalidRequest(
                f"import_collection: {source} cannot be read: it is no text, so no exported collection"
            ) from error
        return Record(collection=given["collection"], documents=done["documents"], chunks=done["chunks"])

    async def list_documents(self, collection: str, *, limit: int | None = None) -> Records[DocumentInfo]:
        """A collection's documents as `{id, chunks, metadata}`: all, or the first `limit`. Raises NotFound.

        They are sorted by id, but which documents are the first `limit` is not defined. A document that is replaced meanwhile
        appears once.
        """
        found = await self._paged("list_documents", "documents", limit, key="id", collection=collection)
        return Records(map(DocumentInfo, sorted(found, key=lambda document: document["id"])))

    async def list_chunks(
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
                if left is None or left > 0 or (not found):
                    some = given[start : start + CHUNKS_OF]
                    found += await self.list_chunks(collection, ids=some, filters=filters, limit=left)
            return found
        listed = await self._paged(
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

    async def _paged(
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
            elif isinstance(limit, int) and limit > 0:
                page = min(1000, limit - len(items))
            result = await self._call(operation, limit=page, cursor=cursor, **fields)
            for item in result[name]:
                place = places.setdefault(item[key], len(items)) if key else len(items)
                items[place : place + 1] = [item]
            cursor, items.notes = (result.get("cursor"), result.get("notes", ()))
            if cursor is None or len(items) == limit:
                return items

    async def get_document(self, id: Id, collection: str) -> StoredDocument:
        """A stored document: `{id, text, metadata, chunks}`.

        The text is joined from its chunks (`chunks` is their number), so white space between them may differ from the
        original. Raises NotFound (the document or the collection).
        """
        try:
            return StoredDocument(await self._call("get_document", id=_ids(id), collection=collection))
        except NotFound as error:
            _tell_order(error, collection, id, "get_document takes the id first, then the collection")
            raise

    async def delete_documents(
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
            result = await self._call(
                "delete_documents", collection=collection, ids=given, filters=filters, where=where
            )
        except NotFound as error:
            _tell_order(error, collection, ids, "delete_documents takes the collection first, then the ids")
            raise
        if not result.get("notes"):
            result.pop("notes", None)
        return result

    async def analyze_document(self, text: str) -> Analysis:
        """Analyze a text: `{sentiment, sentiment_score, key_points, positions, summary, coverage, facts, notes, model}`.

        `sentiment` is positive, negative, neutral or mixed, `sentiment_score` -1 (negative) to 1 (English only; other
        texts are neutral). `key_points` is a list of sentences; `positions` has the `{start, end}` of each in the text, or
        None for one in a model's own words. With the embedded model, summary and key points are sentences of the text,
        verbatim except for white space. With a larger one, statements with numbers or quotations that the text does not
        have are left out, and `notes` says so. `coverage` is `{parts, read, words}`. `facts`, for English contracts, has
        `parties`, `dates`, `amounts` and `obligations`, each `{text, start, end}`.

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
        """The state of a job: `{id, type, status, owner, progress, attempts, result, error, priority, created_at, …}`.

        `status` is queued, running, completed, failed or cancelled; `progress` is `{done, total, stage, rate, eta}` with
        the rate per second and the eta in seconds. Once completed, `result` has all its rows (`get_job_result` reads them
        in pages), until it has `expired`. Once failed, `error` is `{code, message, details}`. Raises NotFound.
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
        """A page of a completed job's result: `{result, offset, total, rows}`. May be called any number of times.

        `rows` are up to `limit` rows from `offset` on; vectors come as Embeddings. With `stream=True`, returns an iterator
        of all rows from `offset` on that keeps only a page in memory; vectors come as `{index, embedding}`. With
        `partial=True` it also works on a job that is not completed, with the rows so far.

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
        """The job with all rows of its result, vectors as Embeddings."""
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
        """Wait for a job to end; returns its result.

        Waits up to a minute for a server that is restarting. `progress` is as in `rag_ingest`. If the job waits for `approve`
        or `reject`, a UserWarning says so. Raises the job's own error if it failed, Conflict if it was cancelled,
        JobExpired, NotFound, BackendTimeout if it is not done after `timeout` seconds (the job goes on).
        """
        with _progress(progress) as tell:
            job = await self._ended(job_id, timeout, tell)
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

    async def _ended(self, job_id: str, timeout: float | None, tell: Progress | None) -> Job:
        """The job, once it has ended. Raises BackendTimeout."""
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = 0.02
        seen: float | None = None
        told: Any = None
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
                    f"job {job_id} {goes_on}", details={"job_id": job_id, "status": job["status"]}
                )
            await asyncio.sleep(
                pause if deadline is None else max(0.0, min(pause, deadline - time.monotonic()))
            )
            pause = min(pause * 1.5, 1.0)

    async def list_jobs(
        self, *, status: str | None = None, job_type: str | None = None, limit: int = 50
    ) -> Records[Job]:
        """The newest jobs, up to `limit`, as `get_job_status` returns them but without results."""
        result = await self._call("list_jobs", status=status, job_type=job_type, limit=limit)
        return Records(Job(job) for job in result["jobs"])

    async def cancel_job(self, job_id: str) -> Job:
        """Cancel a job before its next step; returns it. A job that has ended stays as it is. Raises NotFound."""
        return await self._with_rows(await self._call("cancel_job", job_id=job_id))

    async def delete_job(self, job_id: str) -> Record:
        """Delete a job that has ended, with its params and result; returns `{deleted}`.

        Raises NotFound, Conflict (the job is queued or running: cancel it first).
        """
        return await self._call("delete_job", job_id=job_id)

    async def retry_job(self, job_id: str) -> Job:
        """Resume a failed or cancelled job from its last checkpoint; returns it.

        Raises NotFound, Conflict (it has neither failed nor been cancelled, or a job that it depends on has).
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
        """A tool's name; a function is registered in this process first."""
        if isinstance(tool, str):
            return tool
        offer = getattr(self._transport, "offer_tool", None)
        if offer is None:
            raise InvalidRequest(
                "tools: a server only runs its own tools: give their names; functions work in process only"
            )
        return str(offer(tool))

    async def list_agents(self) -> Record:
        """The available agents and tools: `{agents, tools}`.

        `agents` are `{name, description, own, tools, input, output}`, the last two JSON Schemas of an agent's structured
        input and output, if it has any; `tools` are `{name, description, writes, parameters}`.
        """
        return await self._call("list_agents")

    async def approve(self, run_id: str) -> Job:
        """Approve the tool calls that a run waits for (`status` "needs_approval"); it continues. Returns its job.

        `wait_for_job(run_id)` gives its result. Raises NotFound, Conflict (the run does not wait for approval).
        """
        return Job(await self._call("approve", run_id=run_id))

    async def reject(self, run_id: str, *, why: str = "") -> Job:
        """Reject the tool calls that a run waits for; the agent is told `why`, and continues without them.

        Returns and raises what `approve` does.
        """
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
        """Submit a job at the times of a cron expression such as "30 2 * * MON-FRI".

        Its fields are minute, hour, day, month and weekday; with six fields, the first is seconds ("0 30 2 * * MON-FRI").
        Times are local to `timezone` ("Europe/Berlin"). If nothing was running at the time, the job is submitted once
        later; if the schedule's last job has not ended, none is, and the schedule's `error` says so. A schedule of the same
        name is replaced. Returns `{name, cron, timezone, job_type, priority, next_at, error}`. Raises InvalidRequest, as
        `submit_job` does.
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
        """The schedules of this key's project, each as `set_schedule` returns it.

        The administrator sees those of all projects, named `project/name`, which `delete_schedule` takes too.
        """
        return Records((await self._call("list_schedules"))["schedules"])

    async def delete_schedule(self, name: str) -> Record:
        """Delete a schedule; jobs that it has submitted go on. Returns `{deleted}`. Raises NotFound."""
        return await self._call("delete_schedule", name=name)

    async def share_collection(self, collection: str, with_project: str, *, can: str = "read") -> Record:
        """Share a collection with another project, which may then "read" it, or "write" to it too; changes an existing share.

        The other project sees it as `project/collection`, with this project's name, and as the model
        `rag/project/collection`. Only this project can delete or share it. Returns `{collection, with_project, can,
        created_at}`. Raises NotFound (also, for the administrator, if no project has the name, and one has a similar name),
        InvalidRequest.
        """
        return await self._call("share_collection", collection=collection, with_project=with_project, can=can)

    async def unshare_collection(self, collection: str, with_project: str) -> Record:
        """Stop sharing a collection with a project; takes effect within a second in every process.

        Returns what `share_collection` returned. Raises NotFound.
        """
        return await self._call("unshare_collection", collection=collection, with_project=with_project)

    async def list_shares(self) -> Records[Record]:
        """The collections that this project shares or that are shared with it, each as `share_collection` returns it."""
        return Records((await self._call("list_shares"))["shares"])

    async def create_key(
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
        created = await self._call(
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

    async def list_keys(self, *, project: str | None = None) -> Records[KeyInfo]:
        """The API keys of this client's project; for the administrator, those of all projects.

        Each is `{id, project, can, collections, models, rate, concurrent, tokens, jobs, chunks, bytes, note, created_at,
        created_by, expires_at, rotating_until, revoked_at, last_used_at}`. The `id` is the beginning of the key.
        """
        return Records(map(KeyInfo, (await self._call("list_keys", project=project))["keys"]))

    async def rotate_key(self, key: str, *, overlap: str = "1h") -> CreatedKey:
        """Give the API key with that id a new secret, shown once; the previous secret works for the `overlap`.

        The key keeps its id, rights, jobs and schedules. Only one previous secret works at a time. Returns as
        `create_key` does. Raises NotFound, Forbidden (the key has more rights than this client).
        """
        return CreatedKey(await self._call("rotate_key", key=key, overlap=overlap))

    async def revoke_key(self, key: str) -> KeyInfo:
        """Revoke the API key with that id; takes effect within a second in every process.

        Its streams and jobs are ended, and its schedules stop; other calls in flight are still answered. Returns the key
        as `list_keys` does. Raises NotFound.
        """
        return KeyInfo(await self._call("revoke_key", key=key))

    async def audit(
        self, *, since: str = "30d", action: str | None = None, before: int | None = None, limit: int = 100
    ) -> Records[Record]:
        """The audit log, newest first: who changed keys, deleted, shared, exported, imported or was refused.

        Each entry is `{number, at, project, caller, client, request_id, action, target, outcome}`. `action` selects an
        operation such as "revoke_key", or "refused"; `before` is the last `number` of the previous page. Needs the right
        "admin"; a project's key sees its own project.
        """
        return Records(
            (await self._call("audit", since=since, action=action, before=before, limit=limit))["entries"]
        )

    async def prompts(self) -> Records[Record]:
        """The prompts in use: `{name, version, text, collection, own}`, including those of collections the key may read."""
        return Records((await self._call("prompts"))["prompts"])

    async def usage(
        self, *, by: str | Sequence[str] = "project,model", since: str = "30d", until: str | None = None
    ) -> Usage:
        """Usage up to now: rows of `{requests, errors, prompt_tokens, completion_tokens, embedded_tokens, …}`.

        `by` is any of "project", "key", "model", "operation" and "day", separated by commas or as a list: one row per
        combination. `since` and `until` are days in UTC: "7d" (the last seven, today included) or a date such as
        "2026-11-28". `estimated_tokens` are the tokens that no server reported; `cost` is by the server's prices, else
        None. A key sees its own project. Returns Usage, a table in notebooks with `.plot()`.
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
        """The backend's state: `{status, problems, parts, version, chat, embeddings, own_file_types}`.

        `status` is "ok", or "failing" if something does not work: then `problems` say what is wrong and what to do. `parts`
        has "ok" or a problem for each part used so far. `chat` and `embeddings` name the models in use.
        """
        return Health(await self._call("health"))

    async def doctor(self) -> Record:
        """Check everything behind llmbackend: returns `{ok, version, checks}` within a few seconds.

        There is one check for each model server and embedded model, the Qdrant server and the data directory: `{name,
        server, ok, url, models, version, limits, latency_ms, fix}`, where `fix` says what is wrong and what to do.
        """
        return await self._call("doctor")


class AsyncCollectionHandle(_Handle):
    """A collection, as `client["hr_policies"]`: the client's methods without the collection's name.

    `options` are passed on to the client's method.
    """

    def __init__(self, client: AsyncLLMBackendClient, name: str) -> None:
        if not isinstance(name, str):
            raise InvalidRequest(f"client[…] takes a collection's name, not {type(name).__name__}")
        self._client = client
        self.name = name

    def __repr__(self) -> str:
        return f"{self._client!r}[{self.name!r}]"

    async def ingest(self, documents: Any, **options: Any) -> IngestReport:
        """Add documents, as `rag_ingest` does."""
        return await self._client.rag_ingest(documents, self.name, **options)

    async def ingest_files(self, paths: File | Sequence[File], **options: Any) -> IngestReport:
        """Add files, as `rag_ingest_files` does."""
        return await self._client.rag_ingest_files(paths, self.name, **options)

    async def search(self, query: str | None = None, **options: Any) -> Hits:
        """Find the passages that match a query, or a `vector`, best, as `rag_search` does."""
        return await self._client.rag_search(query, self.name, **options)

    async def query(self, question: str, **options: Any) -> Any:
        """Answer a question from its documents, as `rag_query` does."""
        return await self._client.rag_query(question, self.name, **options)

    async def documents(self, *, limit: int | None = None) -> Records[DocumentInfo]:
        """Its documents, as `list_documents` returns them."""
        return await self._client.list_documents(self.name, limit=limit)

    async def get(self, id: Id) -> StoredDocument:
        """A stored document, as `get_document` returns it."""
        return await self._client.get_document(id, self.name)

    async def delete(
        self,
        ids: Id | Sequence[Id] | None = None,
        *,
        filters: Mapping[str, Any] | None = None,
        where: Mapping[str, Any] | None = None,
    ) -> Record:
        """Delete documents by ids or by filters, as `delete_documents` does."""
        return await self._client.delete_documents(self.name, ids, filters=filters, where=where)

    async def stats(self) -> CollectionInfo:
        """Its counts and options, as `get_collection` returns them."""
        return await self._client.get_collection(self.name)

    async def evaluate(self, questions: Sequence[Mapping[str, Any]] | Any, **options: Any) -> Evaluation:
        """Measure how well search finds the documents that answer some questions, as `evaluate` does."""
        return await self._client.evaluate(self.name, questions, **options)

    async def map(
        self, color: str | None = None, query: str | None = None, *, limit: int = 2000, axes: Any = None
    ) -> Any:
        """Plot its documents as points in two dimensions, similar ones close together; returns the matplotlib axes.

        A point is the mean of a document's chunk vectors (among the collection's first `limit` chunks), coloured by the
        metadata field `color`. `query` is marked among them.
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
