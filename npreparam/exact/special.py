"""NaN and the infinities as operands of rational arithmetic, by the rules of IEEE 754 (2019, sections 6.1 and 7.2).

A definition is evaluated over an array that holds rationals and, here and there, a `Special`. The result is NaN where a term has a NaN or is
0*inf, or where +inf and -inf meet; else the infinity that a term has; else rational. Only the terms that the definition has count: padding
contributes none, so 0*inf never arises there. The rules are spelled out rather than left to floats, which would warn from within NumPy.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any


class Special:
    """An infinity by its sign, 1 or -1, or NaN, as which 0 stands; its sums and products with rationals are Specials again.

    >>> INF * Fraction(-2), Fraction(0) * INF, 10**400 - INF
    (Special(-inf), Special(nan), Special(-inf))
    """

    __slots__ = ("sign",)

    def __init__(self, sign: int) -> None:
        self.sign = sign

    @classmethod
    def of(cls, value: float) -> Special:
        """The Special that a NaN or an infinity is."""
        return cls(0 if math.isnan(value) else 1 if value > 0 else -1)

    def __float__(self) -> float:
        return self.sign * math.inf if self.sign else math.nan

    def __repr__(self) -> str:
        return f"Special({float(self)})"

    def __neg__(self) -> Special:
        return Special(-self.sign)

    def __add__(self, other: Any) -> Special:
        return self if not isinstance(other, Special) or other.sign == self.sign else NAN

    def __sub__(self, other: Any) -> Special:
        return self + -other

    def __rsub__(self, other: Any) -> Special:
        return -self + other

    def __mul__(self, other: Any) -> Special:
        return Special(self.sign * sign(other))

    __radd__, __rmul__ = __add__, __mul__


NAN, INF = Special(0), Special(1)


def sign(number: Special | Fraction | int) -> int:
    """-1, 0 or 1; 0 for NaN."""
    return number.sign if isinstance(number, Special) else (number > 0) - (number < 0)


def order(number: Special | Fraction | int) -> tuple[int, Fraction | int]:
    """A key to compare by: -inf, the rationals, +inf, and above all NaN.

    >>> max([Fraction(1, 2), INF, 3], key=order)
    Special(inf)
    """
    return (number.sign or 2, 0) if isinstance(number, Special) else (0, number)
