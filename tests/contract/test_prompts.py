"""What models are told, on both transports."""

from __future__ import annotations

from llmbackend import LLMBackendClient


def test_prompts_are_listed_with_their_versions(client: LLMBackendClient) -> None:
    told = {one.name: one for one in client.prompts()}
    assert {"answer", "standalone", "file_search", "schema", "key_points", "researcher"} <= told.keys()
    answer = told["answer"]
    assert (answer.version, answer.collection, answer.own) == ("1", None, False)
    assert "Use only what the passages say" in answer.text
