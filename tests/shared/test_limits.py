"""One key's limit over four server processes that share a database, with and without Redis."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from llmbackend import LLMBackendClient
from llmbackend.access.limits import ANSWER_SECONDS
from tests.server import KEY, serving
from tests.shared import services

SERVERS = 4


@pytest.mark.long
@pytest.mark.parametrize("where", ["postgres", "redis"])
@pytest.mark.parametrize("rate", [(400, "400/min"), (1200, "1200/h")])
def test_four_servers_let_in_what_one_would(
    where: str, rate: tuple[int, str], request: pytest.FixtureRequest, postgres: str, tmp_path: Path
) -> None:
    amount, limit = rate
    shared = {"database_url": services.database(postgres, f"limits-{time.time()}"), "workers": 0}
    if where == "redis":
        shared["redis_url"] = request.getfixturevalue("redis")
    with ExitStack() as stack:
        urls = [
            stack.enter_context(serving(tmp_path / str(number), api_key=KEY, **shared)).url
            for number in range(SERVERS)
        ]
        with LLMBackendClient(urls[0], KEY) as admin:
            key = admin.create_key(rate=limit).key

        def ask(number: int) -> Counter[int]:
            seen: Counter[int] = Counter()
            with requests.Session() as session:
                for _ in range(amount * 3 // 16):
                    reply = session.get(
                        f"{urls[number % SERVERS]}/v1/models", headers={"X-API-Key": key}, timeout=60
                    )
                    seen[reply.status_code] += 1
            return seen

        while time.time() % 60 > 15:  # within one window
            time.sleep(0.5)
        began = time.time()
        with ThreadPoolExecutor(16) as pool:
            seen = sum(pool.map(ask, range(16)), Counter())
        assert time.time() // 60 == began // 60, "it took longer than the window"
    assert set(seen) == {200, 429}
    assert amount * 0.98 <= seen[200] <= amount


def test_a_redis_that_is_silent_or_gone_costs_nobody_a_request(own_redis: str, tmp_path: Path) -> None:
    from redis import Redis

    with serving(tmp_path / "data", api_key=KEY, redis_url=own_redis, workers=0) as server:
        url = server.url
        with LLMBackendClient(url, KEY) as admin:
            keys = [admin.create_key(rate="2/min").key for _ in range(3)]

        def ask(key: str) -> int:
            return requests.get(f"{url}/v1/models", headers={"X-API-Key": key}, timeout=10).status_code

        def asked(key: str) -> list[int]:
            while time.time() % 60 > 45:  # within one window
                time.sleep(0.5)
            return [ask(key) for _ in range(3)]

        assert asked(keys[0]) == [200, 200, 429]
        with Redis.from_url(own_redis) as there:
            there.client_pause(3000)
            began = time.monotonic()
            assert asked(keys[1]) == [200, 200, 429]
            assert time.monotonic() - began < 2 * ANSWER_SECONDS + 1  # it is asked once
            there.shutdown(nosave=True)
        assert asked(keys[2]) == [200, 200, 429]
