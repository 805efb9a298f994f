"""Filters as callers write them: what is understood, and what is refused, naming the place."""

from __future__ import annotations

from typing import Any

import pytest

from llmbackend import InvalidRequest
from llmbackend.engines.filters import (
    LISTED,
    MAX_LEVELS,
    TERMS,
    Combination,
    FieldCondition,
    conditions,
)


def _span(first: str, last: str) -> dict[str, str]:
    return {"gte": f"2026-03-{first}+00:00", "lte": f"2026-03-{last}+00:00"}


UNDERSTOOD: list[tuple[Any, FieldCondition]] = [
    ("hr", FieldCondition("key", equals="hr")),
    (2026, FieldCondition("key", equals=2026)),
    (True, FieldCondition("key", equals=True)),
    (1.5, FieldCondition("key", equals=1.5)),
    (["hr", "it"], FieldCondition("key", any_of=["hr", "it"])),
    ([1, 2], FieldCondition("key", any_of=[1, 2])),
    ([1, 2.5], FieldCondition("key", any_of=[1, 2.5])),
    ([True], FieldCondition("key", equals=True)),
    ({"gte": 1, "lt": 5}, FieldCondition("key", range={"gte": 1.0, "lt": 5.0})),
    ({"gte": "2026-03-01"}, FieldCondition("key", times={"gte": "2026-03-01T00:00:00+00:00"})),
    ({"lt": "2026-03-01"}, FieldCondition("key", times={"lt": "2026-03-01T00:00:00+00:00"})),
    ({"lte": "2026-03-01"}, FieldCondition("key", times={"lt": "2026-03-02T00:00:00+00:00"})),
    ({"gt": "2026-03-01"}, FieldCondition("key", times={"gte": "2026-03-02T00:00:00+00:00"})),
    (
        {"gt": "2026-03-01", "gte": "2026-03-09"},
        FieldCondition("key", times={"gte": "2026-03-09T00:00:00+00:00"}),
    ),
    ({"lte": "9999-12-31"}, FieldCondition("key", times={"lte": "9999-12-31T23:59:59.999999+00:00"})),
    ({"gt": "2026-03-01T09:30:00+02:00"}, FieldCondition("key", times={"gt": "2026-03-01T07:30:00+00:00"})),
    ({"lte": "2026-03-01 09:30"}, FieldCondition("key", times={"lte": "2026-03-01T09:30:00+00:00"})),
    (
        {"lte": "2026-03-01t09:30:00.5z"},
        FieldCondition("key", times={"lte": "2026-03-01T09:30:00.500000+00:00"}),
    ),
    (
        "2026-03-01",
        FieldCondition("key", any_of=["2026-03-01"], spans=[_span("01T00:00:00", "01T23:59:59.999999")]),
    ),
    (
        ["2026-03-04", "2026-03-02T09:30:00+02:00", "2026-03-03"],
        FieldCondition(
            "key",
            any_of=["2026-03-04", "2026-03-02T09:30:00+02:00", "2026-03-03"],
            spans=[_span("02T07:30:00", "02T07:30:00"), _span("03T00:00:00", "04T23:59:59.999999")],
        ),
    ),
    ("2026-02-30", FieldCondition("key", equals="2026-02-30")),
    ("2026-03", FieldCondition("key", equals="2026-03")),
]


@pytest.mark.parametrize(("value", "expected"), UNDERSTOOD, ids=str)
def test_a_filter_is_understood(value: Any, expected: FieldCondition) -> None:
    assert conditions({"key": value}) == [expected]


# fmt: off
REFUSED: list[Any] = [
    None, [], {}, [None], [[1]], {"gte": "a"}, {"gte": True}, {"gte": None}, {"near": 1}, {"gte": 1, "x": 2},
    {"exists": 1}, {"exists": None}, {"not": None}, {"not": {}}, {"not": [None]}, {"not": {"near": 1}},
    {"gte": "2026"}, {"gte": "20260301"}, {"gte": "2026-02-30"}, {"gte": "2026-03-01T25:00:00Z"}, {"gte": "2026-03-01", "lt": 5},
    {"gte": "0001-01-01T00:00:00+23:00"},
]
# fmt: on


@pytest.mark.parametrize("value", REFUSED, ids=str)
def test_a_filter_that_makes_no_sense_is_refused_by_its_name(value: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"'key['.]"):
        conditions({"key": value})


@pytest.mark.parametrize("key", ["", 'a"b'])
def test_a_filter_on_a_name_no_field_can_have_is_refused(key: str) -> None:
    with pytest.raises(InvalidRequest, match="filters"):
        conditions({key: 1})


def test_no_filters_are_no_conditions() -> None:
    assert conditions(None) == conditions({}) == []


YEAR, TEAM = FieldCondition("year", equals=2026), FieldCondition("team", equals="hr")


