"""`llmbackend ingest`, `collections`, `documents`, `delete`, `reindex`, `export`, `import` and `evaluate`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ..text.visible import visible
from .shared import (
    INTERRUPTED,
    AsJson,
    Collection,
    Key,
    Url,
    bar,
    connected,
    errors,
    object_from,
    out,
    print_json,
    print_record,
    print_table,
)


def add_to(app: typer.Typer) -> None:
    for command in (ingest, collections, documents, delete, reindex, evaluate):
        app.command()(command)
    app.command("export")(export)
    app.command("import")(import_)


def ingest(
    collection: Collection,
    paths: Annotated[list[Path], typer.Argument(exists=True, help="Files, or folders of files.")],
    text: Annotated[
        str | None, typer.Option(help="The column that has the text: each row of a table is a document.")
    ] = None,
    id: Annotated[str | None, typer.Option(help="The column that has the id.")] = None,
    sync: Annotated[bool, typer.Option(help="Remove documents that are not among these.")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Only show what would be done.")] = False,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Put files into a collection, or, with --text, the rows of a .csv, .tsv, .jsonl or .parquet file.

    Exit code 1 if one could not be read.
    """
    if (text or id) and len(paths) != 1:
        raise typer.BadParameter("--text and --id name columns of one file")
    last: dict[str, Any] = {}
    with connected(url, key) as client:
        try:
            with bar() as show:

                def step(state: Any) -> None:
                    last.update(state)
                    show(state)

                given: dict[str, Any] = {"sync": sync, "plan": plan, "progress": step}
                if text or id:
                    report = client.rag_ingest(paths[0], collection, text=text, id=id, **given)
                else:
                    report = client.rag_ingest_files(paths, collection, **given)
        except KeyboardInterrupt:
            done, total = last.get("done") or 0, last.get("total") or 0
            of = "rows" if text or id else "files"
            told = f"{done:,} of {total:,} {of} are in" if total else f"{done or 'none':} of the {of} are in"
            errors.print(f"stopped: {told}; run it again to go on", style="yellow", highlight=False)
            raise typer.Exit(INTERRUPTED) from None
    print_json(report) if as_json else print_record(report)
    if report["failed"]:
        raise typer.Exit(1)


def collections(url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """List the collections."""
    with connected(url, key) as client:
        found = client.list_collections()
    if as_json:
        return print_json(found)
    rows = [
        (one.name, *(f"{one.get(name) or 0:,}" for name in ("documents", "chunks")), one.embedding_model)
        for one in found
        if not one.get("problem")
    ]
    if rows or not found:
        print_table(("name", "documents", "chunks", "model"), rows, "there are no collections")
    for one in found:
        if one.get("problem"):
            line = visible(f"{one.name}: {one.problem}")
            out.print(line, style="red", highlight=False, soft_wrap=True)
    return None


def documents(
    collection: Collection,
    id: Annotated[
        str | None, typer.Argument(help="Print the text of this document.", show_default=False)
    ] = None,
    limit: Annotated[int | None, typer.Option(help="How many; by default all.")] = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List a collection's documents, or print one."""
    with connected(url, key) as client:
        if id is not None:
            document = client.get_document(id, collection)
            if as_json:
                return print_json(document)
            return out.out(visible(document.text), highlight=False)
        found = client.list_documents(collection, limit=limit)
    if as_json:
        return print_json(found)
    rows = [(one.id, f"{one.chunks:,}", json.dumps(one.metadata, ensure_ascii=False)) for one in found]
    return print_table(("id", "chunks", "metadata"), rows, "there are no documents")


def delete(
    collection: Collection,
    ids: Annotated[list[str] | None, typer.Argument(help="Ids of documents.", show_default=False)] = None,
    filters: Annotated[
        str | None,
        typer.Option("--filter", "--where", help='Documents that match, as JSON: {"year": 2020}.'),
    ] = None,
    all: Annotated[bool, typer.Option("--all", help="Delete the whole collection.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Delete documents by id or by --filter, or with --all a whole collection."""
    if sum((bool(ids), filters is not None, all)) != 1:
        raise typer.BadParameter("give either ids, --filter or --all")
    fits = object_from(filters, "--filter")
    if not ids and not yes:
        what = (
            f"the collection {collection!r}" if all else f"the documents of {collection!r} that fit {filters}"
        )
        if not sys.stdin.isatty():
            raise typer.BadParameter(f"cannot ask whether to delete {what} without a terminal: give --yes")
        typer.confirm(f"Delete {what}?", abort=True, err=True)
    with connected(url, key) as client:
        if all:
            found = client.delete_collection(collection)
        else:
            found = client.delete_documents(collection, ids or None, filters=fits)
    print_json(found) if as_json else print_record(found)


def reindex(collection: Collection, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Embed a collection's stored texts again with the current model, while it stays in use."""
    with connected(url, key) as client, bar() as progress:
        report = client.reindex_collection(collection, progress=progress)
    print_json(report) if as_json else print_record(report)


def export(
    collection: Collection,
    file: Annotated[Path, typer.Argument(dir_okay=False, help="The JSON Lines file to write.")],
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Write a collection to a file, to import it elsewhere."""
    with connected(url, key) as client:
        report = client.export_collection(collection, file)
    print_json(report) if as_json else print_record(report)


def import_(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A file written by `export`.")],
    collection: Annotated[str | None, typer.Option(help="A new name for it.")] = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Create a collection from an exported file."""
    with connected(url, key) as client:
        report = client.import_collection(file, collection=collection)
    print_json(report) if as_json else print_record(report)


def evaluate(
    collection: Collection,
    questions: Annotated[
        Path,
        typer.Argument(exists=True, dir_okay=False, help='Lines such as {"question": "…", "gold": "id"}.'),
    ],
    k: Annotated[int, typer.Option(help="How many documents count.")] = 10,
    worst: Annotated[int, typer.Option(help="How many of the worst questions to show.")] = 5,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Measure how well a collection's search finds the documents that answer some questions."""
    with connected(url, key) as client, bar() as progress:
        result = client.evaluate(collection, _lines(questions), k=k, progress=progress)
    if as_json:
        return print_json(result)
    rows = [
        (one.mode, *(f"{value:.3f}" for value in (one.recall, one.mrr, one.ndcg)), f"{one.ms:.1f}")
        for one in result.scores
    ]
    print_table(("mode", f"recall@{k}", f"MRR@{k}", f"nDCG@{k}", "ms"), rows, "there are no scores")
    for one in result.worst(worst):
        if one.ndcg.hybrid < 1:
            rank = one.ranks.hybrid or f"not in {k}"
            line = f"{one.question}  {', '.join(one.gold)}: {rank}, first is {one.first.hybrid or 'nothing'}"
            out.print(visible(line), highlight=False, soft_wrap=True)
    return None


def _lines(path: Path) -> list[dict[str, Any]]:
    """The questions in a file: one JSON object per line, with `question` and `gold`."""
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
