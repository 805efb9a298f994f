"""One list of two by their scores."""

from __future__ import annotations

import math

import pytest

from llmbackend.engines.fusion import best

# Ten passages that are alike but for the one that BM25 alone knows: it has the code that was asked for.
ALIKE = [(f"p{number}", 0.5 + number / 100) for number in range(10)]
BM25 = [("code", 24.0), *((f"p{number}", 8 + number / 100) for number in range(9))]


@pytest.mark.parametrize("weight", [0.1, 0.3, 0.7])
def test_a_passage_far_ahead_in_one_list_stays_ahead(weight: float) -> None:
    found = best({"dense": ALIKE, "sparse": BM25}, weight, 20)
    assert found[0][0] == "code"
    assert len(found) == 11


def test_scores_are_told_and_the_last_is_what_counts() -> None:
    found = dict(best({"dense": [("a", 0.9), ("b", 0.5)], "sparse": [("b", 7.0), ("c", 3.0)]}, 0.5, 9))
    # One deviation above or below the mean: 4/6 or 2/6 of a list's share, 1/3 of the dense one's.
    expected = {"a": 4 / 6 / 3, "b": 2 / 6 / 3 + 4 / 6 * 2 / 3, "c": 2 / 6 * 2 / 3}
    assert {key: scores["fused"] for key, scores in found.items()} == pytest.approx(expected)
    assert list(found) == ["b", "a", "c"]
    assert [*found["b"]] == ["dense", "sparse", "weight", "fused"]
    assert found["a"] == {"dense": 0.9, "weight": 0.5, "fused": found["a"]["fused"]}


def test_one_list_keeps_its_order_and_scores() -> None:
    scored = [("a", 3.0), ("b", 2.0), ("c", 1.0)]
    assert best({"sparse": scored}, 0.3, 2) == [("a", {"sparse": 3.0}), ("b", {"sparse": 2.0})]


def test_what_does_not_differ_orders_nothing() -> None:
    even = [("a", 0.1 + 0.2), ("b", 0.3), ("c", 0.3)]
    found = best({"dense": [("c", 0.9), ("b", 0.2)], "sparse": even}, 0.3, 3)
    assert [key for key, _ in found] == ["c", "b", "a"]


def test_empty_lists_give_nothing_and_take_nothing() -> None:
    assert best({"dense": [], "sparse": []}, 0.3, 5) == []
    alone = best({"dense": [("a", 0.9), ("b", 0.2)], "sparse": []}, 0.3, 5)
    assert [key for key, _ in alone] == ["a", "b"]
    assert all(math.isfinite(scores["fused"]) for _, scores in alone)


def test_the_order_does_not_depend_on_the_scale() -> None:
    found = best({"dense": ALIKE, "sparse": BM25}, 0.3, 20)
    scaled = best(
        {
            "dense": [(key, 9 * score - 3) for key, score in ALIKE],
            "sparse": [(key, score / 40) for key, score in BM25],
        },
        0.3,
        20,
    )
    assert [key for key, _ in found] == [key for key, _ in scaled]
