"""Confines a Linux process where there is no Landlock, by namespaces (user_namespaces(7))."""

from __future__ import annotations

import ctypes
import sys

_NETWORK, _USER = 0x40000000, 0x10000000


def leave() -> bool:
    """Cut this process off from the network, and from inspecting its parent even if both run as root.

    Files stay readable. Returns whether that worked: the system may forbid it, and a process with threads cannot.
    """
    if sys.platform != "linux":
        return False
    done: int = ctypes.CDLL(None).unshare(_USER | _NETWORK)
    return done == 0
