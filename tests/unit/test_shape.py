"""The shape of the whole: one table of operations, one SDK, imports that go down only."""

from __future__ import annotations

import ast
import inspect
import re
import sys
import tomllib
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import jsonschema_rs
from pydantic import ValidationError
from pydantic.fields import FieldInfo

import llm_client
import llmbackend
from llmbackend import LLMBackendClient, LLMBackendError, errors, schemas
from llmbackend.backend import Backend
from llmbackend.jobs.registry import TYPES
from llmbackend.operations import OPERATIONS, Operation
from llmbackend.schemas.base import COLLECTION
from llmbackend.server.openapi import document

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "llmbackend"
SDK = ROOT / "sdk" / "llm_client.py"

# Conveniences of the SDK that are made of operations.
NOT_OPERATIONS = {"batch_embed", "close", "wait_for_job", "embed_single"}


def _each(values: dict[str, Any]) -> Callable[[Callable[[Any], None]], Callable[[], None]]:
    """One test over all of them: each alone would take longer to tell of than to run."""

    def over_all(test: Callable[[Any], None]) -> Callable[[], None]:
        def run() -> None:
            failed = []
            for name, value in values.items():
                try:
                    test(value)
                except Exception as error:
                    error.add_note(f"{name} fails")
                    failed.append(error)
            if failed:
                raise ExceptionGroup(test.__name__, failed)

        run.__name__, run.__doc__ = test.__name__, test.__doc__
        return run

    return over_all


operations = _each(OPERATIONS)


# The table and the SDK


def _methods() -> dict[str, Callable[..., Any]]:
    found = inspect.getmembers(LLMBackendClient, inspect.isfunction)
    return {name: method for name, method in found if not name.startswith("_")}


def test_the_sdk_routes_each_operation_as_the_table_does() -> None:
    assert {name: (row.method, row.path) for name, row in OPERATIONS.items()} == llm_client.ROUTES


def test_the_sdk_has_a_method_for_each_operation_and_no_other() -> None:
    assert set(_methods()) - NOT_OPERATIONS == set(OPERATIONS)
    assert set(_methods()) >= NOT_OPERATIONS


@dataclass
class Difference:
    """Where an SDK method and the wire differ on purpose."""

    renamed: dict[str, str] = field(default_factory=dict)  # SDK's name -> the wire's
    sdk_only: set[str] = field(default_factory=set)
    wire_only: set[str] = field(default_factory=set)
    other_default: set[str] = field(default_factory=set)


