"""`llmbackend models`: list models, and download and choose local ones."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from .. import settings
from ..text.visible import visible
from .shared import (
    INTERRUPTED,
    AsJson,
    Key,
    Url,
    connected,
    errors,
    out,
    print_json,
    print_table,
    size,
)

app = typer.Typer(help="List the models, or download and choose local ones.")


def add_to(command: typer.Typer) -> None:
    command.add_typer(app, name="models")


@app.callback(invoke_without_command=True)
def _models(context: typer.Context, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    if context.invoked_subcommand is not None:
        return None
    with connected(url, key) as client:
        found = client.models()
    if as_json:
        return print_json(found)
    return print_table(("id", "type"), [(model.id, model.type) for model in found], "there are no models")


@app.command("list")
def list_local() -> None:
    """List the local models: purpose, size and licence, which are installed, and which are in use."""
    from ..inference import catalogue, weights
    from ..inference.models_folder import DEFAULTS, ModelsFolder
    from ..inference.static_vectors import StaticEmbedder

    folder = ModelsFolder(settings.load().models_path)
    here = {local.name: local for local in folder.here()}
    used = {folder.chosen(task) or DEFAULTS.get(task) for task in ("chat", "embeddings", "rerank")}
    table = Table("model", "for", "download", "memory", "here")

    def add(name: str, use: str, task: str, bytes_: int, memory_mb: int, is_here: bool) -> None:
        state = "used" if is_here and name in used else "yes" if is_here else "no"
        memory = size(memory_mb * 10**6) if memory_mb else ""
        table.add_row(f"{visible(name)}\n  {use}", task, size(bytes_), memory, state)

    add(StaticEmbedder().name, "vectors, fast (MIT; in this package)", "embeddings", 0, 100, True)
    for default in weights.ALL:
        there = weights.path_of(default, folder.folder).is_file()
        use = f"{default.use} ({default.license})"
        add(default.model, use, default.task, default.size, default.memory_mb, there)
    for entry in catalogue.ENTRIES:
        there = here.pop(entry.name, None) is not None
        use = f"{entry.use} ({entry.license})"
        add(entry.name, use, entry.task, entry.size, entry.memory_mb, there)
    for local in here.values():
        add(local.name, "your own", local.task, local.size, 0, True)
    out.print(table)
    out.print(
        f"in {folder.folder}; `llmbackend models pull NAME` fetches one", highlight=False, soft_wrap=True
    )


@app.command()
def pull(
    name: Annotated[
        str | None,
        typer.Argument(
            help="A name of `models list`, a .gguf file, a URL or a folder; by default the two small models."
        ),
    ] = None,
    sha256: Annotated[str | None, typer.Option(help="The file's expected checksum.")] = None,
) -> None:
    """Download a model to MODELS_DIR, verify it, and use it from the next start on."""
    from ..inference import weights
    from ..inference.models_folder import ModelsFolder

    options = settings.load()
    folder = options.models_path
    defaults = [one for one in weights.ALL if name is None or one.model.lower() == name.lower()]
    for one in defaults:
        with errors.status(f"{one.model} ({one.license}) into {folder}"):
            path = weights.pull(one, folder, options.disk_reserve_mb)
        out.print(f"{one.model} is at {path}", highlight=False, soft_wrap=True)
    if name is None or defaults:
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=errors, transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def tell(file: str, done: int, total: int | None) -> None:
            if file not in tasks:
                tasks[file] = bar.add_task(file)
            bar.update(tasks[file], completed=done, total=total)

        try:
            local = ModelsFolder(folder).pull(name, options.models_url, tell, sha256, options.disk_reserve_mb)
        except KeyboardInterrupt:
            bar.stop()
            errors.print("stopped: run the same command to continue", style="yellow")
            raise typer.Exit(INTERRUPTED) from None
    out.print(f"{local.name} is at {local.folder}", highlight=False, soft_wrap=True)
    _tell_use(local.name, local.task)


@app.command()
def use(name: Annotated[str, typer.Argument(help="An installed model.")]) -> None:
    """Use an installed model from the next start on."""
    from ..inference.models_folder import ModelsFolder

    _tell_use(name, ModelsFolder(settings.load().models_path).choose(name))


def _tell_use(name: str, task: str) -> None:
    told = {
        "chat": "it is used for chat from the next start on, unless a chat server or another CHAT_MODEL is set",
        "rerank": "it is used for reranking from the next start on, unless a rerank server or another RERANK_MODEL is set",
        "embeddings": "it is used for embeddings from the next start on, unless TEI_URL or another EMBEDDING_MODEL is set; collections "
        "made by another model must be reindexed first (reindex_collection)",
    }[task]
    out.print(f"{visible(name)}: {told}", highlight=False, soft_wrap=True)
