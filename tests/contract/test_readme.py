"""The README's examples, word for word, on both transports."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

import llmbackend
from llmbackend import LLMBackendClient

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text(encoding="utf-8")
REMOTE = 'LLMBackendClient(api_url="http://localhost:8888", api_key="your-secure-api-key")'


EXAMPLES = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_examples_run(
    client: LLMBackendClient,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    models_dir: Path,
) -> None:
    assert REMOTE in EXAMPLES[1]

    def connect(api_url: str = "", api_key: str = "") -> LLMBackendClient:
        # Where tests run, port 8888 may be taken: the client under test stands in for the one that is made.
        assert (api_url, api_key) in (("http://localhost:8888", "your-secure-api-key"), ("", ""))
        return client

    monkeypatch.setattr(llmbackend, "LLMBackendClient", connect)
    monkeypatch.setenv(
        "LLMBACKEND_DATA_DIR", str(tmp_path)
    )  # one of them has a client of its own, for `await`
    monkeypatch.setenv("LLMBACKEND_MODELS_DIR", str(models_dir))
    names: dict[str, Any] = {"__name__": "readme"}
    try:
        for example in EXAMPLES:  # all of them, in their order, as somebody does who tries them
            if "llama_index" not in example or os.environ.keys().isdisjoint(("SDK_PYTHON", "ASYNC_CLIENT")):
                # Neither the SDK's file alone nor the client for `await` has LlamaIndex's components.
                exec(compile(example, "README.md", "exec"), names)
        assert len(names["vector"]) == 256
        assert "28 days" in names["answer"]
        assert "RESET button" in names["fix"]
        assert names["report"].unchanged == 2
        printed = capsys.readouterr().out
        assert names["analysis"]["sentiment"] in printed
        assert "Paris" in printed
        assert "4711 Oslo" in printed
        assert {source.collection for source in names["run"].sources} == {"hr_policies", "technical_docs"}
    finally:
        for collection in ("hr_policies", "technical_docs"):
            client.delete_collection(collection)


def test_every_setting_is_documented() -> None:
    from llmbackend.settings import Settings

    told = (DOCS / "settings.md").read_text(encoding="utf-8")
    assert [name.upper() for name in Settings.model_fields if f"`{name.upper()}`" not in told] == []


def test_the_readme_is_read_in_five_minutes() -> None:
    assert len(README.splitlines()) <= 250


def test_links_lead_somewhere() -> None:
    """In the README and in docs/, to files of the repository and to headings of theirs."""
    pages = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
    broken = []
    for page in pages:
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            if not re.match(r"https?:|mailto:", link):
                path, _, heading = link.partition("#")
                there = page.parent / path if path else page
                if not there.exists() or (heading and heading not in _headings(there)):
                    broken.append(f"{page.name}: {link}")
    assert broken == []


def _headings(page: Path) -> set[str]:
    """As GitHub and mkdocs name them in links."""
    found = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def test_every_page_is_in_the_navigation() -> None:
    told = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = {page.name for page in DOCS.glob("*.md")} - {"index.md"}
    assert {name for name in pages if f": {name}\n" not in told} == set()
