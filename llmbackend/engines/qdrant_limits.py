"""The limits of a Qdrant collection's strict mode, and how much fits into them."""

from __future__ import annotations

from typing import Any, NamedTuple

from .qdrant import NAMED_AT_ONCE

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
    exact: bool = True
    """Whether exact requests are allowed, such as counting."""
    oversampling: float | None = None

    @classmethod
    def of(cls, config: Any) -> Limits:
        strict = config.strict_mode_config
        if strict is None or not strict.enabled:
            return cls()
        return cls(
            strict.max_query_limit,
            strict.filter_max_conditions,
            strict.condition_max_size,
            strict.upsert_max_batchsize,
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
