"""A model server behind us that misbehaves: a client on each transport before the fake one."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from llmbackend import LLMBackendClient, LLMBackendError
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings
from tests.server import KEY as SERVER_KEY
from tests.server import serving
from tests.upstream.fake import KEY, Upstream, running

# Three attempts with their pauses, of 0.9 s at most, fit into it, and a second for the requests themselves; to wait for
# the fake's Retry-After of 2 s does not.
TIMEOUT = 1.9
DEADLINE = 3 * TIMEOUT + 4  # three attempts, and the waits between them
ATTEMPTS = 3

Connect = Callable[..., LLMBackendClient]


@pytest.fixture(scope="module")
def _upstream() -> Iterator[Upstream]:
    with running() as upstream:
        yield upstream


@pytest.fixture
def upstream(_upstream: Upstream) -> Upstream:
    _upstream.reset()
    return _upstream


def _options(upstream: Upstream) -> dict[str, Any]:
    return {
        "openai_base_url": upstream.url,
        "openai_api_key": KEY,
        "chat_model": "ok",
        "upstream_timeout": TIMEOUT,
    }


# The fixture `client` is made of these, here with the fake for a chat model.


@pytest.fixture(scope="module")
def _settings(_upstream: Upstream) -> dict[str, Any]:
    return _options(_upstream)


@pytest.fixture(scope="module")
def _local(_settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLMBackendClient]:
    options = Settings(data_dir=tmp_path_factory.mktemp("local"), **_settings)
    with LLMBackendClient(transport=LocalTransport(options)) as client:
        yield client


@pytest.fixture(scope="module")
def _http(_settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLMBackendClient]:
    folder = tmp_path_factory.mktemp("server")
    with (
        serving(folder, api_key=SERVER_KEY, **_settings) as server,
        LLMBackendClient(server.url, SERVER_KEY, retries=0) as client,
    ):
        yield client


@pytest.fixture
def connect(upstream: Upstream, tmp_path: Path) -> Iterator[Connect]:
    """A client in this process with settings of its own; closed at the end."""
    opened: list[LLMBackendClient] = []

    def open_one(**settings: Any) -> LLMBackendClient:
        options = Settings(
            **{
                "data_dir": tmp_path / str(len(opened)),
                **_options(upstream),
                "tei_api_key": KEY,
                "tei_rerank_api_key": KEY,
                "rerank_api_key": KEY,
                **settings,
            },
        )
        opened.append(LLMBackendClient(transport=LocalTransport(options)))
        return opened[-1]

    yield open_one
    for client in opened:
        client.close()


@pytest.fixture(scope="module")
def patient_server(_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One that by itself would wait for the model longer than a test does."""
    options = {**_options(_upstream), "upstream_timeout": 100}
    with serving(tmp_path_factory.mktemp("patient"), api_key=SERVER_KEY, **options) as server:
        yield server.url


@pytest.fixture(params=["local", "http"])
def patient(request: pytest.FixtureRequest, connect: Connect) -> Iterator[LLMBackendClient]:
    if request.param == "local":
        yield connect(upstream_timeout=100)
    else:
        with LLMBackendClient(request.getfixturevalue("patient_server"), SERVER_KEY, retries=0) as client:
            yield client


@contextmanager
def fails(kind: type[LLMBackendError], **details: Any) -> Iterator[pytest.ExceptionInfo[LLMBackendError]]:
    """This very class, in time, with these details, and without the upstream's key."""
    began = time.monotonic()
    with pytest.raises(LLMBackendError) as caught:
        yield caught
    assert time.monotonic() - began < DEADLINE
    error = caught.value
    assert type(error) is kind, repr(error)
    assert {name: error.details.get(name) for name in details} == details
    assert KEY not in f"{error!r} {error} {json.dumps(error.to_dict())}"
