"""Many chats as a job: the same ones once, each tried again by itself, costs told before, and nothing asked twice."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pydantic import BaseModel

from llmbackend import Conflict, InvalidRequest, LLMBackendClient
from tests.server import KEY as SERVER_KEY
from tests.server import address, serving, start
from tests.upstream.conftest import Connect, _options
from tests.upstream.fake import REPLY, Upstream


def _asked(upstream: Upstream) -> list[str]:
    return [body["messages"][-1]["content"] for body in upstream.seen]


def test_the_same_prompts_are_asked_once(client: LLMBackendClient, upstream: Upstream) -> None:
    turns = [{"role": "user", "content": "again"}]
    job = client.wait_for_job(client.batch_chat(["one", turns, "one", turns, "two"], system="Be short."), 60)
    assert sorted(_asked(upstream)) == ["again", "one", "two"]
    assert [row["reply"] for row in job.replies] == [REPLY] * 5
    assert [row.get("same_as") for row in job.replies] == [None, None, 0, 1, None]
    assert [row["usage"] is None for row in job.replies] == [False, False, True, True, False]
    upstream.seen.clear()
    client.wait_for_job(client.batch_chat(["one", "one"], temperature=0.7), 60)
    assert _asked(upstream) == ["one", "one"]


def test_prompts_come_from_a_table_or_a_file(
    client: LLMBackendClient, upstream: Upstream, tmp_path: Path
) -> None:
    lines = tmp_path / "prompts.jsonl"
    lines.write_text("".join(json.dumps({"id": n, "question": f"line {n}"}) + "\n" for n in range(3)))
    client.wait_for_job(client.batch_chat(lines, text="question"), 60)
    assert sorted(_asked(upstream)) == ["line 0", "line 1", "line 2"]
    upstream.seen.clear()
    client.wait_for_job(client.batch_chat(pd.DataFrame({"text": ["a", "b"], "other": [1, 2]})), 60)
    assert sorted(_asked(upstream)) == ["a", "b"]
    with pytest.raises(InvalidRequest):
        client.batch_chat([])


def test_replies_fit_a_schema(client: LLMBackendClient, upstream: Upstream) -> None:
    class Town(BaseModel):
        name: str

    upstream.replies += ['{"name": "Paris"}', "no JSON", '{"name": "Rome"}']
    first, second = client.wait_for_job(client.batch_chat(["France?", "Italy?"], schema=Town), 60).replies
    assert {first["parsed"]["name"], second["parsed"]["name"]} == {"Paris", "Rome"}


def test_one_that_fails_is_tried_again_and_leaves_the_others(
    client: LLMBackendClient, upstream: Upstream
) -> None:
    upstream.faults += ["500"] * 3  # as often as one call tries
    [again] = client.wait_for_job(client.batch_chat(["hello"]), 60).replies
    assert (again["reply"], len(upstream.seen)) == (REPLY, 4)
    upstream.faults += ["400"]
    job = client.wait_for_job(client.batch_chat(["hello", "bye"]), 60)
    assert job.failed == 1
    assert sorted(row["error"] is None for row in job.replies) == [False, True]


def test_what_it_takes_is_told_before(connect: Connect, upstream: Upstream) -> None:
    client = connect(usage_prices='{"o*": {"prompt": 10, "completion": 30}}')
    plan = client.batch_chat(["How much vacation?"] * 3 + ["And sick leave?"], max_tokens=100, plan=True)
    assert (plan.count, plan.distinct, plan.model, plan.completion_tokens) == (4, 2, "ok", 200)
    assert 6 <= plan.prompt_tokens <= 30
    assert plan.cost == pytest.approx((plan.prompt_tokens * 10 + 200 * 30) / 1e6)
    assert upstream.seen == []
    assert client.list_jobs() == []
    assert connect().batch_chat(["hello"], plan=True).cost is None


def test_what_is_there_is_read_before_the_end_and_after_a_kill_nothing_is_asked_twice(
    upstream: Upstream, tmp_path: Path
) -> None:
    options: dict[str, Any] = {**_options(upstream), "api_key": SERVER_KEY, "upstream_timeout": 30}
    prompts = [f"prompt {number % 50}" for number in range(100)]
    process = start(tmp_path, warm=True, **options)
    with LLMBackendClient(address(process), SERVER_KEY) as client:
        upstream.faults += ["ok"] * 40 + ["slow"] * 60
        job_id = client.batch_chat(prompts)
        deadline = time.monotonic() + 60
        while not (page := client.get_job_result(job_id, partial=True))["rows"]:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert [row["index"] for row in page["rows"]] == list(range(len(page["rows"])))
        assert len(page["rows"]) < 100
        with pytest.raises(Conflict, match="partial"):
            client.get_job_result(job_id)
        process.kill()
        process.wait(timeout=30)
    upstream.faults.clear()
    saved = {prompts[row["index"]] for row in page["rows"]}
    before = len(upstream.seen)
    with serving(tmp_path, **options) as server, LLMBackendClient(server.url, SERVER_KEY) as client:
        job = client.wait_for_job(job_id, 60)
    assert [row["index"] for row in job.replies] == list(range(100))
    assert all(row["reply"] == REPLY for row in job.replies)
    after = [body["messages"][-1]["content"] for body in upstream.seen[before:]]
    assert 0 < len(after) == len(set(after)) <= 50 - len(saved)
    assert not saved & set(after)
