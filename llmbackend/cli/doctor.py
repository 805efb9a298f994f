"""`llmbackend doctor`: what works, and what to do if something does not."""

from __future__ import annotations

import typer
from rich.text import Text

from ..notebook.wording import limits
from ..text.visible import visible
from .shared import AsJson, Key, Url, connected, out, print_json, print_table


def add_to(app: typer.Typer) -> None:
    app.command()(doctor)


def doctor(url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Check each model server, the embedded models and the data directory; exit code 1 if something is wrong."""
    with connected(url, key) as client:
        result = client.doctor()
    if as_json:
        print_json(result)
        raise typer.Exit(0 if result.ok else 1)
    rows: list[list[str | Text]] = []
    for check in result.checks:
        server = f"{check.server} {check.version or ''}\n{check.url or ''}".strip()
        verdict = Text("ok", "green") if check.ok else Text("failed", "red")
        told = "\n".join(limits(check.limits))
        rows.append([check.name, server, "\n".join(check.models), told, f"{check.latency_ms:.0f}", verdict])
    print_table(("part", "server", "models", "limits", "ms", ""), rows, "")
    for check in result.checks:
        if check.fix:
            line = visible(f"{check.name}: {check.fix}")
            out.print(line, style="yellow" if check.ok else "red", highlight=False, soft_wrap=True)
    if not result.ok:
        raise typer.Exit(1)
