"""Reads what a GGUF file says about itself, without loading it (github.com/ggml-org/ggml, docs/gguf.md)."""

from __future__ import annotations

import struct
from pathlib import Path

_HEADER = struct.Struct("<4sIQQ")
_STRING = 8
_MAX_STRING = 1000


def architecture(file: Path) -> str:
    """The model's architecture, such as "llama"; "" if the file does not begin with it. Raises LookupError if
    it is no GGUF file."""
    with file.open("rb") as opened:
        header = opened.read(_HEADER.size)
        if len(header) < _HEADER.size or not header.startswith(b"GGUF"):
            raise LookupError("it is no GGUF file")
        try:
            key = opened.read(_length(opened.read(8)))
            (kind,) = struct.unpack("<I", opened.read(4))
            if key == b"general.architecture" and kind == _STRING:
                return opened.read(_length(opened.read(8))).decode(errors="replace")
        except struct.error:
            raise LookupError("it is cut short") from None
    return ""


def _length(of: bytes) -> int:
    (length,) = struct.unpack("<Q", of)
    return min(int(length), _MAX_STRING)
