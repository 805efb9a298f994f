"""Health, models and the client itself, on both transports."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import ANY

import pytest
import requests

import llmbackend
from llmbackend import LLMBackendClient, NotFound, TransportError
from llmbackend.files import landlock
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings
from tests.server import KEY


@pytest.fixture(params=["local", "http"])
def closed(
    request: pytest.FixtureRequest, tmp_path: Path, models_dir: Path, server_url: str
) -> LLMBackendClient:
    """A client that was closed, on each transport in turn."""
    if request.param == "http":
        client = LLMBackendClient(server_url, KEY)
    else:
        options = Settings(data_dir=tmp_path / "data", models_dir=models_dir)
        client = LLMBackendClient(transport=LocalTransport(options))
    with client:
        assert client.health().status == "ok"
    return client


def test_health_tells_version_and_models(client: LLMBackendClient) -> None:
    health = client.health()
    assert set(health) == {"status", "problems", "parts", "version", "chat", "embeddings", "own_file_types"}
    assert (health.status, health.problems) == ("ok", [])
    assert health.parts.items() >= {"disk": "ok", "database": "ok"}.items()
    assert health.version == llmbackend.__version__
    assert health.chat == "SmolLM2-135M-Instruct"


def test_the_doctor_finds_the_embedded_stack_well(client: LLMBackendClient) -> None:
    diagnosis = client.doctor()
    assert set(diagnosis) == {"ok", "version", "checks"}
    assert (diagnosis.ok, diagnosis.version) == (True, llmbackend.__version__)
    assert [(check.name, check.server, check.ok, check.fix) for check in diagnosis.checks] == [
        ("chat", "embedded", True, ANY),
        ("judge", "embedded", True, None),
        ("embeddings", "embedded", True, None),
        ("data", "embedded", True, None),
        ("files", "embedded", True, None if landlock.version() else ANY),
        ("plugins", "embedded", True, None),
    ]
    chat, judge, embeddings, data, files, _ = diagnosis.checks
    assert chat.fix is None or "llmbackend models pull" in chat.fix, (
        "where there is memory for a larger model"
    )
    assert files.limits == {"landlock": landlock.version()}
    assert (chat.models, chat.limits) == ([client.health().chat], {"context": 2048})
    assert (judge.models, judge.limits) == (["all-MiniLM-L6-v2"], {"dimension": 384})
    assert (embeddings.models, embeddings.limits) == ([client.health().embeddings], {"dimension": 256})
    assert data.url.startswith("file:///")
    assert data.limits.free_mb > 0
    assert all(check.latency_ms >= 0 for check in diagnosis.checks)


def test_models_are_chat_embedding_and_one_per_collection(client: LLMBackendClient, collection: str) -> None:
    client.create_collection(collection)
    health = client.health()
    types = {model.id: model.type for model in client.models()}
    assert types[health.chat] == "chat"
    assert types[health.embeddings] == "embedding"
    assert types[f"rag/{collection}"] == "rag"
    assert types["agent/researcher"] == types["agent/contracts"] == "agent"
    client.delete_collection(collection)
    assert f"rag/{collection}" not in [model.id for model in client.models()]


def test_a_model_is_found_by_its_id(client: LLMBackendClient, collection: str) -> None:
    client.create_collection(collection)
    for model in client.models():
        assert client.get_model(model.id) == model
    assert client.get_model(f"rag/{collection}").type == "rag"


@pytest.mark.parametrize("name", ["rag/no-such-collection", "org/no/such/model", "no-such-model", "rag%2Fx"])
def test_an_unknown_model_is_not_found(client: LLMBackendClient, name: str) -> None:
    with pytest.raises(NotFound, match=name) as caught:
        client.get_model(name)
    assert caught.value.details == {"model": name}


@pytest.mark.parametrize("slash", ["/", "%2F", "%2f"])
def test_a_models_path_may_have_its_slash_either_way(server_url: str, slash: str) -> None:
    with LLMBackendClient(server_url, KEY) as client:
        client.create_collection("a_path")
        reply = requests.get(
            f"{server_url}/v1/models/rag{slash}a_path", headers={"X-API-Key": KEY}, timeout=10
        )
        assert (reply.status_code, reply.json()["id"]) == (200, "rag/a_path")
        client.delete_collection("a_path")


def test_a_closed_client_says_so(closed: LLMBackendClient) -> None:
    with pytest.raises(TransportError, match="closed"):
        closed.health()
    with pytest.raises(TransportError, match="closed"):
        closed.chat("hello", stream=True)


def test_closing_twice_is_fine(closed: LLMBackendClient) -> None:
    closed.close()


def test_the_representation_has_no_key(client: LLMBackendClient) -> None:
    assert KEY not in repr(client)


def test_threads_may_share_a_client(client: LLMBackendClient, collection: str) -> None:
    texts = [f"text number {number}" for number in range(40)]
    expected = [client.embed_single(text) for text in texts]
    client.rag_ingest("shared by threads", collection)
    with ThreadPoolExecutor(2) as pool:
        vectors = pool.map(client.embed_single, texts)
        hits = pool.map(lambda _: client.rag_search("threads", collection), range(40))
        assert list(vectors) == expected
        assert all([hit.text for hit in found] == ["shared by threads"] for found in hits)


def test_threads_may_ingest_into_one_collection(client: LLMBackendClient, collection: str) -> None:
    with ThreadPoolExecutor(2) as pool:
        reports = list(
            pool.map(
                lambda half: client.rag_ingest([f"{half} {n}" for n in range(100)], collection),
                ["left", "right"],
            )
        )
    assert [report.added for report in reports] == [100, 100]
    assert client.get_collection(collection).documents == 200
