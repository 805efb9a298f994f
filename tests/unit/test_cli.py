"""The command, as a terminal sees it."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import pytest
import typer
from typer.main import get_group

from llmbackend.cli import commands
from llmbackend.operations import OPERATIONS
from tests.server import KEY, PLUGIN, python

# Nobody listens there.
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def _run(*arguments: str | Path, data_dir: Path | None = None, **variables: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `llmbackend` with some arguments."""
    if data_dir is not None:
        variables["LLMBACKEND_DATA_DIR"] = str(data_dir)
    process = python(
        ["-m", "llmbackend", *map(str, arguments)], cwd=Path.cwd(), **{"COLUMNS": "80", **variables}
    )
    said, errors = process.communicate(timeout=60)
    return process.returncode, said, errors


def test_help_lists_the_commands() -> None:
    code, said, _ = _run("--help")
    assert code == 0
    for command in (
        "serve",
        "demo",
        "chat",
        "ingest",
        "query",
        "evaluate",
        "jobs",
        "doctor",
        "models",
        "openapi",
    ):
        assert f" {command} " in said


def test_every_command_of_every_module_is_listed() -> None:
    folder = Path(commands.__file__).parent
    modules = [path.stem for path in folder.glob("*.py") if "\ndef add_to(" in path.read_text()]
    assert set(commands.MODULES) == set(modules)
    for module, names in commands.MODULES.items():
        made = typer.Typer()
        import_module(f"llmbackend.cli.{module}").add_to(made)
        assert tuple(get_group(made).commands) == names


def test_openapi_prints_the_document() -> None:
    code, said, errors = _run("openapi")
    assert (code, errors) == (0, "")
    assert {item["operationId"] for path in json.loads(said)["paths"].values() for item in path.values()} == (
        set(OPERATIONS)
    )


def test_models_are_listed(data_dir: Path, models_dir: Path) -> None:
    code, said, errors = _run("models", data_dir=data_dir, LLMBACKEND_MODELS_DIR=str(models_dir))
    assert (code, errors) == (0, "")
    assert "SmolLM2-135M-Instruct" in said
    assert "wordllama" in said


def test_files_are_ingested_and_asked(data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "manual").mkdir()
    (tmp_path / "manual" / "reset.md").write_text(
        "# Reset\n\nThe router is reset by holding its red button for ten seconds.\n"
    )
    (tmp_path / "warranty.txt").write_bytes(
        "The warranty covers damages (Schäden) for two years.\n\n".encode() + b"\xff"
    )
    (tmp_path / "broken.txt").write_bytes(b"\xff\xfe\xfa")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\0")
    code, said, errors = _run("ingest", "manual", tmp_path, data_dir=data_dir)
    assert (code, errors.strip()) == (1, ""), "something failed"
    rows = {
        cells[0]: cells[1] for line in said.splitlines() if len(cells := line.strip("│┃ ").split("│")) == 2
    }
    rows = {name.strip(): value.strip() for name, value in rows.items()}
    assert rows["added"] == "2"
    assert rows["failed"].startswith("picture.png: unsupported type .png")
    assert "broken.txt: binary" in said
    assert rows["warnings"].startswith("warranty.txt: 1 place is not UTF-8")

    code, said, errors = _run("query", "manual", "How is the router reset?", data_dir=data_dir)
    assert (code, errors) == (0, "")
    assert "red button" in said
    assert "[1] manual/reset.md" in said
    for part, name in (("retriever", "none"), ("postprocessor", "age")):
        code, _, errors = _run("query", "manual", "How?", f"--{part}", name, data_dir=data_dir)
        assert code == 1
        assert f"no {part} '{name}'" in errors


def test_names_are_shown_as_they_are(data_dir: Path, tmp_path: Path) -> None:
    name = "notes [v1] [bold] :bug:.xyz"
    (tmp_path / name).write_bytes(b"\0")
    code, said, errors = _run("ingest", "manual", tmp_path / name, data_dir=data_dir)
    assert (code, errors.strip()) == (1, "")
    assert f"{name}: unsupported type" in said


