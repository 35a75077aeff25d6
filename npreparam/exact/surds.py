"""The exact value of a fused parameter: rational numbers and rational multiples of inverse square roots, closed under + and *.

1/sqrt(v) * 1/sqrt(w) = 1/sqrt(v*w), so sums of products of batch norms' scales stay sums of a/sqrt(v), which `roots.round_sum` rounds correctly.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from npreparam.exact.roots import FIRST_BITS, InverseRoot, rational_sqrt, round_sum
from npreparam.exact.rounding import Format, round_to_bits

ONE = Fraction(1)


class Surd:
    """The sum of a/sqrt(v) over `terms`, a mapping of v to a; the rational part is that of v = 1.

    >>> half = inverse_root(Fraction(2)) * inverse_root(Fraction(2))
    >>> half == Fraction(1, 2), inverse_root(Fraction(8)) * 2 == inverse_root(Fraction(2)), inverse_root(Fraction(4))
    (True, True, Fraction(1, 2))
    """

    __slots__ = ("terms",)

    def __init__(self, terms: dict[Fraction, Fraction]) -> None:
        self.terms = terms

    def __add__(self, other: Any) -> Surd:
        terms = dict(self.terms)
        for v, a in _terms(other).items():
            terms[v] = terms.get(v, 0) + a
        return Surd(terms)

    def __neg__(self) -> Surd:
        return Surd({v: -a for v, a in self.terms.items()})

    def __sub__(self, other: Any) -> Surd:
        return self + -other

    def __rsub__(self, other: Any) -> Surd:
        return -self + other

    def __mul__(self, other: Any) -> Surd:
        terms: dict[Fraction, Fraction] = {}
        for v, a in self.terms.items():
            for w, b in _terms(other).items():
                if root := rational_sqrt(v * w):
                    terms[ONE] = terms.get(ONE, 0) + a * b / root
                else:
                    terms[v * w] = terms.get(v * w, 0) + a * b
        return Surd(terms)

    __radd__, __rmul__ = __add__, __mul__

    def __eq__(self, other: object) -> bool:
        """Decided exactly: square roots that are no rational multiples of each other are linearly independent over the rationals."""
        independent: list[list[Fraction]] = []
        for v, a in (self - other).terms.items():
            for term in independent:
                if root := rational_sqrt(term[0] / v):
                    term[1] += a * root
                    break
            else:
                independent.append([v, a])
        return not any(a for _, a in independent)

    __hash__ = None  # type: ignore[assignment]

    def __float__(self) -> float:
        return sum(float(a) / float(v) ** 0.5 for v, a in self.terms.items())

    def __repr__(self) -> str:
        return " + ".join(f"{a}/sqrt({v})" for v, a in self.terms.items()) or "0"


def _terms(number: Any) -> dict[Fraction, Fraction]:
    return number.terms if isinstance(number, Surd) else {ONE: number} if number else {}


def inverse_root(v: Fraction) -> Fraction | Surd:
    """1/sqrt(v), rational where it is."""
    root = rational_sqrt(v)
    return Surd({v: ONE}) if root is None else 1 / root


def round_surd(number: Fraction | int | Surd, form: Format) -> int:
    """The bits of the value of a format nearest to a number, ties to even.

    Most are decided by bounds of each root alone; only the others need know which of the roots are rational multiples of each other.
    """
    if not isinstance(number, Surd):
        return round_to_bits(number, form)
    rational = number.terms.get(ONE, Fraction(0))
    terms = [(a, InverseRoot(v)) for v, a in number.terms.items() if v != 1 and a]
    low = high = rational
    for a, root in terms:
        ends = root.between(FIRST_BITS)
        low, high = low + a * ends[a < 0], high + a * ends[a > 0]
    rounded = round_to_bits(low, form)
    return rounded if rounded == round_to_bits(high, form) else round_sum(rational, terms, form)
