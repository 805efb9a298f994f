"""The command `llmbackend`: the server, the models, and the client's calls for the terminal (docs/terminal.md)."""

from __future__ import annotations

import gc
import sys
from typing import Annotated

import typer

from .. import LLMBackendError, __version__
from . import agents, asking, backup, collections, doctor, jobs, keys, models, serving, usage
from .shared import out, tell

app = typer.Typer(
    help="Chat, embeddings, RAG and jobs: in this process, or on a server given by --url or LLM_BACKEND_URL.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for part in (serving, asking, collections, jobs, agents, keys, usage, doctor, backup, models):
    part.add_to(app)


def main() -> None:
    """Run the command; an LLMBackendError is one line on stderr and exit code 1."""
    try:
        app()
    except LLMBackendError as error:
        tell(error, as_json="--json" in sys.argv)
        raise SystemExit(1) from None
    finally:
        gc.freeze()  # so that the interpreter ends without collecting all that was imported: .8 s


def _version(wanted: bool) -> None:
    if wanted:
        out.print(__version__, highlight=False)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, help="Print the version.")] = False,
) -> None:
    pass
