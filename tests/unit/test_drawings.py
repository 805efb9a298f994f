"""How results are shown in notebooks and terminals."""

from __future__ import annotations

import copy
import html
import json
import pickle
import re
from array import array
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from llm_client import CreatedKey, Hits, Usage, _rate, _records, duration_text, progress_text
from llmbackend import (
    AgentRun,
    Analysis,
    Answer,
    Embeddings,
    Evaluation,
    Explanation,
    InvalidRequest,
    Job,
    ModelResponse,
    Record,
    Records,
    Reply,
)
from llmbackend.notebook import drawings, html_of, plots, text_of
from llmbackend.notebook.as_html import STYLE
from llmbackend.notebook.markup import read

EVIL = (
    "<img src=x onerror=alert(1)> [x](javascript:alert(2)) ![y](http://evil.test/?q=1) <javascript:alert(3)> "
    "\"' onmouseover=alert(4) x='</style></td></details><script>alert(5)</script>--><svg/onload=alert(6)> &lt;b&gt; "
    "\x1b]8;;http://evil.test\x07link\x1b[31m \u202egnp.exe\n\n[z]: javascript:alert(7)\n<iframe src=//evil.test>"
)

CANDIDATE = {
    "collection": "hr",
    "document_id": "d",
    "chunk": 3,
    "text": "t",
    "score": 0.5,
    "dense": 0.5,
    "sparse": None,
    "fused": 0.2,
    "judge": None,
    "judged": None,
    "rerank": None,
    "quote_score": 0.1,
    "number": 1,
    "dropped": None,
}
HIT = {
    "text": "Everybody has 28 days",
    "score": 0.53846,
    "document_id": "d",
    "chunk": 0,
    "collection": "hr",
    "metadata": {"headings": ["a", "b"], "page": 3, "k": "v", "deep": {"k": ["v"]}},
    "duplicates": [{"collection": "hr", "document_id": "e", "chunk": 1}],
}
SOURCE = {**HIT, "number": 1, "quote": "28 days"}
COLLECTION = {
    "name": "hr",
    "embedding_model": "m",
    "sparse_model": "s",
    "dimension": 256,
    "chunk_size": 256,
    "chunk_overlap": 32,
    "documents": 12,
    "chunks": 1240,
    "created_at": "2026-11-29T02:08:19+00:00",
    "indexes": {"kind": "keyword"},
    "engine": {"x": "y"},
    "parser": "p",
    "damaged": True,
    "problem": "gone",
}
PROGRESS = {"done": 412, "total": 3000, "stage": "embed", "rate": 1210.4, "eta": 124.0}
JOB = {
    "id": "600dfe0d-0d6c-4ccb-8c0f-3a21be141534",
    "type": "batch_embed",
    "status": "running",
    "owner": "o",
    "progress": PROGRESS,
    "result": {"model": "m"},
    "error": {"code": "c", "message": "failed"},
    "created_at": "2026-11-29T02:08:34+00:00",
    "started_at": "2026-11-29T02:08:34+00:00",
    "finished_at": None,
    "run_at": None,
    "priority": 0,
}
HANDLE = {
    "handle": "hr",
    "documents": 12,
    "chunks": 1240,
    "embedding_model": "m",
    "problem": "gone",
    "note": "n",
    "calls": ["search(query)"],
}
REPORT = {
    "added": 4,
    "updated": 0,
    "unchanged": 1200,
    "deleted": 0,
    "chunks": 12,
    "tokens": None,
    "failed": [{"id": "f", "error": "e"}],
    "warnings": [{"id": "w", "warning": "lost"}],
    "columns": {"text": "t"},
}
CHECK = {
    "name": "chat",
    "server": "vLLM",
    "ok": False,
    "url": "http://x",
    "models": ["m"],
    "version": None,
    "limits": {"context": 2048, "k": "v"},
    "latency_ms": 112.7,
    "fix": "start it",
}
USED = {"project": "p", "model": "m", "requests": 5, "prompt_tokens": 7, "completion_tokens": 0}
QUESTION = {
    "question": "why",
    "gold": ["d"],
    "ranks": {"dense": 2, "hybrid": None},
    "ndcg": {"hybrid": 0.0},
    "first": {"dense": "d", "hybrid": "e"},
}

