"""A file in a data directory that marks an unfinished restore into it."""

from __future__ import annotations

from pathlib import Path

from ..errors import BackendError


class Unfinished:
    """The mark of an unfinished restore."""

    def __init__(self, data_dir: Path) -> None:
        self._file = data_dir / "restoring"
        self._data_dir = data_dir

    @property
    def there(self) -> bool:
        return self._file.exists()

    def begin(self) -> None:
        self._file.touch()

    def end(self) -> None:
        self._file.unlink(missing_ok=True)

    def refuse(self) -> None:
        """Raise BackendError if there is an unfinished restore."""
        if self.there:
            raise BackendError(
                f"a restore into {self._data_dir} was interrupted: run `llmbackend restore` again, or set another DATA_DIR",
                details={"backend": "data directory", "path": str(self._data_dir)},
            )
