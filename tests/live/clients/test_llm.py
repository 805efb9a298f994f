"""The `llm` command on our server, by its extra-openai-models.yaml."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.live.clients.conftest import TOOL, can, offered
from tests.server import KEY

pytest.importorskip("llm", reason="needs llm: run by `make test-clients`")

pytestmark = pytest.mark.live

Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """The command, with a model `ours`; returns what it prints."""
    (tmp_path / "keys.json").write_text(json.dumps({"llmbackend": KEY}))
    model = {
        "model_id": "ours",
        "model_name": offered()[0],
        "api_base": os.environ["OPENAI_BASE_URL"],
        "api_key_name": "llmbackend",
        "supports_schema": True,
        "supports_tools": True,
    }
    (tmp_path / "extra-openai-models.yaml").write_text(json.dumps([model]))  # JSON is YAML
    environment = {**os.environ, "LLM_USER_PATH": str(tmp_path)}

    def command(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "llm", *arguments],
            env=environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return command


@pytest.mark.parametrize("how", [[], ["--no-stream"], ["--async"], ["-s", "Be brief."]], ids=str)
def test_it_prompts(run: Run, how: list[str]) -> None:
    assert run(
        "prompt", "-m", "ours", "Say hello.", "-o", "max_tokens", "30", "-o", "temperature", "0", *how
    ).strip()


def test_it_takes_its_options(run: Run) -> None:
    options = [
        "max_tokens=20",
        "top_p=0.9",
        "seed=1",
        "frequency_penalty=0.1",
        "presence_penalty=0.1",
        "stop=x",
    ]
    arguments = [word for option in options for word in ("-o", *option.split("="))]
    run("prompt", "-m", "ours", "Say hello.", *arguments)


def test_it_goes_on_with_a_conversation_and_counts_tokens(run: Run) -> None:
    run("prompt", "-m", "ours", "Say hello.", "-o", "max_tokens", "10")
    run("prompt", "-c", "And again.", "-o", "max_tokens", "10")
    logged = json.loads(run("logs", "-n", "0", "--json"))
    assert len({one["conversation_id"] for one in logged}) == 1
    assert all(one["input_tokens"] > 0 and one["output_tokens"] > 0 for one in logged)


def test_it_fills_a_schema(run: Run) -> None:
    said = run(
        "prompt", "-m", "ours", "--schema", "positive bool", "Judge: 'a fine day'", "-o", "max_tokens", "60"
    )
    assert isinstance(json.loads(said)["positive"], bool)


def test_it_offers_tools(run: Run) -> None:
    if not can(tools=[TOOL]):
        pytest.skip("this vLLM calls no tools")
    assert run("prompt", "-m", "ours", "-T", "llm_version", "Say hello.", "-o", "max_tokens", "30").strip()
