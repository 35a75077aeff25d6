"""Rational numbers plus rational multiples of inverse square roots, correctly rounded.

A root is known between two rationals as narrow as one likes, by integer arithmetic (`math.isqrt`), and so is r + sum of a/sqrt(v); they are
narrowed until both ends round to the same number (Ziv, TOMS 17(3), 1991). That ends, because the value is then no midpoint of two floats:

* roots of squares of rationals are rational, and added to r;
* roots whose v differ by the square of a rational q, v = q^2*v', are rational multiples of each other: 1/sqrt(v) = 1/(q*sqrt(v')), so their
  coefficients are added up first;
* the square roots that remain, with 1, are linearly independent over the rationals (Besicovitch, J. London Math. Soc. 15, 1940): with a
  coefficient other than 0 left the value is irrational, with none it is r, and rounded directly.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction

from npreparam.exact.rounding import Format, round_to_bits
from npreparam.exact.special import Special

FIRST_BITS = 128

Number = Fraction | Special


def rational_sqrt(v: Fraction) -> Fraction | None:
    """The square root of a rational where it is rational."""
    top = math.isqrt(v.numerator)  # of coprime numbers: both must be squares
    if top * top != v.numerator:
        return None
    bottom = math.isqrt(v.denominator)
    return Fraction(top, bottom) if bottom * bottom == v.denominator else None


def sqrt_between(v: Fraction, bits: int) -> tuple[Fraction, Fraction]:
    """Two rationals with low < sqrt(v) < high of relative distance about 2^-bits, for a v that is no square of a rational.

    >>> low, high = sqrt_between(Fraction(2), 8)
    >>> low * low < 2 < high * high
    True
    """
    shift = bits + max(0, v.denominator.bit_length() - v.numerator.bit_length()) // 2
    root = math.isqrt((v.numerator << 2 * shift) // v.denominator)
    return Fraction(root, 1 << shift), Fraction(root + 1, 1 << shift)


class InverseRoot:
    """1/sqrt(v) for v > 0: its value where that is rational (0 for an infinite v, NaN for NaN), else ever closer brackets, each made once."""

    def __init__(self, v: Number) -> None:
        self.v = v
        self.value: Number | None = None
        self._brackets: dict[int, tuple[Fraction, Fraction]] = {}
        if isinstance(v, Special):
            self.value = Fraction(0) if v.sign else v
        elif root := rational_sqrt(v):
            self.value = 1 / root

    def between(self, bits: int) -> tuple[Fraction, Fraction]:
        """Two rationals with low < 1/sqrt(v) < high of relative distance about 2^-bits."""
        if bits not in self._brackets:
            self._brackets[bits] = sqrt_between(1 / self.v, bits)
        return self._brackets[bits]


Term = tuple[Number, InverseRoot]


def round_sum(rational: Number, terms: Iterable[Term], form: Format) -> int:
    """The bits of rational + sum of a/sqrt(v) over the terms (a, 1/sqrt(v)), correctly rounded."""
    independent: list[Term] = []
    for a, root in terms:
        if root.value is not None:
            rational = rational + a * root.value
        elif isinstance(a, Special):
            rational = rational + a
        elif a:
            _collect(independent, a, root)
    independent = [(a, root) for a, root in independent if a]
    if isinstance(rational, Special) or not independent:
        return round_to_bits(rational, form)
    bits = FIRST_BITS
    while True:
        low = high = rational
        for a, root in independent:
            ends = root.between(bits)
            low, high = low + a * ends[a < 0], high + a * ends[a > 0]
        rounded = round_to_bits(low, form)
        if rounded == round_to_bits(high, form):
            return rounded
        bits *= 2


def _collect(independent: list[Term], a: Fraction, root: InverseRoot) -> None:
    """Add a/sqrt(v) to the term whose root is a rational multiple of it, or as a term of its own."""
    for i, (coefficient, other) in enumerate(independent):
        ratio = rational_sqrt(other.v / root.v)
        if ratio is not None:
            independent[i] = (coefficient + a * ratio, other)
            return
    independent.append((a, root))
