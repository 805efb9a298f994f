"""What a Qdrant server says when it refuses something, in its own words (qdrant/qdrant, 1.19)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmbackend import BackendError, BackendTimeout, InvalidRequest, Overloaded
from llmbackend.engines.qdrant_refusals import refusal
from llmbackend.errors import InsufficientStorage, LLMBackendError

PASSING, FOR_GOOD = {"passing": True}, {"passing": None}

SAID: list[tuple[int, str, type[LLMBackendError], dict[str, Any]]] = [
    (400, "Payload error: JSON payload (61 bytes) is larger than allowed (limit: 33 bytes).", InvalidRequest, {"too_large": True}),
    (400, 'Bad request: Limit exceeded 2000 > 1000 for "limit". Help: Reduce the "limit" parameter.', InvalidRequest, {"strict": True}),
    (400, "Bad request: Max vector storage size limit of 1MB reached!", InsufficientStorage, FOR_GOOD),
    (400, "Format error in JSON body: unknown field `on_disk_quota_mb`", BackendError, FOR_GOOD),
    (400, "Bad request: the disk is full", InsufficientStorage, FOR_GOOD),
    (403, "Forbidden: Global write access is required", BackendError, FOR_GOOD),
    (403, "Write operations are forbidden", BackendError, FOR_GOOD),
    (404, "Not found: Collection `x` doesn't exist!", BackendError, {"gone": True, "passing": None}),
    (408, "Timeout error: Operation 'Search' timed out after 60s", BackendTimeout, PASSING),
    (409, "Wrong input: Collection `x` already exists!", BackendError, FOR_GOOD),
    (429, "Rate limiting exceeded: Read rate limit exceeded: Operation requires 5 tokens but only 1.0 were available.", Overloaded, PASSING),
    (429, "Rate limiting exceeded: Write rate limit exceeded, request larger than rate limiter capacity, please try to split your request", InvalidRequest, {"strict": True}),
    (500, "Service internal error: 1 of 1 read operations failed:", BackendError, PASSING),
    (500, "Service internal error: No space left on device: WAL buffer size exceeds available disk space", InsufficientStorage, FOR_GOOD),
    (503, "Shard temporarily unavailable: the shard is being recovered", BackendError, PASSING),
    (507, "Insufficient storage: the quota of disk is reached", InsufficientStorage, FOR_GOOD),
]  # fmt: skip


@pytest.mark.parametrize(("status", "said", "kind", "details"), SAID)
def test_a_refusal_is_told_by_its_kind(
    status: int, said: str, kind: type[LLMBackendError], details: dict[str, Any]
) -> None:
    error = refusal(status, json.dumps({"status": {"error": said}, "time": 0}), "the server", {})
    assert type(error) is kind
    assert {name: error.details.get(name) for name in details} == details
    assert said in error.message


def test_a_refused_key_is_told_with_its_setting() -> None:
    told = refusal(401, "Must provide an API key or an Authorization bearer token", "the server", {})
    assert "QDRANT_API_KEY" in told.message
    assert "QDRANT_API_KEY" in refusal(403, "", "the server", {}).message


PAGE = "<html>\n<head><title>{0}</title></head>\n<body><h1>{0}</h1><hr>nginx</body></html>"


@pytest.mark.parametrize(
    ("status", "body", "kind", "details"),
    [
        (404, "404 page not found\n", BackendError, {"gone": None, "passing": None}),
        (404, PAGE.format("404 Not Found"), BackendError, {"gone": None, "passing": None}),
        (413, PAGE.format("413 Request Entity Too Large"), InvalidRequest, {"too_large": True}),
        (502, PAGE.format("502 Bad Gateway"), BackendError, PASSING),
        (503, "", BackendError, PASSING),
        (504, PAGE.format("504 Gateway Time-out"), BackendTimeout, PASSING),
    ],
)
def test_a_proxy_answers_in_its_own_words(
    status: int, body: str, kind: type[LLMBackendError], details: dict[str, Any]
) -> None:
    error = refusal(status, body, "the server", {})
    assert type(error) is kind
    assert {name: error.details.get(name) for name in details} == details
    assert "<" not in error.message
    if status == 404:  # of a collection that is still there, the advice is not to delete it
        assert "right URL" in error.message


def test_a_redirect_is_told_with_where_it_leads() -> None:
    error = refusal(308, "", "the server", {"location": "https://qdrant.example/"})
    assert "https://qdrant.example/" in error.message
    assert "QDRANT_URL" in error.message
