"""The local models in MODELS_DIR: pulled by name, by URL or from a file; and which of them is used for what.

Each model is a folder of its own name: with a `.gguf` file it chats, with `weights.safetensors` (static
vectors) and `tokenizer.json` it embeds, with `model.onnx` (a cross-encoder) and `tokenizer.json` it reranks.
SmolLM2 and MiniLM are files beside these folders (weights.py).
"""

from __future__ import annotations

import difflib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from filelock import FileLock, Timeout

from ..disk import Disk, translated
from ..errors import BackendError, Conflict, InvalidRequest
from . import weights
from .catalogue import ENTRIES, Entry, File, Task, by_sha256, find
from .download import fetch, sha256_of, verify
from .gguf import architecture

Progress = Callable[[str, int, int | None], None]
"""Called with a file's name, the bytes received so far, and the bytes in all if known."""

CHOSEN = "chosen.json"
DEFAULTS: dict[Task, str] = {"chat": weights.SMOLLM2.model, "embeddings": "wordllama-l2-supercat-256"}
"""The default model of each task; reranking has none."""


class Local(NamedTuple):
    """A local model that is installed."""

    name: str
    task: Task
    folder: Path

    @property
    def file(self) -> Path:
        """The file with the model's weights."""
        name = {"embeddings": "weights.safetensors", "rerank": "model.onnx"}.get(self.task)
        return self.folder / name if name else next(iter(sorted(self.folder.glob("*.gguf"))))

    @property
    def size(self) -> int:
        return sum(file.stat().st_size for file in self.folder.iterdir() if file.is_file())