AGENT = {
    "name": "contracts",
    "description": "Finds notice periods.",
    "own": True,
    "tools": ["search"],
    "input": {"properties": {"text": {"type": "string", "minLength": 1}}, "$defs": {"A": {"b": {"c": 1}}}},
}
TOOL = {
    "name": "search",
    "description": "Finds passages.",
    "writes": True,
    "parameters": {"properties": {"top_k": {"type": "integer", "minimum": 1}}, "required": ["top_k"]},
}
ANALYSED = {
    "sentiment": "positive",
    "sentiment_score": 0.5,
    "summary": "It is good.",
    "key_points": ["a", "b"],
    "facts": {"dates": [{"text": "x", "start": 1, "end": 2}]},
    "positions": [{"start": 1, "end": 2}],
    "model": "m",
}

SAMPLES: dict[str, Any] = {
    "a record": {
        "name": "n",
        "nothing": None,
        "list": ["a"],
        "numbers": [0.1] * 256,
        "in": {"a": {"b": "c"}},
    },
    "records": [{"name": "n", "nothing": None, "in": {"a": {"b": "c"}}}, {"other": ["a", {"b": "c"}]}],
    "mixed": {"list": [1, "a", ["b", {"c": "d"}]], "text": "x" * 390},
    "hit": HIT,
    "hits": [HIT, {**HIT, "collection": "other", "text": "long " * 300}],
    "sources": [SOURCE],
    "chunk": {"document_id": "d", "chunk": 0, "text": "t", "metadata": {"k": "v"}},
    "chunks": [{"document_id": "d", "chunk": 0, "text": "t", "metadata": {"k": "v"}}],
    "document": {"id": "d", "chunks": 2, "text": "t", "metadata": {"k": "v"}},
    "documents": [{"id": "d", "chunks": 2, "metadata": {"k": "v"}}],
    "collection": COLLECTION,
    "handle": HANDLE,
    "collections": [COLLECTION],
    "models": [{"id": "m", "type": "chat", "context_window": 2048, "tools": True}],
    "doctor": {"ok": False, "version": "1", "checks": [CHECK, {**CHECK, "ok": True}]},
    "health": {
        "status": "failing",
        "problems": ["p"],
        "parts": {"disk": "full"},
        "version": "1",
        "chat": "m",
    },
    "report": REPORT,
    "plan": {**REPORT, "documents": 3, "seconds": 2.0},
    "progress": PROGRESS,
    "jobs": [JOB],
    "agents": [AGENT],
    "tools": [TOOL],
    "analyses": [ANALYSED, {**ANALYSED, "sentiment_score": -0.5}],
}


def _evil(value: Any) -> Any:
    """With every text in it hostile, and names in metadata, too."""
    if isinstance(value, dict):
        return {name: _evil(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_evil(item) for item in value]
    return EVIL if isinstance(value, str) else value


def _evil_names(value: Any) -> Any:
    """With hostile names of fields where names are the caller's own."""
    if isinstance(value, dict):
        return {
            EVIL if name in ("k", "in", "list", "other", "text_", "disk", "kind") else name: _evil_names(item)
            for name, item in value.items()
        }
    return [_evil_names(item) for item in value] if isinstance(value, list) else value


STEP = {
    "name": "a step",
    "kind": "step",
    "seconds": 1.5,
    "tokens": 0,
    "model": None,
    "prompt": "researcher@1",
    "input": None,
    "output": "found",
    "error": None,
    "replayed": False,
    "steps": [],
}
RUN = {
    "agent": "researcher",
    "status": "stopped",
    "answer": "Employees have 28 days [1].",
    "citations": [1],
    "sources": [
        {**SOURCE, "number": 1, "text": "28 days are paid.", "quote": "28 days are paid."},
        {**SOURCE, "number": 2, "text": "Another.", "quote": "Another."},
    ],
    "output": None,
    "notes": ["stopped at the limit of 5 steps"],
    "pending": [],
    "usage": {"steps": 5, "total_tokens": 1234},
    "trace": {**STEP, "steps": [STEP]},
}


RESPONSE: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1795959530,
    "status": "incomplete",
    "model": "m",
    "error": {"code": "c", "message": "it broke"},
    "usage": {"input_tokens": 25},
    "metadata": {"price_eur": "3"},
}


