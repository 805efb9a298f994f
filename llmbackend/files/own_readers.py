"""Runs a project's own file readers in the process of our own parsers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import reduce
from importlib import import_module
from typing import Any

from .parsed import Parsed, Unreadable, Warn
from .parsing import FORMATS


def take(readers: Iterable[str]) -> None:
    """Import these readers (each `.xyz=module:name`) and use them from now on. If one cannot be imported, its files fail."""
    for one in readers:
        suffix, _, by = one.partition("=")
        FORMATS[suffix] = _parser(suffix, by)


def _parser(suffix: str, by: str) -> Callable[[bytes, Warn], Parsed]:
    module, _, name = by.partition(":")
    called = f"the reader of {suffix} ({by})"
    try:
        made: Any = reduce(getattr, name.split("."), import_module(module))
    except Exception as error:
        reason = f"{called} could not be imported: {type(error).__name__}: {error}"

        def refuse(data: bytes, warn: Warn) -> Parsed:
            raise Unreadable(reason)

        return refuse

    def parse(data: bytes, warn: Warn) -> Parsed:
        try:
            text = made(data)
        except MemoryError:
            raise
        except Exception as error:
            said = " ".join(str(error).split())[:200]
            raise Unreadable(f"{called} failed: {type(error).__name__}: {said}") from error
        if not isinstance(text, str):
            raise Unreadable(f"{called} returned no text")
        return Parsed(text, "markdown")

    return parse
