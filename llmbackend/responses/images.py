"""Images sent to a model that reads text only: each is replaced by what is known about it, its format and
size.

A question about an image gets just that as an answer, because a small model would invent what the image
shows.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

from ..errors import InvalidRequest

FORMATS = ("PNG", "JPEG", "GIF", "WEBP")

Turn = dict[str, Any]


def in_words(turns: Sequence[Turn], model: str) -> tuple[list[Turn], str | None]:
    """The conversation with its images in words; and, if the user's last message has images, a fixed answer,
    else None.

    Raises InvalidRequest for an image that cannot be read.
    """
    told = [turn if isinstance(turn["content"], str | None) else _told(turn) for turn in turns]
    last = next((turn for turn in reversed(turns) if turn["role"] == "user"), None)
    seen = of(last) if last is not None else []
    if not seen:
        return told, None
    which = "it is" if len(seen) == 1 else "they are"
    return told, (
        f"I cannot tell what the picture{'s' if seen[1:] else ''} show{'' if seen[1:] else 's'}: {model} reads text only. "
        f"What I know is that {which} {' and '.join(map(_about, seen))}."
    )


def of(message: Mapping[str, Any]) -> list[str]:
    """The URLs of a message's images."""
    content = message["content"]
    parts = content if isinstance(content, list) else ()
    return [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]


def _told(turn: Turn) -> Turn:
    parts = [
        {"type": "text", "text": f"[{_about(part['image_url']['url'])}]"}
        if part["type"] == "image_url"
        else part
        for part in turn["content"]
    ]
    return {**turn, "content": parts}


def _about(url: str) -> str:
    if not url.startswith("data:"):
        return "a picture at an address, which is not fetched"
    from PIL import Image, UnidentifiedImageError

    try:
        encoded = url.partition(";base64,")[2]
        with Image.open(BytesIO(base64.b64decode(encoded, validate=True)), formats=FORMATS) as image:
            wide, high = image.size  # reads the header only
            return f"a picture in {image.format}, {wide} by {high} pixels"
    except (binascii.Error, UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise InvalidRequest(
            f"input: an image_url is not an image: send {', '.join(FORMATS[:-1])} or {FORMATS[-1]}, as data:…;base64,…"
        ) from error
