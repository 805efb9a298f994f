"""What stands in for a Qdrant server, of which there is none to be had for tests: qdrant-client's in-memory mode."""

from __future__ import annotations

import threading
import warnings
from typing import Any

from qdrant_client import QdrantClient


class OneAtATime:
    """A client whose methods wait for one another: qdrant-client's in-memory mode takes no two calls at once."""

    def __init__(self) -> None:
        self._client = QdrantClient(":memory:")
        self._lock = threading.Lock()

    def close(self) -> None:
        """A server outlives its clients."""

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def called(*args: Any, **options: Any) -> Any:
            with self._lock, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that indexes have no effect there
                return method(*args, **options)

        return called
