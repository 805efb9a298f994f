"""How good an answer or a search is, and why."""

from __future__ import annotations

from collections.abc import Mapping

from llm_client import Evaluation, Explanation

from ..markup import read
from ..parts import Bar, Break, Drawing, Facts, Fold, Line, Paragraph, Span, Table, muted, strong
from ..plots import COLOURS, MEASURES
from ..wording import count, ending, plural, shortened
from .values import drawing, titled, warned

DROPPED = 5  # candidates that an explanation shows, of those that were dropped

BEGINNING = 200  # letters of a candidate that an explanation has

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
                scores += [muted(titled(name))]
        place: list[Line] = [Span("pill", str(one["collection"])), " "] if several else []
        place += [strong(f"{ending(str(one['document_id']))} #{one['chunk']}"), Break()]
        place += [muted(shortened(_begun(str(one["text"])), 120))]
        rows.append([str(one["number"] or ""), place, scores, titled(one["dropped"] or "")])
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


def _begun(text: str) -> str:
    """A candidate's text, of which an explanation has only the beginning, without its marks."""
    return read(text) + ("…" if len(text) >= BEGINNING else "")


def _verdict(why: Explanation) -> Line:
    fit = "" if why["fit"] is None else f", fit {why['fit']:.2f} (from {why['bar']:.2f} on it is found)"
    tokens = f", {count(why['prompt_tokens'])} prompt tokens" if why["prompt_tokens"] else ""
    found = Span("good", "found") if why["found"] else Span("warn", "not found")
    return [found, f" by {why['model'] or 'search'}{fit}{tokens}"]


def _timeline(ms: Mapping[str, float]) -> Drawing:
    total = sum(ms.values())
    rows: list[tuple[str, Line]] = [
        (titled(step), [Bar(took / total if total else 0), f"{took:.1f} ms"]) for step, took in ms.items()
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
        *warned(evaluation.get("warnings", ())),
        Table(heads, rows, frozenset({len(heads) - 1})),
        *([Fold("hybrid's worst questions", [Table(heads_of_worst, worst)], open=True)] if worst else []),
    ]