def _output(text: str, name: str) -> list[dict[str, Any]]:
    cited = [{"type": "file_citation", "filename": name}]
    return [
        {"type": "reasoning", "summary": []},
        {"type": "message", "content": [{"type": "output_text", "text": text, "annotations": cited}]},
        {"type": "function_call", "name": name, "arguments": name},
    ]


def _evil_output() -> list[dict[str, Any]]:
    return _output(EVIL, EVIL)


def _results() -> Iterator[tuple[str, Any]]:
    for name, sample in SAMPLES.items():
        yield name, _records(_evil_names(_evil(sample)))
    hits = Hits(_records(_evil([HIT])))
    hits.query = EVIL
    yield "hits of a query", hits
    yield "a job", Job(_records(_evil(JOB)))
    calls = [{"id": "1", "type": "function", "function": {"name": EVIL, "arguments": EVIL}}]
    message = {"role": "assistant", "content": EVIL, "tool_calls": calls}
    yield "a reply", Reply(EVIL, model=EVIL, finish_reason="length", message=message)
    yield (
        "an answer",
        Answer(EVIL, sources=_evil([SOURCE, {**SOURCE, "number": 2}]), citations=[1], model=EVIL),
    )
    yield "no answer", Answer(EVIL, found=False, model="quotes")
    explained = {
        "question": EVIL,
        "fit": 1.2,
        "bar": 0.5,
        "found": True,
        "model": EVIL,
        "prompt_tokens": 7,
        "candidates": _evil([CANDIDATE, {**CANDIDATE, "collection": "x", "dropped": "top_k"}]),
        "ms": {EVIL: 3.0},
        "notes": [EVIL],
    }
    yield "an explanation", Explanation(_records(explained))
    scores = [{"mode": EVIL, "recall": 1.0, "mrr": 0.5, "ndcg": 0.6, "ms": 1.5}]
    evaluated = {"collection": EVIL, "k": 5, "scores": scores, "questions": [_evil(QUESTION)]}
    yield "an evaluation", Evaluation(_records(evaluated))
    analysed = {
        "sentiment": EVIL,
        "sentiment_score": 0.5,
        "summary": EVIL,
        "key_points": [EVIL],
        "model": EVIL,
        "coverage": {"read": 1, "parts": 1, "words": 9},
        "notes": [EVIL],
        "facts": {EVIL: [{"text": EVIL}]},
    }
    yield "an analysis", Analysis(_records(analysed))
    waits = {**RUN, "pending": [{"tool": "delete", "arguments": "x"}], "output": {"category": "x"}}
    yield "a response", ModelResponse(_records({**_evil(RESPONSE), "output": _evil_output()}))
    yield "a run of an agent", AgentRun(_records({**_evil(waits), "usage": RUN["usage"]}))
    yield "usage", Usage(_records(_evil([USED])))
    yield "vectors", Embeddings(array("f", [1, 2]), 2, model=EVIL, cut=[{"index": 0, EVIL: EVIL}])
    yield "a key", CreatedKey(_records({"id": EVIL, "key": f"{EVIL}secret", "note": EVIL}))


RESULTS = dict(_results())
results = pytest.mark.parametrize("result", RESULTS.values(), ids=list(RESULTS))


class _Reader(HTMLParser):
    """What a browser sees."""

    TAGS = frozenset(
        [
            "div",
            "style",
            "p",
            "b",
            "small",
            "mark",
            "code",
            "span",
            "i",
            "br",
            "blockquote",
            "table",
            "thead",
            "tbody",
            "tr",
            "th",
            "td",
            "details",
            "summary",
            "ul",
            "ol",
            "li",
            "h1",
            "h2",
            "h3",
            "em",
            "strong",
            "pre",
            "hr",
        ]
    )

    def __init__(self, shown: str) -> None:
        super().__init__()
        self.text = ""
        self.styles = 0
        self.feed(shown)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in self.TAGS, tag
        self.styles += tag == "style"
        for name, value in attrs:
            assert name in ("class", "align", "style", "data-head", "value", "open", "start"), (tag, name)
            if name == "style":
                assert re.fullmatch(r"width:[\d.]+%;background:(var\(--\w+\)|#[0-9a-f]{6})", value or ""), (
                    value
                )
            if name == "class":
                assert re.fullmatch(r"llmb(-\w+)?|language-\S*", value or ""), value

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")


