"""Keeps a process's keys from other processes of the same user (on Linux), and from those that it starts."""

from __future__ import annotations

import ctypes
import os
import sys

_SET_DUMPABLE = 4
"""An option of prctl(2)."""


def keep() -> None:
    """Prevent other processes of this user from reading this one's environment, memory or open files.

    There are no core dumps, and only root can attach a debugger. Child processes do not inherit this.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_DUMPABLE, 0, 0, 0, 0)


def environment() -> dict[str, str]:
    """Return the environment for a Python process that needs no keys: the module path, and what Windows requires."""
    needed = {name: os.environ[name] for name in ("SYSTEMROOT",) if name in os.environ}
    return {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **needed}
