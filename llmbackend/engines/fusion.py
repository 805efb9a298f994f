"""Fuses a search's dense and sparse lists by their scores.

Ranks would not show that BM25's first hit is far ahead of the second, as it is if only one passage has the requested code
or name. Each list's scores are scaled so that mean ± 3 standard deviations become 0 … its weight (distribution-based score
fusion: Mazzeschi, 2023), and added; a passage that is missing in a list gets 0 from it. Scores beyond three deviations are
not clipped, so that a passage far ahead of all others stays ahead.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from math import sqrt
from typing import TypeVar

from .interface import List

_Key = TypeVar("_Key", bound=Hashable)


def depth(top_k: int) -> int:
    """Return how many hits of each list are fused for the `top_k` best. For ten, fusing 50 finds no more than 30."""
    return max(30, 2 * top_k)


def best(
    lists: Mapping[List, Sequence[tuple[_Key, float]]],
    weight: float,
    top_k: int,
    ahead: Sequence[tuple[_Key, float]] = (),
    ahead_weight: float = 0.0,
) -> list[tuple[_Key, dict[str, float]]]:
    """Return the `top_k` best keys, each with its scores. They are ordered by the last score.

    For both lists that is `fused`, from 0 to about 1. `weight` is that of the dense list, relative to the sparse list's 1;
    `ahead_weight` that of a third list, `ahead`: what the judge has read ahead (knowledge/retrieval/ahead.py).
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
    """Return the factor and offset that map scores to 0 … `share`."""
    if not scores:
        return 0.0, 0.0
    mean = sum(scores) / len(scores)
    deviation = sqrt(sum([(score - mean) ** 2 for score in scores]) / len(scores))
    if deviation <= 1e-6 * abs(mean):  # the scores differ by rounding only
        return 0.0, share / 2
    slope = share / (6 * deviation)
    return slope, share / 2 - slope * mean
