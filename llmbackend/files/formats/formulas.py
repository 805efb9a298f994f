"""Writes formulas of Word (OMML) and HTML (MathML) as a line of text, with exponents and fractions apart from other digits."""

from __future__ import annotations

import re
from typing import Any

_BETWEEN = {
    **dict.fromkeys(("f", "mfrac"), "/"),
    **dict.fromkeys(("sSup", "msup", "mover"), "^"),
    **dict.fromkeys(("sSub", "msub", "munder"), "_"),
    **dict.fromkeys(("sSubSup", "msubsup", "munderover"), "_^"),
}
_SPACED = re.compile(r"\s+")


def linear(formula: Any) -> str:
    """An lxml element as text, with superscripts after ^, subscripts after _, and fractions with a /."""
    name = _name(formula)
    parts = [part for part in formula if isinstance(part.tag, str) and not _name(part).endswith("Pr")]
    if name.startswith("annotation"):
        return ""
    if not parts:
        return _SPACED.sub(" ", formula.text or "").strip()
    said = [text for text in map(linear, parts) if text]
    if name in _BETWEEN and len(said) > 1:
        told = said[0] if name not in ("f", "mfrac") else _grouped(said[0])
        return told + "".join(
            sign + _grouped(one) for sign, one in zip(_BETWEEN[name], said[1:], strict=False)
        )
    if name in ("rad", "msqrt", "mroot"):
        return f"√({' '.join(said)})"
    if name in ("mtr", "mr"):
        return f"{' '.join(said)};"
    return (" " if name in ("mtable", "m", "eqArr") else "").join(said)


def _grouped(text: str) -> str:
    return text if re.fullmatch(r"[\w.,]*", text) else f"({text})"


def _name(element: Any) -> str:
    return str(element.tag).rpartition("}")[2] if isinstance(element.tag, str) else ""
