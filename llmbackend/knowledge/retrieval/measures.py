"""Measures of a ranking, as TREC's trec_eval computes them.

`relevance` has the gain of each gold document; other documents, and those with a gain of 0, are not relevant. `ranked`
are the documents found, best first, each once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence


def recall(relevance: Mapping[str, int], ranked: Sequence[str]) -> float:
    """Return the share of the relevant documents that was found."""
    relevant = {name for name, gain in relevance.items() if gain > 0}
    return len(relevant.intersection(ranked)) / len(relevant) if relevant else 0.0


def reciprocal_rank(relevance: Mapping[str, int], ranked: Sequence[str]) -> float:
    """Return 1 / rank of the first relevant document; 0 if none was found."""
    return next((1 / place for place, name in enumerate(ranked, 1) if relevance.get(name, 0) > 0), 0.0)


def ndcg(relevance: Mapping[str, int], ranked: Sequence[str], k: int) -> float:
    """Return the gains of the first `k`, discounted by rank, divided by those of the best possible ranking.

    Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques" (2002), in the form of Burges et al.
    (2005) with linear gains: gain / log2(place + 1).
    """
    best = _discounted(sorted(relevance.values(), reverse=True)[:k])
    return _discounted(relevance.get(name, 0) for name in ranked[:k]) / best if best else 0.0


def _discounted(gains: Iterable[int]) -> float:
    return sum(max(gain, 0) / math.log2(place + 1) for place, gain in enumerate(gains, 1))
