"""NaN and infinities: IEEE arithmetic itself, in float64 over small integers, is the witness for every rule."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npreparam import ArgumentError, exact
from npreparam.exact.special import INF, NAN, Special, order
from tests import naive

HUGE, TINY = Fraction(10) ** 400, Fraction(1, 10**400)
VALUES = [-math.inf, math.inf, math.nan, -2.0, 0.0, 3.0]


def number(value):
    return Fraction(value) if math.isfinite(value) else Special.of(value)


def same(got, expected):
    if math.isfinite(expected):
        return got == Fraction(expected)
    return isinstance(got, Special) and np.array_equal(float(got), expected, equal_nan=True)


@pytest.mark.parametrize(("a", "b"), list(itertools.product(VALUES, VALUES)))
def test_every_pair_as_in_floating_point_exhaustive(a, b):
    x, y = number(a), number(b)
    assert same(x + y, a + b)
    assert same(x - y, a - b)
    assert same(x * y, a * b)
    if not math.isfinite(a):
        assert same(-x, -a)
    if math.isfinite(b):
        assert same(x * int(b), a * b)


def test_rationals_beyond_every_float():
    """Neither overflows to an infinity nor underflows to a zero on the way."""
    for got in (INF + -HUGE, -HUGE + INF, INF - HUGE, HUGE - -INF, INF * TINY, TINY * INF, INF * HUGE):
        assert float(got) == math.inf
    assert float(-TINY * INF) == -math.inf
    assert repr(INF) == "Special(inf)"


def test_order():
    ascending = [-INF, -HUGE, Fraction(0), TINY, HUGE, INF, NAN]
    for shuffled in itertools.permutations(ascending):
        assert sorted(shuffled, key=order) == ascending


SMALL = st.sampled_from([*VALUES, 1.0, 1.0, 2.0])
GEOMETRIES = st.sampled_from([((1, 1), ((0, 0), (0, 0)), (1, 1), 1), ((2, 1), ((1, 1), (0, 1)), (1, 2), 1), ((1, 1), ((1, 0), (1, 1)), (1, 1), 2)])


@given(st.data(), GEOMETRIES)
def test_convolutions_of_special_values_as_in_floating_point(data, geometry):
    """Small integers are exact in float64, so the loop twin in float64 gives every class and every value."""
    groups = geometry[-1]

    def array(*shape):
        size = math.prod(shape)
        return np.reshape(data.draw(st.lists(SMALL, min_size=size, max_size=size)), shape)

    x, w, b, rows = array(1, groups, 3, 3), array(groups, 1, 2, 2), array(groups), array(2, 3)
    with np.errstate(invalid="ignore"):
        y = naive.conv2d(x, w, b, *geometry)
        gx, gw = naive.conv2d_input_grad(y, w, x.shape, *geometry), naive.conv2d_weight_grad(y, x, w.shape, *geometry)
        product = naive.linear(x[0, 0], rows, None)
    np.testing.assert_array_equal(exact.conv2d(x, w, b, *geometry), y)
    np.testing.assert_array_equal(exact.conv2d_input_grad(y, w, x.shape, *geometry), gx)
    np.testing.assert_array_equal(exact.conv2d_weight_grad(y, x, w.shape, *geometry), gw)
    np.testing.assert_array_equal(exact.linear(x[0, 0], rows), product)
    np.testing.assert_array_equal(exact.matmul(x[0, 0], rows.T), product)
    transposed = exact.conv_transpose2d(y, w, None, *geometry[:2], 0, *geometry[2:])
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(transposed, naive.conv2d_input_grad(y, w, transposed.shape, *geometry))


def test_padding_is_no_term_and_a_zero_in_the_image_is_one():
    x, w = np.zeros((1, 1, 1, 2)), np.array([[[[math.inf, 1.0]]]])
    assert exact.conv2d(x[..., :1] + 5, w, padding=(0, 1)).tolist() == [[[[5.0, math.inf]]]]  # the infinite tap lies on padding, then on 5
    assert np.isnan(exact.conv2d(x, w)).all()


def test_signs_of_zero_and_underflow():
    tiny = np.float32(2.0**-149)
    x, w = np.float32([[tiny, -tiny], [0, -0.0], [1, -1]]), np.float32([[0.5, 0.0], [0.0, 0.5], [1, 1]])
    got = exact.linear(x, w)
    assert got.tolist() == [[0, 0, 0], [0, 0, 0], [0.5, -0.5, 0]]
    assert np.signbit(got).tolist() == [[False, True, False], [False, False, False], [False, True, False]]


def test_overflow_is_decided_after_the_exact_sum():
    big = np.finfo(np.float32).max
    one = np.float32([[1, 1, 1]])
    assert exact.linear(np.float32([[big, big, -big]]), one).item() == big  # each order that adds the first two overflows
    assert exact.linear(np.float32([[big, 2.0**103, 0]]), one).item() == math.inf  # a tie
    assert exact.linear(np.float32([[big, 2.0**103, -1]]), one).item() == big


def test_nan_and_infinity_are_no_fractions():
    for bad in (np.nan, math.inf):
        x = np.full((1, 1, 1, 1), bad)
        for call in (lambda x=x: exact.conv2d(x, x, out_dtype=None), lambda x=x: exact.conv2d_input_grad(x, x, x.shape, out_dtype=None),
                     lambda x=x: exact.conv2d_weight_grad(x, x, x.shape, out_dtype=None), lambda x=x: exact.linear(x[0, 0], x[0, 0], out_dtype=None),
                     lambda x=x: exact.matmul(x[0, 0], x[0, 0], out_dtype=None), lambda x=x: exact.conv_transpose2d(x, x, out_dtype=None)):
            with pytest.raises(ArgumentError, match="holds NaN or infinity, which are no rational numbers"):
                call()