@results
def test_nothing_in_a_drawing_is_loaded_linked_or_run(result: Any) -> None:
    shown = result._repr_html_()
    page = _Reader(shown)
    assert page.styles == 1
    assert "<img src=x onerror=alert(1)>" in page.text, "it is there, as text"
    assert page.text.count("secret") == 0
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", shown)


@results
def test_nothing_in_a_terminal_s_text_moves_colours_or_turns_it(result: Any) -> None:
    class Printer:
        said = ""

        def text(self, text: str) -> None:
            self.said += text

    printer = Printer()
    result._repr_pretty_(printer, False)
    assert "<img" in printer.said
    assert "secret" not in printer.said
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", printer.said)


def test_every_drawing_is_among_those_that_were_looked_at() -> None:
    kinds = {type(result) for result in RESULTS.values()}
    assert set(drawings.drawing.registry) - {object} <= kinds
    records = [result for result in RESULTS.values() if type(result) is Record]
    lists = [result for result in RESULTS.values() if type(result) is Records]
    for keys in drawings.values.RECORDS:
        assert any(keys <= record.keys() for record in records), keys
    for keys in drawings.values.LISTS:
        assert any(all(keys <= record.keys() for record in some) for some in lists), keys


@pytest.mark.parametrize("sample", SAMPLES.values(), ids=list(SAMPLES))
def test_nothing_is_shown_raw(sample: Any) -> None:
    """No dicts and lists as Python writes them, no None, no vectors, no exponents."""
    for shown in (
        _Reader(html_of(_records(sample))).text.replace(_Reader(STYLE).text, ""),
        text_of(_records(sample)),
    ):
        assert not re.search(r"\{'|\['|None|e[+-]\d\d", shown), shown
        assert shown.count("0.1") < 8


def test_a_drawing_is_readable_without_its_style() -> None:
    """As on GitHub: what bars and colours say is told in words, too."""
    text = _Reader(html_of(Job(_records({**JOB, "error": None}))).replace(STYLE, "")).text
    assert "412 of 3,000 texts, 1,210/s, 2 min left" in text
    assert "running" in text
    assert JOB["id"] in text


# What each tells


def test_hits_have_the_words_of_their_query_marked() -> None:
    hits = Hits(_records([{**HIT, "text": "Employees have vacations, and the office has none."}]))
    hits.query = "How much vacation does an employee have?"
    assert re.findall("<mark[^>]*>(.*?)</mark>", html_of(hits)) == ["Employees", "vacations"]
    assert "0.538" in html_of(hits)
    assert "0.53846" not in html_of(hits)
    assert "page 3" in html_of(hits)
    assert type(hits[:1]) is Hits
    assert hits[:1].query == hits.query
    for twin in (copy.copy(hits), pickle.loads(pickle.dumps(hits))):
        assert (twin, twin.query) == (hits, hits.query)


MARKDOWN = """## Opening the **gate** ##

The *gate* is under **Doors > Gate** ([manual](gate.html)), by `open_gate`.

| hour | who |
|:--|--|
| nine | *Ada* |

```sh
open
```
"""
READ = """Opening the gate

The gate is under Doors > Gate (manual (gate.html)), by open_gate.

hour | who
nine | Ada

open
"""


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("##\n\nAt nine.", "\n\nAt nine."),
        ("> ## Opening\n> At nine.", "> Opening\n> At nine."),
        ("- ## Opening", "- Opening"),
        ("Opening\n=======\nAt nine.", "Opening\nAt nine."),
        ("# C# and F# ##", "C# and F#"),
        ("#tag, and 1 = 1", "#tag, and 1 = 1"),
        ("# " + " " * 50_000 + "x", "x"),
    ],
)
def test_headings_are_shown_by_their_words(written: str, said: str) -> None:
    assert read(written) == said


