"""Documents and files in, passages and answers out; how good those are."""

from __future__ import annotations

import base64
import re
import unicodedata
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    JsonValue,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from .base import BASE64, CollectionName, DocumentId, PartName, Question, Request, Response
from .chat import HISTORY, Message
from .metadata import ChunkPlace, Filters, Metadata, storable

# RAG


DOCUMENTS = 100_000
"""Documents in one request; several requests take any number."""

FILES = 10_000


class GivenChunk(Request):
    """A passage of a document that its caller has split."""

    text: str
    metadata: Metadata = Field({}, description="beside the document's, before which it goes")
    place: ChunkPlace = Field({}, description="`page` and `headings`, the titles above it")


CHUNKS = 100_000
"""Of one document that comes split."""


class Document(Request):
    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": ["text"]}, {"required": ["chunks"]}]})

    id: DocumentId
    text: str = Field("", description="to be split; leave it out where there are chunks")
    metadata: Metadata = {}
    chunks: list[GivenChunk] | None = Field(
        None, min_length=1, max_length=CHUNKS, description="its passages, which stay as they are"
    )

    @model_validator(mode="after")
    def _text_or_chunks(self) -> Self:
        if self.chunks is None:
            if "text" not in self.model_fields_set:
                raise ValueError("a document has a text, or chunks")
            return self
        text = "\n\n".join(chunk.text for chunk in self.chunks)
        if self.text not in ("", text):
            raise ValueError("text and chunks exclude each other: leave one of them out")
        for number, chunk in enumerate(self.chunks):
            if self.metadata and chunk.metadata:
                storable({**self.metadata, **chunk.metadata}, f"metadata of chunks.{number} and its document")
        self.text = text
        return self


def _or_one(schema: dict[str, Any]) -> None:
    several = {name: schema.pop(name) for name in ("type", "items", "minItems", "maxItems")}
    schema["anyOf"] = [several, *several["items"]["anyOf"]]


class RagIngestRequest(Request):
    documents: list[str | Document] = Field(
        min_length=1, max_length=DOCUMENTS, json_schema_extra=_or_one, description="several, or one"
    )
    collection: CollectionName
    chunk_size: int | None = Field(None, ge=32, le=8192, description="tokens")
    chunk_overlap: int | None = Field(None, ge=0, le=4096, description="tokens")
    sync: bool = False
    plan: bool = Field(False, description="tell what would be done, and do nothing")
    stream: bool = Field(False, description="answer with progress events, then the report")

    @field_validator("documents", mode="before")
    @classmethod
    def _one_is_a_list_of_one(cls, value: Any) -> Any:
        return [value] if isinstance(value, str | dict) else value


def _file_name(name: str) -> str:
    """A path that leads nowhere but down, the same on every system."""
    printable = "".join(letter for letter in unicodedata.normalize("NFC", name) if letter.isprintable())
    parts = [part for part in printable.replace("\\", "/").split("/") if part.strip(" .")]
    if parts and re.fullmatch("[A-Za-z]:", parts[0]):
        del parts[0]
    if not parts:
        raise ValueError("a file needs a name")
    return "/".join(parts)


def _from_base64(value: Any) -> Any:
    try:
        return base64.b64decode(value, validate=True) if isinstance(value, str) else value
    except ValueError:
        raise ValueError("must be base64") from None


FileName = Annotated[DocumentId, AfterValidator(_file_name)]


class File(Request):
    name: FileName = Field(
        description="a path below the folder ingested: the document's id; its end tells the type"
    )
    content: Annotated[bytes, BeforeValidator(_from_base64), WithJsonSchema(BASE64)]


