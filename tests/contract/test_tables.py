"""What people have their documents in: tables, and other libraries' documents. Nothing else is taken for a text."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from llama_index.core.schema import Document as LlamaIndexDocument

from llmbackend import InvalidRequest, LLMBackendClient

ROWS = {
    "id": ["a", "b", "c"],
    "content": ["Hold the red button to reset the router.", "Employees get thirty days of vacation.", None],
    "floor": [1, None, 3],
    "since": [datetime.date(2024, 5, 1), None, datetime.date(2025, 1, 31)],
}
TABLES = {
    "pandas": lambda: pd.DataFrame(ROWS),
    "polars": lambda: pl.DataFrame(ROWS),
    "Arrow": lambda: pa.table(ROWS),
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_has_a_document_a_row(client: LLMBackendClient, collection: str, kind: str) -> None:
    report = client.rag_ingest(TABLES[kind](), collection=collection)
    assert (report.added, report.columns) == (
        2,
        {"id": "id", "text": "content", "metadata": ["floor", "since"]},
    )
    assert report.failed == [{"id": "c", "error": "row 2 has no text in column 'content'"}]
    hits = {hit.document_id: hit for hit in client.rag_search("router vacation", collection=collection)}
    assert hits["a"].text == ROWS["content"][0]
    assert hits["a"].metadata == {"floor": 1, "since": "2024-05-01"}
    assert hits["b"].metadata == {}
    found = client.rag_search("router", collection=collection, filters={"since": {"gte": "2024-01-01"}})
    assert [hit.document_id for hit in found] == ["a"]


def test_columns_are_named_by_the_caller(client: LLMBackendClient, collection: str) -> None:
    table = pd.DataFrame(
        {
            "Title": ["x", "y"],
            "what": ["The gym opens at six.", "Lunch is at noon."],
            "n": [1.5, np.nan],
            "nr": [7, 8],
        }
    )
    report = client.rag_ingest(table, collection=collection, text="what", id="nr", metadata=["n"])
    assert report.columns == {"id": "nr", "text": "what", "metadata": ["n"]}
    (hit,) = client.rag_search("gym", collection=collection, top_k=1)
    assert (hit.document_id, hit.metadata) == ("7", {"n": 1.5})


def test_rows_without_ids_are_told_apart_by_what_is_in_them(
    client: LLMBackendClient, collection: str
) -> None:
    table = pd.DataFrame({"text": ["Open."] * 3, "shop": ["north", "south", "north"]})
    report = client.rag_ingest(table, collection=collection)
    assert (report.added, len(report.warnings)) == (2, 1)
    assert "row 2 is the same as another" in report.warnings[0].warning
    assert client.rag_ingest(table, collection=collection).unchanged == 2
    table["no"] = [1, 2, 1]
    twice = client.rag_ingest(table, collection=collection, id="no")
    assert [one.error for one in twice.failed] == ["row 2 has the id of another row"]


@pytest.mark.parametrize("column", ["nothing", "Text"])
def test_a_column_that_is_not_there_is_refused(
    client: LLMBackendClient, collection: str, column: str
) -> None:
    with pytest.raises(InvalidRequest, match=rf"no column {column!r}: the table has 'id', 'content'"):
        client.rag_ingest(pd.DataFrame(ROWS), collection=collection, text=column)


def test_a_table_whose_text_cannot_be_told_is_refused(client: LLMBackendClient, collection: str) -> None:
    with pytest.raises(InvalidRequest, match=r"which column has the text\? Name it, as in text='a'"):
        client.rag_ingest(pl.DataFrame({"a": ["x"], "b": ["y"]}), collection=collection)
    assert collection not in [one.name for one in client.list_collections()]


@pytest.mark.parametrize("column", [pd.Series, pl.Series, pa.array, np.array, iter, tuple])
def test_a_column_is_a_list_of_texts(client: LLMBackendClient, collection: str, column: Any) -> None:
    texts = ["The gym opens at six.", "Lunch is at noon."]
    assert client.rag_ingest(column(texts), collection=collection).added == 2
    assert len(client.embed(column(texts))) == 2


def test_a_table_of_one_column_is_embedded_and_of_more_refused(client: LLMBackendClient) -> None:
    texts = {"what": ["The gym opens at six.", "Lunch is at noon."]}
    assert client.embed(pd.DataFrame(texts))[1] == client.embed(texts["what"])[1]
    with pytest.raises(InvalidRequest, match=r"a table of 4 columns \('id', .*table\['id'\]"):
        client.embed(pl.DataFrame(ROWS))


def test_columns_are_a_job_s_texts(client: LLMBackendClient) -> None:
    for texts in (pd.Series(["one", "two"]), pl.Series(["one", "two"]), pa.array(["one", "two"])):
        job = client.submit_job(job_type="batch_embed", params={"texts": texts})
        assert client.wait_for_job(job)["count"] == 2


def test_other_libraries_documents_are_taken(client: LLMBackendClient, collection: str) -> None:
    class LangChainDocument:
        """As langchain_core.documents.Document has them."""

        id, page_content, metadata = None, "Lunch is at noon.", {"kind": "hours"}

    given = [
        LlamaIndexDocument(text="The gym opens at six.", id_="gym", metadata={"kind": "hours"}),
        LangChainDocument(),
    ]
    assert client.rag_ingest(given, collection=collection).added == 2
    hits = client.rag_search("gym lunch", collection=collection, filters={"kind": "hours"})
    assert {hit.text for hit in hits} == {"The gym opens at six.", "Lunch is at noon."}
    assert "gym" in [hit.document_id for hit in hits]


def test_the_path_of_a_file_is_no_text(client: LLMBackendClient, collection: str, tmp_path: Path) -> None:
    path = tmp_path / "hours.txt"
    path.write_text("The gym opens at six.")
    for given, place in (
        (str(path), "documents"),
        (path, "documents"),
        (["x", str(path)], r"documents\[1\]"),
    ):
        with pytest.raises(InvalidRequest, match=rf"{place} is the path .*hours\.txt.*rag_ingest_files"):
            client.rag_ingest(given, collection=collection)
    assert client.rag_ingest("see notes.txt", collection=collection).added == 1, "a text, and no such file"


WRONG: dict[str, tuple[Any, str]] = {
    "two columns of one name": (
        pd.DataFrame([["a", "b"]], columns=["text", "text"]),
        "the table has more than one column 'text'",
    ),
    "bytes": (pd.DataFrame({"text": ["fine", b"bytes"]}), "row 1 has a bytes in column 'text'"),
    "lists": (pa.table({"text": [["a"], ["b"]]}), "row 0 has a list in column 'text'"),
    "nothing collected": (pl.LazyFrame({"text": ["a"]}), r"a LazyFrame has no rows yet: give \.collect"),
    "columns": ({"id": ["a"], "text": ["b"]}, "documents is a dict of columns: give a table"),
    "rows": ([("a", "The gym opens at six.")], r"documents\[0\] is a tuple: .*pandas\.DataFrame"),
    "several tables": (
        [pd.DataFrame({"text": ["a"]})],
        r"documents\[0\] is a DataFrame inside a list: ingest each",
    ),
    "nothing": (None, "documents is None"),
    "none of several": (["The gym opens at six.", None], r"documents\[1\] is None"),
    "a class": (dict, "documents is a type"),
}


@pytest.mark.parametrize("given", WRONG)
def test_what_is_no_document_is_refused_with_what_was_probably_meant(
    client: LLMBackendClient, collection: str, given: str
) -> None:
    documents, said = WRONG[given]
    with pytest.raises(InvalidRequest, match=said):
        client.rag_ingest(documents, collection=collection)


def test_files_are_not_taken_for_texts(client: LLMBackendClient, collection: str, tmp_path: Path) -> None:
    path = tmp_path / "gym.txt"
    path.write_text("The gym opens at six.\nIt closes at ten.\n")
    with path.open() as file, pytest.raises(InvalidRequest, match="is open: rag_ingest_files"):
        client.rag_ingest(file, collection=collection)
    for one in (path, str(path)):
        with pytest.raises(InvalidRequest, match=r"analyze_document: this is the path .*read_text"):
            client.analyze_document(one)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match=r"embed: this is the path"):
        client.embed(path)  # type: ignore[arg-type]


def test_whole_numbers_are_the_same_ids_whatever_pandas_made_of_them(
    client: LLMBackendClient, collection: str
) -> None:
    table = pd.DataFrame({"id": [1, 2], "text": ["The gym opens at six.", "Lunch is at noon."]})
    assert client.rag_ingest(table, collection=collection).added == 2
    table["id"] = table["id"].astype(float)
    assert client.rag_ingest(table, collection=collection).unchanged == 2