def test_passages_of_markdown_are_shown_without_its_marks() -> None:
    hits = Hits(_records([{**HIT, "text": MARKDOWN}]))
    hits.query = "the gate of Ada"
    for shown in (html_of(hits), text_of(hits)):
        assert not re.search(r"\*\*|##|\|--|`", shown)
    words = re.sub(
        "<[^>]*>", "", re.search("<blockquote[^>]*>(.*?)</blockquote>", html_of(hits), re.DOTALL)[1]
    )  # type: ignore[index]
    assert html.unescape(words) == READ
    marked = re.findall("<mark[^>]*>(.*?)</mark>", html_of(hits))
    assert marked == ["gate", "gate", "Gate", "gate", "open_gate", "Ada"]
    source = {**SOURCE, "text": MARKDOWN, "quote": "is under **Doors > Gate**"}
    assert ">is under Doors &gt; Gate</mark>" in html_of(Answer("it is [1]", sources=[source], citations=[1]))
    plain = "2 * 3 * 4, **options, __init__, snake_case, a | b, #5 and [x]"
    assert html.escape(plain) in html_of(_records([{**HIT, "text": plain}]))


def test_a_long_passage_is_shown_by_its_beginning_and_unfolds() -> None:
    shown = html_of(_records([{**HIT, "text": "word " * 400 + "end"}]))
    assert shown.count("end</blockquote>") == 1
    assert shown.index("<details") < shown.index("end</blockquote>")


def test_an_answer_s_sources_unfold_to_the_passage_with_the_quote_marked() -> None:
    shown = html_of(Answer("**28** days [1]", sources=[SOURCE], citations=[1]))
    assert "<strong>28</strong> days [1]" in shown
    assert re.search(
        r"<details><summary>\[1\].*?page 3.*?</summary>.*?Everybody has <mark[^>]*>28 days</mark>", shown
    )


def test_jobs_are_a_table_of_six_columns() -> None:
    shown = html_of(_records([JOB, JOB]))
    assert shown.count("<th ") == 6
    assert "since 29 Nov 2026, 02:08" in shown


def test_agents_are_told_by_what_they_take_and_not_by_their_schemas() -> None:
    page = _Reader(html_of(_records({"agents": [AGENT]}))).text
    assert "contracts own" in page
    assert "text" in page
    assert "minLength" not in page


def test_a_wide_list_is_a_table_that_fits_and_names_the_columns_left_out() -> None:
    shown = html_of(_records([{f"column_{number}": number for number in range(30)}]))
    assert shown.count("<th ") == 10
    assert "and the columns column_10, column_11" in shown
    deep = html_of(_records([{"id": "a", "input": {f"field_{number}": number for number in range(30)}}]))
    assert deep.count("<th ") == 2
    assert "field_0" in deep
    assert "and 18 more" in deep


def test_the_analyst_s_values_stand_above_their_quotes() -> None:
    cells = {"days": {"value": 28, "quote": "has 28 days"}, "none": {"value": None, "quote": None}}
    rows = [{"document": "a.md", "collection": "hr", "error": None, "cells": cells}]
    shown = html_of(AgentRun(_records({**RUN, "answer": "", "output": {"rows": rows}})))
    assert "28<br>" in shown
    assert "“has 28 days”" in shown


def test_only_words_that_are_too_long_for_a_column_are_broken() -> None:
    shown = html_of(_records([{"operation": "export_collection", "url": "x" * 300}]))
    assert re.search(r'<td align="left"[^>]*>export_collection<', shown.replace(' class="llmb-words"', ""))
    assert re.search(r'<td class="llmb-long"[^>]*>x', shown)


def test_the_beginning_of_a_passage_ends_with_a_word() -> None:
    shown = text_of(_records([{**HIT, "text": "wonderful " * 100}]))
    assert "wonderful…" in shown
    assert "x…" in text_of(_records([{**HIT, "text": "x" * 900}]))


def test_a_report_folds_what_failed_and_what_was_lost() -> None:
    shown = html_of(_records(REPORT))
    assert shown.count("<details>") == 2
    assert "4 added, 1,200 unchanged" in shown
    assert "1 failed" in shown
    assert text_of(_records({**REPORT, "failed": [], "warnings": [], "columns": None})) == (
        "4 added, 1,200 unchanged  12 chunks"
    )


def test_columns_without_values_are_left_out() -> None:
    assert "nothing" not in text_of(_records([{"a": 1, "nothing": None}, {"a": 2, "nothing": None}]))


def test_a_long_list_is_cut_and_says_so() -> None:
    shown = text_of(_records([{"a": number} for number in range(60)]))
    assert "and 10 more: .to_pandas() has all" in shown