# fmt: off
DIFFERENCES = {
    # `system` and `images` become messages; the rest is OpenAI's wire, for OpenAI's own clients.
    "chat": Difference(sdk_only={"system", "images"}, wire_only={
        "max_completion_tokens", "n", "frequency_penalty", "presence_penalty", "logit_bias",
        "logprobs", "top_logprobs", "parallel_tool_calls", "response_format",
        "reasoning_effort", "verbosity", "prediction", "modalities", "user", "safety_identifier", "prompt_cache_key",
        "stream_options", "top_k", "min_p", "repetition_penalty", "chat_template_kwargs", "structured_outputs",
        "metadata", "store", "service_tier", "prompt_cache_options", "prompt_cache_retention",
        "functions", "function_call", "audio", "web_search_options", "moderation",
    }),
    # The rest is for OpenAI's own clients.
    "respond": Difference(wire_only={
        "parallel_tool_calls", "max_tool_calls", "reasoning", "presence_penalty", "frequency_penalty", "top_logprobs",
        "truncation", "user", "safety_identifier", "prompt_cache_key", "stream_options", "service_tier",
        "prompt_cache_options", "prompt_cache_retention", "background_options", "access_programs", "conversation",
        "prompt", "context_management", "moderation", "image",
    }),
    "get_response": Difference(wire_only={"include[]", "include_obfuscation"}),
    "list_input_items": Difference(wire_only={"include[]"}),
    # The wire's names are OpenAI's; the encoding is the SDK's own business.
    "embed": Difference(renamed={"texts": "input"}, wire_only={"encoding_format", "user"}),
    # The SDK has the texts itself.
    "rerank": Difference(wire_only={"return_documents"}),
    # The SDK streams where progress is wanted.
    "reindex_collection": Difference(sdk_only={"progress"}, wire_only={"stream"}),
    "evaluate": Difference(sdk_only={"progress"}, wire_only={"stream"}),
    # The SDK makes documents of a table's rows, by the names of its columns.
    "rag_ingest": Difference(sdk_only={"id", "text", "metadata", "progress"}, wire_only={"stream"}),
    # A vector may stand in the place of the query before it.
    "rag_search": Difference(other_default={"collection"}),
    # The SDK finds the files, and sends them in several requests: `keep` are those of the others.
    "rag_ingest_files": Difference(
        renamed={"paths": "files"}, sdk_only={"progress"}, wire_only={"stream", "keep"}
    ),
    # The SDK reads tables and files.
    "batch_chat": Difference(sdk_only={"text"}),
    # The SDK reads vectors as bytes.
    "get_job_result": Difference(wire_only={"encoding_format"}),
    # In the SDK it comes first, and may be empty; on the wire, it may be left out.
    "run_agent": Difference(other_default={"task"}),
    # The SDK always streams.
    "job_events": Difference(wire_only={"stream"}),
    # The SDK turns the pages, to and from a file.
    "export_collection": Difference(sdk_only={"path"}, wire_only={"limit", "cursor"}),
    "import_collection": Difference(
        sdk_only={"path"}, wire_only={"manifest", "chunks", "token", "last", "abort"}, other_default={"collection"}
    ),
    # The SDK turns the pages itself, and by default gives all.
    "list_documents": Difference(wire_only={"cursor"}, other_default={"limit"}),
    "list_chunks": Difference(wire_only={"cursor"}, other_default={"limit"}),
}
# fmt: on


@operations
def test_an_sdk_method_takes_what_its_request_has(row: Operation) -> None:
    differs = DIFFERENCES.get(row.name, Difference())
    parameters = dict(inspect.signature(getattr(LLMBackendClient, row.name)).parameters)
    del parameters["self"]
    assert differs.sdk_only <= parameters.keys()
    fields = _fields(row)
    assert differs.wire_only <= fields.keys()
    sdk = {
        differs.renamed.get(name, name): ... if parameter.default is parameter.empty else parameter.default
        for name, parameter in parameters.items()
        if name not in differs.sdk_only
    }
    wire = {name: _default(info) for name, info in fields.items() if name not in differs.wire_only}
    assert sdk.keys() == wire.keys()
    assert {name for name in sdk if sdk[name] != wire[name]} == differs.other_default


def _fields(row: Operation) -> dict[str, FieldInfo]:
    """A request's fields by their names on the wire."""
    return {info.alias or name: info for name, info in row.request.model_fields.items()}


def _default(info: FieldInfo) -> Any:
    return ... if info.is_required() else info.get_default(call_default_factory=True)


@operations
def test_optional_arguments_of_an_sdk_method_are_given_by_name(row: Operation) -> None:
    by_place = {"rag_search": {"query", "collection"}, "delete_documents": {"ids"}}
    """What is mostly given, and left out where another argument says it."""
    for parameter in inspect.signature(getattr(LLMBackendClient, row.name)).parameters.values():
        if parameter.default is not parameter.empty and parameter.name not in by_place.get(row.name, ()):
            assert parameter.kind is parameter.KEYWORD_ONLY, parameter.name


@operations
def test_only_operations_that_stream_have_a_streaming_method(row: Operation) -> None:
    assert hasattr(Backend, f"{row.name}_stream") == row.streams
    assert ("stream" in row.request.model_fields) == row.streams


# Documentation


@operations
def test_an_operation_is_documented_in_core_and_sdk(row: Operation) -> None:
    assert inspect.getdoc(getattr(Backend, row.name))
    assert inspect.getdoc(getattr(LLMBackendClient, row.name))
    assert row.summary.endswith((".", ").")), "the summary is a sentence on one line"


