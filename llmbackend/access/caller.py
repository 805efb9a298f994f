"""The caller: a project, and the rights and limits of its key. Made once, where a call comes in."""

from __future__ import annotations

import fnmatch
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

from ..errors import InvalidRequest

Right = Literal["read", "write", "jobs", "chat", "admin"]
RIGHTS: frozenset[Right] = frozenset(get_args(Right))

DEFAULT = "default"
"""The project of callers in process and of API_KEY, and of everything made before projects existed."""

ENVIRONMENT = "env"
"""The key id of every key in API_KEYS; the operator tells these keys apart by their projects."""
OPERATOR = "operator"
"""The key id of API_KEY."""

SECONDS = {"s": 1, "min": 60, "h": 3600, "day": 86400, "month": 30 * 86400}
_AMOUNTS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}


_SECRET = re.compile(r"(llmb_[A-Za-z0-9_.-]{1,64}_[A-Za-z0-9]{8})_[A-Za-z0-9%]{8,}")


def without_secrets(text: str) -> str:
    """A caller's text for the log: keys in it, as in a URL, are cut to their public ids."""
    return _SECRET.sub(r"\1_...", text) if "llmb_" in text else text


class Patterns:
    """Patterns of names, in which `*` matches anything."""

    __slots__ = ("_fitting", "texts")

    def __init__(self, texts: Iterable[str] = ("*",)) -> None:
        self.texts = tuple(texts)
        whole = "|".join(fnmatch.translate(text) for text in self.texts)
        self._fitting = None if "*" in self.texts else re.compile(whole)

    @property
    def all(self) -> bool:
        return self._fitting is None

    def fit(self, name: str) -> bool:
        return self._fitting is None or self._fitting.match(name) is not None

    def cover(self, others: Patterns) -> bool:
        """Whether every name that matches the others matches these too."""
        # Since `*` is the only wildcard, a pattern that itself matches covers only names that match.
        return all(self.fit(text) for text in others.texts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Patterns) and self.texts == other.texts

    def __hash__(self) -> int:
        return hash(self.texts)

    def __repr__(self) -> str:
        return f"Patterns({list(self.texts)})"


ANYTHING = Patterns()


class Rate(NamedTuple):
    """An amount per time, as in `60/min` or `1M/day`."""

    amount: int
    seconds: int

    @classmethod
    def parse(cls, text: str) -> Rate:
        """Parse `60/min`. Raises InvalidRequest."""
        found = re.fullmatch(r"(\d{1,12})([kMG]?)/(s|min|h|day|month)", text.strip())
        if found is None or int(found[1]) == 0:
            raise InvalidRequest(f"{text!r} is not a rate: write it like 60/min, 1M/day or 500k/month")
        return cls(int(found[1]) * _AMOUNTS[found[2]], SECONDS[found[3]])

    def __str__(self) -> str:
        unit = next(unit for unit, seconds in SECONDS.items() if seconds == self.seconds)
        for letter, size in reversed(_AMOUNTS.items()):
            if self.amount % size == 0:
                return f"{self.amount // size}{letter}/{unit}"
        raise AssertionError("every amount is a multiple of 1")

    def within(self, other: Rate) -> bool:
        """Whether keeping this rate implies keeping the other."""
        return self.amount <= other.amount and self.amount * other.seconds <= other.amount * self.seconds


def amount(given: Any, name: str) -> int:
    """Parse an amount: 500, "100k", "1M" or "10G". Raises InvalidRequest."""
    found = re.fullmatch(r"(\d{1,12})([kMG]?)", str(given))
    if isinstance(given, bool) or found is None or int(found[1]) == 0:
        raise InvalidRequest(f"{name} must be a number of at least 1, such as 500, 100k or 10G")
    return int(found[1]) * _AMOUNTS[found[2]]


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a key or a project; None means unlimited."""

    rate: Rate | None = None
    """Requests."""
    concurrent: int | None = None
    """Requests in flight."""
    tokens: tuple[Rate, ...] = ()
    """Tokens that models read and write."""
    jobs: int | None = None
    """Jobs queued or running."""
    chunks: int | None = None
    """The most chunks that the project may have stored."""
    bytes: int | None = None
    """The most bytes that the project may have stored."""

    @property
    def requests(self) -> bool:
        """Whether any of them limits requests."""
        return bool(self.rate or self.concurrent or self.tokens)

    @property
    def storage(self) -> bool:
        return self.chunks is not None or self.bytes is not None

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Limits:
        """Parse limits as callers write them. Raises InvalidRequest."""
        if unknown := given.keys() - LIMITS:
            raise InvalidRequest(f"{min(unknown)!r} is not one of {', '.join(LIMITS)}")
        rate, tokens = given.get("rate"), given.get("tokens")
        return cls(
            Rate.parse(str(rate)) if rate else None,
            tokens=tuple(Rate.parse(one) for one in str(tokens).split(",")) if tokens else (),
            **{name: amount(given[name], name) for name in _COUNTS if given.get(name) is not None},
        )

    def as_json(self) -> dict[str, Any]:
        """The limits as callers write them."""
        return {
            "rate": str(self.rate) if self.rate else None,
            "tokens": ",".join(map(str, self.tokens)) or None,
            **{name: getattr(self, name) for name in _COUNTS},
        }


_COUNTS = ("concurrent", "jobs", "chunks", "bytes")
LIMITS = ("rate", "tokens", *_COUNTS)
NO_LIMITS = Limits()


class Standing:
    """Whether a key is still valid. All callers with the key share it, and revoking the key changes it."""

    __slots__ = ("expires", "revoked", "watched")

    def __init__(self, expires: float | None = None, *, watched: bool = False) -> None:
        self.revoked = False
        self.watched = watched
        """Whether it can change; keys from the environment cannot."""
        self.expires = expires
        """In seconds since 1970."""

    @property
    def ended(self) -> bool:
        return self.revoked or (self.expires is not None and time.time() >= self.expires)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a call: a project, and the key's rights and limits."""

    project: str
    key: str = ""
    """The public id of the key; empty for callers without one."""
    can: frozenset[Right] = frozenset()
    collections: Patterns = ANYTHING
    models: Patterns = ANYTHING
    limits: Limits = NO_LIMITS
    everywhere: bool = False
    """Whether it is the server's administrator, who may access all projects."""
    standing: Standing = field(default_factory=Standing, compare=False, repr=False)

    def __str__(self) -> str:
        return self.project if self.key in ("", ENVIRONMENT, OPERATOR) else self.key

    @property
    def reach(self) -> str | None:
        """The project whose jobs, keys and responses it may see; None means all."""
        return None if self.everywhere else self.project


def of_project(project: str, *, everywhere: bool = False, key: str = ENVIRONMENT) -> Caller:
    """A caller with every right in a project."""
    return Caller(project, key, RIGHTS, everywhere=everywhere)


LOCAL = of_project(DEFAULT, everywhere=True, key="")
"""Callers in process, and of a server without keys, which answers this machine only."""

NOBODY = Caller("-")
"""The caller before it is identified, and outside calls."""
