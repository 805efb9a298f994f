"""A process that has keys keeps them: from others of the same user (on Linux), and from those that it starts."""

from __future__ import annotations

import ctypes
import os
import sys

_SET_DUMPABLE = 4
"""Of prctl(2)."""


def keep() -> None:
    """From here on, no other process of this user reads this one's environment, memory or open files.

    It leaves no core dump either, and lets no debugger in but root's. What it starts does not inherit that.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_DUMPABLE, 0, 0, 0, 0)


def environment() -> dict[str, str]:
    """For a Python process that needs no key of ours: where modules are, and what Windows starts no process without."""
    needed = {name: os.environ[name] for name in ("SYSTEMROOT",) if name in os.environ}
    return {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **needed}