def test_what_is_public_in_the_sdk_is_documented() -> None:
    undocumented = [name for name, method in _methods().items() if not method.__doc__]
    for name in llm_client.__all__:
        kind = getattr(llm_client, name)
        undocumented += [] if vars(kind).get("__doc__") else [name]
    assert undocumented == []


def test_the_sdk_tells_every_job_type() -> None:
    assert LLMBackendClient.submit_job.__doc__
    ours = [name for name, kind in TYPES.items() if kind.run.__module__.startswith("llmbackend.")]
    assert ours
    assert [name for name in ours if f"`{name}`" not in LLMBackendClient.submit_job.__doc__] == []


@operations
def test_what_a_pattern_wants_is_told_in_words(row: Operation) -> None:
    patterns = _patterns(row.request.model_json_schema())
    assert patterns - errors.FORMS.keys() <= {COLLECTION}, (
        "a validator of its own tells of a collection's name"
    )


def _patterns(schema: Any) -> set[str]:
    inner = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    found = (
        {schema["pattern"]} if isinstance(schema, dict) and isinstance(schema.get("pattern"), str) else set()
    )
    return found.union(*map(_patterns, inner))


@operations
def test_an_operation_is_in_the_openapi_document(row: Operation) -> None:
    described = document()["paths"][row.path][row.method.lower()]
    assert described["operationId"] == row.name
    assert described["summary"] == row.summary
    parameters = {parameter["name"]: parameter for parameter in described.get("parameters", [])}
    in_path = set(re.findall(r"\{(\w+)\}", row.path))
    assert {name for name, one in parameters.items() if one["in"] == "path"} == in_path
    assert all(parameters[name]["required"] for name in in_path)
    fields = set(_fields(row))
    if row.method == "POST":
        assert set(parameters) == in_path
        assert ("requestBody" in described) == bool(fields - in_path)
        if fields - in_path:
            assert fields - in_path <= set(_schema_of_body(described)["properties"])
    else:
        assert set(parameters) == fields
        assert "requestBody" not in described
    content = described["responses"]["200"]["content"]
    assert (row.media in content) == row.streams


@operations
def test_an_operation_tells_the_errors_that_it_may_fail_with(row: Operation) -> None:
    responses = document()["paths"][row.path][row.method.lower()]["responses"]
    statuses = {str(kind.status) for kind in row.errors}
    assert statuses == set(responses) - ({"200", "503"} if row.name == "health" else {"200"})
    assert len(statuses) == len(row.errors)
    for kind in row.errors:
        told = _resolved(responses[str(kind.status)]["$ref"])
        schema = told["content"]["application/json"]["schema"]
        assert schema["allOf"][1]["properties"]["error"]["properties"]["code"]["const"] == kind.code
        assert told["description"]
    assert row.refusals in responses["422"].get("description", "")


@operations
def test_a_job_s_type_is_one_of_those_that_there_are_and_its_params_are_told(row: Operation) -> None:
    if "params" in row.request.model_fields:
        schema = _schema_of_body(document()["paths"][row.path]["post"])
        assert schema["properties"]["job_type"]["enum"] == list(TYPES)
        told = [
            (one["properties"]["job_type"]["const"], one["properties"]["params"]) for one in schema["oneOf"]
        ]
        assert [name for name, _ in told] == list(TYPES)
        for name, params in told:
            fields = {field.alias or key for key, field in TYPES[name].params.model_fields.items()}
            assert set(_resolved(params["$ref"])["properties"]) == fields


@operations
def test_a_field_of_the_path_is_not_asked_for_again_in_the_body(row: Operation) -> None:
    described = document()["paths"][row.path][row.method.lower()]
    in_path = set(re.findall(r"\{(\w+)\}", row.path))
    if "requestBody" in described:
        assert in_path & set(_schema_of_body(described).get("required", [])) == set()


