"""Limits of keys and projects: what is beyond them is refused with the time to come back, and nobody else feels it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from llmbackend import LLMBackendClient, Overloaded
from llmbackend.settings import load
from tests.server import KEY, serving
from tests.upstream.counting import Counting, counting


@pytest.fixture(scope="module")
def upstream() -> Iterator[Counting]:
    with counting("first") as server:
        yield server


def _options(upstream: Counting) -> dict[str, Any]:
    return {"vllm_url": upstream.url, "chat_model": "m", "api_key": KEY}


@pytest.fixture(scope="module")
def url(upstream: Counting, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    limits = '{"small": {"rate": "3/day", "jobs": 2}}'
    folder = tmp_path_factory.mktemp("server")
    with serving(folder, project_limits=limits, workers=1, **_options(upstream)) as server:
        yield server.url


def _key(url: str, **limits: Any) -> str:
    with LLMBackendClient(url, KEY) as admin:
        return str(admin.create_key(**limits).key)


def _ask(url: str, key: str, text: str = "write 4", **fields: Any) -> requests.Response:
    body = {"messages": [{"role": "user", "content": text}], **fields}
    return requests.post(
        f"{url}/v1/chat/completions",
        json=body,
        headers={"X-API-Key": key},
        timeout=20,
        stream="stream" in fields,
    )


def test_requests_beyond_a_key_s_rate_are_refused_and_told_when_to_come_back(url: str) -> None:
    key, other = _key(url, rate="3/day"), _key(url, rate="3/day")
    left = []
    for _ in range(3):
        reply = _ask(url, key)
        assert reply.status_code == 200
        assert reply.headers["x-ratelimit-limit-requests"] == "3"
        left.append(reply.headers["x-ratelimit-remaining-requests"])
    assert left == ["2", "1", "0"]
    refused = _ask(url, key)
    assert refused.status_code == 429
    error = refused.json()["error"]
    assert error["code"] == "overloaded"
    assert "limit of 3/day for requests" in error["message"]
    assert (error["details"]["limit"], error["details"]["what"]) == ("3/day", "requests")
    assert 0 < int(refused.headers["Retry-After"]) <= 86400
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert refused.headers["x-ratelimit-reset-requests"].endswith("s")
    assert _ask(url, other).status_code == 200, "the other key has its own"
    assert "x-ratelimit-limit-requests" not in _ask(url, KEY).headers


def test_the_doctor_tells_the_administrator_of_keys_that_end_and_of_limits_that_were_reached(
    url: str,
) -> None:
    key = _key(url, rate="1/day", expires="3d", project="short")
    assert [_ask(url, key).status_code for _ in range(3)] == [200, 429, 429]
    with (
        LLMBackendClient(url, KEY) as admin,
        LLMBackendClient(url, _key(url, can=["admin"], project="other")) as other,
    ):
        check = next(check for check in admin.doctor().checks if check.name == "access")
        assert check.limits.expiring == 1
        assert check.limits["keys"] >= 2
        assert check.limits.projects >= 2
        assert check.limits.reached >= 2
        name = key.rpartition("_")[0]
        assert f"{name} reached its limit on requests 2 times" in check.fix
        assert f"{name} expire within 14 days" in check.fix
        assert all(check.name != "access" for check in other.doctor().checks)


def test_a_client_does_not_wait_for_tomorrow_but_for_the_next_second(url: str) -> None:
    with LLMBackendClient(url, _key(url, rate="1/day")) as client:
        client.chat("hello")
        began = time.monotonic()
        with pytest.raises(Overloaded, match="limit of 1/day") as caught:
            client.chat("hello")
        assert time.monotonic() - began < 10
        assert caught.value.details["retry_after"] > 0
    with LLMBackendClient(url, _key(url, rate="2/s")) as client:
        for _ in range(5):
            client.chat("hello")


def test_requests_at_once_are_limited_and_a_place_becomes_free(url: str) -> None:
    key = _key(url, concurrent=2)
    streams = [_ask(url, key, "write 2 hang", stream=True) for _ in range(2)]
    assert [reply.status_code for reply in streams] == [200, 200]
    refused = _ask(url, key)
    assert refused.status_code == 429
    assert refused.json()["error"]["details"]["what"] == "requests at once"
    streams.pop().close()
    deadline = time.monotonic() + 10
    while _ask(url, key).status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    streams.pop().close()


def test_tokens_beyond_a_key_s_budget_are_refused_after_a_restart_too(
    upstream: Counting, tmp_path: Path
) -> None:
    with serving(tmp_path, **_options(upstream)) as server:
        key = _key(server.url, tokens="100/day,1k/month")
        answered = 0
        while (reply := _ask(server.url, key, "please write 8")).status_code == 200:  # 11 tokens
            answered += 1
        assert 9 <= answered <= 10
        assert reply.json()["error"]["details"]["what"] == "tokens"
        assert reply.headers["x-ratelimit-limit-tokens"] == "100"
        assert int(reply.headers["x-ratelimit-remaining-tokens"]) < 11
    with serving(tmp_path, **_options(upstream)) as server:
        answered = 0
        while _ask(server.url, key, "please write 8").status_code == 200:
            answered += 1
            assert answered <= 1


def test_a_project_has_limits_of_its_own_for_all_its_keys(url: str) -> None:
    keys = [_key(url, project="small") for _ in range(2)]
    statuses = [_ask(url, keys[number % 2]).status_code for number in range(4)]
    assert statuses == [200, 200, 200, 429]


def test_jobs_that_wait_are_limited_by_project(upstream: Counting, tmp_path: Path) -> None:
    limits = '{"*": {"jobs": 2}}'
    with (
        serving(tmp_path, project_limits=limits, workers=0, **_options(upstream)) as server,
        LLMBackendClient(server.url, KEY, retries=0) as client,
    ):
        ids = [client.submit_job("batch_chat", {"prompts": ["a"]}) for _ in range(2)]
        with pytest.raises(Overloaded, match="limit of 2 jobs"):
            client.submit_job("batch_chat", {"prompts": ["a"]})
        client.cancel_job(ids[0])
        client.submit_job("batch_chat", {"prompts": ["a"]})


def test_a_job_waits_while_its_key_has_no_tokens_left(url: str) -> None:
    with LLMBackendClient(url, _key(url, tokens="12/day")) as client:
        client.wait_for_job(client.submit_job("batch_chat", {"prompts": ["please write 20"]}), 30)
        waits = client.submit_job("batch_chat", {"prompts": ["please write 20"]})
        deadline = time.monotonic() + 20
        while client.get_job_status(waits).progress.stage != "waits for tokens":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert client.get_job_status(waits).status == "queued"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("{", "write it like"),
        ('{"hr": {"rate": "often"}}', "'often' is not a rate"),
        ('{"hr": {"concurrent": 0}}', "concurrent must be a number of at least 1"),
        ('{"hr": {"speed": 1}}', "'speed' is not one of"),
    ],
)
def test_limits_that_are_none_are_refused_at_the_start(given: str, told: str) -> None:
    with pytest.raises(Exception, match=told):
        load(project_limits=given)