def test_no_results_are_told_as_such() -> None:
    assert text_of(Records()) == "none"
    assert text_of(Hits()) == "nothing was found"


def _explanation(*candidates: dict[str, Any], **about: Any) -> Explanation:
    explained = {
        "question": "why",
        "fit": 1.2345,
        "bar": 0.56,
        "found": True,
        "model": "m",
        "prompt_tokens": 7,
        "candidates": list(candidates),
        "ms": {"embed": 1.0, "search": 3.0},
        **about,
    }
    return Explanation(_records(explained))


def test_an_explanation_tells_scores_and_what_was_dropped() -> None:
    dropped = [{**CANDIDATE, "number": None, "dropped": "top_k"} for _ in range(9)]
    why = _explanation(CANDIDATE, {**CANDIDATE, "number": 2, "dense": 0.25, "dropped": "budget"}, *dropped)
    shown = html_of(why)
    assert "width:50.0%" in shown, "half as long as the best"
    assert "sparse" not in shown
    assert shown.count("llmb-faint") - STYLE.count("llmb-faint") == drawings.quality.DROPPED
    text = repr(why)
    assert text.startswith("why\nfound by m, fit 1.23 (from 0.56 on it is found), 7 prompt tokens\n")
    assert "0.500 dense" in text
    assert "and 5 more that were dropped" in text
    assert "4.0 ms in all" in text
    assert [one.dropped for one in why.dropped] == ["budget", *["top_k"] * 9]


@pytest.mark.parametrize("ms", [{}, {"search": 0.0}])
def test_an_explanation_of_nothing_is_shown_too(ms: dict[str, float]) -> None:
    why = _explanation(ms=ms, fit=None, found=False, model="", prompt_tokens=0)
    assert "not found" in html_of(why)
    assert repr(why).startswith("why\nnot found by search")


@pytest.fixture
def evaluation() -> Evaluation:
    scores = [
        {"mode": mode, "recall": 1.0, "mrr": 0.5, "ndcg": 0.6, "ms": 1.5} for mode in ("dense", "hybrid")
    ]
    right = {**QUESTION, "question": "right", "ndcg": {"hybrid": 1.0}}
    return Evaluation(
        _records({"collection": "hr", "k": 5, "scores": scores, "questions": [right, QUESTION]})
    )


def test_an_evaluation_is_a_table_with_its_worst_questions(evaluation: Evaluation) -> None:
    shown = html_of(evaluation)
    assert "nDCG@5" in shown
    assert shown.count('<span class="llmb-bar">') == 6
    assert "right" not in _Reader(shown.replace(STYLE, "")).text, "nothing to look into"
    assert repr(evaluation).startswith("hr: 2 questions, first 5 documents\n")
    assert [one.question for one in evaluation.worst()] == ["why", "right"]


def test_an_evaluation_is_plotted_where_the_caller_wants_it(evaluation: Evaluation) -> None:
    axes = Figure().subplots()
    assert evaluation.plot(axes) is axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["dense", "hybrid"]
    assert len(axes.patches) == 6


# Progress in words


@pytest.mark.parametrize(
    ("progress", "job_type", "said"),
    [
        (
            {
                "done": 3,
                "total": 7,
                "stages": {"parse": {"done": 5}, "write": {"done": 412}},
                "rate": 1200,
                "eta": 125,
            },
            "",
            "3 of 7 files, 412 chunks, 1,200/s, 2 min left",
        ),
        (
            {"done": 1, "total": 1, "stages": {"chunk": {"done": 1}, "write": {"done": 1}}},
            "",
            "1 document, 1 chunk",
        ),
        (
            {"done": 5, "total": 50, "rate": 0.1, "eta": 450},
            "batch_chat",
            "5 of 50 prompts, 6/min, 8 min left",
        ),
        ({"done": 5, "total": 50, "stage": "search"}, "own_type", "5 of 50, search"),
        ({"done": 0, "total": 0, "stage": ""}, "batch_embed", ""),
        ({"done": 9, "total": 0, "stage": "query"}, "run_agent", "9 so far, query"),
        ({"done": 1, "total": 36, "stage": "dense"}, "evaluate", "1 of 36 searches"),
        (
            {"done": 50, "total": 50, "stage": "done", "rate": 12100.0, "eta": 0.0},
            "batch_embed",
            "50 texts, 12,100/s",
        ),
    ],
)
def test_progress_is_told_in_words(progress: dict[str, Any], job_type: str, said: str) -> None:
    assert progress_text(progress, job_type) == said


