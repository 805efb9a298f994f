"""A fake model server on loopback: OpenAI's chat, models and embeddings, TEI's /info, /embed and /rerank, Jina's /rerank.

It behaves as the name of the model says (for TEI: the folder in the URL, as in `<url>/429/embed`):

    ok           answers; chat with the next of `replies`, or with REPLY: a text, an assistant's message, the bytes of a
                 whole reply, or a list with those of a stream, piece by piece
    401, 500, …  refuses with that status, quoting the key it was given, as real servers do (429: Retry-After 2)
    hang         says nothing for HANG seconds, and then nothing of use
    html         a web page, as a wrong address gives
    not-json     JSON by its content type only
    other-json   JSON of another service
    no-stream    a stream of events without any
    doomed       one whose first event is an error with the key
    late         a stream whose first event comes after HANG seconds
    waiting      says nothing until the caller has gone
    slow         answers after SLOW seconds
    drip         a reply of which another byte comes every tenth of a second, without end
    trickle      such a stream, whose first event has no end
    pings        such a stream, with comments only
    no-tools     refuses tools in vLLM's words

Chat counts words for tokens, refuses more than CONTEXT of them in vLLM's words, and counts them at POST /tokenize
unless it is `silent` there, and after HANG seconds if it is `lost`. Chat streams and choices: `fitting` (the least that the
schema asked for wants), `empty` (no choice),
`cut` (at the limit on tokens), `plain` (refuses response_format), `bare` (a choice without a message), `truncated` (a
stream without its end), `broken` (the connection drops in the stream), `stalling` (a stream that stops coming),
`endless` (a stream that goes on until the reader leaves), `quiet` (one that says no more until then), `abrupt` (no
empty line after the last event), `failing` (an error with the key amid the stream), `junk` (an event that is no
chunk), `torn` (ends within a line).
Embeddings: `nan`, `null`, `null-row`, `huge`, `infinite`, `empty`, `text`, `digits`, `too-few`, `too-many`, `unequal`, `numbered` (all
of them 0), and `longer`, whose vectors are longer than those of TEXTS, by which it is known; `short` gives as many dimensions as
asked, and `in-turn` is another model at every other look. Words count for tokens, and more than CONTEXT in a text are refused, by the OpenAI-compatible server in vLLM's
words (as `silent` it does not tell how many there are), by TEI unless it is told to truncate. TEI refuses more than
`tei_texts` texts and TEI_BYTES bytes; as `old` it has no /info and no /tokenize.
Rerankers, whose score for a text is its length in thousands: `nan`, `too-few`, `too-many`, `twice` (a text ranked
again, another not), `beyond` (an index where there is no text), `null`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import struct
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from llmbackend.inference.fingerprint import TEXTS

KEY = "sk-upstream-secret"
REPLY = "The harbour was dredged in 1911."
HANG = 4.0
SLOW = 2.0
WORK = 0.02
"""Seconds that embedding and reranking take."""
TEI_TEXTS = 32
TEI_BYTES = 100_000
CONTEXT = 1000
"""Tokens that the chat model takes, and the embedding model of a text."""
VERSION = "0.0.1"
HEALTHY = {"ok", "in-turn", "old", "other", "silent", "floats", "short", "longer"}
"""Models that can embed, whatever becomes of some requests."""
AS_FLOATS = {"floats", "null", "null-row", "huge", "infinite", "text", "digits"}
"""Models whose vectors are lists of numbers though base64 was asked for."""
NO_TOOLS = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
USAGE = {"prompt_tokens": 20, "completion_tokens": 8, "total_tokens": 28}


class Upstream:
    def __init__(self) -> None:
        self.url = ""
        self.seen: list[dict[str, Any]] = []
        """The body of each request, oldest first."""
        self.sent: list[dict[str, str]] = []
        """The headers that it came with."""
        self.replies: list[str | dict[str, Any] | bytes | list[bytes]] = []
        self.faults: list[str] = []
        """Faults of the next requests, whatever their model."""
        self.refusals: list[str] = []
        """Of the next requests, why they are refused with a 400."""
        self.headers: dict[str, str] = {}
        """What faults come with."""
        self.tei_texts = TEI_TEXTS
        self.tei_told: dict[str, Any] = {}
        """What its /info says besides, or instead."""
        self.counted: list[str] = []
        """The texts that were to be counted."""
        self.has_responses = False
        """Whether it has OpenAI's route of responses, which gives the next of `replies`, too: a text or an item."""
        self.asked_for_nothing = 0
        """How often that was asked for nothing."""
        self.answers: int | None = None
        """How many chats are answered: later ones are `waiting`."""
        self.models = ["ok"]
        self.listed = 0
        """How often the list of models was asked for."""
        self.weights = 0
        """Of the embedding model: with others, all vectors are others."""
        self.called = "fake"
        """What TEI, and vLLM as `root`, call their model."""
        self.looks = 0
        """How often it was looked which embedding model that is. Such requests are not among those seen, unless they fail."""
        self.permits: int | None = None
        """Texts, or chats, that it works at together; beyond them it is busy (429)."""
        self.under_way = 0
        self.most_under_way = 0
        self.refused = 0
        self.work = WORK
        self.at_work = 0
        self.most_at_work = 0
        """How many requests for embeddings or ranks were worked at together."""
        self.left = threading.Event()
        """Set once the reader of a stream that does not end, or of no reply, has gone."""
        self.app = Starlette(
            routes=[
                Route("/v1/models", self._models),
                Route("/v1/model/info", self._behind),
                Route("/version", self._version),
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
                Route("/v1/responses", self._responses, methods=["POST"]),
                Route("/tokenize", self._tokenize, methods=["POST"]),
                Route("/v1/embeddings", self._embeddings, methods=["POST"]),
                Route("/v1/rerank", self._jina_rerank, methods=["POST"]),
                Route("/{model}/info", self._tei_info),
                Route("/{model}/embed", self._tei, methods=["POST"]),
                Route("/{model}/rerank", self._tei_rerank, methods=["POST"]),
                Route("/{model}/tokenize", self._tei_tokenize, methods=["POST"]),
            ]
        )

    def reset(self) -> None:
        self.seen.clear()
        self.sent.clear()
        self.replies.clear()
        self.faults.clear()
        self.refusals.clear()
        self.headers.clear()
        self.has_responses = False
        self.asked_for_nothing = 0
        self.tei_texts = TEI_TEXTS
        self.tei_told = {}
        self.counted.clear()
        self.answers = None
        self.models = ["ok"]
        self.listed = 0
        self.weights = 0
        self.called = "fake"
        self.looks = 0
        self.permits = None
        self.most_under_way = self.refused = 0
        self.most_at_work = 0
        self.work = WORK
        self.left.clear()

    async def _models(self, request: Request) -> Response:
        self.listed += 1
        fault = await self._fault("", request)
        if fault is not None:
            return fault
        listed = [
            {"id": name, "object": "model", "max_model_len": CONTEXT, "root": self.called}
            for name in self.models
        ]
        return JSONResponse({"object": "list", "data": listed})

    async def _behind(self, request: Request) -> Response:
        """LiteLLM's word on what its aliases stand for."""
        behind = {"litellm_params": {"model": self.called}, "model_info": {"id": "1"}}
        return JSONResponse({"data": [{"model_name": name, **behind} for name in ["another", *self.models]]})

    async def _version(self, request: Request) -> Response:
        return JSONResponse({"version": VERSION})

    async def _tokenize(self, request: Request) -> Response:
        body = await request.json()
        if body["model"] == "silent":
            return JSONResponse({"detail": "Not Found"}, status_code=404)
        if body["model"] == "lost":
            await asyncio.sleep(HANG)
        if "prompt" in body:
            self.counted.append(body["prompt"])
            return JSONResponse({"count": _words(body["prompt"]), "max_model_len": CONTEXT, "tokens": []})
        return JSONResponse({"count": _tokens(body), "max_model_len": CONTEXT, "tokens": []})

    async def _chat(self, request: Request) -> Response:
        body = await self._note(request)
        model = body["model"]
        held = self.answers is not None and len(self.seen) > self.answers
        fault = await self._fault("waiting" if held else model, request)
        if fault is not None:
            return fault
        refusal = _beyond_context(body)
        if refusal is None and model == "plain" and "response_format" in body:
            refusal = 'Grammar error: Unimplemented keys: ["uniqueItems"]'
        if refusal is not None:
            error = {"message": refusal, "type": "BadRequestError", "param": None, "code": 400}
            return JSONResponse({"error": error}, status_code=400)
        if self.permits is not None:
            if (busy := self._busy(1)) is not None:
                return busy
            await self._work(1)
        said = self.replies.pop(0) if self.replies else REPLY
        if model == "fitting" and (schema := body.get("response_format", {}).get("json_schema")):
            said = json.dumps(_fitting(schema.get("schema", {}), schema.get("schema", {})))
        if isinstance(said, bytes):
            return Response(said, media_type="application/json")
        if isinstance(said, list):
            return StreamingResponse(_one_by_one(said), media_type="text/event-stream")
        message = {"role": "assistant", "content": said} if isinstance(said, str) else said
        reason = "tool_calls" if message.get("tool_calls") else "length" if model == "cut" else "stop"
        if body.get("stream"):
            pieces = self._in_pieces(message, reason) if isinstance(said, dict) else self._stream(model, said)
            return StreamingResponse(pieces, media_type="text/event-stream")
        choice = {"index": 0, "message": message, "finish_reason": reason}
        choices: list[dict[str, Any]] = [] if model == "empty" else [{}] if model == "bare" else [choice]
        return _json(
            {"id": "1", "object": "chat.completion", "model": model, "choices": choices, "usage": USAGE}
        )

    async def _responses(self, request: Request) -> Response:
        if not self.has_responses:
            return JSONResponse({"detail": "Not Found"}, status_code=404)
        if not await request.json():
            self.asked_for_nothing += 1
            return JSONResponse({"error": {"message": "model: Field required"}}, status_code=400)
        body = await self._note(request)
        if (fault := await self._fault(body["model"], request)) is not None:
            return fault
        said: Any = self.replies.pop(0) if self.replies else REPLY
        if isinstance(said, str):
            said = {
                "type": "message",
                "role": "assistant",
                "content": [{"type": "output_text", "text": said, "annotations": []}],
            }
        usage = {"input_tokens": 20, "output_tokens": 8, "total_tokens": 28}
        told = {"id": "resp_theirs", "status": "completed", "model": body["model"], "usage": usage}
        told["output"] = [{**said, "id": "theirs"}]
        if not body.get("stream"):
            return _json(told)
        return StreamingResponse(self._response_events(told), media_type="text/event-stream")

    async def _response_events(self, told: dict[str, Any]) -> AsyncIterator[bytes]:
        """As spare as servers tell them."""
        [item] = told["output"]
        model = told["model"]
        yield _event({"type": "response.created", "response": {**told, "output": [], "usage": None}})
        yield _event({"type": "response.output_item.added", "output_index": 0, "item": item})
        if item["type"] == "message":
            text = item["content"][0]["text"]
            for half in (text[: len(text) // 2], text[len(text) // 2 :]):
                yield _event({"type": "response.output_text.delta", "output_index": 0, "delta": half})
                if model == "failing":
                    yield _event({"type": "response.failed", "response": {"error": {"message": "it died"}}})
        if model == "truncated":
            return
        yield _event({"type": "response.output_item.done", "output_index": 0, "item": item})
        yield _event({"type": "response.completed", "response": told})

    async def _stream(self, model: str, text: str) -> AsyncIterator[bytes]:
        for word in text.split(" ")[:2]:
            yield _piece(model, f"{word} ")
        if model == "broken":
            raise ConnectionError("the connection drops here")
        if model == "stalling":
            await asyncio.sleep(HANG)
        if model == "torn":
            yield b"dat"
        if model in ("truncated", "torn"):
            return
        if model == "junk":
            yield _event({"choices": ["junk"]})
        if model == "failing":
            yield _DIED
        try:
            while model in ("endless", "quiet"):
                if model == "endless":
                    yield _piece(model, "more ")
                await asyncio.sleep(0.02)
        finally:
            self.left.set()
        yield _piece(model, " ".join(text.split(" ")[2:]))
        yield _event({"id": "1", "model": model, "choices": [], "usage": USAGE})
        yield b"data: [DONE]" if model == "abrupt" else b"data: [DONE]\n\n"

    async def _in_pieces(self, message: dict[str, Any], reason: str) -> AsyncIterator[bytes]:
        """A whole message as deltas: what is text in halves, each tool call's id and name before its arguments."""
        yield _delta({"role": "assistant", "content": None})
        for name, text in message.items():
            if name != "role" and isinstance(text, str):
                yield _delta({name: text[: len(text) // 2]})
                yield _delta({name: text[len(text) // 2 :]})
        for index, call in enumerate(message.get("tool_calls") or ()):
            name, arguments = call["function"]["name"], call["function"]["arguments"]
            begun = {**call, "index": index, "function": {"name": name, "arguments": ""}}
            yield _delta({"tool_calls": [begun]})
            for start in range(0, len(arguments), 5):
                rest = {"index": index, "function": {"arguments": arguments[start : start + 5]}}
                yield _delta({"tool_calls": [rest]})
        yield _delta({}, reason)
        yield b"data: [DONE]\n\n"

    async def _asked(
        self, request: Request, model: str | None = None
    ) -> tuple[dict[str, Any], str, Response | None]:
        """The body and the model of a request for embeddings, and its fault."""
        body: dict[str, Any] = await request.json()
        model = model or body["model"]
        look = set(map(str, body.get("inputs") or body["input"])) <= set(TEXTS)
        self.looks += look
        if look and model in HEALTHY:
            return body, model, None
        await self._note(request)
        return body, model, await self._fault(model, request)

    async def _embeddings(self, request: Request) -> Response:
        body, model, fault = await self._asked(request)
        if fault is not None:
            return fault
        longest = max(map(_words, body["input"]))
        if longest > CONTEXT:
            said = f"This model's maximum context length is {CONTEXT} tokens."
            if model != "silent":
                said += f" However, you requested {longest} tokens in the input for embedding generation."
            return JSONResponse({"error": {"message": said, "type": "BadRequestError"}}, status_code=400)
        if (busy := self._busy(len(body["input"]))) is not None:
            return busy
        rows = await self._rows(model, body["input"], body.get("dimensions"))
        if body.get("encoding_format") == "base64" and model not in AS_FLOATS:
            rows = [base64.b64encode(struct.pack(f"<{len(row)}f", *row)).decode() for row in rows]
        numbers = [0] * len(rows) if model == "numbered" else range(len(rows))
        data = [
            {"object": "embedding", "index": number, "embedding": row}
            for number, row in zip(numbers, rows, strict=True)
        ]
        # In another order: what counts is the index.
        return JSONResponse({"object": "list", "model": model, "data": data[::-1], "usage": USAGE})

    async def _tei_info(self, request: Request) -> Response:
        if request.path_params["model"] == "old":
            return Response(status_code=404)
        limits = {
            "max_client_batch_size": self.tei_texts,
            "max_batch_tokens": 32 * CONTEXT,
            "max_input_length": CONTEXT,
        }
        if self.permits is not None:
            limits["max_concurrent_requests"] = self.permits
        return JSONResponse({"model_id": self.called, **limits, **self.tei_told})

    async def _tei(self, request: Request) -> Response:
        body, model, fault = await self._asked(request, request.path_params["model"])
        if fault is not None:
            return fault
        if len(body["inputs"]) > self.tei_texts or len(await request.body()) > TEI_BYTES:
            return JSONResponse({"error": "too large", "error_type": "Validation"}, status_code=413)
        longest = max(map(_words, body["inputs"]))
        if longest > CONTEXT and not body.get("truncate"):
            said = f"Input validation error: `inputs` must have less than {CONTEXT} tokens. Given: {longest}"
            return JSONResponse({"error": said, "error_type": "Validation"}, status_code=413)
        texts = [" ".join(text.split(" ")[:CONTEXT]) for text in body["inputs"]]
        if (busy := self._busy(len(texts))) is not None:
            return busy
        rows = await self._rows(model, texts, body.get("dimensions"))
        headers = {} if model == "old" else {"x-compute-tokens": str(sum(map(_words, texts)))}
        return JSONResponse(rows, headers=headers)

    async def _tei_rerank(self, request: Request) -> Response:
        body = await self._note(request)
        model = request.path_params["model"]
        fault = await self._fault(model, request)
        if fault is not None:
            return fault
        if len(body["texts"]) > self.tei_texts or len(await request.body()) > TEI_BYTES:
            return JSONResponse({"error": "too large", "error_type": "Validation"}, status_code=413)
        if (busy := self._busy(len(body["texts"]))) is not None:
            return busy
        ranks = await self._ranks(model, body["texts"])
        return _json([{"index": index, "score": score} for index, score in ranks])

    async def _jina_rerank(self, request: Request) -> Response:
        body = await self._note(request)
        model = body.get("model", "ok")
        fault = await self._fault(model, request)
        if fault is not None:
            return fault
        ranks = await self._ranks(model, body["documents"])
        # vLLM sends the documents along even if they are not wanted.
        results = [
            {"index": index, "relevance_score": score, "document": {"text": "…"}} for index, score in ranks
        ]
        return _json({"id": "1", "model": model, "results": results, "usage": USAGE})

    async def _ranks(self, model: str, texts: list[str]) -> list[tuple[int, Any]]:
        await self._work(len(texts))
        return _ranks(model, texts)

    async def _tei_tokenize(self, request: Request) -> Response:
        texts = (await request.json())["inputs"]
        if request.path_params["model"] == "old":
            return Response(status_code=404)
        self.counted += texts
        token = {"id": 1, "text": "a", "special": False, "start": 0, "stop": 1}
        return JSONResponse([[token] * _words(text) for text in texts])

    async def _rows(self, model: str, texts: list[str], dimensions: int | None) -> list[Any]:
        await self._work(len(texts))
        rows = _rows(model, texts)
        if self.weights or (model == "in-turn" and self.looks % 2):
            rows = [row[1:] + row[:1] for row in rows]
        if model == "short" and dimensions:
            rows = [row[:dimensions] for row in rows]
        if model == "longer" and not set(texts) <= set(TEXTS):
            rows = [[*row, 1.0] for row in rows]
        return rows

    async def _work(self, texts: int) -> None:
        self.at_work += 1
        self.under_way += texts
        self.most_at_work = max(self.most_at_work, self.at_work)
        self.most_under_way = max(self.most_under_way, self.under_way)
        await asyncio.sleep(self.work)
        self.at_work -= 1
        self.under_way -= texts

    def _busy(self, texts: int) -> Response | None:
        """As TEI refuses what it has no permits for."""
        if self.permits is None or self.under_way + texts <= self.permits:
            return None
        self.refused += 1
        return JSONResponse({"error": "Model is overloaded", "error_type": "overloaded"}, status_code=429)

    async def _fault(self, model: str, request: Request) -> Response | None:
        if self.refusals:
            return JSONResponse({"error": {"message": self.refusals.pop(0)}}, status_code=400)
        name = self.faults.pop(0) if self.faults else model
        if name == "waiting":
            while (await request.receive())["type"] != "http.disconnect":
                pass
            self.left.set()
        reply = await _fault(name, request)
        if reply is not None:
            reply.headers.update(self.headers)
        return reply

    async def _note(self, request: Request) -> dict[str, Any]:
        body: dict[str, Any] = await request.json()
        self.seen.append(body)
        self.sent.append(dict(request.headers))
        return body


def _fitting(schema: Any, whole: Any) -> Any:
    """The least that a schema wants, of what is common in schemas."""
    if not isinstance(schema, dict):
        return None
    if isinstance(reference := schema.get("$ref"), str):
        return _fitting(whole.get("$defs", {}).get(reference.rpartition("/")[2]), whole)
    for several in ("enum", "anyOf", "oneOf"):
        if schema.get(several):
            return schema[several][0] if several == "enum" else _fitting(schema[several][0], whole)
    match schema.get("const", schema.get("type")):
        case "object":
            fields = schema.get("properties", {})
            return {name: _fitting(fields.get(name), whole) for name in schema.get("required", [])}
        case "array":
            return [_fitting(schema.get("items"), whole)] * schema.get("minItems", 0)
        case "string":
            return "a" * schema.get("minLength", 0)
        case "integer" | "number":
            return schema.get("minimum", 0)
        case "boolean":
            return True
        case "null":
            return None
    return schema.get("const")


def _words(text: str | list[int]) -> int:
    return len(text.split() if isinstance(text, str) else text)


def _tokens(body: dict[str, Any]) -> int:
    return sum(len(str(message.get("content")).split()) for message in body["messages"])


def _beyond_context(body: dict[str, Any]) -> str | None:
    """As vLLM puts it, which stops counting at its limit."""
    if _tokens(body) >= CONTEXT:
        return (
            f"This model's maximum context length is {CONTEXT} tokens. However, your prompt contains at least "
            f"{CONTEXT + 1} input tokens, which exceeds this limit. (parameter=input_tokens, value={CONTEXT + 1})"
        )
    if body.get("max_tokens", 0) > CONTEXT:
        return f"max_tokens={body['max_tokens']} cannot be greater than max_model_len={CONTEXT}."
    return None


async def _fault(model: str, request: Request) -> Response | None:
    if model.isdigit():
        said = f"{model} for you, {request.headers.get('authorization')}"
        headers = {"Retry-After": "2"} if model == "429" else None
        return JSONResponse({"error": {"message": said}}, status_code=int(model), headers=headers)
    match model:
        case "hang":
            await asyncio.sleep(HANG)
            return Response()
        case "slow":
            await asyncio.sleep(SLOW)
            if await request.is_disconnected():  # the next reply is another test's
                return Response()
        case "drip":
            return StreamingResponse(_dripping(b'{"data": [', b" "), media_type="application/json")
        case "trickle":
            return StreamingResponse(_dripping(b'data: {"id": "', b"a"), media_type="text/event-stream")
        case "pings":
            return StreamingResponse(_dripping(b"", b": ping\n\n"), media_type="text/event-stream")
        case "waiting":
            return Response()
        case "no-tools":
            return JSONResponse({"error": {"message": NO_TOOLS, "code": 400}}, status_code=400)
        case "no-stream" | "late":
            return StreamingResponse(
                _no_events(HANG if model == "late" else 0), media_type="text/event-stream"
            )
        case "doomed":
            return Response(_DIED, media_type="text/event-stream")
        case "html":
            return HTMLResponse("<h1>It works!</h1>")
        case "not-json":
            return Response("It works!", media_type="application/json")
        case "other-json":
            return JSONResponse({"status": "ok"})
    return None


async def _one_by_one(pieces: list[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
        await asyncio.sleep(0.002)  # so that they come one by one


async def _dripping(begin: bytes, drop: bytes) -> AsyncIterator[bytes]:
    yield begin
    while True:
        await asyncio.sleep(0.1)
        yield drop


async def _no_events(seconds: float) -> AsyncIterator[bytes]:
    await asyncio.sleep(seconds)
    for nothing in ():
        yield nothing


def _rows(model: str, texts: list[str]) -> list[Any]:
    """A vector a text, telling texts apart by their length and first letter (token ids: by the first of them)."""
    rows: list[Any] = [
        [1.0, float(len(text)), float(ord(text[0]) if isinstance(text, str) else text[0])] for text in texts
    ]
    match model:
        case "nan":
            rows[0][0] = float("nan")
        case "null":
            rows[0][0] = None
        case "null-row":
            rows[0] = None
        case "huge":
            rows[0][0] = 10**400
        case "infinite":
            rows[0][0] = 1e300
        case "empty":
            rows = [[] for _ in rows]
        case "text":
            rows[0][0] = "one"
        case "digits":
            rows[0][0] = "0.1"
        case "too-few":
            rows.pop()
        case "too-many":
            rows.append(rows[0])
        case "unequal":
            rows[0].append(1.0)
    return rows


def _ranks(model: str, texts: list[str]) -> list[tuple[int, Any]]:
    """Places and scores, best first."""
    ranks: list[tuple[int, Any]] = [(index, len(text) / 1000) for index, text in enumerate(texts)]
    ranks.sort(key=lambda rank: rank[1], reverse=True)
    match model:
        case "nan":
            ranks[0] = (ranks[0][0], float("nan"))
        case "null":
            ranks[0] = (ranks[0][0], None)
        case "too-few":
            ranks.pop()
        case "too-many":
            ranks.append(ranks[0])
        case "twice":
            ranks[-1] = ranks[0]
        case "beyond":
            ranks[0] = (len(texts), ranks[0][1])
    return ranks


def _json(data: Any) -> Response:
    """With NaN and halves of characters, which Starlette's own would refuse."""
    return Response(json.dumps(data), media_type="application/json")


def _piece(model: str, text: str) -> bytes:
    return _delta({"content": text}, model=model)


def _delta(delta: dict[str, Any], reason: str | None = None, model: str = "ok") -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return _event({"id": "1", "object": "chat.completion.chunk", "model": model, "choices": [choice]})


def _event(data: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(data)}\n\n".encode()


_DIED = _event({"error": {"message": f"the engine died of {KEY}"}})


@contextmanager
def running(port: int = 0) -> Iterator[Upstream]:
    """The fake, on a free port or this one, in a thread of this process."""
    upstream = Upstream()
    # The protocol named, or asyncio leaves Nagle's algorithm on, which costs 40 ms a request.
    listener = socket.socket(proto=socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen()
    upstream.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    config = uvicorn.Config(
        upstream.app,
        log_level=100,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=1,
        timeout_keep_alive=60,  # a slow machine is not to look like a restart
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield upstream
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


_taken: list[socket.socket] = []


def closed_port() -> str:
    """A URL where nobody listens, nor will: the port stays taken."""
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    _taken.append(taken)
    return f"http://127.0.0.1:{taken.getsockname()[1]}"
