"""Documents and collections, and what an ingest did to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llm_client import Record

from ..markup import read
from ..parts import (
    Bar,
    Break,
    Bullets,
    Drawing,
    Facts,
    Fold,
    Line,
    Paragraph,
    Span,
    Table,
    code,
    muted,
    strong,
)
from ..wording import count, duration, ending, moment, plural
from .passages import metadata_of, passage_of
from .values import ROWS, and_more, in_a_line, of_lists_with, of_records_with


@of_lists_with("id", "chunks", "metadata")
def _documents(documents: Sequence[Mapping[str, Any]]) -> Drawing:
    chunks = sum(document["chunks"] for document in documents)
    of = f"{plural(len(documents), 'document')}, {plural(chunks, 'chunk')}"
    shown = documents[:ROWS]
    most = max(document["chunks"] for document in documents) or 1
    rows: list[list[Line]] = [
        [
            str(document["id"]),
            [Bar(document["chunks"] / most), count(document["chunks"])],
            in_a_line(_beside_id(document), 80),
        ]
        for document in shown
    ]
    return [
        Paragraph(strong(of)),
        Table(["document", "chunks", "metadata"], rows),
        *and_more(documents, ROWS),
    ]


def _beside_id(document: Mapping[str, Any]) -> dict[str, Any]:
    about = document.get("metadata") or {}
    return {name: value for name, value in about.items() if (name, value) != ("source", document["id"])}


@of_records_with("id", "chunks", "metadata", "text")
def _document(document: Record) -> Drawing:
    text = read(str(document["text"]))
    return [
        Paragraph(
            [strong(str(document["id"])), muted(f" · {plural(document['chunks'], 'chunk')}")],
        ),
        *passage_of(text, text),
        *metadata_of(document),
    ]


def _number_or_not(number: int | None) -> str:
    return "not known" if number is None else count(number)


@of_lists_with("name", "embedding_model", "chunk_size")
def _collections(collections: Sequence[Mapping[str, Any]]) -> Drawing:
    most = max((one.get("chunks") or 0 for one in collections), default=0) or 1
    rows: list[list[Line]] = []
    for one in collections:
        name: list[Line] = [strong(str(one["name"]))]
        if one.get("problem"):
            name += [Break(), Span("bad", str(one["problem"]))]
        rows.append(
            [
                name,
                _number_or_not(one.get("documents")),
                [Bar((one.get("chunks") or 0) / most), _number_or_not(one.get("chunks"))],
                str(one["embedding_model"]),
                moment(one.get("created_at")),
            ]
        )
    return [Table(["collection", "documents", "chunks", "embedding model", "made"], rows, frozenset({1}))]


@of_records_with("name", "embedding_model", "chunk_size")
def _collection(one: Record) -> Drawing:
    problem = [Paragraph(Span("bad", str(one["problem"])))] if one.get("problem") else []
    facts: list[tuple[str, Line]] = [
        ("documents", _number_or_not(one.get("documents"))),
        ("chunks", _number_or_not(one.get("chunks"))),
        ("embedded by", f"{one['embedding_model']}, {one.get('dimension', '?')} dimensions"),
        (
            "split into",
            f"{count(one['chunk_size'])} tokens, of which {count(one.get('chunk_overlap'))} overlap",
        ),
        *([("parser", str(one["parser"]))] if one.get("parser") else []),
        *([("indexes", in_a_line(one["indexes"]))] if one.get("indexes") else []),
        *([("engine", in_a_line(one["engine"]))] if one.get("engine") else []),
        ("made", moment(one.get("created_at"))),
    ]
    return [Paragraph(strong(str(one["name"]))), *problem, Facts(facts)]


@of_records_with("handle", "calls")
def _handle(one: Record) -> Drawing:
    notes = [Paragraph(Span("warn", str(one[name]))) for name in ("problem", "note") if one.get(name)]
    facts: list[tuple[str, Line]] = [
        (name, count(one[name])) for name in ("documents", "chunks") if name in one
    ]
    if "embedding_model" in one:
        facts.append(("embedded by", str(one["embedding_model"])))
    calls: list[Line] = [code(str(call)) for call in one["calls"]]
    return [
        Paragraph([strong(str(one["handle"])), muted("  a collection")]),
        *notes,
        *([Facts(facts)] if facts else []),
        Bullets(calls),
    ]


@of_records_with("added", "updated", "unchanged", "failed")
def _report(report: Record) -> Drawing:
    done = [
        f"{count(report[name])} {name}"
        for name in ("added", "updated", "unchanged", "deleted")
        if report.get(name)
    ]
    said: list[Line] = [strong(", ".join(done) or "nothing to do")]
    written = [plural(report["chunks"], "chunk")] if report.get("chunks") else []
    if report.get("tokens"):
        written.append(plural(report["tokens"], "token"))
    planned = "seconds" in report
    if planned:
        said = [strong("a plan: "), *said]
        written.append(f"about {duration(report['seconds'])}")
    said.append(muted(f"  {', '.join(written)}"))
    failed, warnings = report.get("failed") or [], report.get("warnings") or []
    if failed:
        said += ["  ", Span("bad", f"{count(len(failed))} failed")]
    if warnings:
        said += ["  ", Span("warn", plural(len(warnings), "warning"))]
    rest = {
        name: value
        for name, value in report.items()
        if name
        not in {
            "added",
            "updated",
            "unchanged",
            "deleted",
            "chunks",
            "tokens",
            "failed",
            "warnings",
            "seconds",
        }
        and (name != "documents" or not planned)
        and value not in (None, [], {})
    }
    taken = rest.pop("columns", None)
    return [
        Paragraph(said),
        *([Fold(Span("bad", "what failed, and why"), _told(failed, "error"))] if failed else []),
        *([Fold(Span("warn", "warnings"), _told(warnings, "warning"))] if warnings else []),
        *([Paragraph([muted("taken from the columns  "), in_a_line(taken)])] if taken else []),
        *([Paragraph(in_a_line(rest))] if rest else []),
    ]


def _told(items: Sequence[Mapping[str, Any]], what: str) -> Drawing:
    rows: list[list[Line]] = [
        [strong(ending(str(item.get("id", "")), 60)), str(item.get(what, ""))] for item in items[:ROWS]
    ]
    return [Table(["document", what], rows), *and_more(items, ROWS)]