def test_texts_steer_no_terminal(data_dir: Path, tmp_path: Path) -> None:
    text = (
        "The ferry\x1b]8;;http://evil.test/\x1b\\\x9b31m leaves\u202e at \x1b[2Jseven o'clock in the morning."
    )
    (tmp_path / "ferry.txt").write_text(text, encoding="utf-8")
    _run("ingest", "steered", tmp_path, data_dir=data_dir)
    code, said, _ = _run("query", "steered", "When does the ferry leave?", data_dir=data_dir)
    assert (code, "seven o'clock" in said) == (0, True)
    assert not set("\x1b\x9b\u202e") & set(said)
    code, _, said = _run("query", "no\x1b[2Jsuch", "When does the ferry leave?", data_dir=data_dir)
    assert (code, "\x1b" in said) == (1, False)


def test_a_collection_is_evaluated(data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "reset.md").write_text("The router is reset by holding its red button for ten seconds.\n")
    (tmp_path / "ports.md").write_text("The router has four LAN ports and one for fibre.\n")
    assert _run("ingest", "router", tmp_path, data_dir=data_dir)[0] == 0
    questions = tmp_path / "questions.jsonl"
    right = {"question": "How is the router reset?", "gold": "reset.md", "note": "more may be there"}
    wrong = {"question": "Which ports are there for fibre?", "gold": ["reset.md"]}
    questions.write_text("\n".join(map(json.dumps, [right, wrong])) + "\n\n")
    code, said, errors = _run("evaluate", "router", questions, "--k", "1", data_dir=data_dir)
    assert (code, errors.strip()) == (0, "")
    rows = {cells[1].strip(): cells[2:-1] for line in said.splitlines() if len(cells := line.split("│")) == 7}
    assert [float(cell) for cell in rows["hybrid"][:3]] == [0.5, 0.5, 0.5]
    assert "Which ports are there for fibre?  reset.md: not in 1, first is ports.md" in said

    questions.write_text('{"question": "How?"}\n')
    code, _, errors = _run("evaluate", "router", questions, data_dir=data_dir)
    assert code == 2
    assert "line 1" in errors
    assert "Traceback" not in errors


def test_what_cannot_be_read_is_not_removed_for_that(data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("This text is kept.")
    (tmp_path / "other.txt").write_text("This text stays readable.")
    assert _run("ingest", "synced", tmp_path, data_dir=data_dir)[0] == 0
    (tmp_path / "kept.txt").write_bytes(b"\xff\xfe\xfa")
    (tmp_path / "other.txt").unlink()
    (tmp_path / "new.txt").write_text("This text is new.")
    code, said, _ = _run("ingest", "synced", tmp_path, "--sync", "--plan", data_dir=data_dir)
    assert code == 1
    assert "tokens" in said
    assert "other" in _run("query", "synced", "Which text stays readable?", data_dir=data_dir)[1]
    code, said, _ = _run("ingest", "synced", tmp_path, "--sync", data_dir=data_dir)
    assert code == 1
    assert "kept.txt: " in said
    assert "other" not in _run("query", "synced", "Which text stays readable?", data_dir=data_dir)[1]
    assert "kept" in _run("query", "synced", "Which text is kept?", data_dir=data_dir)[1]


def test_the_doctor_shows_each_part(data_dir: Path, models_dir: Path) -> None:
    code, said, errors = _run("doctor", data_dir=data_dir, LLMBACKEND_MODELS_DIR=str(models_dir))
    assert (code, errors) == (0, "")
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in said.splitlines() if "│" in line]
    assert [(row[0], row[-1]) for row in rows if row[0]] == [
        ("chat", "ok"),
        ("judge", "ok"),
        ("embeddings", "ok"),
        ("data", "ok"),
        ("files", "ok"),
        ("plugins", "ok"),
    ]
    assert "SmolLM2-135M-Instruct" in "".join(row[2] for row in rows)