def test_durations_and_rates_are_told_as_people_do() -> None:
    told = [duration_text(seconds) for seconds in (0.02, 2.34, 61, 125, 3600, 11100, 90000, 200_000)]
    assert told == ["20 ms", "2.3 s", "61 s", "2 min", "1 h", "3 h 5 min", "1 day 1 h", "2 days 7 h"]
    assert [_rate(rate) for rate in (12100.4, 2.5, 0.1)] == ["12,100/s", "2.5/s", "6/min"]


# Tables of other kinds


def test_a_list_becomes_a_table_with_flat_columns() -> None:
    hits = _records([HIT, {**HIT, "metadata": {"year": 2026}}])
    frame = hits.to_pandas()
    assert list(frame.columns)[-5:] == [
        "metadata.page",
        "metadata.k",
        "metadata.deep.k",
        "duplicates",
        "metadata.year",
    ]
    assert len(frame) == 2
    other = hits.to_polars()
    assert other["metadata.page"].to_list() == [3, None]
    mixed = _records([{"metadata": {"year": 2026}}, {"metadata": {"year": "unknown"}}])
    assert mixed.to_polars()["metadata.year"].to_list() == ["2026", "unknown"]
    lists = _records([{"metadata": {"tags": ["a", "b"]}}, {"metadata": {"tags": "a"}}, {"metadata": {}}])
    assert lists.to_polars()["metadata.tags"].to_list() == ['["a", "b"]', "a", None]
    assert lists[::2].to_polars()["metadata.tags"].to_list() == [["a", "b"], None]
    deep = _records([{"found": [{"k": 1}]}, {"found": [1]}])
    assert deep.to_polars()["found"].to_list() == ['[{"k": 1}]', "[1]"]
    for one, other in (([1], [2.5]), ([{"k": 1}], [{"j": 2}])):
        found = _records([{"found": one}, {"found": other}]).to_polars()["found"].to_list()
        assert [json.loads(text) for text in found] == [one, other]
    assert _records([{"found": [{"k": 1}]}]).to_polars()["found"].to_list() == [[{"k": 1}]]
    assert len(Records().to_pandas()) == len(Records().to_polars()) == 0


def test_pandas_reads_a_list_as_it_becomes_a_table() -> None:
    hits = Hits(_records([HIT, {**HIT, "metadata": {"year": 2026}}]))
    for one in (pd.DataFrame(hits), pd.DataFrame.from_records(hits), pd.DataFrame(hits[:])):
        pd.testing.assert_frame_equal(one, hits.to_pandas())
    assert pd.DataFrame(hits, columns=["metadata.year"])["metadata.year"].to_list()[1] == 2026
    assert [hit.metadata for hit in hits][1] == {"year": 2026}, "anybody else reads it as it is"
    assert pd.DataFrame(_records({"failed": []}).failed).empty


def test_an_empty_list_within_a_result_becomes_a_table_as_well() -> None:
    report = _records({"failed": [], "sources": [{"id": "a"}]})
    assert report.failed == []
    assert len(report.failed.to_pandas()) == len(report.failed.to_polars()) == 0


def test_vectors_become_tables() -> None:
    vectors = Embeddings(array("f", [1, 2, 3, 4, 5, 6]), 2)
    assert vectors.to_pandas().shape == (3, 2)
    assert vectors.to_polars()["embedding"].to_list() == [[1, 2], [3, 4], [5, 6]]
    assert "3 vectors of 2 dimensions" in text_of(vectors)


# Pictures


def test_vectors_are_drawn_in_the_plane_in_which_they_differ_most() -> None:
    random = np.random.default_rng(1)
    flat = random.normal(size=(40, 2)) * [9, 3]
    matrix = np.zeros((40, 16), dtype=np.float32)
    matrix[:, [4, 11]] = flat + 100
    points = plots.projected(matrix)
    assert np.allclose(
        np.linalg.norm(points[:, None] - points[None], axis=-1),
        np.linalg.norm(flat[:, None] - flat[None], axis=-1),
        atol=1e-2,
    )
    for few in (np.zeros((0, 4)), np.ones((1, 4)), np.ones((3, 1))):
        assert plots.projected(few).shape == (len(few), 2)


