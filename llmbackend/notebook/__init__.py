"""How results are drawn: HTML for notebooks, text for terminals, pictures by matplotlib."""

from __future__ import annotations

import html
from collections.abc import Mapping
from functools import singledispatch
from typing import Any

from llm_client import (
    Analysis,
    Answer,
    Evaluation,
    Explanation,
    Job,
    Record,
    Records,
    Reply,
    Usage,
    _progress_text,
)

__all__ = ["html_of", "plot_evaluation", "plot_usage", "text_of"]


@singledispatch
def html_of(value: Any) -> str:
    """A result as HTML. Whatever it holds is shown as text, and runs nothing."""
    return html.escape(str(value))


@singledispatch
def text_of(value: Any) -> str:
    """A result as text for people."""
    return str(value)


@html_of.register
def _record(self: Record) -> str:
    if self.keys() == {"progress"}:
        return _progress_html(self["progress"])
    rows = "".join(
        f"<tr><th style='text-align:left'>{html.escape(str(key))}</th>"
        f"<td style='text-align:left'>{_cell(value)}</td></tr>"
        for key, value in self.items()
    )
    return f"<table>{rows}</table>"


@html_of.register
def _list(self: Records) -> str:
    columns = list(dict.fromkeys(name for record in self for name in record))
    head = "".join(f"<th style='text-align:left'>{html.escape(name)}</th>" for name in columns)
    rows = "".join(
        "<tr>"
        + "".join(f"<td style='text-align:left'>{_cell(record.get(name, ''), 200)}</td>" for name in columns)
        + "</tr>"
        for record in self
    )
    return f"<table><tr>{head}</tr>{rows}</table>"


@html_of.register
def _job(self: Job) -> str:
    error = self.get("error") or {}
    return (
        f"<b>{html.escape(self['type'])}</b> {html.escape(self['status'])} "
        f"<small>{html.escape(self['id'])}</small><br>{_progress_html(self['progress'])}"
        f"<br>{html.escape(str(error.get('message', '')))}"
    )


def _progress_html(progress: Mapping[str, Any]) -> str:
    done, total = int(progress.get("done") or 0), int(progress.get("total") or 0)
    text = html.escape(_progress_text(progress))
    return f"<progress value='{done}' max='{total or 1}' style='width:20em'></progress> {text}"


_SHOWN = 20
"""Items of a list within a record that a notebook shows."""


def _cell(value: Any, limit: int = 400) -> str:
    if isinstance(value, list) and value and not isinstance(value[0], (int, float)):
        more = f"<li>and {len(value) - _SHOWN} more</li>" if len(value) > _SHOWN else ""
        return "<ul>" + "".join(f"<li>{_cell(item, limit)}</li>" for item in value[:_SHOWN]) + more + "</ul>"
    if isinstance(value, Mapping):
        return ", ".join(f"{html.escape(str(k))}: {_cell(v, limit)}" for k, v in value.items())
    text = str(value)
    return html.escape(text if len(text) <= limit else text[:limit] + "…")


@html_of.register
def _reply(self: Reply) -> str:
    note = f"{self.model}{_LIMITS.get(self.model, '')}"
    return f"<p style='white-space:pre-wrap'>{html.escape(self)}</p><small>{html.escape(note)}</small>"


# What a reader of a reply should know of the model that wrote it.
_LIMITS = {
    "SmolLM2-135M-Instruct": ": a very small model, whose facts, sums and languages other than English are often wrong. "
    "Set VLLM_URL, LITELLM_URL or OPENAI_BASE_URL for a larger one."
}


@html_of.register
def _answer(self: Answer) -> str:
    items = "".join(
        f"<li value='{int(source['number'])}'><b>{html.escape(str(source['document_id']))}</b> "
        f"<q>{html.escape(str(source['quote']))}</q></li>"
        for source in self.sources
    )
    note = (
        "<p><small>Quoted from the documents as they stand; with a larger chat model set, it would answer in words of "
        "its own.</small></p>"
        if self.model == "quotes"
        else ""
    )
    return f"<p style='white-space:pre-wrap'>{html.escape(self)}</p><ol>{items}</ol>{note}"


