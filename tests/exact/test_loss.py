"""Correctly rounded losses: by certificate from mpmath, where the answer is known by hand, and beside the public operations."""

from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npreparam import ArgumentError, DTypeError, ShapeError, exact, ops
from tests.exact.certificate import certify, real, softplus
from tests.tolerances import assert_same_bits, assert_within, function_bound, relative_bound

rows = st.lists(st.floats(-1000, 1000, width=32), min_size=2, max_size=6)
kinds = st.sampled_from([np.float16, np.float32, np.float64])


def log_softmax(*row):
    """log_softmax of row[0] among row[1:]."""
    return row[0] - mpmath.log(mpmath.fsum(mpmath.exp(v) for v in row[1:]))


def certify_log_softmax(x, y):
    for value, got in zip(x, y, strict=True):
        certify(got, real(log_softmax, value, *x))


@given(rows, kinds)
def test_certificate_of_log_softmax(row, kind):
    x = np.array(row, np.float32)
    certify_log_softmax(x, exact.log_softmax(x, out_dtype=kind))


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(0, 1), kinds)
def test_certificate_of_binary_cross_entropy(x, t, kind):
    y = exact.bce_with_logits(np.array([x]), np.array([t]), out_dtype=kind)[0]
    certify(y, real(lambda x, t: softplus(x) - x * t, x, t))


@given(rows, st.data(), kinds)
def test_cross_entropy_is_minus_one_element(row, data, kind):
    x, label = np.array([row, row[::-1]]), data.draw(st.integers(0, len(row) - 1))
    y = exact.cross_entropy(x, np.array([label, len(row) - 1 - label]), out_dtype=kind)
    want = -exact.log_softmax(x, out_dtype=kind)
    assert_same_bits(y, np.array([want[0, label], want[1, len(row) - 1 - label]]))


def test_by_hand():
    """Equal logits: -log n. Two at a distance d: -softplus(-d), -softplus(d)."""
    x = np.zeros((1, 10))
    assert_same_bits(exact.cross_entropy(x, np.array([7])), exact.log(np.array([10.0])))
    x = np.array([[3.0, 5.0]])
    assert_same_bits(exact.log_softmax(x), -exact.softplus(np.array([[2.0, -2.0]])))
    assert_same_bits(exact.bce_with_logits(x, np.zeros((1, 2))), exact.softplus(x))
    assert_same_bits(exact.bce_with_logits(x, np.ones((1, 2))), exact.softplus(-x))


def test_a_single_class_is_certain():
    """The one rational value: no bracket would ever decide its sign."""
    assert_same_bits(exact.log_softmax(np.array([[5.0]])), np.array([[0.0]]))
    assert_same_bits(exact.cross_entropy(np.array([[-5.0]]), np.array([0])), np.array([0.0]))


def test_extreme_differences():
    x = np.array([[0.0, -745.0], [1e-300, 0.0]])
    for row, y in zip(x, exact.log_softmax(x), strict=True):
        certify_log_softmax(row, y)
    x = np.array([[0.0, 1e308], [-1e308, 1e308], [-5000.0, 0.0]])  # probabilities that no witness resolves
    y = exact.log_softmax(x)
    assert y.tolist() == [[-1e308, 0], [-np.inf, 0], [-5000, 0]]
    assert np.signbit(y).all()  # a hair below 0


def test_a_tie_that_only_a_tiny_probability_breaks():
    """-(1 + 2^-24) - exp(-100) lies below a halfway point of float32; float64 would take the tie to even, which is up."""
    x = np.array([0.0, 100 + 2.0**-18, -1000.0])
    y = exact.log_softmax(x, out_dtype=np.float32)
    certify_log_softmax(x, y)
    assert y[0] == -(100 + 2.0**-17)
    twice = exact.log_softmax(x).astype(np.float32)
    assert twice[0] == -100
    with pytest.raises(AssertionError):
        certify(twice[0], real(log_softmax, x[0], *x))


def test_axes_and_shapes():
    x = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
    for axis in (0, 1, 2, -1, -2, -3):
        y = exact.log_softmax(x, axis)
        moved, want = np.moveaxis(x, axis, -1), np.moveaxis(y, axis, -1)
        assert_same_bits(exact.log_softmax(np.ascontiguousarray(moved)), np.ascontiguousarray(want))
    for shape in ((0, 3), (3, 0), (0,)):
        assert exact.log_softmax(np.zeros(shape)).shape == shape
    assert exact.cross_entropy(np.zeros((0, 3)), np.zeros(0, int)).shape == (0,)
    assert exact.bce_with_logits(np.float32(0), np.float32(1)).shape == ()


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_ops_agree(kind):
    rng = np.random.default_rng(1)
    x, t, labels = (3 * rng.standard_normal((20, 5))).astype(kind), rng.random((20, 5)).astype(kind), rng.integers(0, 5, 20)
    y = exact.log_softmax(x)
    # (n + d + log n) roundings as ops.log_softmax states, d the distance of the two largest; twice, for NumPy's functions
    roundings = 2 * (5 + np.ptp(x, axis=1, keepdims=True).astype(np.float64) + np.log(5))
    assert_within(ops.log_softmax(x), y, relative_bound(roundings, y, kind))
    assert_within(ops.cross_entropy(x, labels), exact.cross_entropy(x, labels), relative_bound(roundings.max(), y.min(), kind))
    y = exact.bce_with_logits(x, t)
    assert_within(ops.bce_with_logits(x, t), y, function_bound(8, y, kind))


def test_out_dtype_and_fractions():
    third = np.array([[Fraction(1, 3), Fraction(0)]], object)
    want = real(lambda: -mpmath.log1p(mpmath.exp(mpmath.mpf(-1) / 3)))
    for kind in (np.float16, np.float32, np.float64):
        certify(exact.log_softmax(third, out_dtype=kind)[0, 0], want)
    assert exact.log_softmax(np.zeros((1, 2), np.float16)).dtype == np.float16


def test_bad_input():
    x = np.zeros((2, 3))
    with pytest.raises(ArgumentError, match=r"`axis` \(=2\) must lie in \[-2, 2\)"):
        exact.log_softmax(x, 2)
    with pytest.raises(ArgumentError, match="`x` holds NaN or infinity"):
        exact.log_softmax(np.array([np.inf]))
    with pytest.raises(DTypeError, match="None"):
        exact.log_softmax(x, out_dtype=None)
    with pytest.raises(DTypeError, match="`labels` has dtype float64"):
        exact.cross_entropy(x, np.zeros(2))
    with pytest.raises(ShapeError, match=r"`labels` has shape \(3,\)"):
        exact.cross_entropy(x, np.zeros(3, int))
    with pytest.raises(ShapeError, match=r"`logits` has shape \(3,\)"):
        exact.cross_entropy(x[0], np.zeros(2, int))
    for label in (-1, 3):
        with pytest.raises(ArgumentError, match=r"must lie in \[0, 3\)"):
            exact.cross_entropy(x, np.array([0, label]))
    with pytest.raises(ShapeError, match=r"`targets` has shape \(3,\)"):
        exact.bce_with_logits(x, x[0])
