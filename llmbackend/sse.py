"""Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html), as OpenAI's streams use them."""

from __future__ import annotations

import json
import re
from typing import Any

DONE = b"data: [DONE]\n\n"

_DONE = re.compile(rb"data: ?\[DONE\]\s*$")
_TAIL = 2000  # bytes, which hold a stream's last two events: the usage, and [DONE]


def event(data: dict[str, Any], number: int | None = None) -> bytes:
    """One event, ready to send; its number is what a reader who comes back sends as Last-Event-ID."""
    begin = b"" if number is None else b"id: %d\n" % number
    # As ASCII: half a character, as models send it now and then, has no UTF-8.
    return begin + b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"


class Tail:
    """The end of a stream that is being read: clients take a connection's end for the stream's."""

    def __init__(self) -> None:
        self.bytes = b""

    def add(self, piece: bytes) -> None:
        self.bytes = (self.bytes + piece)[-_TAIL:]

    @property
    def done(self) -> bool:
        """Whether the last event was [DONE]."""
        return _DONE.search(self.bytes) is not None
