"""Documents into chunks: where they are cut, and what they know of their place."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from llmbackend import slices
from llmbackend.chunks import chunking, sentence_splitter
from llmbackend.chunks.chunking import content_hash, split
from llmbackend.chunks.structure import sections
from llmbackend.chunks.tokens import tokens_of
from llmbackend.engines.interface import Chunk
from llmbackend.files.parsed import Syntax
from llmbackend.files.syntax import ParsedDocument, syntax
from llmbackend.schemas import Document

DEMO = Path(__file__).parents[2] / "llmbackend" / "demo" / "documents"


def _outline(text: str, syntax: Syntax) -> list[tuple[tuple[str, ...], str]]:
    return [(one.headings, text[one.body : one.end].strip()) for one in sections(text, syntax)]


def _chunks(text: str, name: str = "a.md", size: int = 256, overlap: int = 32) -> list[Chunk]:
    document = Document(id=name, text=text)
    return split(document, content_hash(document), size, overlap)


def _places(chunks: list[Chunk]) -> list[tuple[dict[str, Any], str]]:
    return [(chunk.place, chunk.text) for chunk in chunks]


# Headings


def test_markdown_is_cut_at_its_headings() -> None:
    text = """Before all.

# Tides of [Aldersea](https://example.org) #

About *tides*.

## `High`
High tide.

Low
---
Low tide.
1. # not a heading of the whole

```sh
# no heading
```
    # code, and no heading

# Boats
"""
    assert _outline(text, "markdown") == [
        ((), "Before all."),
        (("Tides of Aldersea",), "About *tides*."),
        (("Tides of Aldersea", "High"), "High tide."),
        (
            ("Tides of Aldersea", "Low"),
            "Low tide.\n1. # not a heading of the whole\n\n```sh\n# no heading\n```\n    # code, and no heading",
        ),
        ((), "# Boats"),
    ]


def test_the_title_in_front_matter_is_above_all() -> None:
    text = "---\nlayout: page\ntitle: 'Sick leave'\n---\nCall us.\n\n# Sick leave\nStay at home.\n\n## When\nAt once.\n"
    assert _outline(text, "markdown") == [
        (("Sick leave",), "Call us."),
        (("Sick leave",), "Stay at home."),
        (("Sick leave", "When"), "At once."),
    ]


@pytest.mark.parametrize(
    "text", ["---\ntitle: a\n---\n", "---\ntitle: a", "text\n---\ntitle: a\n---\n", "---\n"]
)
def test_front_matter_alone_is_a_text(text: str) -> None:
    assert "".join(text[one.start : one.end] for one in sections(text, "markdown")).strip()


def test_restructured_text_is_cut_at_its_titles() -> None:
    text = """.. _tides:

=======
 Tides
=======

About tides.

High
----
High tide.
A line that
is no title

------

More of it::

    Code
    ====

=====  =====
Table  Head
=====  =====

Low
---

Neap
~~~~

Neap tide.