def _schema_of_body(described: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = described["requestBody"]["content"]["application/json"]["schema"]
    return _resolved(schema["$ref"]) if "$ref" in schema else schema


def test_the_openapi_document_tells_which_fields_take_null() -> None:
    """Of requests, of what they are made of, and of the types of jobs."""
    models = [
        kind for kind in _subclasses(schemas.Request) if kind.__name__ in document()["components"]["schemas"]
    ]
    assert {schemas.ChatRequest, schemas.EmbedRequest, schemas.RerankRequest, schemas.Message} <= set(models)
    for kind in models:
        schema = {"$ref": f"#/components/schemas/{kind.__name__}", "components": document()["components"]}
        validator = jsonschema_rs.validator_for(schema)
        for name in _resolved(schema["$ref"])["properties"]:
            try:
                kind.model_validate({name: None})
                found = set()
            except ValidationError as error:
                found = {item["loc"][:1] for item in error.errors()}
            told = {tuple(error.instance_path)[:1] for error in validator.iter_errors({name: None})}
            assert ((name,) in told) == ((name,) in found), (kind, name)


def test_the_openapi_document_tells_that_names_have_to_fit_their_pattern() -> None:
    with_patterns = list(_with_patterns(document()["components"]["schemas"]))
    assert with_patterns
    assert all(one["additionalProperties"] is False for one in with_patterns)


def _with_patterns(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict) and "patternProperties" in node:
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _with_patterns(child)


def _subclasses(kind: type[schemas.Request]) -> Iterator[type[schemas.Request]]:
    for one in kind.__subclasses__():
        yield one
        yield from _subclasses(one)


def test_every_reference_in_the_openapi_document_resolves() -> None:
    references = set(_references(document()))
    assert references
    for reference in references:
        _resolved(reference)


def test_the_openapi_document_is_whole() -> None:
    whole = document()
    assert whole["openapi"].startswith("3.1.")
    assert whole["info"].items() >= {"title": "llmbackend", "version": llmbackend.__version__}.items()
    routes = [(method.upper(), path) for path, item in whole["paths"].items() for method in item]
    assert sorted(routes) == sorted((row.method, row.path) for row in OPERATIONS.values())
    for requirement in whole["security"]:
        assert requirement.keys() <= whole["components"]["securitySchemes"].keys()
    codes = whole["components"]["schemas"]["Error"]["properties"]["error"]["properties"]["code"]["enum"]
    assert codes == sorted(getattr(errors, name).code for name in errors.__all__ if name[0].isupper())


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for child in node.values():
            yield from _references(child)
    elif isinstance(node, list):
        for child in node:
            yield from _references(child)


def _resolved(reference: str) -> dict[str, Any]:
    assert reference.startswith("#/")
    node: Any = document()
    for part in reference.removeprefix("#/").split("/"):
        node = node[part]
    assert isinstance(node, dict)
    return node


@operations
def test_an_operation_has_a_contract_test(row: Operation) -> None:
    written = [path.read_text() for path in (ROOT / "tests" / "contract").glob("*.py")]
    assert any(re.search(rf"\.{row.name}\(", text) for text in written)


# Imports

STOREYS = (
    {
        "",
        "access",
        "errors",
        "schemas",
        "settings",
        "sse",
        "clock",
        "outbound",
        "alike",
        "audit",
        "disk",
        "json_reading",
        "importing",
        "json_writing",
        "llamaindex_import",
        "logs",
        "otel",
        "panics",
        "pipeline",
        "plugins",
        "precedence",
        "privacy",
        "prompts",
        "progress",
        "backoff",
        "storage",
        "text",
        "slices",
        "threads",
        "tracing",
        "turns",
        "usage",
        "vitals",
    },
    {"engines", "files", "inference"},
    {"chunks"},
    {"knowledge"},
    {"answers"},
    {"analysis", "dependencies", "doctor", "llamaindex", "responses"},
    {"jobs", "backup"},
    {"job_types"},
    {"agents"},
    {"model_list"},
    {"compose"},
    {"health"},
    {"backend"},
    {"operations"},
    {"local", "server", "sklearn", "worker_process", "restore"},
    {"async_client", "async_local", "async_transports", "notebook"},
    {"cli", "demo", "__main__"},
)
# Within knowledge/, the same of its folders.
KNOWLEDGE = (
    {"collections"},
    {"ingest", "retrieval"},
)
STOREY = {room: number for number, rooms in enumerate(STOREYS) for room in rooms}
MODULES = sorted(PACKAGE.rglob("*.py"))

modules = _each({str(path.relative_to(PACKAGE)): path for path in MODULES})


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def _imports(path: Path) -> Iterator[str]:
    """Every module imported in a file of the package, wherever in the file, by its full name."""
    package = [*path.relative_to(ROOT).parent.parts]
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = base + (node.module.split(".") if node.module else [])
            if base == ["llmbackend"]:  # a module of the package, or a name in its __init__
                for alias in node.names:
                    is_module = alias.name in STOREY
                    yield f"llmbackend.{alias.name}" if is_module else "llmbackend"
            else:
                yield ".".join(base)


@modules
def test_imports_go_down_only(path: Path) -> None:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    room = "" if parts == ("__init__",) else parts[0]
    assert room in STOREY, "a new room needs a storey"
    for name in _imports(path):
        if name.split(".")[0] == "llmbackend":
            other = ".".join(name.split(".")[1:2])
            assert other in STOREY, name
            if room == "" and other in ("async_client", "notebook"):
                continue  # imported once it is asked for
            assert STOREY[other] <= STOREY[room], f"{room or 'llmbackend'} imports {name}, which is above it"


def test_imports_within_knowledge_go_down_only() -> None:
    storey = {folder: number for number, folders in enumerate(KNOWLEDGE) for folder in folders}
    for path in MODULES:
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] != "knowledge" or parts[1] == "__init__":
            continue
        for name in _imports(path):
            _, _, inside = name.partition("llmbackend.knowledge.")
            if inside and (other := inside.split(".")[0]) != parts[1]:
                assert storey[other] < storey[parts[1]], f"knowledge/{parts[1]} imports {name}"


