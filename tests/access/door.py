"""A server's application, called as ASGI has it, in this process."""

from __future__ import annotations

import time
from typing import Any

import httpx
from anyio.from_thread import BlockingPortal

from llmbackend.backend import Backend
from llmbackend.server.app import create_app

ADMIN = "the-key-of-the-administrator"
PROJECTS = ("hr", "support", "partner")


class Door:
    """The server's application on a loop in a thread."""

    def __init__(self, portal: BlockingPortal, backend: Backend) -> None:
        self.portal = portal
        self.backend = backend
        transport = httpx.ASGITransport(create_app(backend), client=("127.0.0.1", 1))
        self._client = httpx.AsyncClient(transport=transport, base_url="http://localhost")

    def ask(self, method: str, path: str, key: str | None = ADMIN, body: Any = None) -> httpx.Response:
        async def send() -> httpx.Response:
            headers = {} if key is None else {"X-API-Key": key}
            return await self._client.request(method, path, json=body, headers=headers)

        return self.portal.call(send)

    def key(self, **wanted: Any) -> dict[str, Any]:
        made = self.ask("POST", "/v1/keys", body=wanted)
        assert made.status_code == 200, made.text
        found: dict[str, Any] = made.json()
        return found

    def wait(self, job_id: str) -> dict[str, Any]:
        deadline = time.monotonic() + 60
        while (job := self.ask("GET", f"/v1/jobs/{job_id}").json())["status"] in ("queued", "running"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return job  # type: ignore[no-any-return]
