"""huey on SQLite: wakes a worker thread with a job's id, and knows nothing else."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huey import SqliteHuey
from huey.consumer import Consumer
from huey.registry import Message
from huey.serializer import Serializer

# huey reports every start and stop; a library keeps such things to those who ask for them.
logging.getLogger("huey").addHandler(logging.NullHandler())


class Queue:
    """Job ids on disk, handed one by one to `work` in worker threads."""

    def __init__(self, file: Path, workers: int, work: Callable[[str], None]) -> None:
        self._huey = SqliteHuey(
            "llmbackend", filename=str(file), results=False, serializer=_Json(), timeout=10
        )
        # huey is at-most-once: what was in the queue when a process died is not reliable, the ledger is.
        self._huey.flush()
        self._task = self._huey.task(name="work")(work)
        self._consumer = _Workers(
            self._huey, workers=workers, periodic=False, initial_delay=0.01, backoff=1.1, max_delay=0.05
        )

    def start(self) -> None:
        self._consumer.start()

    def wake(self, job_id: str) -> None:
        """Have a worker take up this job. Blocks for one durable write."""
        self._task(job_id)

    def stop(self) -> None:
        """Wait until each worker has ended what it is at, then let go of the file."""
        self._consumer.stop(graceful=True)
        self._huey.storage.close()


class _Workers(Consumer):  # type: ignore[misc]
    def _set_signal_handlers(self) -> None:
        """None: this process's signals belong to the application."""


class _Json(Serializer):  # type: ignore[misc]
    """huey pickles by default, and a pickle written into the queue would run as code; JSON cannot."""

    def _serialize(self, data: Any) -> bytes:
        return json.dumps(list(data)).encode()

    def _deserialize(self, data: bytes) -> Any:
        return Message(*json.loads(bytes(data)))
