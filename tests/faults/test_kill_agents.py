"""Runs of agents whose process is killed: they wait on, or go on from their last finished step, and ask nothing twice."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmbackend import LLMBackendClient
from tests.server import Server, serving
from tests.upstream.fake import KEY, USAGE, Upstream, running


def _calls(name: str, **arguments: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c1", "type": "function", "function": function}],
    }


def _settings(upstream: Upstream) -> dict[str, Any]:
    return {"openai_base_url": upstream.url, "openai_api_key": KEY, "chat_model": "ok"}


def _until(condition: Callable[[], bool], timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that in time"
        time.sleep(0.02)


def _kill(server: Server) -> None:
    server.process.kill()
    server.process.wait()


def test_a_run_waits_on_after_a_kill_and_goes_on_in_another_process(tmp_path: Path) -> None:
    with running() as upstream:
        upstream.replies = [_calls("delete_documents", collection="a", ids=["one"]), "It is gone."]
        with serving(tmp_path, **_settings(upstream)) as server, LLMBackendClient(server.url) as client:
            client.rag_ingest([{"id": "one", "text": "A text."}, {"id": "two", "text": "Another."}], "a")
            run = client.run_agent("Clear it.", tools=["delete_documents"], approve="writes")
            assert run.status == "needs_approval"
            _kill(server)
        with serving(tmp_path, **_settings(upstream)) as server, LLMBackendClient(server.url) as client:
            waiting = client.get_job_status(run.run_id)
            assert waiting.progress.stage == "needs approval"
            assert [one["arguments"] for one in waiting.pending] == [{"collection": "a", "ids": ["one"]}]
            time.sleep(1)  # it is not taken up by itself
            assert client.get_collection("a").documents == 2
            assert len(upstream.seen) == 1
            client.approve(run.run_id)
            assert client.wait_for_job(run.run_id, timeout=60)["answer"].strip() == "It is gone."
            assert client.get_collection("a").documents == 1
            assert len(upstream.seen) == 2


def test_a_run_that_was_killed_between_two_steps_goes_on_from_the_last_that_it_finished(
    tmp_path: Path,
) -> None:
    with running() as upstream:
        upstream.replies = [_calls("search", query="text"), "A text [1]."]
        upstream.answers = 1  # the second call of the model is under way when it is killed
        params = {"task": "What is there?", "collections": ["a"]}
        with serving(tmp_path, **_settings(upstream)) as server, LLMBackendClient(server.url) as client:
            client.rag_ingest([{"id": "one", "text": "A text."}], "a")
            job_id = client.submit_job("run_agent", params)
            _until(lambda: len(upstream.seen) == 2)
            _until(lambda: client.get_job_status(job_id).progress.done == 2)
            _kill(server)
        upstream.answers = None
        with serving(tmp_path, **_settings(upstream)) as server, LLMBackendClient(server.url) as client:
            done = client.wait_for_job(job_id, timeout=60)
        assert done["answer"] == "A text [1]."
        assert [source["document_id"] for source in done["sources"]] == ["one"]
        assert len(upstream.seen) == 3, "the first reply and the search were there already"
        assert [step["replayed"] for step in done["trace"]["steps"]] == [True, True, False]
        assert upstream.seen[1]["messages"] == upstream.seen[2]["messages"]


def test_an_analyst_that_was_killed_asks_twice_only_what_was_unanswered(tmp_path: Path) -> None:
    texts = {f"d{number}": f"Report {number} costs {number} euros." for number in range(12)}
    with running() as upstream:
        told = json.dumps({"price": {"value": 1, "quote": "euros"}})
        upstream.replies = [*[told] * 5, "It is cheap.", *[told] * 40]
        upstream.answers = (
            6  # the sixth fits no shape, and is sent back: then its second try is unanswered, too
        )
        shape = {"properties": {"price": {"type": "integer"}}}
        params = {"input": {"schema": shape}, "collections": ["a"]}
        with serving(tmp_path, **_settings(upstream)) as server, LLMBackendClient(server.url) as client:
            client.rag_ingest([{"id": name, "text": text} for name, text in texts.items()], "a")
            job_id = client.submit_job("agent/analyst", params)
            _until(lambda: len(upstream.seen) == 10)
            _until(lambda: client.get_job_status(job_id).progress.done == 5)
            _kill(server)
        before = [json.dumps(body["messages"]) for body in upstream.seen]
        upstream.answers = None
        with serving(tmp_path, **_settings(upstream)) as server, LLMBackendClient(server.url) as client:
            done = client.wait_for_job(job_id, timeout=60)
    rows = done["output"]["rows"]
    assert {row["document"]: row["cells"]["price"]["value"] for row in rows} == dict.fromkeys(texts, 1)
    asked = [json.dumps(body["messages"]) for body in upstream.seen]
    twice = [one for one, times in Counter(asked).items() if times > 1]
    assert sorted(twice) == sorted(before[6:])
    assert sum("That does not fit" in one for one in twice) == 1
    assert len(asked) == len(texts) + 1 + 4, "one try more, and what was unanswered again"
    answered = len(asked) - 4
    assert done["usage"]["total_tokens"] == done["trace"]["tokens"] == answered * USAGE["total_tokens"]
