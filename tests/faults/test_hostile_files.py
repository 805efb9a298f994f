"""Files made to do harm, sent to a real server: they are stopped, and nobody else notices."""

from __future__ import annotations

import statistics
import threading
import time
from pathlib import Path

import psutil
import requests

from llmbackend import LLMBackendClient
from tests import files
from tests.files import FACT
from tests.server import KEY, serving


def test_a_file_that_is_absurdly_wide_fails_and_the_others_go_in(
    client: LLMBackendClient, collection: str
) -> None:
    wide = ",".join(f"c{number}" for number in range(10**6)).encode()
    report = client.rag_ingest_files(
        [("one.txt", FACT.encode()), ("wide.csv", wide), ("other.csv", b"a,b\n1,2")], collection
    )
    assert report.added == 2
    [failure] = report.failed
    assert (failure.id, failure.error) == (
        "wide.csv",
        "too large: it has 1,000,000 columns, and the limit is 16,384",
    )


def test_hostile_files_are_stopped_while_the_server_answers(tmp_path: Path, models_dir: Path) -> None:
    settings = {"models_dir": models_dir, "api_key": KEY, "file_seconds": 4, "file_memory_mb": 512}
    given = [("good.txt", FACT.encode()), *files.hostile().items(), ("also good.md", FACT.encode())]
    lives: list[int] = []
    waits: list[float] = []
    stopped = threading.Event()

    with serving(tmp_path, **settings) as server, LLMBackendClient(server.url, KEY) as client:

        def ask() -> None:
            with requests.Session() as session:
                while not stopped.wait(0.1):
                    began = time.monotonic()
                    lives.append(session.get(f"{server.url}/health/live", timeout=10).status_code)
                    waits.append(time.monotonic() - began)

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            report = client.rag_ingest_files(given, "aldersea")
        finally:
            stopped.set()
            asking.join()
        assert report.added == 2
        reasons = {failure.id: failure.error for failure in report.failed}
        assert reasons.keys() == files.hostile().keys()
        assert reasons["bomb.docx"].startswith("too large: it unpacks to")
        assert reasons["endless.pdf"] == "took too long: more than 4 s"
        assert reasons["deep.json"] == "nested too deeply"
        assert set(lives) == {200}
        assert statistics.median(waits) < 0.1, "what parses stands back, and is another process"
        assert client.rag_search("lighthouse", "aldersea")[0].text == FACT
        children = psutil.Process(server.process.pid).children(recursive=True)
        assert all(KEY not in child.environ().values() for child in children)
    assert not any(child.is_running() for child in children)
