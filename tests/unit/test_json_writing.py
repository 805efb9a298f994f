"""Results written in pieces are what pydantic writes at once."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from pydantic import BaseModel

from llmbackend import json_writing, schemas


def _hit(number: int) -> schemas.Hit:
    return schemas.Hit(
        text=f'ü "{number}"\n',
        score=0.1,
        document_id="d",
        chunk=number,
        collection="c",
        metadata={"a": [1, None, {"b": "\u2028"}]},
        duplicates=[schemas.Place(collection="c", document_id="e", chunk=1)] * number,
    )


class Nothing(BaseModel):
    pass


@pytest.mark.parametrize(
    "result",
    [
        Nothing(),
        schemas.SearchResult(hits=[]),
        schemas.SearchResult(hits=[_hit(number) for number in range(3)]),
        schemas.DocumentList(
            documents=[schemas.DocumentInfo(id="a", chunks=1, metadata={})] * 20, cursor="x"
        ),
        schemas.CollectionInfo(
            name="c",
            embedding_model="m",
            sparse_model="s",
            dimension=1,
            chunk_size=32,
            chunk_overlap=0,
            documents=1,
            chunks=1,
            created_at="",
            indexes={},
            engine={},
        ),
        schemas.QueryAnswer(answer="a", found=True, citations=[1, 2], sources=[], model="m", usage={"a": 1}),
    ],
)
def test_pieces_are_the_same_json(result: BaseModel) -> None:
    assert json_writing.write(result) == result.model_dump_json().encode()
    assert list(json_writing.objects(result).items()) == list(result.model_dump(mode="json").items())


def test_few_are_told_from_many() -> None:
    assert json_writing.few(schemas.SearchResult(hits=[_hit(0)]))
    assert not json_writing.few(schemas.SearchResult(hits=[_hit(0)] * (json_writing.INLINE_ITEMS + 1)))
    assert not json_writing.few(schemas.JobResult(result={"large": "?"}, offset=0, total=0, rows=[]))
    status = schemas.JobStatus(
        id="1",
        type="batch_embed",
        status="completed",
        owner="default",
        progress=schemas.JobProgress(done=1, total=1),
        attempts=1,
        priority=0,
        created_at="2026-01-01T00:00:00Z",
    )
    assert json_writing.few(status)
    assert not json_writing.few(status.model_copy(update={"result": {"vectors": [[0.5]]}}))


@pytest.mark.parametrize(
    "value",
    [
        {"messages": [{"role": "user", "content": 'Quotes, "\\ and\n é𝄞' * 100_000}], "n": 1, "stop": None},
        [{"a": [number, "text", {"b": None}]} for number in range(50_000)],
        {f"name{number}": () for number in range(50_000)},
        {"small": [1, "a"], "empty": [{}, [], ""]},
    ],
    ids=["a long text", "many values", "many names", "small"],
)
def test_what_is_sent_to_models_is_what_json_writes(value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the event loop, a message of 45 MB held up everything else for 140 ms."""
    dumps, sizes = json.dumps, list[int]()

    def counted(value: Any, **how: Any) -> str:
        sizes.append(len(written := dumps(value, **how)))
        return written

    monkeypatch.setattr(json_writing.json, "dumps", counted)
    assert asyncio.run(json_writing.dumps(value)) == dumps(value).encode()
    assert max(sizes) <= 12 * json_writing.PIECE, "a character may take twelve"


LONG = 'é"\n\u2028' * json_writing.PIECE


@pytest.mark.parametrize(
    "params",
    [
        schemas.RagIngestRequest(collection="c", documents=["small"]),
        schemas.RagIngestRequest(collection="c", documents=["a", LONG, "b"]),
        schemas.RagIngestRequest(collection="c", documents=["some words"] * 100_000),
        schemas.RagIngestRequest(
            collection="c",
            documents=[
                schemas.Document(
                    id=f"{n}", text="some words", metadata={"a": [None, 1.5, {"b": "ü"}], "n": n}
                )
                for n in range(4000)
            ],
        ),
        schemas.RagIngestRequest(
            collection="c",
            documents=[
                schemas.Document(
                    id="a", chunks=[schemas.GivenChunk(text="words " * 9, metadata={"n": 1})] * 9000
                )
            ],
        ),
        schemas.BatchChatParams(prompts=["a"], schema={"type": "string", "enum": ["word"] * 30_000}),
        schemas.BatchChatParams(prompts=[[schemas.Message(role="user", content=LONG)]] * 2),
    ],
    ids=["small", "a long text", "texts", "documents", "chunks", "a schema", "prompts"],
)
def test_params_are_written_as_pydantic_does(
    params: schemas.Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = list[int]()
    to_json = json_writing.to_json

    def counted(value: Any, **how: Any) -> bytes:
        sizes.append(len(written := to_json(value, **how)))
        return written

    monkeypatch.setattr(json_writing, "to_json", counted)
    assert params.as_json() == params.model_dump_json(by_alias=True)
    assert max(sizes) <= 12 * json_writing.PIECE, "a character may take six, and others are beside it"
