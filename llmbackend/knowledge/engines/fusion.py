"""The dense and the sparse list of one search in one, by their scores.

Ranks would not tell that BM25's first is far ahead of its second, as it is where one passage alone has the code or the
name that was asked for. Each list's scores are set between their mean minus and plus three deviations (distribution-based
score fusion: Mazzeschi, 2023) and added; a passage that is not in a list has nothing from it. What is beyond three
deviations stays beyond, so that a passage far ahead of all others stays ahead.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from math import sqrt
from typing import TypeVar

from .interface import List

_Key = TypeVar("_Key", bound=Hashable)


def depth(top_k: int) -> int:
    """How many of each list are fused for the `top_k` best: 50 of each find no more."""
    return max(30, 2 * top_k)


def best(
    lists: Mapping[List, Sequence[tuple[_Key, float]]], weight: float, top_k: int
) -> list[tuple[_Key, dict[str, float]]]:
    """The `top_k` best, each with its scores, the last of which is what it is ordered by.

    Of both lists that is `fused`, from 0 to about 1. `weight` is what the dense list counts beside the sparse one.
    """
    if len(lists) == 1:
        [(name, scored)] = lists.items()
        return [(key, {name: score}) for key, score in scored[:top_k]]
    rows: dict[_Key, _Row] = {}
    slope, start = _line(lists["sparse"], 1 / (1 + weight))
    for key, score in lists["sparse"]:
        rows[key] = _Row(None, score, slope * score + start)
    slope, start = _line(lists["dense"], weight / (1 + weight))
    for key, score in lists["dense"]:
        row = rows.get(key)
        if row is None:
            rows[key] = _Row(score, None, slope * score + start)
        else:
            row.dense = score
            row.fused += slope * score + start
    ordered = sorted(rows.items(), key=lambda item: item[1].fused, reverse=True)
    return [(key, row.told(weight)) for key, row in ordered[:top_k]]


class _Row:
    __slots__ = ("dense", "fused", "sparse")

    def __init__(self, dense: float | None, sparse: float | None, fused: float) -> None:
        self.dense, self.sparse, self.fused = dense, sparse, fused

    def told(self, weight: float) -> dict[str, float]:
        told = {"dense": self.dense, "sparse": self.sparse, "weight": weight, "fused": self.fused}
        return {name: score for name, score in told.items() if score is not None}


def _line(scored: Sequence[tuple[_Key, float]], share: float) -> tuple[float, float]:
    """What scores are multiplied by, and what is added then, to go from 0 to `share`."""
    if not scored:
        return 0.0, 0.0
    scores = [score for _, score in scored]
    mean = sum(scores) / len(scores)
    deviation = sqrt(sum([(score - mean) ** 2 for score in scores]) / len(scores))
    if deviation <= 1e-6 * abs(mean):  # which only rounding tells apart
        return 0.0, share / 2
    slope = share / (6 * deviation)
    return slope, share / 2 - slope * mean
