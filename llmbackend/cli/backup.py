"""`llmbackend backup` and `llmbackend restore`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .. import logs, privacy, settings
from ..text.visible import visible
from .shared import AsJson, Key, Url, bar, connected, errors, out, print_json, size


def add_to(app: typer.Typer) -> None:
    app.command()(backup)
    app.command()(restore)


def backup(
    keep: Annotated[
        int | None, typer.Option(min=1, help="Keep this many backups, this one included.")
    ] = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Save all collections, jobs, schedules and keys in one file in BACKUP_DIR, without interrupting anything."""
    with connected(url, key) as client, bar() as progress:
        job = client.submit_job("backup", {"keep": keep})
        made = client.wait_for_job(job, progress=progress)
    if as_json:
        print_json(made)
        raise typer.Exit(1 if made["left_out"] else 0)
    for one in made["left_out"]:
        line = visible(f"not in it: collection {one['collection']!r}, for {one['error']}")
        errors.print(line, style="red", highlight=False, soft_wrap=True)
    told = (
        f"{made['file']}: {made['collections']} collections, {made['chunks']} chunks, {made['rows']} rows, "
    )
    out.print(f"{told}{size(made['bytes'])}", highlight=False, soft_wrap=True)
    if made["left_out"]:
        raise typer.Exit(1)


def restore(file: Annotated[Path, typer.Argument(help="A file made by `llmbackend backup`.")]) -> None:
    """Restore a backup into an empty DATA_DIR (and DATABASE_URL, and QDRANT_URL): all of it or nothing."""
    import asyncio

    from ..restore import restore

    privacy.keep()
    options = settings.load()
    logs.write(options.log_level, options.log_format)
    with bar() as progress:

        def tell(stage: str, done: int, total: int) -> None:
            progress({"stage": stage, "done": done, "total": total})

        there = asyncio.run(restore(file, options, tell))
    told = f"{there['collections']} collections, {there['chunks']} chunks, {there['rows']} rows"
    out.print(f"{told} are in {options.data_dir}", highlight=False, soft_wrap=True)
