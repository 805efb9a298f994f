"""In IPython: errors, magics and completion."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from jupyter_client.manager import run_kernel

from llm_client import _NotebookBar
from llmbackend import Answer, Job, LLMBackendClient, NotFound
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings
from tests.access.test_secrets_of_keys import forms


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[InteractiveShell]:
    """A shell with a client that has the collection `harbour_rules`."""
    shell = InteractiveShell()
    settings = Settings(data_dir=tmp_path_factory.mktemp("data"), models_dir=models_dir)
    with LLMBackendClient(transport=LocalTransport(settings)) as client:
        client.rag_ingest(
            [{"id": "a", "text": "Ships may stay at the berth for nine days."}], "harbour_rules"
        )
        shell.user_ns["client"] = client
        shell.run_line_magic("load_ext", "llmbackend")
        yield shell
    shell.reset()


def test_a_cell_is_a_question(shell: InteractiveShell) -> None:
    answer = shell.run_cell("%%ask harbour_rules\nHow long may ships stay\nat the berth?").result
    assert isinstance(answer, Answer)
    assert "nine days" in answer
    assert shell.run_cell("%ask harbour_rules how long may ships stay at the berth").result == answer


@pytest.mark.parametrize("written", ["%ask", "%ask harbour_rules", "%%ask\nHow long?"])
def test_a_question_without_a_collection_or_words_is_told_how(
    shell: InteractiveShell, written: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not shell.run_cell(written).success
    assert "write %%ask and a collection" in capsys.readouterr().out


def test_names_of_collections_are_completed(shell: InteractiveShell) -> None:
    assert "harbour_rules" in shell.complete("har", "%ask har", 8)[1]
    line = 'client["har'
    assert any("harbour_rules" in one for one in shell.complete(None, line, len(line))[1])


def test_an_error_shows_its_message_and_the_caller_s_own_lines(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = 'def ask():\n    return client.rag_query("How long?", "harbour_rule")\n\nask()'
    assert isinstance(shell.run_cell(cell).error_in_exec, NotFound)
    said = capsys.readouterr().out.strip().splitlines()
    message = "NotFound: no collection 'harbour_rule': did you mean 'harbour_rules'?"
    assert said[0] == said[-1] == message
    assert len(said) < 12
    assert "line 2, in ask" in "\n".join(said)
    assert "llm_client.py" not in "\n".join(said)


@pytest.mark.parametrize("mode", ["Context", "Verbose"])
def test_no_cell_shows_a_key_but_the_one_that_asks_for_it(
    shell: InteractiveShell, mode: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.run_line_magic("xmode", mode)
    cells = [
        "made = client.create_key(project='hr', note='HR app'); made",
        "[made]",
        "other = client.rotate_key(made.id); other",
        "client.list_keys()",
        "client.audit()",
        "client.usage(by='key,operation')",
        "from llmbackend import LLMBackendClient; away = LLMBackendClient('http://127.0.0.1:9', made.key); away",
        "away.health()",
        "client.revoke_key(made.key)",
        "client.rag_query(made.key, 'nowhere')",
        "vars(away)",
    ]
    shown = ""
    for cell in cells:
        result = shell.run_cell(cell).result
        shown += "".join(map(str, shell.display_formatter.format(result)[0].values()))
    shown += capsys.readouterr().out
    assert "llmb_hr_" in shown
    for key in (shell.user_ns["made"].key, shell.user_ns["other"].key):
        assert [form for form in forms(key) if form in shown] == []
    shell.run_line_magic("xmode", "Context")


def test_the_notebooks_of_the_project_have_no_secret() -> None:
    notebooks = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
    assert notebooks
    secret = re.compile(
        r"llmb_[A-Za-z0-9_.-]+_[A-Za-z0-9]{8}_[A-Za-z0-9]{8}|\bsk-[A-Za-z0-9_-]{16}|whsec_|Bearer \w"
    )
    for notebook in notebooks:
        assert not secret.findall(notebook.read_text()), notebook.name


def test_a_job_that_is_waited_for_is_drawn_in_place() -> None:
    """As IPython's display shows it: one handle, updated."""
    shown: list[dict[str, Any]] = []

    class Handle:
        def update(self, what: dict[str, Any], raw: bool) -> None:
            shown.append(what)

    bar = _NotebookBar(lambda *args, **kwargs: Handle())
    progress = {"done": 412, "total": 3000, "stage": "embed", "rate": 1210.4, "eta": 124.0}
    bar(Job({"id": "1", "type": "batch_embed", "status": "running", "progress": progress}))
    bar({"done": 3, "total": 7, "stage": "embed", "stages": {"parse": {"done": 5}, "write": {"done": 412}}})
    assert "412 of 3,000 texts, 1,210/s, 2 min left" in shown[0]["text/plain"]
    assert "batch_embed" in shown[0]["text/html"]
    assert shown[1]["text/plain"].endswith("3 of 7 files, 412 chunks")


def test_every_plot_is_shown_by_the_cell_that_makes_it() -> None:
    cell = "from array import array; from llmbackend import Embeddings\nEmbeddings(array('f', [0, 1, 1, 0]), 2).plot();"
    with run_kernel() as kernel:
        for _ in range(2):
            told: list[dict[str, Any]] = []
            kernel.execute_interactive(cell, timeout=100, output_hook=told.append)
            shown = [one["content"]["data"] for one in told if one["msg_type"] == "display_data"]
            assert [set(one) for one in shown] == [{"image/png", "text/plain"}], told