class ModelsFolder:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def here(self) -> list[Local]:
        """The models that were pulled, in order of their names."""
        folders = sorted(self.folder.iterdir()) if self.folder.is_dir() else []
        found = [(folder, _task(folder)) for folder in folders if not folder.name.startswith(".")]
        return [Local(folder.name, task, folder) for folder, task in found if task]

    def find(self, name: str, task: Task) -> Local | None:
        """The model of that name (in any case of letters) if it was pulled for this task."""
        return next(
            (one for one in self.here() if one.name.lower() == name.lower() and one.task == task), None
        )

    def chosen(self, task: Task) -> str | None:
        """The name of the model to use if no setting names one; None means the default."""
        name = self._choices().get(task)
        return name if isinstance(name, str) and self._there(name, task) else None

    def choose(self, name: str) -> Task:
        """Use a model from the next start on, and return its task. Raises InvalidRequest if it was not pulled."""
        for task, default in DEFAULTS.items():
            if name.lower() == default.lower():
                self._write({**self._choices(), task: None})
                return task
        if name.lower() == weights.MINILM.model.lower() and self._there(name, "embeddings"):
            self._write({**self._choices(), "embeddings": weights.MINILM.model})
            return "embeddings"
        for one in self.here():
            if one.name.lower() == name.lower():
                self._write({**self._choices(), one.task: one.name})
                return one.task
        raise InvalidRequest(
            f"no model {name!r} is here: `llmbackend models list` shows which are, and `models pull` fetches one",
            details={"model": name},
        )

    def pull(
        self,
        source: str,
        base: str,
        progress: Progress = lambda file, done, total: None,
        sha256: str | None = None,
        reserve_mb: int | None = None,
    ) -> Local:
        """Fetch a model and choose it: one of the catalogue (from `base`), a .gguf file by its URL, or a
        local file or folder.

        A later call continues one that was interrupted. A model is installed complete and verified, or not at
        all. Raises InvalidRequest if the source is no model, BackendError, InsufficientStorage, and Conflict
        while another process pulls the same model.
        """
        try:
            with translated(self.folder):
                local = self._pull(source, base, progress, sha256, reserve_mb)
                self.choose(local.name)
                return local
        except OSError as error:
            raise BackendError(
                f"MODELS_DIR {self.folder} cannot be used ({error.strerror or error}): it has to be a folder that this "
                "user may write to, on a disk that is not mounted read-only; or set another one",
                details={"backend": "models", "path": str(self.folder)},
            ) from error

    def _pull(
        self, source: str, base: str, progress: Progress, sha256: str | None, reserve_mb: int | None
    ) -> Local:
        path = Path(source).expanduser()
        if (entry := find(source)) is not None:
            return self._fetched(entry, base, progress, reserve_mb)
        if urlsplit(source).scheme in ("http", "https"):
            return self._fetched(_at(source, sha256), base, progress, reserve_mb, url=source)
        if path.exists():
            return self._copied(path, sha256, progress, reserve_mb)
        raise _unknown(source)

    def _fetched(
        self, entry: Entry, base: str, progress: Progress, reserve_mb: int | None, url: str | None = None
    ) -> Local:
        with self._making(entry.name) as folder:
            disk = Disk.of(folder, reserve_mb)
            for file in entry.files:
                target = folder / file.name
                if not target.is_file():

                    def tell(done: int, total: int | None, name: str = file.name) -> None:
                        progress(name, done, total)

                    fetch(url or entry.url(file, base), target, disk, file.size, file.sha256, tell)
            return self._made(entry.name, entry.task, folder, url or base)

    def _copied(self, path: Path, sha256: str | None, progress: Progress, reserve_mb: int | None) -> Local:
        given = [path] if path.is_file() else sorted(one for one in path.iterdir() if one.is_file())
        name, task, files = _recognized(path, given)
        if (local := self.find(name, task)) is not None and local.folder.resolve() == path.resolve():
            return local
        with self._making(name) as folder:
            Disk.of(folder, reserve_mb).require(sum(file.stat().st_size for file in files.values()))
            for kept, file in files.items():
                progress(kept, 0, file.stat().st_size)
                part = folder / f"{kept}.part"
                try:
                    shutil.copyfile(file, part)
                    if len(files) == 1:
                        verify(part, str(file), None, sha256)
                    os.replace(part, folder / kept)
                finally:
                    part.unlink(missing_ok=True)
                progress(kept, file.stat().st_size, file.stat().st_size)
            return self._made(name, task, folder, str(path))

    @contextmanager
    def _making(self, name: str) -> Iterator[Path]:
        """Yield a folder for the model's files. It is removed if the disk is full, or if the files are wrong."""
        self.folder.mkdir(parents=True, exist_ok=True)
        folder = self.folder / f".{name}.part"
        lock = FileLock(self.folder / f".{name}.lock", timeout=0)
        try:
            with lock:
                folder.mkdir(exist_ok=True)
                try:
                    yield folder
                except OSError:
                    shutil.rmtree(folder, ignore_errors=True)
                    raise
                finally:
                    if folder.is_dir() and not any(folder.iterdir()):
                        folder.rmdir()
                    Path(lock.lock_file).unlink(missing_ok=True)
        except Timeout:
            raise Conflict(f"{name} is being pulled by another process", details={"model": name}) from None

    def _made(self, name: str, task: Task, folder: Path, source: str) -> Local:
        """Check that the model can be read, then put its folder in place of any older one of that name."""
        try:
            _check(Local(name, task, folder))
        except LookupError as error:
            shutil.rmtree(folder)
            raise BackendError(
                f"{source} has no {name} that can be used ({error}): it was not installed",
                details={"backend": "models"},
            ) from error
        target = self.folder / name
        old = self.folder / f".{name}.old"
        shutil.rmtree(old, ignore_errors=True)
        if target.exists():
            os.replace(target, old)
        os.replace(folder, target)
        shutil.rmtree(old, ignore_errors=True)
        return Local(name, task, target)

    def _there(self, name: str, task: Task) -> bool:
        if name == weights.MINILM.model and task == "embeddings":
            return weights.path_of(weights.MINILM, self.folder).is_file()
        return self.find(name, task) is not None

    def _choices(self) -> dict[str, str | None]:
        try:
            found = json.loads((self.folder / CHOSEN).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _write(self, choices: dict[str, str | None]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        new = self.folder / f".{CHOSEN}"
        new.write_text(json.dumps({task: name for task, name in choices.items() if name}), encoding="utf-8")
        os.replace(new, self.folder / CHOSEN)


def _task(folder: Path) -> Task | None:
    if not folder.is_dir():
        return None
    names = {file.name for file in folder.iterdir()}
    if any(name.endswith(".gguf") for name in names):
        return "chat"
    if "tokenizer.json" not in names:
        return None
    return "embeddings" if "weights.safetensors" in names else "rerank" if "model.onnx" in names else None


def _at(url: str, sha256: str | None) -> Entry:
    file = unquote(urlsplit(url).path.rpartition("/")[2])
    if not file.endswith(".gguf"):
        raise InvalidRequest(
            f"{url}: only .gguf files (chat models) can be pulled by URL; pull other models by name, or from a "
            "folder with model.safetensors or model.onnx and tokenizer.json",
            details={"url": url},
        )
    return Entry(_named(file), "chat", "", "", (File(file, file, None, sha256),), "unknown", 0, "")


def _recognized(path: Path, given: list[Path]) -> tuple[str, Task, dict[str, Path]]:
    """The name and task of the model in a file or folder, and its files by the names they are kept under."""
    by_suffix = {file.suffix: file for file in given}
    if (model := by_suffix.get(".gguf")) is not None:
        known = by_sha256(sha256_of(model))
        return (known[0].name if known else _named(model.name)), "chat", {model.name: model}
    for suffix, kept, task in (
        (".safetensors", "weights.safetensors", "embeddings"),
        (".onnx", "model.onnx", "rerank"),
    ):
        model = by_suffix.get(suffix)
        tokenizer = next((file for file in given if file.name == "tokenizer.json"), None)
        if model is not None and tokenizer is not None:
            known = by_sha256(sha256_of(model))
            name = known[0].name if known else _named(path.resolve().name)
            return name, task, {kept: model, "tokenizer.json": tokenizer}  # type: ignore[return-value]
    raise InvalidRequest(
        f"{path} is no model: give a .gguf file, which chats, or a folder with tokenizer.json and a .safetensors file of "
        "static vectors, which embeds, or an .onnx file of a cross-encoder, which reranks",
        details={"path": str(path)},
    )


def _named(file: str) -> str:
    name = re.sub(r"[^\w.+-]+", "-", file.removesuffix(".gguf")).strip(".-")
    return name or "model"


def _check(local: Local) -> None:
    """Raise LookupError with the reason if the model cannot be used."""
    if local.task == "chat":
        architecture(local.file)
    elif local.task == "embeddings":
        from .static_vectors import static_model

        static_model(local.name, local.folder)
    else:
        from .cross_encoder import check

        check(local.folder)


def _unknown(source: str) -> InvalidRequest:
    names = [*(entry.name for entry in ENTRIES), weights.SMOLLM2.model, weights.MINILM.model]
    near = difflib.get_close_matches(source.lower(), [name.lower() for name in names], 1, 0.5)
    meant = next((name for name in names if near and name.lower() == near[0]), None)
    hint = f"is {meant} meant? " if meant else ""
    return InvalidRequest(
        f"no model {source!r}, and no such file: {hint}`llmbackend models list` shows the names; a .gguf file is pulled "
        "by its path or URL",
        details={"model": source, "known": names},
    )
