"""Downloads of large files, which are verified, and resumed after an interruption (RFC 9110, section 14: Range)."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..disk import Disk
from ..errors import BackendError

if TYPE_CHECKING:
    import requests

Progress = Callable[[int, int | None], None]
"""Called with the bytes received so far, and the bytes in all if known."""

TIMEOUTS = (10, 60)
"""Seconds to connect, and between two pieces."""
ATTEMPTS = 5
"""How many attempts in a row may bring nothing, with pauses of 1, 2, 4 and 8 seconds between them."""
PIECE = 2**16
"""Bytes read at once."""
_BUSY = {408, 425, 429, 500, 502, 503, 504}


class _Broken(Exception):
    """The connection ended before the file did; the message says how."""


def fetch(
    url: str, target: Path, disk: Disk, size: int | None, sha256: str | None, progress: Progress
) -> None:
    """Download a file, which appears at `target` only when it is complete and has the right SHA-256.

    What an interrupted call has received stays beside it (`.part`), and the next call continues from there.
    Raises BackendError (no such file, a connection that keeps breaking, unexpected content) and
    InsufficientStorage.
    """
    part = target.with_name(f"{target.name}.part")
    pause, failures = 1, 0
    while True:
        before = _length(part)
        try:
            _receive(url, part, disk, size, progress)
            break
        except _Broken as broken:
            failures = 0 if _length(part) > before else failures + 1
            if failures == ATTEMPTS:
                raise _given_up(url, part, broken) from broken
            if failures:
                time.sleep(pause)
            pause = min(2 * pause, 8) if failures else 1
    verify(part, url, size, sha256)
    os.replace(part, target)


def verify(file: Path, source: str, size: int | None, sha256: str | None) -> None:
    """Check a file's size and hash. If they are wrong, remove the file and raise BackendError."""
    found = f"{file.stat().st_size} bytes" if size not in (None, file.stat().st_size) else None
    wanted = f"{size} bytes"
    if found is None and sha256 is not None and (digest := sha256_of(file)) != sha256:
        found, wanted = f"SHA-256 {digest}", sha256
    if found is not None:
        file.unlink()
        raise BackendError(
            f"{source} gave {found}, not {wanted}: it was not installed; another MODELS_URL may have the right file",
            details={"backend": "models", "url": source},
        )


def sha256_of(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _receive(url: str, part: Path, disk: Disk, size: int | None, progress: Progress) -> None:
    """Append to `part` what is missing of the file; raises _Broken if it is still not complete."""
    import requests  # here, because every start would pay for it

    start = _length(part)
    if size is not None and start >= size:
        return
    version = part.with_name(f"{part.name}.version")
    headers = {"Accept-Encoding": "identity"}
    if start and version.is_file():
        headers |= {"Range": f"bytes={start}-", "If-Range": version.read_text(encoding="utf-8")}
    elif start:
        headers["Range"] = f"bytes={start}-"
    try:
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUTS) as reply:
            if (
                reply.status_code == 416
            ):  # nothing follows what is here: the file is complete, or it is another version
                if reply.headers.get("Content-Range", "").rpartition("/")[2] != str(start):
                    part.unlink()
                    raise _Broken("what was here is not a part of this file")
                return
            if reply.status_code in _BUSY:
                raise _Broken(f"the server answered {reply.status_code}")
            if reply.status_code not in (200, 206):
                raise _refused(url, reply.status_code)
            if reply.status_code == 200 or _begin(reply) != start:
                start = 0
            _note(version, reply)
            left = reply.headers.get("Content-Length")
            total = size or (start + int(left) if left and left.isdigit() else None)
            disk.require((total or start + 1000 * PIECE) - start)
            _write(reply, part, start, total, progress)
            if total is not None and _length(part) < total:
                raise _Broken("the connection ended early")
    except requests.RequestException as error:
        raise _Broken(_reason(error)) from error
    finally:
        if not _length(part):
            part.unlink(missing_ok=True)
            version.unlink(missing_ok=True)
    version.unlink(missing_ok=True)


def _write(reply: requests.Response, part: Path, start: int, total: int | None, progress: Progress) -> None:
    with part.open("r+b" if start else "wb") as opened:
        opened.seek(start)
        progress(start, total)
        try:
            for piece in reply.iter_content(PIECE):
                opened.write(piece)
                progress(opened.tell(), total)
        finally:
            opened.truncate()


def _begin(reply: requests.Response) -> int:
    found = re.match(r"bytes (\d+)-", reply.headers.get("Content-Range", ""))
    return int(found[1]) if found else 0


def _note(version: Path, reply: requests.Response) -> None:
    """Keep the strong validator (RFC 9110) that tells a later attempt whether the file is still the same."""
    mark = reply.headers.get("ETag", "")
    if mark and not mark.startswith("W/"):
        version.write_text(mark, encoding="utf-8")
    else:
        version.unlink(missing_ok=True)


def _length(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _reason(error: requests.RequestException) -> str:
    from requests import exceptions

    kinds = {
        exceptions.SSLError: "its certificate is not trusted",
        exceptions.ProxyError: "the proxy refuses",
        exceptions.ConnectTimeout: "it does not answer",
        exceptions.Timeout: "it sends nothing more",
        exceptions.ChunkedEncodingError: "the connection ended early",
        exceptions.ConnectionError: "no connection",
    }
    return next((told for kind, told in kinds.items() if isinstance(error, kind)), type(error).__name__)


def _refused(url: str, status: int) -> BackendError:
    remedy = {
        401: "it asks for credentials: download the file yourself and pull it by its path",
        403: "it may not be downloaded: download the file yourself and pull it by its path",
        404: "there is no such file: see MODELS_URL, or the address",
    }.get(status, "see MODELS_URL, or the address")
    return BackendError(f"{url} answered {status}: {remedy}", details={"backend": "models", "url": url})


def _given_up(url: str, part: Path, broken: _Broken) -> BackendError:
    kept, host = _length(part), urlsplit(url).netloc
    told = (
        f"the connection to {host} keeps breaking ({broken}): {kept >> 20} MB are here, and the same command goes on from there"
        if kept
        else f"{host} cannot be reached ({broken}): check the network, set MODELS_URL to a mirror, or pull a file by its path"
    )
    return BackendError(told, details={"backend": "models", "url": url, "kept": kept})
