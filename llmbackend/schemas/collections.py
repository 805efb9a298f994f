"""Collections and what is in them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    ConfigDict,
    Field,
    JsonValue,
    model_validator,
)

from .base import CollectionName, DocumentId, PartName, Request, Response
from .metadata import ChunkPlace, Filters, Metadata


class CollectionRequest(Request):
    collection: CollectionName


MetadataField = Annotated[str, Field(min_length=1, max_length=512, pattern=r'^[^"\\]+$')]
FieldType = Literal["keyword", "integer", "float", "bool", "datetime"]
Indexes = Annotated[
    dict[MetadataField, FieldType],
    Field(
        description="of metadata fields that filters ask for: what is in each, `integer` for whole numbers only; at most 90"
    ),
]


class EngineOptions(Request):
    """How a Qdrant server keeps a collection; what is not given is as the server is set."""

    shard_number: int | None = Field(None, ge=1, le=10_000)
    replication_factor: int | None = Field(None, ge=1, le=1_000)
    write_consistency_factor: int | None = Field(None, ge=1, le=1_000)
    on_disk: bool | None = Field(None, description="vectors and their indexes on the disk, not in memory")
    quantization: Literal["int8"] | None = Field(
        None,
        description="vectors in memory as numbers of 8 bits; the best are scored again by the whole ones",
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
    counts: bool = Field(True, description="count documents and chunks; false asks no vector engine")


class CreateCollectionRequest(CollectionRequest):
    chunk_size: int | None = Field(None, ge=32, le=8192, description="tokens")
    chunk_overlap: int | None = Field(None, ge=0, le=4096, description="tokens")
    indexes: Indexes | None = None
    engine: EngineOptions | None = Field(
        None, description="of a Qdrant server, beside those that it is set to"
    )
    parser: PartName | None = Field(
        None, description="a project's own node parser, which splits its documents"
    )


class SetIndexesRequest(CollectionRequest):
    indexes: dict[MetadataField, FieldType | None] = Field(
        min_length=1,
        max_length=90,
        description="of metadata fields: what is in each, null for one whose index is to go; the others stay",
    )


class CollectionInfo(Response):
    name: str
    embedding_model: str
    sparse_model: str
    dimension: int
    chunk_size: int
    chunk_overlap: int
    documents: int | None = Field(description="null where it cannot be opened, or was not to be counted")
    chunks: int | None = Field(description="null where it cannot be opened, or was not to be counted")
    created_at: str
    indexes: Indexes = Field(description="of metadata fields, those made for a filter included")
    engine: dict[str, JsonValue] = Field(description="options of a Qdrant server that it was made with")
    parser: str | None = Field(
        None,
        exclude_if=lambda parser: parser is None,
        description="there where a project's own node parser splits its documents",
    )
    damaged: bool = Field(
        False,
        exclude_if=lambda damaged: not damaged,
        description="there, and true, where it cannot be read, and is set aside",
    )
    problem: str | None = Field(
        None,
        exclude_if=lambda problem: problem is None,
        description="there where it cannot be used: why, and what to do about it",
    )


class CollectionList(Response):
    collections: list[CollectionInfo]


class CollectionDeleted(Response):
    deleted: str
    documents: int | None = Field(
        description="how many it had; null where that is not known: it was damaged, or not opened since a kill"
    )


class ReindexRequest(CollectionRequest):
    model: str | None = Field(None, description="the embedding model that is set, lest it be another one")
    stream: bool = Field(False, description="answer with progress events, then the report")


class ReindexReport(Response):
    collection: str
    from_model: str
    to_model: str
    documents: int
    chunks: int
    tokens: int | None = Field(
        description="that the embedding model read now; null where its server does not tell"
    )
    seconds: float


class ModelFingerprint(Request):
    """What tells an embedding model from others, whatever it is called."""

    model: str = Field(max_length=512)
    query: str = Field("", max_length=10_000, description="the prompt that questions begin with")
    passage: str = Field("", max_length=10_000, description="that of what is stored")
    digest: str | None = Field(None, max_length=64, description="of the weights of an embedded model")
    vectors: str | None = Field(None, description="of three texts, as base64 of little-endian float32")


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
    hash: str = Field(min_length=1, max_length=64, description="of the document's content")
    number: int = Field(ge=0, lt=2**31)
    total: int = Field(ge=1, le=2**31, description="chunks of the document")
    text: str
    metadata: Metadata = {}
    place: ChunkPlace = {}
    vector: str = Field(description="base64 of little-endian float32")

    @model_validator(mode="after")
    def _within_its_document(self) -> StoredChunk:
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
    token: str | None = Field(None, description="what the first page was answered with, with all others")
    last: bool = Field(False, description="make it a collection")
    abort: bool = Field(False, description="forget what came")


class ImportedCollection(Response):
    token: str | None = Field(None, description="to send the next page with; null after the last")
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
        None, min_length=1, max_length=100, description="of these documents only"
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


class GetDocumentRequest(CollectionRequest):
    id: DocumentId


class StoredDocument(Response):
    id: str
    text: str = Field(description="its chunks, put together; what neighbours share is there once")
    metadata: dict[str, JsonValue]
    chunks: int = Field(description="how many they are")


class DeleteDocumentsRequest(CollectionRequest):
    ids: list[DocumentId] | None = Field(None, min_length=1, max_length=10_000)
    where: Filters | None = Field(
        None, min_length=1, description="filters, in place of ids: the documents of which a chunk fits"
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.ids is None) == (self.where is None):
            raise ValueError("give either ids or where: all documents go with delete_collection")
        return self


class DocumentsDeleted(Response):
    deleted: int
