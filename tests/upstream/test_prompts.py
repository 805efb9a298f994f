"""An operator's own prompts, for all or for a collection: what the model is told, and how that is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmbackend import InvalidRequest
from llmbackend.prompts import Prompts, built_in
from tests.upstream.conftest import Connect
from tests.upstream.fake import Upstream

TEXT = "Every employee has 28 days of paid vacation a year."


def test_a_prompt_of_the_operator_s_is_used_and_told(
    connect: Connect, upstream: Upstream, tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts"
    of_collection = prompts / "default" / "handbook"
    of_collection.mkdir(parents=True)
    (prompts / "answer.md").write_text("version: 7\n\nAnswer as a sailor, or say {nothing}.\n")
    (of_collection / "answer.md").write_text("Answer in rhymes, or say {nothing}.")
    client = connect(prompts_dir=prompts)
    for collection in ("handbook", "other"):
        client.rag_ingest([TEXT], collection=collection)
    asked = {}
    for collection in ("handbook", "other"):
        answer = client.rag_query("How many vacation days?", collection, explain=True)
        asked[collection] = (upstream.seen[-1]["messages"][0]["content"], answer.explanation.prompt)
    [version] = [one.version for one in client.prompts() if one.collection == "handbook"]
    assert asked == {
        "handbook": ("Answer in rhymes, or say NOT IN THE DOCUMENTS.", f"answer@{version}"),
        "other": ("Answer as a sailor, or say NOT IN THE DOCUMENTS.", "answer@7"),
    }
    assert [(one.collection, one.own) for one in client.prompts() if one.name == "answer"] == [
        (None, True),
        ("handbook", True),
    ]
    client.rag_query("How many vacation days?", ["handbook", "other"])
    assert upstream.seen[-1]["messages"][0]["content"].startswith("Answer as a sailor")


def test_agents_and_analyses_are_told_a_collection_s_own_and_the_trace_names_it(
    connect: Connect, upstream: Upstream, tmp_path: Path
) -> None:
    of_collection = tmp_path / "prompts" / "default" / "handbook"
    of_collection.mkdir(parents=True)
    for name in ("researcher", "analyst", "triage", "key_points", "answer", "standalone"):
        (of_collection / f"{name}.md").write_text(f"version: 9\n\nOwn {name} {{nothing}}.")
    (tmp_path / "prompts" / "sentiment.md").write_text("version: 8\n\nOwn sentiment.")
    client = connect(prompts_dir=tmp_path / "prompts")
    for collection in ("handbook", "other"):
        client.rag_ingest([{"id": "vacation", "text": TEXT}], collection=collection)

    def told(number: int = -1) -> str:
        return str(upstream.seen[number]["messages"][0]["content"])

    def labels(step: Any) -> set[str]:
        return {step.prompt} | {label for one in step.steps for label in labels(one)}

    upstream.replies = [
        _calls("query", question="How much?"),
        "28 days [1].",
        "28 days of paid vacation [1].",
    ]
    run = client.run_agent("How much vacation?", collections=["handbook"])
    assert told(0) == "Own researcher {nothing}."
    assert labels(run.trace) >= {"researcher@9", "answer@9"}
    upstream.replies = ["28 days of paid vacation [1]."]
    run = client.run_agent("How much vacation?", collections=["handbook", "other"])
    assert labels(run.trace) >= {"researcher@1"}
    filled = {"days": {"value": 28, "quote": "28 days"}}
    upstream.replies = [json.dumps(filled)]
    given = {"schema": {"properties": {"days": {"type": "integer"}}}}
    run = client.run_agent("", agent="analyst", collections="handbook", input=given)
    assert (told(), "analyst@9" in labels(run.trace)) == ("Own analyst {nothing}.", True)
    notes = {"key_points": ["Employees have 28 days.", "They are paid."]}
    concluded = {"summary": "Employees have 28 paid days.", "sentiment": "neutral", "strength": "clear"}
    upstream.replies = [json.dumps(notes), json.dumps(concluded)]
    analysis = client.analyze_document(TEXT)
    assert analysis.prompts == ["key_points@1", "sentiment@8"]
    assert told() == "Own sentiment."
    read = _calls("analyze_document", collection="handbook", document_id="vacation")
    upstream.replies = [read, json.dumps(notes), json.dumps(concluded), "Employees have 28 paid days [1]."]
    run = client.run_agent("What is it?", collections=["handbook"], tools=["analyze_document"])
    [step] = [step for step in run.trace.steps if step.kind == "tool"]
    assert step.prompt == "key_points@9, sentiment@8"
    history = [{"role": "user", "content": "How much vacation?"}]
    upstream.replies = ["How much of it is paid?", "28 days [1]."]
    client.rag_query("And paid?", "handbook", history=history)
    assert told(-2).startswith("Own standalone")


def _calls(tool: str, **arguments: Any) -> dict[str, Any]:
    function = {"name": tool, "arguments": json.dumps(arguments)}
    return {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": function}]}


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("nobody.md", "a text", "has no prompt's name"),
        ("answer.md", "a text", "lacks {nothing}"),
        ("standalone.md", "  ", "has no text"),
        ("standalone.md", b"\xff\xfe", "cannot be read"),
    ],
)
def test_what_is_no_prompt_is_refused_at_the_start(
    tmp_path: Path, name: str, text: str | bytes, told: str
) -> None:
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InvalidRequest, match=told):
        Prompts(tmp_path)
    with pytest.raises(InvalidRequest, match="no folder"):
        Prompts(tmp_path / "nothing")


def test_each_that_comes_along_has_a_version() -> None:
    assert {prompt.version for prompt in built_in().values()} == {"1"}
    assert built_in()["schema"].filled(schema='{"a": "{schema}"}').endswith('Schema: {"a": "{schema}"}')
