"""`llmbackend usage` and `llmbackend audit`: who used what, and who did what."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from .shared import AsJson, Key, Url, connected, out, print_json, shown, table_of


def add_to(app: typer.Typer) -> None:
    app.command()(usage)
    app.command()(audit)


def audit(
    since: Annotated[str, typer.Option(help="So many days, as in 7d, or the first day.")] = "30d",
    action: Annotated[str | None, typer.Option(help="An operation such as revoke_key, or refused.")] = None,
    limit: int = 100,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List who changed keys, deleted, shared, exported or was refused."""
    with connected(url, key) as client:
        entries = client.audit(since=since, action=action, limit=limit)
    if as_json:
        return print_json(entries)
    table = table_of("at", "project", "caller", "client", "action", "target", "outcome", "request")
    for one in entries:
        row = (one.at, one.project, one.caller, one.client, one.action, one.target, one.outcome)
        table.add_row(*map(shown, (*row, one.request_id)))
    out.print(table)


def usage(
    by: Annotated[str, typer.Option(help="Some of project, key, model, operation, day.")] = "project,model",
    since: Annotated[str, typer.Option(help="So many days, as in 7d, or the first day.")] = "30d",
    until: Annotated[str | None, typer.Option(help="The last day.")] = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Tell who used how many tokens, requests and milliseconds."""
    with connected(url, key) as client:
        rows = client.usage(by=by, since=since, until=until)
    if as_json:
        return print_json(rows)
    table = Table()
    for name in rows[0] if rows else ():
        table.add_column(name, justify="left" if name in by.split(",") else "right", overflow="fold")
    for row in rows:
        table.add_row(
            *(
                f"{cell:,.4g}"
                if isinstance(cell, float)
                else shown(f"{cell:,}" if isinstance(cell, int) else str(cell))
                for cell in row.values()
            )
        )
    out.print(table if rows else "nothing was used")
