"""What models and agents wrote: replies, answers, runs, analyses."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llm_client import AgentRun, Analysis, Answer, ModelResponse, Record, Reply

from ..markup import read
from ..matches import quoted
from ..parts import (
    Block,
    Break,
    Bullets,
    Card,
    Drawing,
    Facts,
    Fold,
    Line,
    Markdown,
    Paragraph,
    Passage,
    Span,
    Table,
    code,
    muted,
    strong,
)
from ..wording import count, duration, ending, plural, shortened
from .passages import metadata_of, place_of
from .values import (
    COLUMNS,
    LETTERS,
    ROWS,
    and_columns,
    and_more,
    drawing,
    facts_of,
    in_words,
    of_lists_with,
    titled,
)


@drawing.register
def _reply(reply: Reply) -> Drawing:
    calls = reply.message.get("tool_calls") or ()
    asked: list[Line] = [
        code(
            f"{call['function'].get('name')}({shortened(str(call['function'].get('arguments') or ''), 200)})"
        )
        for call in calls
        if isinstance(call, Mapping) and isinstance(call.get("function"), Mapping)
    ]
    note = f"{reply.model}{LIMITS.get(reply.model, '')}"
    if reply.finish_reason == "length":
        note += " · it ends here because it may not be longer (max_tokens)"
    drawn: list[Block] = [Markdown(str(reply))] if reply else []
    if asked:
        drawn += [Paragraph("calls"), Bullets(asked)]
    return [*drawn, *([Paragraph(muted(note))] if note else [])]


@drawing.register
def _response(response: ModelResponse) -> Drawing:
    """The whole text, as for a reply; the calls that wait for the caller; and the other fields in a fold."""
    calls: list[Line] = [
        [code(f"{one.get('name')}({shortened(str(one.get('arguments') or ''), 200)})")]
        for one in response["output"]
        if one.get("type") in ("function_call", "mcp_approval_request")
    ]
    asked: list[Block] = [Paragraph("calls"), Bullets(calls)] if calls else []
    text, model = response.output_text, str(response.get("model") or "")
    cited = [note for part in _parts(response) for note in part.get("annotations") or ()]
    places = [str(note.get("filename")) for note in cited if note.get("type") == "file_citation"]
    status = "" if response["status"] == "completed" else f"{response['status'].replace('_', ' ')}"
    wrong = str((response.get("error") or {}).get("message") or "")
    rest = {name: value for name, value in response.items() if name != "output" and value is not None}
    return [
        *([Markdown(text)] if text else []),
        *asked,
        *([Paragraph(Span("warn", status))] if status else []),
        *([Paragraph(Span("bad", wrong))] if wrong else []),
        *([Paragraph(["cites ", ", ".join(dict.fromkeys(places))])] if places else []),
        Paragraph(muted(f"{model}{LIMITS.get(model, '')}")),
        Fold(muted(shortened(f"fields: {', '.join(rest)}", 100)), facts_of(Record(rest)), in_text=False),
    ]


def _parts(response: ModelResponse) -> list[Mapping[str, Any]]:
    return [part for item in response["output"] if item.get("type") == "message" for part in item["content"]]


LIMITS = {
    "SmolLM2-135M-Instruct": ": a very small model, whose facts, sums and languages other than English are often wrong. "
    "Set VLLM_URL, LITELLM_URL or OPENAI_BASE_URL for a larger one."
}
"""What a reader should know about the model that wrote a reply."""


@drawing.register
def _answer(answer: Answer) -> Drawing:
    cited = [one for one in answer.sources if one.get("number") in answer.citations]
    others = [one for one in answer.sources if one.get("number") not in answer.citations]
    rest = plural(
        len(others),
        "more passage" if cited else "passage that was read",
        None if cited else "passages that were read",
    )
    note = (
        "Quoted from the documents as they stand; with a larger chat model set, it would answer in words of its own."
        if answer.model == "quotes"
        else answer.model
    )
    return [
        *([] if answer.found else [Paragraph(Span("warn", "The documents do not tell."))]),
        Markdown(str(answer)),
        *(Paragraph(Span("warn", note)) for note in answer.notes),
        *map(_source, cited),
        *([Fold(muted(rest), [*map(_source, others)], in_text=False)] if others else []),
        *([Paragraph(muted(note))] if note else []),
    ]


def _source(source: Mapping[str, Any]) -> Fold:
    text, quote = read(str(source.get("text") or "")), read(str(source.get("quote") or ""))
    title: list[Line] = [
        f"[{source.get('number')}] ",
        place_of(source),
        *([" ", _said(quote)] if quote else []),
    ]
    return Fold(title, [Passage(quoted(text, quote)), *metadata_of(source)], in_text=False)


def _said(quote: str) -> Line:
    return muted(f"“{shortened(quote, 160)}”")


@drawing.register
def _agent_run(run: AgentRun) -> Drawing:
    """The answer or output, then its sources, and the steps as a tree in folds."""
    done = run["status"] == "completed"
    status = Span("good" if done else "warn", run["status"].replace("_", " "))
    steps, tokens = run["usage"].get("steps", 0), run["usage"].get("total_tokens", 0)
    took = f"{plural(steps, 'call')}, {count(tokens)} tokens, {duration(run['trace']['seconds'])}"
    output = run["output"]
    rows = output.get("rows") if isinstance(output, Mapping) else None
    shown: list[Block] = [Markdown(run["answer"])] if run["answer"] else []
    if rows and "cells" in rows[0]:
        shown += _cells(rows)
    elif isinstance(output, Mapping):
        shown += facts_of(Record(output))
    pending = [f"{one['tool']} {json.dumps(one['arguments'], ensure_ascii=False)}" for one in run["pending"]]
    return [
        *shown,
        *([Bullets([["waits: ", code(one)] for one in pending])] if pending else []),
        *(Paragraph(muted(note)) for note in run["notes"]),
        *(_source(one) for one in run["sources"] if one["number"] in run["citations"]),
        Fold([strong(run["agent"]), " ", status, " ", muted(took)], _steps(run["trace"]["steps"])),
    ]


def _cells(rows: Sequence[Mapping[str, Any]]) -> Drawing:
    """The analyst's table, with the quote below each value."""
    names = list(dict.fromkeys(name for row in rows for name in row["cells"]))
    several = len({row["collection"] for row in rows}) > 1
    drawn: list[list[Line]] = []
    for row in rows[:ROWS]:
        document: list[Line] = [strong(ending(str(row["document"]), 60))]
        if several:
            document += [" ", Span("pill", str(row["collection"]))]
        if row.get("error"):
            document += [Break(), Span("bad", str(row["error"]))]
        cells: list[Line] = []
        for name in names[:COLUMNS]:
            cell = row["cells"].get(name) or {}
            value, quote = in_words(cell.get("value"), name, 200), cell.get("quote")
            said: list[Line] = [Break(), _said(read(str(quote)))] if quote and quote != cell["value"] else []
            cells.append([value, *said] if value else "")
        drawn.append([document, *cells])
    return [
        Table(["document", *names[:COLUMNS]], drawn),
        *and_more(rows, ROWS, "documents"),
        *and_columns(names),
    ]


