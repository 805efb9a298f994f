"""The table of operations as an OpenAPI 3.1 document."""

from __future__ import annotations

from functools import cache
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from .. import __version__
from ..errors import LLMBackendError
from ..operations import OPERATIONS, Operation
from . import uploads

_JSON = "application/json"


@cache
def document() -> dict[str, Any]:
    """The whole document, made anew from the table for each process."""
    models: list[tuple[type[BaseModel], Any]] = []
    for row in OPERATIONS.values():
        models += [(row.request, "validation"), (row.response, "serialization")]
    references, definitions = models_json_schema(models, ref_template="#/components/schemas/{model}")
    paths: dict[str, dict[str, Any]] = {}
    for row in OPERATIONS.values():
        request = references[row.request, "validation"]
        response = references[row.response, "serialization"]
        paths.setdefault(row.path, {})[row.method.lower()] = _operation(row, request, response, definitions)
    return {
        "openapi": "3.1.0",
        "info": {"title": "llmbackend", "version": __version__},
        "paths": paths,
        "security": [{"bearer": []}, {"header": []}],
        "components": {
            "schemas": {**definitions.get("$defs", {}), "Error": _ERROR},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def _operation(
    row: Operation, request: dict[str, Any], response: dict[str, Any], definitions: dict[str, Any]
) -> dict[str, Any]:
    in_path = [part[1:-1] for part in row.path.split("/") if part.startswith("{")]
    content: dict[str, Any] = {_JSON: {"schema": response}}
    if row.streams:
        content[row.media] = {}  # events, or lines, of JSON
    if "bytes" in _formats(row):  # vectors as they are, behind a line of JSON
        content["application/octet-stream"] = {"schema": {"type": "string", "format": "binary"}}
    described: dict[str, Any] = {
        "operationId": row.name,
        "summary": row.summary,
        "responses": {
            "200": {"description": "the result", "content": content},
            "default": {
                "description": "an error",
                "content": {_JSON: {"schema": {"$ref": "#/components/schemas/Error"}}},
            },
        },
    }
    if row.name == "health":
        described["responses"]["503"] = {
            "description": "the same, if something does not work",
            "content": content,
        }
    if row.scope == "public":
        described["security"] = []
    fields = row.request.model_fields
    # Fields of the path, and of the query where there is no body.
    if row.method == "POST":
        named = in_path
        body = _without(definitions["$defs"][row.request.__name__], in_path) if in_path else request
        if body.get("properties") or not in_path:
            described["requestBody"] = {"required": True, "content": {_JSON: {"schema": body}}}
            if uploads.takes(row):
                described["requestBody"]["content"][uploads.FORM] = {"schema": body}
    else:
        named = list(fields)
    if named:
        schema = definitions["$defs"][row.request.__name__]["properties"]
        described["parameters"] = [
            {
                "name": name,
                "in": "path" if name in in_path else "query",
                "required": fields[name].is_required(),
                "schema": schema[name],
            }
            for name in named
        ]
    return described


def _formats(row: Operation) -> tuple[str, ...]:
    field = row.request.model_fields.get("encoding_format")
    return get_args(field.annotation) if field else ()


def _without(schema: dict[str, Any], fields: list[str]) -> dict[str, Any]:
    """The schema of a body whose other fields are in the path."""
    properties = {name: field for name, field in schema["properties"].items() if name not in fields}
    required = [name for name in schema.get("required", []) if name not in fields]
    return {**schema, "properties": properties, "required": required}


def _subclasses(kind: type[LLMBackendError]) -> list[type[LLMBackendError]]:
    return [kind, *(deeper for child in kind.__subclasses__() for deeper in _subclasses(child))]


_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {
                "code": {
                    "type": "string",
                    "enum": sorted({kind.code for kind in _subclasses(LLMBackendError)}),
                },
                "message": {"type": "string"},
                "details": {"type": "object"},
                "request_id": {"type": ["string", "null"]},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
            },
        }
    },
}
