"""Numbers known to within a radius, in fixed point: most sums of roots round alike at both ends of it, long before anything must be exact.

A `Ball` is the interval [mid - rad, mid + rad] * 2^-BITS, an integer and an integer radius. What is a multiple of 2^-BITS is held exactly, and so
are sums and those products of such numbers that are one again.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

from npreparam.exact.rounding import Format, round_ratio

BITS = 320  # all float32 numbers are exact, and the sum of many products keeps 250 bits and more after the point
MASK = (1 << BITS) - 1


class Ball:
    """An interval around a number; sums and products hold those of all numbers in their operands.

    >>> third = Ball.of(Fraction(1, 3))
    >>> (third * 3).holds(Fraction(1)), (third * 3).holds(Fraction(1) + Fraction(1, 10**90)), (Ball.of(Fraction(3, 8)) * 2).rad
    (True, False, 0)
    """

    __slots__ = ("mid", "rad")

    def __init__(self, mid: int, rad: int = 0) -> None:
        self.mid, self.rad = mid, rad

    @classmethod
    def of(cls, value: Fraction | int) -> Ball:
        """The smallest ball around a rational number."""
        mid, rest = divmod(value.numerator << BITS, value.denominator)
        return cls(mid, 1 if rest else 0)

    @classmethod
    def of_float(cls, value: float) -> Ball:
        """The smallest ball around a finite float."""
        numerator, denominator = value.as_integer_ratio()
        shift = BITS + 1 - denominator.bit_length()
        return cls(numerator << shift) if shift >= 0 else cls(numerator >> -shift, 1)

    @classmethod
    def inverse_root(cls, value: Fraction) -> Ball:
        """1/sqrt(value) of a positive number; exact where that is a multiple of 2^-BITS."""
        square, rest = divmod(value.denominator << 2 * BITS, value.numerator)
        root = math.isqrt(square)
        return cls(root, 1 if rest or root * root != square else 0)

    def holds(self, value: Fraction) -> bool:
        """Whether a number lies inside."""
        return abs(value * 2**BITS - self.mid) <= self.rad

    def __add__(self, other: Any) -> Ball:
        other = other if isinstance(other, Ball) else Ball.of(other)
        return Ball(self.mid + other.mid, self.rad + other.rad)

    def __mul__(self, other: Any) -> Ball:
        other = other if isinstance(other, Ball) else Ball.of(other)
        product = self.mid * other.mid
        spread = self.rad * (abs(other.mid) + other.rad) + other.rad * abs(self.mid)
        return Ball(product >> BITS, -(-spread >> BITS) + (1 if product & MASK else 0))

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self) -> Ball:
        return Ball(-self.mid, self.rad)

    def __sub__(self, other: Any) -> Ball:
        return self + -other

    def __rsub__(self, other: Any) -> Ball:
        return -self + other

    def __eq__(self, other: object) -> bool:
        """Whether it is the same ball, which two equal numbers that were computed alike are."""
        other = other if isinstance(other, Ball) else Ball.of(other)  # type: ignore[arg-type]
        return (self.mid, self.rad) == (other.mid, other.rad)

    __hash__ = None  # type: ignore[assignment]

    def __float__(self) -> float:
        return self.mid / (1 << BITS)

    def __repr__(self) -> str:
        return f"Ball({float(self)!r} +- {self.rad}*2^-{BITS})"


def round_ball(ball: Ball, form: Format) -> int | None:
    """The bits of the value of a format nearest to every number in a ball, ties to even; None where they have not all the same.

    >>> from npreparam.exact.rounding import FORMATS
    >>> hex(round_ball(Ball.of(Fraction(1, 3)), FORMATS["float32"])), round_ball(Ball(0, 1), FORMATS["float32"])
    ('0x3eaaaaab', None)
    """
    low = round_ratio(ball.mid - ball.rad, 1 << BITS, form)
    return low if not ball.rad or low == round_ratio(ball.mid + ball.rad, 1 << BITS, form) else None
