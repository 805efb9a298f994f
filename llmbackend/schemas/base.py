"""What requests and responses have in common."""

import re
import unicodedata
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

from .. import errors, json_writing, slices


def form(pattern: str, should_be: str) -> str:
    """A pattern; errors say in words what a text that does not match it should be."""
    errors.FORMS[pattern] = should_be
    return pattern


COLLECTION = r"^([A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}/)?[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$"
"""Pattern of a collection's name; another project's name may precede it."""


_collection = re.compile(COLLECTION).fullmatch


def _collection_name(name: str) -> str:
    if not _collection(name) or name.endswith("\n"):
        raise ValueError(
            "a collection's name is 1 to 128 letters, digits, '_', '-' and '.', and begins with a letter or digit; "
            "another project's is project/name"
        )
    return name


CollectionName = Annotated[
    str, AfterValidator(_collection_name), WithJsonSchema({"type": "string", "pattern": COLLECTION})
]


def _one_form(name: str) -> str:
    """Normalize a name, because systems encode accented letters in file names differently."""
    return unicodedata.normalize("NFC", name)


DocumentId = Annotated[str, Field(min_length=1, max_length=512), AfterValidator(_one_form)]
PartName = Annotated[str, Field(min_length=1, max_length=128)]
"""Name of a part that a project has registered (plugins.py)."""
# Two characters are white space to Rust alone, which checks this, or to ECMAScript alone, which JSON Schema refers to.
NOT_BLANK = form(r"[^\s\u0085\uFEFF]", "a text, not white space alone")
Question = Annotated[str, Field(min_length=1, max_length=32_768, pattern=NOT_BLANK)]
"""A query. Shorter than a document, because it is looked up word by word."""
PRINTABLE = form(r"^[^\x00-\x1f\x7f\ufffd]*$", "without control characters")
"""Text without control characters (PostgreSQL stores no NUL) and U+FFFD (which stands for any lone surrogate)."""
LARGEST = 2**53 - 1
"""The largest integer that JSON readers keep exactly; databases and engines accept it, too."""
MEDIA_URL = form(r"^(https?://|data:)", "a URL that begins with https://, http:// or data:")
Json = Any
"""Any JSON value of a request. It was parsed as JSON already; validating a large one again would take long."""
BASE64 = {"type": "string", "contentEncoding": "base64"}


@dataclass(frozen=True)
class NullIs:
    """Makes null mean a field's default: OpenAI's clients in some languages send null for what is not given."""

    default: Any

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        return core_schema.no_info_before_validator_function(
            lambda value: self.default if value is None else value,
            schema,
            json_schema_input_schema=core_schema.nullable_schema(schema),
        )


def letting_others_run(value: Any) -> Any:
    slices.give_way()
    return value


def _stop_at_first(schema: Any) -> None:
    """Make every list in a schema stop at its first wrong item."""
    left = [schema]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            if one.get("type") == "list":
                one["fail_fast"] = True
            left.extend(one.values())
        elif isinstance(one, list | tuple):
            left.extend(one)


class Request(BaseModel):
    """Base of all requests."""

    # Logs of unforeseen errors hold no input: it may be a key in the wrong place.
    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
        defer_build=True,
    )

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Report only the first wrong item of a list: pydantic would describe all of them with the
        interpreter's lock held."""
        schema = handler(source)
        _stop_at_first(schema)
        return schema

    @model_validator(mode="after")
    def _let_others_run(self) -> Self:
        """Release the interpreter's lock, which pydantic holds while it makes thousands of these."""
        slices.give_way()
        return self

    def wire(self) -> dict[str, Any]:
        """The request as it is sent: like `model_dump(exclude_unset=True, exclude_none=True, by_alias=True)`.

        That would copy the JSON of all fields with the interpreter's lock held.
        """
        slices.give_way()
        told = {}
        fields, given = self.__pydantic_fields__, self.__pydantic_fields_set__
        for name, value in vars(self).items():
            if value is None or name not in given or (field := fields[name]).exclude:
                continue
            if isinstance(value, Request):
                value = value.wire()
            elif isinstance(value, list):
                value = [one.wire() if isinstance(one, Request) else one for one in value]
            told[field.alias or name] = value
        return told

    def as_json(self) -> str:
        """The request as JSON: like `model_dump_json(by_alias=True)`, which would hold the interpreter's lock
        to the end."""
        written: list[str] = []
        for piece in json_writing.fields(self):
            slices.give_way()
            written.append(piece.decode())
        return "".join(written)


_set = object.__setattr__  # as pydantic does itself


class Response(BaseModel):
    """Base of all responses."""

    model_config = ConfigDict(defer_build=True)

    @classmethod
    def made(cls, **fields: Any) -> Self:
        """Make a response of values that are valid, one for each field. `model_construct` takes four times as long."""
        made = cls.__new__(cls)
        _set(made, "__dict__", fields)
        _set(made, "__pydantic_fields_set__", set(fields))
        _set(made, "__pydantic_extra__", None)
        _set(made, "__pydantic_private__", None)
        return made


def build() -> None:
    """Build all models now. Otherwise each is built when it is first used, which may take milliseconds."""
    kinds: list[type[BaseModel]] = [Request, Response]
    for kind in kinds:
        kind.model_rebuild()
        kinds += kind.__subclasses__()


Notes = Annotated[
    list[str],
    Field(
        description="if nothing was found, hints at filters that cannot match: fields that no document has, or that hold "
        "another type of value"
    ),
]


class Empty(Request):
    """The request of an operation without parameters."""
