"""What the doctor says of servers behind us, on both transports."""

from __future__ import annotations

import json
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from llm_client import Record
from llmbackend import LLMBackendClient, TransportError
from llmbackend.doctor import PROBE_SECONDS
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings
from tests.server import KEY as SERVER_KEY
from tests.server import serving
from tests.upstream.conftest import TIMEOUT, Connect
from tests.upstream.fake import CONTEXT, KEY, TEI_TEXTS, VERSION, Upstream, closed_port

Examine = Callable[..., Record]
KEYS = (
    "vllm_api_key",
    "litellm_api_key",
    "openai_api_key",
    "tei_api_key",
    "tei_rerank_api_key",
    "rerank_api_key",
)


@pytest.fixture(params=["local", "http"])
def examine(request: pytest.FixtureRequest, upstream: Upstream, tmp_path: Path) -> Iterator[Examine]:
    """The diagnosis with these settings: soon there, whatever hangs, and without upstream's key."""
    with ExitStack() as stack:

        def once(**settings: Any) -> Record:
            folder = tmp_path / str(time.monotonic_ns())
            given = {"upstream_timeout": TIMEOUT, **dict.fromkeys(KEYS, KEY), **settings}
            if request.param == "local":
                transport = LocalTransport(Settings(data_dir=folder, **given))
                client = LLMBackendClient(transport=transport)
            else:
                server = stack.enter_context(serving(folder, api_key=SERVER_KEY, **given))
                client = LLMBackendClient(server.url, SERVER_KEY)
            stack.enter_context(client)
            began = time.monotonic()
            diagnosis = client.doctor()
            assert time.monotonic() - began < 2 * PROBE_SECONDS
            assert KEY not in json.dumps(diagnosis)
            assert diagnosis.ok == all(check.ok for check in diagnosis.checks)
            # Where there is no Landlock, how files are parsed is noted, and no fault.
            assert all(check.ok == (check.fix is None) for check in diagnosis.checks if check.name != "files")
            return diagnosis

        yield once


def _of(diagnosis: Record, name: str) -> list[Record]:
    return [check for check in diagnosis.checks if check.name == name]


def test_all_is_well(examine: Examine, upstream: Upstream) -> None:
    diagnosis = examine(
        vllm_url=upstream.url,
        litellm_url=f"{upstream.url}/v1/",
        tei_url=f"{upstream.url}/ok",
        tei_rerank_url=f"{upstream.url}/ok/",
        chat_model="ok",
    )
    assert diagnosis.ok
    assert [(check.name, check.server, check.url) for check in diagnosis.checks[:-3]] == [
        ("chat", "vLLM", f"{upstream.url}/v1"),
        ("chat", "LiteLLM", f"{upstream.url}/v1"),
        ("embeddings", "TEI", f"{upstream.url}/ok"),
        ("rerank", "TEI", f"{upstream.url}/ok"),
    ]
    chat, _, embeddings, rerank, *_ = diagnosis.checks
    assert (chat.models, chat.limits, chat.version) == (["ok"], {"context": CONTEXT}, VERSION)
    limits = {"input": CONTEXT, "batch": TEI_TEXTS}
    assert (embeddings.models, embeddings.limits) == (["fake"], {"dimension": 3, **limits})
    assert (rerank.models, rerank.limits) == (["fake"], limits)
    # No chat model was asked for a reply.
    assert not any("messages" in body for body in upstream.seen)


def test_embeddings_and_ranks_by_other_servers(examine: Examine, upstream: Upstream) -> None:
    diagnosis = examine(
        openai_base_url=upstream.url, embedding_model="ok", rerank_url=f"{upstream.url}/v1", rerank_model="ok"
    )
    assert diagnosis.ok
    [embeddings], [rerank] = _of(diagnosis, "embeddings"), _of(diagnosis, "rerank")
    assert (embeddings.models, embeddings.limits) == (["ok"], {"dimension": 3})
    assert (embeddings.server, embeddings.url) == ("the OpenAI-compatible server", f"{upstream.url}/v1")
    assert (rerank.server, rerank.models, rerank.limits) == ("the rerank server", ["ok"], {})


def test_servers_that_are_not_there(examine: Examine, upstream: Upstream) -> None:
    nowhere = closed_port()
    diagnosis = examine(
        vllm_url=f"{nowhere},{upstream.url}", tei_url=nowhere, rerank_url=nowhere, chat_model="ok"
    )
    assert [check.ok for check in diagnosis.checks] == [False, True, False, False, True, True, True]
    for check in diagnosis.checks:
        if not check.ok:
            assert nowhere in check.fix
            assert "is it running?" in check.fix
            assert (check.models, check.limits, check.version) == ([], {}, None)


