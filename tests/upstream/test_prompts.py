"""An operator's own prompts, for all or for a collection: what the model is told, and how that is told."""

from __future__ import annotations

from pathlib import Path

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


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("nobody.md", "a text", "is no prompt's"),
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