def test_the_doctor_tells_what_to_do_and_exits_with_1(data_dir: Path) -> None:
    key = "sk-s3cret-value"
    code, said, errors = _run("doctor", data_dir=data_dir, VLLM_URL=NOWHERE, VLLM_API_KEY=key)
    assert (code, errors) == (1, "")
    assert (
        said.splitlines()[-1] == f"chat: vLLM at {NOWHERE}/v1 cannot be reached, or broke off: is it running?"
    )
    assert key not in said


def test_the_doctor_examines_a_server(server_url: str) -> None:
    code, said, errors = _run("doctor", "--url", server_url, "--key", KEY)
    assert (code, errors) == (0, "")
    for part in ("chat", "judge", "embeddings", "data", "files", "plugins"):
        assert f"│ {part} " in said
    assert said.count("│ ok │") >= 6  # and one more for each limit that another test leaves
    code, _, errors = _run("doctor", "--url", NOWHERE)
    assert code == 1
    assert errors.startswith("transport: ")


def test_an_unknown_collection_is_one_line_and_exit_code_1(data_dir: Path) -> None:
    code, said, errors = _run("query", "nope", "anything?", data_dir=data_dir)
    assert (code, said.strip()) == (1, "")
    assert errors.startswith("not_found: ")
    assert "'nope'" in errors
    assert errors.count("\n") == 1, errors


def test_a_long_error_is_one_line_too() -> None:
    code, _, errors = _run("models", "--url", "ftp://" + "example." * 12 + "com")
    assert code == 1
    assert errors.count("\n") == 1, errors


@pytest.mark.parametrize("said", ["[embedded]", "[/embedded]"])
def test_brackets_in_an_error_are_shown_as_they_are(said: str) -> None:
    code, _, errors = _run("models", "--url", f"ftp://{said}")
    assert code == 1
    assert "Traceback" not in errors
    assert said in errors


def test_a_server_that_does_not_answer_is_told() -> None:
    code, _, errors = _run("jobs", "--url", NOWHERE)
    assert code == 1
    assert errors.startswith("transport: ")
    assert NOWHERE in errors
    assert "Traceback" not in errors


def test_a_folder_without_files_is_told(data_dir: Path, tmp_path: Path) -> None:
    code, _, errors = _run("ingest", "manual", tmp_path, data_dir=data_dir)
    assert code == 1
    assert "there are no files" in errors
    assert "Traceback" not in errors


def test_wrong_settings_are_told_without_a_traceback(data_dir: Path) -> None:
    code, _, errors = _run("serve", data_dir=data_dir, LLMBACKEND_PORT="s3cret-value")
    assert code == 1
    assert errors.startswith("invalid_request: ")
    assert "PORT" in errors
    assert "s3cret-value" not in errors


def test_serving_beyond_this_machine_without_a_key_is_refused(data_dir: Path) -> None:
    code, _, errors = _run("serve", "--host", "0.0.0.0", "--port", "0", data_dir=data_dir)
    assert code == 1
    assert "API_KEY" in errors
    assert "Traceback" not in errors


def test_an_agent_is_run_and_the_agents_are_listed(data_dir: Path, models_dir: Path) -> None:
    where = {"LLMBACKEND_MODELS_DIR": str(models_dir), "PYTHONPATH": str(PLUGIN)}
    code, said, errors = _run("agent", "run", "halving", "40", data_dir=data_dir, **where)
    assert (code, said, errors) == (0, "5\n", "")
    code, said, _ = _run("agent", "list", data_dir=data_dir, **where)
    assert code == 0
    for name in ("analyst", "contracts", "researcher", "triage"):
        assert name in said
    code, said, errors = _run("agent", "run", "contracts", "--input", "{", data_dir=data_dir, **where)
    assert code == 1
    assert errors.startswith("invalid_request: --input: ")
