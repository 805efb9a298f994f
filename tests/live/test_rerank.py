"""Reranking by a real vLLM, on both transports."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmbackend import InvalidRequest, LLMBackendClient, NotFound
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings
from tests.live.conftest import needs
from tests.server import KEY, serving

pytestmark = [pytest.mark.live, *needs("LIVE_RERANK_URL")]

URL = os.environ.get("LIVE_RERANK_URL", "")
QUERY = "When was the harbour dredged?"
TEXTS = [
    "Bananas are rich in potassium.",
    "The harbour of Aldersea was dredged in 1911 to let larger ships in.",
    "The stock market fell on Monday.",
]


@pytest.fixture(params=["local", "http"])
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LLMBackendClient]:
    if request.param == "local":
        options = Settings(data_dir=tmp_path, rerank_url=URL)
        with LLMBackendClient(transport=LocalTransport(options)) as client:
            yield client
    else:
        with (
            serving(tmp_path, api_key=KEY, rerank_url=URL) as server,
            LLMBackendClient(server.url, KEY) as client,
        ):
            yield client


def test_the_text_that_answers_comes_first(client: LLMBackendClient) -> None:
    ranked = client.rerank(QUERY, TEXTS)
    assert (ranked[0].index, ranked[0].text) == (1, TEXTS[1])
    assert sorted(one.index for one in ranked) == [0, 1, 2]
    scores = [one.score for one in ranked]
    assert scores == sorted(scores, reverse=True)
    assert client.rerank(QUERY, TEXTS, top_n=1)[0].index == 1


def test_model_and_usage_come_along(client: LLMBackendClient) -> None:
    answer = client._call("rerank", query=QUERY, documents=TEXTS)
    assert answer.model
    assert answer.usage.total_tokens > 20
    assert answer.results[0].document.text == TEXTS[1]
    assert client.rerank(QUERY, TEXTS, model=answer.model)[0].index == 1


def test_the_doctor_finds_it_well(client: LLMBackendClient) -> None:
    [rerank] = [check for check in client.doctor().checks if check.name == "rerank"]
    assert rerank.ok, rerank.fix
    assert rerank.models


def test_many_texts_are_ranked(client: LLMBackendClient) -> None:
    many = [f"Note {number}: nothing of interest." for number in range(200)]
    ranked = client.rerank(QUERY, [*many, TEXTS[1]])
    assert len(ranked) == 201
    assert ranked[0].index == 200


def test_an_unknown_model_is_not_found(client: LLMBackendClient) -> None:
    with pytest.raises(NotFound, match="no-such-model"):
        client.rerank(QUERY, TEXTS, model="no-such-model")


def test_a_text_beyond_its_context_is_the_callers_to_shorten(client: LLMBackendClient) -> None:
    with pytest.raises(InvalidRequest) as caught:
        client.rerank(QUERY, ["word " * 20_000])
    details = caught.value.details
    assert details["index"] == 0
    assert details["limit"] > 0
