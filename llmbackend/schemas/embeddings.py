"""Embeddings on OpenAI's wire, reranking on Jina's and Cohere's."""

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    Tag,
    WithJsonSchema,
    field_serializer,
)

from .base import NullIs, Question, Request, Response, letting_others_run

# Embeddings (OpenAI's wire)


_MANY = 2048


def _kind_of_input(value: Any) -> str:
    """The tag of the type that is meant, so that errors are about that type only."""
    if not isinstance(value, list):
        return "str"
    match value[:1]:
        case [list()]:
            return "list[list[int]]"
        case [int()]:
            return "list[int]"
    return "list[str]"


TokenIds = Annotated[
    list[Annotated[int, Field(ge=0, lt=2**63)]],
    Field(min_length=1, max_length=100_000),
    AfterValidator(letting_others_run),
]
# The embedder reports which of several is empty.
_Text = Annotated[str, WithJsonSchema({"type": "string", "minLength": 1})]
EmbedInput = Annotated[
    Annotated[_Text, Tag("str")]
    | Annotated[list[_Text], Field(min_length=1, max_length=_MANY), Tag("list[str]")]
    | Annotated[TokenIds, Tag("list[int]")]
    | Annotated[list[TokenIds], Field(min_length=1, max_length=_MANY), Tag("list[list[int]]")],
    Discriminator(_kind_of_input),
]


class EmbedRequest(Request):
    input: EmbedInput = Field(
        description="a text or several; or token ids of the model's vocabulary, if it takes them"
    )
    model: str | None = None
    encoding_format: Annotated[Literal["float", "base64", "bytes"], NullIs("float")] = Field(
        "float",
        description="bytes: not JSON, but a line of JSON (without `data`, with `dimension`), then the vectors as "
        "little-endian float32, one after the other",
    )
    dimensions: int | None = Field(None, ge=1, description="for models whose vectors can be shortened")
    too_long: Annotated[Literal["split", "truncate", "error"], NullIs("split")] = Field(
        "split",
        description="what to do with a text longer than the model takes: embed its parts and take their mean, cut it off, or refuse it",
    )
    input_type: Literal["query", "passage"] | None = Field(
        None,
        description="whether the texts are questions or passages of a search: adds the prompt for these",
    )
    user: str | None = None

    @property
    def texts(self) -> list[str]:
        """The texts to embed; empty if there are `token_ids`."""
        given: Any = [self.input] if isinstance(self.input, str) else self.input
        return given if isinstance(given[0], str) else []

    @property
    def token_ids(self) -> list[tuple[int, ...]]:
        given: Any = [self.input] if _kind_of_input(self.input) == "list[int]" else self.input
        return [tuple(ids) for ids in given] if isinstance(given[0], list) else []


class Embedding(Response):
    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str = Field(
        description="floats, or base64 of little-endian float32 where encoding_format is base64"
    )

    @field_serializer("embedding")
    def _listed(self, embedding: Any) -> list[float] | str:
        """Make a row of a matrix a list only as it is written: as lists, its numbers take eight times the memory."""
        return embedding if isinstance(embedding, str) else list(embedding.tolist())


class EmbeddingUsage(Response):
    """Tokens that the model read; null if its server does not tell."""

    prompt_tokens: int | None
    total_tokens: int | None


class Block(bytes):
    """The bytes of a reply that is not JSON."""


class CutText(Response):
    """A text longer than the model takes."""

    index: int
    tokens: int | None = Field(description="null if the model's server does not tell")
    limit: int = Field(description="tokens that the model takes")
    parts: int = Field(description="how many of its parts were embedded; 1: only its beginning")


class EmbeddingList(Response):
    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage
    cut: list[CutText] = []


# Rerank (Jina's and Cohere's wire: https://jina.ai/reranker)


class RerankRequest(Request):
    query: Question
    documents: list[Annotated[str, Field(min_length=1)]] = Field(min_length=1, max_length=10_000)
    top_n: int | None = Field(None, ge=1, description="how many of the best to return; all unless given")
    model: str | None = None
    return_documents: Annotated[bool, NullIs(True)] = True


class RerankDocument(Response):
    text: str


class RerankResult(Response):
    index: int
    relevance_score: float
    document: RerankDocument | None = None


class RerankUsage(Response):
    """Tokens that the reranker read; null if it does not tell."""

    prompt_tokens: int | None
    total_tokens: int | None


class RerankResponse(Response):
    model: str
    results: list[RerankResult] = Field(description="best first")
    usage: RerankUsage
