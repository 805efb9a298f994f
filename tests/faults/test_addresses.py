"""Addresses that callers name for a model server to fetch: none of this network."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmbackend import InvalidRequest, LLMBackendClient
from llmbackend.local import LocalTransport
from llmbackend.outbound import addresses
from llmbackend.settings import Settings
from tests.server import serving
from tests.upstream.fake import KEY, Upstream, running

PRIVATE = [
    "http://127.0.0.1/x.png",
    "http://127。0。0。1/x.png",
    "http://①②⑦.⓪.⓪.①/x.png",
    "http://169.254.169.254/latest/meta-data/",
    "http://[::ffff:169.254.169.254]/",
    "http://[64:ff9b::a9fe:a9fe]/",
    "http://2130706433/",
    "http://0x7f.1/",
    "https://a:b@1.1.1.1/",
    "http://1.1.1.1\\@127.0.0.1/",
    "http://localhost/x.png",
]


# The fixture `client` is made of these, here with a chat model that tells what it was sent.


@pytest.fixture(scope="module")
def _upstream() -> Iterator[Upstream]:
    with running() as upstream:
        yield upstream


@pytest.fixture
def upstream(_upstream: Upstream) -> Upstream:
    _upstream.reset()
    return _upstream


@pytest.fixture(scope="module")
def _settings(_upstream: Upstream) -> dict[str, Any]:
    return {"openai_base_url": _upstream.url, "openai_api_key": KEY, "chat_model": "ok"}


@pytest.fixture(scope="module")
def _local(_settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLMBackendClient]:
    options = Settings(data_dir=tmp_path_factory.mktemp("local"), **_settings)
    with LLMBackendClient(transport=LocalTransport(options)) as client:
        yield client


@pytest.fixture(scope="module")
def _http(_settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLMBackendClient]:
    folder = tmp_path_factory.mktemp("server")
    with serving(folder, **_settings) as server, LLMBackendClient(server.url) as client:
        yield client


def _messages(part: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, part]}]


def _part(url: str, field: str = "image_url") -> dict[str, Any]:
    return {"type": field, field: {"url": url}}


@pytest.mark.parametrize("url", PRIVATE)
def test_no_model_server_is_sent_to_a_private_address(
    client: LLMBackendClient, upstream: Upstream, url: str
) -> None:
    for part in (_part(url), _part(url, "video_url"), {"type": "file", "file": {"file_id": url}}):
        with pytest.raises(InvalidRequest, match=r"messages"):
            client.chat(_messages(part))
        with pytest.raises(InvalidRequest, match=r"messages"):
            "".join(client.chat(_messages(part), stream=True))
    assert upstream.seen == []


def test_jobs_and_answers_are_no_way_around(client: LLMBackendClient, upstream: Upstream) -> None:
    messages = _messages(_part(PRIVATE[0]))
    params = {"prompts": [messages, "Hello"]}
    first, second = client.wait_for_job(client.submit_job("batch_chat", params), 60).replies
    assert first.error.code == "invalid_request"
    assert second.reply
    assert PRIVATE[0] not in json.dumps(upstream.seen)


def test_public_addresses_and_data_arrive(client: LLMBackendClient, upstream: Upstream) -> None:
    for url in ("https://1.1.1.1/a.png", "data:image/png;base64,aGVsbG8="):
        client.chat(_messages(_part(url)))
        assert upstream.seen[-1]["messages"][0]["content"][1] == _part(url)


def test_a_setting_allows_private_ones(tmp_path: Path, upstream: Upstream) -> None:
    options = Settings(
        data_dir=tmp_path,
        openai_base_url=upstream.url,
        openai_api_key=KEY,
        chat_model="ok",
        image_urls_private=True,
    )
    with LLMBackendClient(transport=LocalTransport(options)) as client:
        client.chat(_messages(_part("http://127.0.0.1/x.png")))
    assert len(upstream.seen) == 1


def test_names_are_judged_by_what_they_mean(
    tmp_path: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {
        "good.test": ["1.1.1.1", "2606:4700::1111"],
        "mixed.test": ["1.1.1.1", "10.0.0.1"],
        "metadata.test": ["169.254.169.254"],
        "tunnel.test": ["2002:7f00:1::"],
    }
    before = socket.getaddrinfo

    def look_up(host: Any, *rest: Any, **more: Any) -> Any:
        if not str(host).endswith(".test"):
            return before(host, *rest, **more)
        if host not in answers:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in answers[host]]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    options = Settings(data_dir=tmp_path, openai_base_url=upstream.url, openai_api_key=KEY, chat_model="ok")
    with LLMBackendClient(transport=LocalTransport(options)) as client:
        client.chat(_messages(_part("http://good.test/a.png")))
        told = set()
        for name in ("mixed.test", "metadata.test", "tunnel.test", "unknown.test"):
            with pytest.raises(InvalidRequest) as error:
                client.chat(_messages(_part(f"http://{name}/a.png")))
            told.add(error.value.message.replace(name, ""))
        assert len(told) == 1  # nothing of what a name means
    assert len(upstream.seen) == 1


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("1.1.1.1", True),
        ("2606:4700:4700::1111", True),
        ("::ffff:1.1.1.1", True),
        ("64:ff9b::101:101", True),
        ("0.0.0.0", False),
        ("10.0.0.1", False),
        ("100.64.0.1", False),
        ("127.0.0.1", False),
        ("169.254.169.254", False),
        ("172.16.0.1", False),
        ("192.0.0.192", False),
        ("::ffff:192.0.0.192", False),
        ("64:ff9b::c000:c0", False),
        ("168.63.129.16", False),
        ("192.88.99.1", False),
        ("192.0.2.1", False),
        ("192.168.0.1", False),
        ("198.18.0.1", False),
        ("224.0.0.1", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
        ("::", False),
        ("::1", False),
        ("::127.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:0:127.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b:1::1", False),
        ("100::1", False),
        ("2001:0:4136:e378:8000:63bf:80ff:fffe", False),
        ("2001:db8::1", False),
        ("2002:7f00:1::", False),
        ("2606:4700::5efe:7f00:1", False),
        ("fc00::1", False),
        ("fe80::1", False),
        ("fe80::1%eth0", False),
        ("fec0::1", False),
        ("ff02::1", False),
        ("127.1", False),
        ("2130706433", False),
        ("localhost", False),
    ],
)
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert addresses.is_public(address) is public
