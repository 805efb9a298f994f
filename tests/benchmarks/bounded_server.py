"""A TEI with a bounded number of permits, as a process of its own: `python -m tests.benchmarks.bounded_server PORT SECONDS`.

A text takes SECONDS, four are worked at together, and the others wait in their order, as TEI does it on a processor; a
request that finds too few permits is refused with 429. Its headers tell tokens, and for how long texts have waited.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence

import aiohttp
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

PERMITS = 128
BATCH = 32
TOGETHER = 4
DIMENSION = 384


def app(seconds: float) -> Starlette:
    free = PERMITS
    done = refused = 0
    turn = asyncio.Lock()
    row = [0.05] * DIMENSION

    async def info(request: Request) -> Response:
        limits = {"max_client_batch_size": BATCH, "max_batch_tokens": 16384, "max_input_length": 256}
        return JSONResponse({"model_id": "bench", "max_concurrent_requests": PERMITS, **limits})

    async def embed(request: Request) -> Response:
        nonlocal free, done, refused
        texts = json.loads(await request.body())["inputs"]
        if len(texts) > free:
            refused += 1
            error = {"error": "Model is overloaded", "error_type": "overloaded"}
            return JSONResponse(error, status_code=429)
        free -= len(texts)
        began, waited = time.monotonic(), 0.0
        try:
            for start in range(0, len(texts), TOGETHER):
                some = texts[start : start + TOGETHER]
                async with turn:
                    waited += (time.monotonic() - began) * len(some)
                    await asyncio.sleep(seconds * len(some))
                    done += len(some)
        finally:
            free += len(texts)
        headers = {
            "x-compute-tokens": str(sum(len(text.split()) for text in texts)),
            "x-queue-time": str(int(1000 * waited / len(texts))),
            "x-total-time": str(int(1000 * (time.monotonic() - began))),
        }
        return JSONResponse([row] * len(texts), headers=headers)

    async def counts(request: Request) -> Response:
        return JSONResponse({"done": done, "refused": refused})

    return Starlette(
        routes=[Route("/info", info), Route("/embed", embed, methods=["POST"]), Route("/counts", counts)]
    )


async def by_hand(url: str, texts: Sequence[str], seconds: float) -> None:
    """A loop that has all permits under way for so long."""
    until = time.monotonic() + seconds
    async with aiohttp.ClientSession() as session:

        async def ask() -> None:
            while time.monotonic() < until:
                async with session.post(url + "/embed", json={"inputs": texts[:BATCH]}) as reply:
                    await reply.json()

        await asyncio.gather(*(ask() for _ in range(PERMITS // BATCH)))


if __name__ == "__main__":
    uvicorn.run(app(float(sys.argv[2])), port=int(sys.argv[1]), log_level="error")
