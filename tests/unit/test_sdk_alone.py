"""The SDK's file copied away from the package: it needs the standard library, requests and python-dotenv only."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.server import KEY

SDK = Path(__file__).parents[2] / "sdk" / "llm_client.py"

PYTHONS = [sys.executable, *filter(None, os.environ.get("SDK_PYTHONS", "").split(os.pathsep))]
"""This Python, and those of other versions that `make test-sdk` has set up."""

# Refuses every import but those the file says it makes, and those of requests itself.
PRELUDE = """
import sys
ALLOWED = getattr(sys, "stdlib_module_names", set()) | {
    "requests", "urllib3", "idna", "certifi", "charset_normalizer", "chardet", "dotenv", "llm_client",
}
class Nothing:
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        # requests' dependencies may have compiled parts beside them, under names such as 6ec5…__mypyc
        if top not in ALLOWED and not top.endswith("__mypyc"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
if hasattr(sys, "stdlib_module_names"):  # from 3.10 on
    for name in [name for name in sys.modules if name.split(".")[0] not in ALLOWED | {"__main__"}]:
        del sys.modules[name]
    sys.meta_path.insert(0, Nothing())
folder, url, key = sys.argv[1:]
sys.path.insert(0, folder)
import llm_client
from llm_client import *
assert llm_client.__file__.startswith(folder), llm_client.__file__
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with nothing but the SDK."""
    shutil.copy(SDK, tmp_path)
    return tmp_path


def _run(
    folder: Path, program: str, url: str = "", python: str = sys.executable, **variables: str
) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if "LLM" not in name}
    done = subprocess.run(
        [python, "-I", "-c", PRELUDE + textwrap.dedent(program), str(folder), url, KEY],
        cwd=folder,
        env={**environment, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("python", PYTHONS, ids=lambda path: Path(path).parent.parent.name)
def test_the_file_alone_does_the_main_job(folder: Path, server_url: str, python: str) -> None:
    program = f"""
        client = LLMBackendClient(url, key)
        name = "alone-{uuid.uuid4().hex[:8]}"
        reply = client.chat("What is the capital of France?", temperature=0, max_tokens=30)
        assert "Paris" in reply, reply
        pieces = client.chat("What is the capital of France?", temperature=0, max_tokens=30, stream=True)
        assert "".join(pieces) == reply
        assert len(client.embed_single("a text")) == 256
        try:
            text = "The router is reset by holding its button for ten seconds."
            report = client.rag_ingest(text, name, progress=True)
            assert report.added == 1, report
            answer = client.rag_query("How is the router reset?", name)
            assert "button" in answer and answer.found and answer.sources[0].number == 1, answer
            job = client.submit_job("batch_embed", {{"texts": ["one", "two", "three"]}})
            result = client.wait_for_job(job, timeout=30)
            assert len(result.embeddings) == 3 and len(result.embeddings[0]) == 256
        finally:
            client.delete_collection(name)
        try:
            client.get_collection(name)
        except NotFound as error:
            assert name in error.message and error.request_id
        else:
            raise AssertionError("it was deleted")
        client.close()
    """
    done = _run(folder, program, server_url, python)
    assert done.stdout == ""
    shown = [line.rstrip() for line in done.stderr.strip().splitlines()]
    assert all(line.startswith(("0 of 1 document", "1 document")) for line in shown), (
        "a bar, and nothing else"
    )
    assert shown[-1].startswith("1 document, 1 chunk")


@pytest.mark.parametrize("python", PYTHONS, ids=lambda path: Path(path).parent.parent.name)
def test_a_conversation_needs_no_package_either(folder: Path, server_url: str, python: str) -> None:
    program = """
        class Colour:
            \"""As a pydantic class, seen from here.\"""
            @classmethod
            def model_json_schema(cls):
                return {"enum": ["red", "blue"]}
            @classmethod
            def model_validate_json(cls, text):
                colour = cls()
                colour.name = text
                return colour

        with open("quay", "wb") as file:
            file.write(b"\\xff\\xd8\\xff and so on")
        with LLMBackendClient(url, key) as client:
            reply = client.chat("Red or blue?", schema=Colour, max_tokens=20)
            assert isinstance(reply.parsed, Colour) and reply.parsed.name in ('"red"', '"blue"'), reply
            assert client.chat("Red or blue?", schema=Colour.model_json_schema(), max_tokens=20).parsed in ("red", "blue")
            assert reply.tool_calls == [] and reply.message == {"role": "assistant", "content": reply}
            try:
                client.chat("What is this?", images=["quay"])
            except LLMBackendError as error:
                assert "reads text only" in error.message, error
            else:
                raise AssertionError("it has no eyes")
    """
    done = _run(folder, program, server_url, python)
    assert (done.stdout, done.stderr) == ("", "")


def test_without_a_server_the_error_tells_both_remedies(folder: Path) -> None:
    program = """
        try:
            LLMBackendClient()
        except TransportError as error:
            print(error)
    """
    said = _run(folder, program).stdout
    assert "api_url" in said
    assert "LLM_BACKEND_URL" in said
    assert "pip install 'llmbackend[embedded]'" in said


def test_a_server_that_is_not_there_is_a_transport_error_with_its_address(folder: Path) -> None:
    program = """
        try:
            LLMBackendClient(url).health()
        except TransportError as error:
            print(error)
    """
    assert "http://127.0.0.1:9" in _run(folder, program, "http://127.0.0.1:9").stdout


def test_dotenv_in_the_working_directory_names_the_server(folder: Path, server_url: str) -> None:
    (folder / ".env").write_text(f"LLM_BACKEND_URL={server_url}\nLLM_BACKEND_API_KEY={KEY}\n")
    program = """
        client = LLMBackendClient()
        assert client.models(), "the key was sent, too"
        print(client)
    """
    assert server_url in _run(folder, program).stdout


ORDER: list[tuple[dict[str, Any], str, str]] = [
    ({}, "", "http://dotenv"),
    ({"LLM_BACKEND_URL": "http://variable"}, "", "http://variable"),
    ({"LLM_BACKEND_URL": "http://variable"}, "http://argument", "http://argument"),
    ({}, "http://argument", "http://argument"),
]


@pytest.mark.parametrize(("variables", "argument", "wins"), ORDER)
def test_an_argument_wins_over_a_variable_and_that_over_dotenv(
    folder: Path, variables: dict[str, str], argument: str, wins: str
) -> None:
    (folder / ".env").write_text("LLM_BACKEND_URL=http://dotenv\n")
    said = _run(folder, "print(LLMBackendClient(url or None))", argument, **variables).stdout
    assert said == f"LLMBackendClient(HttpTransport('{wins}'))\n"


def test_the_key_is_not_shown(folder: Path) -> None:
    assert KEY not in _run(folder, "print(LLMBackendClient(url, key))", "http://127.0.0.1:9").stdout


def test_a_dotenv_that_cannot_be_read_is_an_error_of_ours(folder: Path) -> None:
    (folder / ".env").write_bytes(b"LLM_BACKEND_URL=\xff\xfe\n")
    program = """
        try:
            LLMBackendClient()
        except LLMBackendError as error:
            print(error)
    """
    assert ".env" in _run(folder, program).stdout


@pytest.mark.parametrize("python", PYTHONS)
def test_a_library_that_is_not_there_is_named_with_how_to_install_it(folder: Path, python: str) -> None:
    done = _run(
        folder,
        """
        from array import array
        records, vectors = llm_client._records([{"a": 1}]), llm_client.Embeddings(array("f", [1, 2]), 2)
        for call, package in (
            (records.to_pandas, "pandas"),
            (records.to_polars, "polars"),
            (lambda: records.to_parquet("x.parquet"), "pyarrow"),
            (vectors.numpy, "numpy"),
            (vectors.to_pandas, "pandas"),
        ):
            try:
                call()
            except ModuleNotFoundError as error:
                assert f"pip install {package}" in str(error), error
            else:
                raise AssertionError(package)
        """,
        python=python,
    )
    assert done.returncode == 0, done.stderr
