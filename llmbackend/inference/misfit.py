"""What does not fit a schema in a reply. A check that may take for ever is done by a process that can be
killed.

`python -m llmbackend.inference.misfit` reads `[schema, reply]` as JSON and writes a few words.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from itertools import islice
from typing import Any

from .. import privacy

REPLY_SECONDS = 1
"""The most seconds of processor time for checking one reply."""
WALL_SECONDS = 3
"""The most seconds in all, including the start of the process on a busy machine."""
ERROR_CHARACTERS = 200
"""The most characters of an error message."""
SHORT = 2**14
"""Up to this many characters, a reply's errors are collected in this process. It may have as many errors as
values."""
PATTERN_BYTES = 2**18
"""The largest compiled pattern, in bytes; `^\\w{1,64}$` makes one of the larger ones."""


class CheckFailed(Exception):
    """The process ended without a result."""


def validator(schema: Any) -> Any:
    """A validator that matches patterns in linear time, does not check formats, and reads nothing outside of
    the schema."""
    import jsonschema_rs

    patterns = jsonschema_rs.RegexOptions(size_limit=PATTERN_BYTES)
    return jsonschema_rs.validator_for(schema, pattern_options=patterns, validate_formats=False, offline=True)


def told(validator: Any, reply: Any) -> str | None:
    """What does not fit, in a few words; None if everything fits."""
    errors = islice(validator.iter_errors(reply), 5)
    return (
        "; ".join(f"{_path(error.instance_path)}: {error.message[:ERROR_CHARACTERS]}" for error in errors)
        or None
    )


def told_apart(schema: Any, reply: Any) -> str | None:
    """Check like `told`, but in another process. Blocks: call it in a thread. Raises TimeoutError or CheckFailed."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", __name__],
            input=json.dumps([schema, reply], ensure_ascii=False).encode(),
            capture_output=True,
            timeout=WALL_SECONDS,
            check=False,
            env=privacy.environment(),
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError from None
    except OSError as error:
        raise CheckFailed(str(error)) from error
    if sys.platform != "win32" and done.returncode == -signal.SIGPROF:
        raise TimeoutError
    if done.returncode:
        raise CheckFailed(
            f"it ended with {done.returncode}: {done.stderr.decode(errors='replace')[-ERROR_CHARACTERS:]}"
        )
    return done.stdout.decode() or None


def _main() -> None:
    schema, reply = json.load(sys.stdin.buffer)
    check = validator(schema)
    if sys.platform != "win32":  # on Windows, WALL_SECONDS has to do
        signal.setitimer(signal.ITIMER_PROF, REPLY_SECONDS)  # ends this process by SIGPROF
    sys.stdout.buffer.write((told(check, reply) or "").encode(errors="replace"))


def _path(place: list[str | int]) -> str:
    return "$" + "".join(
        f".{one}" if isinstance(one, str) and one.isidentifier() else f"[{one!r}]" for one in place
    )


if __name__ == "__main__":
    _main()
