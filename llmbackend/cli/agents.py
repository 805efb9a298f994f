"""`llmbackend agent`: list and run agents, and decide what they wait for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .. import InvalidRequest
from ..text.visible import visible
from .shared import AsJson, Key, Url, connected, errors, out, print_json, print_table, print_waiting

app = typer.Typer(help="List and run agents, which work on tasks in steps, with tools.", no_args_is_help=True)


def add_to(command: typer.Typer) -> None:
    command.add_typer(app, name="agent")


@app.command("list")
def list_agents(url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """List the agents, built in and a project's own."""
    with connected(url, key) as client:
        found = client.list_agents().agents
    if as_json:
        return print_json(found)
    rows = [(one.name, "yes" if one.own else "", one.description) for one in found]
    return print_table(("agent", "own", "about"), rows, "there are no agents")


@app.command("run")
def run_agent(
    agent: str,
    task: Annotated[str, typer.Argument(help="The task, or the question.")] = "",
    collection: Annotated[
        list[str] | None, typer.Option(help="A collection it may use; repeat for several.")
    ] = None,
    tool: Annotated[list[str] | None, typer.Option(help="A tool it may call; repeat for several.")] = None,
    input: Annotated[
        str | None, typer.Option(help="Its structured input, as JSON; @FILE reads it from a file.")
    ] = None,
    file: Annotated[
        list[Path] | None,
        typer.Option(help="A file or folder for the analyst; repeat for several."),
    ] = None,
    table: Annotated[
        Path | None, typer.Option(help="Write the analyst's table to this .jsonl or .parquet file.")
    ] = None,
    approve: Annotated[bool, typer.Option(help="Let calls that write wait for `agent approve`.")] = False,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Run an agent; prints its answer, or its output as JSON, on stdout and its steps on stderr."""
    try:
        given = None
        if input is not None:
            given = json.loads(Path(input[1:]).read_text("utf-8") if input.startswith("@") else input)
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"--input: {error}") from error
    if file:
        given = {**(given or {}), "files": list(map(str, file))}
    if table is not None and table.suffix not in (".jsonl", ".parquet"):
        raise InvalidRequest(f"--table: {table} is neither a .jsonl nor a .parquet file")
    with connected(url, key) as client:
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
                    errors.print(visible(said[:500]), style="dim", highlight=False, soft_wrap=True)
        run = stream.run
    if table is not None and run.output is not None:
        rows = run.table()
        count = f"{len(rows)} row{'' if len(rows) == 1 else 's'}"
        (rows.to_parquet if table.suffix == ".parquet" else rows.to_jsonl)(table)
        errors.print(visible(f"{table} has the table: {count}"), highlight=False, soft_wrap=True)
    if as_json:
        return print_json(run)
    for note in run.notes:
        errors.print(visible(note), style="dim", highlight=False, soft_wrap=True)
    if run.status == "needs_approval":
        print_waiting(run.pending)
        return out.print(run.run_id, highlight=False)
    said = run.answer if run.output is None else json.dumps(run.output, ensure_ascii=False, indent=2)
    out.out(visible(said), highlight=False)
    for source in run.sources:
        if source.number in run.citations:
            place = f"[{source.number}] {source.collection}: {source.document_id} #{source.chunk}"
            errors.print(visible(place), style="dim", highlight=False, soft_wrap=True)
    return None


@app.command("approve")
def approve(run_id: str, url: Url = None, key: Key = None) -> None:
    """Approve the calls that a run waits for; it continues."""
    with connected(url, key) as client:
        out.print(client.approve(run_id).status, highlight=False)


@app.command("reject")
def reject(
    run_id: str,
    why: Annotated[str, typer.Option(help="The reason, for the agent.")] = "",
    url: Url = None,
    key: Key = None,
) -> None:
    """Reject the calls that a run waits for; it continues without them."""
    with connected(url, key) as client:
        out.print(client.reject(run_id, why=why).status, highlight=False)