def test_a_map_has_a_legend_of_the_commonest_labels_as_they_are() -> None:
    vectors = Embeddings(array("f", np.random.default_rng(1).normal(size=400)), 4)
    labels = ["$\\frac", "_hidden", "c", "d", "e", "f", "g", "h", "i", "j"] * 10
    figure = Figure()
    axes = vectors.plot(labels, axes=figure.subplots())
    figure.draw_without_rendering()
    assert len(axes.get_legend().get_texts()) == plots.KINDS + 1
    with pytest.raises(InvalidRequest, match="3 labels"):
        vectors.plot(["a", "b", "c"])


def test_a_picture_is_legible_on_light_and_on_dark_pages() -> None:
    """The page shines through it, and its words have a contrast of 4 to 1 to white and to black."""
    from matplotlib import pyplot

    pyplot.switch_backend("agg")
    scores = [{"mode": "dense", "recall": 1.0, "mrr": 0.5, "ndcg": 0.6, "ms": 1.5}]
    evaluation = Evaluation(_records({"k": 5, "scores": scores}))
    vectors = Embeddings(array("f", [1, 2, 3, 4, 5, 6]), 2)
    for axes in (
        evaluation.plot(),
        Usage(_records([{**USED, "embedded_tokens": 3}])).plot(),
        vectors.plot("aab"),
    ):
        figure = axes.figure
        figure.canvas.draw()
        assert np.asarray(figure.canvas.buffer_rgba())[0, 0, 3] == 0
        words = [
            *axes.get_legend().get_texts(),
            *axes.get_xticklabels(),
            *axes.get_yticklabels(),
            *axes.texts,
        ]
        for word in words:
            light = _light(word.get_color())
            assert min(1.05 / (light + 0.05), (light + 0.05) / 0.05) > 4, word
        pyplot.close(figure)
    assert pyplot.rcParams["figure.facecolor"] != "none", "pictures of the caller's own stay as they are"


def _light(colour: Any) -> float:
    from matplotlib.colors import to_rgb

    channels = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return float(np.dot(channels, [0.2126, 0.7152, 0.0722]))


def test_a_run_of_an_agent_is_its_answer_its_sources_and_its_tree_of_steps() -> None:
    inner = {**STEP, "name": "looking", "kind": "tool", "error": "it <failed>"}
    run = AgentRun(_records({**RUN, "trace": {**STEP, "steps": [{**STEP, "steps": [inner]}]}}))
    shown = html_of(run)
    assert "28 days are paid." in shown
    assert "Another." not in shown
    assert "it &lt;failed&gt;" in shown
    assert shown.rindex("a step") < shown.index("looking")
    assert "stopped at the limit" in shown
    assert "1,234 tokens" in text_of(run)


def test_a_response_shows_its_whole_text_what_it_cites_and_when_it_was_made() -> None:
    response = ModelResponse(_records({**RESPONSE, "output": _output("long " * 300, "policy.md")}))
    text = text_of(response)
    assert text.count("long") == 300
    assert "policy.md" in text
    assert "it broke" in text
    page = _Reader(html_of(response)).text
    assert "29 Nov 2026" in page
    assert "1,795,959,530" not in page


def test_names_of_metadata_and_fields_are_shown_as_they_are() -> None:
    metadata = {"price_eur": 3, "sold_at": "2026-01-02T00:00:00+00:00"}
    for shown in (
        _records([{"id": "d", "chunks": 2, "metadata": metadata}]),
        Hits(_records([{**HIT, "metadata": metadata}])),
        _records([{"sku": "a", **metadata}]),
        _records({"sku": "a", **metadata}),
    ):
        assert "price_eur" in text_of(shown)
        assert "sold_at" in text_of(shown)


def test_tools_are_shown_with_the_names_of_what_they_take() -> None:
    text = text_of(_records({"tools": [TOOL]}))
    assert "top_k" in text
    assert "minimum" not in text
    assert "writes" in text


def test_a_running_job_of_which_nothing_is_counted_is_not_called_not_begun() -> None:
    running = Job(_records({**JOB, "progress": {"done": 0, "total": 0, "stage": ""}}))
    assert "not begun" not in text_of(running)
    assert repr(running).endswith("running>")
