"""Agents: those that come along with the embedded stack, and a project's own, on both transports."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas
import pytest

from llmbackend import (
    AgentRun,
    BackendError,
    BackendTimeout,
    Conflict,
    InvalidRequest,
    LLMBackendClient,
    NotFound,
)

VACATION = "Every employee has 28 days of paid vacation a year. It is asked for two weeks before."
OLD = "In the old handbook, employees had 25 days of paid vacation a year."


@pytest.fixture(scope="module")
def _made() -> Iterator[dict[int, tuple[LLMBackendClient, list[str]]]]:
    made: dict[int, tuple[LLMBackendClient, list[str]]] = {}
    yield made
    for client, names in made.values():
        for name in names:
            client.delete_collection(name)


@pytest.fixture
def handbooks(client: LLMBackendClient, _made: dict[int, tuple[LLMBackendClient, list[str]]]) -> list[str]:
    """A new handbook and an old one, made once for each transport."""
    if id(client) not in _made:
        names = [f"new-{uuid.uuid4().hex[:8]}", f"old-{uuid.uuid4().hex[:8]}"]
        sick = {"id": "sick", "text": "Sick leave is reported before nine."}
        client.rag_ingest([{"id": "vacation", "text": VACATION}, sick], names[0])
        client.rag_ingest([{"id": "vacation", "text": OLD}], names[1])
        _made[id(client)] = client, names
    return _made[id(client)][1]


def names_of(step: dict[str, Any]) -> list[Any]:
    return [step["name"], *(names_of(one) for one in step["steps"])]


def test_a_question_over_several_collections(client: LLMBackendClient, handbooks: list[str]) -> None:
    run = client.run_agent("How many days of vacation do employees have?", collections=handbooks)
    assert isinstance(run, AgentRun)
    assert str(run) == run.answer
    assert run.status == "completed"
    assert run.found
    assert "28 days" in run.answer
    assert "25 days" in run.answer
    assert "Contradiction:" in run.answer
    by_number = {source.number: source for source in run.sources}
    assert {by_number[number].collection for number in run.citations} == set(handbooks)
    for number in run.citations:
        assert f"[{number}]" in run.answer
    assert "fixed plan" in run.notes[0]
    assert run.trace.name == "researcher"
    assert {"split", "query", "compare"} <= {step.name for step in run.trace.steps}
    assert run.trace.seconds >= max(step.seconds for step in run.trace.steps)


def test_a_collection_that_is_named_twice_is_asked_once(
    client: LLMBackendClient, handbooks: list[str]
) -> None:
    new = handbooks[0]
    run = client.run_agent("When is sick leave reported?", collections=[f"default/{new}", new])
    assert run.answer.count("before nine") == 1
    asked = {"questions": ["When is sick leave reported?"]}
    table = client.run_agent("", agent="analyst", collections=[new, new], input=asked).output
    assert sorted(row.document for row in table.rows) == ["sick", "vacation"]


def test_what_the_documents_do_not_tell_is_not_found(client: LLMBackendClient, handbooks: list[str]) -> None:
    run = client.run_agent("Who discovered the moons of Jupiter?", collections=handbooks)
    assert not run.found
    assert run.status == "completed"


def test_each_thing_that_happens_is_an_event(client: LLMBackendClient, handbooks: list[str]) -> None:
    stream = client.run_agent("How much vacation?", collections=handbooks[:1], stream=True)
    with pytest.raises(Conflict, match="has not ended"):
        _ = stream.run
    events = list(stream)
    kinds = [event.type for event in events]
    assert kinds[0] == "step"
    assert kinds[-2:] == ["text", "done"]
    assert {"tool_call", "tool_result"} <= set(kinds)
    calls = {event.id: event.tool for event in events if event.type == "tool_call"}
    results = {event.id: event.tool for event in events if event.type == "tool_result"}
    assert calls == results
    began = [event.id for event in events if event.type == "step" and event.status == "began"]
    ended = [event.id for event in events if event.type == "step" and event.status == "ended"]
    assert sorted(began) == sorted(ended)
    assert events[-1].run == stream.run
    assert "".join(event.delta for event in events if event.type == "text") == stream.run.answer


def test_agents_and_tools_are_listed_with_their_shapes(client: LLMBackendClient) -> None:
    listed = client.list_agents()
    agents = {one.name: one for one in listed.agents}
    assert not agents["researcher"].own
    assert agents["contracts"].own
    assert agents["contracts"].description == "Finds what contracts say."
    assert agents["contracts"].input["required"] == ["text"]
    assert set(agents["contracts"].output["properties"]) == {"answer", "sources"}
    tools = {one.name: one for one in listed.tools}
    assert {name for name, one in tools.items() if one.writes} >= {"delete_collection", "log_entry"}
    assert tools["tide"].parameters["required"] == ["harbour"]
    assert tools["search"].parameters["properties"]["query"]["maxLength"] == 32_768


def test_a_project_s_own_agent_has_pydantic_in_and_out(
    client: LLMBackendClient, handbooks: list[str]
) -> None:
    run = client.run_agent("", agent="contracts", input={"text": "paid vacation"}, collections=handbooks[:1])
    assert run.output["sources"] == len(run.sources)
    assert run.answer == run.output["answer"]
    assert run.citations == [1]
    for task in ("paid vacation", '{"text": "paid vacation"}'):  # its one text, or its input as JSON
        assert client.run_agent(task, agent="contracts", collections=handbooks[:1]).output == run.output
    with pytest.raises(InvalidRequest, match="at least 3 characters"):
        client.run_agent("", agent="contracts", input={"text": "v"})
    with pytest.raises(InvalidRequest, match="text: is missing"):
        client.run_agent("", agent="contracts")


def test_a_workflow_of_llamaindex_is_an_agent(client: LLMBackendClient) -> None:
    run = client.run_agent("40", agent="halving")
    assert run.answer == "5"
    assert [step.name for step in run.trace.steps] == ["begin", *["halve"] * 4]


def test_chains_call_chains_and_the_trace_is_their_tree(
    client: LLMBackendClient, handbooks: list[str]
) -> None:
    run = client.run_agent("paid vacation", agent="chain", collections=handbooks[:1])
    assert run.answer.startswith("As found: ")
    assert names_of(run.trace) == ["chain", ["first half", ["contracts", ["search"]]]]


@pytest.mark.parametrize("task", ["raise", "hang", "block"])
def test_one_that_raises_or_hangs_is_a_typed_error_that_names_the_step(
    client: LLMBackendClient, task: str
) -> None:
    kind = BackendError if task == "raise" else BackendTimeout
    with pytest.raises(kind) as caught:
        client.run_agent(task, agent="stumbling", max_seconds=0.5 if task != "raise" else 10)
    assert type(caught.value) is kind
    assert caught.value.details["step"] == "stumbling > the stumbling"
    assert "'stumbling'" in caught.value.message
    assert names_of(caught.value.details["trace"]) == ["stumbling", ["the stumbling"]]


def test_an_unknown_agent_or_tool_is_refused_before_anything_happens(client: LLMBackendClient) -> None:
    with pytest.raises(InvalidRequest, match="no agent 'nobody': there are "):
        client.run_agent("hello", agent="nobody")
    with pytest.raises(InvalidRequest, match="no tool 'nothing': there are "):
        client.run_agent("hello", tools=["nothing"])
    with pytest.raises(InvalidRequest, match="no agent 'nobody'"):
        list(client.run_agent("hello", agent="nobody", stream=True))
    with pytest.raises(InvalidRequest, match="no agent 'nobody'"):
        client.submit_job("run_agent", {"task": "hello", "agent": "nobody"})
    with pytest.raises(InvalidRequest, match=r"'reseacher': did you mean 'researcher'\?"):
        client.run_agent("hello", agent="reseacher")
    with pytest.raises(InvalidRequest, match=r"'Serch': did you mean 'search'\?"):
        client.run_agent("hello", tools=["Serch"])
    for misspelt, meant in (("triage", "agent/triage"), ("agent/anlyst", "agent/analyst")):
        with pytest.raises(InvalidRequest, match=rf"no job type {misspelt!r}: did you mean {meant!r}\?"):
            client.submit_job(misspelt, {"task": "hello"})


def test_a_run_is_a_job_and_a_schedule_s_target(client: LLMBackendClient, handbooks: list[str]) -> None:
    params = {"input": {"text": "paid vacation"}, "collections": handbooks[:1]}
    job_id = client.submit_job("agent/contracts", params)
    done = client.wait_for_job(job_id, timeout=30)
    assert done["run_id"] == job_id
    assert done["output"]["sources"] >= 1
    assert [step["name"] for step in done["steps"]] == ["search"]
    with pytest.raises(InvalidRequest, match="at least 3 characters"):
        client.submit_job("agent/contracts", {"input": {"text": "v"}})
    schedule = client.set_schedule("agents", "0 3 1 1 *", "agent/contracts", params)
    assert schedule.job_type == "agent/contracts"
    client.delete_schedule("agents")
    by_name = client.submit_job(
        "run_agent", {"agent": "researcher", "task": "How much vacation?", "collections": handbooks}
    )
    assert "28 days" in client.wait_for_job(by_name, timeout=30)["answer"]


def test_limits_are_told_with_what_was_found(client: LLMBackendClient, handbooks: list[str]) -> None:
    question = "How much vacation is there, and when is sick leave reported?"
    run = client.run_agent(question, collections=handbooks, max_steps=2)
    assert run.status == "stopped"
    assert "limit of 2 steps" in run.notes[-1]
    assert run.usage.steps == 2
    assert run.sources


def test_nothing_waits_for_a_word_on_another_s_run(client: LLMBackendClient) -> None:
    missing = str(uuid.uuid4())
    with pytest.raises(NotFound):
        client.approve(missing)
    with pytest.raises(NotFound):
        client.reject(missing, why="no")
    job_id = client.submit_job("count_words", {"texts": ["a"]})
    client.wait_for_job(job_id, timeout=30)
    with pytest.raises(Conflict, match="does not wait for approval"):
        client.approve(job_id)


def test_the_analyst_reads_a_folder_and_its_table_leaves_as_frame_lines_and_parquet(
    client: LLMBackendClient, tmp_path: Path
) -> None:
    folder = tmp_path / "contracts"
    (folder / "old").mkdir(parents=True)
    (folder / "lease.md").write_text("# Lease\n\nThe notice period is 3 months. The rent is due on Monday.")
    (folder / "old" / "loan.txt").write_text("Either side may end it. The notice period is 12 months.")
    (folder / "photo.png").write_bytes(b"\x89PNG")
    shape = {"properties": {"notice_period": {"type": "integer"}, "document": {"type": "string"}}}
    given = {"schema": shape, "files": folder}
    rows = client.run_agent("", agent="analyst", input=given).table()
    assert {row.document: row.notice_period for row in rows} == {
        "lease.md": 3,
        "old/loan.txt": 12,
        "photo.png": None,
    }
    assert "unsupported type .png" in next(row.error for row in rows if row.document == "photo.png")
    by_job = client.wait_for_job(client.submit_job("agent/analyst", {"input": given}), timeout=60)
    assert AgentRun(by_job).table() == rows
    rows.to_jsonl(tmp_path / "table.jsonl")
    rows.to_parquet(tmp_path / "table.parquet")
    lines = [json.loads(line) for line in (tmp_path / "table.jsonl").read_text().splitlines()]
    read = pandas.read_parquet(tmp_path / "table.parquet")
    for table in (lines, read.to_dict("records"), rows.to_pandas().to_dict("records")):
        quotes = {row["document"]: row["notice_period quote"] for row in table}
        assert quotes["lease.md"] == "The notice period is 3 months."
    assert sorted(path.name for path in tmp_path.iterdir()) == ["contracts", "table.jsonl", "table.parquet"]


def test_the_analyst_takes_what_stands_under_a_heading_and_behind_a_label(client: LLMBackendClient) -> None:
    documents = [
        {
            "id": "headed",
            "text": "# Lease\n\n## Notice period\n\nThree months.\n\n## Deposit\n\nThe tenant pays 500 euros.",
        },
        {"id": "form", "text": "Tenant: Jane Smith\nNotice period: six weeks\nDeposit: 800 euros"},
    ]
    shape = {"properties": {"notice_period": {"type": "string"}, "deposit": {"type": "integer"}}}
    given = {"schema": shape, "documents": documents}
    rows = client.run_agent("", agent="analyst", input=given).table()
    assert [(row.notice_period, row.deposit) for row in rows] == [("Three months.", 500), ("six weeks", 800)]
    assert rows[1]["notice_period quote"] == "Notice period: six weeks"


def test_an_answer_about_one_document_counts_one(client: LLMBackendClient) -> None:
    given = {"questions": ["Notice period?"], "documents": [{"id": "a", "text": "Nothing of that."}]}
    assert client.run_agent("", agent="analyst", input=given).answer == "0 of 1 cell of 1 document are told."


def test_files_that_cannot_be_read_are_told_before_anything_is_sent(
    client: LLMBackendClient, tmp_path: Path
) -> None:
    for files, reason in (
        (tmp_path / "none", "there is no file or folder"),
        (tmp_path, "there are no files"),
    ):
        with pytest.raises(InvalidRequest, match=f"^input.files.*{reason}"):
            client.run_agent("", agent="analyst", input={"questions": ["When?"], "files": files})


def test_the_analyst_tells_which_documents_are_not_there(client: LLMBackendClient, collection: str) -> None:
    client.rag_ingest([{"id": "a", "text": "The fee is 5 EUR."}, {"id": "b", "text": "No fee."}], collection)
    given = {"questions": ["What is the fee?"], "ids": ["a", "nowhere"]}
    rows = client.run_agent("", agent="analyst", collections=[collection], input=given).table()
    told = {row.document: (row.collection, row.error) for row in rows}
    missing = "invalid_request: no document of these collections has this id: list_documents lists them"
    assert told == {"a": (collection, None), "nowhere": (None, missing)}


def test_a_misspelt_field_of_an_agents_input_is_told_which_was_meant(client: LLMBackendClient) -> None:
    with pytest.raises(
        InvalidRequest, match="question: Extra inputs are not permitted: did you mean 'questions'"
    ):
        client.run_agent("", agent="analyst", input={"question": ["When?"]})


def test_another_agents_run_is_its_answer_in_a_text(client: LLMBackendClient, collection: str) -> None:
    client.rag_ingest(["The harbour fee is nine crowns."], collection)
    run = client.run_agent("How much is the harbour fee?", agent="quoting", collections=[collection])
    assert (
        run.answer
        == "They say: " + client.run_agent("How much is the harbour fee?", collections=[collection]).answer
    )
