"""What the embedding benchmark compares with: a model server that only waits, and a loop by hand that asks it.

`python -m tests.benchmarks.embedding_server PORT SECONDS` speaks TEI's API and OpenAI's. A request takes SECONDS, whatever
is in it, and IN_FLIGHT are worked on at once; the vectors are made beforehand.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import Sequence
from typing import Any

import aiohttp
import numpy as np
import openai
import uvicorn
from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

LATENCY = 0.05  # about what a small model on a small GPU takes for a batch
DIMENSION = 256
TEI_BATCH, OPENAI_BATCH, IN_FLIGHT = 32, 64, 4
MODEL = "bench"


def app(seconds: float) -> Starlette:
    values = np.random.default_rng(0).normal(size=(OPENAI_BATCH, DIMENSION)).astype(np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    lists = [json.dumps([round(float(number), 9) for number in row]) for row in values]
    items = [
        json.dumps({"object": "embedding", "index": index, "embedding": base64.b64encode(row).decode()})
        for index, row in enumerate(values)
    ]

    turns = asyncio.Semaphore(IN_FLIGHT)

    async def work() -> None:
        async with turns:
            await asyncio.sleep(seconds)

    async def info(request: Request) -> Response:
        return JSONResponse(
            {"max_client_batch_size": TEI_BATCH, "max_batch_tokens": 16384, "max_input_length": 8192}
        )

    async def tei(request: Request) -> Response:
        count = len(json.loads(await request.body())["inputs"])
        await work()
        return Response(f"[{','.join(lists[:count])}]", media_type="application/json")

    async def embeddings(request: Request) -> Response:
        count = len(json.loads(await request.body())["input"])
        await work()
        data = ",".join(items[:count])
        usage = f'{{"prompt_tokens":{100 * count},"total_tokens":{100 * count}}}'
        reply = f'{{"object":"list","model":"{MODEL}","data":[{data}],"usage":{usage}}}'
        return Response(reply, media_type="application/json")

    return Starlette(
        routes=[
            Route("/info", info),
            Route("/embed", tei, methods=["POST"]),
            Route("/v1/embeddings", embeddings, methods=["POST"]),
        ]
    )


async def tei_by_hand(url: str, texts: Sequence[str], in_flight: int = IN_FLIGHT) -> NDArray[np.float32]:
    """A matrix of the texts' vectors, by the same batches and as many at once as llmbackend asks."""
    turns = asyncio.Semaphore(in_flight)

    async with aiohttp.ClientSession() as session:

        async def ask(batch: Sequence[str]) -> Any:
            async with turns, session.post(url + "/embed", json={"inputs": batch}) as reply:
                return await reply.json()

        starts = range(0, len(texts), TEI_BATCH)
        replies = await asyncio.gather(*(ask(texts[start : start + TEI_BATCH]) for start in starts))
    return np.array([row for reply in replies for row in reply], dtype=np.float32)


async def openai_by_hand(url: str, texts: Sequence[str]) -> NDArray[np.float32]:
    """The same by the openai client."""
    turns = asyncio.Semaphore(IN_FLIGHT)

    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as client:

        async def ask(batch: Sequence[str]) -> Any:
            async with turns:
                return await client.embeddings.create(model=MODEL, input=list(batch))

        starts = range(0, len(texts), OPENAI_BATCH)
        replies = await asyncio.gather(*(ask(texts[start : start + OPENAI_BATCH]) for start in starts))
    return np.array([item.embedding for reply in replies for item in reply.data], dtype=np.float32)


if __name__ == "__main__":
    uvicorn.run(app(float(sys.argv[2])), port=int(sys.argv[1]), log_level="error")
