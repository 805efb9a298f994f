"""The state of the backend and what was used: models, checks, usage, vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llm_client import Embeddings, Record, Usage

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
from ..plots import DIMENSIONS, TOKENS
from ..wording import count, duration, ending, limits, plural, size
from .values import (
    ROWS,
    and_more,
    drawing,
    in_words,
    of_lists_with,
    of_records_with,
    table_of,
    titled,
    warned,
)


@of_lists_with("id", "type", "context_window")
def _models(models: Sequence[Mapping[str, Any]]) -> Drawing:
    kinds: dict[str, list[Line]] = {}
    for model in models:
        told = [
            f"{model['context_window']:,} tokens" if model.get("context_window") else "",
            "calls tools" if model.get("tools") else "",
        ]
        said = ", ".join(filter(None, told))
        line = kinds.setdefault(str(model["type"]), [])
        line += [*([Break()] if line else []), code(str(model["id"])), muted(f"  {said}") if said else ""]
    return [Facts(list(kinds.items()))]


@of_records_with("ok", "checks")
def _doctor(report: Record) -> Drawing:
    checks = report["checks"]
    wrong = sum(not check["ok"] for check in checks)
    told: Line = (
        Span("good", "✓ everything works")
        if report["ok"]
        else Span("bad", f"✗ {wrong} of {plural(len(checks), 'check')} found something wrong")
    )
    rows: list[list[Line]] = []
    for check in checks:
        advice = check.get("fix")
        sign = Span("good", "✓") if check["ok"] else Span("bad", "✗")
        what: list[Line] = [strong(str(check["name"])), muted(f"  {check['server']}")]
        if check.get("models"):
            what += [Break(), code(", ".join(ending(str(model), 60) for model in check["models"][:10]))]
        if check.get("limits"):
            what += [Break(), muted(", ".join(limits(check["limits"])))]
        if advice:
            what += [Break(), Span("warn" if check["ok"] else "bad", read(str(advice)))]
        where = str(check.get("url") or "")
        rows.append([sign, what, where, duration((check.get("latency_ms") or 0) / 1000)])
    about = muted(f"  llmbackend {report.get('version', '')}")
    return [Paragraph([told, about]), Table(["", "check", "at", "took"], rows, frozenset({3}))]


@of_records_with("status", "problems", "version")
def _health(health: Record) -> Drawing:
    fine = health["status"] == "ok"
    wrong = [Span("bad", str(problem)) for problem in health.get("problems") or ()]
    parts = health.get("parts") or {}
    rows: list[list[Line]] = [
        [
            Span("good", "✓") if said == "ok" else Span("bad", "✗"),
            str(name),
            "" if said == "ok" else str(said),
        ]
        for name, said in parts.items()
    ]
    models = [(name, code(str(health[name]))) for name in ("chat", "embeddings") if health.get(name)]
    return [
        Paragraph(
            [
                Span("good", "✓ ok") if fine else Span("bad", f"✗ {health['status']}"),
                muted(f"  llmbackend {health.get('version', '')}"),
            ]
        ),
        *([Bullets(wrong)] if wrong else []),
        *([Facts(models)] if models else []),
        *([Fold(muted(plural(len(rows), "part")), [Table(["", "part", ""], rows)])] if rows else []),
    ]


@drawing.register
def _usage(usage: Usage) -> Drawing:
    if not usage:
        return [Paragraph(muted("nothing was used"))]
    names = [name for name in DIMENSIONS if any(name in row for row in usage)]
    measures = [
        name
        for name in dict.fromkeys(name for row in usage for name in row)
        if name not in (*DIMENSIONS, "milliseconds") and any(row.get(name) for row in usage)
    ]
    timed = any(row.get("milliseconds") for row in usage)
    most = {name: max(row.get(name) or 0 for row in usage) for name in TOKENS}
    rows: list[list[Line]] = []
    for row in usage[:ROWS]:
        cells: list[Line] = [strong(str(row.get(name) or "none")) for name in names]
        for name in measures:
            value = row.get(name)
            bar = [Bar((value or 0) / most[name])] if most.get(name) else []
            cells.append([*bar, in_words(value)] if value is not None else "")
        rows.append([*cells, *([duration((row.get("milliseconds") or 0) / 1000)] if timed else [])])
    heads = [*map(titled, [*names, *measures]), *(["time"] if timed else [])]
    return [Table(heads, rows, frozenset(range(len(names), len(heads)))), *and_more(usage, ROWS)]


@drawing.register(Embeddings)
def _vectors(vectors: Embeddings) -> Drawing:
    tokens = vectors.usage.get("total_tokens")
    about = [
        str(vectors.model),
        f"{count(tokens)} tokens" if tokens is not None else "",
        size(4 * len(vectors.values)),
    ]
    cut = vectors.cut
    return [
        Paragraph(
            [
                strong(f"{plural(len(vectors), 'vector')} of {vectors.dimension} dimensions"),
                muted("  " + " · ".join(filter(None, about))),
            ]
        ),
        *warned(vectors.warnings),
        *(
            [Fold(Span("warn", f"{plural(len(cut), 'text')} longer than the model takes"), table_of(cut))]
            if cut
            else []
        ),
    ]
