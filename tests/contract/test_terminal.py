"""The commands, in this process and on a server: the same words, the same output."""

from __future__ import annotations

import io
import json
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from llmbackend import LLMBackendClient, cli
from llmbackend.cli import jobs, shared
from llmbackend.cli.chat_session import ChatSession
from llmbackend.cli.shared import WIDE, print_passage, print_record, print_table
from tests.files import pdf
from tests.server import KEY

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(params=["local", "http"])
def run(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Run]:
    """`llmbackend` with some arguments, and what comes on stdin: exit code, stdout, stderr."""
    where: list[str] = []
    if request.param == "http":
        where = ["--url", request.getfixturevalue("server_url"), "--key", KEY]
    else:
        monkeypatch.setenv("LLMBACKEND_DATA_DIR", str(tmp_path_factory.mktemp("data")))
        monkeypatch.setenv("LLMBACKEND_MODELS_DIR", str(request.getfixturevalue("models_dir")))

    def done(*arguments: str | Path, stdin: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["llmbackend", *map(str, arguments), *where])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        code: Any = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
        said = capsys.readouterr()
        return int(code or 0), said.out, said.err

    if where:
        yield done
    else:
        with LLMBackendClient():  # its core is the commands' as well, and need not be opened for each
            yield done


def _json(ended: tuple[int, str, str]) -> Any:
    code, said, errors = ended
    assert code == 0, errors
    return json.loads(said)


def test_collections_are_filled_searched_moved_and_deleted(run: Run, tmp_path: Path) -> None:
    collection = f"terminal-{uuid.uuid4().hex[:8]}"
    folder = tmp_path / "manual"
    folder.mkdir()
    (folder / "reset.md").write_text("The router is reset by holding its red button.\n")
    (folder / "ports.md").write_text("The router has four LAN ports and one for fibre.\n")
    assert _json(run("ingest", collection, folder, "--json"))["added"] == 2
    hits = _json(run("search", collection, "red button", "--top-k", "1", "--json"))
    assert [hit["document_id"] for hit in hits] == ["reset.md"]
    assert "ports.md" in run("search", collection, "-", stdin="fibre")[1]
    found = _json(run("search", collection, "router", "--filter", '{"source": "ports.md"}', "--json"))
    assert len(found) == 1
    [shown] = [one for one in _json(run("collections", "--json")) if one["name"] == collection]
    assert (shown["documents"], shown["chunks"]) == (2, 2)
    assert collection in run("collections")[1]
    assert "red button" in run("documents", collection, "reset.md")[1]
    answer = _json(run("query", collection, "How is the router reset?", "--json"))
    assert "red button" in answer["text"]
    assert answer["sources"][0]["document_id"] == "reset.md"
    assert "red button" in run("chat", "-", "--collection", collection, stdin="How is the router reset?")[1]

    file = tmp_path / "moved.jsonl"
    assert run("export", collection, file)[0] == 0
    assert _json(run("import", file, "--collection", f"{collection}-2", "--json"))["documents"] == 2
    assert _json(run("reindex", f"{collection}-2", "--json"))["documents"] == 2
    assert _json(run("delete", f"{collection}-2", "reset.md", "--json"))["deleted"] == 1
    left = _json(run("documents", f"{collection}-2", "--json"))
    assert [one["id"] for one in left] == ["ports.md"]
    code, _, errors = run("delete", f"{collection}-2", "--all")
    assert (code, "--yes" in errors) == (2, True), "nobody is there to be asked"
    assert run("delete", f"{collection}-2", "--all", "--yes")[0] == 0
    code, _, errors = run("search", f"{collection}-2", "router", "--json")
    assert (code, json.loads(errors)["error"]["code"]) == (1, "not_found")


def test_texts_are_embedded_and_analyzed(run: Run, tmp_path: Path) -> None:
    vectors = [json.loads(line) for line in run("embed", stdin="one\n\ntwo\n")[1].splitlines()]
    assert [len(vector) for vector in vectors] == [256, 256]
    assert run("embed", "one")[1].splitlines() == [json.dumps(vectors[0])]
    (tmp_path / "text.txt").write_text(
        "The ferry was late again, and the crew was rude. I am very disappointed."
    )
    assert _json(run("analyze", tmp_path / "text.txt", "--json"))["sentiment"] == "negative"
    assert "negative" in run("analyze", "-", stdin="The food was awful and cold. I hated it.")[1]


MANUAL = "The lamp is excellent. Customers love its warm light, and we are very happy with it."