def test_every_storey_is_there() -> None:
    rooms = {path.relative_to(PACKAGE).with_suffix("").parts[0] for path in MODULES} - {"__init__"}
    assert rooms | {""} == set(STOREY)


def test_the_sdk_imports_the_standard_library_requests_and_dotenv_only() -> None:
    tree = ast.parse(SDK.read_text())
    found: set[tuple[str, str]] = set()
    for function, node in _with_function(tree, ""):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "the file stands alone"
            names = [node.module or ""]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "_library":
            names = [ast.literal_eval(node.args[0]).partition(".")[0]]
        found |= {(function, name) for name in names if name.split(".")[0] not in sys.stdlib_module_names}
    optional = {
        "charset_normalizer",  # as requests brings it along
        "numpy",
        "pandas",
        "polars",
        "pyarrow",
        "tqdm",
        "llmbackend",
        "llmbackend.importing",
        "llmbackend.local",
        "llmbackend.llamaindex",
        "llmbackend.notebook",
    }
    assert {name for _, name in found} == {"requests", "requests.utils", "dotenv", *optional}
    assert {function for function, name in found if name == "llmbackend.local"} == {"_local_transport"}
    assert {function for function, name in found if name == "llmbackend.llamaindex"} == {"llamaindex"}
    assert "" not in {function for function, _ in found}, "all of them where they are needed"


