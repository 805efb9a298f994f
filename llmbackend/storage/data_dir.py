"""The lock on a data directory, which belongs to one process at a time."""

from __future__ import annotations

import json
import os
import sys
import uuid
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from ..disk import translated
from ..errors import BackendError, Conflict
from ..settings import notebook


def _command() -> str:
    """Return how the user knows this process: a command and its first argument, or a notebook."""
    if "ipykernel" in sys.modules:
        return f"notebook {notebook()}".strip()
    return " ".join([Path(sys.argv[0] or "python").name, *sys.argv[1:2]])


class DataDirLock:
    """Locks a data directory, which is made if it does not exist, until `release`.

    Raises Conflict if another process holds it, and BackendError if it cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self._lock = FileLock(
            folder / "lock", thread_local=False
        )  # acquired in one thread, released in another
        self._about = folder / "holder.json"
        command = _command()
        try:
            with translated(folder):
                folder.mkdir(parents=True, exist_ok=True)
                self._lock.acquire(timeout=0)
                self._about.write_text(json.dumps({"pid": os.getpid(), "command": command}))
                self.name = self._named(folder / "name")
        except Timeout:
            about = self._read()
            raise Conflict(
                f"data directory {folder} is in use by process {about.get('pid', '?')} "
                f"({about.get('command', 'unknown')}): close that, connect to its server by api_url=..., "
                "or set DATA_DIR to another folder",
                details={"data_dir": str(folder), "pid": about.get("pid")},
            ) from None
        except OSError as error:
            self._lock.release()
            raise BackendError(
                f"DATA_DIR {folder} cannot be used ({error.strerror or error}): make sure that it is a folder that this "
                "user may write to, on a disk that is not mounted read-only, or set another one",
                details={"backend": "data directory", "path": str(folder)},
            ) from error
        except BaseException:
            self._lock.release()
            raise

    def _named(self, file: Path) -> str:
        """Return the directory's unique name, which also identifies this process while it holds the lock."""
        try:
            if name := file.read_text().strip():
                return name
        except OSError:
            pass
        file.write_text(name := uuid.uuid4().hex)
        return name

    def _read(self) -> dict[str, object]:
        try:
            about = json.loads(self._about.read_text())
        except (OSError, ValueError):
            return {}
        return about if isinstance(about, dict) else {}

    def release(self) -> None:
        with suppress(OSError):  # the disk may have become read-only
            self._about.unlink(missing_ok=True)
        self._lock.release()
