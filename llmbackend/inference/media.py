"""URLs in messages, which a model server would fetch: only those of public addresses are passed on to it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from ..errors import InvalidRequest
from ..outbound import addresses

IMAGE_URLS = 256
"""The most URLs in one request, as each host has to be looked up."""

# LiteLLM fetches URLs in the last three as well.
_FIELDS = (
    ("image_url", "url"),
    ("video_url", "url"),
    ("file", "file_id"),
    ("file", "file_data"),
    ("input_audio", "data"),
)
_SCHEME = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]*:[/\\]")


async def check(messages: Sequence[dict[str, Any]], *, private: bool) -> None:
    """Raise InvalidRequest if a message has a URL whose address may not be called. data: URLs are always allowed."""
    hosts: set[str] = set()
    for number, (name, url) in enumerate(_urls(messages)):
        if number == IMAGE_URLS:
            raise InvalidRequest(
                f"messages: at most {IMAGE_URLS} URLs in a request: send the others as data: URLs"
            )
        try:
            found = addresses.parsed(url, name, private=private)
        except InvalidRequest as error:
            raise InvalidRequest(f"{error.message}: send it as a data: URL") from None
        host = found.raw_host or ""
        if _read_otherwise(url) != host:
            raise InvalidRequest(f"{name}: write the host as {host}")
        hosts.add(host)
    if hosts and not private:
        await addresses.check_names(hosts, "messages")


def _read_otherwise(url: str) -> str | None:
    """The URL's host as another parser reads it, since the model server's may differ from ours."""
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _urls(messages: Sequence[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    for index, message in enumerate(messages):
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            for field, key in _FIELDS:
                given = part.get(field)
                url = given.get(key) if isinstance(given, dict) else None
                if isinstance(url, str) and _SCHEME.match(url):
                    yield f"messages[{index}].{field}", url
