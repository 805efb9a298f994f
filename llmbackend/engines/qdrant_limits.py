"""The limits of a Qdrant collection's strict mode, and how much fits into them."""

from __future__ import annotations

from typing import Any, NamedTuple

from .qdrant import NAMED_AT_ONCE

A_MINUTE = 4
"""Requests that a minute's rate is good for at least: one of as many points as the rate allows waits for a whole minute."""

CONDITIONS = 3
"""Of a filter's, that one version of a document takes at most."""


class Limits(NamedTuple):
    """Of a collection's strict mode."""

    query: int | None = None
    """Points in an answer."""
    conditions: int | None = None
    """In a filter."""
    condition_size: int | None = None
    """Values in a condition."""
    upsert: int | None = None
    """Points in a write."""
    read: int | None = None
    """Points that are read by their ids in a request: each counts against the rate of a minute."""
    exact: bool = True
    """Whether exact requests are allowed, such as counting."""
    oversampling: float | None = None

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
        )

    @property
    def named(self) -> int:
        """Documents that a filter may name."""
        fit = NAMED_AT_ONCE if self.conditions is None else (self.conditions - CONDITIONS) // CONDITIONS
        return max(
            1, min(NAMED_AT_ONCE, fit, self.condition_size or NAMED_AT_ONCE, self.query or NAMED_AT_ONCE)
        )


def _portion(rate: int | None) -> int | None:
    return None if rate is None else max(1, rate // A_MINUTE)
