"""The README's examples, word for word, on both transports."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import llmbackend
from llmbackend import LLMBackendClient

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
REMOTE = 'LLMBackendClient(api_url="http://localhost:8888", api_key="your-secure-api-key")'


def _examples() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_examples_run(
    client: LLMBackendClient,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    models_dir: Path,
) -> None:
    example = next(code for code in _examples() if REMOTE in code)
    awaiting, what_comes_back = _examples()[_examples().index(example) + 1 :][:2]

    def connect(api_url: str, api_key: str) -> LLMBackendClient:
        # Where tests run, port 8888 may be taken: the client under test stands in for the one that is made.
        assert (api_url, api_key) == ("http://localhost:8888", "your-secure-api-key")
        return client

    monkeypatch.setattr(llmbackend, "LLMBackendClient", connect)
    names: dict[str, Any] = {}
    try:
        exec(example, names)
        exec(what_comes_back, names)
        monkeypatch.setenv("LLMBACKEND_DATA_DIR", str(tmp_path))
        monkeypatch.setenv("LLMBACKEND_MODELS_DIR", str(models_dir))
        exec(awaiting, {})
        assert len(names["vector"]) == 256
        assert "28 days" in names["answer"]
        assert "RESET button" in names["fix"]
        assert names["report"].unchanged == 2
        printed = capsys.readouterr().out
        assert names["analysis"]["sentiment"] in printed
        assert "Paris" in printed
    finally:
        for collection in ("hr_policies", "technical_docs"):
            client.delete_collection(collection)


def test_every_setting_is_in_the_readme() -> None:
    from llmbackend.settings import Settings

    missing = [name.upper() for name in Settings.model_fields if f"`{name.upper()}`" not in README]
    assert missing == []