def test_servers_that_hang(examine: Examine, upstream: Upstream) -> None:
    upstream.faults = ["hang"] * 9
    diagnosis = examine(
        vllm_url=f"{upstream.url},{upstream.url}/v1/,{upstream.url}",
        tei_url=f"{upstream.url}/ok",
        rerank_url=f"{upstream.url}/v1",
    )
    assert [check.ok for check in diagnosis.checks] == [False] * 5 + [True, True, True]
    for check in diagnosis.checks[:-3]:
        assert "did not answer in " in check.fix
        assert check.latency_ms >= TIMEOUT * 1000 * 0.9


def test_a_refused_key_is_told_by_its_setting(examine: Examine, upstream: Upstream) -> None:
    upstream.faults = ["401"] * 9  # whichever is asked first
    diagnosis = examine(
        vllm_url=upstream.url,
        litellm_url=upstream.url,
        tei_url=f"{upstream.url}/401",
        rerank_url=f"{upstream.url}/v1",
        rerank_model="401",
    )
    fixes = [check.fix or "" for check in diagnosis.checks]
    for fix, setting in zip(
        fixes, ("VLLM_API_KEY", "LITELLM_API_KEY", "TEI_API_KEY", "RERANK_API_KEY"), strict=False
    ):
        assert f"refused our API key: check {setting}" in fix


def test_a_model_that_no_server_offers(examine: Examine, upstream: Upstream) -> None:
    upstream.models = ["a", "b"]
    diagnosis = examine(
        vllm_url=upstream.url, litellm_url=closed_port(), chat_model="x", embedding_model="404"
    )
    vllm, litellm = _of(diagnosis, "chat")
    assert vllm.fix == "CHAT_MODEL 'x' is not offered: it has a, b"
    assert (vllm.ok, vllm.models) == (False, ["a", "b"])
    assert "is it running?" in litellm.fix
    [embeddings] = _of(diagnosis, "embeddings")
    assert not embeddings.ok


def test_one_server_of_several_needs_to_offer_the_model(examine: Examine, upstream: Upstream) -> None:
    diagnosis = examine(vllm_url=upstream.url, litellm_url=upstream.url, chat_model="ok")
    assert diagnosis.ok
    upstream.models = []
    [chat] = _of(examine(vllm_url=upstream.url), "chat")
    assert "offers no model" in chat.fix


@pytest.mark.parametrize("page", ["html", "not-json", "other-json", "404"])
def test_a_wrong_address_is_told(examine: Examine, upstream: Upstream, page: str) -> None:
    upstream.faults = [page]
    [chat] = _of(examine(vllm_url=upstream.url), "chat")
    assert "is this the right URL?" in chat.fix


def test_weights_that_are_not_here_name_the_command(examine: Examine, tmp_path: Path) -> None:
    diagnosis = examine(models_dir=tmp_path)
    for name in ("chat", "judge"):
        [check] = _of(diagnosis, name)
        assert (check.ok, check.server, check.models) == (False, "embedded", [])
        assert "llmbackend models pull" in check.fix
    assert [(check.name, check.ok) for check in diagnosis.checks[2:]] == [
        ("embeddings", True),
        ("data", True),
        ("files", True),
        ("plugins", True),
    ]


def test_the_doctor_has_less_patience_than_calls(examine: Examine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:  # which accepts nobody
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        diagnosis = examine(vllm_url=url, tei_url=url, rerank_url=url, upstream_timeout=10 * PROBE_SECONDS)
    assert [check.ok for check in diagnosis.checks] == [False, False, False, True, True, True]
    for check in diagnosis.checks[:-3]:
        assert f"{url}" in check.fix
        assert f"did not answer in {PROBE_SECONDS:g} s" in check.fix
        assert check.latency_ms < 2 * PROBE_SECONDS * 1000


def test_a_data_directory_that_cannot_be_written_to(
    connect: Connect, upstream: Upstream, tmp_path: Path
) -> None:
    client = connect()
    [data] = _of(client.doctor(), "data")
    assert data.ok
    gone = next(tmp_path.iterdir())
    shutil.rmtree(gone)
    [data] = _of(client.doctor(), "data")
    assert (data.ok, data.url) == (False, gone.as_uri())
    assert f"DATA_DIR {gone} cannot be written to: " in data.fix


def test_a_client_whose_url_is_a_model_servers_is_told(upstream: Upstream) -> None:
    with (
        LLMBackendClient(upstream.url, SERVER_KEY) as client,
        pytest.raises(TransportError, match=r"127\.0\.0\.1.*correct the URL"),
    ):
        client.models()
