"""Structured inputs and outputs of the built-in agents."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Base64Bytes, BaseModel, ConfigDict, Field, JsonValue, model_validator

from ..schemas import DocumentId
from ..schemas.rag import FileName


class GivenDocument(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: DocumentId
    text: str


class GivenFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: FileName = Field(description="the document's id; its extension gives the file type")
    content: Base64Bytes


class AnalystInput(BaseModel):
    """The fields to fill in, and the documents to read."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    shape: dict[str, JsonValue] | None = Field(
        None, alias="schema", description="a JSON Schema of an object; its properties are the fields"
    )
    questions: list[Annotated[str, Field(min_length=1, max_length=1000)]] | None = Field(
        None, min_length=1, max_length=64, description="the fields as questions"
    )
    documents: list[GivenDocument] | None = Field(
        None, min_length=1, max_length=10_000, description="these documents instead of the collections'"
    )
    files: list[GivenFile] | None = Field(
        None, min_length=1, max_length=10_000, description="these files, read as rag_ingest_files reads them"
    )
    ids: list[DocumentId] | None = Field(
        None, min_length=1, max_length=10_000, description="only the documents with these ids"
    )
    max_documents: int = Field(10_000, ge=1, le=100_000)

    @model_validator(mode="after")
    def _fields_are_told(self) -> Self:
        if bool(self.questions) == bool(self.shape):
            raise ValueError("give either a schema or questions")
        if self.shape is not None:
            fields = self.shape.get("properties")
            if not isinstance(fields, dict) or not 1 <= len(fields) <= 64:
                raise ValueError("schema: it must describe an object with 1 to 64 properties")
        return self


class Cell(BaseModel):
    value: JsonValue = None
    quote: str | None = Field(None, description="the document's words that it is based on, verbatim")


class TableRow(BaseModel):
    document: str
    collection: str | None = None
    cells: dict[str, Cell] = {}
    error: str | None = None


class Table(BaseModel):
    answer: str
    fields: list[str]
    rows: list[TableRow]
    parts: int = Field(0, description="the number of parts of all documents")
    parts_read: int = Field(0, description="the number of parts read: identical parts are read once")


class MessageClass(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=100)
    example: str = Field(min_length=1, max_length=4000, description="a message of this class")


class TriageInput(BaseModel):
    """A message, and the classes it may belong to, which may be given as `{name: example}`."""

    model_config = ConfigDict(extra="forbid")

    message: str = Field("", max_length=200_000, description="by default, the task")
    classes: list[MessageClass] = Field(min_length=2, max_length=64)

    @model_validator(mode="before")
    @classmethod
    def _as_a_mapping(cls, given: Any) -> Any:
        if isinstance(given, dict) and isinstance(classes := given.get("classes"), dict):
            told = [{"name": name, "example": example} for name, example in classes.items()]
            return {**given, "classes": told}
        return given


class Triage(BaseModel):
    category: str
    certainty: float = Field(description="0 to 1: how far the category is ahead of the next")
    urgency: Literal["low", "normal", "high"]
    reasons: list[str] = Field(description="sentences quoted from the message")
    answer: str = Field(description="a suggested answer from the collections; empty if they have none")
    found: bool
