"""What each kind of result shows: a drawing, which becomes HTML in notebooks and text in terminals."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llm_client import (
    AgentRun,
    Analysis,
    Answer,
    Embeddings,
    Evaluation,
    Explanation,
    Hits,
    Job,
    Record,
    Records,
    Reply,
    Usage,
    _flat,
    _progress_text,
)

from .matches import marked, quoted
from .parts import (
    Bar,
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
from .plots import COLOURS, DIMENSIONS, MEASURES, TOKENS
from .wording import count, decimal, duration, ending, moment, parsed, plural, shortened, size

ROWS = 50  # of a list; all of them are in `.to_pandas()`
CARDS = 20
LETTERS = 400  # of a passage, before it unfolds
DROPPED = 5  # candidates that an explanation shows, of those that were dropped

PLACES = {"source", "headings", "page", "pages"}
"""What of a passage's metadata tells where it stands: its title does."""


@functools.singledispatch
def drawing(value: Any) -> Drawing:
    return [Paragraph(_value(value))]


@drawing.register
def _record(record: Record) -> Drawing:
    for keys, draw in _RECORDS.items():
        if keys <= record.keys():
            return draw(record)
    return _fields(record)


@drawing.register(Records)
def _list(records: Records[Any]) -> Drawing:
    if not records:
        return [Paragraph(muted("none"))]
    for keys, draw in _LISTS.items():
        if all(isinstance(record, Mapping) and keys <= record.keys() for record in records):
            return draw(records)
    return _rows(records)


# Whatever has no drawing of its own


def _fields(record: Mapping[str, Any]) -> Drawing:
    """Names and values; what is made of several records follows as tables."""
    small = {name: value for name, value in record.items() if not (_is_large(value) or value is None)}
    return [
        *([Facts([(_title(name), _value(value, name)) for name, value in small.items()])] if small else []),
        *(
            Fold(_title(name), drawing(value), open=True)
            for name, value in record.items()
            if _is_large(value) and len(value)
        ),
    ]


def _is_large(value: Any) -> bool:
    return isinstance(value, Records | Record) and not isinstance(value, Job)


def _rows(records: Sequence[Mapping[str, Any]]) -> Drawing:
    """A table of the fields that any of them has, those within others by `author.name`."""
    flat = [dict(_flat(record)) for record in records[:ROWS]]
    names = [
        name
        for name in dict.fromkeys(name for row in flat for name in row)
        if any(row.get(name) not in (None, "", []) for row in flat)
    ]
    numbers = {
        column
        for column, name in enumerate(names)
        if all(
            isinstance(row.get(name), int | float | None) and not isinstance(row.get(name), bool)
            for row in flat
        )
    }
    rows = [[_value(row.get(name), name, 200) for name in names] for row in flat]
    return [Table([_title(name) for name in names], rows, frozenset(numbers)), *_more(records, ROWS)]


def _more(records: Sequence[Any], shown: int, of_what: str = "more") -> list[Paragraph]:
    more = len(records) - shown
    return [Paragraph(muted(f"and {more:,} {of_what}: .to_pandas() has all"))] if more > 0 else []


def _title(name: Any) -> str:
    return str(name).replace("_", " ")