class RagIngestFilesRequest(Request):
    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"properties": {"files": {"minItems": 1}}},
                {"properties": {"keep": {"minItems": 1}}, "required": ["keep"]},
            ]
        }
    )

    files: list[File] = Field(max_length=FILES)
    collection: CollectionName
    chunk_size: int | None = Field(None, ge=32, le=8192, description="tokens")
    chunk_overlap: int | None = Field(None, ge=0, le=4096, description="tokens")
    sync: bool = False
    keep: list[FileName] = Field(
        [], max_length=500_000, description="what sync is to leave, beside these files: those sent before"
    )
    plan: bool = Field(False, description="tell what would be done, and do nothing")
    stream: bool = Field(False, description="answer with progress events, then the report")

    @model_validator(mode="after")
    def _something_is_given(self) -> RagIngestFilesRequest:
        if not self.files and not self.keep:  # with sync, it would remove everything
            raise ValueError("there are no files")
        return self


class Failure(Response):
    id: str
    error: str


class IngestWarning(Response):
    id: str
    warning: str = Field(description="what of the document was replaced or left out")


class IngestReport(Response):
    """The first four count documents; chunks, those written; tokens, those that the embedding model read."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    deleted: int = 0
    failed: list[Failure] = []
    warnings: list[IngestWarning] = []
    chunks: int = 0
    tokens: int | None = Field(0, description="null where the model's server does not tell")


class IngestPlan(IngestReport):
    """What a report would say, of so many documents in all; `tokens` and `seconds` are estimates."""

    documents: int = 0
    seconds: float = 0


class Retrieval(Request):
    """Which passages are wanted."""

    collection: CollectionName | Annotated[list[CollectionName], Field(min_length=1, max_length=32)]
    top_k: int = Field(5, ge=1, le=1000)
    filters: Filters | None = None
    mode: Literal["hybrid", "dense", "sparse"] = "hybrid"
    rerank: bool | Annotated[str, Field(min_length=1)] = Field(
        False, description="true, or a reranker's model"
    )
    min_score: float | None = Field(None, description="leave out what scores lower, on the scale of `score`")
    retriever: PartName | None = Field(None, description="a project's own, in place of the search")
    postprocessors: list[PartName] | None = Field(
        None, max_length=16, description="a project's own, one after the other, on what was found"
    )


class RagSearchRequest(Retrieval):
    query: Question | None = Field(None, description="may be left out where there is a vector")
    vector: list[FiniteFloat] | None = Field(
        None,
        min_length=1,
        max_length=65_536,
        description="of the collections' embedding model, in place of the query's; without a query, the mode is dense",
    )

    @model_validator(mode="after")
    def _something_to_look_for(self) -> Self:
        if self.query is None and self.vector is None:
            raise ValueError("give a query or a vector")
        if self.vector is not None and not any(self.vector):
            raise ValueError("vector: it is of zeros, and points nowhere")
        if self.vector is not None and (self.mode == "sparse" or self.retriever):
            raise ValueError(
                "vector: a sparse search, or one by a project's own retriever, looks for words: leave it out"
            )
        if self.query is None and (self.rerank or self.postprocessors):
            raise ValueError("query: rerank and postprocessors read it: give it beside the vector")
        return self


class Place(Response):
    collection: str
    document_id: str
    chunk: int


class Hit(Response):
    text: str
    score: float = Field(
        description="a cosine (dense), BM25 (sparse), both lists' fused scores (hybrid), or the reranker's"
    )
    document_id: str
    chunk: int
    collection: str
    metadata: dict[str, JsonValue]
    duplicates: list[Place] = Field([], description="where the same text is found, too")


class SearchResult(Response):
    hits: list[Hit]


class RagQueryRequest(Retrieval):
    question: Question
    top_k: int = Field(5, ge=1, le=100)
    history: list[Message] | None = Field(None, max_length=HISTORY, description="what was said before")
    explain: bool = Field(False, description="tell how the answer came about")
    stream: bool = Field(False, description="answer with the sources, then pieces of text, then the whole")


class Source(Hit):
    number: int
    quote: str


class Candidate(Place):
    """A passage that retrieval came upon, and what became of it."""

    number: int | None = Field(description="of the source that it is; null where it was dropped before")
    text: str = Field(description="its beginning")
    score: float = Field(description="what it was ordered by, the last of the following that there is")
    dense: float | None = Field(None, description="cosine; null beyond the list's end")
    sparse: float | None = Field(None, description="BM25; null beyond the list's end")
    weight: float | None = Field(None, description="what the dense list counts beside the sparse one")
    fused: float | None = Field(
        None,
        description="both lists' scores, set between their mean minus and plus three deviations, and added",
    )
    judge: float | None = Field(
        None, description="cosine of the passage, or of its best sentence, by the model that judges them"
    )
    judged: float | None = Field(None, description="by what the judge finds")
    rerank: float | None = Field(None, description="the reranker's")
    retriever: float | None = Field(None, description="by a project's own retriever")
    postprocessed: float | None = Field(None, description="by a project's own postprocessors")
    quote_score: float | None = Field(None, description="how well its best sentence fits the question")
    dropped: Literal["duplicate", "min_score", "top_k", "budget", "postprocessor"] | None = Field(
        None, description="why the answer was not written from it"
    )


class Explanation(Response):
    question: str = Field(description="as it was searched for")
    candidates: list[Candidate] = Field(
        description="best first; those that were dropped before the others last"
    )
    fit: float | None = Field(description="how well the passages fit the question; null where a model judged")
    bar: float | None = Field(
        description="from which fit on they count as telling; null where a model judged"
    )
    found: bool
    model: str
    prompt: str | None = Field(None, description="what the model was told, as name@version")
    prompt_tokens: int
    notes: list[str] = Field(
        [],
        description="fields of the filters that no document has, or that hold something else than is asked for",
    )
    ms: dict[str, float] = Field(description="milliseconds of each step, in their order")


class QueryAnswer(Response):
    answer: str
    found: bool = Field(description="whether the passages tell")
    citations: list[int] = Field(description="numbers of the sources that the answer cites")
    sources: list[Source]
    model: str
    usage: dict[str, Any]
    explanation: Explanation | None = None


# Evaluation


class GoldQuestion(Request):
    question: Question
    gold: (
        DocumentId
        | Annotated[list[DocumentId], Field(min_length=1, max_length=1000)]
        | Annotated[dict[DocumentId, Annotated[int, Field(ge=0)]], Field(min_length=1, max_length=1000)]
    ) = Field(description="the document that answers it, several, or each with how relevant it is")

    @property
    def relevance(self) -> dict[str, int]:
        """The gold documents, each with how relevant it is."""
        if isinstance(self.gold, dict):
            return self.gold
        return dict.fromkeys([self.gold] if isinstance(self.gold, str) else self.gold, 1)


GOLD = 100_000
"""Gold documents of all questions of a request."""


class EvaluateRequest(Request):
    collection: CollectionName
    questions: list[GoldQuestion] = Field(
        min_length=1, max_length=10_000, description=f"with at most {GOLD:,} gold documents in all"
    )
    k: int = Field(10, ge=1, le=100)
    stream: bool = Field(False, description="answer with progress events, then the evaluation")

    @model_validator(mode="after")
    def _not_too_many(self) -> Self:
        gold = sum(1 if isinstance(one.gold, str) else len(one.gold) for one in self.questions)
        if gold > GOLD:
            raise ValueError(
                f"the questions have {gold:,} gold documents and may have {GOLD:,}: ask fewer at a time"
            )
        return self


class ModeScores(Response):
    """The means over all questions."""

    mode: str = Field(description="dense, sparse, hybrid, or hybrid+rerank where a reranker is set")
    recall: float = Field(description="share of the gold documents among the first k")
    mrr: float = Field(description="mean reciprocal rank of the first gold document among the first k")
    ndcg: float = Field(description="normalised discounted cumulative gain of the first k")
    ms: float = Field(description="milliseconds a search")


class QuestionScores(Response):
    question: str
    gold: list[str]
    ranks: dict[str, int | None] = Field(
        description="by mode, where the first gold document stands; null if not among the first k"
    )
    ndcg: dict[str, float] = Field(description="by mode")
    first: dict[str, str | None] = Field(description="by mode, the document that stands first")


class Evaluation(Response):
    collection: str
    k: int
    scores: list[ModeScores]
    questions: list[QuestionScores]
