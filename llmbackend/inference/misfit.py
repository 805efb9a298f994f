"""What in a reply does not fit its schema, told by a process of its own.

Whether a reply fits is found out fast, but telling all that does not may take for ever where a schema refers to one
part many times: that can be killed here.

`python -m llmbackend.inference.misfit` reads `[schema, reply]` as JSON and writes a few words.
"""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import islice
from typing import Any

from .. import privacy

SECONDS = 3
LONGEST = 200
"""Characters of what is told of an error."""
PATTERN_BYTES = 2**18
"""Of a pattern, as it is compiled: `^\\w{1,64}$` is one of the larger ones."""


def validator(schema: Any) -> Any:
    """Patterns are matched in linear time, and nothing outside of the schema is read."""
    import jsonschema_rs

    patterns = jsonschema_rs.RegexOptions(size_limit=PATTERN_BYTES)
    return jsonschema_rs.validator_for(schema, pattern_options=patterns, offline=True)


def repeats(schema: Any) -> bool:
    """Whether a schema refers to some part of it more than once."""
    targets: list[str] = []
    left = [schema]
    while left:
        node = left.pop()
        if isinstance(node, dict):
            targets += [str(node[name]) for name in ("$ref", "$dynamicRef", "$recursiveRef") if name in node]
            left += node.values()
        elif isinstance(node, list):
            left += node
    return len(targets) != len(set(targets))


def told(schema: Any, reply: Any) -> str | None:
    """What does not fit; None if all does. Blocks; use it in a thread. Raises TimeoutError."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", __name__],
            input=json.dumps([schema, reply], ensure_ascii=False).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=SECONDS,
            check=True,
            env=privacy.environment(),
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError from None
    except (OSError, subprocess.SubprocessError):
        return "$: it does not fit the schema"
    return done.stdout.decode() or None


def _main() -> None:
    schema, reply = json.load(sys.stdin.buffer)
    errors = islice(validator(schema).iter_errors(reply), 5)
    told = "; ".join(f"{_path(error.instance_path)}: {error.message[:LONGEST]}" for error in errors)
    sys.stdout.buffer.write(told.encode(errors="replace"))


def _path(place: list[str | int]) -> str:
    return "$" + "".join(
        f".{one}" if isinstance(one, str) and one.isidentifier() else f"[{one!r}]" for one in place
    )


if __name__ == "__main__":
    _main()
