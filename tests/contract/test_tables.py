"""What people have their documents in: tables, and other libraries' documents. Nothing else is taken for a text."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pydantic
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
    "Arrow batch": lambda: pa.RecordBatch.from_pydict(ROWS),
    "Arrow reader": lambda: pa.table(ROWS).to_reader(),
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


def test_an_index_with_a_name_is_a_column(client: LLMBackendClient, collection: str) -> None:
    table = pd.DataFrame({"id": ["a", "b"], "what": ["The gym opens at six.", "Lunch is at noon."]})
    report = client.rag_ingest(table.set_index("id"), collection=collection)
    assert report.columns == {"id": "id", "text": "what", "metadata": []}
    assert {one.id for one in client.list_documents(collection)} == {"a", "b"}
    by_two = table.assign(site="Oslo", nr=[1, 2], text=table["what"]).set_index(["site", "nr"])
    report = client.rag_ingest(by_two, collection=collection)
    assert report.columns == {"id": "id", "text": "text", "metadata": ["site", "nr", "what"]}
    both = table.set_index("id", drop=False)
    assert client.rag_ingest(both, collection=collection, text="what").columns["id"] == "id"
    assert len(client.embed(table[["what"]].set_index(pd.Index(["a", "b"], name="id")))) == 2
    questions = pd.DataFrame({"question": ["gym?"], "gold": ["a"]}).set_index("question")
    assert client.evaluate(collection, questions)


def test_columns_without_names_are_named_by_their_numbers(client: LLMBackendClient, collection: str) -> None:
    table = pd.DataFrame([["a", "The gym opens at six.", 7]])
    report = client.rag_ingest(table, collection=collection, id=0, text=1, metadata=[2])  # type: ignore[arg-type,list-item]
    assert report.columns == {"id": "0", "text": "1", "metadata": ["2"]}
    assert client.get_document("a", collection).metadata == {"2": 7}
    with pytest.raises(InvalidRequest, match="this is not a table"):
        client.rag_ingest(["a text"], collection=collection, text=0)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [list, iter])
def test_dicts_with_names_of_their_own_are_rows(
    client: LLMBackendClient, collection: str, kind: Callable[[Any], Any]
) -> None:
    rows = [{"key": 7, "content": "The gym opens at six.", "year": 2026, "price": float("nan")}]
    report = client.rag_ingest(kind(rows), collection, metadata={"site": "Aldersea"})
    assert (report.added, report.columns) == (
        1,
        {"id": "key", "text": "content", "metadata": ["year", "price"]},
    )
    assert client.get_document("7", collection).metadata == {"site": "Aldersea", "year": 2026}
    cards = [{"front": "Lunch?", "back": "At noon."}, {"front": "Dinner?", "back": ""}]
    report = client.rag_ingest(kind(cards), collection, id="front", text="back", metadata=[])
    assert report.columns == {"id": "front", "text": "back", "metadata": []}
    assert [one.error for one in report.failed] == ["row 1 has no text in column 'back'"]
    assert client.get_document("Lunch?", collection).text == "At noon."
    table = client.rag_ingest(pd.DataFrame({"text": ["The pool is closed."]}), collection)
    assert (
        table.added == client.rag_ingest(kind([{"text": "The pool is closed."}]), collection).unchanged == 1
    )


def test_of_several_tables_one_is_to_be_given(client: LLMBackendClient, collection: str) -> None:
    with pytest.raises(InvalidRequest, match=r"has tables by name: give one, such as \['train'\]"):
        client.rag_ingest({"train": TABLES["pandas"](), "test": TABLES["pandas"]()}, collection=collection)


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


def test_the_path_of_a_file_is_not_embedded_as_a_text(client: LLMBackendClient, tmp_path: Path) -> None:
    (tmp_path / "texts.csv").write_text("text\nThe gym opens at six.\n")
    (tmp_path / "notes.md").write_text("The gym opens at six.")
    for path in (tmp_path / "texts.csv", str(tmp_path / "texts.csv")):
        with pytest.raises(InvalidRequest, match=r"batch_embed\('.*texts.csv'\) embeds its rows"):
            client.embed(path)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match=r"give Path\('.*notes.md'\).read_text\(\)"):
        client.embed(str(tmp_path / "notes.md"))
    assert len(client.embed("notes/of yesterday.md")) == 1


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


NO_TEXTS = {
    "reports/march.pdf": "the path 'reports/march.pdf', and there is no such file",
    "rows.parquet": "the path 'rows.parquet', and there is no such file",
    "rows.jsonl.gz": "the path 'rows.jsonl.gz', and there is no such file",
    "/srv/the files/notes.txt": "the path '/srv/the files/notes.txt', and there is no such file",
    "C:\\reports\\march.docx": "and there is no such file",
    "handbook/*.md": r"the path 'handbook/\*\.md', not a text: ",
    "https://example.org/page": "the address 'https://example.org/page', and pages are not fetched",
}


@pytest.mark.parametrize("given", NO_TEXTS)
def test_what_is_called_like_a_file_is_no_text_where_there_is_none(
    client: LLMBackendClient, collection: str, given: str
) -> None:
    for call in (lambda: client.rag_ingest(given, collection), lambda: client.analyze_document(given)):
        with pytest.raises(InvalidRequest, match=NO_TEXTS[given]):
            call()
    assert collection not in [one.name for one in client.list_collections()]


def test_a_parquet_file_that_is_not_there_is_told(
    client: LLMBackendClient, collection: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidRequest, match=r"there is no file '.*none\.parquet'$"):
        client.rag_ingest(tmp_path / "none.parquet", collection)


@pytest.mark.parametrize(
    "text", ["and/or", "Lunch is at 12:30/1 pm.", "Why? Because.", "4/5 * 3", "Dr. No", "why/how?"]
)
def test_texts_with_slashes_and_dots_are_texts(client: LLMBackendClient, collection: str, text: str) -> None:
    assert client.rag_ingest(text, collection).added == 1


def test_values_with_tabs_between_are_rows(client: LLMBackendClient, collection: str, tmp_path: Path) -> None:
    path = tmp_path / "hours.tsv"
    path.write_text("key\ttext\nlunch\tLunch is at noon, or so.\n")
    assert client.rag_ingest(path, collection).columns == {"id": "key", "text": "text", "metadata": []}
    assert client.get_document("lunch", collection).text == "Lunch is at noon, or so."


def test_the_report_names_the_fields_of_all_rows(client: LLMBackendClient, collection: str) -> None:
    rows = [
        {"text": "The gym opens at six.", "site": "north"},
        {"text": "The pool opens at ten.", "floor": 2},
    ]
    assert client.rag_ingest(rows, collection).columns["metadata"] == ["site", "floor"]


class Modelled(pydantic.BaseModel):
    id: str
    text: str


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
    "bytes alone": (b"The gym opens at six.", r"documents is a bytes: .*\.decode\(\)"),
    "no rows": (pd.DataFrame({"text": []}), "there are no documents"),
    "none": ([], "there are no documents"),
    "another name": (
        ["b", {"id": "a", "content": "b"}],
        r"documents\[1\] has no 'text', but 'id', 'content': .*text=",
    ),
    "names that tell nothing": (
        [{"id": "a", "front": "b", "back": "c"}],
        r"which column has the text\? .*text='id' .*id= and metadata=\): there are 'id', 'front', 'back'",
    ),
    "a field beside": (
        ["b", {"id": "a", "text": "b", "year": 2026}],
        r"documents\[1\] has 'year', .* put it into its 'metadata'",
    ),
    "no id": (["b", {"text": "b"}], r"documents\[1\] has no 'id'"),
    "a number for an id": ([{"id": 7, "text": "b"}], r"documents\[0\]\.id is an int: ids are text"),
    "texts by id": ({"a": "The gym opens at six."}, "documents has no 'text', but 'a'"),
    "a pydantic object": ([Modelled(id="a", text="b")], r"documents\[0\] is a \w+: .*model_dump"),
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


NOTHING_SAID: dict[str, tuple[str, tuple[Any, ...], str]] = {
    "no message": ("chat", (None,), "messages is None: give a text"),
    "a message alone": ("chat", ({"role": "user", "content": "a"},), "messages is a dict: give a list of it"),
    "a text for a message": ("chat", (["a"],), r"messages\[0\] is a str: a message is like"),
    "a number": ("chat", (5,), "messages is an int: give a text"),
    "bytes for a message": ("chat", (b"a",), "messages is a bytes: give a text"),
    "bytes for texts": ("embed", (b"a",), "texts is a bytes: give a text, or a list"),
    "no text": ("embed", (None,), "texts is None: give a text, or a list"),
    "no texts": ("embed", ([],), "there are no texts"),
    "texts in texts": ("embed_single", (["a"],), r"texts\[0\] is a list, and no text"),
    "bytes": ("embed", (["a", b"b"],), r"texts\[1\] is a bytes, and no text"),
    "nothing to analyze": ("analyze_document", (None,), "the text is None"),
    "no job": ("get_job_status", (None,), "job_id: is missing, or None"),
}


@pytest.mark.parametrize("given", NOTHING_SAID)
def test_what_is_no_text_is_told_by_its_argument(client: LLMBackendClient, given: str) -> None:
    call, arguments, said = NOTHING_SAID[given]
    with pytest.raises(InvalidRequest, match=said):
        getattr(client, call)(*arguments)


def test_questions_come_from_tables_and_files(
    client: LLMBackendClient, collection: str, tmp_path: Path
) -> None:
    client.rag_ingest([{"id": "gym", "text": "The gym opens at six."}], collection)
    rows = pd.DataFrame({"number": [1], "question": ["When does the gym open?"], "gold": ["gym"]})
    rows.to_csv(tmp_path / "q.csv")
    (tmp_path / "broken.jsonl").write_text('{"question": ')
    rows.to_parquet(tmp_path / "q.parquet")
    rows.to_json(tmp_path / "q.jsonl", orient="records", lines=True)
    for given in (
        rows,
        pl.from_pandas(rows),
        *(tmp_path / f"q.{kind}" for kind in ("csv", "parquet", "jsonl")),
    ):
        assert client.evaluate(collection, given).questions[0].gold == ["gym"]
    for wrong, said in (
        ([{"q": "a", "gold": "gym"}], r"questions\[0\] has 'q', 'gold': it is like"),
        ([("a", "gym")], r"questions\[0\] is a tuple"),
        (str(tmp_path / "none.csv"), "there is no .*none.csv"),
        (tmp_path / "broken.jsonl", "broken.jsonl' cannot be read"),
    ):
        with pytest.raises(InvalidRequest, match=said):
            client.evaluate(collection, wrong)


def test_gold_documents_of_a_table_are_numbers_as_its_ids_are(
    client: LLMBackendClient, collection: str, tmp_path: Path
) -> None:
    client.rag_ingest(
        pd.DataFrame({"id": [7, 8], "text": ["The gym opens at six.", "The pool is cold."]}), collection
    )
    rows = pd.DataFrame({"question": ["When does the gym open?"], "gold": [7]})
    rows.to_json(tmp_path / "q.jsonl", orient="records", lines=True)
    lists = pd.DataFrame({"question": ["When does the gym open?"], "gold": [[7]]})
    lists.to_parquet(tmp_path / "q.parquet")
    for given in (
        rows,
        rows.astype({"gold": float}),
        [{"question": "When does the gym open?", "gold": 7}],
        [{"question": "When does the gym open?", "gold": {7: 2}}],
        lists,
        tmp_path / "q.jsonl",
        pd.read_parquet(tmp_path / "q.parquet"),
    ):
        assert client.evaluate(collection, given).questions[0].gold == ["7"]
