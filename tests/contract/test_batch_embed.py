"""Vectors of any number of texts: from wherever they come, to memory or to a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import llm_client
from llmbackend import Embeddings, InvalidRequest, LLMBackendClient, Record

TEXTS = [f"Report {number} is about case {number}." for number in range(50)]


def _arrow(texts: list[str]) -> pa.Table:
    return pa.table({"id": range(len(texts)), "text": texts})


@pytest.fixture(autouse=True)
def _small_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm_client, "EMBED_PAGE", 20)


@pytest.mark.parametrize(
    "of",
    [
        *(
            list,
            tuple,
            iter,
            np.array,
            pd.Series,
            lambda texts: pd.DataFrame({"id": range(50), "text": texts}),
        ),
        *(_arrow, lambda texts: _arrow(texts).to_reader(13), lambda texts: pl.DataFrame({"text": texts})),
    ],
    ids=["list", "tuple", "iterator", "array", "Series", "DataFrame", "Arrow", "reader", "polars"],
)
def test_vectors_are_those_of_embed(client: LLMBackendClient, of: Any) -> None:
    told: list[Record] = []
    found = client.batch_embed(of(TEXTS), progress=told.append)
    assert isinstance(found, Embeddings)
    assert np.array_equal(found.numpy(), client.embed(TEXTS).numpy())
    steps = [13, 26, 39, 50] if hasattr(of(TEXTS), "read_next_batch") else [20, 40, 50]
    assert [state.done for state in told] == steps
    assert {state.total for state in told} == {50 if hasattr(of(TEXTS), "__len__") else None}


def test_npy_is_numpy_s_and_memory_mapped(client: LLMBackendClient, tmp_path: Path) -> None:
    path = tmp_path / "vectors.npy"
    report = client.batch_embed(iter(TEXTS), out=path)
    assert (report.path, report.count, report.dimension) == (str(path), 50, 256)
    assert report.usage["prompt_tokens"] == client.embed(TEXTS).usage["prompt_tokens"]
    assert isinstance(report.numpy(), np.memmap)
    assert np.array_equal(np.load(path), client.embed(TEXTS).numpy())
    assert [file.name for file in tmp_path.iterdir()] == ["vectors.npy"]


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "DataFrame", "list", "Arrow", "polars"])
def test_parquet_has_the_source_s_columns_too(client: LLMBackendClient, tmp_path: Path, kind: str) -> None:
    table = pd.DataFrame(
        {"nr": range(50), "text": TEXTS, "late": [None] * 25 + [True] * 25, "embedding": ["old"] * 50}
    )
    source: Any = tmp_path / f"texts.{kind}"
    if kind == "parquet":
        table.to_parquet(source)
    elif kind in ("Arrow", "polars"):
        source = pa.Table.from_pandas(table)
        source = source if kind == "Arrow" else pl.from_arrow(source)
    elif kind == "jsonl":
        table.drop(columns="late").to_json(source, orient="records", lines=True)
    else:
        source = table.drop(columns="late") if kind == "DataFrame" else TEXTS
    report = client.batch_embed(source, out=tmp_path / "vectors.parquet")
    written = pq.read_table(tmp_path / "vectors.parquet")
    assert written["text"].to_pylist() == TEXTS
    if kind != "list":
        assert written["nr"].to_pylist() == list(range(50))
    if kind in ("parquet", "Arrow", "polars"):
        assert written["late"].to_pylist() == [None] * 25 + [True] * 25
    assert np.array_equal(np.array(written["embedding"].to_pylist(), np.float32), client.embed(TEXTS).numpy())
    assert np.array_equal(report.numpy(), client.embed(TEXTS).numpy())


def test_parquet_takes_cells_that_are_missing_and_of_several_types(
    client: LLMBackendClient, tmp_path: Path
) -> None:
    texts = TEXTS[:3]
    columns: dict[str, Any] = {
        "text": texts,
        "name": ["Ann", None, "Bo"],
        "day": pd.to_datetime(["2026-03-01", None, "2026-03-02"]),
        "nr": pd.array([None, 2, 3], dtype="Int64"),
        "team": pd.Categorical(["hr", None, "it"]),
        "nothing": [None, None, None],
        "odd": pd.Series([1, "two", [3, "4"]], dtype=object),
        "where": pd.Series([Path("a"), None, Path("b")], dtype=object),
    }
    client.batch_embed(pd.DataFrame(columns), out=tmp_path / "vectors.parquet")
    written = pq.read_table(tmp_path / "vectors.parquet").drop(["embedding"]).to_pydict()
    assert written["day"][0].year == 2026
    assert written["day"][1] is None
    del written["day"]
    assert written == {
        "text": texts,
        "name": ["Ann", None, "Bo"],
        "nr": [None, 2, 3],
        "team": ["hr", None, "it"],
        "nothing": [None, None, None],
        "odd": ["1", "two", '[3, "4"]'],
        "where": ["a", None, "b"],
    }


def test_parquet_tells_of_columns_that_change_once_it_is_begun(
    client: LLMBackendClient, tmp_path: Path
) -> None:
    rows: list[dict[str, Any]] = [{"text": text, "nr": number} for number, text in enumerate(TEXTS)]
    rows[2]["early"] = True
    rows[45]["late"] = 1
    source = tmp_path / "texts.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = client.batch_embed(source, out=tmp_path / "vectors.parquet")
    assert pq.read_schema(tmp_path / "vectors.parquet").names == ["text", "nr", "early", "embedding"]
    assert [one.warning for one in report.warnings] == [
        "row 45 is the first with a column 'late', too late for the file, which lacks it"
    ]
    rows[46]["nr"] = "forty-six"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(
        InvalidRequest, match=r"column 'nr' is int64, and a later row has another type.*40 texts"
    ):
        client.batch_embed(source, out=tmp_path / "vectors.parquet")


def test_a_text_s_path_is_not_embedded(client: LLMBackendClient, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("The gym opens at six.")
    for path in (tmp_path / "texts.txt", str(tmp_path / "texts.txt")):
        for call in (client.batch_embed, client.batch_chat):
            with pytest.raises(InvalidRequest, match=r"this is the path .*texts.txt.*read_text\(\)"):
                call(path)


def test_what_is_no_parquet_is_told_by_its_path(
    client: LLMBackendClient, collection: str, tmp_path: Path
) -> None:
    (tmp_path / "texts.parquet").write_text("text")
    (tmp_path / "parts.parquet").mkdir()
    for name, fix in (("texts.parquet", "is it Parquet"), ("parts.parquet", r"give pyarrow\.dataset\.")):
        for call in (client.batch_embed, lambda path: client.rag_ingest(path, collection)):
            with pytest.raises(InvalidRequest, match=rf"{name}' cannot be read .*{fix}"):
                call(str(tmp_path / name))


def test_errors_of_arrow_are_one_line_of_plain_words(
    client: LLMBackendClient, collection: str, tmp_path: Path
) -> None:
    pq.write_table(pa.table({"question": ["a"] * 9, "gold": ["b"] * 9}), tmp_path / "whole.parquet")
    whole = (tmp_path / "whole.parquet").read_bytes()
    footer = whole[:-60] + b"\xff" * 40 + whole[-20:]  # which Arrow tells with a line break
    (tmp_path / "damaged.parquet").write_bytes(footer)
    long_ago = pa.table({"question": ["a"], "gold": pa.array([2**62], pa.timestamp("us"))})
    pq.write_table(long_ago, tmp_path / "time.parquet")

    def batches() -> Iterator[Any]:
        yield pa.record_batch({"text": ["a"]})
        raise pa.ArrowInvalid("one\n  and another")

    def reader() -> Any:
        return pa.RecordBatchReader.from_batches(pa.schema([("text", pa.string())]), batches())

    vectors = client.batch_embed(["a"], out=tmp_path / "vectors.parquet")
    (tmp_path / "vectors.parquet").write_bytes(footer)
    for call, said in (
        (lambda: client.rag_ingest(tmp_path / "damaged.parquet", collection), "cut off, damaged or"),
        (lambda: client.evaluate(collection, tmp_path / "damaged.parquet"), "cut off, damaged or"),
        (lambda: client.evaluate(collection, tmp_path / "time.parquet"), "cannot be read: date value"),
        (lambda: client.rag_ingest(reader(), collection), "row 1 .ArrowInvalid: one and another"),
        (lambda: client.batch_embed(["a"], out="/nowhere/a.parquet"), "written: No such file or directory$"),
        (vectors.numpy, "vectors.parquet' cannot be read .it is cut off"),
    ):
        with pytest.raises(InvalidRequest, match=said) as caught:
            call()
        assert "\n" not in caught.value.message


def test_a_source_that_breaks_leaves_what_came_before_beside_the_file(
    client: LLMBackendClient, tmp_path: Path
) -> None:
    def source() -> Iterator[str]:
        yield from TEXTS[:30]
        raise OSError("the disk went away")

    (tmp_path / "vectors.npy").write_bytes(b"from before")
    with pytest.raises(
        InvalidRequest, match=r"broke at row 30 \(OSError: the disk.*30 texts before"
    ) as caught:
        client.batch_embed(source(), out=tmp_path / "vectors.npy")
    assert (caught.value.details["embedded"], caught.value.details["row"]) == (30, 30)
    assert isinstance(caught.value.__cause__, OSError)
    assert np.load(tmp_path / "vectors.npy.part").shape == (30, 256)
    assert (tmp_path / "vectors.npy").read_bytes() == b"from before"


def test_nothing_to_embed_is_told_and_leaves_no_file(client: LLMBackendClient, tmp_path: Path) -> None:
    for nothing in ([], iter(())):
        with pytest.raises(InvalidRequest, match="there are no texts"):
            client.batch_embed(nothing, out=tmp_path / "vectors.npy")
    with pytest.raises(InvalidRequest, match="there are no texts"):
        client.embed(iter(()))
    assert list(tmp_path.iterdir()) == []


def test_a_text_that_is_refused_is_told_by_its_place(client: LLMBackendClient) -> None:
    with pytest.raises(InvalidRequest, match=r"input\[45\]:.*40 texts before it") as caught:
        client.batch_embed(iter([*TEXTS[:45], "", "more"]))
    assert (caught.value.details["index"], caught.value.details["embedded"]) == (45, 40)
    with pytest.raises(InvalidRequest, match="row 1 has no text in column 'text'"):
        client.batch_embed(pd.DataFrame({"text": ["one", None]}))
    with pytest.raises(InvalidRequest, match=r"must end in \.npy or \.parquet"):
        client.batch_embed(TEXTS, out="vectors.txt")
    with pytest.raises(InvalidRequest, match="cannot be written"):
        client.batch_embed(TEXTS, out="/nowhere/vectors.npy")


def test_a_row_of_parquet_without_a_text_is_told_once_those_before_it_are_in(
    client: LLMBackendClient, tmp_path: Path
) -> None:
    for number, text in ((45, None), (46, " \n")):
        texts = [*TEXTS[:number], text, *TEXTS[number + 1 :]]
        pq.write_table(pa.table({"text": texts}), tmp_path / "texts.parquet", row_group_size=25)
        with pytest.raises(InvalidRequest, match=rf"row {number} has no text in column 'text'") as caught:
            client.batch_embed(tmp_path / "texts.parquet", out=tmp_path / "vectors.npy")
        assert (caught.value.details["index"], caught.value.details["embedded"]) == (number, number)
        assert np.load(tmp_path / "vectors.npy.part").shape == (number, 256)
    pq.write_table(pa.table({"text": ["one"]}).slice(0, 0), tmp_path / "texts.parquet")
    with pytest.raises(InvalidRequest):
        client.batch_embed(tmp_path / "texts.parquet")
    pq.write_table(pa.table({"text": [1, 25, 3]}), tmp_path / "texts.parquet")
    found = client.batch_embed(tmp_path / "texts.parquet")
    assert np.array_equal(found.numpy(), client.embed(["1", "25", "3"]).numpy())


def test_embed_takes_what_is_read_as_it_comes(client: LLMBackendClient) -> None:
    assert np.array_equal(client.embed(iter(TEXTS)).numpy(), client.embed(TEXTS).numpy())  # type: ignore[arg-type]
