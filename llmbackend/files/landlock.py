"""Landlock: a Linux process permanently gives up access rights (Linux 5.13 or later; landlock(7)).

A confined process can read only the files it is given, and cannot write, remove or execute any. Where the kernel
supports it, it cannot open TCP connections or send signals either. It cannot inspect unconfined processes: their
memory, open files, or environment with its keys.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path

# The same on every architecture but Alpha.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ASK_VERSION = 1
_PATH_BENEATH = 1
_NO_NEW_PRIVILEGES = 38  # of prctl(2)
_READ_FILE, _READ_FOLDER = 1 << 2, 1 << 3
# The number of file rights that each version of the interface has; later versions have at least as many.
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}


class _Ruleset(ctypes.Structure):
    """Rights that are denied unless a rule grants them."""

    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32))


def version() -> int:
    """Return the version of the interface; 0 if the system has none or forbids its use."""
    if sys.platform != "linux":
        return 0
    return max(0, _syscall(_CREATE_RULESET, None, 0, _ASK_VERSION))


def confine(readable: Iterable[Path]) -> bool:
    """Limit this thread and its children to reading these files and folders; returns whether that worked."""
    known = version()
    if not known:
        return False
    # The network came with version 4, signals with 6; a kernel refuses a structure longer than its own.
    size = 8 if known < 4 else 16 if known < 6 else 24
    rules = _Ruleset((1 << _FILE_RIGHTS.get(known, 16)) - 1, 0b11, 0b11)
    ruleset = _syscall(_CREATE_RULESET, ctypes.byref(rules), size, 0)
    if ruleset < 0:
        return False
    try:
        for path in readable:
            with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                _allow(ruleset, path)
        _system().prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        return _syscall(_RESTRICT_SELF, ruleset, 0) == 0
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: Path) -> None:
    if sys.platform != "linux":
        return
    opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rights = _READ_FILE | _READ_FOLDER if path.is_dir() else _READ_FILE
        rule = _Beneath(rights, opened)
        if _syscall(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0) != 0:
            raise PermissionError(path)
    finally:
        os.close(opened)


def _syscall(number: int, *args: object) -> int:
    given = [ctypes.c_long(one) if isinstance(one, int) else one for one in args]
    return int(_system().syscall(ctypes.c_long(number), *given))


@cache
def _system() -> ctypes.CDLL:
    return ctypes.CDLL(None)
