"""Jobs with large params: what is done with them is done in slices, between which others use the interpreter."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from pydantic import BaseModel

from llmbackend import json_reading, slices
from llmbackend.job_types.built_in import BatchEmbedParams
from llmbackend.jobs import registry
from llmbackend.jobs.ledger import NewJob, fingerprint
from llmbackend.jobs.registry import TYPES, JobType

LARGE = 4 * 2**20  # characters: some pieces


@pytest.fixture
def given_way(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    given: list[None] = []
    monkeypatch.setattr(slices, "give_way", lambda: given.append(None))
    return given


@pytest.mark.parametrize("letter", ["a", "é", "😀", '"', "\\", "\n"])
def test_a_fingerprint_is_that_of_earlier_versions_and_made_in_slices(
    letter: str, given_way: list[None]
) -> None:
    params = json.dumps({"texts": [letter * LARGE]}, ensure_ascii=False)
    job = NewJob("batch_embed", params, priority=3, depends_on=("b", "a"))
    as_before = json.dumps(["batch_embed", params, 3, ["a", "b"]])
    assert fingerprint(job) == hashlib.sha256(as_before.encode()).hexdigest()
    assert len(given_way) >= LARGE // 2**18


def test_large_params_are_parsed_in_slices(given_way: list[None]) -> None:
    texts = [f"Text {number}: é😀\\n" for number in range(200_000)]
    written = BatchEmbedParams(texts=texts).as_json()
    given_way.clear()
    parsed = registry.parsed(TYPES["batch_embed"], written)
    assert isinstance(parsed, BatchEmbedParams)
    assert parsed.texts == texts
    assert len(given_way) >= len(written) // json_reading.PIECE


def test_params_of_a_projects_own_are_read_as_they_were_written() -> None:
    class Own(BaseModel):
        items: set[str]

    async def run(context: Any, params: Any) -> None: ...

    given = Own(items={str(number) for number in range(registry.LARGE)})
    assert registry.parsed(JobType("own", Own, run), given.model_dump_json()) == given
