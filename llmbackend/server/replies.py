"""Results and errors as HTTP replies."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import AsyncIterator
from functools import partial

from anyio import CancelScope
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from .. import sse, threads
from ..errors import LLMBackendError, Overloaded, Unauthorized, as_json
from ..operations import Operation
from ..schemas import Block
from ..tracing import Trace

WORTH_PACKING = 2**15  # bytes

PIECE = 2**20
"""Bytes passed on for sending at a time: a large result at once would block the loop, and be in memory twice."""


class Result(Response):
    """A reply that may be megabytes, sent in pieces."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for start in range(0, len(self.body) or 1, PIECE):
            piece = self.body[start : start + PIECE]
            more = start + PIECE < len(self.body)
            await send({"type": "http.response.body", "body": piece, "more_body": more})


class EventStream(StreamingResponse):
    """Server-sent events, with heartbeats between them."""

    def __init__(
        self,
        events: AsyncIterator[bytes],
        media: str,
        heartbeat: float,
        trace: Trace,
    ) -> None:
        super().__init__(events, media_type=media, headers={"Cache-Control": "no-store"})
        self._heartbeat = heartbeat if media == "text/event-stream" else None
        self._trace = trace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # The connection reports a hang-up, so no task needs to listen for it as in Starlette.
        with CancelScope() as work:
            scope["state"]["gone"] = gone = partial(self._trace.leave, work.cancel)
            if self._trace.left:  # before there was an event
                gone()
            await self.stream_response(send)

    async def stream_response(self, send: Send) -> None:
        async def put(event: bytes) -> None:
            await send({"type": "http.response.body", "body": event, "more_body": True})

        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        await send(start)
        await sse.send(self.body_iterator, put, self._heartbeat)  # type: ignore[arg-type]
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def result_response(request: Request, operation: Operation, result: bytes) -> Response:
    """A result as a reply, compressed if it is large and the caller accepts gzip."""
    if isinstance(result, Block):
        return Result(result, media_type="application/octet-stream")
    if not operation.bulky:
        status = 503 if operation.name == "health" and json.loads(result)["problems"] else 200
        return Response(result, status, media_type="application/json")
    headers = {"Vary": "Accept-Encoding"}
    if len(result) >= WORTH_PACKING and _unpacks_gzip(request):
        result = await threads.processor(_packed, result)
        headers["Content-Encoding"] = "gzip"
    return Result(result, media_type="application/json", headers=headers)


def _unpacks_gzip(request: Request) -> bool:
    accepted = request.headers.get("accept-encoding", "").lower().replace(" ", "")
    return any(
        coding.partition(";")[0] == "gzip" and coding.partition(";")[2] not in ("q=0", "q=0.0")
        for coding in accepted.split(",")
    )


def _packed(content: bytes) -> bytes:
    """gzip with Huffman coding only: numbers and base64 have no repetitions, and searching for them takes
    most of the time."""
    packer = zlib.compressobj(level=1, wbits=31, strategy=zlib.Z_HUFFMAN_ONLY)
    return packer.compress(content) + packer.flush()


def error_response(error: LLMBackendError, request_id: str | None = None) -> JSONResponse:
    """`{"error": {…}}` with the error's status."""
    # Keeps OpenAI's clients from retrying what has been retried here already.
    headers = {"X-Should-Retry": "false"}
    if isinstance(error, Overloaded):
        headers = {"Retry-After": str(math.ceil(error.details.get("retry_after") or 1))}
    elif isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse({"error": {**as_json(error), "request_id": request_id}}, error.status, headers)
