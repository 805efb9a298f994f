"""Fusion of a search's dense and sparse lists, by their scores.

Ranks would not tell that BM25's first is far ahead of its second, as it is where one passage alone has the code or the
name that was asked for. Each list's scores are set between their mean minus and plus three deviations (distribution-based
score fusion: Mazzeschi, 2023) and added; a passage that is not in a list has nothing from it. What is beyond three
deviations stays beyond, so that a passage far ahead of all others stays ahead.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from math import sqrt
from typing import TypeVar

from .interface import List

_Key = TypeVar("_Key", bound=Hashable)


def depth(top_k: int) -> int:
    """How many of each list are fused for the `top_k` best: 50 of each find no more."""
    return max(30, 2 * top_k)


def best(
    lists: Mapping[List, Sequence[tuple[_Key, float]]],
    weight: float,
    top_k: int,
    ahead: Sequence[tuple[_Key, float]] = (),
    ahead_weight: float = 0.0,
) -> list[tuple[_Key, dict[str, float]]]:
    """The `top_k` best, each with its scores, the last of which is what it is ordered by.

    Of both lists that is `fused`, from 0 to about 1. `weight` is what the dense list counts beside the sparse one,
    `ahead_weight` what a third one does: of what the judge has read ahead.
    """
    if len(lists) == 1:
        [(name, scored)] = lists.items()
        return [(key, {name: score}) for key, score in scored[:top_k]]
    weighed = [("sparse", lists["sparse"], 1.0), ("dense", lists["dense"], weight)]
    if ahead:
        weighed.append(("ahead", ahead, ahead_weight))
    whole = sum([weighs for _, _, weighs in weighed])
    numbers: dict[_Key, int] = {}  # hashing a UUID is slow, so each is hashed once
    each: dict[str, dict[int, float]] = {}
    fused: list[float] = []  # by number
    for which, scored, weighs in weighed:
        of = each[which] = {}
        slope, start = _line([score for _, score in scored], weighs / whole)
        for key, score in scored:
            number = numbers.setdefault(key, len(fused))
            if number == len(fused):
                fused.append(0.0)
            fused[number] += slope * score + start
            of[number] = score
    dense, sparse, keys = each["dense"], each["sparse"], list(numbers)
    found: list[tuple[_Key, dict[str, float]]] = []
    for number in sorted(range(len(fused)), key=fused.__getitem__, reverse=True)[:top_k]:
        scores: dict[str, float] = {}
        if number in dense:
            scores["dense"] = dense[number]
        if number in sparse:
            scores["sparse"] = sparse[number]
        scores["weight"], scores["fused"] = weight, fused[number]
        found.append((keys[number], scores))
    return found


def _line(scores: Collection[float], share: float) -> tuple[float, float]:
    """Factor and offset that map scores to 0 … `share`."""
    if not scores:
        return 0.0, 0.0
    mean = sum(scores) / len(scores)
    deviation = sqrt(sum([(score - mean) ** 2 for score in scores]) / len(scores))
    if deviation <= 1e-6 * abs(mean):  # which only rounding tells apart
        return 0.0, share / 2
    slope = share / (6 * deviation)
    return slope, share / 2 - slope * mean
