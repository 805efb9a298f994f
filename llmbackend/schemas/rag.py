"""Ingesting documents and files, search, answers, and evaluation."""

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

from .base import (
    BASE64,
    CollectionName,
    DocumentId,
    Notes,
    PartName,
    Question,
    Request,
    Response,
    letting_others_run,
)
from .chat import HISTORY, Message
from .metadata import ChunkPlace, Filters, Metadata, storable

# RAG


DOCUMENTS = 100_000
"""The most documents of one request; send several requests for more."""

FILES = 10_000


class GivenChunk(Request):
    """A passage of a document that the caller has split."""

    text: str
    metadata: Metadata = Field(
        {}, description="metadata of this passage; it takes precedence over the document's"
    )
    place: ChunkPlace = Field(
        {}, description="`page`; `headings`, the titles above it; `sections`, those within it"
    )


CHUNKS = 100_000
"""The most chunks of one such document."""


class Document(Request):
    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": ["text"]}, {"required": ["chunks"]}]})

    id: DocumentId
    text: str = Field("", description="text to be split; leave it out if chunks are given")
    metadata: Metadata = {}
    chunks: list[GivenChunk] | None = Field(
        None, min_length=1, max_length=CHUNKS, description="its passages, stored as given"
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
                storable(
                    {**self.metadata, **chunk.metadata}, f"metadata of chunks[{number}] and its document"
                )
        self.text = text
        return self


def _or_one(schema: dict[str, Any]) -> None:
    several = {name: schema.pop(name) for name in ("type", "items", "minItems", "maxItems")}
    schema["anyOf"] = [several, *several["items"]["anyOf"]]


class RagIngestRequest(Request):
    documents: list[str | Document] = Field(
        min_length=1, max_length=DOCUMENTS, json_schema_extra=_or_one, description="one document or several"
    )
    collection: CollectionName
    chunk_size: int | None = Field(None, ge=32, le=8192, description="tokens")
    chunk_overlap: int | None = Field(None, ge=0, le=4096, description="tokens")
    sync: bool = False
    plan: bool = Field(False, description="only tell what would be done")
    stream: bool = Field(False, description="answer with progress events, then the report")

    @field_validator("documents", mode="before")
    @classmethod
    def _one_is_a_list_of_one(cls, value: Any) -> Any:
        return [value] if isinstance(value, str | dict) else value


def _file_name(name: str) -> str:
    """A relative path without '..', the same on every system."""
    printable = "".join(letter for letter in unicodedata.normalize("NFC", name) if letter.isprintable())
    parts = [part for part in printable.replace("\\", "/").split("/") if part.strip(" .")]
    if parts and re.fullmatch("[A-Za-z]:", parts[0]):
        del parts[0]
    if not parts:
        raise ValueError("a file needs a name")
    return "/".join(parts)


def _from_base64(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    content = bytearray()
    try:
        for start in range(0, len(value), BASE64_PIECE):
            letting_others_run(value)
            if content and len(content) % 3:
                raise ValueError("there is more behind its end")
            content += base64.b64decode(value[start : start + BASE64_PIECE], validate=True)
    except ValueError:
        raise ValueError("must be base64") from None
    return bytes(content)


BASE64_PIECE = 2**22
"""Characters that are decoded at a time, with the interpreter's lock held: a multiple of 4."""


FileName = Annotated[DocumentId, AfterValidator(_file_name)]


class File(Request):
    name: FileName = Field(
        description="a relative path, which becomes the document's id; its extension tells the format"
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
        [],
        max_length=500_000,
        description="ids of documents that sync must not remove: files sent in earlier requests",
    )
    plan: bool = Field(False, description="only tell what would be done")
    stream: bool = Field(False, description="answer with progress events, then the report")

    @model_validator(mode="after")
    def _something_is_given(self) -> Self:
        if not self.files and not self.keep:  # with sync, it would remove everything
            raise ValueError("there are no files")
        return self


class Failure(Response):
    id: str
    error: str


class IngestWarning(Response):
    id: str
    warning: str = Field(description="what was replaced or left out")


class IngestReport(Response):
    """What an ingest did: `added` to `deleted` count documents, `chunks` those written, `tokens` those that
    were embedded."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    deleted: int = 0
    failed: list[Failure] = []
    warnings: list[IngestWarning] = []
    chunks: int = 0
    tokens: int | None = Field(0, description="null if the model's server does not tell")


class IngestPlan(IngestReport):
    """What ingesting would do, for `total` documents; `tokens` and `seconds` are estimates."""

    documents: int = 0
    seconds: float = 0


class Retrieval(Request):
    """Options of a search."""

    collection: CollectionName | Annotated[list[CollectionName], Field(min_length=1, max_length=32)]
    top_k: int = Field(5, ge=1, le=1000)
    filters: Filters | None = None
    mode: Literal["hybrid", "dense", "sparse"] = "hybrid"
    rerank: bool | Annotated[str, Field(min_length=1)] = Field(
        False, description="true, or the name of a reranker's model"
    )
    min_score: float | None = Field(None, description="leave out passages with a lower `score`")
    retriever: PartName | None = Field(None, description="a project's own retriever, instead of the search")
    postprocessors: list[PartName] | None = Field(
        None, max_length=16, description="a project's own postprocessors, applied in this order"
    )


class RagSearchRequest(Retrieval):
    query: Question | None = Field(None, description="may be left out if a vector is given")
    vector: list[FiniteFloat] | None = Field(
        None,
        min_length=1,
        max_length=65_536,
        description="a vector of the collections' embedding model, used instead of the query's; without a query, the search is dense",
    )

    @model_validator(mode="after")
    def _something_to_look_for(self) -> Self:
        if self.query is None and self.vector is None:
            raise ValueError("give a query or a vector")
        if self.vector is not None and not any(self.vector):
            raise ValueError("vector: it is all zeros, which has no direction")
        if self.vector is not None and (self.mode == "sparse" or self.retriever):
            raise ValueError(
                "vector: sparse search and a project's own retriever use words only: leave it out"
            )
        if self.query is None and (self.rerank or self.postprocessors):
            raise ValueError("query: rerank and postprocessors need it: give it with the vector")
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
    duplicates: list[Place] = Field([], description="other places with the same text")


class SearchResult(Response):
    hits: list[Hit]
    notes: Notes = []


class RagQueryRequest(Retrieval):
    question: Question
    top_k: int = Field(5, ge=1, le=100)
    history: list[Message] | None = Field(
        None, max_length=HISTORY, description="earlier messages of the conversation"
    )
    explain: bool = Field(False, description="tell how the answer came about")
    stream: bool = Field(
        False, description="answer with the sources, then pieces of text, then the whole answer"
    )


class InstructedQuery(RagQueryRequest):
    """A question with a chat's instructions."""

    instructions: str | None = Field(None, description="for the model, after its own prompt")


class Source(Hit):
    number: int
    quote: str


class Candidate(Place):
    """A passage that was considered, and its scores."""

    number: int | None = Field(description="its number as a source; null if it was dropped")
    text: str = Field(description="the beginning of its text")
    score: float = Field(description="what it was ordered by: the last of the scores below that is not null")
    dense: float | None = Field(None, description="cosine; null if not in the dense list")
    sparse: float | None = Field(None, description="BM25; null if not in the sparse list")
    weight: float | None = Field(None, description="weight of the dense list; the sparse one has 1")
    fused: float | None = Field(
        None,
        description="the fused score: each list's scores are scaled between mean ± 3 deviations, and added",
    )
    ahead: float | None = Field(
        None, description="cosine of the passage, by the judge's model, if it was read ahead"
    )
    judge: float | None = Field(
        None, description="cosine of the passage's best sentence, by the judge's model"
    )
    judged: float | None = Field(None, description="score after the judge's reading")
    rerank: float | None = Field(None, description="the reranker's score")
    retriever: float | None = Field(None, description="score by a project's own retriever")
    postprocessed: float | None = Field(None, description="score by a project's own postprocessors")
    quote_score: float | None = Field(None, description="how well its best sentence fits the question")
    dropped: Literal["duplicate", "min_score", "top_k", "budget", "postprocessor"] | None = Field(
        None, description="why it was not used for the answer"
    )


class Explanation(Response):
    question: str = Field(description="the question that was searched for")
    candidates: list[Candidate] = Field(description="best first; dropped ones may come last")
    fit: float | None = Field(
        description="how well the passages fit the question; null if a chat model decided"
    )
    bar: float | None = Field(
        description="the fit from which on the answer counts as found; null if a chat model decided"
    )
    found: bool
    model: str
    prompt: str | None = Field(None, description="the prompt used, as name@version")
    prompt_tokens: int
    notes: list[str] = Field(
        [],
        description="hints at filters that cannot match: fields that no document has, or that hold another type of value",
    )
    ms: dict[str, float] = Field(description="milliseconds of each step, in order")


class QueryAnswer(Response):
    answer: str
    found: bool = Field(description="whether the passages answer the question")
    citations: list[int] = Field(description="numbers of the sources that the answer cites")
    sources: list[Source]
    model: str
    usage: dict[str, Any]
    notes: Notes = []
    explanation: Explanation | None = None


# Evaluation


class GoldQuestion(Request):
    question: Question
    gold: (
        DocumentId
        | Annotated[list[DocumentId], Field(min_length=1, max_length=1000)]
        | Annotated[dict[DocumentId, Annotated[int, Field(ge=0)]], Field(min_length=1, max_length=1000)]
    ) = Field(
        description="the id of the document that answers it, several ids, or a mapping of id to relevance"
    )

    @property
    def relevance(self) -> dict[str, int]:
        """The gold documents with their relevance."""
        if isinstance(self.gold, dict):
            return self.gold
        return dict.fromkeys([self.gold] if isinstance(self.gold, str) else self.gold, 1)


GOLD = 100_000
"""The most gold documents of a request, over all questions."""


class EvaluateRequest(Request):
    collection: CollectionName
    questions: list[GoldQuestion] = Field(
        min_length=1, max_length=10_000, description=f"questions, with at most {GOLD:,} gold documents in all"
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
    ms: float = Field(description="milliseconds per search")


class QuestionScores(Response):
    question: str
    gold: list[str]
    ranks: dict[str, int | None] = Field(
        description="by mode, the rank of the first gold document; null if not among the first k"
    )
    ndcg: dict[str, float] = Field(description="by mode")
    first: dict[str, str | None] = Field(description="by mode, the document ranked first")


class Evaluation(Response):
    collection: str
    k: int
    scores: list[ModeScores]
    questions: list[QuestionScores]
