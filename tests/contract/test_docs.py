"""Every block of Python and shell in docs/ and in the README is run as it stands, or says why it is not.

`make snippets` does the same in an environment that has only what the README tells to install.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llmbackend import LLMBackendClient, cli
from llmbackend.jobs.registry import TYPES
from llmbackend.plugins import AGENTS, NODE_PARSERS, POSTPROCESSORS, READERS, RETRIEVERS, TOOLS
from llmbackend.settings import Settings
from tests.server import KEY

ROOT = Path(__file__).parents[2]
PAGES = {
    page.name: page.read_text(encoding="utf-8")
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
}
SERVER = "http://localhost:8888"
"""Of which the pages tell; where tests run, it may be somebody else's."""

NOT_RUN = r"<!-- (?:not run|example): (?P<why>[^>]*?) -->\n\n"
BLOCK = re.compile(rf"(?:{NOT_RUN})?^```(?P<language>\w+)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)

HANDBOOK = ["Every employee has 28 days of paid vacation a year.", "Sick leave is reported before nine."]
CONTRACTS = [
    {"id": "a", "text": "The law of Norway governs this contract. The notice period is three months."}
]


def _blocks(page: str, language: str) -> list[str]:
    """Those that are to be run. The README's Python is run by tests/contract/test_readme.py, on both transports."""
    if (page, language) == ("README.md", "python"):
        return []
    return [
        block["code"]
        for block in BLOCK.finditer(PAGES[page])
        if block["language"] == language and not block["why"]
    ]


def _pages(language: str) -> list[str]:
    return [page for page in PAGES if _blocks(page, language)]


def test_every_block_is_in_a_language_that_is_run_or_shown() -> None:
    """`py` would be shown as `python` is, and not be run."""
    told = {block["language"] for text in PAGES.values() for block in BLOCK.finditer(text)}
    assert told <= {"python", "sh", "toml", "yaml", "nginx"}


def _a_collection_of_each(client: LLMBackendClient) -> None:
    for name in ("hr", "hr_old", "hr_policies"):
        client.rag_ingest(HANDBOOK, name)
    client.rag_ingest(CONTRACTS, "contracts")
    Path("contracts").mkdir()
    Path("contracts", "a.txt").write_text(CONTRACTS[0]["text"])


def _files(client: LLMBackendClient) -> None:
    import pandas as pd

    pd.DataFrame({"id": ["a", "b"], "text": HANDBOOK}).to_parquet("export.parquet")
    pd.DataFrame({"text": HANDBOOK}).to_parquet("texts.parquet")
    Path("texts.txt").write_text("\n".join(HANDBOOK))


PREPARED: dict[str, Callable[[LLMBackendClient], None]] = {
    "agents.md": _a_collection_of_each,
    "collections.md": _a_collection_of_each,
    "jobs.md": _a_collection_of_each,
    "pipelines.md": _files,
}


def _without_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the tests have parts of the names that pages give to theirs."""
    for registry in (AGENTS, NODE_PARSERS, POSTPROCESSORS, READERS, RETRIEVERS, TOOLS, TYPES):
        monkeypatch.setattr(registry, "_by", {})
        monkeypatch.setattr(registry, "_parts", dict(registry._parts))
        monkeypatch.setattr(registry, "_acts", list(registry._acts))


@pytest.fixture(scope="module")
def _client(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLMBackendClient]:
    """One in this process, whose core is that of all clients and commands that pages have here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMBACKEND_DATA_DIR", str(tmp_path_factory.mktemp("data")))
        patch.setenv("LLMBACKEND_MODELS_DIR", str(models_dir))
        with LLMBackendClient() as client:
            yield client


@pytest.fixture
def here(
    _client: LLMBackendClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LLMBackendClient]:
    """In an empty folder, with no collections, before and after."""
    monkeypatch.chdir(tmp_path)
    yield _client
    for collection in _client.list_collections():
        _client.delete_collection(collection.name)


@pytest.fixture
def projects(server_url: str) -> Iterator[dict[str, LLMBackendClient]]:
    """A client of each project that pages tell of, with what it has on the server."""
    rights: Any = ["read", "write", "chat", "admin"]
    documents = {"hr": ("policies", HANDBOOK), "support": ("tickets", ["The router does not connect."])}
    with LLMBackendClient(server_url, KEY) as administrator, contextlib.ExitStack() as open_clients:
        administrator.rag_ingest(HANDBOOK, "hr_policies")
        clients, keys = {}, {}
        for project, (collection, texts) in documents.items():
            keys[project] = administrator.create_key(project=project, can=rights)
            clients[project] = open_clients.enter_context(LLMBackendClient(server_url, keys[project].key))
            clients[project].rag_ingest(texts, collection)
        yield clients
        for project, (collection, _) in documents.items():
            clients[project].delete_collection(collection)
            administrator.revoke_key(keys[project].id)
        administrator.delete_collection("hr_policies")


@pytest.mark.parametrize("page", _pages("python"))
def test_the_python_of_a_page_runs(
    page: str, here: LLMBackendClient, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    _without_plugins(monkeypatch)
    names: dict[str, Any] = {"__name__": page.removesuffix(".md"), "client": here}
    PREPARED.get(page, lambda client: None)(here)
    blocks = _blocks(page, "python")
    if page == "projects.md" or any(SERVER in code for code in blocks):
        names |= request.getfixturevalue("projects")
        blocks = [code.replace(SERVER, request.getfixturevalue("server_url")) for code in blocks]
    for code in blocks:
        exec(compile(code, page, "exec"), names)
        names["client"] = here


# The terminal

TYPED = {
    "llmbackend init": "writes settings that the commands after it would read: tests/contract/test_terminal.py",
    "llmbackend serve": "runs until it is stopped: every test over HTTP has one",
    "llmbackend chat": "waits for what somebody types: tests/contract/test_terminal.py",
    "llmbackend restore FILE": "tests/faults/test_backup.py",
    "llmbackend backup": "tests/faults/test_backup.py",
}
"""Commands that are not run from their pages, and what is."""


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("page", _pages("sh"))
def test_the_commands_of_a_page_run(
    page: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("handbook").mkdir()
    Path("handbook", "vacation.md").write_text(HANDBOOK[0])
    Path("handbook", "sick.md").write_text(HANDBOOK[1])
    Path("contract.txt").write_text(CONTRACTS[0]["text"])
    Path("questions.jsonl").write_text('{"question": "Who reports sick leave?", "gold": "sick.md"}')
    Path("staff.csv").write_text("name,about\nAda,She looks after the routers.\n")
    for code in _blocks(page, "sh"):
        for line in _lines(code):
            for command in line.split(" && "):
                _run(command, monkeypatch, capsys)


def _lines(code: str) -> Iterator[str]:
    """Those that a shell reads as one, such as what is quoted over several, come as one."""
    begun = ""
    for line in code.replace("\\\n", "").splitlines():
        begun += line
        with contextlib.suppress(ValueError):
            shlex.split(begun, comments=True)
            yield begun
            begun = ""
    assert not begun, f"a quotation mark is missing: {begun}"


def _run(command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    given, _, then = command.rpartition(" | ")
    words = shlex.split(then, comments=True)
    while words and re.match(r"[A-Z_]+=", words[0]):
        name, _, value = words.pop(0).partition("=")
        assert name.lower() in Settings.model_fields
        Settings(**{name.lower(): value})
    if not words or " ".join(words) in TYPED:
        return
    assert words[0] == "llmbackend", command
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(sys, "stdin", io.StringIO(" ".join(shlex.split(given)[1:])))
    ended: Any = 0
    try:
        cli.main()
    except SystemExit as end:
        ended = end.code
    assert not ended, f"{command}: {capsys.readouterr().err}"
