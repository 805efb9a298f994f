"""Plots by matplotlib, on the caller's axes or new ones."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llm_client import Embeddings, Evaluation, InvalidRequest, Usage

from ..alike import alike, did_you_mean
from .wording import plural, shortened

COLOURS = ("#4878a8", "#e49444", "#6a9f58", "#a87c9f", "#d1615d", "#85b6b2", "#967662")
MEASURES = {"recall": "recall@{k}", "mrr": "MRR@{k}", "ndcg": "nDCG@{k}"}
DIMENSIONS = ("project", "key", "model", "operation", "day")
TOKENS = ("prompt_tokens", "completion_tokens", "embedded_tokens")

KINDS = 6  # colours of a map; rarer kinds share one more


INK = "#767676"  # for text and lines: legible on white and on black


@contextlib.contextmanager
def _on(axes: Any, width: float, height: float) -> Iterator[Any]:
    """The caller's axes unchanged, or new ones with a transparent background, for light and dark pages."""
    if axes is not None:
        yield axes
        return
    try:
        from matplotlib import pyplot
    except ModuleNotFoundError as error:
        raise InvalidRequest(
            "pictures are drawn by matplotlib: pip install 'llmbackend[notebook]'",
            details={"missing": error.name},
        ) from error
    inked = (
        "text.color",
        "axes.labelcolor",
        "axes.titlecolor",
        "axes.edgecolor",
        "xtick.color",
        "ytick.color",
    )
    # Made first, for it is the first figure that makes a notebook's pyplot interactive, which leaving the context would undo:
    # then no later plot would be shown.
    figure = pyplot.figure(figsize=(width, height), layout="constrained", facecolor="none")
    clear: Any = {"axes.facecolor": "none"}
    with pyplot.rc_context(clear | dict.fromkeys(inked, INK)):
        yield figure.subplots()


def plot_evaluation(evaluation: Evaluation, axes: Any = None) -> Any:
    """Plot each mode's scores as bars."""
    with _on(axes, 7, 3) as axes:
        names = [one["mode"] for one in evaluation["scores"]]
        for place, (measure, label) in enumerate(MEASURES.items()):
            values = [one[measure] for one in evaluation["scores"]]
            at = [number + (place - 1) * 0.27 for number in range(len(names))]
            bars = axes.bar(
                at, values, width=0.25, label=label.format(k=evaluation["k"]), color=COLOURS[place]
            )
            axes.bar_label(bars, fmt="%.2f", fontsize=8)
        axes.set_xticks(range(len(names)), names)
        axes.set_ylim(0, 1.1)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, 1.2))
    return axes


def plot_usage(usage: Usage, axes: Any = None) -> Any:
    """Plot each row's tokens as bars."""
    with _on(axes, 7, 1 + 0.35 * max(1, len(usage))) as axes:
        names = [" ".join(str(row[name]) for name in DIMENSIONS if row.get(name)) or "all" for row in usage]
        left = [0] * len(usage)
        for tokens, colour in zip(TOKENS, COLOURS, strict=False):
            values = [row[tokens] for row in usage]
            axes.barh(names, values, left=left, label=tokens.replace("_", " "), color=colour)
            left = [before + value for before, value in zip(left, values, strict=True)]
        axes.invert_yaxis()
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, 1.2))
    return axes


def plot_vectors(embeddings: Embeddings, labels: Sequence[Any] | None = None, axes: Any = None) -> Any:
    """Plot vectors as points in two dimensions, coloured by their labels."""
    if labels is not None and len(labels) != len(embeddings):
        raise InvalidRequest(
            f"plot: there are {len(embeddings)} vectors, and {len(labels)} labels: give one each"
        )
    points = projected(embeddings.numpy())
    with _on(axes, 6, 4) as axes:
        kinds = ["" if label is None else str(label) for label in labels or [None] * len(embeddings)]
        scattered(axes, points, kinds)
    return axes