def test_files_are_analyzed_as_ingest_reads_them(run: Run, tmp_path: Path) -> None:
    page = "<html><head><style>p { color: red; kill: 1 }</style></head><body><p>%s</p></body></html>"
    contents: dict[str, bytes] = {
        "manual.html": (page % MANUAL).encode(),
        "manual.pdf": pdf(MANUAL),
        "manual.txt": MANUAL.encode("utf-16"),
    }
    told = []
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        found = _json(run("analyze", tmp_path / name, "--json"))
        told.append((found["sentiment"], found["summary"], found["key_points"]))
    assert told == [told[0]] * len(contents)
    assert told[0][0] == "positive"
    assert "<" not in str(told[0])

    (tmp_path / "lamps.csv").write_text("name;remark\nLumen;Its light is warm.\nVela;Its foot is of oak.\n")
    points = _json(run("analyze", tmp_path / "lamps.csv", "--json"))["key_points"]
    assert all(";" not in point for point in points)


def test_what_cannot_be_read_or_is_left_out_of_an_analysis_is_told(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # short names, which no error's box breaks
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(range(256)))
    code, said, errors = run("analyze", "photo.jpg")
    assert (code, said) == (2, "")
    assert "photo.jpg cannot be read: unsupported type .jpg" in " ".join(errors.replace("│", " ").split())
    message = EmailMessage()
    message["Subject"], message["From"] = "Order", "ada@example.org"
    message.set_content(MANUAL)
    message.add_attachment("The terms are strict.", filename="terms.txt")
    (tmp_path / "order.eml").write_bytes(message.as_bytes())
    code, said, errors = run("analyze", "order.eml")
    assert (code, "positive" in said) == (0, True)
    assert "order.eml: 1 file inside it is left out: " in errors


