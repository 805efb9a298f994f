"""The process that reads files: `python -m llmbackend.files.process SECONDS MEMORY TEXT [.xyz=module:name …]`.

After the limits come a project's own readers, by file extension.

Files come in on standard input and texts go out on standard output, each in a frame (frames.py). The first frame out
tells that it is ready, and is empty.

Files may be hostile and parsers have bugs, so this process has limited memory and time, no secrets, and cannot write
files, use the network or start processes. With Landlock it can read only the files of Python and its packages; without,
it enters namespaces of its own if the system allows that.
"""

from __future__ import annotations

import json
import mimetypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from . import job_object, landlock, namespaces, own_readers
from .frames import LENGTHS, OUT_OF_MEMORY, frame
from .parsed import Unreadable, too_large
from .parsing import parse_all

GRACE = 5
"""Seconds beyond its limit after which the process ends itself, in case its parent is gone."""


def main() -> None:
    seconds, memory, most = float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    files, texts = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)  # keep what parsers print out of the frames
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # left to the parent process
    own_readers.take(sys.argv[4:])  # while files can still be imported
    restrict(memory)
    texts.write(frame({}))  # it is ready
    texts.flush()
    try:
        while (taken := _take(files)) is not None:
            _limit_time(seconds)
            texts.write(frame(*_read(*taken, most)))
            texts.flush()
            _limit_time(0)
    except MemoryError:
        os._exit(OUT_OF_MEMORY)  # the process may be in a bad state now


def _take(files: BinaryIO) -> tuple[str, bytes] | None:
    lengths = files.read(LENGTHS.size)
    if len(lengths) < LENGTHS.size:
        return None
    head, body = LENGTHS.unpack(lengths)
    return json.loads(files.read(head))["name"], files.read(body)


def _read(name: str, data: bytes, most: int) -> tuple[dict[str, Any], bytes]:
    """Return a frame's head, which describes each text or the error, and its body, the texts."""
    found: list[dict[str, Any]] = []
    texts: list[bytes] = []
    try:
        for part, parsed in parse_all(name, data):
            if isinstance(parsed, Unreadable):
                found.append({"name": part, "error": str(parsed)})
                continue
            text = parsed.text.encode()
            if len(text) + sum(map(len, texts)) > most:
                error = too_large(f"{len(text) >> 20} MB of text", f"{most >> 20} MB")
                found.append({"name": part, "error": error})
                continue
            about = {"syntax": parsed.syntax, "warnings": parsed.warnings, "bytes": len(text)}
            found.append({"name": part, **about})
            texts.append(text)
    except Unreadable as error:
        found.append({"name": name, "error": str(error)})
    except ImportError as error:
        return {"missing": error.name or str(error)}, b""
    return {"found": found}, b"".join(texts)


def restrict(memory: int) -> None:
    """Limit this process's memory, and take away its access to files, the network and other processes."""
    if not landlock.confine(_readable()):
        namespaces.leave()
    sys.addaudithook(_refuse)
    if sys.platform == "win32":
        job_object.limit(memory)
        return
    import resource

    for what, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        with suppress(ValueError, OSError):  # the system's limit may be lower already
            resource.setrlimit(what, (most, most))


PARSERS = (
    *(
        "bs4",
        "charset_normalizer",
        "cryptography",
        "defusedxml",
        "et_xmlfile",
        "lxml",
        "mammoth",
        "markdownify",
    ),
    *("markitdown", "openpyxl", "PIL", "pptx", "pypdf", "soupsieve", "webencodings"),
)
"""Packages that are looked for in every folder of the import path."""


def _readable() -> Iterator[Path]:
    """Yield what parsing needs: Python, its packages and this one, and the system's libraries, but no folder of the user."""
    import llm_client

    yield from map(Path, {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix})
    yield from map(
        Path, ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/share/zoneinfo")
    )
    yield from map(Path, ("/etc/ld.so.cache", "/etc/localtime", "/dev/null", "/dev/urandom"))
    yield from map(Path, mimetypes.knownfiles)
    yield Path(__file__).parents[2]
    yield Path(llm_client.__file__)
    for place in map(Path, filter(None, sys.path)):
        # Other folders on the path, such as that of the calling script, contain more than modules.
        if place.name in ("site-packages", "dist-packages") or next(place.glob("*.dist-info"), None):
            yield place
        else:
            yield from (place / name for name in PARSERS)
            yield from (place / f"{name}.py" for name in PARSERS)


def _limit_time(seconds: float) -> None:
    """End this process after so many seconds of real or processor time; 0 means no limit."""
    if sys.platform == "win32":  # there, the parent ends it
        return
    import resource

    signal.setitimer(signal.ITIMER_REAL, seconds + GRACE if seconds else 0)
    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    most = int(used + seconds) + GRACE if seconds else resource.RLIM_INFINITY
    resource.setrlimit(resource.RLIMIT_CPU, (most, resource.RLIM_INFINITY))


_REFUSED = ("socket.", "subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn")


def _refuse(event: str, args: tuple[Any, ...]) -> None:
    if event.startswith(_REFUSED):
        raise PermissionError(f"{event} is not for parsers")


if __name__ == "__main__":
    main()
