"""The indexes of a Qdrant Edge shard, built by a process of its own: of metadata fields, and the graph for approximate search.

`EdgeShard.optimize()` holds the interpreter's lock for as long as it takes, minutes for a large shard: in a server's
process nothing else would happen meanwhile. Indexes of fields take 30 microseconds a chunk, or a tenth of a second.
`python -m llmbackend.knowledge.engines.edge_build FOLDER LAYOUT GRAPH` does it, the last two as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from anyio import CancelScope, open_process

from ... import privacy
from ...errors import BackendError
from .indexes import in_points
from .interface import Layout


async def built(folder: Path, layout: Layout, *, graph: bool) -> None:
    """Build the indexes of a shard that nobody has open. Raises BackendError; cancelled, it ends the process."""
    what = (str(folder), json.dumps([layout.dimension, dict(layout.indexes)]), json.dumps(graph))
    process = await open_process(
        [sys.executable, "-P", "-m", __name__, *what],
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
            f"Qdrant Edge: building the indexes: {reason[0]}", details={"backend": "Qdrant Edge"}
        )


def _end_with_parent() -> None:
    """On Linux: end this process when its parent is killed."""
    if sys.platform == "linux":
        import ctypes
        import signal

        end_with_parent = 1  # PR_SET_PDEATHSIG of prctl(2)
        ctypes.CDLL(None).prctl(end_with_parent, signal.SIGKILL)


def _build(folder: str, layout: Layout, graph: bool) -> None:
    import qdrant_edge

    from .qdrant import INDEXED_FIELDS
    from .qdrant_edge import config, make_indexes

    shard = qdrant_edge.EdgeShard.load(folder, config(layout.dimension))
    make_indexes(shard, {**INDEXED_FIELDS, **in_points(layout.indexes)})
    if graph:
        shard.optimize()
    shard.flush()
    shard.close()


if __name__ == "__main__":
    _end_with_parent()
    if sys.platform != "win32":
        with suppress(OSError):
            os.nice(10)  # calls come first
    _build(sys.argv[1], Layout(*json.loads(sys.argv[2])), json.loads(sys.argv[3]))
