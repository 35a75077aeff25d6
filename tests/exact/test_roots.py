"""Sums of inverse square roots: mpmath at 2000 bits and certificates by halfway points; exact cases built by hand."""

import itertools
import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from npreparam.exact import roots
from npreparam.exact.roots import FIRST_BITS, InverseRoot, rational_sqrt, round_sum, sqrt_between
from npreparam.exact.rounding import FORMATS
from npreparam.exact.special import INF, NAN
from tests.exact.halfway import certify_sum

FORM = FORMATS["float32"]


def rounded(rational, *terms):
    """The float32 of rational + sum of a/sqrt(v)."""
    bits = round_sum(Fraction(rational), [(Fraction(a), InverseRoot(Fraction(v))) for a, v in terms], FORM)
    return np.array(bits, np.uint32).view(np.float32)[()]


def test_rational_roots():
    assert rational_sqrt(Fraction(9, 4)) == Fraction(3, 2)
    assert rational_sqrt(Fraction(2)) is None
    assert rational_sqrt(Fraction(4, 3)) is None
    squares = {Fraction(a * a, b * b) for a, b in itertools.product(range(1, 20), repeat=2)}
    for a, b in itertools.product(range(1, 20), repeat=2):
        assert (rational_sqrt(Fraction(a, b)) is not None) == (Fraction(a, b) in squares)


@given(st.fractions(min_value=Fraction(1, 10**30), max_value=10**30), st.integers(2, 200))
def test_brackets(v, bits):
    if rational_sqrt(v) is None:
        low, high = sqrt_between(v, bits)
        assert low * low < v < high * high
        assert (high - low) * 2 ** (bits - 1) <= high
        low, high = InverseRoot(v).between(bits)
        assert low * low * v < 1 < high * high * v


small = st.fractions(min_value=-9, max_value=9, max_denominator=8)
positive = st.fractions(min_value=Fraction(1, 8), max_value=50, max_denominator=8)


@given(small, st.lists(st.tuples(small, positive), max_size=3))
@example(Fraction(1), [(Fraction(1), Fraction(2)), (Fraction(-1), Fraction(3)), (Fraction(1), Fraction(6))])
@example(Fraction(0), [(Fraction(1), Fraction(2)), (Fraction(1), Fraction(8)), (Fraction(1), Fraction(9, 2))])
def test_certificate(rational, terms):
    certify_sum(rounded(rational, *terms), rational, terms)


def test_a_planted_ulp_is_caught():
    terms = [(1, 2), (-1, 3), (Fraction(1, 3), 5)]
    y = rounded(1, *terms)
    certify_sum(y, 1, terms)
    for wrong in (np.nextafter(y, np.float32(9)), np.nextafter(y, np.float32(-9))):
        with pytest.raises(AssertionError):
            certify_sum(wrong, 1, terms)


TIES = [(1 + Fraction(1, 2**24), 1, 1 + 2.0**-23), (1 + Fraction(3, 2**24), 1 + 2.0**-22, 1 + 2.0**-22), (3, 3, 3), (0, 0, 0)]
CANCELLING = [
    [(1, 2), (-2, 8)],  # 1/sqrt(2) - 2/sqrt(8) = 0
    [(1, Fraction(1, 2)), (Fraction(-3, 2), Fraction(9, 8))],
    [(1, 3), (1, 12), (Fraction(-3, 2), 3)],
    [(1, 2), (0, 3), (-1, 2)],
    [(1, 2), (-3, 4), (-1, 2), (3, 4)],
]


@pytest.mark.parametrize("terms", CANCELLING)
@pytest.mark.parametrize(("value", "expected", "above"), TIES)
def test_irrational_parts_that_cancel_leave_exact_values_and_ties(terms, value, expected, above):
    """And with a hair more they do not, be it rational or irrational."""
    hair = Fraction(1, 2**400)
    assert rounded(value, *terms) == expected
    assert rounded(value + hair, *terms) == above
    assert rounded(value, *terms, (hair, 5)) == above


def test_without_collecting_equal_roots_the_narrowing_would_not_end(monkeypatch):
    """The planted fault: the exact case is then never decided."""
    def between(self, bits):
        if bits > 2**12:
            raise RecursionError
        return sqrt_between(1 / self.v, bits)

    monkeypatch.setattr(InverseRoot, "between", between)
    assert rounded(TIES[0][0], *CANCELLING[0]) == 1
    monkeypatch.setattr(roots, "_collect", lambda independent, a, root: independent.append((a, root)))
    with pytest.raises(RecursionError):
        rounded(TIES[0][0], *CANCELLING[0])


@pytest.mark.parametrize("sign", [1, -1])
def test_cancellation_beyond_the_first_precision(sign):
    """1/sqrt(2) + 1/sqrt(3) - 1/sqrt(7) less itself to 300 bits: the first brackets cannot even tell the sign of the result."""
    terms = [(1, 2), (1, 3), (-1, 7)]
    with mpmath.workprec(2000):
        value = sum(a / mpmath.sqrt(v) for a, v in terms)
        scaled = int(mpmath.floor(value * 2**300))
    assert FIRST_BITS < 300
    rational = -Fraction(scaled + (sign < 0), 2**300)
    got = np.array(round_sum(rational, [(Fraction(a), InverseRoot(Fraction(v))) for a, v in terms], FORMATS["float64"]), np.uint64).view(np.float64)
    assert np.sign(got) == sign
    certify_sum(got[()], rational, terms)


def test_special_values():
    two = InverseRoot(Fraction(2))
    infinite, nan = InverseRoot(INF), InverseRoot(NAN)

    def value(rational, *terms):
        return float(np.array(round_sum(rational, terms, FORM), np.uint32).view(np.float32))

    one = Fraction(1)
    assert value(one, (one, infinite)) == 1
    assert value(one, (-INF, two)) == -math.inf
    assert value(-INF, (one, two)) == -math.inf
    for terms in ([(INF, infinite)], [(one, nan)], [(INF, two), (-INF, two)], [(NAN, two)]):
        assert math.isnan(value(one, *terms))
    assert math.isnan(value(INF, (-INF, two)))


def test_signs_of_zero():
    tiny = Fraction(1, 2**200)
    assert [bool(np.signbit(rounded(*args))) for args in ((0,), (0, (tiny, 2)), (0, (-tiny, 2)), (tiny, (-tiny, 2)))] == [False, False, True, False]
