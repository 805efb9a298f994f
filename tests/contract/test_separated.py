"""Files of separated values as they are written by spreadsheets: each row is a document."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import llm_client
from llmbackend import InvalidRequest, LLMBackendClient

HEADER = ["sku", "product", "price_eur", "stock", "code"]
ROWS = [
    ["a-1", "A kettle, of steel", "89.90", "", "007"],
    ["b-2", "A lamp; it folds", "120", "4", "015"],
    ["c-3", "A chair | oak", "99", "0", "112"],
]


def _written(path: Path, separator: str, encoding: str = "utf-8", before: str = "") -> Path:
    lines = [separator.join(f'"{cell}"' if " " in cell else cell for cell in row) for row in [HEADER, *ROWS]]
    path.write_text(before + "\r\n".join(lines) + "\r\n", encoding=encoding)
    return path


@pytest.mark.parametrize(
    ("name", "separator", "encoding", "before"),
    [
        ("commas.csv", ",", "utf-8-sig", ""),
        ("semicolons.csv", ";", "utf-8", ""),
        ("tabs.csv", "\t", "utf-16", ""),
        ("bars.csv", "|", "utf-8", "\r\n"),
        ("announced.csv", ";", "utf-8", "sep=;\r\n"),
        ("tabs.tsv", "\t", "utf-8", ""),
        ("semicolons.tsv", ";", "utf-8", ""),
    ],
)
def test_the_header_tells_the_separator(
    client: LLMBackendClient,
    collection: str,
    tmp_path: Path,
    name: str,
    separator: str,
    encoding: str,
    before: str,
) -> None:
    path = _written(tmp_path / name, separator, encoding, before)
    report = client.rag_ingest(path, collection, text="product", id="sku")
    assert (report.added, report.failed, report.warnings) == (3, [], [])
    found = {one.id: one.metadata for one in client.list_documents(collection)}
    assert found == {
        "a-1": {"price_eur": 89.9, "code": "007"},
        "b-2": {"price_eur": 120, "stock": 4, "code": "015"},
        "c-3": {"price_eur": 99, "stock": 0, "code": "112"},
    }, "numbers, codes, and no empty cell"
    assert client.get_document("b-2", collection).text == "A lamp; it folds"
    cheap = client.rag_search("things", collection, filters={"price_eur": {"lt": 100}})
    assert {hit.document_id for hit in cheap} == {"a-1", "c-3"}
    assert len(client.batch_embed(path, text="product")) == 3


BROKEN: dict[str, tuple[bytes, str]] = {
    "too many cells": (
        b"id;text\na;Open\n\nb;Lunch; at noon\n",
        r"broken\.csv', line 4 \(row 1\): 3 cells, and the header has 2: a cell with ';' in it needs quot",
    ),
    "one column, and commas": (b"text\nOpen\nLunch, at noon\n", r"line 3 \(row 1\): 2 cells"),
    "two encodings": (
        "id,text\na,Caf\u00e9\n".encode() + "b,Caf\u00e9 at noon\n".encode("latin-1"),
        r"broken\.csv' is not UTF-8 .* save it as UTF-8 .*encoding='cp1252'",
    ),
    "a quotation mark that is not closed": (
        b'id,text\na,"Open\nb,Lunch\n',
        r"broken\.csv', line 3 \(row 0\): .*: a cell with quotation marks in it needs them doubled",
    ),
    "quotation marks that are not doubled": (b'id,text\na,"Open" they say\n', r"line 2 \(row 0\): .*doubled"),
    "two columns of one name": (b"id,text,text\na,b,c\n", r"line 1: there is more than one column 'text'"),
    "nothing": (b"", r"broken\.csv' is empty"),
    "only a header": (b"id,text\n", "there are no documents"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_wrong_in_a_file_is_told_by_its_row_and_rows_before_it_are_stored(
    client: LLMBackendClient, collection: str, tmp_path: Path, kind: str
) -> None:
    content, said = BROKEN[kind]
    path = tmp_path / "broken.csv"
    path.write_bytes(content)
    with pytest.raises(InvalidRequest, match=f"^rag_ingest: .*{said}") as caught:
        client.rag_ingest(path, collection)
    stored = caught.value.details.get("ingested", 0)
    assert stored == caught.value.details.get("row", 0)
    if stored:
        assert [one.chunks for one in client.list_documents(collection)] == [1] * stored
    else:
        assert collection not in [one.name for one in client.list_collections()]


GOOD, BAD = 3, {"csv": "d,Lunch, at noon", "jsonl": '{"id": "d", "text": Lunch}'}


def _with_a_bad_row(folder: Path, kind: str) -> Path:
    rows = [{"id": f"a{number}", "text": f"We open at {number}"} for number in range(GOOD)]
    lines = (
        ["id,text", *(f"{one['id']},{one['text']}" for one in rows)]
        if kind == "csv"
        else map(json.dumps, rows)
    )
    path = folder / f"hours.{kind}"
    path.write_text("\n".join([*lines, BAD[kind]]) + "\n")
    return path


@pytest.mark.parametrize("kind", BAD)
def test_rows_before_a_bad_one_are_used_whatever_the_format(
    client: LLMBackendClient, collection: str, tmp_path: Path, kind: str
) -> None:
    path = _with_a_bad_row(tmp_path, kind)
    with pytest.raises(InvalidRequest, match=r"\(3 documents before it are in: run it again") as caught:
        client.rag_ingest(path, collection)
    assert (caught.value.details["ingested"], caught.value.details["row"]) == (GOOD, GOOD)
    assert [one.id for one in client.list_documents(collection)] == ["a0", "a1", "a2"]
    with pytest.raises(InvalidRequest, match=r"\(3 texts before it are embedded, in .*npy\.part\)") as caught:
        client.batch_embed(path, text="text", out=tmp_path / "vectors.npy")
    assert caught.value.details["embedded"] == GOOD
    assert len(np.load(tmp_path / "vectors.npy.part")) == GOOD


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_row_removes_nothing(
    client: LLMBackendClient, collection: str, tmp_path: Path, kind: str
) -> None:
    client.rag_ingest([{"id": "old", "text": "We close at six"}], collection)
    with pytest.raises(InvalidRequest):
        client.rag_ingest(_with_a_bad_row(tmp_path, kind), collection, sync=True)
    assert client.get_document("old", collection).text == "We close at six"


@pytest.mark.parametrize("kind", ["too many cells", "two encodings"])
def test_embedding_and_evaluation_tell_it_too(client: LLMBackendClient, tmp_path: Path, kind: str) -> None:
    content, said = BROKEN[kind]
    path = tmp_path / "broken.csv"
    path.write_bytes(content)
    calls: list[tuple[str, Callable[[], Any]]] = [
        ("batch_embed", lambda: client.batch_embed(path, text="text")),
        ("evaluate", lambda: client.evaluate("none", path)),
    ]
    for name, call in calls:
        with pytest.raises(InvalidRequest, match=f"^{name}: .*{said}"):
            call()


@pytest.mark.parametrize("before", [0, 600], ids=["from the start", "after pages of ASCII"])
@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", "Caf\u00e9 Größe \u2013 \u20ac 5"),
        ("cp1251", "Мы открыты каждый день с девяти утра до шести вечера кроме воскресенья"),
    ],
)
def test_a_file_that_is_not_unicode_is_read_by_what_it_looks_like_and_that_is_told(
    client: LLMBackendClient, collection: str, tmp_path: Path, encoding: str, text: str, before: int
) -> None:
    path = tmp_path / "old.csv"
    rows = [*(f"a{number},Open at nine" for number in range(before)), f"b,{text}", f"c,{text} again"]
    path.write_text("\n".join(["id,text", *rows]) + "\n", encoding=encoding)
    report = client.rag_ingest(path, collection)
    assert report.added == before + 2
    assert report.warnings == [{"id": str(path), "warning": f"it is not UTF-8, and was read as {encoding}"}]
    assert client.get_document("c", collection).text == f"{text} again"
    embedded = client.batch_embed(path, text="text")
    assert (len(embedded), embedded.warnings) == (before + 2, report.warnings)
    written = client.batch_embed(path, text="text", out=tmp_path / "vectors.npy")
    assert written.warnings == report.warnings
    path.write_text(f"question,gold\n{text},c\n", encoding=encoding)
    evaluated = client.evaluate(collection, path)
    assert (evaluated.questions[0].question, evaluated.warnings) == (text, report.warnings)
    for drawn in (embedded, evaluated):
        assert f"was read as {encoding}" in drawn._repr_html_()


@pytest.mark.parametrize("separator", [",", "\t", ";"])
def test_more_columns_than_a_sheet_has_are_refused_at_once(
    client: LLMBackendClient, collection: str, tmp_path: Path, separator: str
) -> None:
    path = tmp_path / "wide.tsv"
    path.write_text(separator.join(f"c{number}" for number in range(200_000)) + "\n")
    with pytest.raises(InvalidRequest, match=r"wide\.tsv' has 200,000 columns, and 16,384 are the most"):
        client.rag_ingest(path, collection)


def test_lines_of_json_that_are_not_utf_8_are_told(
    client: LLMBackendClient, collection: str, tmp_path: Path
) -> None:
    path = tmp_path / "broken.jsonl"
    path.write_bytes('{"id": "a", "text": "Caf\u00e9"}\n'.encode("latin-1"))
    with pytest.raises(InvalidRequest, match=r"rag_ingest: .*broken\.jsonl' is not UTF-8"):
        client.rag_ingest(path, collection)


def test_a_row_may_end_early_or_with_separators(
    client: LLMBackendClient, collection: str, tmp_path: Path
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("id,text,floor,\na,Open,1,\nb,Shut\nc,Full,2,,,\n")
    assert client.rag_ingest(path, collection).added == 3
    found = {one.id: one.metadata for one in client.list_documents(collection)}
    assert found == {"a": {"floor": 1}, "b": {}, "c": {"floor": 2}}


def test_a_cell_may_be_longer_than_python_s_own_limit(tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    text = "The gym opens at six. " * 7_000
    path.write_text(f"id,text\na,{text}\n")
    before = csv.field_size_limit(131_072)
    try:
        assert [*llm_client._separated("rag_ingest", str(path), print)[1]] == [{"id": "a", "text": text}]
    finally:
        csv.field_size_limit(before)


def test_between_semicolons_a_comma_is_the_decimal_sign(
    client: LLMBackendClient, collection: str, tmp_path: Path
) -> None:
    path = tmp_path / "umsatz.csv"
    path.write_bytes(
        "sep=;\r\nid;text;Umsatz;Bestand;Maß;Anteil;Nr\r\n"
        "a;Köln;1.234,56;1.200;0.125;12,5 %;1,5\r\n"
        "b;Görlitz;-12.500,10;85;1.250;5 %;2,50\r\n"
        "c;Würzburg;987,00;;2;;01,5\r\n".encode("cp1252")
    )
    report = client.rag_ingest(path, collection)
    assert [one.warning for one in report.warnings] == [
        "it is not UTF-8, and was read as cp1252",
        "column 'Bestand' is kept as text: 1.200 may be a thousand times as much",
    ]
    assert {one.id: one.metadata for one in client.list_documents(collection)} == {
        "a": {"Umsatz": 1234.56, "Bestand": "1.200", "Maß": 0.125, "Anteil": "12,5 %", "Nr": "1,5"},
        "b": {"Umsatz": -12500.1, "Bestand": "85", "Maß": 1.25, "Anteil": "5 %", "Nr": "2,50"},
        "c": {"Umsatz": 987, "Maß": 2, "Nr": "01,5"},
    }
    found = client.rag_search("Umsatz", collection, filters={"Umsatz": {"gte": 1000}})
    assert [hit.document_id for hit in found] == ["a"]


def test_a_later_cell_that_is_no_number_stays_text_and_is_told(
    client: LLMBackendClient, collection: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llm_client, "NUMBERS_BY", 2)
    path = tmp_path / "prices.csv"
    path.write_text("id,text,price\na,Tea,3\nb,Milk,4.5\nc,Wine,on request\nd,Beer,5\ne,Rum,on request\n")
    report = client.rag_ingest(path, collection)
    [told] = report.warnings
    assert (report.added, told.id) == (5, "c")
    assert told.warning.startswith(
        "row 2 has 'on request' in column 'price', and the rows before have numbers"
    )
    prices = [one.metadata["price"] for one in client.list_documents(collection)]
    assert prices == [3, 4.5, "on request", 5, "on request"]


@pytest.mark.parametrize(
    "cells",
    [
        ["1", "01"],
        ["1", "+1"],
        ["1,000", "2"],
        ["1", "1e999"],
        ["1", "9" * 25],
        ["1", "\u0663"],
        ["1", "true"],
    ],
)
def test_a_column_with_anything_else_stays_text(
    client: LLMBackendClient, collection: str, tmp_path: Path, cells: list[str]
) -> None:
    path = tmp_path / "cells.csv"
    pd.DataFrame({"id": ["a", "b"], "text": ["x", "y"], "cell": cells}).to_csv(path, index=False)
    client.rag_ingest(path, collection)
    assert [one.metadata["cell"] for one in client.list_documents(collection)] == cells


def test_a_row_without_an_id_is_told_in_a_file_and_in_a_table(
    client: LLMBackendClient, collection: str, tmp_path: Path
) -> None:
    path = tmp_path / "ids.csv"
    path.write_text("id,text\n1,Open\n2,Shut\n,Full\n")
    tables: list[Any] = [
        path,
        pd.read_csv(path),
        pd.DataFrame({"id": ["1", "2", " "], "text": ["Open", "Shut", "Full"]}),
        pd.DataFrame({"id": ["1", "2", np.nan], "text": ["Open", "Shut", "Full"]}),
    ]
    for table in tables:
        report = client.rag_ingest(table, collection)
        assert report.failed == [{"id": "row 2", "error": "row 2 has no id in column 'id'"}]
    assert [one.id for one in client.list_documents(collection)] == ["1", "2"]


def test_german_days_are_days_that_filters_compare(
    client: LLMBackendClient, collection: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rechnungen.csv"
    path.write_text(
        "id;text;due;version;read\na;Schrauben;31.12.2025;1.2.2024;12.31.2025\nb;Mehl;1.2.2026;1.2;31.12.2025\n"
    )
    assert client.rag_ingest(path, collection).warnings == []
    about = {one.id: one.metadata for one in client.list_documents(collection)}
    assert about == {
        "a": {"due": "2025-12-31", "version": "1.2.2024", "read": "12.31.2025"},
        "b": {"due": "2026-02-01", "version": "1.2", "read": "31.12.2025"},
    }
    found = client.rag_search("Mehl", collection, filters={"due": {"gte": date(2026, 1, 1)}})
    assert [one.document_id for one in found] == ["b"]
    monkeypatch.setattr(llm_client, "NUMBERS_BY", 1)
    path.write_text("id;text;due\nc;Reifen;05.03.2026\nd;Glas;sofort\n")
    (told,) = client.rag_ingest(path, collection).warnings
    assert told.warning.startswith("row 1 has 'sofort' in column 'due', and the rows before have days")
