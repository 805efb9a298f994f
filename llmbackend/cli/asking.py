"""`llmbackend chat`, `query`, `search`, `embed` and `analyze`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from .. import AnswerStream, LLMBackendClient
from ..text.visible import visible
from .chat_session import ChatSession
from .shared import (
    AsJson,
    Collection,
    Key,
    Url,
    bar,
    collection_names,
    connected,
    errors,
    from_stdin,
    object_from,
    out,
    print_json,
    print_passage,
    print_piece,
    print_record,
    text_from,
)


def add_to(app: typer.Typer) -> None:
    for command in (chat, query, search, embed, analyze):
        app.command()(command)


def chat(
    message: Annotated[
        str | None,
        typer.Argument(
            help="The message; `-` reads stdin; without one, a conversation begins.", show_default=False
        ),
    ] = None,
    system: Annotated[str | None, typer.Option(help="How the model should behave.")] = None,
    model: Annotated[str | None, typer.Option(help="Instead of the default model.")] = None,
    collection: Annotated[
        str | None, typer.Option(help="Answer from this collection.", autocompletion=collection_names)
    ] = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Ask the chat model; the reply appears as it is written."""
    if message == "-" or (message is None and not sys.stdin.isatty()):
        message = from_stdin()
    if message is not None and not message.strip():
        raise typer.BadParameter("the message is empty")
    with connected(url, key) as client:
        session = ChatSession(client, system=system, model=model, collection=collection)
        if message is None:
            session.run()
        elif as_json:
            print_json(session.ask(message))
        else:
            session.say(message)


def query(
    collection: Collection,
    question: Annotated[str, typer.Argument(help="`-` reads it from stdin.")],
    top_k: Annotated[int, typer.Option(help="How many passages to find.")] = 5,
    filters: Annotated[str | None, typer.Option("--filter", help='As JSON: {"year": 2026}.')] = None,
    retriever: Annotated[
        str | None, typer.Option(help="A project's own retriever instead of the search.")
    ] = None,
    postprocessor: Annotated[
        list[str] | None,
        typer.Option(help="A project's own postprocessor; repeat for several, in order."),
    ] = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Answer a question from a collection, with sources."""
    given: dict[str, Any] = {
        "top_k": top_k,
        "filters": object_from(filters, "--filter"),
        "retriever": retriever,
        "postprocessors": postprocessor or None,
    }
    question = from_stdin() if question == "-" else question
    with connected(url, key) as client:
        if as_json:
            return print_json(client.rag_query(question, collection, **given))
        stream = client.rag_query(question, collection, **given, stream=True)
        for piece in stream:
            print_piece(piece)
        out.line(2)
        print_sources(stream)
        print_notes(stream.answer.notes)


def print_notes(notes: Sequence[str]) -> None:
    for note in notes:
        errors.print(visible(note), style="yellow", highlight=False)


def print_sources(stream: AnswerStream) -> None:
    for source in stream.sources:
        out.print(visible(f"[{source.number}] {source.document_id}"), style="bold", highlight=False)
        print_passage(source.quote)


def search(
    collection: Annotated[
        str,
        typer.Argument(help="One, or several separated by commas.", autocompletion=collection_names),
    ],
    text: Annotated[str, typer.Argument(help="`-` reads it from stdin.")],
    top_k: Annotated[int, typer.Option(help="How many passages to find.")] = 5,
    mode: Annotated[str, typer.Option(help="hybrid, dense or sparse.")] = "hybrid",
    filters: Annotated[str | None, typer.Option("--filter", help='As JSON: {"year": 2026}.')] = None,
    rerank: Annotated[bool, typer.Option("--rerank", help="Let a reranker order the passages.")] = False,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Find the passages that match a text, best first."""
    names = [name.strip() for name in collection.split(",")]
    given: dict[str, Any] = {"top_k": top_k, "mode": mode, "filters": object_from(filters, "--filter")}
    text = from_stdin() if text == "-" else text
    with connected(url, key) as client:
        hits = client.rag_search(text, names if len(names) > 1 else names[0], rerank=rerank, **given)
    if as_json:
        return print_json(hits)
    if not hits:
        errors.print("nothing was found", style="dim")
        print_notes(hits.notes)
    for number, hit in enumerate(hits, start=1):
        place = "".join(f", {name} {hit.metadata[name]}" for name in ("page",) if name in hit.metadata)
        head = f"{number}. {hit.document_id}{place} ({hit.collection}, {hit.score:.3f})"
        out.print(visible(head), style="bold", highlight=False, soft_wrap=True)
        print_passage(" ".join(hit.text.split()))
    return None


def embed(
    texts: Annotated[
        list[str] | None,
        typer.Argument(help="Texts; with `-` or none, each line of stdin.", show_default=False),
    ] = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Print each text's vector as a line of JSON."""
    lines = list(texts or ["-"])
    if lines == ["-"]:
        lines = [line for line in sys.stdin.read().splitlines() if line.strip()]
    with connected(url, key) as client:
        for vector in _vectors(client, lines):
            print_json(vector)


def _vectors(client: LLMBackendClient, texts: list[str]) -> list[list[float]]:
    return list(client.embed(texts)) if texts else []


def analyze(
    document: Annotated[
        str | None,
        typer.Argument(
            help="A file, as ingest reads them, or a text; `-` or none reads stdin.", show_default=False
        ),
    ] = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Print a document's sentiment, key points and summary."""
    with connected(url, key) as client:
        text = text_from(document)  # after a project's own readers are there
        with bar():
            found = client.analyze_document(text)
    if as_json:
        return print_json(found)
    told = {
        name: found[name]
        for name in ("sentiment", "sentiment_score", "summary", "key_points", "notes", "model")
    }
    return print_record(told)
