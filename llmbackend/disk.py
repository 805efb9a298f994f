"""Checks the free disk space before anything is written.

The embedded vector engine writes to files that are mapped into memory: on a full disk, the system ends the process
(SIGBUS), and no code can prevent that. So a reserve always stays free, and writes that would use it are refused.
Deletions may use part of it, because they write, too, before they free space.
"""

from __future__ import annotations

import errno
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from .errors import BackendError, InsufficientStorage

FULL_ERRORS = {errno.ENOSPC, errno.EDQUOT}
"""Error numbers for a full disk or an exhausted quota."""
DELETING = 0.75
"""The share of the reserve that deletions must leave free."""


RESERVE = 256 * 2**20
"""The default reserve in bytes, but at most a quarter of the disk: for holes in the engine's files, SQLite, and other
programs."""
SMALL = 8 * 2**20
"""With fewer free bytes, a disk counts as full."""


class _Usage(Protocol):
    @property
    def total(self) -> int: ...

    @property
    def free(self) -> int: ...


class Disk:
    """The disk of a folder, of which `reserve` bytes stay free. Thread-safe."""

    def __init__(self, folder: Path, reserve: int) -> None:
        self.folder = folder
        self.reserve = reserve
        self._changing = threading.Lock()
        self._promised = 0  # bytes that writes under way may still use

    @classmethod
    def of(cls, folder: Path, reserve_mb: int | None) -> Disk:
        """Return the folder's disk, with the reserve of DISK_RESERVE_MB, or the default one."""
        disk = cls(folder, RESERVE if reserve_mb is None else reserve_mb * 2**20)
        if reserve_mb is None:
            disk.reserve = min(RESERVE, disk._usage().total // 4)
        return disk

    @property
    def free(self) -> int:
        """The free bytes, read each time, which takes microseconds."""
        return self._usage().free

    def _usage(self) -> _Usage:
        try:
            return shutil.disk_usage(self.folder)
        except OSError as error:
            raise BackendError(
                f"{self.folder} cannot be used ({error.strerror}): is its disk still there?",
                details={"path": str(self.folder)},
            ) from error

    @property
    def problem(self) -> str | None:
        """Return why even small writes are refused, or soon will be; None if they are not."""
        try:
            self.require(SMALL)
        except (InsufficientStorage, BackendError) as error:
            return error.message
        return None

    def require(self, needed: int, share: float = 1.0) -> None:
        """Raise InsufficientStorage unless so many bytes can be written while this share of the reserve stays free."""
        with self._changing:
            self._require(needed, share)

    @contextmanager
    def writing(self, needed: int, share: float = 1.0) -> Iterator[None]:
        """Reserve so many bytes for a write in this block. Raises InsufficientStorage as `require` does."""
        with self._changing:
            self._require(needed, share)
            self._promised += needed
        try:
            yield
        finally:
            with self._changing:
                self._promised -= needed

    def _require(self, needed: int, share: float) -> None:
        free, all_needed = self.free, needed + self._promised + int(self.reserve * share)
        if free < all_needed:
            raise full(self.folder, free, all_needed)


def full(
    place: Path | str,
    free: int | None = None,
    needed: int | None = None,
    fix: str = "remove files or collections, or enlarge the disk",
) -> InsufficientStorage:
    """Return the error for a disk without enough space."""
    details = {"path": str(place), "free": free, "needed": needed}
    numbers = ""
    if free is not None and needed is not None:
        numbers = f": {free >> 20} MB are free and {-(-needed >> 20)} MB needed, DISK_RESERVE_MB among them"
    return InsufficientStorage(
        f"there is no room on the disk of {place}{numbers}; {fix}",
        details={name: value for name, value in details.items() if value is not None},
    )


@contextmanager
def translated(folder: Path) -> Iterator[None]:
    """Translate the system's errors about a full disk into ours."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL_ERRORS:
            raise full(folder) from error
        raise