def _all(*parts: Any) -> Combination:
    return Combination("all", list(parts))


def test_a_list_may_have_values_of_several_kinds() -> None:
    either = Combination("any", [FieldCondition("key", any_of=["a"]), FieldCondition("key", any_of=[1])])
    assert conditions({"key": ["a", 1]}) == [either]


COMBINED: list[tuple[dict[str, Any], list[Any]]] = [
    ({"year": 2026, "team": "hr"}, [YEAR, TEAM]),
    ({"or": [{"year": 2026}, {"team": "hr"}]}, [Combination("any", [_all(YEAR), _all(TEAM)])]),
    ({"and": [{"year": 2026}], "team": "hr"}, [_all(_all(YEAR)), TEAM]),
    ({"not": {"year": 2026, "team": "hr"}}, [Combination("none", [_all(YEAR, TEAM)])]),
    ({"year": {"not": 2026}}, [Combination("none", [_all(YEAR)])]),
    ({"year": {"exists": True}}, [FieldCondition("year")]),
    ({"year": {"exists": False}}, [Combination("none", [FieldCondition("year")])]),
    (
        {"year": {"gte": 1, "exists": True}},
        [FieldCondition("year", range={"gte": 1.0}), FieldCondition("year")],
    ),
]


@pytest.mark.parametrize(("filters", "expected"), COMBINED, ids=str)
def test_filters_combine(filters: dict[str, Any], expected: list[Any]) -> None:
    assert conditions(filters) == expected


@pytest.mark.parametrize("name", ["and", "or", "not"])
@pytest.mark.parametrize("value", ["x", 5, True, ["x", 5]])
def test_fields_may_be_named_like_combinations(name: str, value: Any) -> None:
    as_usual = repr(conditions({"key": value})).replace("'key'", repr(name))
    assert repr(conditions({name: value})) == as_usual


def test_bounds_of_fields_named_like_combinations() -> None:
    for name in ("and", "or"):
        assert conditions({name: {"gte": 5}}) == [FieldCondition(name, range={"gte": 5.0})]
    assert conditions({"not": {"or": 5}}) == [Combination("none", [_all(FieldCondition("or", equals=5))])]


NAMED: list[tuple[dict[str, Any], str]] = [
    ({"or": []}, "'or'"),
    ({"and": {"year": 1}}, "'and'"),
    ({"or": [{"year": 1}, {}]}, "'or.1'"),
    ({"or": [{"year": 1}, 5]}, "'or.1'"),
    ({"not": []}, "'not'"),
    ({"not": {"or": [{"year": None}]}}, "'not.or.0.year'"),
    ({"year": {"not": {"near": 1}}}, "'year.not'"),
    ({"and": [{"year": {"exists": "no"}}]}, "'and.0.year.exists'"),
]


@pytest.mark.parametrize(("filters", "place"), NAMED, ids=str)
def test_what_makes_no_sense_is_refused_by_its_place(filters: dict[str, Any], place: str) -> None:
    with pytest.raises(InvalidRequest, match=place):
        conditions(filters)


@pytest.mark.parametrize("deeper", [lambda inner: {"not": inner}, lambda inner: {"or": [inner]}])
def test_filters_nest_so_far_and_no_further(deeper: Any) -> None:
    filters: dict[str, Any] = {"year": 1}
    for _ in range(MAX_LEVELS // 2):
        filters = deeper(filters)
    conditions(filters)
    for _ in range(1000):
        filters = deeper(filters)
    with pytest.raises(InvalidRequest, match="levels"):
        conditions(filters)


def test_nots_nest_so_far_and_no_further() -> None:
    value: Any = 1
    for _ in range(1000):
        value = {"not": value}
    with pytest.raises(InvalidRequest, match="levels"):
        conditions({"year": value})


def test_filters_have_so_many_conditions_and_values_and_no_more() -> None:
    assert conditions({"or": [{"a": number} for number in range(TERMS)]})
    assert conditions({"a": list(range(LISTED))})
    halves = [{"a": list(range(LISTED // 2))}, {"b": list(range(LISTED // 2))}]
    assert conditions({"and": halves})
    for filters in (
        {"or": [{"a": number} for number in range(TERMS + 1)]},
        {str(number): {"not": {"gte": number}} for number in range(TERMS + 1)},
        {"a": list(range(LISTED + 1))},
        {"and": [*halves, {"c": ["one more"]}]},
    ):
        with pytest.raises(InvalidRequest, match="are the most"):
            conditions(filters)


@pytest.mark.parametrize("combined", ["and", "or"])
def test_too_many_conditions_are_refused_before_any_is_read(combined: str) -> None:
    with pytest.raises(InvalidRequest, match="1000 conditions, and 32 are the most"):
        conditions({combined: [{"year": None}] * 1000})