def test_jobs_are_shown_watched_cancelled_and_tried_again(
    run: Run, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    at = request.getfixturevalue("server_url") if "http" in request.node.name else None
    with LLMBackendClient(at, KEY if at else None) as client:
        job = client.submit_job("batch_embed", {"texts": ["a"]})
        later = client.submit_job("batch_embed", {"texts": ["a"]}, run_at="2035-01-01T00:00:00Z")
        code, said, _ = run("jobs", "watch", job)
        assert (code, "completed" in said) == (0, True)
        assert _json(run("jobs", "show", job, "--json"))["id"] == job
        listed = run("jobs", "--limit", "5")[1]
        assert job in listed
        assert later in listed
        assert _json(run("jobs", "cancel", later, "--json"))["status"] == "cancelled"
        assert run("jobs", "delete", later)[:2] == (0, f"{later} is deleted\n")
        code, _, errors = run("jobs", "show", "nope")
        assert (code, errors.startswith("not_found: ")) == (1, True)


def test_a_watched_job_shows_how_far_it_is_and_what_it_waits_for(
    run: Run, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    steps: list[Any] = []
    watched = LLMBackendClient.job_events

    def waiting(self: Any, job_id: str) -> Iterator[Any]:
        for event in watched(self, job_id):
            event.job["pending"] = [{"tool": "delete_documents", "arguments": {"ids": ["a"]}}]
            yield event

    @contextmanager
    def bar() -> Iterator[Any]:
        yield steps.append

    monkeypatch.setattr(LLMBackendClient, "job_events", waiting)
    monkeypatch.setattr(jobs, "bar", bar)
    at = request.getfixturevalue("server_url") if "http" in request.node.name else None
    with LLMBackendClient(at, KEY if at else None) as client:
        job = client.submit_job("batch_embed", {"texts": ["a"]})
        code, _, errors = run("jobs", "watch", job)
    assert code == 0
    assert (steps[-1].done, steps[-1].total) == (1, 1)
    assert 'waits: delete_documents {"ids": ["a"]}' in errors
    assert f"`llmbackend agent approve {job}`" in errors


def test_an_ingest_that_is_interrupted_tells_how_far_it_came(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text(f"Text {number} is short.")
    whole = LLMBackendClient.rag_ingest_files

    def interrupted(self: Any, *args: Any, progress: Any, **kwargs: Any) -> Any:
        whole(self, *args, progress=progress, **kwargs)
        progress({"stage": "write", "done": 2, "total": 3})
        raise KeyboardInterrupt

    monkeypatch.setattr(LLMBackendClient, "rag_ingest_files", interrupted)
    code, _, errors = run("ingest", f"terminal-{uuid.uuid4().hex[:8]}", tmp_path)
    assert code == 130
    assert "stopped: 2 of 3 files are in; run it again to go on" in errors


def test_agents_are_listed_and_run(run: Run, tmp_path: Path) -> None:
    name = f"contracts-{uuid.uuid4().hex[:8]}"
    (tmp_path / "lease.md").write_text("The notice period is 3 months.")
    assert run("ingest", name, tmp_path / "lease.md")[0] == 0
    listed = {one["name"]: one for one in _json(run("agent", "list", "--json"))}
    assert listed["contracts"]["own"]
    asked = ("agent", "run", "contracts", "--input", '{"text": "notice period"}', "--collection", name)
    code, said, errors = run(*asked)
    assert code == 0
    assert json.loads(said) == {"answer": "The notice period is 3 months. [1]", "sources": 1}
    assert "lease.md" in errors
    questions = '{"questions": ["What is the notice period?"]}'
    table = tmp_path / "table.jsonl"
    asked = (
        "agent",
        "run",
        "analyst",
        "--input",
        questions,
        "--file",
        tmp_path / "lease.md",
        "--table",
        table,
    )
    code, _, errors = run(*asked)
    assert (code, f"{table} has the table: 1 row" in errors) == (0, True)
    [row] = [json.loads(line) for line in table.read_text().splitlines()]
    assert row["What is the notice period? quote"] == "The notice period is 3 months."
    code, _, errors = run("agent", "run", "analyst", "--table", tmp_path / "table.xls")
    assert (code, "neither a .jsonl nor a .parquet" in errors) == (1, True)
    assert run("delete", name, "--all", "--yes")[0] == 0


def test_a_conversation_keeps_what_was_said_and_takes_commands(
    client: LLMBackendClient,
    collection: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client.rag_ingest([{"id": "reset", "text": "The router is reset by holding its red button."}], collection)
    lines = iter(
        [
            "/collection nope-nope",
            f"/collection {collection}",
            "How is the router reset?",
            "/new",
            "/what",
            "/quit",
        ]
    )
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    ChatSession(client, system=None, model=None, collection=None).run()
    said = capsys.readouterr()
    assert "red button" in said.out
    assert "[1] reset" in said.out
    assert "no collection 'nope-nope'" in said.err
    assert "there is no /what" in said.err


def test_messages_name_what_can_be_typed(run: Run) -> None:
    assert (
        cli.shared.as_typed("connect to its server by api_url=..., or")
        == "connect to its server by --url, or"
    )
    code, _, errors = run("search", "nope", "text", "--filter", "[1]")
    assert code == 2
    assert "--filter must be a JSON object" in errors
    code, _, errors = run("search", "nope", "text", "--top-k", "0")
    assert (code, errors.partition(": Input")[0]) == (1, "invalid_request: --top-k")
    code, _, errors = run("usage", "--by", "colour")
    assert (code, errors.partition(": must")[0]) == (1, "invalid_request: --by")


def test_settings_are_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    for code in (None, 1):
        monkeypatch.setattr(sys, "argv", ["llmbackend", "init"])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert end.value.code in ({0, None} if code is None else {1})
    assert "exists already" in capsys.readouterr().err
    text = (tmp_path / ".env").read_text()
    assert (tmp_path / ".env").stat().st_mode & 0o77 == 0
    from llmbackend import settings

    monkeypatch.delenv("LLMBACKEND_API_KEY", raising=False)
    found = settings.load()
    assert found.api_key is not None
    assert f"API_KEY={found.api_key.get_secret_value()}" in text


def test_rows_of_a_table_are_documents(run: Run, tmp_path: Path) -> None:
    collection = f"terminal-{uuid.uuid4().hex[:8]}"
    table = tmp_path / "staff.csv"
    table.write_text("who,says,floor\nada,The router is on the second floor.,2\nbob,Lunch is at noon.,1\n")
    assert _json(run("ingest", collection, table, "--text", "says", "--id", "who", "--json"))["added"] == 2
    assert run("documents", collection, "bob")[1].strip() == "Lunch is at noon."
    code, _, errors = run("ingest", collection, table, "--text", "sys")
    assert (code, "there is no column 'sys'" in errors) == (1, True)
    code, _, errors = run("ingest", collection, table, table, "--text", "says")
    assert (code, "columns of one file" in errors) == (2, True)
    moved = tmp_path / "moved.jsonl"
    run("export", collection, moved)
    code, _, errors = run("import", moved)
    assert (code, "give another name by --collection" in errors) == (1, True)


def test_a_search_that_finds_nothing_says_so(run: Run, tmp_path: Path) -> None:
    name = f"staff-{uuid.uuid4().hex[:8]}"
    (tmp_path / "leave.md").write_text("Sick leave is reported before nine.")
    assert run("ingest", name, tmp_path / "leave.md")[0] == 0
    code, said, errors = run("search", name, "leave", "--filter", '{"source": "no-such.md"}')
    assert (code, said, "nothing was found" in errors) == (0, "", True)
    assert run("delete", name, "--all", "--yes")[0] == 0


def test_the_doctor_lists_all_parts_in_a_pipe(run: Run) -> None:
    checks = _json(run("doctor", "--json"))["checks"]
    code, said, _ = run("doctor")
    assert code == 0
    told = [model for check in checks for model in check["models"]]
    assert len(told) > 5
    assert [model for model in told if model not in said] == []
    assert "…" not in said


def test_what_is_not_there_is_told_in_words(run: Run, tmp_path: Path) -> None:
    code, said, errors = run("analyze", tmp_path / "no-such.txt")
    assert (code, said, "there is no such file" in errors) == (1, "", True)
    for command in (("chat", "-"), ("query", "c", "-"), ("search", "c", "-"), ("analyze", "-")):
        code, said, errors = run(*command, stdin=" \n")
        assert (code, said, "stdin has no text" in errors) == (2, "", True)
    code, said, errors = run("chat", " ")
    assert (code, said, "the message is empty" in errors) == (2, "", True)


def test_a_shell_completes_the_names_of_collections(
    run: Run, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    at = request.getfixturevalue("server_url") if "http" in request.node.name else None
    name = f"completed-{uuid.uuid4().hex[:8]}"
    with LLMBackendClient(at, KEY if at else None) as client:
        client.create_collection(name)
    where = ["--url", at, "--key", KEY] if at else []
    for words in (["search", *where, name[:14]], ["chat", *where, "--collection", name[:14]]):
        monkeypatch.setenv("_LLMBACKEND_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", " ".join(["llmbackend", *words]))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        assert run()[1].split() == [name]
    monkeypatch.setenv("COMP_WORDS", "llmbackend search --url http://127.0.0.1:9 a")
    monkeypatch.setenv("COMP_CWORD", "4")
    code, said, errors = run()
    assert (code, said.strip(), errors) == (0, "", ""), "no server, and nothing is said about it"


ROWS = [("a-document-by-name.txt", "1,200", '{"source": "somewhere/else/entirely.txt", "year": 2026}')]


@pytest.mark.parametrize(("width", "lines"), [(WIDE, 5), (80, 6), (40, None)])
def test_a_table_that_has_no_room_is_a_record_for_each_row(
    width: int, lines: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.StringIO()
    monkeypatch.setattr(shared, "out", Console(file=written, width=width))
    print_table(("id", "chunks", "metadata"), ROWS, "nothing")
    said = written.getvalue().splitlines()
    assert max(map(len, said)) <= width
    assert ROWS[0][0] in written.getvalue(), "the first can be copied"
    assert any("chunks" in line and ("1,200" in line) is (lines is None) for line in said)
    assert lines is None or len(said) == lines


def test_what_is_told_of_many_documents_stands_there_once_in_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    report = {"failed": [{"id": f"{n}.gz", "error": "unsupported type .gz"} for n in range(40)]}
    for terminal, lines in ((True, 1), (False, 40)):
        written = io.StringIO()
        monkeypatch.setattr(shared, "out", Console(file=written, width=200, force_terminal=terminal))
        print_record(report)
        assert written.getvalue().count("unsupported type .gz") == lines
        assert ("35 more" in written.getvalue()) is terminal


def test_columns_are_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(shared, "out", Console(file=written, width=80))
    print_record({"columns": {"id": None, "text": "Kunde", "metadata": ["Ort", "Umsatz"]}})
    told = written.getvalue()
    assert "text: Kunde" in told
    assert "metadata: Ort, Umsatz" in told
    assert "None" not in told
    assert "{" not in told


def test_passages_are_indented_on_every_line(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(shared, "out", Console(file=written, width=40))
    print_passage("The ferry leaves from the pier at nine.\nIt comes back at ten, or later.")
    assert len(said := written.getvalue().splitlines()) == 3
    assert all(line.startswith("    ") and len(line) <= 40 for line in said)
