"""Files of tests in memory, where there is plenty: on a disk, most of the tests' time is waiting until it has written."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

FOLDER = Path("/dev/shm")
ENOUGH = 6 * 2**30
"""Bytes: several times what the tests have there at a time."""


def use() -> None:
    """Have temporary files made there, by this process and those that it starts, unless TMPDIR says where."""
    if "TMPDIR" not in os.environ and _free() >= ENOUGH:
        os.environ["TMPDIR"] = str(FOLDER)
        tempfile.tempdir = None  # it is looked for again


def _free() -> int:
    if not FOLDER.is_dir():
        return 0
    available = re.search(r"MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text())
    return min(shutil.disk_usage(FOLDER).free, int(available[1]) * 2**10 if available else 0)
