"""Builds a Qdrant Edge shard in a separate process, because that holds the interpreter's lock for long.

`EdgeShard.optimize()` takes minutes for a large shard, and would block everything else in the server's process. Making
indexes of fields takes 30 µs a chunk, at least a tenth of a second; opening an unbuilt shard takes 10 µs a chunk. The
process runs `python -m llmbackend.engines.edge_build FOLDER LAYOUT WHAT`, with LAYOUT as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import cast

from anyio import CancelScope, open_process

from .. import privacy
from ..errors import BackendError
from .edge_shard import OWN_FIELDS, config, make_indexes
from .indexes import in_points
from .interface import Layout
from .qdrant_edge import IN_USE, Build, EdgeIndex


async def built(folder: Path, layout: Layout, what: Build) -> None:
    """Build `what` in a shard that nobody has open. Raises BackendError. If cancelled, it kills the process."""
    process = await open_process(
        [
            *(sys.executable, "-P", "-m", __name__),
            *(str(folder), json.dumps([layout.dimension, dict(layout.indexes)]), what),
        ],
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
    """On Linux, end this process when its parent is killed."""
    if sys.platform == "linux":
        import ctypes
        import signal

        end_with_parent = 1  # PR_SET_PDEATHSIG of prctl(2)
        ctypes.CDLL(None).prctl(end_with_parent, signal.SIGKILL)


def _build(folder: Path, layout: Layout, what: Build) -> None:
    import qdrant_edge

    if what != "repair":
        shard = qdrant_edge.EdgeShard.load(str(folder), config(layout.dimension, graph=what != "segments"))
        make_indexes(shard, {**OWN_FIELDS, **in_points(layout.indexes)})
        if what != "indexes":
            shard.optimize()
        shard.flush()
        shard.close()
    if (folder / IN_USE).exists():
        EdgeIndex(folder).close()  # opening repairs it


if __name__ == "__main__":
    _end_with_parent()
    if sys.platform != "win32":
        with suppress(OSError):
            os.nice(10)  # calls come first
    _build(Path(sys.argv[1]), Layout(*json.loads(sys.argv[2])), cast(Build, sys.argv[3]))
