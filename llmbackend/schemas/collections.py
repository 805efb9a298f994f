"""Collections and what is in them."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    ConfigDict,
    Field,
    JsonValue,
    model_validator,
)

from .base import CollectionName, DocumentId, Notes, PartName, Request, Response, form
from .metadata import ChunkPlace, Filters, Metadata


class CollectionRequest(Request):
    collection: CollectionName


MetadataField = Annotated[
    str,
    Field(
        min_length=1,
        max_length=512,
        pattern=form(r'^[^"\\]+$', "a field's name, without quotes and backslashes"),
    ),
]
FieldType = Literal["keyword", "integer", "float", "bool", "datetime"]
Indexes = Annotated[
    dict[MetadataField, FieldType],
    Field(
        description="indexes of metadata fields that filters use: the type of each field's values (`integer`: whole numbers only); at most 90"
    ),
]


class EngineOptions(Request):
    """How a Qdrant server keeps a collection; otherwise the server's defaults apply."""

    shard_number: int | None = Field(None, ge=1, le=10_000)
    replication_factor: int | None = Field(None, ge=1, le=1_000)
    write_consistency_factor: int | None = Field(None, ge=1, le=1_000)
    on_disk: bool | None = Field(None, description="keep vectors and their indexes on disk, not in memory")
    quantization: Literal["int8"] | None = Field(
        None,
        description="keep vectors in memory as 8-bit numbers; the best hits are rescored with the full vectors",
    )

    @model_validator(mode="after")
    def _can_be_kept(self) -> Self:
        if (self.write_consistency_factor or 1) > (self.replication_factor or 1_000):
            raise ValueError("write_consistency_factor must not be greater than replication_factor")
        return self

    @property
    def given(self) -> dict[str, Any]:
        return self.model_dump(exclude_none=True)


class ListCollectionsRequest(Request):
    counts: bool = Field(True, description="count documents and chunks; false does not ask the vector engine")


class CreateCollectionRequest(CollectionRequest):
    chunk_size: int | None = Field(None, ge=32, le=8192, description="tokens")
    chunk_overlap: int | None = Field(None, ge=0, le=4096, description="tokens")
    indexes: Indexes | None = None
    engine: EngineOptions | None = Field(
        None, description="options of a Qdrant server, in addition to the server's settings"
    )
    parser: PartName | None = Field(
        None, description="a project's own node parser, which splits its documents"
    )


class SetIndexesRequest(CollectionRequest):
    indexes: dict[MetadataField, FieldType | None] = Field(
        min_length=1,
        max_length=90,
        description="the type of each metadata field to index, null to remove its index; other fields keep theirs",
    )


class CollectionInfo(Response):
    name: str
    embedding_model: str
    sparse_model: str
    dimension: int
    chunk_size: int
    chunk_overlap: int
    documents: int | None = Field(description="null if it cannot be opened, or counting was not asked for")
    chunks: int | None = Field(description="null if it cannot be opened, or counting was not asked for")
    created_at: str
    indexes: Indexes = Field(description="indexes of metadata fields, including those made for filters")
    engine: dict[str, JsonValue] = Field(description="options of the Qdrant server that it was made with")
    parser: str | None = Field(
        None,
        exclude_if=lambda parser: parser is None,
        description="only if a project's own node parser splits its documents",
    )
    read_ahead: int | None = Field(
        None,
        exclude_if=lambda read_ahead: read_ahead is None,
        description="only where the embedded models answer: how many of its chunks the judge has read ahead, which "
        "it does while the process is idle, up to READ_AHEAD_CHUNKS of all collections",
    )
    damaged: bool = Field(
        False,
        exclude_if=lambda damaged: not damaged,
        description="true if it cannot be read and was set aside; otherwise left out",
    )
    problem: str | None = Field(
        None,
        exclude_if=lambda problem: problem is None,
        description="only if it cannot be used: why, and what to do",
    )


class CollectionList(Response):
    collections: list[CollectionInfo]


class CollectionDeleted(Response):
    deleted: str
    documents: int | None = Field(
        description="how many it had; null if not known: it was damaged, or not opened since the process was killed"
    )


class ReindexRequest(CollectionRequest):
    model: str | None = Field(
        None, description="the embedding model to use; refused unless it is the one that is set"
    )
    stream: bool = Field(False, description="answer with progress events, then the report")


class ReindexReport(Response):
    collection: str
    from_model: str
    to_model: str
    documents: int
    chunks: int
    tokens: int | None = Field(
        description="tokens that the embedding model read; null if its server does not tell"
    )
    seconds: float


