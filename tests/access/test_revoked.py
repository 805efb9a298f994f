"""Keys that end while something is under way, in this process and in another, and while the process is killed."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from llmbackend import LLMBackendClient, LLMBackendError, NotFound, Unauthorized
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings
from tests.server import Server, serving, working
from tests.upstream.fake import Upstream, running

ADMIN = "administrators-key"


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with running() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[list[Server]]:
    """Two on one database, of which one takes jobs."""
    folder = tmp_path_factory.mktemp("revoked")
    settings: dict[str, Any] = {
        "api_key": ADMIN,
        "database_url": f"sqlite:///{folder / 'shared.db'}",
        "openai_base_url": upstream.url,
        "chat_model": "endless",
    }
    with ExitStack() as stack:
        one = stack.enter_context(serving(folder / "one", **settings))
        two = stack.enter_context(serving(folder / "two", workers=0, **settings))
        yield [one, two]


@pytest.fixture
def admin(servers: list[Server]) -> Iterator[LLMBackendClient]:
    with LLMBackendClient(servers[0].url, ADMIN) as client:
        yield client


def _until(done: Callable[[], Any], seconds: float = 30) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := done()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def test_a_key_counts_at_once_in_every_process_and_a_second_after_it_is_revoked_no_more(
    servers: list[Server], admin: LLMBackendClient
) -> None:
    for _ in range(3):
        made = admin.create_key(project="hr")
        with LLMBackendClient(servers[1].url, made.key) as hr:
            hr.list_jobs()
            admin.revoke_key(made.id)
            time.sleep(1)
            with pytest.raises(Unauthorized):
                hr.list_jobs()


def test_a_rotated_key_counts_for_its_overlap_in_every_process(
    servers: list[Server], admin: LLMBackendClient
) -> None:
    made = admin.create_key(project="hr")
    new = admin.rotate_key(made.id, overlap="2s")
    rotated = time.monotonic()
    with LLMBackendClient(servers[1].url, new.key) as hr:
        hr.list_jobs()
    with LLMBackendClient(servers[1].url, made.key) as hr:
        if time.monotonic() < rotated + 1.5:
            hr.list_jobs()
        time.sleep(max(0.0, rotated + 3.1 - time.monotonic()))
        with pytest.raises(Unauthorized):
            hr.list_jobs()


def test_a_stream_ends_within_a_second_after_its_key_was_revoked(
    servers: list[Server], admin: LLMBackendClient
) -> None:
    made = admin.create_key(project="hr", can=["chat"])
    with LLMBackendClient(servers[1].url, made.key) as hr:
        stream = iter(hr.chat("hello", stream=True))
        next(stream)
        admin.revoke_key(made.id)
        revoked = time.monotonic()
        with pytest.raises(LLMBackendError, match="was revoked"):
            deque(stream, maxlen=0)
        # An event or two are on the way, and the machine may be busy.
        assert time.monotonic() < revoked + 5


def test_a_stream_over_a_share_goes_on_and_the_next_call_finds_nothing(
    servers: list[Server], admin: LLMBackendClient
) -> None:
    """Its passages were read before; what is asked after that, in any process, is of a collection that is not there."""
    made = admin.create_key(project="hr"), admin.create_key(project="support")
    admin.rag_ingest(["Vacation is 30 days."], collection="hr/policies")
    admin.share_collection("hr/policies", with_project="support")
    try:
        with ExitStack() as stack:
            support, elsewhere = (
                stack.enter_context(LLMBackendClient(server.url, made[1].key)) for server in servers
            )
            stream = iter(support.rag_query("How much vacation?", "hr/policies", stream=True))
            next(stream)
            admin.unshare_collection("hr/policies", with_project="support")
            for _ in range(20):
                next(stream)
            for stream_or_not in (True, False):
                with pytest.raises(NotFound, match="no collection 'hr/policies'"):
                    list(support.rag_query("How much vacation?", "hr/policies", stream=stream_or_not))
            with pytest.raises(NotFound, match="no collection 'hr/policies'"):
                elsewhere.get_collection("hr/policies")
            stream.close()  # type: ignore[attr-defined]
    finally:
        admin.delete_collection("hr/policies")
        for key in made:
            admin.revoke_key(key.id)


def test_a_call_that_does_not_stream_is_answered(servers: list[Server], admin: LLMBackendClient) -> None:
    made = admin.create_key(project="hr", can=["chat"])
    with LLMBackendClient(servers[0].url, made.key) as hr:
        assert len(hr.embed(["a text"])) == 1
        admin.revoke_key(made.id)
        with pytest.raises(Unauthorized):
            hr.embed(["a text"])


def test_a_job_that_waits_fails_when_its_turn_comes(servers: list[Server], admin: LLMBackendClient) -> None:
    made = admin.create_key(project="hr", can=["jobs"])
    with LLMBackendClient(servers[1].url, made.key) as hr:
        job_id = hr.submit_job("count_words", {"texts": ["a"]}, run_at="2999-01-01T00:00:00+00:00")
        running = hr.submit_job("count_words", {"texts": ["a"] * 1000, "batch": 1, "pause": 0.05})
        _until(lambda: hr.get_job_status(running).status == "running")
        admin.revoke_key(made.id)
    job = _until(lambda: (it := admin.get_job_status(running)).status == "failed" and it, 60)
    assert (job.error.code, job.owner) == ("unauthorized", "hr")
    assert job.progress.done < 1000
    admin.cancel_job(job_id)
    other = admin.create_key(project="hr", can=["jobs"])
    with LLMBackendClient(servers[1].url, other.key) as hr:  # with the rights of that key
        hr.retry_job(job_id)
        assert hr.wait_for_job(job_id, 60)["words"]
    admin.revoke_key(other.id)
    admin.retry_job(running)  # which leaves it its key, that is of another project than the administrator's
    with pytest.raises(LLMBackendError, match="was revoked"):
        admin.wait_for_job(running, 60)


def test_a_job_runs_with_the_rights_that_its_key_has_then(
    servers: list[Server], admin: LLMBackendClient
) -> None:
    made = admin.create_key(project="hr", can=["jobs"])
    with LLMBackendClient(servers[1].url, made.key) as hr:
        with pytest.raises(LLMBackendError, match="may not ask models"):
            hr.submit_job("batch_chat", {"prompts": ["a"]})
        with pytest.raises(LLMBackendError, match="may not ask models"):
            hr.set_schedule("nightly", "0 2 * * *", "batch_chat", {"prompts": ["a"]})
        with pytest.raises(LLMBackendError, match="may not change collections"):
            hr.submit_job("rag_ingest", {"collection": "a", "documents": ["a"]})


def test_a_schedule_submits_nothing_once_its_key_is_revoked(
    servers: list[Server], admin: LLMBackendClient
) -> None:
    made, other = admin.create_key(project="timed"), admin.create_key(project="timed")
    with (
        LLMBackendClient(servers[1].url, made.key) as first,
        LLMBackendClient(servers[1].url, other.key) as second,
    ):
        first.set_schedule("often", "* * * * * *", "count_words", {"texts": ["a"]})
        _until(second.list_jobs)
        admin.revoke_key(made.id)
        error = _until(lambda: second.list_schedules()[0].error)
        assert "no longer valid" in error
        count = len(second.list_jobs(limit=1000))
        time.sleep(2)
        assert len(second.list_jobs(limit=1000)) == count
        second.set_schedule("often", "* * * * * *", "count_words", {"texts": ["a"]})
        _until(lambda: len(second.list_jobs(limit=1000)) > count)
        second.delete_schedule("often")


def test_an_agent_that_a_schedule_fires_has_the_rights_that_its_key_has_then(
    servers: list[Server], admin: LLMBackendClient
) -> None:
    made, other = admin.create_key(project="fired"), admin.create_key(project="fired")
    admin.rag_ingest(["High tide is at nine."], collection="hr/tides")
    admin.share_collection("hr/tides", with_project="fired")
    params = {"input": {"text": "high tide"}, "collections": ["hr/tides"]}
    with (
        LLMBackendClient(servers[0].url, made.key) as first,
        LLMBackendClient(servers[1].url, other.key) as second,
    ):
        first.set_schedule("often", "* * * * * *", "agent/contracts", params)
        done = _until(lambda: second.list_jobs(status="completed"), 60)[0]
        assert second.wait_for_job(done.id)["answer"] == "High tide is at nine. [1]"
        admin.unshare_collection("hr/tides", with_project="fired")  # its key reaches less
        failed = _until(lambda: second.list_jobs(status="failed"), 60)[0]
        assert failed.error.message.startswith("no collection 'hr/tides'")
        admin.revoke_key(made.id)
        assert "no longer valid" in _until(lambda: second.list_schedules()[0].error, 60)
        second.delete_schedule("often")
    admin.delete_collection("hr/tides")


def test_a_worker_without_keys_does_the_jobs_of_all(tmp_path: Path) -> None:
    with serving(tmp_path, api_keys="hr:key-of-hr", api_key=ADMIN, workers=0) as server, working(tmp_path):
        with LLMBackendClient(server.url, "key-of-hr") as hr:
            job_id = hr.submit_job("count_words", {"texts": ["a b"]})
            assert hr.wait_for_job(job_id, 60)["words"][0]["words"] == 2
        with LLMBackendClient(server.url, ADMIN) as admin:
            made = admin.create_key(project="hr")
            with LLMBackendClient(server.url, made.key) as hr:
                assert hr.wait_for_job(hr.submit_job("count_words", {"texts": ["a"]}), 60)


def test_a_job_of_a_key_that_the_environment_has_no_more_fails(tmp_path: Path) -> None:
    with (
        serving(tmp_path, api_keys="hr:one,support:two", workers=0) as server,
        LLMBackendClient(server.url, "one") as hr,
    ):
        job_id = hr.submit_job("count_words", {"texts": ["a"]})
    with (
        serving(tmp_path, api_keys="support:two", api_key=ADMIN) as server,
        LLMBackendClient(server.url, ADMIN) as admin,
        pytest.raises(LLMBackendError, match="was revoked"),
    ):
        admin.wait_for_job(job_id, 60)


def test_the_first_key_closes_a_server_and_revoking_it_does_not_open_it(tmp_path: Path) -> None:
    with serving(tmp_path) as server, LLMBackendClient(server.url) as anybody:
        made = anybody.create_key(project="hr", can=["admin"])
        with pytest.raises(Unauthorized):
            anybody.list_jobs()
        with LLMBackendClient(server.url, made.key) as hr:
            hr.revoke_key(made.id)
        with pytest.raises(Unauthorized):
            anybody.list_jobs()


@pytest.mark.parametrize("after", [0.0, 0.01])
def test_a_key_is_rotated_or_not_when_the_process_is_killed(tmp_path: Path, after: float) -> None:
    with LLMBackendClient(transport=LocalTransport(Settings(data_dir=tmp_path))) as client:
        made = client.create_key(project="hr", can=["admin", "jobs"])
    told: list[str] = []
    with serving(tmp_path, api_key=ADMIN) as server:

        def rotate() -> None:
            with LLMBackendClient(server.url, ADMIN, retries=0) as admin:
                try:
                    while True:
                        told.append(admin.rotate_key(made.id, overlap="1h").key)
                except LLMBackendError:
                    pass

        rotating = threading.Thread(target=rotate)
        rotating.start()
        _until(lambda: len(told) > 2)
        time.sleep(after)
        server.process.kill()
        server.process.wait(timeout=30)
        rotating.join(30)
        assert not rotating.is_alive()
    with serving(tmp_path, api_key=ADMIN) as server:
        with LLMBackendClient(server.url, ADMIN) as admin:
            (key,) = admin.list_keys(project="hr")
            assert key.revoked_at is None
        # The last that was told counts: as the secret now, or, if one more was made and not told, as the one before.
        with LLMBackendClient(server.url, told[-1]) as hr:
            hr.list_jobs()
        with LLMBackendClient(server.url, told[0]) as hr, pytest.raises(Unauthorized):
            hr.list_jobs()


def test_a_collection_is_shared_or_not_when_the_process_is_killed(tmp_path: Path) -> None:
    keys = "hr:key-of-hr,support:key-of-support"
    done: list[bool] = []
    with serving(tmp_path, api_keys=keys) as server:
        with LLMBackendClient(server.url, "key-of-hr") as hr:
            hr.rag_ingest(["Every employee has 28 days of vacation."], collection="policies")

        def share() -> None:
            with LLMBackendClient(server.url, "key-of-hr", retries=0) as hr, suppress(LLMBackendError):
                while True:
                    hr.share_collection("policies", with_project="support")
                    done.append(True)
                    hr.unshare_collection("policies", with_project="support")
                    done.append(False)

        sharing = threading.Thread(target=share)
        sharing.start()
        _until(lambda: len(done) > 5)
        server.process.kill()
        server.process.wait(timeout=30)
        sharing.join(30)
    with (
        serving(tmp_path, api_keys=keys) as server,
        LLMBackendClient(server.url, "key-of-hr") as hr,
        LLMBackendClient(server.url, "key-of-support") as support,
    ):
        shared = len(hr.list_shares())
        assert len(support.list_shares()) == shared
        assert [one.name for one in support.list_collections()] == ["hr/policies"] * shared
        hr.share_collection("policies", with_project="support", can="write")
        (share_now,) = support.list_shares()
        assert (share_now.collection, share_now.with_project, share_now.can) == (
            "hr/policies",
            "support",
            "write",
        )
        assert support.rag_ingest(["More."], collection="hr/policies").added == 1
        with pytest.raises(LLMBackendError, match="by its own project"):
            support.delete_collection("hr/policies")
        with pytest.raises(LLMBackendError, match="by its own project"):
            support.share_collection("hr/policies", with_project="elsewhere")
        hr.unshare_collection("policies", with_project="support")
        with pytest.raises(NotFound, match="no collection 'hr/policies'"):
            support.rag_search("vacation", "hr/policies")
        # A share goes with its collection.
        hr.share_collection("policies", with_project="support")
        hr.delete_collection("policies")
        hr.rag_ingest(["A new one."], collection="policies")
        with pytest.raises(NotFound):
            support.rag_search("new", "hr/policies")
        assert support.list_shares() == []
