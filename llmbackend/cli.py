"""The command `llmbackend`: the server, the models, and the client's calls for the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from . import (
    CreatedKey,
    InvalidRequest,
    LLMBackendClient,
    LLMBackendError,
    __version__,
    logs,
    privacy,
    settings,
)

app = typer.Typer(
    help="Chat, embeddings, RAG and jobs: in this process, or on a server given by --url or LLM_BACKEND_URL.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
# Names and texts are shown as they are: brackets and colons in them mean nothing.
out = Console(markup=False, emoji=False)
errors = Console(stderr=True, markup=False, emoji=False)
# What a terminal would act on: escape sequences, which make links and more, and marks that turn text around.
_UNSHOWN = {
    code: None
    for code in (
        *range(0x20),
        *range(0x7F, 0xA0),
        0x61C,
        0x200E,
        0x200F,
        *range(0x202A, 0x202F),
        *range(0x2066, 0x206A),
    )
    if chr(code) not in "\t\n"
}

Url = Annotated[str | None, typer.Option(help="The server; without it, this process does the work.")]
Key = Annotated[str | None, typer.Option(help="The server's API key, if LLM_BACKEND_API_KEY does not tell.")]


def main() -> None:
    """Run the command; an error of ours is one line on stderr and exit code 1."""
    try:
        app()
    except LLMBackendError as error:
        line = _shown(f"{error.code}: {error.message}")
        errors.print(line, style="red", highlight=False, soft_wrap=True)
        raise SystemExit(1) from None


@contextmanager
def _client(url: str | None, key: str | None) -> Iterator[LLMBackendClient]:
    with LLMBackendClient(url, key) as client:
        yield client


@contextmanager
def _bar() -> Iterator[Any]:
    """A progress bar, as the SDK's `progress=` wants it."""
    columns = (
        TextColumn("{task.description:<10}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=errors, transient=True) as progress:
        task = progress.add_task("", total=None)

        def step(state: Any) -> None:
            progress.update(
                task,
                description=state["stage"],
                completed=state["done"],
                total=state["total"] or None,
            )

        yield step


def _version(wanted: bool) -> None:
    if wanted:
        out.print(__version__, highlight=False)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, help="Print the version.")] = False,
) -> None:
    pass


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Beyond 127.0.0.1 only with an API_KEY set.")] = None,
    port: Annotated[int | None, typer.Option(help="0 lets the system choose.")] = None,
) -> None:
    """Serve the operations over HTTP (port 8888 unless PORT says otherwise)."""
    from .server.app import run

    privacy.keep()
    given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    options = settings.load(**given)
    logs.write(options.log_level, options.log_format)

    def started(url: str) -> None:
        guarded = "with an API key" if options.callers else "without an API key, for this machine only"
        errors.print(f"llmbackend {__version__} answers at {url} {guarded}", highlight=False, soft_wrap=True)

    run(options, started)


@app.command()
def worker(
    concurrency: Annotated[
        int | None, typer.Option(min=1, max=64, help="Jobs at work at once (WORKERS, else 2).")
    ] = None,
) -> None:
    """Do jobs of the server on the same DATA_DIR, or of all on the same DATABASE_URL."""
    from .worker_process import run

    privacy.keep()
    options = settings.load()
    options = options.model_copy(update={"workers": concurrency or options.workers or 2})
    logs.write(options.log_level, options.log_format)

    def started(folder: str) -> None:
        errors.print(f"llmbackend {__version__} works on jobs, in {folder}", highlight=False, soft_wrap=True)

    run(options, started)


@app.command()
def demo() -> None:
    """Show the main job on the documents that come along: in this process first, then over HTTP."""
    from .demo import run

    run(Console())


