"""`llmbackend init`, `serve`, `worker`, `demo` and `openapi`."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from .. import LLMBackendError, __version__, logs, privacy, settings
from ..errors import Conflict
from .shared import errors, out


def add_to(app: typer.Typer) -> None:
    for command in (init, serve, worker, demo, openapi):
        app.command()(command)


def init(
    file: Annotated[Path, typer.Argument(help="The file to write; settings are read from .env.")] = Path(
        ".env"
    ),
) -> None:
    """Write a commented settings file with a new API key."""
    text = (Path(__file__).parent / "settings.env").read_text(encoding="utf-8")
    try:
        with file.open("x", encoding="utf-8") as made:
            file.chmod(0o600)
            made.write(text.replace("{key}", secrets.token_urlsafe(32)))
    except FileExistsError:
        raise Conflict(f"{file} exists already and is left as it is") from None
    except OSError as error:
        raise LLMBackendError(f"{file} cannot be written: {error.strerror or error}") from None
    out.print(f"wrote {file}: `llmbackend serve` reads it", highlight=False, soft_wrap=True)


def serve(
    host: Annotated[str | None, typer.Option(help="Other than 127.0.0.1 needs an API_KEY.")] = None,
    port: Annotated[int | None, typer.Option(help="0 lets the system choose.")] = None,
) -> None:
    """Serve the API over HTTP (port 8888 unless PORT says otherwise)."""
    from ..server.running import run

    privacy.keep()
    given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    options = settings.load(**given)
    logs.write(options.log_level, options.log_format)

    def started(url: str) -> None:
        guarded = "with an API key" if options.callers else "without an API key, for this machine only"
        errors.print(f"llmbackend {__version__} answers at {url} {guarded}", highlight=False, soft_wrap=True)

    run(options, started)


def worker(
    concurrency: Annotated[
        int | None, typer.Option(min=1, max=64, help="Jobs running at once (default WORKERS, or 2).")
    ] = None,
) -> None:
    """Run the jobs of the server on the same DATA_DIR, or of all servers on the same DATABASE_URL."""
    from ..worker_process import run

    privacy.keep()
    options = settings.load()
    options = options.model_copy(update={"workers": concurrency or options.workers or 2})
    logs.write(options.log_level, options.log_format)

    def started(folder: str) -> None:
        errors.print(f"llmbackend {__version__} works on jobs, in {folder}", highlight=False, soft_wrap=True)

    run(options, started)


def demo() -> None:
    """Show the main features on sample documents: in this process first, then over HTTP."""
    from ..demo import run

    run(Console())


def openapi() -> None:
    """Print the OpenAPI document."""
    from ..server.openapi import document

    out.out(json.dumps(document(), indent=2), highlight=False)
