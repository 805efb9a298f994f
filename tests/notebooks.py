"""Runs every notebook with nbval, once in process and once against a server: `python tests/notebooks.py`."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import chdir
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from llmbackend.settings import Settings, load  # noqa: E402
from tests.server import KEY, serving  # noqa: E402


def main() -> int:
    """Run them on both transports; 0 if every cell ran on both."""
    models = load().models_path.resolve()
    # Nothing of the developer's own set-up: no upstream, no server, no key, no `.env`.
    for name in {*Settings.model_fields, "llm_backend_url", "llm_backend_api_key"}:
        os.environ.pop(name.upper(), None)
        os.environ.pop(f"LLMBACKEND_{name.upper()}", None)
    with tempfile.TemporaryDirectory(prefix="llmbackend-notebooks-") as scratch, chdir(scratch):
        here, there = Path(scratch, "local"), Path(scratch, "server")
        failed = _nbval("in process", LLMBACKEND_DATA_DIR=str(here), LLMBACKEND_MODELS_DIR=str(models))
        with serving(there, models_dir=models, api_key=KEY) as server:
            failed |= _nbval(f"over HTTP, {server.url}", LLM_BACKEND_URL=server.url, LLM_BACKEND_API_KEY=KEY)
    return int(failed)


def _nbval(transport: str, **variables: str) -> bool:
    """Whether a notebook failed. `--nbval-current-env`: the kernel is this interpreter, whatever else is installed."""
    print(f"== notebooks {transport} ==", flush=True)
    command = [sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-current-env", "notebooks"]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **variables}).returncode != 0


if __name__ == "__main__":
    sys.exit(main())
