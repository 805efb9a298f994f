"""The limits of a Qdrant collection's strict mode, and what fits into them."""

from __future__ import annotations

from typing import Any, NamedTuple

from .qdrant import NAMED_AT_ONCE

A_MINUTE = 4
"""A request takes at most this fraction (1/4) of the points per minute that the rate allows: one that takes all of them
waits for a whole minute."""

CONDITIONS = 3
"""Most conditions that one version of a document takes in a filter."""


class Limits(NamedTuple):
    """The limits of a collection's strict mode; None where there is none."""

    query: int | None = None
    """Points in a reply."""
    conditions: int | None = None
    """Conditions in a filter."""
    condition_size: int | None = None
    """Values in a condition."""
    upsert: int | None = None
    """Points in a write."""
    read: int | None = None
    """Points read by their ids in a request: each counts against the rate per minute."""
    exact: bool = True
    """Whether exact requests, such as counts, are allowed."""
    oversampling: float | None = None
    unindexed: bool = True
    """Whether filters by fields without an index are allowed."""

    @classmethod
    def of(cls, config: Any) -> Limits:
        strict = config.strict_mode_config
        if strict is None or not strict.enabled:
            return cls()
        writes = [
            most
            for most in (strict.upsert_max_batchsize, _portion(strict.write_rate_limit))
            if most is not None
        ]
        return cls(
            strict.max_query_limit,
            strict.filter_max_conditions,
            strict.condition_max_size,
            min(writes, default=None),
            _portion(strict.read_rate_limit),
            strict.search_allow_exact is not False,
            strict.search_max_oversampling,
            strict.unindexed_filtering_retrieve is not False,
        )

    @property
    def named(self) -> int:
        """Most documents that a filter may name."""
        fit = NAMED_AT_ONCE if self.conditions is None else (self.conditions - CONDITIONS) // CONDITIONS
        return max(
            1, min(NAMED_AT_ONCE, fit, self.condition_size or NAMED_AT_ONCE, self.query or NAMED_AT_ONCE)
        )


def _portion(rate: int | None) -> int | None:
    return None if rate is None else max(1, rate // A_MINUTE)
