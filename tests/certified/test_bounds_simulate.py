"""The simulators simulate what they say, and the judge can fail."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npreparam import exact
from npreparam.certified.bounds import FLOAT32
from tests import naive
from tests.certified import simulate
from tests.certified.verdict import worst_ratio

floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(floats, floats, floats)
def test_fma_rounds_once(x, w, s):
    a, b, c = (np.array([v], np.float32) for v in (x, w, s))
    want = exact.round_array(np.array([Fraction(x) * Fraction(w) + Fraction(s)], object), np.float32)
    assert simulate.fma32(a, b, c) == want


def test_fma_where_two_roundings_differ():
    """(1 + 2^-23)*(1 + 2^-23) = 1 + 2^-22 + 2^-46; with 2^-24 more it is just above a tie, which 53 bits do not see beside 2^30."""
    one = np.float32([1])
    x = np.nextafter(one, np.float32(2))
    s = np.float32([2.0**-24])
    want = exact.round_array(np.array([Fraction(float(x[0])) ** 2 + Fraction(float(s[0]))], object), np.float32)
    assert simulate.fma32(x, x, s) == want
    assert simulate.fma32(one, one * 2.0**-100, one + 2.0**-23) == 1 + 2.0**-23


@given(st.floats(2.0**-120, 2.0**120, width=32))
def test_tf32_is_the_nearest_of_11_bits(x):
    got = Fraction(float(simulate.to_tf32(np.float32([x]))[0]))
    spacing = Fraction(2) ** (int(np.frexp(x)[1]) - 11)
    assert got % spacing == 0
    assert abs(got - Fraction(x)) <= spacing / 2


def test_an_aligned_sum_truncates_what_lies_below_the_largest():
    parts = np.array([[1.0], [2.0**-24], [-(2.0**-24)], [2.0**-23]])
    assert simulate.aligned_sum(parts) == 1 + 2.0**-23
    assert simulate.aligned_sum(np.array([[1.0], [-(2.0**-30)]])) == 1
    assert simulate.aligned_sum(np.array([[-1.0], [-1 + 2.0**-24]])) == -2 + 2.0**-22 - 2.0**-23


@pytest.mark.parametrize("style", simulate.STYLES)
def test_every_style_adds_every_term_once(style):
    x = np.arange(1.0, 12)[:, None]
    assert simulate.dot(x, x, FLOAT32, style, np.random.default_rng(0), bias=np.array([100.0])) == np.sum(x * x) + 100


def test_factors_are_those_of_the_loops():
    rng = np.random.default_rng(0)
    x, w = rng.integers(-9, 9, (2, 2, 4, 4)), rng.integers(-9, 9, (4, 1, 2, 3))
    geometry = ((2, 1), ((1, 0), (1, 1)), (1, 1), 2)
    y = naive.conv2d(x, w, None, *geometry)
    left, right = simulate.factors(x, w, naive.conv_terms(x.shape, w.shape, *geometry), y.shape)
    assert ((left * right).sum(0) == y).all()
    outside = ((4, 4), ((1, 0), (1, 0)), (1, 1), 1)  # the one window lies in the padding
    assert simulate.conv2d(np.ones((1, 1, 1, 1)), np.ones((1, 1, 1, 1)), FLOAT32, "sequential", rng, geometry=outside).tolist() == [[[[0]]]]


def test_the_judge_sees_the_smallest_excess():
    truth = np.array([Fraction(1)])
    assert worst_ratio(np.array([1.25]), truth, np.array([0.5])) == 0.5
    worst_ratio(np.array([1.5]), truth, np.array([0.5]))
    with pytest.raises(AssertionError, match="above the bound"):
        worst_ratio(np.array([1.5]), truth, np.array([np.nextafter(0.5, 0)]))
    with pytest.raises(AssertionError, match="is inf"):
        worst_ratio(np.array([np.inf]), truth, np.array([0.5]))
    with pytest.raises(AssertionError, match="shapes differ"):
        worst_ratio(np.array([1.0]), truth, np.array([[0.5]]))
    assert worst_ratio(np.array([np.nan]), truth, np.array([np.inf])) == 0
