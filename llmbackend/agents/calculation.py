"""Arithmetic for agents: takes an expression, and returns its value as text.

Numbers are fractions, so 0.1 + 0.2 is 0.3, and three times a third is 1. Values that are not exact (roots,
logarithms, …) are rounded to fifteen digits, which hides the error of binary floats.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable
from decimal import Context, Decimal, Inexact
from fractions import Fraction
from typing import Any

from ..errors import InvalidRequest

DIGITS = 400
"""The most digits of a number; larger ones are refused."""
PRECISION = 15
"""Digits of a result without a finite decimal form."""
SHOWN = 28
"""Results with a finite decimal form are written in full up to this many digits."""

DEEPEST = 50
"""The most levels of parentheses."""

_LARGEST = 10**DIGITS
_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
_ROUNDED = ("sqrt", "log", "log2", "log10", "exp", "sin", "cos", "tan")
_EXACT: dict[str, Callable[..., Any]] = {
    "floor": math.floor,
    "ceil": math.ceil,
    "fabs": abs,
    "abs": abs,
    "round": lambda number, digits=0: round(number, int(digits)),
    "min": min,
    "max": max,
    "sum": lambda *numbers: sum(numbers),
}
_CONSTANTS = {"pi": Fraction(repr(math.pi)), "e": Fraction(repr(math.e))}


def calculated(expression: str) -> str:
    """Calculate an expression. Raises InvalidRequest if it is none, or too large."""
    shown = repr(expression[:100])
    try:
        source = expression.strip().replace("^", "**")
        return _written(_value(source, ast.parse(source, mode="eval").body, 0))
    except ZeroDivisionError:
        raise InvalidRequest(f"{shown} divides by zero") from None
    except (SyntaxError, ValueError, TypeError, ArithmeticError, RecursionError, MemoryError) as error:
        raise InvalidRequest(f"{shown} cannot be calculated: {error}") from None


def _written(value: Fraction) -> str:
    if value.denominator == 1:
        return str(value.numerator)
    exact = Context(prec=SHOWN)
    told = exact.divide(Decimal(value.numerator), Decimal(value.denominator))
    if exact.flags[Inexact]:
        told = Context(prec=PRECISION).divide(Decimal(value.numerator), Decimal(value.denominator))
    return str(told.normalize(exact))


def _value(source: str, node: ast.expr, depth: int) -> Fraction:
    if depth > DEEPEST:
        raise ValueError("it is nested too deeply")
    rest: list[tuple[type[ast.operator], ast.expr]] = []
    while isinstance(node, ast.BinOp) and type(node.op) in _BINARY:  # so that long sums do not count as deep
        rest.append((type(node.op), node.right))
        node = node.left
    value = _term(source, node, depth)
    for operation, right in reversed(rest):
        value = _bounded(_BINARY[operation](value, _value(source, right, depth + 1)))
    return value


def _term(source: str, node: ast.expr, depth: int) -> Fraction:
    def values(*parts: ast.expr) -> list[Fraction]:
        return [_value(source, part, depth + 1) for part in parts]

    match node:
        case ast.Constant(value=bool()):
            pass
        case ast.Constant(value=int() as value):
            return _bounded(value)
        case ast.Constant(value=float()):
            # From the source text, because a float may have fewer digits than were written.
            return _bounded(Decimal(ast.get_source_segment(source, node) or ""))
        case ast.Name(id=name) if name in _CONSTANTS:
            return _CONSTANTS[name]
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
            return _bounded(_UNARY[type(op)](*values(operand)))
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _power(*values(left, right))
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _EXACT:
            return _bounded(_EXACT[name](*values(*args)))
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _ROUNDED:
            return _rounded(getattr(math, name)(*values(*args)))
    raise ValueError(f"{ast.unparse(node)[:50]!r} is not understood")


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        return _rounded(float(base) ** float(exponent))
    largest = max(abs(base.numerator), base.denominator)
    if largest > 1 and abs(exponent.numerator) * math.log10(largest) > DIGITS:
        raise ValueError(f"it has more than {DIGITS} digits")
    return _bounded(base**exponent.numerator)


def _rounded(value: Any) -> Fraction:
    if isinstance(value, complex):
        raise ValueError("it is no real number")
    if not math.isfinite(value):
        raise ValueError("it is too large")
    return _bounded(Fraction(f"{value:.{PRECISION}g}"))


def _bounded(value: int | Fraction | Decimal) -> Fraction:
    too_large = isinstance(value, Decimal) and bool(value) and abs(value.adjusted()) > DIGITS
    exact = Fraction(0 if too_large else value)
    if too_large or max(abs(exact.numerator), exact.denominator) > _LARGEST:
        raise ValueError(f"it has more than {DIGITS} digits")
    return exact
