"""EPUB books: their chapters in order, under the book's title."""

from __future__ import annotations

from typing import Any

import pytest

from llmbackend.files.parsed import Unreadable
from llmbackend.files.parsing import parse
from tests import files


def test_chapters_are_read_in_order_under_the_title() -> None:
    table = "<table><tr><th>year</th><th/></tr><tr><td>1931</td><td/></tr></table>"
    chapters = "<h1>Tides</h1><p>High at nine.</p>", f"<h1>Höfen</h1><p/><p>14<sup>1</sup> days.</p>{table}"
    said = parse("a.epub", files.epub("Fish &amp; ships", *chapters)).text
    assert [line for line in said.splitlines() if line.strip()] == [
        "# Fish & ships",
        "## Tides",
        "High at nine.",
        "## Höfen",
        "14¹ days.",
        "| year |  |",
        "| --- | --- |",
        "| 1931 |  |",
    ]


def test_a_table_of_contents_repeats_the_chapters_and_is_left_out() -> None:
    contents = '<h1>Contents</h1><div class="toc"><p><a href="chapter%201.xhtml#c1">Tides</a></p></div>'
    said = parse("a.epub", files.epub("Ships", contents, '<h1 id="c1">Tides</h1><p>High at nine.</p>')).text
    assert said.count("Tides") == 1


def test_a_chapter_is_read_once_however_often_it_is_named() -> None:
    book = files.epub("Ships", "<p>High at nine.</p>")
    again = files.archive(
        {
            name: content.replace(b"</spine>", b'<itemref idref="chapter 0"/></spine>')
            for name, content in files.unpacked(book).items()
        }
    )
    assert parse("a.epub", again).text.count("High at nine.") == 1


ENCRYPTED = "<encryption><EncryptedData><CipherData><CipherReference URI='%s'/></CipherData></EncryptedData></encryption>"


def test_only_a_font_may_be_encrypted() -> None:
    font = {"META-INF/encryption.xml": ENCRYPTED % "OEBPS/font.otf"}
    assert "nine" in parse("a.epub", files.epub("Ships", "<p>High at nine.</p>", **font)).text


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        (
            {"META-INF/encryption.xml": ENCRYPTED % "OEBPS/text/chapter%200.xhtml"},
            "encrypted: it is protected",
        ),
        ({"OEBPS/text/chapter 0.xhtml": "<p>" * 210_000}, "too large: it has 210,00"),
        ({"OEBPS/text/chapter 0.xhtml": "<div>" * 2000}, "too large: it has 1,001 <div> within each other"),
        ({"picture.png": bytes(260 * 2**20)}, "too large: it unpacks to"),
        ({"META-INF/container.xml": "<container/>"}, "broken, or no .epub file"),
        ({"OEBPS/text/chapter 0.xhtml": " "}, "empty"),
    ],
)
def test_what_cannot_be_read_tells_why(parts: dict[str, Any], why: str) -> None:
    with pytest.raises(Unreadable) as caught:
        parse("a.epub", files.epub("", "<p>High at nine.</p>", **parts))
    assert str(caught.value).startswith(why)


@pytest.mark.timeout(20)
def test_a_name_without_end_takes_no_time() -> None:
    book = files.epub("Ships", f"<p>High at nine.</p><{'a' * 300_000}")
    assert "nine" in parse("a.epub", book).text
