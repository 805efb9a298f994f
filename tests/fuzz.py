"""schemathesis against a server of our own with a fake model server behind it: `make fuzz`.

Arguments are schemathesis's, such as `--phases fuzzing -n 50`; SECONDS in the environment
is how long it goes on. fuzz.toml and fuzz_hooks.py tell what counts as a fault.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from llmbackend import LLMBackendClient
from tests.server import KEY, serving
from tests.upstream.fake import KEY as MODEL_KEY
from tests.upstream.fake import running

TESTS = Path(__file__).parent


def main() -> int:
    with tempfile.TemporaryDirectory() as folder, running() as upstream:
        upstream.work = 0
        settings = {
            "openai_base_url": upstream.url,
            "openai_api_key": MODEL_KEY,
            "chat_model": "fitting",
            "plugin": None,  # one of its jobs kills the server
            "tei_rerank_url": f"{upstream.url}/ok",
        }
        with serving(Path(folder), api_key=KEY, log_level="error", upstream_timeout=5, **settings) as server:
            with LLMBackendClient(server.url, KEY) as client:  # what is made up is short, and often 0
                client.rag_ingest([{"id": "0", "text": "The harbour was dredged in 1911."}], "0")
            command = [
                os.environ.get("SCHEMATHESIS", "schemathesis"), "--config-file", f"{TESTS / 'fuzz.toml'}",
                "run", f"{server.url}/openapi.json", "--checks", "all", "--header", f"Authorization: Bearer {KEY}",
                "--max-time", os.environ.get("SECONDS", "600"), "--continue-on-failure",
                "--request-timeout", "300", "--no-color", *sys.argv[1:],
            ]  # fmt: skip
            code = subprocess.run(
                command, cwd=TESTS.parent, env={**os.environ, "PYTHONPATH": str(TESTS.parent)}
            ).returncode
        for line in iter(server.process.said.get, None):  # errors of the server
            sys.stderr.write(line)
    return code


if __name__ == "__main__":
    sys.exit(main())
