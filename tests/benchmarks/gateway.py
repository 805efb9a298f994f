"""What the overhead benchmark compares: a model server that costs nothing, and a forwarder that does nothing else.

`python -m tests.benchmarks.gateway upstream PORT`, or `… forwarder PORT UPSTREAM_URL`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator

import aiohttp
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

CHAT = "/v1/chat/completions"
COMPLETION = json.dumps(
    {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "fake",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "Hello."}, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    }
).encode()
PIECE = json.dumps(
    {
        "id": "1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "fake",
        "choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": None}],
    }
).encode()
PIECES, PAUSE = 10, 0.005


def upstream() -> Starlette:
    async def chat(request: Request) -> Response:
        if not json.loads(await request.body()).get("stream"):
            return Response(COMPLETION, media_type="application/json")

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(PIECES):
                yield b"data: " + PIECE + b"\n\n"
                await asyncio.sleep(PAUSE)
            yield b"data: [DONE]\n\n"

        return StreamingResponse(pieces(), media_type="text/event-stream")

    return Starlette(routes=[Route(CHAT, chat, methods=["POST"])])


def forwarder(url: str) -> Starlette:
    sessions: list[aiohttp.ClientSession] = []

    async def chat(request: Request) -> Response:
        if not sessions:
            sessions.append(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        body = await request.body()
        reply = await sessions[0].post(url + CHAT, data=body, headers={"Content-Type": "application/json"})
        if b'"stream"' not in body:
            content = await reply.read()
            return Response(content, media_type="application/json")
        return StreamingResponse(reply.content.iter_any(), media_type="text/event-stream")

    return Starlette(routes=[Route(CHAT, chat, methods=["POST"])])


if __name__ == "__main__":
    app = upstream() if sys.argv[1] == "upstream" else forwarder(sys.argv[3])
    uvicorn.run(app, port=int(sys.argv[2]), log_level="error")