def _with_function(node: ast.AST, function: str) -> Iterator[tuple[str, ast.AST]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue  # read by type checkers only
        yield function, child
        inside = child.name if isinstance(child, ast.FunctionDef) else function
        yield from _with_function(child, inside)


def test_what_is_imported_is_declared() -> None:
    """What a user installs is what the package needs: nothing of it comes along with the developers' tools only."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [
        line for name, lines in project["optional-dependencies"].items() if name != "dev" for line in lines
    ]
    declared = {
        re.split(r"[\[<>=;! ]", line)[0].lower().replace("_", "-")
        for line in project["dependencies"] + extras
    }
    distributions = packages_distributions()
    for path in MODULES:
        for name in _imports(path):
            top = name.split(".")[0]
            if top in sys.stdlib_module_names or top in ("llmbackend", "llm_client", ""):
                continue
            of = {one.lower().replace("_", "-") for one in distributions.get(top, [top])}
            assert of & declared, f"{path.relative_to(ROOT)} imports {name}, of {of}"


@modules
def test_models_have_types_not_texts_of_types(path: Path) -> None:
    """pydantic compiles and evaluates each text: a fifth of the time that the models of requests take to import."""
    if path.parent == PACKAGE / "schemas" or path == PACKAGE / "settings.py":
        assert "__future__" not in set(_imports(path))


@modules
def test_only_settings_reads_the_environment(path: Path) -> None:
    if path in (PACKAGE / "settings.py", PACKAGE / "privacy.py"):  # which says what processes are given of it
        return
    if path == PACKAGE / "llamaindex_import.py":  # names a folder to tiktoken
        return
    tree = _tree(path)
    passed_on = set()
    if path == PACKAGE / "demo" / "__init__.py":  # {**os.environ, …} for the server it starts
        for node in ast.walk(tree):
            if isinstance(node, ast.Dict):
                spread = [value for key, value in zip(node.keys, node.values, strict=True) if key is None]
                passed_on |= {id(value) for value in spread}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and id(node) not in passed_on:
            assert node.attr not in ("environ", "environb", "getenv"), f"line {node.lineno}"
        if isinstance(node, ast.ImportFrom) and node.module in ("os", "dotenv"):
            names = {alias.name for alias in node.names}
            assert not names & {"environ", "environb", "getenv", "dotenv_values", "load_dotenv"}


@modules
def test_only_threads_starts_work_in_threads_of_a_pool(path: Path) -> None:
    """Each call names what it waits for (threads.py): in a pool for all, those that hang would stop everything."""
    if path == PACKAGE / "threads.py":
        return
    pools = {"to_thread", "from_thread", "run_in_executor", "run_in_threadpool", "ThreadPoolExecutor"}
    for node in ast.walk(_tree(path)):
        named = {getattr(node, "attr", None), getattr(node, "id", None)}
        if isinstance(node, ast.Import | ast.ImportFrom):
            named = {part for alias in node.names for part in alias.name.split(".")}
        assert not named & pools, f"line {getattr(node, 'lineno', '?')}"


@modules
def test_a_transaction_that_writes_says_so_when_it_begins(path: Path) -> None:
    """By `transaction()`: SQLite refuses at once what reads first and writes after another has written."""
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Attribute) and node.attr == "begin":
            assert not ast.unparse(node.value).endswith("engine"), f"line {node.lineno}"


# What is exported


def test_all_is_what_is_exported() -> None:
    exported = {
        name
        for name, value in vars(llmbackend).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType) and name != "annotations"
    }
    lazy = {"AsyncAgentStream", "AsyncAnswerStream", "AsyncLLMBackendClient", "AsyncReplyStream"}
    assert all(inspect.isclass(getattr(llmbackend, name)) for name in lazy)
    assert sorted(llmbackend.__all__) == sorted(exported | lazy | {"__version__"})


def test_all_of_the_sdk_names_each_of_its_public_classes() -> None:
    own = {
        name
        for name, value in vars(llm_client).items()
        if inspect.isclass(value) and value.__module__ == "llm_client" and not name.startswith("_")
    }
    assert llm_client.__all__ == sorted(own)


def test_every_error_can_be_imported_from_the_package() -> None:
    for name in llm_client.__all__:
        value = getattr(llm_client, name)
        if inspect.isclass(value) and issubclass(value, LLMBackendError):
            assert getattr(llmbackend, name) is value
            assert getattr(errors, name) is value


def test_the_version_is_the_newest_in_the_changelog() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    source = (ROOT / project["tool"]["hatch"]["version"]["path"]).read_text()
    assert f'__version__ = "{llmbackend.__version__}"' in source
    newest = re.search(r"^## \[?v?(\d[\w.+-]*)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == llmbackend.__version__
