"""Numbers, times and sizes in words."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from llm_client import duration_text as duration

__all__ = ["count", "decimal", "duration", "ending", "limits", "moment", "plural", "shortened", "size"]


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def count(number: Any) -> str:
    """`12,100`; anything but a whole number stays as it is."""
    return f"{number:,}" if isinstance(number, int) and not isinstance(number, bool) else str(number)


def decimal(number: float) -> str:
    """A number with as many digits as are meaningful: `0.538`, `12.5`, `1,210`."""
    if number != number or number in (float("inf"), float("-inf")):
        return str(number)
    size = abs(number)
    if size >= 1e15 or 0 < size < 1e-4:
        digits, _, power = f"{number:.2g}".partition("e")
        return f"{digits} × 10{str(int(power)).translate(_RAISED)}" if power else digits
    if size >= 100 or number == int(number):
        return f"{number:,.0f}"
    if size >= 10:
        return f"{number:.1f}"
    if size >= 0.001 or number == 0:
        return f"{number:.3f}".rstrip("0").rstrip(".")
    return f"{number:.2g}"


def plural(number: int, one: str, several: str | None = None) -> str:
    """`1 file`, `3 files`."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def size(number: float) -> str:
    """Bytes: `512 B`, `1.5 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" or number >= 10 else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


_LIMITS = {
    "context": "{} tokens of context",
    "dimension": "{} dimensions",
    "input": "{} tokens a text",
    "batch": "{} texts a request",
    "collections": "{} collections",
    "landlock": "Landlock {}",
}


def limits(found: Mapping[str, Any]) -> list[str]:
    """The limits in a check of `doctor`, in words: `2,048 tokens of context`, `21 GB free`."""
    return [
        f"{size(value * 2**20)} free"
        if name == "free_mb"
        else _LIMITS.get(name, f"{name.replace('_', ' ')} {{}}").format(count(value))
        for name, value in found.items()
    ]


def parsed(moment: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(moment)
    except (TypeError, ValueError):
        return None


def moment(written: Any) -> str:
    """A time of a result as `29 Nov 2026, 02:08 UTC`."""
    at = parsed(written)
    if at is None:
        return str(written)
    return f"{at.day} {at:%b %Y, %H:%M}{' UTC' if at.utcoffset() == timedelta(0) else ''}"


def shortened(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def ending(name: str, limit: int = 44) -> str:
    """The end of a long name, which is its most telling part."""
    return name if len(name) <= limit else f"…{name[1 - limit :]}"
