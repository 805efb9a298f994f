"""Errors as HTTP replies."""

from __future__ import annotations

from starlette.responses import JSONResponse

from ..errors import LLMBackendError, Overloaded, as_json


def error_response(error: LLMBackendError, request_id: str | None = None) -> JSONResponse:
    """`{"error": {…}}` with the error's status."""
    # OpenAI's clients would repeat what failed, though it has been tried often enough here.
    headers = {"X-Should-Retry": "false"}
    if isinstance(error, Overloaded):
        headers = {"Retry-After": str(int(error.details.get("retry_after") or 1))}
    return JSONResponse({"error": {**as_json(error), "request_id": request_id}}, error.status, headers)
