"""Images as the SDK sends them: their kind is told from their bytes, and what is none is refused before it is sent."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_client import encoded
from llmbackend import InvalidRequest, LLMBackendClient
from llmbackend.errors import position

IMAGES = {
    "png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    "jpeg": b"\xff\xd8\xff\xe0\0\x10JFIF",
    "gif": b"GIF89a\1\0\1\0",
    "webp": b"RIFF\x1a\0\0\0WEBPVP8L",
}
PNG = IMAGES["png"]


class Listener:
    """A transport that keeps the request, and answers nothing of interest."""

    def call(self, operation: str, given: dict[str, Any]) -> bytes:
        self.body = encoded(operation, given)
        return b'{"choices": [{"message": {"content": "x"}}], "model": "m"}'

    def stream(self, operation: str, given: dict[str, Any]) -> Iterator[bytes]:
        raise NotImplementedError

    def close(self) -> None: ...


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def client(listener: Listener) -> LLMBackendClient:
    return LLMBackendClient(transport=listener)


@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.parametrize("as_file", [False, True], ids=["bytes", "file"])
def test_the_kind_is_told_from_the_bytes(
    client: LLMBackendClient, listener: Listener, tmp_path: Path, kind: str, as_file: bool
) -> None:
    path = tmp_path / "picture.txt"
    path.write_bytes(IMAGES[kind])
    client.chat("What is this?", images=[path if as_file else IMAGES[kind]])
    url = f"data:image/{kind};base64,{base64.b64encode(IMAGES[kind]).decode()}"
    assert f'"{url}"' in listener.body.decode()


@pytest.mark.parametrize("url", ["http://h/a.png", "https://h/a", "data:image/avif;base64,AAAA"])
def test_a_url_is_sent_as_it_is(client: LLMBackendClient, listener: Listener, url: str) -> None:
    client.chat("What is this?", images=url)
    assert f'"url": "{url}"' in listener.body.decode()


@pytest.mark.parametrize(
    ("images", "place", "reason"),
    [
        ([b"hello"], "images[0]", "is not a PNG"),
        ([PNG, b""], "images[1]", "is not a PNG"),
        ([b"RIFF\x1a\0\0\0WAVEfmt "], "images[0]", "is not a PNG"),
        (["no/such/quay.png"], "images[0]", "no/such/quay.png"),
        ([Path("no/such/quay.png")], "images[0]", "no/such/quay.png"),
        ([Path()], "images[0]", "cannot be read"),
        (["a\0b"], "images[0]", "cannot be read"),
        ([5], "images[0]", "not int"),
        (5, "images", "not int"),
    ],
)
def test_what_is_no_image_is_refused(client: LLMBackendClient, images: Any, place: str, reason: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        client.chat("What is this?", images=images)
    assert caught.value.message.startswith(f"chat: {place}: ")
    assert reason in caught.value.message
    assert position(caught.value.details["errors"][0]["loc"]) == place


@pytest.mark.parametrize("messages", [[], 5, ["hello"], [{"role": "assistant", "content": "Hello!"}]])
def test_images_need_a_users_message(client: LLMBackendClient, messages: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"chat: (images|messages)"):
        client.chat(messages, images=[PNG])