def _steps(steps: Sequence[Mapping[str, Any]]) -> Drawing:
    told: list[Block] = []
    for step in steps:
        about = [
            duration(step["seconds"]),
            *([f"{count(step['tokens'])} tokens"] if step["tokens"] else []),
            *([step["model"]] if step["model"] else []),
            *([step["prompt"]] if step["prompt"] else []),
            *(["done before"] if step["replayed"] else []),
        ]
        name = Span("bad", step["name"]) if step["error"] else strong(step["name"])
        given = [
            (title, shortened(step[title], LETTERS)) for title in ("input", "output", "error") if step[title]
        ]
        inside = [*([Facts(given)] if given else []), *_steps(step["steps"])]
        head: list[Line] = [name, " ", Span("pill", step["kind"]), " ", muted(", ".join(about))]
        told.append(Fold(head, inside) if inside else Paragraph(head))
    return told


@of_lists_with("name", "description", "tools", "input")
def _agents(agents: Sequence[Mapping[str, Any]]) -> Drawing:
    rows: list[list[Line]] = [
        [
            [strong(str(one["name"])), " ", Span("pill", "own") if one.get("own") else ""],
            str(one["description"]),
            ", ".join(map(str, (one["input"] or {}).get("properties") or ())),
            ", ".join(map(str, one["tools"])),
        ]
        for one in agents[:ROWS]
    ]
    return [Table(["agent", "what it does", "takes", "its tools"], rows), *and_more(agents, ROWS, "agents")]


@of_lists_with("name", "description", "writes", "parameters")
def _tools(tools: Sequence[Mapping[str, Any]]) -> Drawing:
    rows: list[list[Line]] = [
        [
            [strong(str(one["name"])), " ", Span("pill", "writes") if one["writes"] else ""],
            str(one["description"]),
            ", ".join(map(str, (one["parameters"] or {}).get("properties") or ())),
        ]
        for one in tools[:ROWS]
    ]
    return [Table(["tool", "what it does", "takes"], rows), *and_more(tools, ROWS, "tools")]


@of_lists_with("sentiment", "sentiment_score", "summary", "key_points")
def _analyses(analyses: Sequence[Mapping[str, Any]]) -> Drawing:
    rows: list[list[Line]] = []
    for one in analyses[:ROWS]:
        points: list[Line] = []
        for point in one["key_points"][:3]:
            points += [*([Break()] if points else []), f"– {shortened(str(point), 120)}"]
        rows.append([_tone(one), shortened(str(one["summary"]), 300), points])
    return [Table(["sentiment", "summary", "key points"], rows), *and_more(analyses, ROWS, "analyses")]


def _tone(analysis: Mapping[str, Any]) -> Line:
    score = analysis["sentiment_score"]
    tone: Any = "good" if score > 0.2 else "bad" if score < -0.2 else "muted"
    return [Span(tone, str(analysis["sentiment"])), muted(f"  {score:+.2f}")]


@drawing.register
def _analysis(analysis: Analysis) -> Drawing:
    facts: list[tuple[str, Line]] = [
        (titled(kind), "; ".join(str(found["text"]) for found in passages))
        for kind, passages in (analysis.get("facts") or {}).items()
        if passages
    ]
    coverage = analysis.get("coverage")
    read = (
        f"read: {coverage['read']} of {coverage['parts']} parts, {count(coverage['words'])} words"
        if coverage
        else ""
    )
    small = [*filter(None, [read, *(analysis.get("notes") or ()), analysis.get("model")])]
    return [
        Card(
            _tone(analysis),
            [
                Paragraph(str(analysis["summary"])),
                Bullets([str(point) for point in analysis["key_points"]]),
                *([Facts(facts)] if facts else []),
                Paragraph(muted(" · ".join(map(str, small)))),
            ],
        )
    ]
