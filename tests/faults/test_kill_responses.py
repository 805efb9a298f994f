"""A response in the background whose process is killed: it is made all the same, once there is a process again."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmbackend import LLMBackendClient
from tests.responses import check
from tests.server import serving
from tests.upstream.fake import KEY, REPLY, running


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that in time"
        time.sleep(0.02)


def test_a_response_is_made_after_a_kill(tmp_path: Path) -> None:
    with running() as upstream:
        settings: dict[str, Any] = {
            "openai_base_url": upstream.url,
            "openai_api_key": KEY,
            "chat_model": "ok",
            "responses_upstream": False,
        }
        upstream.faults.append("waiting")
        with serving(tmp_path, **settings) as server, LLMBackendClient(server.url) as client:
            begun = client.respond("hello", background=True)
            _until(lambda: bool(upstream.seen))
            server.process.kill()
            server.process.wait()
        with serving(tmp_path, **settings) as server, LLMBackendClient(server.url) as client:
            _until(lambda: client.get_response(begun["id"])["status"] not in ("queued", "in_progress"))
            response = check(client.get_response(begun["id"]))
            assert response["status"] == "completed"
            assert response["output"][0]["content"][0]["text"].strip() == REPLY
            assert response["created_at"] == begun["created_at"]
            assert len(upstream.seen) == 2
