"""Pooling: the loop twin over Fractions and over special floats, and certificates by halfway points."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npreparam import ArgumentError, DTypeError, ShapeError, exact
from tests import naive
from tests.exact.halfway import certify_root

GEOMETRIES = [(kernel, stride, padding) for kernel, stride, padding in itertools.product(
    ((1, 1), (2, 3), (3, 2)), ((1, 1), (2, 1), (2, 3)), (((0, 0), (0, 0)), ((1, 0), (0, 1)), ((1, 1), (1, 1))))
    if max(padding[0]) < kernel[0] and max(padding[1]) < kernel[1]]


def fractions(seed, shape):
    rng = np.random.default_rng(seed)
    return np.vectorize(Fraction, otypes=[object])(rng.integers(-99, 100, shape), rng.integers(1, 8, shape))


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize(("kernel", "stride", "padding"), GEOMETRIES)
def test_the_definitions_over_fractions(kernel, stride, padding, counted):
    x = fractions(0, (2, 2, 4, 5))
    y = exact.avg_pool2d(x, kernel, stride, padding, counted, out_dtype=None)
    assert (y == naive.avg_pool2d(x, kernel, stride, padding, counted)).all()
    largest = exact.max_pool2d(x, kernel, stride, padding, out_dtype=None)
    for at, under in naive.windows(x.shape, kernel, stride, padding):
        assert largest[at] == max(x[i] for i in under)


SPECIAL = st.sampled_from([math.nan, math.inf, -math.inf, -1.0, 0.0, 4.0, 8.0])


@given(st.lists(SPECIAL, min_size=12, max_size=12), st.sampled_from([g for g in GEOMETRIES if g[0] == (1, 1) or g[0][0] == 2]), st.booleans())
def test_special_values_as_in_floating_point(values, geometry, counted):
    """The loop twin in float64: sums of small integers are exact, and the quotient is rounded once, as here."""
    x = np.reshape(values, (1, 1, 3, 4))
    with np.errstate(invalid="ignore"):
        expected = naive.avg_pool2d(x, *geometry, counted)
    np.testing.assert_array_equal(exact.avg_pool2d(x, *geometry, counted), expected)
    np.testing.assert_array_equal(exact.max_pool2d(x, *geometry), naive.max_pool2d(x, *geometry)[0])


@given(st.lists(st.floats(-(2.0**126), 2.0**126, width=32), min_size=6, max_size=6))
def test_certificates(values):
    x = np.float32(values).reshape(1, 1, 2, 3)
    total = sum(map(Fraction, values))
    certify_root(exact.global_avg_pool(x)[0, 0], total / 6, 0, 1)
    certify_root(exact.avg_pool2d(x, (2, 3))[0, 0, 0, 0], total / 6, 0, 1)
    certify_root(exact.avg_pool2d(x, 3, padding=((0, 1), (0, 0)))[0, 0, 0, 0], total / 9, 0, 1)
    certify_root(exact.avg_pool2d(x, 3, padding=((0, 1), (0, 0)), count_include_pad=False)[0, 0, 0, 0], total / 6, 0, 1)
    assert exact.max_pool2d(x, (2, 3)).item() == max(values)
    with pytest.raises(AssertionError):  # the other divisor, planted
        certify_root(exact.avg_pool2d(np.ones_like(x), 3, padding=((0, 1), (0, 0)))[0, 0, 0, 0], Fraction(6, 6), 0, 1)


def test_by_hand():
    x = np.arange(16.0).reshape(1, 1, 4, 4)
    assert exact.avg_pool2d(x, 2).tolist() == [[[[2.5, 4.5], [10.5, 12.5]]]]
    assert exact.max_pool2d(x, 3, 1, "SAME_UPPER")[0, 0].tolist() == [[5, 6, 7, 7], [9, 10, 11, 11], [13, 14, 15, 15], [13, 14, 15, 15]]
    assert exact.global_avg_pool(x).tolist() == [[7.5]]
    assert exact.avg_pool2d(x[:0], 2).shape == (0, 1, 2, 2)
    assert not np.signbit(exact.max_pool2d(np.full((1, 1, 1, 1), -0.0), 1)).any()
    assert exact.max_pool2d(np.full((1, 1, 1, 1), 1 + 2.0**-30), 1, out_dtype=np.float32).item() == 1
    largest = np.finfo(np.float32).max
    assert exact.global_avg_pool(np.full((1, 1, 2, 2), largest)).item() == largest  # the sum would overflow


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda: exact.avg_pool2d(np.ones((2, 2)), 1), ShapeError, r"`x` has shape \(2, 2\), but must have 4 axes"),
    (lambda: exact.max_pool2d(np.ones((1, 1, 2, 2)), 2, padding=2), ShapeError, r"`padding` \(=2\) must be smaller than `kernel` \(=2\)"),
    (lambda: exact.max_pool2d(np.ones((1, 1, 0, 2)), 1), ShapeError, "there is nothing to pool"),
    (lambda: exact.avg_pool2d(np.ones((1, 1, 2, 2)), 3), ShapeError, "no window fits"),
    (lambda: exact.global_avg_pool(np.ones((1, 1, 2, 0))), ShapeError, r"`x` has shape \(1, 1, 2, 0\)"),
    (lambda: exact.global_avg_pool(np.ones((1, 2))), ShapeError, "must have 4 axes"),
    (lambda: exact.avg_pool2d(np.full((1, 1, 1, 1), np.nan), 1, out_dtype=None), ArgumentError, "`x` holds NaN or infinity"),
    (lambda: exact.max_pool2d(np.ones((1, 1, 1, 1), int), 1), DTypeError, "`out_dtype`"),
])
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
