"""A disk of a few megabytes to fill: a tmpfs in a namespace of its own, for which no one need be root.

Where the system forbids that, it is the disk there is, of which all but those megabytes are to stay free.
"""

from __future__ import annotations

import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

RESERVE = 32
_HOLD = 'mount -t tmpfs -o size="$1"m none "$2" && echo ready && exec cat'


@dataclass
class SmallDisk:
    folder: Path
    """For processes with the `namespaces`."""
    namespaces: int | None
    """Those of the process of this number; None if all have the disk."""
    reserve: int
    """DISK_RESERVE_MB for those."""
    outside: Path
    """The same folder for this process."""

    @property
    def free(self) -> int:
        """Megabytes that may be written to: the reserve is not among them."""
        return (shutil.disk_usage(self.outside).free >> 20) - self.reserve

    def fill(self, megabytes: int) -> Path:
        file = self.outside / f"filling{uuid.uuid4().hex}"
        file.touch()
        if megabytes > 0:
            subprocess.run(["fallocate", "-l", f"{megabytes}MiB", str(file)], check=True)
        return file


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[SmallDisk]:
    """`megabytes` are free beyond the reserve."""
    folder.mkdir()
    holder = subprocess.Popen(
        ["unshare", "-Urm", "sh", "-c", _HOLD, "sh", str(megabytes + RESERVE), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        if holder.stdout.readline() == "ready\n":
            outside = Path(f"/proc/{holder.pid}/root") / folder.relative_to("/")
            yield SmallDisk(folder, holder.pid, RESERVE, outside)
        else:
            free = shutil.disk_usage(folder).free >> 20
            yield SmallDisk(folder, None, free - megabytes, folder)
    finally:
        holder.stdin.close()
        holder.stdout.close()
        holder.wait(timeout=10)