def _value(value: Any, name: str = "", limit: int = 400) -> Line:
    """A value in a line: numbers short, times as people write them, nothing for what there is not."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value) if 1900 <= value <= 2100 else count(value)
    if isinstance(value, float):
        return decimal(value)
    if isinstance(value, Embeddings):
        return f"{plural(len(value), 'vector')} of {value.dimension} dimensions"
    if isinstance(value, str):
        if name.endswith("_at") and parsed(value):
            return moment(value)
        return shortened(value, limit)
    if isinstance(value, Mapping):
        return _about(value, limit)
    if isinstance(value, Sequence):
        if len(value) > 8 and all(isinstance(item, int | float) for item in value):
            return f"{len(value)} numbers: {', '.join(decimal(item) for item in value[:3])}, …"
        items: list[Line] = []
        for item in value[:8]:
            items += [", " if items else "", _value(item, name, 120)]
        return [*items, f", and {len(value) - 8} more" if len(value) > 8 else ""]
    return shortened(str(value), limit)


def _about(fields: Mapping[str, Any], limit: int = 200) -> Line:
    """`year 2026 · team hr`"""
    told: list[Line] = []
    for name, value in _flat(fields):
        if value not in (None, "", []):
            told += [" · " if told else "", muted(_title(name)), " ", _value(value, name, limit)]
    return told


# Passages


def _place(passage: Mapping[str, Any]) -> list[Line]:
    """The document, the headings above a passage and its page."""
    about = passage.get("metadata") or {}
    headings = about.get("headings")
    steps = headings if isinstance(headings, list) else [headings] if headings else []
    page = about.get("page")
    return [
        Span("strong", ending(str(passage["document_id"]), 60)),
        *(muted(f" › {shortened(str(step), 60)}") for step in steps),
        muted(f" · page {page}") if page is not None else "",
    ]


def _metadata(passage: Mapping[str, Any]) -> list[Paragraph]:
    about = {name: value for name, value in (passage.get("metadata") or {}).items() if name not in PLACES}
    told = _about(about, 80)
    return [Paragraph(muted(told))] if told else []


def _passage(text: Line, letters: str) -> Drawing:
    """A passage; a long one by its beginning, and whole below a fold."""
    if len(letters) <= LETTERS:
        return [Passage(text)]
    return [
        Passage(_cut(text, LETTERS)),
        Fold(muted(f"all of it: {count(len(letters))} letters"), [Passage(text)], in_text=False),
    ]


def _cut(text: Line, left: int) -> Line:
    """The beginning of a line of that many letters, with what is marked in it."""
    kept: list[Line] = []
    for part in [text] if isinstance(text, str) else text if isinstance(text, Sequence) else [text]:
        letters = part if isinstance(part, str) else str(part.content) if isinstance(part, Span) else ""
        if len(letters) > left:
            return [*kept, letters[:left].rstrip() + "…" if isinstance(part, str) else "…"]
        kept.append(part)
        left -= len(letters)
    return kept


def _hits(hits: Sequence[Mapping[str, Any]]) -> Drawing:
    question = hits.query if isinstance(hits, Hits) else ""
    several = len({hit.get("collection") for hit in hits}) > 1
    best = max((hit["score"] for hit in hits if hit.get("score") is not None), default=0) or 1
    cards: list[Card] = []
    for number, hit in enumerate(hits[:CARDS], 1):
        text = str(hit["text"])
        shown = quoted(text, str(hit["quote"])) if hit.get("quote") else marked(text, question)
        score = hit.get("score")
        title: list[Line] = [
            muted(f"{hit.get('number', number)}  "),
            _place(hit),
        ]
        if several:
            title += [" ", Span("pill", str(hit["collection"]))]
        if score is not None:
            title += ["  ", Bar(score / best), muted(decimal(round(score, 3)))]
        also = [ending(str(one["document_id"])) for one in hit.get("duplicates") or ()]
        same = [Paragraph(muted("the same text: " + ", ".join(also)))] if also else []
        cards.append(Card(title, [*_passage(shown, text), *_metadata(hit), *same]))
    return [*cards, *_more(hits, CARDS, "passages")]


def _hit(hit: Record) -> Drawing:
    return _hits([hit])


def _chunks(chunks: Sequence[Mapping[str, Any]]) -> Drawing:
    cards = [
        Card(
            [_place(chunk), muted(f" · chunk {count(chunk['chunk'])}")],
            [*_passage(str(chunk["text"]), str(chunk["text"])), *_metadata(chunk)],
        )
        for chunk in chunks[:CARDS]
    ]
    return [*cards, *_more(chunks, CARDS, "chunks")]


@drawing.register
def _of_search(hits: Hits) -> Drawing:
    return _hits(hits) if hits else [Paragraph(muted("nothing was found"))]


# Documents and collections


def _documents(documents: Sequence[Mapping[str, Any]]) -> Drawing:
    chunks = sum(document["chunks"] for document in documents)
    of = f"{plural(len(documents), 'document')}, {plural(chunks, 'chunk')}"
    shown = documents[:ROWS]
    most = max(document["chunks"] for document in documents) or 1
    rows: list[list[Line]] = [
        [
            str(document["id"]),
            [Bar(document["chunks"] / most), count(document["chunks"])],
            _about(_beside_id(document), 80),
        ]
        for document in shown
    ]
    return [Paragraph(strong(of)), Table(["document", "chunks", "metadata"], rows), *_more(documents, ROWS)]


def _beside_id(document: Mapping[str, Any]) -> dict[str, Any]:
    about = document.get("metadata") or {}
    return {name: value for name, value in about.items() if (name, value) != ("source", document["id"])}


def _document(document: Record) -> Drawing:
    return [
        Paragraph(
            [strong(str(document["id"])), muted(f" · {plural(document['chunks'], 'chunk')}")],
        ),
        *_passage(str(document["text"]), str(document["text"])),
        *_metadata(document),
    ]


def _number_or_not(number: int | None) -> str:
    return "not known" if number is None else count(number)


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
        *([("indexes", _about(one["indexes"]))] if one.get("indexes") else []),
        *([("engine", _about(one["engine"]))] if one.get("engine") else []),
        ("made", moment(one.get("created_at"))),
    ]
    return [Paragraph(strong(str(one["name"]))), *problem, Facts(facts)]


# Models and their state


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
            what += [Break(), code(", ".join(map(str, check["models"][:10])))]
        if check.get("limits"):
            what += [Break(), muted(_about(check["limits"]))]
        if advice:
            what += [Break(), Span("warn" if check["ok"] else "bad", str(advice))]
        where = str(check.get("url") or "")
        rows.append([sign, what, where, duration((check.get("latency_ms") or 0) / 1000)])
    about = muted(f"  llmbackend {report.get('version', '')}")
    return [Paragraph([told, about]), Table(["", "check", "at", "took"], rows, frozenset({3}))]


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


# Ingests


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
        *([Paragraph([muted("taken from the columns  "), _about(taken)])] if taken else []),
        *([Paragraph(_about(rest))] if rest else []),
    ]


def _told(items: Sequence[Mapping[str, Any]], what: str) -> Drawing:
    rows: list[list[Line]] = [
        [strong(ending(str(item.get("id", "")), 60)), str(item.get(what, ""))] for item in items[:ROWS]
    ]
    return [Table(["document", what], rows), *_more(items, ROWS)]


# Jobs

_TONES = {"completed": "good", "failed": "bad", "cancelled": "warn"}


def _status(job: Mapping[str, Any]) -> Line:
    tone: Any = _TONES.get(job["status"], "pill")
    return Span(tone, str(job["status"]))


def _progress(progress: Mapping[str, Any], job_type: str = "") -> Line:
    done, total = progress.get("done") or 0, progress.get("total") or 0
    words = _progress_text(progress, job_type)
    return [Bar(done / total), words] if total else words


def _took(job: Mapping[str, Any]) -> str:
    """How long it waited, ran, or has left, in words."""
    started, finished = parsed(job.get("started_at")), parsed(job.get("finished_at"))
    if started and finished:
        return f"took {duration((finished - started).total_seconds())}"
    if started:
        return f"since {moment(job['started_at'])}"
    if job.get("run_at"):
        return f"not before {moment(job['run_at'])}"
    return f"since {moment(job.get('created_at'))}"


def _error(job: Mapping[str, Any]) -> str:
    return str((job.get("error") or {}).get("message") or "")


@drawing.register
def _job(job: Job) -> Drawing:
    error = _error(job)
    result = job.get("result")
    return [
        Paragraph([strong(str(job["type"])), "  ", _status(job), "  ", Span("id", str(job["id"]))]),
        Paragraph([_progress(job["progress"], str(job["type"])), muted(f"  {_took(job)}")]),
        *([Paragraph(Span("bad", error))] if error else []),
        *(
            [Fold("result", drawing(result) if isinstance(result, Record) else [Paragraph(_value(result))])]
            if result is not None
            else []
        ),
    ]


def _jobs(jobs: Sequence[Mapping[str, Any]]) -> Drawing:
    rows: list[list[Line]] = [
        [
            strong(str(job["type"])),
            _status(job),
            _progress(job["progress"], str(job["type"])),
            _took(job),
            Span("bad", shortened(_error(job), 200)) if _error(job) else "",
            Span("id", str(job["id"])),
        ]
        for job in jobs[:ROWS]
    ]
    return [Table(["job", "status", "progress", "time", "error", "id"], rows), *_more(jobs, ROWS, "jobs")]


# What models wrote


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


LIMITS = {
    "SmolLM2-135M-Instruct": ": a very small model, whose facts, sums and languages other than English are often wrong. "
    "Set VLLM_URL, LITELLM_URL or OPENAI_BASE_URL for a larger one."
}
"""What a reader of a reply should know of the model that wrote it."""


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
        *map(_source, cited),
        *([Fold(muted(rest), [*map(_source, others)], in_text=False)] if others else []),
        *([Paragraph(muted(note))] if note else []),
    ]


def _source(source: Mapping[str, Any]) -> Fold:
    text, quote = str(source.get("text") or ""), str(source.get("quote") or "")
    title: list[Line] = [
        f"[{source.get('number')}] ",
        _place(source),
        *([" ", _said(quote)] if quote else []),
    ]
    return Fold(title, [Passage(quoted(text, quote)), *_metadata(source)], in_text=False)


def _said(quote: str) -> Line:
    return muted(f"“{shortened(quote, 160)}”")


@drawing.register
def _agent_run(run: AgentRun) -> Drawing:
    """The answer, or the output, then its sources and the steps as a tree that unfolds."""
    done = run["status"] == "completed"
    status = Span("good" if done else "warn", run["status"].replace("_", " "))
    steps, tokens = run["usage"].get("steps", 0), run["usage"].get("total_tokens", 0)
    took = f"{plural(steps, 'call')}, {count(tokens)} tokens, {duration(run['trace']['seconds'])}"
    output = run["output"]
    rows = output.get("rows") if isinstance(output, Mapping) else None
    shown: list[Block] = [Markdown(run["answer"])] if run["answer"] else []
    if rows and "cells" in rows[0]:
        shown += _rows(run.table())
    elif isinstance(output, Mapping):
        shown += _fields(Record(output))
    pending = [f"{one['tool']} {one['arguments']}" for one in run["pending"]]
    return [
        *shown,
        *([Bullets([["waits: ", code(one)] for one in pending])] if pending else []),
        *(Paragraph(muted(note)) for note in run["notes"]),
        *(_source(one) for one in run["sources"] if one["number"] in run["citations"]),
        Fold([strong(run["agent"]), " ", status, " ", muted(took)], _steps(run["trace"]["steps"])),
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


@drawing.register
def _analysis(analysis: Analysis) -> Drawing:
    score = analysis["sentiment_score"]
    tone: Any = "good" if score > 0.2 else "bad" if score < -0.2 else "muted"
    facts: list[tuple[str, Line]] = [
        (_title(kind), "; ".join(str(found["text"]) for found in passages))
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
            [Span(tone, str(analysis["sentiment"])), muted(f"  {score:+.2f}")],
            [
                Paragraph(str(analysis["summary"])),
                Bullets([str(point) for point in analysis["key_points"]]),
                *([Facts(facts)] if facts else []),
                Paragraph(muted(" · ".join(map(str, small)))),
            ],
        )
    ]


# How good an answer or a search is

SCORES = (
    "dense",
    "sparse",
    "fused",
    "retriever",
    "judge",
    "judged",
    "rerank",
    "postprocessed",
    "quote_score",
)


@drawing.register
def _explanation(why: Explanation) -> Drawing:
    kept = [one for one in why["candidates"] if not one["dropped"]]
    shown = [*kept, *why.dropped[:DROPPED]]
    most = {name: max((one.get(name) or 0 for one in shown), default=0) for name in SCORES}
    several = len({one["collection"] for one in shown}) > 1
    rows: list[list[Line]] = []
    for one in shown:
        scores: list[Line] = []
        for name, colour in zip(SCORES, [*COLOURS, *COLOURS], strict=False):
            value = one.get(name)
            if value is not None:
                share = value / most[name] if most[name] > 0 else 0
                scores += [*([Break()] if scores else []), Bar(share, colour=colour), f"{value:.3f} "]
                scores += [muted(_title(name))]
        place: list[Line] = [Span("pill", str(one["collection"])), " "] if several else []
        place += [strong(f"{ending(str(one['document_id']))} #{one['chunk']}"), Break()]
        place += [muted(shortened(str(one["text"]), 120))]
        rows.append([str(one["number"] or ""), place, scores, _title(one["dropped"] or "")])
    faint = frozenset(number for number, one in enumerate(shown) if one["dropped"])
    more = len(why["candidates"]) - len(shown)
    return [
        Paragraph(strong(str(why["question"]))),
        Paragraph(_verdict(why)),
        *(Paragraph(Span("warn", str(note))) for note in why.get("notes", ())),
        *([Table(["", "passage", "scores", "dropped"], rows, faint=faint)] if rows else []),
        *([Paragraph(muted(f"and {more} more that were dropped"))] if more else []),
        *_timeline(why["ms"]),
    ]


def _verdict(why: Explanation) -> Line:
    fit = "" if why["fit"] is None else f", fit {why['fit']:.2f} (from {why['bar']:.2f} on it is found)"
    tokens = f", {count(why['prompt_tokens'])} prompt tokens" if why["prompt_tokens"] else ""
    found = Span("good", "found") if why["found"] else Span("warn", "not found")
    return [found, f" by {why['model'] or 'search'}{fit}{tokens}"]


def _timeline(ms: Mapping[str, float]) -> Drawing:
    total = sum(ms.values())
    rows: list[tuple[str, Line]] = [
        (_title(step), [Bar(took / total if total else 0), f"{took:.1f} ms"]) for step, took in ms.items()
    ]
    return [Fold(muted(f"{total:.1f} ms in all"), [Facts(rows)])] if rows else []


@drawing.register
def _evaluation(evaluation: Evaluation) -> Drawing:
    heads = ["mode", *(name.format(k=evaluation["k"]) for name in MEASURES.values()), "ms"]
    rows: list[list[Line]] = [
        [
            strong(str(one["mode"])),
            *(
                [Bar(one[measure], colour=colour), f"{one[measure]:.3f}"]
                for measure, colour in zip(MEASURES, COLOURS, strict=False)
            ),
            f"{one['ms']:.1f}",
        ]
        for one in evaluation["scores"]
    ]
    missed = [one for one in evaluation.worst() if one["ndcg"]["hybrid"] < 1]
    worst: list[list[Line]] = [
        [
            shortened(str(one["question"]), 120),
            shortened(", ".join(map(str, one["gold"])), 80),
            str(one["ranks"]["hybrid"] or "none"),
            str(one["first"]["hybrid"] or ""),
        ]
        for one in missed
    ]
    heads_of_worst = ["question", "gold", "its rank", "first instead"]
    return [
        Paragraph(
            [
                strong(str(evaluation["collection"])),
                f": {plural(len(evaluation['questions']), 'question')}, first {evaluation['k']} documents",
            ]
        ),
        Table(heads, rows, frozenset({len(heads) - 1})),
        *([Fold("hybrid's worst questions", [Table(heads_of_worst, worst)], open=True)] if worst else []),
    ]


# Usage and vectors


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
            cells.append([*bar, _value(value)] if value is not None else "")
        rows.append([*cells, *([duration((row.get("milliseconds") or 0) / 1000)] if timed else [])])
    heads = [*map(_title, [*names, *measures]), *(["time"] if timed else [])]
    return [Table(heads, rows, frozenset(range(len(names), len(heads)))), *_more(usage, ROWS)]


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
        *(
            [Fold(Span("warn", f"{plural(len(cut), 'text')} longer than the model takes"), _rows(cut))]
            if cut
            else []
        ),
    ]


# By the fields that a record has: results are plain dicts, wherever they come from.
_RECORDS: dict[frozenset[str], Callable[[Record], Drawing]] = {
    frozenset({"text", "score", "document_id", "chunk"}): _hit,
    frozenset({"document_id", "chunk", "text", "metadata"}): lambda one: _chunks([one]),
    frozenset({"id", "chunks", "metadata", "text"}): _document,
    frozenset({"name", "embedding_model", "chunk_size"}): _collection,
    frozenset({"ok", "checks"}): _doctor,
    frozenset({"status", "problems", "version"}): _health,
    frozenset({"added", "updated", "unchanged", "failed"}): _report,
    frozenset({"done", "total", "stage"}): lambda one: [Paragraph(_progress(one))],
}
_LISTS: dict[frozenset[str], Callable[[Sequence[Mapping[str, Any]]], Drawing]] = {
    frozenset({"text", "score", "document_id", "chunk"}): _hits,
    frozenset({"document_id", "chunk", "text", "metadata"}): _chunks,
    frozenset({"id", "chunks", "metadata"}): _documents,
    frozenset({"name", "embedding_model", "chunk_size"}): _collections,
    frozenset({"id", "type", "context_window"}): _models,
    frozenset({"id", "type", "status", "progress"}): _jobs,
}
