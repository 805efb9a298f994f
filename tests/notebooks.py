"""Runs every notebook with nbval, in process and against a server at once: `python tests/notebooks.py`."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir
from pathlib import Path
from subprocess import PIPE, STDOUT

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from llmbackend.settings import Settings, load  # noqa: E402
from tests import in_memory  # noqa: E402
from tests.server import KEY, serving  # noqa: E402


def main() -> int:
    """Run them on both transports; 0 if every cell ran on both."""
    in_memory.use()
    models = load().models_path.resolve()
    # Nothing of the developer's own set-up: no upstream, no server, no key, no `.env`.
    for name in {*Settings.model_fields, "llm_backend_url", "llm_backend_api_key"}:
        os.environ.pop(name.upper(), None)
        os.environ.pop(f"LLMBACKEND_{name.upper()}", None)
    with tempfile.TemporaryDirectory(prefix="llmbackend-notebooks-") as scratch, chdir(scratch):
        here, there = Path(scratch, "local"), Path(scratch, "server")
        local = {"LLMBACKEND_DATA_DIR": str(here), "LLMBACKEND_MODELS_DIR": str(models)}
        with serving(there, models_dir=models, api_key=KEY) as server, ThreadPoolExecutor() as both:
            http = {"LLM_BACKEND_URL": server.url, "LLM_BACKEND_API_KEY": KEY}
            runs = [
                both.submit(_nbval, "in process", **local),
                both.submit(_nbval, f"over HTTP, {server.url}", **http),
            ]
            failed = [run.result() for run in runs]
    return int(any(failed))


def _nbval(transport: str, **variables: str) -> bool:
    """Whether a notebook failed. `--nbval-current-env`: the kernel is this interpreter, whatever else is installed."""
    command = [sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-current-env", "notebooks"]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **variables}, stdout=PIPE, stderr=STDOUT, text=True
    )
    print(f"== notebooks {transport} ==\n{done.stdout}", flush=True)
    return done.returncode != 0


if __name__ == "__main__":
    sys.exit(main())
