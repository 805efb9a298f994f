"""schemathesis against a server of our own with a fake model server behind it: `make fuzz`.

Arguments are schemathesis's, such as `--phases fuzzing -n 50`; SECONDS in the environment ends it earlier.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.server import KEY, serving
from tests.upstream.fake import KEY as MODEL_KEY
from tests.upstream.fake import running


def main() -> int:
    with tempfile.TemporaryDirectory() as folder, running() as upstream:
        models = {"openai_base_url": upstream.url, "openai_api_key": MODEL_KEY, "chat_model": "ok"}
        with serving(Path(folder), api_key=KEY, log_level="error", upstream_timeout=5, **models) as server:
            command = [
                os.environ.get("SCHEMATHESIS", "schemathesis"), "run", f"{server.url}/openapi.json",
                "--checks", "all", "--header", f"Authorization: Bearer {KEY}", "--continue-on-failure",
                "--request-timeout", "30", "--no-color", *sys.argv[1:],
            ]  # fmt: skip
            fuzzing = subprocess.Popen(command)
            try:
                return fuzzing.wait(float(os.environ.get("SECONDS", "600")))
            except subprocess.TimeoutExpired:
                fuzzing.send_signal(signal.SIGINT)  # it reports what it has found so far
                return fuzzing.wait(60)


if __name__ == "__main__":
    sys.exit(main())