def plot_collection(
    name: str,
    chunks: Sequence[Mapping[str, Any]],
    color: str | None,
    query: str | None,
    asked: Embeddings | None,
    axes: Any = None,
) -> Any:
    """Plot a collection's documents, each as the mean of its chunks' vectors, with a query among them."""
    import numpy

    if not chunks:
        raise InvalidRequest(f"map: there is nothing in the collection {name!r}: ingest documents into it")
    of: dict[str, list[Any]] = {}
    about: dict[str, Mapping[str, Any]] = {}
    for chunk in chunks:
        id = str(chunk["document_id"])
        of.setdefault(id, []).append(numpy.frombuffer(base64.b64decode(chunk["vector"]), dtype="<f4"))
        about[id] = chunk.get("metadata") or {}
    fields = {field for one in about.values() for field in one}
    if color and color.partition(".")[0] not in fields:
        near = alike(color, fields)
        there = did_you_mean(near) if near else f"there are {', '.join(sorted(fields)) or 'none'}"
        raise InvalidRequest(f"map: no document shown has the field {color!r}: {there}")
    documents = numpy.array([numpy.mean(vectors, axis=0) for vectors in of.values()])
    rows = documents if asked is None else numpy.vstack([documents, asked.numpy()])
    points = projected(rows)
    with _on(axes, 6, 4) as axes:
        kinds = [_kind(about[id], color) for id in of]
        scattered(axes, points[: len(documents)], kinds)
        if asked is not None:
            (x, y) = points[-1]
            axes.scatter([x], [y], marker="*", s=220, color="#d1615d", edgecolors="white", zorder=3)
            axes.annotate(
                _plain(shortened(str(query), 60)),
                (x, y),
                xytext=(0, 10),
                textcoords="offset points",
                ha="center",
            )
        by = f", by {color}" if color else ""
        axes.set_title(_plain(f"{name}: {plural(len(documents), 'document')}{by}"), fontsize=10, loc="left")
    return axes


def _kind(metadata: Mapping[str, Any], color: str | None) -> str:
    value: Any = metadata
    for part in color.split(".") if color else ():
        value = value.get(part) if isinstance(value, Mapping) else None
    if not color or value is None:
        return ""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def projected(matrix: Any) -> Any:
    """Project rows onto the plane in which they differ most (principal components)."""
    import numpy

    centred = matrix.astype(numpy.float64) - (matrix.mean(axis=0) if len(matrix) else 0)
    if min(centred.shape) == 0:
        return numpy.zeros((len(matrix), 2))
    # The covariance of the dimensions is small, however many rows there are.
    _, directions = numpy.linalg.eigh(centred.T @ centred)
    plane = directions[:, ::-1][:, :2]
    points = centred @ plane
    return numpy.pad(points, ((0, 0), (0, 2 - points.shape[1])))


def scattered(axes: Any, points: Any, kinds: Sequence[str]) -> None:
    """Plot points, with a colour for each of the most common kinds, and a legend if there are several."""
    import numpy

    counts: dict[str, int] = {}
    for kind in kinds:
        counts[kind] = counts.get(kind, 0) + 1
    common = sorted(counts, key=lambda kind: -counts[kind])
    shown = common if len(common) <= KINDS + 1 else common[:KINDS]
    named = numpy.array([kind if kind in shown else "others" for kind in kinds], dtype=object)
    for colour, kind in zip(
        COLOURS, [*shown, *(["others"] if len(shown) < len(common) else [])], strict=False
    ):
        of_kind = points[named == kind]
        axes.scatter(
            of_kind[:, 0],
            of_kind[:, 1],
            s=26,
            alpha=0.9,
            color=colour,
            label=_plain(kind) or "none",
            linewidths=0,
        )
    if len(common) > 1:
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _plain(name: str) -> str:
    """A name as matplotlib shows it: `$` would start a formula, and a leading `_` hide it from the legend."""
    shown = name.replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown
