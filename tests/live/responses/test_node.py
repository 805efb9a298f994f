"""openai-node and the AI SDK with its default OpenAI provider, of which `make test-clients` installs both."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.live.conftest import needs
from tests.live.responses.conftest import Served

pytestmark = [pytest.mark.live, *needs("NODE_CLIENTS")]
SCRIPT = Path(__file__).with_name("clients.mjs")
EXACT = {
    "openai parse": "Paris",
    "openai function": "At nine.",
    "openai error": "truncation",
    "ai object": "Paris",
    "ai function": "At nine in Aldersea.",
    "ai function streamed": "At nine in Aldersea.",
    "ai error": "404",
}
"""What comes of the embedded model; of any, what it says is not judged."""


@pytest.mark.timeout(3000)
def test_clients_of_node(served: Served) -> None:
    told = subprocess.run(
        ["node", SCRIPT, served.url, served.model],
        cwd=os.environ["NODE_CLIENTS"],
        capture_output=True,
        text=True,
        timeout=2900,
        check=True,
    )
    found = [json.loads(line) for line in told.stdout.splitlines()]
    assert len(found) == 13
    assert [one for one in found if not one.get("gave")] == []
    if served.embedded:
        gave = {one["name"]: one["gave"] for one in found}
        assert {name: gave[name] for name in EXACT} == EXACT
        assert "28 days" in gave["ai search"]
