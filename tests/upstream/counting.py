"""A model server that keeps its own books: every token that it read and wrote, whatever became of the reply.

Chat and embeddings on OpenAI's wire, Jina's rerank. A prompt's words are its tokens, and so are a reply's, of which a
prompt asks for some by `write 7`. What else a prompt says is done: `fail` (500, once for each prompt), `busy` (429, once),
`slow` (each thing takes a moment, and each token of a stream), `hang` (after so many tokens of a stream: until the reader
leaves). `by_name` are fallbacks: whichever prompt names one of `refuses` gets 500 at each try.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

SLOW = 0.2
"""Seconds."""


class Counting:
    def __init__(self, name: str, refuses: str = "") -> None:
        self.name = name
        self.url = ""
        self.refuses = refuses
        self.seen = 0
        """Requests that it has begun with."""
        self.books: Counter[str] = Counter()
        """prompt_tokens, completion_tokens and embedded_tokens that it worked off."""
        self._failed: set[str] = set()
        self.app = Starlette(
            routes=[
                Route("/v1/models", self._models),
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
                Route("/v1/embeddings", self._embed, methods=["POST"]),
                Route("/v1/rerank", self._rerank, methods=["POST"]),
            ]
        )

    async def _models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": "m", "object": "model"}]})

    def _trouble(self, text: str) -> Response | None:
        if self.refuses and self.refuses in text:
            return JSONResponse({"error": {"message": "out of order"}}, status_code=500)
        for word, status in (("fail", 500), ("busy", 429)):
            if word in text and text not in self._failed:
                self._failed.add(text)
                return JSONResponse({"error": {"message": word}}, status, {"Retry-After": "0"})
        return None

    async def _work(self, text: str) -> Response | None:
        self.seen += 1
        if (trouble := self._trouble(text)) is None and "slow" in text:
            await asyncio.sleep(SLOW)
        return trouble

    async def _chat(self, request: Request) -> Response:
        body: dict[str, Any] = await request.json()
        text = " ".join(str(message["content"]) for message in body["messages"])
        if (trouble := await self._work(text)) is not None:
            return trouble
        prompt = len(text.split())
        found = re.search(r"write (\d+)", text)
        length = int(found[1]) if found else 3
        self.books["prompt_tokens"] += prompt
        base = {"id": "1", "created": 0, "model": self.name}
        if not body.get("stream"):
            self.books["completion_tokens"] += length
            message = {"role": "assistant", "content": "word " * length}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            told = {**base, "object": "chat.completion", "choices": [choice], "usage": _usage(prompt, length)}
            return JSONResponse(told)
        pause = SLOW / 10 if "slow" in text else 0
        stream = self._stream(base, prompt, length, "hang" in text, body.get("stream_options") or {}, pause)
        return StreamingResponse(stream, media_type="text/event-stream")

    async def _stream(
        self,
        base: dict[str, Any],
        prompt: int,
        length: int,
        hangs: bool,
        options: dict[str, Any],
        pause: float,
    ) -> AsyncIterator[bytes]:
        def event(choices: list[dict[str, Any]], written: int, usage: bool) -> bytes:
            told = {**base, "object": "chat.completion.chunk", "choices": choices}
            if usage:
                told["usage"] = _usage(prompt, written)
            return b"data: " + json.dumps(told, separators=(",", ":")).encode() + b"\n\n"

        all_along = bool(options.get("continuous_usage_stats"))
        yield event([{"index": 0, "delta": {"role": "assistant", "content": ""}}], 0, all_along)
        for written in range(1, length + 1):
            self.books["completion_tokens"] += 1
            if pause:
                await asyncio.sleep(pause)
            yield event([{"index": 0, "delta": {"content": "word "}}], written, all_along)
        if hangs:
            await asyncio.sleep(600)
        yield event([{"index": 0, "delta": {}, "finish_reason": "stop"}], length, all_along)
        if options.get("include_usage"):
            yield event([], length, True)
        yield b"data: [DONE]\n\n"

    async def _embed(self, request: Request) -> Response:
        body: dict[str, Any] = await request.json()
        texts = body["input"]
        if (trouble := await self._work(" ".join(texts))) is not None:
            return trouble
        tokens = sum(len(text.split()) for text in texts)
        self.books["embedded_tokens"] += tokens
        rows = [[1.0, len(text) % 7 + 1.0, sum(text.encode()) % 11 + 1.0] for text in texts]
        data = [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(rows)]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return JSONResponse({"object": "list", "model": "m", "data": data, "usage": usage})

    async def _rerank(self, request: Request) -> Response:
        body: dict[str, Any] = await request.json()
        await self._work(" ".join(body["documents"]))
        tokens = sum(len(text.split()) for text in body["documents"])
        self.books["prompt_tokens"] += tokens
        results = [{"index": index, "relevance_score": 0.5} for index in range(len(body["documents"]))]
        return JSONResponse({"model": "m", "results": results, "usage": {"total_tokens": tokens}})


def _usage(prompt: int, completion: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


@contextmanager
def counting(name: str, refuses: str = "") -> Iterator[Counting]:
    server = Counting(name, refuses)
    config = uvicorn.Config(
        server.app, port=0, log_level="error", lifespan="off", timeout_graceful_shutdown=1
    )
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    while not running.started:
        threading.Event().wait(0.01)
    port = running.servers[0].sockets[0].getsockname()[1]
    server.url = f"http://127.0.0.1:{port}/v1"
    try:
        yield server
    finally:
        running.should_exit = True
        thread.join(10)
