"""Files with more of something than any real one has: refused at once, with the limit."""

from __future__ import annotations

import json

import pytest

from llmbackend.knowledge.files.parsed import Unreadable
from llmbackend.knowledge.files.parsing import parse_all
from tests import files

MILLION = 10**6
TOO_LARGE = {
    "wide.csv": (",".join(f"c{number}" for number in range(MILLION)).encode(), "1000000 columns, and 16384"),
    "wide.tsv": (b"\t".join([b"a"] * MILLION) + b"\n" + b"\t".join([b"1"] * MILLION), "columns, and 16384"),
    "semicolons.csv": (b"a;" * MILLION, "columns, and 16384"),
    "later.csv": (b"a,b\n1,2\n" + b"3," * MILLION, "columns, and 16384"),
    "names.json": (json.dumps({f"k{n}": n for n in range(MILLION)}).encode(), "1000000 names in an object"),
    "cells.ipynb": (b'{"cells":[' + b"{}," * MILLION + b"{}]}", "1000001 cells, and 50000"),
    "table.html": (b"<table><tr>" + b"<td>a</td>" * MILLION, "tags, and 200000"),
    "deep.html": (b"<div>" * MILLION, "tags, and 200000"),
    "parts.eml": (
        b"From: a\nSubject: b\nContent-Type: multipart/mixed; boundary=x\n\n" + b"--x\n\na\n" * 100_000,
        "100000 parts",
    ),
    "head.eml": (b"From: a\nSubject: " + b"=?utf-8?q?a?= " * 100_000 + b"\n\na", "bytes of head"),
}


@pytest.mark.parametrize("name", TOO_LARGE)
def test_a_file_with_too_much_of_something_is_refused_with_the_limit(name: str) -> None:
    data, reason = TOO_LARGE[name]
    with pytest.raises(Unreadable, match=reason):
        list(parse_all(name, data))


def test_a_table_may_be_as_wide_as_excels() -> None:
    names = ",".join(f"c{number}" for number in range(2**14))
    [(_, parsed)] = parse_all("wide.csv", f"{names}\n{names.replace('c', '')}".encode())
    assert not isinstance(parsed, Unreadable)
    assert parsed.text.endswith("c16383: 16383")


def test_what_is_large_but_real_is_read() -> None:
    rows = [{"name": f"n{number}", "fact": files.FACT} for number in range(5000)]
    [(_, parsed)] = parse_all("rows.json", json.dumps(rows).encode())
    assert not isinstance(parsed, Unreadable)
    assert parsed.text.count(files.FACT) == 5000
