"""Whether Redis answers, as `/health/ready` tells."""

from __future__ import annotations

import asyncio

from pydantic import SecretStr

from llmbackend import dependencies
from llmbackend.settings import Settings
from tests.upstream.fake import closed_port


def _told(url: str) -> str:
    async def look() -> str:
        found = dependencies.of(Settings(redis_url=SecretStr(url)))
        while "Redis" not in found.parts:
            await found.look()
        await found.close()
        return found.parts["Redis"]

    return asyncio.run(look())


def test_redis_is_asked_too(redis: str) -> None:
    assert _told(redis) == "ok"
    away = closed_port().replace("http://", "redis://:secret@")
    assert _told(away) == "cannot be reached (ConnectionError)"
