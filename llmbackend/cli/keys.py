"""`llmbackend keys`: create, list, rotate and revoke API keys."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import CreatedKey, InvalidRequest
from .shared import AsJson, Key, Url, connected, errors, out, print_json, print_table

app = typer.Typer(help="Manage the API keys of projects.", no_args_is_help=True)


def add_to(command: typer.Typer) -> None:
    command.add_typer(app, name="keys")


@app.command("create")
def create_key(
    project: Annotated[
        str | None, typer.Option(help="Another project than your own (administrator only).")
    ] = None,
    can: Annotated[str | None, typer.Option(help="Rights, such as read,write,jobs,chat,admin.")] = None,
    collections: Annotated[
        str | None, typer.Option(help="Names separated by commas; * matches anything.")
    ] = None,
    models: Annotated[str | None, typer.Option(help="Names separated by commas; * matches anything.")] = None,
    expires: Annotated[str | None, typer.Option(help="After 90d, 12h or 30min, for example.")] = None,
    rate: Annotated[str | None, typer.Option(help="Requests, such as 60/min.")] = None,
    concurrent: Annotated[int | None, typer.Option(help="Requests in flight.")] = None,
    tokens: Annotated[str | None, typer.Option(help="Tokens, such as 1M/day or 1M/day,20M/month.")] = None,
    jobs: Annotated[int | None, typer.Option(help="Jobs queued or running.")] = None,
    chunks: Annotated[str | None, typer.Option(help="Chunks its project may store, such as 100k.")] = None,
    bytes: Annotated[str | None, typer.Option(help="Bytes its project may store, such as 10G.")] = None,
    note: Annotated[str, typer.Option(help="A note for the list of keys.")] = "",
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Create an API key and print it; it is not shown again."""
    with connected(url, key) as client:
        created = client.create_key(
            project=project,
            can=_parts(can),
            collections=_parts(collections),
            models=_parts(models),
            expires=expires,
            rate=rate,
            concurrent=concurrent,
            tokens=tokens,
            jobs=jobs,
            chunks=chunks,
            bytes=bytes,
            note=note,
        )
    _print_key(created, as_json)


@app.command("list")
def list_keys(
    project: Annotated[str | None, typer.Option(help="Only this project's keys.")] = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List the API keys, without their secrets."""
    with connected(url, key) as client:
        found = client.list_keys(project=project)
    if as_json:
        return print_json(found)
    rows: list[tuple[str, ...]] = []
    for one in found:
        at_once = f"{one.concurrent} at once" if one.concurrent else None
        limits = [limit for limit in (one.rate, at_once, one.tokens) if limit]
        limits += [f"{one[what]:,} {what}" for what in ("jobs", "chunks", "bytes") if one[what]]
        ends = f"revoked {one.revoked_at[:10]}" if one.revoked_at else (one.expires_at or "")[:10]
        may = [", ".join(one.can)]
        for what, names in (("collections", one.collections), ("models", one.models)):
            may += [f"{what} {', '.join(names)}"] if names != ["*"] else []
        row = ("\n".join(may), ", ".join(limits), ends, (one.last_used_at or "")[:16], one.note)
        rows.append((one.id, one.project, *row))
    print_table(("id", "project", "may", "limits", "ends", "used", "note"), rows, "there are no keys")


@app.command("rotate")
def rotate_key(
    id: Annotated[str, typer.Argument(help="The key's id, as in the list.")],
    overlap: Annotated[str, typer.Option(help="How long the old secret still works.")] = "1h",
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Give an API key a new secret and print it."""
    with connected(url, key) as client:
        rotated = client.rotate_key(id, overlap=overlap)
    _print_key(rotated, as_json)


@app.command("revoke")
def revoke_key(
    id: Annotated[str, typer.Argument(help="The key's id, as in the list.")],
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Revoke an API key; takes effect within a second."""
    with connected(url, key) as client:
        revoked = client.revoke_key(id)
    if as_json:
        return print_json(revoked)
    errors.print(f"{revoked.id} is revoked", highlight=False)


@app.command("webhooks")
def webhook_secret(
    project: Annotated[str, typer.Argument(help="The project.")],
) -> None:
    """Print the secret that signs a project's webhooks, for its receivers; derived from WEBHOOK_SECRET."""
    from .. import settings
    from ..outbound import signatures

    secret = settings.load().webhook_secret
    if secret is None:
        raise InvalidRequest("WEBHOOK_SECRET is not set: set the same as the server's")
    own = signatures.of_project(signatures.key(secret.get_secret_value()), project)
    out.print(signatures.written(own), highlight=False, soft_wrap=True)


def _parts(text: str | None) -> list[str] | None:
    return [part.strip() for part in text.split(",") if part.strip()] if text is not None else None


def _print_key(created: CreatedKey, as_json: bool) -> None:
    if as_json:
        return print_json(dict(created))
    out.print(created["key"], highlight=False, soft_wrap=True)
    errors.print(f"{created.id} of project {created.project}: it is not shown again", highlight=False)
