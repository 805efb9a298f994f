"""Numbers in cells as their format shows them: percentages, leading zeros, units, currencies.

Thousands separators are left out: they depend on the viewer's locale, and a plain number is found by everyone.
https://support.microsoft.com/en-us/office/review-guidelines-for-customizing-a-number-format-c0a1d1fa-d3f4-4018-96b7-9c9354dd99f5
"""

from __future__ import annotations

import re
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from typing import NamedTuple

_PART = re.compile(
    r'"([^"]*)"|\\(.)|[_*].|\[\$([^\]-]*)[^\]]*\]|(\[[^\]]*\])|(General)|([0#?.,%@]|E[+-])|(.)', re.IGNORECASE
)
_END = re.compile(r';(?=(?:[^"]*"[^"]*")*[^"]*$)')


class _Shape(NamedTuple):
    before: str
    core: str
    """The digits, point, commas and percent signs; empty to leave the number as it is."""
    after: str
    split: bool
    """Whether something stands between the digits, as in a telephone number."""


def shown(value: float, format: str) -> str:
    sections = _END.split(format)
    if value < 0 and len(sections) > 1:
        shape = _shape(sections[1])
    elif value == 0 and len(sections) > 2:
        shape = _shape(sections[2])
    else:
        shape = _shape(sections[0])
    if not shape.core and (said := (shape.before + shape.after).strip()):
        if "\0" not in said:
            return said  # words instead of a number
        return _signed(value, _general(abs(value)), said.partition("\0")[0], said.partition("\0")[2])
    if not shape.core or "@" in shape.core:
        return _signed(value, _general(abs(value)), "", "")
    if shape.split:
        return _signed(value, _filled(abs(value), shape.core), shape.before, shape.after)
    return _signed(value, _digits(abs(value), shape.core), shape.before, shape.after)


@lru_cache(maxsize=256)
def _shape(section: str) -> _Shape:
    before = core = after = ""
    split = False
    for quoted, escaped, currency, bracket, general, sign, other in _PART.findall(section):
        literal = quoted or escaped or currency or other
        if bracket and bracket[1:2] in "<>=":
            return _Shape("", "", "", False)  # depends on the value
        if general:
            before, after = before + "\0", ""
        elif sign and not (sign == "," and not core):
            split |= bool(after.strip()) and sign in "0#?"
            core += f"\1{after}\1{sign}" if after and sign in "0#?" else after + sign if sign == "%" else sign
            after = ""
        elif core:
            after += literal
        else:
            before += literal
    if "/" in core or "\1/" in core:
        return _Shape("", "", "", False)  # a fraction
    return _Shape(before, core, after, split)


def _signed(value: float, digits: str, before: str, after: str) -> str:
    if value < 0:  # in brackets, or with the format's own sign
        before, after = before.replace("(", "").replace("-", ""), after.replace(")", "")
    sign = "-" if value < 0 and re.search("[1-9]", digits) else ""
    return f"{sign}{before.strip() if not digits else before.lstrip()}{digits}{after.rstrip()}".strip()


def _digits(value: float, core: str) -> str:
    exponent = re.search("E[+-]", core, re.IGNORECASE)
    mantissa = core[: exponent.start()] if exponent else core
    whole, _, fraction = mantissa.partition(".")
    places = [sign for sign in fraction if sign in "0#?"]
    if exponent:
        return f"{value:.{len(places)}E}"
    number = Decimal(repr(value)) * 100 ** core.count("%")
    thousands = re.search(r"(,+)[^0#?]*$", whole if not fraction else mantissa.rstrip("%"))
    if thousands and not re.search(r",[0#?]*$", whole[: len(whole) - len(whole.lstrip("#,0?"))] or ""):
        number /= 1000 ** len(thousands[1])
    rounded = number.quantize(Decimal(1).scaleb(-len(places)), ROUND_HALF_UP)
    integer, _, decimals = f"{rounded:f}".partition(".")
    least = max((at for at, sign in enumerate(places, 1) if sign == "0"), default=0)
    while len(decimals) > least and decimals.endswith("0"):
        decimals = decimals[:-1]
    integer = integer.zfill(whole.count("0"))
    percent = re.search(r"\s*%+", core)
    return integer + (f".{decimals}" if decimals else "") + (percent[0] if percent else "")


def _filled(value: float, core: str) -> str:
    """Put digits into the places of a format that has other characters between them."""
    left = list(f"{Decimal(repr(value)).quantize(Decimal(1), ROUND_HALF_UP):f}")
    told: list[str] = []
    parts = re.split("\1", core)
    for number, part in reversed(list(enumerate(parts))):
        if number % 2:
            told.append(part)
            continue
        for sign in reversed(part):
            if sign in "0#?":
                told.append(left.pop() if left else "0" if sign == "0" else "")
    return "".join(left) + "".join(reversed(told))


def _general(value: float) -> str:
    """A number rounded to the digits that Excel keeps."""
    if isinstance(value, int) or value.is_integer():
        return str(int(value))
    return f"{value:.15g}"
