"""Translates Qdrant Edge's exceptions and panics into our errors. No other module does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ..disk import FULL_ERRORS, full
from ..errors import BackendError, LLMBackendError
from ..panics import panicked

_OS_ERROR = re.compile(r"os error (\d+)")

_UNREADABLE = ("decod", "deserial", "decompress", "corrupt", "checksum", "recursion limit")
"""Phrases in Edge's errors about unreadable data, in any call."""

_NO_ROOM = ("No space left", "Too many open files", "Cannot allocate memory")
"""Phrases in errors that do not mean damage."""


class translated:
    """A context manager around calls of a shard. The error says `damaged` if the shard panics or cannot be read or opened."""

    __slots__ = ("_folder", "_opening")

    def __init__(self, folder: Path, *, opening: bool = False) -> None:
        self._folder, self._opening = folder, opening

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is None or isinstance(error, LLMBackendError):
            return
        if isinstance(error, ModuleNotFoundError):
            raise BackendError(
                f"the embedded vector engine is not installed (missing: {error.name}): "
                "pip install 'llmbackend[embedded]'",
                details={"backend": "Qdrant Edge"},
            ) from error
        if not (panicked(error) or isinstance(error, Exception)):
            return  # cancelled or interrupted
        said = str(error)[:1000]
        told = _OS_ERROR.search(said)
        if (int(told[1]) if told else getattr(error, "errno", None)) in FULL_ERRORS:
            raise full(self._folder) from error
        details: dict[str, Any] = {"backend": "Qdrant Edge"}
        given = isinstance(error, (TypeError, ValueError))  # the arguments are wrong, not the shard
        unreadable = self._opening or (not given and any(sign in said for sign in _UNREADABLE))
        if panicked(error) or (unreadable and not any(sign in said for sign in _NO_ROOM)):
            details["damaged"] = True
        raise BackendError(f"Qdrant Edge: {said}", details=details) from error
