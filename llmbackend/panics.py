"""Turns panics of Rust extensions (the vector engine, tokenizers, pydantic) into our errors.

pyo3 raises them as a BaseException, which no `except Exception` catches, so it would end a worker or a server.
"""

from __future__ import annotations

from .errors import BackendError


def panicked(error: BaseException) -> bool:
    """Return whether an exception is a panic; each extension has its own PanicException class."""
    return type(error).__name__ == "PanicException" and not isinstance(error, Exception)


def as_error(error: BaseException) -> BackendError:
    return BackendError(
        f"a library failed internally ({str(error)[:300]}): please report this", details={"panic": True}
    )


class caught:
    """Raise a panic in this block as a BackendError with `panic` in its details."""

    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is not None and panicked(error):
            raise as_error(error) from error
