"""What certifies a correctly rounded value of which one knows but a way to compare it with rationals."""

from fractions import Fraction

import mpmath
import numpy as np


def neighbours(y):
    """Midpoints to the float below and above, as fractions."""
    below, above = (Fraction(float(np.nextafter(y, y.dtype.type(to)))) for to in (-np.inf, np.inf))
    return (below + Fraction(float(y))) / 2, (above + Fraction(float(y))) / 2


def exceeds(t, v, bound):
    """t/sqrt(v) > bound, decided in integers: compare the signed squares."""
    left, right = t * abs(t), bound * abs(bound) * v
    return left > right


def certify_root(y, rational, t, v):
    """halfway down <= rational + t/sqrt(v) <= halfway up."""
    low, high = (middle - rational for middle in neighbours(y))
    assert not exceeds(-t, v, -low)  # t/sqrt(v) >= low
    assert not exceeds(t, v, high)


def certify_sum(y, rational, terms):
    """halfway down <= rational + sum of a/sqrt(v) <= halfway up, from mpmath to 2000 bits: its error is far below any distance in the tests."""
    with mpmath.workprec(2000):
        def real(q):
            return mpmath.mpf(Fraction(q).numerator) / Fraction(q).denominator

        value = real(rational) + sum(real(a) / mpmath.sqrt(real(v)) for a, v in terms)
        low, high = map(real, neighbours(y))
        assert low <= value <= high