class ModelFingerprint(Request):
    """What identifies an embedding model, whatever its name."""

    model: str = Field(max_length=512)
    query: str = Field("", max_length=10_000, description="the prompt before questions")
    passage: str = Field("", max_length=10_000, description="the prompt before passages")
    digest: str | None = Field(None, max_length=64, description="hash of an embedded model's weights")
    vectors: str | None = Field(
        None, description="vectors of three fixed texts, as base64 of little-endian float32"
    )


class CollectionManifest(Request):
    """What an exported collection was made with."""

    embedding_model: str = Field(min_length=1, max_length=512)
    dimension: int = Field(ge=1, le=65_536)
    chunk_size: int = Field(ge=32, le=8192)
    chunk_overlap: int = Field(ge=0, le=4096)
    indexes: Indexes = {}
    engine: EngineOptions = EngineOptions()
    fingerprint: ModelFingerprint | None = Field(None, exclude_if=lambda made_by: made_by is None)
    parser: PartName | None = Field(None, exclude_if=lambda parser: parser is None)


class StoredChunk(Request):
    document_id: DocumentId
    hash: str = Field(min_length=1, max_length=64, description="hash of the document's content")
    number: int = Field(ge=0, lt=2**31)
    total: int = Field(ge=1, le=2**31, description="number of chunks of the document")
    text: str
    metadata: Metadata = {}
    place: ChunkPlace = {}
    vector: str = Field(description="base64 of little-endian float32")

    @model_validator(mode="after")
    def _within_its_document(self) -> Self:
        if self.number >= self.total:
            raise ValueError("number must be less than total")
        return self


class ExportRequest(CollectionRequest):
    limit: int = Field(500, ge=1, le=5000)
    cursor: str | None = None


class CollectionExport(Response):
    manifest: CollectionManifest
    chunks: list[StoredChunk]
    cursor: str | None = Field(None, description="where the next page starts; null after the last")


class ImportRequest(CollectionRequest):
    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"properties": {name: {"type": kind}}, "required": [name]}
                for name, kind in (("manifest", "object"), ("token", "string"))
            ]
        }
    )

    manifest: CollectionManifest | None = Field(None, description="with the first page")
    chunks: list[StoredChunk] = Field([], max_length=5000)
    token: str | None = Field(
        None, description="the token in the reply to the first page; with all pages but the first"
    )
    last: bool = Field(False, description="this is the last page: make it a collection")
    abort: bool = Field(False, description="drop the import")


class ImportedCollection(Response):
    token: str | None = Field(None, description="to be sent with the next page; null after the last")
    documents: int = 0
    chunks: int = 0


class ListDocumentsRequest(CollectionRequest):
    limit: int = Field(100, ge=1, le=1000)
    cursor: str | None = None


class DocumentInfo(Response):
    id: str
    chunks: int
    metadata: dict[str, JsonValue]


class DocumentList(Response):
    documents: list[DocumentInfo]
    cursor: str | None = Field(None, description="where the next page starts; null after the last")


class ListChunksRequest(CollectionRequest):
    ids: list[DocumentId] | None = Field(
        None, min_length=1, max_length=100, description="only of these documents"
    )
    filters: Filters | None = None
    limit: int = Field(100, ge=1, le=1000)
    cursor: str | None = None


class ChunkInfo(Response):
    document_id: str
    chunk: int
    text: str
    metadata: dict[str, JsonValue] = Field(description="with its page and headings, as in a search's hits")


class ChunkList(Response):
    chunks: list[ChunkInfo]
    cursor: str | None = Field(None, description="where the next page starts; null after the last")
    notes: Notes = []


class GetDocumentRequest(CollectionRequest):
    id: DocumentId


class StoredDocument(Response):
    id: str
    text: str = Field(description="its chunks joined; overlaps are removed")
    metadata: dict[str, JsonValue]
    chunks: int = Field(description="number of chunks")


class DeleteDocumentsRequest(CollectionRequest):
    ids: list[DocumentId] | None = Field(None, min_length=1, max_length=10_000)
    filters: Filters | None = Field(
        None, min_length=1, description="instead of ids: the documents with a chunk that matches"
    )
    where: Filters | None = Field(None, min_length=1, description="the old name of `filters`")

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if sum(given is not None for given in (self.ids, self.filters, self.where)) != 1:
            raise ValueError("give either ids or filters; to remove all documents, use delete_collection")
        return self


class DocumentsDeleted(Response):
    deleted: int
    notes: Notes = []