Boats
-----
"""
    found = _outline(text, "rst")
    assert [headings for headings, _ in found] == [
        (),
        ("Tides",),
        ("Tides", "High"),
        ("Tides", "Low", "Neap"),
        ("Tides",),
    ]
    assert found[2][1].startswith("High tide.\nA line that\nis no title\n\n------\n\nMore of it::")
    assert found[2][1].endswith("Table  Head\n=====  =====")
    assert found[4][1] == "Boats\n-----"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("kind", ["markdown", "rst"])
def test_lines_may_end_in_each_way(end: str, kind: Syntax) -> None:
    text = end.join(["Tides", "=====", "", "High", "----", "", "High tide."])
    assert _outline(text, kind) == [(("Tides", "High"), "High tide.")]


def test_a_title_that_never_ends_is_cut() -> None:
    (found,) = sections("# " + "{#" * 500_000 + "\n\ntext", "markdown")
    assert len(found.headings[0]) == 200


def test_plain_text_has_no_headings() -> None:
    assert _outline("# one\n\ntwo\n---\n", "plain") == [((), "# one\n\ntwo\n---")]


def test_the_name_tells_how_a_text_is_marked_up() -> None:
    def of(name: str, **metadata: Any) -> Syntax:
        return syntax(Document(id=name, text="a", metadata=metadata))

    assert (of("a/b.md"), of("a.RST"), of("a.txt"), of("a.html")) == ("markdown", "rst", "plain", "plain")
    assert of("1", source="a.markdown") == "markdown"
    assert of("1", source=7) == "plain"
    assert syntax(ParsedDocument(id="a.docx", text="a", syntax="markdown")) == "markdown"


# Chunks


def test_small_sections_below_one_heading_make_one_chunk() -> None:
    text = (
        "# Tides\n\nAbout tides.\n\n## High\n\nHigh tide.\n\n## Low\n\nLow tide.\n\n# Boats\n\nAbout boats."
    )
    assert _places(_chunks(text)) == [
        (
            {"headings": ["Tides"], "sections": ["High", "Low"]},
            "About tides.\n\n## High\n\nHigh tide.\n\n## Low\n\nLow tide.",
        ),
        ({"headings": ["Boats"]}, "About boats."),
    ]
    text = "# Tides\n## High\n\nHigh tide.\n\n## Low\n\nLow tide."
    assert _places(_chunks(text)) == [
        (
            {"headings": ["Tides"], "sections": ["High", "Low"]},
            "# Tides\n## High\n\nHigh tide.\n\n## Low\n\nLow tide.",
        ),
    ]


def test_large_sections_are_cut_below_their_headings() -> None:
    sentences = "".join(f"This is sentence number {number} about the tide. " for number in range(60))
    chunks = _chunks(f"# Tides\n\n{sentences}\n\n## Low\n\n{sentences}", size=100, overlap=10)
    below = [tuple(chunk.place["headings"]) for chunk in chunks]
    assert [headings for headings, _ in itertools.groupby(below)] == [("Tides",), ("Tides", "Low")]
    assert len(chunks) > 10
    assert chunks[-1].in_context.startswith("Tides > Low\n\nThis is")


def test_pages_are_never_put_together() -> None:
    chunks = _chunks("First page.\fSecond page.\f\f \fFifth page.", "a.pdf")
    assert _places(chunks) == [
        ({"page": 1}, "First page."),
        ({"page": 2}, "Second page."),
        ({"page": 5}, "Fifth page."),
    ]


TEXTS = {
    "chinese.txt": "".join(f"重置路由器需要按住第{number}个按钮然后松开。" for number in range(500)),
    "no-ends.txt": "".join(f"重置第{number}个路由器" for number in range(1000)),
    "one-word.txt": "".join(f"{number}x" for number in range(3000)),
    "lines.txt": "\n".join(f"row {number}" for number in range(3000)),
    "headings.md": "\n".join(f"{'#' * (number % 6 + 1)} Heading {number}" for number in range(500)),
    "spaces.md": " \n# One\n\n \n\n# Two\n\n\n",
    **{path.name: path.read_text() for path in DEMO.rglob("*.md")},
}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("size", [32, 256])
def test_chunks_are_slices_of_the_text_in_order_and_nothing_is_left_out(name: str, size: int) -> None:
    from llama_index.core.utils import get_tokenizer

    text = TEXTS[name]
    chunks = _chunks(text, name, size, size // 8)
    numbers = [(chunk.number, chunk.total) for chunk in chunks]
    assert numbers == [(number, len(chunks)) for number in range(len(chunks))]
    headings = {title for chunk in chunks for title in chunk.place.get("headings", ())}
    covered = 0
    for chunk in chunks:
        assert chunk.text.strip()
        assert len(get_tokenizer()(chunk.text)) <= size
        # Of a long table, each chunk begins with its head.
        said = chunk.text if chunk.text in text else chunk.text.split("\n", 2)[2]
        start = text.index(said, max(0, covered - len(said)))
        left_out = [line.strip("# ") for line in text[covered:start].splitlines()]
        assert set(filter(None, left_out)) <= headings
        covered = max(covered, start + len(said))
    assert not text[covered:].strip()


def test_what_changes_chunks_changes_the_hash() -> None:
    one = Document(id="a.txt", text="# One\n\ntext", metadata={"a": 1, "b": 2})
    same = Document(id="b.txt", text="# One\n\ntext", metadata={"b": 2, "a": 1})
    assert content_hash(one) == content_hash(same)
    others = [
        one.model_copy(update={"text": "# Two\n\ntext"}),
        one.model_copy(update={"metadata": {"a": 1}}),
        one.model_copy(update={"id": "a.md"}),
        ParsedDocument(**one.model_dump(), syntax="markdown"),
    ]
    assert content_hash(one) not in map(content_hash, others)


# Tables and lists


def _rows(count: int) -> list[str]:
    return [f"| Berth {n} | {n + 1000:,}.{n % 100:02d} | 2026-03-{n % 28 + 1:02d} |" for n in range(count)]


def test_each_chunk_of_a_table_has_its_head_and_whole_rows() -> None:
    head = "| Berth | Metres | Since |\n| --- | --- | --- |"
    text = "\n".join(["# Harbour", "", "The berths.", "", head, *_rows(150), "", "Measured at low tide."])
    *made, last = [chunk.text for chunk in split(Document(id="a.md", text=text), "", 128, 16)]
    assert made[0].startswith(f"The berths.\n\n{head}\n{_rows(1)[0]}\n")
    assert all(chunk.startswith(head) for chunk in made[1:])
    assert [row for chunk in made for row in chunk.split(head)[1].strip().split("\n")] == _rows(150)
    assert max(len(tokens_of(chunk)) for chunk in made) <= 128
    assert last == "Measured at low tide."


def test_a_row_longer_than_a_chunk_is_cut_and_nothing_of_it_is_lost() -> None:
    words = [f"word{n}" for n in range(400)]
    text = f"| Name | Text |\n|---|---|\n| x | {' '.join(words)} |\n| y | short |"
    made = [chunk.text for chunk in split(Document(id="a.md", text=text), "", 128, 16)]
    assert all(chunk.startswith("| Name | Text |\n|---|---|\n") for chunk in made)
    assert re.findall(r"word\d+", " ".join(made)) == words


def test_a_head_that_leaves_no_room_is_not_repeated() -> None:
    wide = "|".join(f" column {n} " for n in range(80))
    text = f"|{wide}|\n|{'---|' * 80}\n" + "\n".join(f"|{' 1 |' * 80}" for _ in range(5))
    made = [chunk.text for chunk in split(Document(id="a.md", text=text), "", 128, 16)]
    assert sum("column 7 " in chunk for chunk in made) == 1
    assert sum(len(re.findall(r"(?<!\d)1 \|", chunk)) for chunk in made) == 5 * 80 + 1


def test_lists_are_cut_between_items_and_numbers_are_not_cut() -> None:
    items = [f"- Berth {n}: {n},5 m wide, built in 1.{n:03d}. It is open." for n in range(100)]
    made = [chunk.text for chunk in split(Document(id="a.md", text="\n".join(items)), "", 128, 16)]
    assert {line for chunk in made for line in chunk.split("\n")} == set(items)
    steps = [f"{n}. Step: take {n},000.50 and wait." for n in range(1, 100)]
    made = [chunk.text for chunk in split(Document(id="a.txt", text="\n".join(steps)), "", 128, 16)]
    assert {line for chunk in made for line in chunk.split("\n")} == set(steps)
    numbers = [f"{n},{n:03d}.{n % 10}" for n in range(500)]
    made = [chunk.text for chunk in split(Document(id="a.txt", text="; ".join(numbers)), "", 64, 0)]
    assert re.findall(r"\d+,\d+\.\d", " ".join(made)) == numbers


# Large documents


def test_a_large_text_is_worked_on_a_part_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["A short sentence. " * 10_000, "x" * 150_000, '"\\\ud83d\ud83d\ude00é\n' * 20_000]
    whole = [_chunks(text, "a.txt") for text in texts]
    monkeypatch.setattr(chunking, "LARGE", 2**16)
    parts: list[int] = []
    real = chunking.split_text

    def noting(text: str, size: int, overlap: int) -> list[str]:
        parts.append(len(text))
        return real(text, size, overlap)

    monkeypatch.setattr(chunking, "split_text", noting)
    for text, chunks in zip(texts, whole, strict=True):
        parts.clear()
        split_ = _chunks(text, "a.txt")
        assert max(parts) <= 2**16
        assert sum(parts) == len(text)
        assert split_[0].hash == chunks[0].hash, "the hash is of the whole"
        assert split_[0].text == chunks[0].text
        assert len(chunks) <= len(split_) <= len(chunks) + 2 * len(parts)


@pytest.mark.parametrize("text", ["", 'a "b" \\ \n é \u2028', "\ud83d", "ab" * 50])
def test_a_documents_hash_is_that_of_its_json(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunking, "LARGE", 3)
    document = ParsedDocument.model_construct(
        id="a", text=text, metadata={"b": 1, "a": "é"}, syntax="plain", warnings=()
    )
    said = json.dumps(
        [text, document.metadata, "plain", chunking.VERSION], sort_keys=True, ensure_ascii=False
    )
    hashed = hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    assert content_hash(document) == hashed


@pytest.mark.parametrize("block", ["a\n=\n", "* a\n", "a\n\n", "> a\n\n", "1. a\n"])
def test_parsing_markdown_gives_way(block: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = 0

    def give_way() -> None:
        nonlocal given
        given += 1

    monkeypatch.setattr(slices, "give_way", give_way)
    sections(block * 500, "markdown")
    assert given >= 500


BY_CHARACTER = r"(?:[^,.;。？！]|(?<=\d)[.,](?=\d))+[,.;。？！]?|[,.;。？！]"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "one, two; three. Four",
        "1,000.5 of 3.,4 and .5, or 6,",
        ",.;;",
        "日本語。テキスト？はい！",
        "1,2.3,4,,5..6",
        "a\nb, c\n",
    ],
)
def test_phrases_are_those_found_character_by_character(text: str) -> None:
    assert re.findall(sentence_splitter._PHRASES, text) == re.findall(BY_CHARACTER, text)


def test_phrases_of_a_long_text_are_found_in_one_scan() -> None:
    """The interpreter's lock is held meanwhile, so that a megabyte without marks held up everybody."""
    text = "the quick brown fox " * 10_000

    def took(pattern: str) -> float:
        began = time.thread_time()
        re.findall(pattern, text)
        return time.thread_time() - began

    scan, phrases = (
        min(took(one) for _ in range(5)) for one in ("[^,.;。？！]+", sentence_splitter._PHRASES)
    )
    assert phrases < 8 * scan
