"""Files with more of something than any real one has: refused at once, with the limit."""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Callable
from functools import cache

import openpyxl
import pytest

from llmbackend.files.formats import html, html_tables
from llmbackend.files.parsed import Unreadable
from llmbackend.files.parsing import parse, parse_all
from tests import files

MANY = 310_000
"""More than any of the limits."""


def _sheet(rows: bytes) -> bytes:
    """A workbook whose sheet has these rows, as XML."""
    book, wide = io.BytesIO(), io.BytesIO()
    openpyxl.Workbook().save(book)
    with zipfile.ZipFile(book) as made, zipfile.ZipFile(wide, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in made.namelist():
            content = made.read(name)
            if name == "xl/worksheets/sheet1.xml":
                head = b'<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main">'
                content = head + b"<sheetData>" + rows + b"</sheetData></worksheet>"
            archive.writestr(name, content)
    return wide.getvalue()


def _archive(name: str, content: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return made.getvalue()


def _document(table: bytes) -> bytes:
    """As much of a Word file as is looked at before it is read."""
    return _archive("word/document.xml", b"<w:document><w:body><w:tbl>" + table)


def _pages(kids: bytes, pages: bytes) -> bytes:
    """A PDF that has these children of its page tree."""
    root = b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
    tree = b"2 0 obj<</Type/Pages/Count 1/Kids[" + kids + b"]>>endobj\n"
    starts = 9, len(root), len(root + tree)
    table = b"xref\n0 4\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % start for start in starts)
    start = len(root + tree + pages)
    return root + tree + pages + table + b"trailer<</Size 4/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % start


@cache
def _attributes() -> bytes:
    return b" ".join(b'a%d="1"' % number for number in range(MANY))


PAGE = b"%d 0 obj<</Type /Page/Parent 2 0 R/MediaBox[0 0 9 9]>>endobj\n"
TOO_LARGE: dict[str, tuple[Callable[[], bytes], str]] = {
    "wide.csv": (
        lambda: ",".join(f"c{number}" for number in range(MANY)).encode(),
        f"{MANY:,} columns, and the limit is 16,384",
    ),
    "wide.tsv": (
        lambda: b"\t".join([b"a"] * MANY) + b"\n" + b"\t".join([b"1"] * MANY),
        "columns, and the limit is 16,384",
    ),
    "semicolons.csv": (lambda: b"a;" * MANY, "columns, and the limit is 16,384"),
    "later.csv": (lambda: b"a,b\n1,2\n" + b"3," * MANY, "columns, and the limit is 16,384"),
    "wide.xlsx": (
        lambda: _sheet(b"<row>" + b"<c><v>1</v></c>" * MANY + b"</row>"),
        f"{MANY:,} columns, and the limit is 16,384",
    ),
    "later.xlsx": (
        lambda: _sheet(b"<row/><row>" + b"<c r='A1'/>" * MANY + b"</row>"),
        "columns, and the limit is 16,384",
    ),
    "far.xlsx": (
        lambda: _sheet(b'<row spans="1:1" r="999999999"><c><v>1</v></c></row>'),
        "rows, and the limit is 1,048,576",
    ),
    "wide.docx": (
        lambda: _document(b"<w:tr>" + b"<w:tc></w:tc>" * MANY),
        f"{MANY:,} columns, and the limit is 16,384",
    ),
    "wide.pptx": (
        lambda: _document(b"<a:tr h='1'>" + b"<a:tc/>" * MANY),
        f"{MANY:,} columns, and the limit is 16,384",
    ),
    "paragraphs.docx": (
        lambda: files.docx_with("<w:body>" + "<w:p><w:r><w:t>a</w:t></w:r></w:p>" * 101_000 + "</w:body>"),
        "303,000 paragraphs, runs and breaks, and the limit is 300,000",
    ),
    "breaks.docx": (
        lambda: _document(b"<w:p><w:r>" + b"<w:br/>" * MANY),
        f"{MANY + 2:,} paragraphs, runs and breaks",
    ),
    "paragraphs.pptx": (lambda: _document(b"<a:p/>" * MANY), f"{MANY:,} paragraphs"),
    "names.xlsx": (
        lambda: _archive("xl/workbook.xml", b"<workbook>" + b"<definedName/>" * 500_000),
        "500,001 tags in xl/workbook.xml, and the limit is 500,000",
    ),
    "types.docx": (
        lambda: _archive("[Content_Types].xml", b"<Types>" + b"<Override/>" * 500_000),
        "500,001 tags in .Content_Types..xml, and the limit is 500,000",
    ),
    "attributes.docx": (
        lambda: _document(b"<w:p " + _attributes() + b"/>"),
        f"{MANY:,} attributes in a tag, and the limit is 10,000",
    ),
    "attributes.xlsx": (
        lambda: _sheet(b"<row " + _attributes() + b"/>"),
        f"{MANY:,} attributes in a tag, and the limit is 10,000",
    ),
    "attributes.html": (
        lambda: b"<p " + _attributes() + b">a</p>",
        f"{MANY:,} attributes in a tag, and the limit is 10,000",
    ),
    "names.html": (
        lambda: b"<p " + b"a " * MANY + b">a</p>",
        "attributes in a tag, and the limit is 10,000",
    ),
    "pages.pdf": (
        lambda: _pages(b"3 0 R", b"".join(PAGE % number for number in range(3, MANY + 3))),
        f"{MANY:,} pages, and the limit is 50,000",
    ),
    "one page often.pdf": (lambda: _pages(b"3 0 R " * MANY, PAGE % 3), "too large: .*aximum"),
    "names.json": (
        lambda: json.dumps({f"k{n}": n for n in range(MANY)}).encode(),
        f"{MANY:,} names in an object",
    ),
    "cells.ipynb": (
        lambda: b'{"cells":[' + b"{}," * MANY + b"{}]}",
        f"{MANY + 1:,} cells, and the limit is 50,000",
    ),
    "table.html": (lambda: b"<table><tr>" + b"<td>a</td>" * MANY, "tags, and the limit is 200,000"),
    "deep.html": (lambda: b"<div>" * MANY, "tags, and the limit is 200,000"),
    "comments.html": (
        lambda: b"<!--" * 100_000,
        "100,000 comments that nothing ends, and the limit is 1,000",
    ),
    "unended.html": (lambda: b"<a " * 100_000, "100,000 tags that nothing ends, and the limit is 1,000"),
    "parts.eml": (
        lambda: (
            b"From: a\nSubject: b\nContent-Type: multipart/mixed; boundary=x\n\n" + b"--x\n\na\n" * 100_000
        ),
        "100,000 parts",
    ),
    "head.eml": (lambda: b"From: a\nSubject: " + b"=?utf-8?q?a?= " * 100_000 + b"\n\na", "bytes of head"),
}


@pytest.mark.parametrize("name", TOO_LARGE)
def test_a_file_with_too_much_of_something_is_refused_with_the_limit(name: str) -> None:
    make, reason = TOO_LARGE[name]
    with pytest.raises(Unreadable, match=reason):
        list(parse_all(name, make()))


@pytest.mark.parametrize("tag", [b"<row ", b"<c ", b"<col "])
def test_tags_without_an_end_take_no_longer_than_others(tag: bytes) -> None:
    def seconds(tags: bytes) -> float:
        sheet = _sheet(b"<!--" + tags + b"--><row><c><v>1</v></c></row>")
        began = time.thread_time()  # others of this process may be at work
        assert parse("a.xlsx", sheet).text.endswith("1")
        return time.thread_time() - began

    seconds(b"")  # what is loaded at first
    assert seconds(tag * 25_000) < 10 * max(0.05, seconds((tag + b">") * 25_000))


@pytest.mark.parametrize("piece", ["a<label>b</label>c", " ", "!["])
def test_a_page_takes_time_by_its_length_and_not_its_square(piece: str) -> None:
    def seconds(count: int) -> float:
        began = time.thread_time()
        parse("a.html", f"<p>a{piece * count}b".encode())
        return time.thread_time() - began

    many = 25_000 if len(piece) < 3 else 3_000
    seconds(1)  # what is loaded at first
    assert seconds(many) < 40 * max(0.05, seconds(many // 20))


SPANS = {
    "columns and rows": "<tr><td rowspan=60000 colspan=1000>a</td></tr>" * 50,
    "to the end": "<tr>" + "<td rowspan=0>a</td>" * 900 + "</tr>" + "<tr></tr>" * 1000,
    "with much in them": f"<tr><td colspan=1000>{'<b>x</b>' * 900}</td></tr>",
}


@pytest.mark.parametrize("what", SPANS)
def test_what_the_spans_of_a_page_fill_is_limited(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html_tables, "SPANNED", 2_000)
    page = f"<table>{SPANS[what]}<tr><td>last</td></tr></table>" * 2
    text = parse("a.html", page.encode()).text
    assert text.count("last") == 2
    assert len(text) < 40_000


@pytest.mark.parametrize("name", ["table", "header", "math", "div"])
def test_elements_within_each_other_are_refused_with_the_limit(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(html, "DEEPEST", 50)
    inside = {"table": "<tr><td>"}.get(name, "")
    deep = f"<{name}>{inside}a word"
    parsed = parse("a.html", (deep * 50).encode())
    assert "a word" in parsed.text
    with pytest.raises(Unreadable, match=f"51 <{name}> within each other, and the limit is 50"):
        parse("a.html", (deep * 50_000).encode())


def test_links_that_are_not_closed_end_at_the_next() -> None:
    page = (
        "<a name=top><table><tr><td>Pump<td>"
        + "<a href='https://example.org/x'>P-17 " * 3
        + "<td>Bergen</table>"
    )
    parsed = parse("a.html", page.encode())
    assert parsed.text.count("[P-17](https://example.org/x)") == 3
    assert parsed.text.startswith("| Pump | [P-17]")
    assert "| Bergen |" in parsed.text


def test_a_table_may_be_as_wide_as_excels() -> None:
    names = ",".join(f"c{number}" for number in range(2**14))
    [(_, parsed)] = parse_all("wide.csv", f"{names}\n{names.replace('c', '')}".encode())
    assert not isinstance(parsed, Unreadable)
    assert parsed.text.endswith("c16383: 16383")


def test_images_drawings_and_listings_are_no_attributes() -> None:
    image = "data:image/png;base64," + "iVBOR/w0KGgo=" * 100_000
    listing = "\n".join(f"k{number} = 'v'" for number in range(50_000))
    path = f'<svg><path d="{"M 0 1 " * 50_000}"/></svg>'
    page = f'<p>{files.FACT}</p><img alt="a b c" src="{image}"><pre>{listing}</pre>{path}'
    [(_, parsed)] = parse_all("page.html", page.encode())
    assert not isinstance(parsed, Unreadable)
    assert files.FACT in parsed.text
    assert "k49999 = 'v'" in parsed.text


def test_what_is_large_but_real_is_read() -> None:
    rows = [{"name": f"n{number}", "fact": files.FACT} for number in range(5000)]
    [(_, parsed)] = parse_all("rows.json", json.dumps(rows).encode())
    assert not isinstance(parsed, Unreadable)
    assert parsed.text.count(files.FACT) == 5000
