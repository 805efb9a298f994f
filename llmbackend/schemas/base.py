"""What requests and responses have in common."""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)

COLLECTION = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$"


def _collection_name(name: str) -> str:
    if not re.fullmatch(COLLECTION, name) or name.endswith("\n"):
        raise ValueError(
            "a collection's name is 1 to 128 letters, digits, '_', '-' and '.', and begins with a letter or digit"
        )
    return name


CollectionName = Annotated[
    str, AfterValidator(_collection_name), WithJsonSchema({"type": "string", "pattern": COLLECTION})
]


def _one_form(name: str) -> str:
    """Systems differ in how they write an accented letter of a file's name: it is one document all the same."""
    return unicodedata.normalize("NFC", name)


DocumentId = Annotated[str, Field(min_length=1, max_length=512), AfterValidator(_one_form)]
Question = Annotated[str, Field(min_length=1, max_length=32_768)]
"""What passages are sought for: not a document, for it is taken apart and looked up word by word."""
LARGEST = 2**53 - 1
"""The largest integer that JSON readers keep exactly; databases and engines take it, too."""
BASE64 = {"type": "string", "contentEncoding": "base64"}


def null_is(default: Any) -> BeforeValidator:
    """OpenAI's clients in other languages send null for what is not given."""
    return BeforeValidator(lambda value: default if value is None else value)


class Request(BaseModel):
    """Base of everything a caller sends."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="after")
    def _let_others_run(self) -> Self:
        """Pydantic holds the interpreter's lock while it makes thousands of these, but for calls of Python like this."""
        return self


class Response(BaseModel):
    """Base of everything the core answers."""


class Empty(Request):
    """An operation that takes nothing."""
