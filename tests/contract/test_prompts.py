"""What models are told, on both transports."""

from __future__ import annotations

import re
from pathlib import Path

from llmbackend import LLMBackendClient

PAGE = Path(__file__).parents[2] / "docs" / "prompts.md"


def test_prompts_are_listed_with_their_versions(client: LLMBackendClient) -> None:
    told = {one.name: one for one in client.prompts()}
    assert {"answer", "standalone", "file_search", "schema", "key_points", "researcher"} <= told.keys()
    answer = told["answer"]
    assert (answer.version, answer.collection, answer.own) == ("1", None, False)
    assert "Use only what the passages say" in answer.text


def test_the_page_lists_every_prompt(client: LLMBackendClient) -> None:
    rows = [
        line.split("|")[1] for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")
    ]
    assert {name for row in rows for name in re.findall("`(.+?)`", row)} == {
        one.name for one in client.prompts()
    }