@html_of.register
def _analysis(self: Analysis) -> str:
    points = "".join(f"<li>{html.escape(point)}</li>" for point in self["key_points"])
    facts = "".join(
        f"<tr><th style='text-align:left'>{html.escape(kind)}</th>"
        f"<td style='text-align:left'>{html.escape('; '.join(found['text'] for found in passages))}</td></tr>"
        for kind, passages in (self.get("facts") or {}).items()
        if passages
    )
    coverage = self.get("coverage") or {"read": "?", "parts": "?", "words": "?"}
    small = [
        f"read: {coverage['read']} of {coverage['parts']} parts, {coverage['words']} words",
        *(self.get("notes") or []),
        self["model"],
    ]
    return (
        f"<b>{html.escape(self['sentiment'])}</b> ({self['sentiment_score']:+.2f})"
        f"<p>{html.escape(self['summary'])}</p><ul>{points}</ul><table>{facts}</table>"
        f"<small>{'<br>'.join(map(html.escape, small))}</small>"
    )


_SCORES = (
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
SHOWN = 5  # dropped candidates that an explanation shows
_COLOURS = ("#4878a8", "#e49444", "#6a9f58", "#a87c9f", "#d1615d", "#85b6b2", "#967662")


def _verdict(self: Explanation) -> str:
    fit = "" if self["fit"] is None else f", fit {self['fit']:.2f} (from {self['bar']:.2f} on it is found)"
    tokens = f", {self['prompt_tokens']} prompt tokens" if self["prompt_tokens"] else ""
    return f"{'found' if self['found'] else 'not found'} by {self['model'] or 'search'}{fit}{tokens}"


def _shown(self: Explanation) -> tuple[list[Record], list[str], str]:
    """Candidates to look at, the scores that they have, and what of the others there is to say."""
    kept = [one for one in self["candidates"] if not one["dropped"]]
    shown = [*kept, *self.dropped[:SHOWN]]
    columns = [name for name in _SCORES if any(one.get(name) is not None for one in shown)]
    more = len(self["candidates"]) - len(shown)
    return shown, columns, f"and {more} more that were dropped" if more else ""


@text_of.register
def _explanation_text(self: Explanation) -> str:
    shown, columns, more = _shown(self)
    lines = [f"{self['question']}  ({_verdict(self)})", *self.get("notes", ())]
    for one in shown:
        told = [f"{name} {one[name]:.3f}" for name in columns if one[name] is not None]
        told += [f"dropped: {one['dropped']}"] if one["dropped"] else []
        place = f"{_ending(one['document_id'])} #{one['chunk']}"
        lines.append(f"{one['number'] or '-':>4}  {place:<48}  {'  '.join(told)}")
    lines += [f"      {more}"] if more else []
    return "\n".join([*lines, "  ".join(f"{step} {ms:.1f} ms" for step, ms in self["ms"].items())])


@html_of.register
def _explanation(self: Explanation) -> str:
    shown, columns, more = _shown(self)
    most = {name: max(one[name] or 0 for one in shown) for name in columns}
    several = len({one["collection"] for one in shown}) > 1
    rows = ""
    for one in shown:
        bars = "".join(
            _bar(one[name], most[name], colour) for name, colour in zip(columns, _COLOURS, strict=False)
        )
        place = f"{_ending(one['document_id'])} #{one['chunk']}"
        rows += (
            f"<tr style='{'opacity:.5' if one['dropped'] else ''}'><td>{int(one['number']) if one['number'] else ''}</td>"
            f"<td style='text-align:left;white-space:nowrap' title='{html.escape(one['document_id'])}'>"
            + (f"<small>{html.escape(one['collection'])}</small><br>" if several else "")
            + f"{html.escape(place)}</td>{bars}<td>{html.escape(one['dropped'] or '')}</td>"
            f"<td style='text-align:left'><small>{_cell(one['text'], 120)}</small></td></tr>"
        )
    heads = ("", "passage", *(name.replace("_", " ") for name in columns), "dropped", "text")
    head = "".join(f"<th style='text-align:left'>{name}</th>" for name in heads)
    return (
        f"<p><b>{html.escape(self['question'])}</b><br>{html.escape(_verdict(self))}</p>"
        + "".join(f"<p>{html.escape(note)}</p>" for note in self.get("notes", ()))
        + f"{_timeline(self['ms'])}<table><tr>{head}</tr>{rows}</table><small>{more}</small>"
    )


@text_of.register
def _evaluation_text(self: Evaluation) -> str:
    lines = [f"{self['collection']}: {len(self['questions'])} questions, first {self['k']} documents"]
    for one in self["scores"]:
        told = "  ".join(f"{measure} {one[measure]:.3f}" for measure in _MEASURES)
        lines.append(f"{one['mode']:<14}  {told}  {one['ms']:.1f} ms")
    return "\n".join(lines)


@html_of.register
def _evaluation(self: Evaluation) -> str:
    head = "".join(
        f"<th style='text-align:left'>{name.format(k=self['k'])}</th>" for name in _MEASURES.values()
    )
    rows = "".join(
        f"<tr><td style='text-align:left'>{_cell(one['mode'])}</td>"
        + "".join(_bar(one[measure], 1, colour) for measure, colour in zip(_MEASURES, _COLOURS, strict=False))
        + f"<td>{one['ms']:.1f}</td></tr>"
        for one in self["scores"]
    )
    missed = [one for one in self.worst() if one["ndcg"]["hybrid"] < 1]
    worst = "".join(
        f"<tr><td style='text-align:left'>{_cell(one['question'], 120)}</td>"
        f"<td style='text-align:left'>{_cell(', '.join(one['gold']), 80)}</td>"
        f"<td>{one['ranks']['hybrid'] or '-'}</td><td style='text-align:left'>{_cell(one['first']['hybrid'] or '')}</td></tr>"
        for one in missed
    )
    return (
        f"<p>{html.escape(self['collection'])}: {len(self['questions'])} questions</p>"
        f"<table><tr><th style='text-align:left'>mode</th>{head}<th>ms</th></tr>{rows}</table>"
        + (
            "<p>hybrid's worst</p><table><tr><th style='text-align:left'>question</th><th style='text-align:left'>"
            f"gold</th><th>rank</th><th style='text-align:left'>first instead</th></tr>{worst}</table>"
            if worst
            else ""
        )
    )


_MEASURES = {"recall": "recall@{k}", "mrr": "MRR@{k}", "ndcg": "nDCG@{k}"}


def _ending(name: str) -> str:
    """A long name by its end, which tells most."""
    return name if len(name) <= 44 else f"…{name[-43:]}"


def _bar(value: float | None, most: float, colour: str) -> str:
    """A table cell with a number, and a bar below it."""
    if value is None:
        return "<td></td>"
    width = round(80 * max(0.0, value) / most, 1) if most > 0 else 0
    return (
        f"<td style='text-align:left'>{value:.3f}<br><svg width='80' height='6' role='img'>"
        f"<rect width='80' height='6' fill='#888' opacity='.2'/><rect width='{width}' height='6' fill='{colour}'/></svg></td>"
    )


def _timeline(ms: Mapping[str, float]) -> str:
    """Steps one after the other, as wide as they took long, and a legend."""
    total = sum(ms.values()) or 1.0
    rects, legend, at = "", "", 0.0
    for number, (step, took) in enumerate(ms.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        width = 600 * took / total
        rects += f"<rect x='{at:.1f}' width='{width:.1f}' height='14' fill='{colour}'/>"
        legend += f"<span style='color:{colour}'>&#9632;</span> {html.escape(step)} {took:.1f} ms &ensp;"
        at += width
    return f"<svg width='600' height='14' role='img'>{rects}</svg><br><small>{legend}total {total:.1f} ms</small>"


def plot_usage(self: Usage, axes: Any) -> Any:
    """Bars of the tokens of each row, on matplotlib's axes, which are returned."""
    if axes is None:
        from matplotlib import pyplot  # the caller wants a plot, so the caller has it

        axes = pyplot.subplots(figsize=(7, 1 + 0.35 * max(1, len(self))), layout="constrained")[1]
    names = [" ".join(str(row[name]) for name in _DIMENSIONS if row.get(name)) or "all" for row in self]
    left = [0] * len(self)
    for tokens, colour in zip(_TOKENS, _COLOURS, strict=False):
        values = [row[tokens] for row in self]
        axes.barh(names, values, left=left, label=tokens.replace("_", " "), color=colour)
        left = [before + value for before, value in zip(left, values, strict=True)]
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, 1.2))
    return axes


def plot_evaluation(self: Evaluation, axes: Any) -> Any:
    """Bars of each mode's scores, on matplotlib's axes, which are returned."""
    if axes is None:
        from matplotlib import pyplot  # the caller wants a plot, so the caller has it

        axes = pyplot.subplots(figsize=(7, 3), layout="constrained")[1]
    names = [one["mode"] for one in self["scores"]]
    for place, (measure, label) in enumerate(_MEASURES.items()):
        values = [one[measure] for one in self["scores"]]
        at = [number + (place - 1) * 0.27 for number in range(len(names))]
        bars = axes.bar(at, values, width=0.25, label=label.format(k=self["k"]), color=_COLOURS[place])
        axes.bar_label(bars, fmt="%.2f", fontsize=8)
    axes.set_xticks(range(len(names)), names)
    axes.set_ylim(0, 1.1)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, 1.2))
    return axes


_DIMENSIONS = ("project", "key", "model", "operation", "day")
_TOKENS = ("prompt_tokens", "completion_tokens", "embedded_tokens")