@app.command()
def chat(
    message: str,
    system: Annotated[str | None, typer.Option(help="How the model should behave.")] = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Ask the chat model; the reply appears as it is written."""
    with _client(url, key) as client:
        for piece in client.chat(message, system=system, stream=True):
            out.out(_shown(piece), end="", highlight=False)
        out.line()


@app.command()
def ingest(
    collection: str,
    paths: Annotated[list[Path], typer.Argument(exists=True, help="Files, or folders of files.")],
    sync: Annotated[bool, typer.Option(help="Remove documents that are not among these.")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Only tell what would be done.")] = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Put files into a collection."""
    with _client(url, key) as client, _bar() as bar:
        report = client.rag_ingest_files(paths, collection, sync=sync, plan=plan, progress=bar)
    _print_record(report)
    if report["failed"]:
        raise typer.Exit(1)


@app.command()
def query(
    collection: str,
    question: str,
    top_k: Annotated[int, typer.Option(help="How many passages to find.")] = 5,
    retriever: Annotated[str | None, typer.Option(help="A project's own, in place of the search.")] = None,
    postprocessor: Annotated[
        list[str] | None,
        typer.Option(help="A project's own, on what was found; several, one after the other."),
    ] = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Answer a question from a collection, with sources."""
    with _client(url, key) as client:
        stream = client.rag_query(
            question,
            collection,
            top_k=top_k,
            retriever=retriever,
            postprocessors=postprocessor or None,
            stream=True,
        )
        for piece in stream:
            out.out(_shown(piece), end="", highlight=False)
        out.line(2)
        for source in stream.sources:
            out.print(_shown(f"[{source.number}] {source.document_id}"), style="bold", highlight=False)
            out.print(_shown(f"    {source.quote}"), highlight=False)


@app.command()
def evaluate(
    collection: str,
    questions: Annotated[
        Path,
        typer.Argument(exists=True, dir_okay=False, help='Lines such as {"question": "…", "gold": "id"}.'),
    ],
    k: Annotated[int, typer.Option(help="How many documents count.")] = 10,
    worst: Annotated[int, typer.Option(help="How many of the worst questions to show.")] = 5,
    url: Url = None,
    key: Key = None,
) -> None:
    """Measure how well a collection's search finds what answers some questions."""
    with _client(url, key) as client, _bar() as bar:
        result = client.evaluate(collection, _lines(questions), k=k, progress=bar)
    table = _table("mode", f"recall@{k}", f"MRR@{k}", f"nDCG@{k}", "ms")
    for one in result.scores:
        table.add_row(
            one.mode, *(f"{value:.3f}" for value in (one.recall, one.mrr, one.ndcg)), f"{one.ms:.1f}"
        )
    out.print(table)
    for one in result.worst(worst):
        if one.ndcg.hybrid < 1:
            rank = one.ranks.hybrid or f"not in {k}"
            line = f"{one.question}  {', '.join(one.gold)}: {rank}, first is {one.first.hybrid or 'nothing'}"
            out.print(_shown(line), highlight=False, soft_wrap=True)


@app.command()
def jobs(
    status: Annotated[str | None, typer.Option(help="queued, running, completed, failed, cancelled")] = None,
    limit: int = 20,
    url: Url = None,
    key: Key = None,
) -> None:
    """List the newest jobs."""
    table = _table("id", "type", "status", "progress", "created")
    with _client(url, key) as client:
        for job in client.list_jobs(status=status, limit=limit):
            done = f"{job.progress.done}/{job.progress.total} {job.progress.stage}"
            table.add_row(*map(_shown, (job.id, job.type, job.status, done, job.created_at)))
    out.print(table)


agents = typer.Typer(help="Agents: tasks done in steps, with tools.", no_args_is_help=True)
app.add_typer(agents, name="agent")


@agents.command("list")
def list_agents(url: Url = None, key: Key = None) -> None:
    """List the agents, those that come along and a project's own."""
    table = _table("agent", "own", "about")
    with _client(url, key) as client:
        for one in client.list_agents().agents:
            table.add_row(*map(_shown, (one.name, "yes" if one.own else "", one.description)))
    out.print(table)


@agents.command("run")
def run_agent(
    agent: str,
    task: Annotated[str, typer.Argument(help="What is to be done, or asked.")] = "",
    collection: Annotated[
        list[str] | None, typer.Option(help="That it may use; several by repeating it.")
    ] = None,
    tool: Annotated[list[str] | None, typer.Option(help="That it may call; several by repeating it.")] = None,
    input: Annotated[
        str | None, typer.Option(help="What it takes in a shape of its own, as JSON; @file reads it.")
    ] = None,
    approve: Annotated[bool, typer.Option(help="Have calls that write wait for `agent approve`.")] = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Have an agent do a task: its answer, or its output as JSON, on stdout; its steps on stderr."""
    try:
        given = None
        if input is not None:
            given = json.loads(Path(input[1:]).read_text("utf-8") if input.startswith("@") else input)
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"--input: {error}") from error
    with _client(url, key) as client:
        stream = client.run_agent(
            task,
            agent=agent,
            collections=collection or None,
            tools=tool or None,
            input=given,
            approve="writes" if approve else None,
            stream=True,
        )
        with stream:
            for event in stream:
                if event.type == "tool_call":
                    said = f"{event.tool} {json.dumps(event.arguments, ensure_ascii=False)}"
                    errors.print(_shown(said[:500]), style="dim", highlight=False, soft_wrap=True)
        run = stream.run
    for note in run.notes:
        errors.print(_shown(note), style="dim", highlight=False, soft_wrap=True)
    if run.status == "needs_approval":
        for one in run.pending:
            errors.print(
                _shown(f"waits: {one.tool} {json.dumps(one.arguments, ensure_ascii=False)}"), soft_wrap=True
            )
        out.print(run.run_id, highlight=False)
        return
    said = run.answer if run.output is None else json.dumps(run.output, ensure_ascii=False, indent=2)
    out.out(_shown(said), highlight=False)
    for source in run.sources:
        if source.number in run.citations:
            place = f"[{source.number}] {source.collection}: {source.document_id} #{source.chunk}"
            errors.print(_shown(place), style="dim", highlight=False, soft_wrap=True)


@agents.command("approve")
def approve(run_id: str, url: Url = None, key: Key = None) -> None:
    """Have a run do what it waits for, and go on."""
    with _client(url, key) as client:
        out.print(client.approve(run_id).status, highlight=False)


@agents.command("reject")
def reject(
    run_id: str,
    why: Annotated[str, typer.Option(help="What the agent is told.")] = "",
    url: Url = None,
    key: Key = None,
) -> None:
    """Refuse what a run waits for; it goes on without."""
    with _client(url, key) as client:
        out.print(client.reject(run_id, why=why).status, highlight=False)


keys = typer.Typer(help="API keys of projects.", no_args_is_help=True)
app.add_typer(keys, name="keys")


@keys.command("create")
def create_key(
    project: Annotated[
        str | None, typer.Option(help="Another than the caller's: the administrator's.")
    ] = None,
    can: Annotated[str | None, typer.Option(help="As in read,write,jobs,chat,admin.")] = None,
    collections: Annotated[
        str | None, typer.Option(help="Their names, with commas between; * stands for anything.")
    ] = None,
    models: Annotated[str | None, typer.Option(help="Their names, with commas between.")] = None,
    expires: Annotated[str | None, typer.Option(help="As in 90d, 12h or 30min.")] = None,
    rate: Annotated[str | None, typer.Option(help="Requests, as in 60/min.")] = None,
    concurrent: Annotated[int | None, typer.Option(help="Requests under way at once.")] = None,
    tokens: Annotated[str | None, typer.Option(help="As in 1M/day or 1M/day,20M/month.")] = None,
    note: Annotated[str, typer.Option(help="For whoever reads the list.")] = "",
    url: Url = None,
    key: Key = None,
) -> None:
    """Make an API key, and print it: it is not told again."""
    with _client(url, key) as client:
        created = client.create_key(
            project=project,
            can=_parts(can),
            collections=_parts(collections),
            models=_parts(models),
            expires=expires,
            rate=rate,
            concurrent=concurrent,
            tokens=tokens,
            note=note,
        )
    _print_key(created)


@keys.command("list")
def list_keys(
    project: Annotated[str | None, typer.Option(help="Of this project only.")] = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """List the API keys, without their secrets."""
    table = _table("id", "project", "may", "limits", "ends", "used", "note")
    with _client(url, key) as client:
        for one in client.list_keys(project=project):
            at_once = f"{one.concurrent} at once" if one.concurrent else None
            limits = [limit for limit in (one.rate, at_once, one.tokens) if limit]
            ends = f"revoked {one.revoked_at[:10]}" if one.revoked_at else (one.expires_at or "")[:10]
            may = [", ".join(one.can)]
            for what, names in (("collections", one.collections), ("models", one.models)):
                may += [f"{what} {', '.join(names)}"] if names != ["*"] else []
            row = ("\n".join(may), ", ".join(limits), ends, (one.last_used_at or "")[:16], one.note)
            table.add_row(*map(_shown, (one.id, one.project, *row)))
    out.print(table)


@keys.command("rotate")
def rotate_key(
    id: Annotated[str, typer.Argument(help="What the key begins with, as in the list.")],
    overlap: Annotated[str, typer.Option(help="For which the secret before still counts.")] = "1h",
    url: Url = None,
    key: Key = None,
) -> None:
    """Give an API key another secret, and print it."""
    with _client(url, key) as client:
        rotated = client.rotate_key(id, overlap=overlap)
    _print_key(rotated)


@keys.command("revoke")
def revoke_key(
    id: Annotated[str, typer.Argument(help="What the key begins with, as in the list.")],
    url: Url = None,
    key: Key = None,
) -> None:
    """Have an API key count no more."""
    with _client(url, key) as client:
        revoked = client.revoke_key(id)
    errors.print(f"{revoked.id} counts no more", highlight=False)


def _parts(text: str | None) -> list[str] | None:
    return [part.strip() for part in text.split(",") if part.strip()] if text is not None else None


def _print_key(created: CreatedKey) -> None:
    out.print(created["key"], highlight=False, soft_wrap=True)
    errors.print(f"{created.id} of project {created.project}: it is not told again", highlight=False)


@app.command()
def audit(
    since: Annotated[str, typer.Option(help="So many days, as in 7d, or the first day.")] = "30d",
    action: Annotated[str | None, typer.Option(help="An operation such as revoke_key, or refused.")] = None,
    limit: int = 100,
    url: Url = None,
    key: Key = None,
) -> None:
    """List who changed keys, deleted, shared, exported or was refused."""
    table = _table("at", "project", "caller", "client", "action", "target", "outcome", "request")
    with _client(url, key) as client:
        for one in client.audit(since=since, action=action, limit=limit):
            row = (one.at, one.project, one.caller, one.client, one.action, one.target, one.outcome)
            table.add_row(*map(_shown, (*row, one.request_id)))
    out.print(table)


@app.command()
def usage(
    by: Annotated[str, typer.Option(help="Some of project, key, model, operation, day.")] = "project,model",
    since: Annotated[str, typer.Option(help="So many days, as in 7d, or the first day.")] = "30d",
    until: Annotated[str | None, typer.Option(help="The last day.")] = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Tell who used how many tokens, requests and milliseconds."""
    with _client(url, key) as client:
        rows = client.usage(by=by, since=since, until=until)
    table = Table()
    for name in rows[0] if rows else ():
        table.add_column(name, justify="left" if name in by.split(",") else "right", overflow="fold")
    for row in rows:
        table.add_row(
            *(
                f"{cell:,.4g}"
                if isinstance(cell, float)
                else _shown(f"{cell:,}" if isinstance(cell, int) else str(cell))
                for cell in row.values()
            )
        )
    out.print(table if rows else "nothing was used")


@app.command()
def doctor(url: Url = None, key: Key = None) -> None:
    """Check each model server, the embedded models and the data directory; exit code 1 if something is wrong."""
    table = _table("part", "server", "models", "limits", "ms", "")
    with _client(url, key) as client:
        result = client.doctor()
    for check in result.checks:
        server = f"{check.server} {check.version or ''}\n{check.url or ''}".strip()
        limits = "\n".join(f"{name} {value}" for name, value in check.limits.items())
        models = check.models[:5] + ["…"] * (len(check.models) > 5)
        verdict = Text("ok", "green") if check.ok else Text("failed", "red")
        row = (check.name, server, "\n".join(models), limits, f"{check.latency_ms:.0f}")
        table.add_row(*map(_shown, row), verdict)
    out.print(table)
    for check in result.checks:
        if check.fix:
            line = _shown(f"{check.name}: {check.fix}")
            out.print(line, style="yellow" if check.ok else "red", highlight=False, soft_wrap=True)
    if not result.ok:
        raise typer.Exit(1)


@app.command()
def backup(
    keep: Annotated[
        int | None, typer.Option(min=1, help="Of older backups, this one among them, so many stay.")
    ] = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Save all collections, jobs, schedules and keys in one file in BACKUP_DIR, while everything goes on."""
    with _client(url, key) as client, _bar() as bar:
        job = client.submit_job("backup", {"keep": keep})
        made = client.wait_for_job(job, progress=bar)
    for one in made["left_out"]:
        line = _shown(f"not in it: collection {one['collection']!r}, for {one['error']}")
        errors.print(line, style="red", highlight=False, soft_wrap=True)
    told = (
        f"{made['file']}: {made['collections']} collections, {made['chunks']} chunks, {made['rows']} rows, "
    )
    out.print(f"{told}{_size(made['bytes'])}", highlight=False, soft_wrap=True)
    if made["left_out"]:
        raise typer.Exit(1)


@app.command()
def restore(file: Annotated[Path, typer.Argument(help="What `llmbackend backup` made.")]) -> None:
    """Take a backup into an empty DATA_DIR (and DATABASE_URL, and QDRANT_URL): all of it, or nothing."""
    import asyncio

    from .restore import restore

    privacy.keep()
    options = settings.load()
    logs.write(options.log_level, options.log_format)
    with _bar() as bar:

        def tell(stage: str, done: int, total: int) -> None:
            bar({"stage": stage, "done": done, "total": total})

        there = asyncio.run(restore(file, options, tell))
    told = f"{there['collections']} collections, {there['chunks']} chunks, {there['rows']} rows"
    out.print(f"{told} are in {options.data_dir}", highlight=False, soft_wrap=True)


models = typer.Typer(help="List the models, or download those that are embedded.")
app.add_typer(models, name="models")


@models.callback(invoke_without_command=True)
def _models(context: typer.Context, url: Url = None, key: Key = None) -> None:
    if context.invoked_subcommand is None:
        table = _table("id", "type")
        with _client(url, key) as client:
            for model in client.models():
                table.add_row(_shown(model.id), model.type)
        out.print(table)


@models.command("list")
def list_local() -> None:
    """List the local models: what each is for, takes and costs, which are here, and which are used."""
    from .inference import catalogue, weights
    from .inference.models_folder import DEFAULTS, ModelsFolder
    from .inference.static_vectors import StaticEmbedder

    folder = ModelsFolder(settings.load().models_path)
    here = {local.name: local for local in folder.here()}
    used = {folder.chosen(task) or DEFAULTS.get(task) for task in ("chat", "embeddings", "rerank")}
    table = Table("model", "for", "download", "memory", "here")

    def add(name: str, use: str, task: str, size: int, memory_mb: int, is_here: bool) -> None:
        state = "used" if is_here and name in used else "yes" if is_here else "no"
        memory = _size(memory_mb * 10**6) if memory_mb else ""
        table.add_row(f"{_shown(name)}\n  {use}", task, _size(size), memory, state)

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


@models.command()
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
    from .inference import weights
    from .inference.models_folder import ModelsFolder

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
            raise typer.Exit(130) from None
    out.print(f"{local.name} is at {local.folder}", highlight=False, soft_wrap=True)
    _tell_use(local.name, local.task)


@models.command()
def use(name: Annotated[str, typer.Argument(help="A model that is here.")]) -> None:
    """Use a model that is here from the next start on."""
    from .inference.models_folder import ModelsFolder

    _tell_use(name, ModelsFolder(settings.load().models_path).choose(name))


def _tell_use(name: str, task: str) -> None:
    told = {
        "chat": "it chats from the next start on, where no server is set to and CHAT_MODEL names no other",
        "rerank": "it reranks from the next start on, where no server is set to and RERANK_MODEL names no other",
        "embeddings": "it embeds from the next start on, where TEI_URL and EMBEDDING_MODEL name no other; collections "
        "that another model made take no vectors of it until they are reindexed (reindex_collection)",
    }[task]
    out.print(f"{_shown(name)}: {told}", highlight=False, soft_wrap=True)


def _size(size: int) -> str:
    return f"{size / 10**6:,.0f} MB" if size < 10**9 else f"{size / 10**9:.1f} GB"


@app.command()
def openapi() -> None:
    """Print the OpenAPI document."""
    from .server.openapi import document

    out.out(json.dumps(document(), indent=2), highlight=False)


def _lines(path: Path) -> list[dict[str, Any]]:
    """The questions in a file: one JSON object a line, of which `question` and `gold` count."""
    found: list[dict[str, Any]] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise typer.BadParameter(f"{path} is not UTF-8 text") from None
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                one = json.loads(line)
                found.append({"question": one["question"], "gold": one["gold"]})
            except (ValueError, KeyError, TypeError):
                message = f'{path}, line {number}: needs {{"question": "…", "gold": "a document\'s id"}}'
                raise typer.BadParameter(message) from None
    return found


def _print_record(record: dict[str, Any]) -> None:
    table = Table(show_header=False)
    for name, value in record.items():
        if isinstance(value, list):
            value = (
                "\n".join(f"{item['id']}: {item.get('error') or item['warning']}" for item in value) or "none"
            )
        table.add_row(name, _shown(str(value)))
    out.print(table)


def _table(*headings: str) -> Table:
    """Cells are folded where there is no room, and none is cut; what the first column has can be copied."""
    table = Table()
    for number, heading in enumerate(headings):
        table.add_column(heading, overflow="fold", no_wrap=number == 0)
    return table


def _shown(text: str) -> str:
    """The text without what a terminal would act on."""
    return text.translate(_UNSHOWN)
