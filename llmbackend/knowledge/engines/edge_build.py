"""The graph for approximate search over a Qdrant Edge shard, built by a process of its own.

`EdgeShard.optimize()` holds the interpreter's lock for as long as it takes, minutes for a large shard: in a server's
process nothing else would happen meanwhile. `python -m llmbackend.knowledge.engines.edge_build FOLDER DIMENSION` does it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from anyio import CancelScope, open_process

from ... import privacy
from ...errors import BackendError


async def optimized(folder: Path, dimension: int) -> None:
    """Build the graph of a shard that nobody has open. Raises BackendError; cancelled, it ends the process."""
    process = await open_process(
        [sys.executable, "-P", "-m", __name__, str(folder), str(dimension)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=privacy.environment(),
    )
    try:
        assert process.stderr is not None
        said = b"".join([part async for part in process.stderr])
        code = await process.wait()
    except BaseException:
        with CancelScope(shield=True), suppress(ProcessLookupError):
            process.kill()
            await process.wait()
        raise
    if code != 0:
        reason = said.decode(errors="replace").strip().splitlines()[-1:] or [f"it ended with {code}"]
        raise BackendError(
            f"Qdrant Edge: building the graph: {reason[0]}", details={"backend": "Qdrant Edge"}
        )


def _end_with_parent() -> None:
    """Where the system can (Linux): a killed parent leaves no process behind that still builds."""
    if sys.platform == "linux":
        import ctypes
        import signal

        end_with_parent = 1  # PR_SET_PDEATHSIG of prctl(2)
        ctypes.CDLL(None).prctl(end_with_parent, signal.SIGKILL)


def _build(folder: str, dimension: int) -> None:
    import qdrant_edge

    from .qdrant_edge import config

    shard = qdrant_edge.EdgeShard.load(folder, config(dimension))
    shard.optimize()
    shard.flush()
    shard.close()


if __name__ == "__main__":
    _end_with_parent()
    if sys.platform != "win32":
        with suppress(OSError):
            os.nice(10)  # calls come first
    _build(sys.argv[1], int(sys.argv[2]))
