"""What certifies a correctly rounded value of which one knows but a way to compare it with rationals."""

from fractions import Fraction

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
