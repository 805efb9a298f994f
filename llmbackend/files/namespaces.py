"""What a Linux process that Landlock does not confine can give up all the same (user_namespaces(7))."""

from __future__ import annotations

import ctypes
import sys

_NETWORK, _USER = 0x40000000, 0x10000000


def leave() -> bool:
    """From here on, this process has no network, nor may it look into its parent, even where both are root's.

    Files stay readable. Tells whether it worked: systems may forbid it, and so do threads of this process.
    """
    if sys.platform != "linux":
        return False
    done: int = ctypes.CDLL(None).unshare(_USER | _NETWORK)
    return done == 0
