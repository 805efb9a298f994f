"""Clients in pipelines: sent to other processes, copied, and quiet in the caller's log."""

from __future__ import annotations

import copy
import logging
import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from llmbackend import AsyncLLMBackendClient, LLMBackendClient, TransportError
from llmbackend.async_local import AsyncLocalTransport
from llmbackend.jobs import wakeups
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings
from tests.server import KEY


def test_a_client_over_http_is_sent_with_all_that_it_was_made_of(server_url: str) -> None:
    with LLMBackendClient(server_url, KEY, timeout=7, retries=5) as client:
        client.health()
        with pickle.loads(pickle.dumps(client)) as twin:
            assert twin._transport._address.given == (server_url, KEY, 7, 5)
            assert twin.embed_single("one text") == client.embed_single("one text")
            assert twin._transport._session is not client._transport._session  # type: ignore[attr-defined]


def test_a_client_for_await_over_http_is_sent_too(server_url: str) -> None:
    client = AsyncLLMBackendClient(server_url, KEY, timeout=7)
    twin = pickle.loads(pickle.dumps(client))
    assert twin._transport._address.given == (server_url, KEY, 7, 2)


@pytest.mark.parametrize("kind", ["threads", "await"])
def test_a_client_in_process_tells_what_to_do_instead(tmp_path: Path, kind: str) -> None:
    options = Settings(data_dir=tmp_path)
    if kind == "await":
        waiting = AsyncLLMBackendClient(transport=AsyncLocalTransport(options))
        with pytest.raises(TransportError, match=r"start a server \(llmbackend serve\)"):
            pickle.dumps(waiting)
        return
    with LLMBackendClient(transport=LocalTransport(options)) as client:
        with pytest.raises(TransportError, match=r"start a server \(llmbackend serve\)"):
            pickle.dumps(client)
        assert copy.deepcopy(client) is client
        assert client.embed_single("one text")


PROGRAM = """
    import multiprocessing, sys
    from llm_client import LLMBackendClient

    def length(client, number):
        vectors = [client.embed_single(f"text {number} {again}") for again in range(20)]
        return len(vectors), len(vectors[0])

    if __name__ == "__main__":
        client = LLMBackendClient(*sys.argv[1:])
        client.health()
        for method in ["spawn", "fork"]:
            with multiprocessing.get_context(method).Pool(2) as pool:
                waiting = pool.starmap_async(length, [(client, 1), (client, 2)])
                assert length(client, 3) == (20, 256)
                assert waiting.get(60) == [(20, 256), (20, 256)], method
        context = multiprocessing.get_context("fork")
        processes = [context.Process(target=length, args=(client, number)) for number in range(2)]
        for process in processes:
            process.start()
        assert length(client, 3) == (20, 256)
        for process in processes:
            process.join(60)
            assert process.exitcode == 0, process
        from joblib import Parallel, delayed
        assert Parallel(2)(delayed(length)(client, number) for number in range(2)) == [(20, 256)] * 2
"""


def test_a_client_works_in_processes_that_are_spawned_or_forked_and_by_joblib(
    server_url: str, tmp_path: Path
) -> None:
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    done = subprocess.run(
        [sys.executable, program, server_url, KEY], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


QUIET = """
    import logging, sys
    logging.basicConfig(level=logging.DEBUG, format="%(name)s")
    from llmbackend import LLMBackendClient
    with LLMBackendClient() as client:
        client.wait_for_job(client.submit_job("batch_embed", {"texts": ["one text"]}))
"""


def test_a_program_that_logs_everything_has_no_line_of_huey_s_nor_one_for_each_call(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(QUIET)],
        env={**os.environ, "DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert {line for line in done.stderr.split() if line.startswith(("huey", "llmbackend"))} == set()


def test_what_is_wrong_in_the_queue_is_told_under_our_name() -> None:
    told: list[tuple[str, str]] = []
    handler = logging.Handler()
    handler.emit = lambda record: told.append((record.name, record.getMessage()))  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    try:
        logging.getLogger("huey.consumer").info("Shutting down gracefully...")
        logging.getLogger("huey.consumer").error("Error reading from queue")
    finally:
        logging.getLogger().removeHandler(handler)
    assert told == [(wakeups.__name__, "Error reading from queue")]
