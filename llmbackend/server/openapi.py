"""The OpenAPI 3.1 document, made from the table of operations."""

from __future__ import annotations

from functools import cache
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

from .. import __version__, plugins
from ..agents.execution import input_class, shape_of
from ..errors import InvalidRequest, LLMBackendError
from ..jobs import registry
from ..operations import OPERATIONS, Operation
from ..schemas import AgentRun
from . import uploads

_JSON = "application/json"
_LINKS = {
    "submit_job": ("job_id", "id"),
    "create_collection": ("collection", "name"),
    "set_schedule": ("name", "name"),
}
"""For operations that create something: the path field, and the field of the reply, that identify it."""
_DESCRIPTION = (
    "Integers are written without a fraction: 32, not 32.0. On any path, a request whose head cannot be read is refused "
    "with 400 or 431, a method that the path does not have with 405, and too many connections or requests at once with "
    "429."
)


class _Schemas(GenerateJsonSchema):
    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        """Say that keys which do not match the pattern are refused."""
        told = super().dict_schema(schema)
        if "patternProperties" in told:
            told["additionalProperties"] = False
        return told


@cache
def document() -> dict[str, Any]:
    """The whole document, built once per process, because plugins add job types and agents."""
    plugins.load()
    models: list[tuple[type[BaseModel], Any]] = [
        (kind.params, "validation") for kind in registry.TYPES.values()
    ]
    models += [(kind, "validation") for kind in _inputs().values()]
    models += [(kind, "serialization") for kind in _outputs().values()]
    for row in OPERATIONS.values():
        models += [(row.request, "validation"), (row.response, "serialization")]
    references, definitions = models_json_schema(
        models, ref_template="#/components/schemas/{model}", schema_generator=_Schemas
    )
    for row in OPERATIONS.values():
        if {"job_type", "params"} <= row.request.model_fields.keys():
            _tell_job_types(_resolved(references[row.request, "validation"], definitions), references)
        if "agent" in row.request.model_fields:
            given = {name: references[kind, "validation"] for name, kind in _inputs().items()}
            _tell_agents(_resolved(references[row.request, "validation"], definitions), "input", given)
        if row.response is AgentRun:
            made = {name: references[kind, "serialization"] for name, kind in _outputs().items()}
            _tell_agents(_resolved(references[AgentRun, "serialization"], definitions), "output", made)
    paths: dict[str, dict[str, Any]] = {}
    for row in OPERATIONS.values():
        request = references[row.request, "validation"]
        response = references[row.response, "serialization"]
        paths.setdefault(row.path, {})[row.method.lower()] = _operation(row, request, response, definitions)
    return {
        "openapi": "3.1.0",
        "info": {"title": "llmbackend", "version": __version__, "description": _DESCRIPTION},
        "paths": paths,
        "security": [{"bearer": []}, {"header": []}],
        "components": {
            "schemas": {**definitions.get("$defs", {}), "Error": _ERROR},
            "responses": {
                kind.__name__: _failure(kind) for row in OPERATIONS.values() for kind in row.errors
            },
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
    if "bytes" in _formats(row):  # raw vectors after a line of JSON
        content["application/octet-stream"] = {"schema": {"type": "string", "format": "binary"}}
    described: dict[str, Any] = {
        "operationId": row.name,
        "summary": row.summary,
        "responses": {
            "200": {"description": "the result", "content": content},
            **_failures(row),
        },
    }
    if row.name in _LINKS:
        described["responses"]["200"]["links"] = _links(*_LINKS[row.name])
    if row.refusals:
        described["description"] = row.refusals
    if row.name == "health":
        described["responses"]["503"] = {
            "description": "the same, when something does not work",
            "content": content,
        }
    if row.scope == "public":
        described["security"] = []
    fields = {info.alias or name: info for name, info in row.request.model_fields.items()}
    # Path parameters, and query parameters if there is no body.
    if row.method == "POST":
        named = in_path
        body = _without(_resolved(request, definitions), in_path) if in_path else request
        if body.get("properties") or not in_path:
            whole = _resolved(body, definitions) if "$ref" in body else body
            needed = any(whole.get(rule) for rule in ("required", "anyOf", "allOf"))
            described["requestBody"] = {"required": needed, "content": {_JSON: {"schema": body}}}
            if uploads.takes(row):
                form = _as_form(_resolved(request, definitions))
                described["requestBody"]["content"][uploads.FORM] = {"schema": form}
    else:
        named = list(fields)
    if named:
        schema = _resolved(request, definitions)["properties"]
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


def _links(named: str, told: str) -> dict[str, Any]:
    return {
        other.name: {"operationId": other.name, "parameters": {named: f"$response.body#/{told}"}}
        for other in OPERATIONS.values()
        if f"{{{named}}}" in other.path
    }


def _failures(row: Operation) -> dict[str, Any]:
    found = {str(kind.status): {"$ref": f"#/components/responses/{kind.__name__}"} for kind in row.errors}
    if row.refusals:
        found[str(InvalidRequest.status)]["description"] = f"{_said(InvalidRequest)} {row.refusals}"
    return found


def _failure(kind: type[LLMBackendError]) -> dict[str, Any]:
    code = {"properties": {"error": {"properties": {"code": {"const": kind.code}}}}}
    schema = {"allOf": [{"$ref": "#/components/schemas/Error"}, code]}
    return {"description": _said(kind), "content": {_JSON: {"schema": schema}}}


def _said(kind: type[LLMBackendError]) -> str:
    return "Unforeseen: a bug." if kind is LLMBackendError else (kind.__doc__ or "").partition("\n")[0]


def _tell_job_types(schema: dict[str, Any], references: Any) -> None:
    """List the job types, each with its params."""
    schema["properties"]["job_type"]["enum"] = list(registry.TYPES)
    schema["oneOf"] = [
        {"properties": {"job_type": {"const": name}, "params": references[kind.params, "validation"]}}
        for name, kind in registry.TYPES.items()
    ]


def _inputs() -> dict[str, type[BaseModel]]:
    """The structured inputs that agents declare, by agent."""
    found = {name: input_class(part) for name, part in plugins.AGENTS.items()}
    return {name: kind for name, kind in found.items() if kind is not None}


def _outputs() -> dict[str, type[BaseModel]]:
    """The structured outputs that agents declare, by agent."""
    found = {name: shape_of(part).output for name, part in plugins.AGENTS.items()}
    return {name: kind for name, kind in found.items() if kind is not None}


def _tell_agents(schema: dict[str, Any], field: str, shapes: dict[str, Any]) -> None:
    """List the agents, each with its schema of that field; output may be null, while a run has not ended."""
    schema["properties"]["agent"]["enum"] = sorted(plugins.AGENTS)
    untold = {"type": "null"}
    schema["allOf"] = [
        {
            "if": {"properties": {"agent": {"const": name}}, "required": ["agent"]},
            "then": {"properties": {field: shape if field == "input" else {"anyOf": [shape, untold]}}},
        }
        for name, shape in shapes.items()
    ]


def _resolved(reference: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = definitions["$defs"][reference["$ref"].rpartition("/")[2]]
    return found


def _formats(row: Operation) -> tuple[str, ...]:
    field = row.request.model_fields.get("encoding_format")
    return get_args(field.annotation) if field else ()


def _as_form(schema: dict[str, Any]) -> dict[str, Any]:
    """The part of a body that a form can express: files, and one value per field."""
    fields: dict[str, Any] = {}
    for name, field in schema["properties"].items():
        kinds = [kind for kind in field.get("anyOf", [field]) if kind.get("type") not in ("array", "null")]
        if name == "files":
            file = {"type": "string", "format": "binary"}
            fields[name] = {"type": "array", "items": file, "minItems": 1, "maxItems": field["maxItems"]}
        elif kinds:
            fields[name] = kinds[0]
    return {
        "type": "object",
        "properties": fields,
        "required": schema["required"],
        "additionalProperties": False,
    }


def _without(schema: dict[str, Any], fields: list[str]) -> dict[str, Any]:
    """The schema of a body without the fields that are in the path."""
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
