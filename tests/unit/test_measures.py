"""The measures of a ranking are those of trec_eval, which ir-measures calls."""

from __future__ import annotations

import random

import pytest
from ir_measures import RR, Qrel, R, ScoredDoc, iter_calc, nDCG

from llmbackend.knowledge.retrieval.measures import ndcg, recall, reciprocal_rank

K = 10


def _by_trec_eval(relevance: dict[str, int], ranked: list[str]) -> dict[str, float]:
    gold = [Qrel("q", name, gain) for name, gain in relevance.items()]
    run = [ScoredDoc("q", name, float(-place)) for place, name in enumerate(ranked)]
    return {str(one.measure): float(one.value) for one in iter_calc([R @ K, RR @ K, nDCG @ K], gold, run)}


@pytest.mark.parametrize("seed", range(60))
def test_they_are_trec_eval_s(seed: int) -> None:
    chance = random.Random(seed)
    names = [f"d{number}" for number in range(30)]
    relevance = {name: chance.choice((0, 1, 1, 2, 3)) for name in chance.sample(names, chance.randint(1, 20))}
    relevance[names[0]] = 1
    ranked = chance.sample(names, chance.randint(1, 25))[:K]
    theirs = _by_trec_eval(relevance, ranked)
    assert recall(relevance, ranked) == pytest.approx(theirs["R@10"])
    assert reciprocal_rank(relevance, ranked) == pytest.approx(theirs["RR@10"])
    assert ndcg(relevance, ranked, K) == pytest.approx(theirs["nDCG@10"])


def test_of_nothing_relevant_or_nothing_found_they_are_0() -> None:
    for relevance, ranked in (({"a": 0}, ["a"]), ({"a": 1}, [])):
        assert (
            recall(relevance, ranked) == reciprocal_rank(relevance, ranked) == ndcg(relevance, ranked, K) == 0
        )
