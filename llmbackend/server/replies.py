"""Errors as HTTP replies, in one shape that both our SDK and OpenAI's clients read."""

from __future__ import annotations

from starlette.responses import JSONResponse

from ..errors import LLMBackendError, Overloaded


def error_response(error: LLMBackendError, request_id: str | None = None) -> JSONResponse:
    """`{"error": {code, message, details, request_id, type, param}}` with the error's status."""
    body = {
        **error.to_dict(),
        "request_id": request_id,
        "type": "invalid_request_error" if error.status < 500 else "server_error",
        "param": None,
    }
    headers = {}
    if isinstance(error, Overloaded):
        headers["Retry-After"] = str(int(error.details.get("retry_after") or 1))
    return JSONResponse({"error": body}, error.status, headers)
