"""What a process that reads files and the one that asks it tell each other. It imports no parsers: the latter needs none."""

from __future__ import annotations

import json
import struct
from typing import Any

LENGTHS = struct.Struct(">II")
OUT_OF_MEMORY = 3
"""The exit code of a process that ran out of memory."""


def frame(head: dict[str, Any], body: bytes = b"") -> bytes:
    """Return a frame: the lengths of head and body, the head as JSON, then the body."""
    about = json.dumps(head).encode()
    return LENGTHS.pack(len(about), len(body)) + about + body
