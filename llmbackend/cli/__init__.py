"""The command `llmbackend`: the server, the models, and the client's calls for the terminal (docs/terminal.md)."""

from __future__ import annotations

import gc
import sys

from .. import LLMBackendError
from ..importing import uncollected


def main() -> None:
    """Run the command; an LLMBackendError is one line on stderr and exit code 1."""
    with uncollected():
        from .commands import app
        from .shared import tell
    try:
        app()
    except LLMBackendError as error:
        tell(error, as_json="--json" in sys.argv)
        raise SystemExit(1) from None
    finally:
        gc.freeze()  # so that the interpreter ends without collecting all that was imported: .8 s
