"""`llmbackend usage` and `llmbackend audit`: who used what, and who did what."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.text import Text

from ..notebook.wording import decimal
from .shared import AsJson, Key, Url, connected, print_json, print_table


def add_to(app: typer.Typer) -> None:
    app.command()(usage)
    app.command()(audit)


def audit(
    since: Annotated[str, typer.Option(help="A number of days, such as 7d, or the first day.")] = "30d",
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
    headings = ("at", "project", "caller", "client", "action", "target", "outcome", "request")
    names = (*headings[:-1], "request_id")
    return print_table(headings, [[str(one[name]) for name in names] for one in entries], "nothing was done")


def usage(
    by: Annotated[str, typer.Option(help="Any of project,key,model,operation,day.")] = "project,model",
    since: Annotated[str, typer.Option(help="A number of days, such as 7d, or the first day.")] = "30d",
    until: Annotated[str | None, typer.Option(help="The last day.")] = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Show who used how many tokens, requests and milliseconds."""
    with connected(url, key) as client:
        rows = client.usage(by=by, since=since, until=until)
    if as_json:
        return print_json(rows)
    names = [name for name in (rows[0] if rows else ()) if any(row[name] != 0 for row in rows)]
    cells = [[_cell(row[name]) for name in names] for row in rows]
    return print_table([name.replace("_", " ") for name in names], cells, "nothing was used")


def _cell(value: Any) -> str | Text:
    """A number or a name; a dash if there is none, as for calls that asked no model."""
    return Text(decimal(value), justify="right") if isinstance(value, int | float) else str(value or "–")
