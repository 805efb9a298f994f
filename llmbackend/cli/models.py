"""`llmbackend models`: which there are, and how more come here."""

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
    shown,
    size,
)

app = typer.Typer(help="List the models, or download those that are embedded.")


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
    """List the local models: what each is for, takes and costs, which are here, and which are used."""
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
        table.add_row(f"{shown(name)}\n  {use}", task, size(bytes_), memory, state)

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
            help="One of `models list`, a .gguf file, its address, or a folder; the two small ones if not given."
        ),
    ] = None,
    sha256: Annotated[str | None, typer.Option(help="What the file has to have.")] = None,
) -> None:
    """Fetch a model into MODELS_DIR, verify it, and use it from the next start on."""
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
            errors.print("stopped: the same command goes on from here", style="yellow")
            raise typer.Exit(INTERRUPTED) from None
    out.print(f"{local.name} is at {local.folder}", highlight=False, soft_wrap=True)
    _tell_use(local.name, local.task)


@app.command()
def use(name: Annotated[str, typer.Argument(help="A model that is here.")]) -> None:
    """Use a model that is here from the next start on."""
    from ..inference.models_folder import ModelsFolder

    _tell_use(name, ModelsFolder(settings.load().models_path).choose(name))


def _tell_use(name: str, task: str) -> None:
    told = {
        "chat": "it chats from the next start on, where no server is set to and CHAT_MODEL names no other",
        "rerank": "it reranks from the next start on, where no server is set to and RERANK_MODEL names no other",
        "embeddings": "it embeds from the next start on, where TEI_URL and EMBEDDING_MODEL name no other; collections "
        "that another model made take no vectors of it until they are reindexed (reindex_collection)",
    }[task]
    out.print(f"{shown(name)}: {told}", highlight=False, soft_wrap=True)
