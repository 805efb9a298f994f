"""Replies of model servers, as JSON: large ones hold up nobody, whatever is in them."""

from __future__ import annotations

import asyncio
import json
import math
import sys
from typing import Any

import pytest

from llmbackend import json_reading

NUMBERS = [number / 7 for number in range(1000)]


@pytest.mark.parametrize(
    "value",
    [
        {"data": [{"index": number, "embedding": NUMBERS} for number in range(40)], "usage": None},
        [NUMBERS] * 30,
        {"choices": [{"message": {"content": 'Quotes, "\\ and\n' * 30_000}}]},
        [[[[]]], "é€𝄞" * 70_000, {}],
        ["x" * 300_000, "half a character: \ud800"],
        {"many": [1] * (json_reading.VALUES + 1)},
    ],
    ids=[
        "embeddings",
        "rows",
        "a long text",
        "other letters",
        "half a character",
        "more values than a request",
    ],
)
def test_a_large_reply_is_what_python_reads(value: Any) -> None:
    body = json.dumps(value).encode()
    assert len(body) > json_reading.SLICE
    assert asyncio.run(json_reading.reply(body)) == value


LONG = ['Quotes, "\\ and\n', "é€𝄞", "\\ud834", "]}, "]


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize(
    "value",
    [
        *([text * 200_000] for text in LONG),
        {"before": 1, "a": {"b": [["x", LONG[0] * 200_000, "y"]]}, "after": [2]},
        {LONG[0] * 200_000: "a long name", "\0": LONG[1] * 200_000},
        {str(number): "a" * 200 for number in range(9_000)},
        {"a": {str(number): ["a" * 200] for number in range(9_000)}, "b": 1},
    ],
    ids=[
        "quotes",
        "other letters",
        "no escapes",
        "brackets",
        "within others",
        "a name",
        "an object",
        "an object in another",
    ],
)
def test_what_is_long_is_read_in_pieces(
    value: Any, ascii_only: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One text of 45 MB held everything up for 150 ms."""
    sizes: list[int] = []
    from_json = json_reading.from_json

    def counted(piece: bytes, **options: Any) -> Any:
        sizes.append(len(piece))
        return from_json(piece, **options)

    monkeypatch.setattr(json_reading, "from_json", counted)
    body = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert json_reading.read(body, "test") == value
    if not any(len(name) > json_reading.PIECE for name in value if isinstance(value, dict)):
        assert max(sizes) < 2 * json_reading.PIECE


def test_half_a_character_between_two_pieces_is_mended() -> None:
    for before in range(13):  # wherever it stands
        body = b'["' + b"a" * before + rb"\ud834\udd1e" * 100_000 + rb'\ud834"]'
        assert json_reading.read(body, "test") == ["a" * before + "𝄞" * 100_000 + "\ufffd"]


def test_what_is_no_json_is_told() -> None:
    long = b"[" + b"1, " * json_reading.SLICE
    for body in (b"{", b"<html>", long, long + b"]", long + b"}"):
        with pytest.raises(json.JSONDecodeError):
            asyncio.run(json_reading.reply(body))
    read = asyncio.run(json_reading.reply(b"[" + b"1, " * json_reading.SLICE + b"NaN]"))
    assert math.isnan(read[-1])


def test_others_get_their_turns_while_a_large_reply_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    body = json.dumps([NUMBERS] * 800).encode()
    turns, at_pieces = 0, list[int]()
    from_json = json_reading.from_json

    def counted(piece: bytes, **options: Any) -> Any:
        at_pieces.append(turns)
        assert len(piece) < 2 * json_reading.PIECE
        return from_json(piece, **options)

    async def work() -> None:
        nonlocal turns
        reading = asyncio.create_task(json_reading.reply(body))
        while not reading.done():
            turns += 1
            await asyncio.sleep(0)
        assert len(reading.result()) == 800

    monkeypatch.setattr(json_reading, "from_json", counted)
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.0001)
    try:
        asyncio.run(work())
    finally:
        sys.setswitchinterval(before)
    assert len(at_pieces) >= len(body) // json_reading.PIECE - 1
    assert len(set(at_pieces)) >= len(at_pieces) // 2, "the loop had a turn between most of them"
