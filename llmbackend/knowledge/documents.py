"""Files into documents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

SUFFIXES = (".md", ".rst", ".txt")


def read(paths: Sequence[Path]) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Documents `{id, text, metadata}` of text files and of those in folders, and failures `{id, error}`.

    A document's id is its path below the folder given (its name, for a single file), so that ingesting the folder
    again, from wherever it lies by then, finds the same documents.
    """
    documents: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []
    for name, path in _files(paths):
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            failed.append({"id": name, "error": "not UTF-8 text"})
        except OSError as error:
            failed.append({"id": name, "error": error.strerror or "cannot be read"})
        else:
            documents.append({"id": name, "text": text, "metadata": {"source": name}})
    return documents, failed


def _files(paths: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    for path in paths:
        if path.is_dir():
            for file in sorted(path.rglob("*")):
                if file.is_file() and file.suffix.lower() in SUFFIXES:
                    yield file.relative_to(path).as_posix(), file
        else:
            yield path.name, path
