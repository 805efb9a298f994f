"""Words as they are found in texts: whole, in parts, and in one form of each character."""

from __future__ import annotations

import pytest

from llmbackend.text import words as module
from llmbackend.text.words import LONGEST_WHOLE, REMEMBERED_LENGTH, letters, pairs, plain, words

FOUND = [
    ("Plain words, as usual.", ["plain", "words", "as", "usual"]),
    ("the router's (new) Ports!", ["the", "router", "new", "ports"]),
    ("C++ C# F# Notepad++", ["c++", "c#", "f#", "notepad", "notepad++"]),
    (".NET end.Start", ["net", ".net", "end", "start", "endstart"]),
    ("getUserName", ["getusername", "get", "user", "name"]),
    ("XMLHttpRequest", ["xmlhttprequest", "xml", "http", "request"]),
    ("URLs PhD", ["urls", "phd", "ph", "d"]),
    ("parse_json2", ["parse", "json2", "json", "2", "parsejson2"]),
    ("3f2a9c10", ["3f2a9c10"]),
    ("1,234.56 1.234,56", ["1", "234", "56", "1234.56"] * 2),
    ("10 000,50 km", ["10", "000", "50", "000.50", "km", "10000.50"]),
    ("10⁶ 2½ x²", ["10", "6", "2", "1", "2", "x2", "x", "2"]),
    ("קָטָן", ["קטן"]),
    ("日本語と日本・英語", ["日本語と日本", "英語"]),
    ("👍🏽 ok", ["👍", "ok"]),
    ("", []),
    ("— …", []),
]


@pytest.mark.parametrize(("text", "expected"), FOUND, ids=[text for text, _ in FOUND])
def test_a_text_has_these_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_ascii_is_read_as_the_rest_is() -> None:
    text = (
        "C++ .NET a&b node.js @user o'neil's 1,000.5 getX parse_json2 (x) C#-y a/b@c.d 18+ v1.2 ++ .. x. 'y'"
    )
    for piece in text.split():
        general = [match.groups() for match in module._RUN.finditer(piece)]
        assert [match.groups() for match in module._ASCII_RUN.finditer(piece)] == [
            groups[:3] for groups in general
        ]


def test_letters_keep_their_marks() -> None:
    assert letters("กำลัง") == ["กำ", "ลั", "ง"]
    assert letters("ဗုဒ္ဓ") == ["ဗု", "ဒ္ဓ"]
    assert pairs("路由器") == ["路由", "由器"]


def test_accents_are_left_out_of_alphabets_that_have_them() -> None:
    assert [plain(word) for word in ("café", "ığdır", "łódź", "ещё")] == ["cafe", "igdir", "lodz", "еще"]
    assert [plain(word) for word in ("किताब", "がく", "각", "cafe")] == ["किताब", "がく", "각", "cafe"]


def test_what_is_remembered_has_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIECES_REMEMBERED", 10)
    module._pieces.clear()
    words(" ".join(f"word{number}" for number in range(100)) + " " + "x" * (REMEMBERED_LENGTH + 1))
    assert 0 < len(module._pieces) <= 10
    assert all(len(piece) <= REMEMBERED_LENGTH for piece in module._pieces)


def test_a_long_thing_is_found_by_its_parts() -> None:
    found = words("https://example.com/" + "/".join(["part"] * 30))
    assert "part" in found
    assert "examplecom" in found
    assert max(map(len, found)) <= LONGEST_WHOLE


def test_hostile_pieces_take_no_longer_than_their_length() -> None:
    for piece in (
        "a." * 50_000,
        "aB" * 50_000,
        "1," * 50_000,
        "'" * 100_000,
        "\u0301" * 100_000,
        "1.000" * 20_000,
    ):
        assert isinstance(words(piece), list)
