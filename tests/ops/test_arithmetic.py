"""Arithmetic: correct rounding, broadcasting and its adjoint, special values."""

import itertools
import math
import operator

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from npreparam import ArgumentError, DTypeError, ShapeError, ops
from npreparam.tape import Tensor, grad
from tests.tolerances import assert_same_bits
from tests.truth import POINTS, assert_ulps, elementwise

DTYPES = [np.float32, np.float64]
BINARY = {"add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": operator.truediv}
SHAPES = [(), (1,), (3,), (1, 1), (2, 1), (1, 3), (2, 3), (4, 2, 3), (4, 1, 1), (1, 2, 1), (0,), (2, 0)]


def same(actual, expected):
    """The same number, or both NaN, with the same sign of zero."""
    assert actual.dtype == expected.dtype
    np.testing.assert_array_equal(actual, expected)
    assert (np.signbit(actual) == np.signbit(expected))[~np.isnan(expected)].all()


@pytest.mark.parametrize("name", BINARY)
@given(x=st.floats(width=32), y=st.floats(width=32))
def test_binary_ops_are_correctly_rounded(name, x, y):
    """Twin: Python's float64; for float32, rounding its result again is harmless since 53 >= 2*24 + 2 (Figueroa, 1995)."""
    try:
        exact = BINARY[name](x, y)
    except ZeroDivisionError:
        exact = math.nan if x == 0 or math.isnan(x) else math.copysign(math.inf, x) * math.copysign(1, y)
    for dtype in DTYPES:
        with np.errstate(over="ignore", under="ignore"):
            expected = np.array([exact], np.float64).astype(dtype)
        same(getattr(ops, name)(np.array([x], dtype), np.array([y], dtype)), expected)


@given(x=st.floats(width=32))
def test_unary_ops_are_correctly_rounded(x):
    root = math.sqrt(x) if x >= 0 else math.nan if x < 0 else x
    for dtype in DTYPES:
        for f, exact in ((ops.neg, -x), (ops.square, x * x), (ops.sqrt, root)):
            with np.errstate(over="ignore", under="ignore"):
                same(f(np.array([x], dtype)), np.array([exact], np.float64).astype(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "truth"), [("exp", mpmath.exp), ("log", mpmath.log), ("expm1", mpmath.expm1), ("log1p", mpmath.log1p)])
def test_elementary_functions_are_true_to_two_ulps(name, truth, dtype):
    x = POINTS.astype(dtype)
    x = x[x > 0] if name == "log" else x[x > -1] if name == "log1p" else x
    assert_ulps(getattr(ops, name)(x), elementwise(truth, x), 2)


@pytest.mark.parametrize(("name", "points", "values"), [
    ("exp", [np.inf, -np.inf, np.nan, 1000, -1000], [np.inf, 0, np.nan, np.inf, 0]),
    ("log", [np.inf, 0, np.nan, -1], [np.inf, -np.inf, np.nan, np.nan]),
    ("expm1", [np.inf, -np.inf, np.nan, 1000], [np.inf, -1, np.nan, np.inf]),
    ("log1p", [np.inf, -1, np.nan, -2], [np.inf, -np.inf, np.nan, np.nan]),
    ("sqrt", [np.inf, 0, np.nan, -1], [np.inf, 0, np.nan, np.nan]),
    ("square", [np.inf, -np.inf, np.nan, 1e200], [np.inf, np.inf, np.nan, np.inf]),
])
def test_special_values_come_without_warnings(name, points, values):
    np.testing.assert_array_equal(getattr(ops, name)(np.array(points, float)), np.array(values, float))


def test_non_finite_cotangents_are_not_masked():
    x = Tensor(np.array([-1.0, 2.0]))
    assert np.isnan(grad(ops.relu(x), x, np.array([np.inf, np.nan]))).all()  # inf * 0 is NaN
    assert (grad(ops.sqrt(x - x.value), x, np.ones(2)) == np.inf).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_python_numbers_take_the_dtype_beside_them(dtype):
    x = np.array([1, 2], dtype)
    for name in BINARY:
        f = getattr(ops, name)
        for y in (f(x, 3), f(3, x), f(x, 0.1), f(0.1, x)):
            assert y.dtype == dtype
    assert_same_bits(ops.mul(x, 0.1), x * dtype(0.1))


def pairs():
    for x, y in itertools.product(SHAPES, repeat=2):
        try:
            yield x, y, np.broadcast_shapes(x, y)
        except ValueError:
            yield x, y, None


def test_broadcasting_exhaustive():
    """Every pair of shapes: the value by index arithmetic, both gradients as sums over repeated elements, with ==; or a refusal."""
    rng = np.random.default_rng(0)
    for x_shape, y_shape, shape in pairs():
        x, y = (rng.integers(-9, 10, s).astype(float) for s in (x_shape, y_shape))
        if shape is None:
            with pytest.raises(ShapeError, match="do not broadcast"):
                ops.mul(x, y)
            continue
        g = rng.integers(-9, 10, shape).astype(float)
        z, gx, gy = np.zeros(shape), np.zeros(x_shape), np.zeros(y_shape)
        for index in np.ndindex(*shape):
            at_x, at_y = (tuple(0 if n == 1 else i for i, n in zip(index[len(index) - len(s):], s, strict=True))
                          for s in (x_shape, y_shape))
            z[index] = x[at_x] * y[at_y]
            gx[at_x] += g[index] * y[at_y]
            gy[at_y] += g[index] * x[at_x]
        a, b = Tensor(x), Tensor(y)
        product = a * b
        assert product.shape == shape
        assert (product.value == z).all()
        to_a, to_b = grad(product, [a, b], g)
        assert to_a.shape == x_shape
        assert to_b.shape == y_shape
        assert (to_a == gx).all()
        assert (to_b == gy).all()


def test_unbroadcast_is_the_adjoint_of_broadcast_to_exhaustive():
    rng = np.random.default_rng(1)
    for x_shape, _, shape in pairs():
        if shape is None:
            continue
        x, g = (rng.integers(-9, 10, s).astype(float) for s in (x_shape, shape))
        assert np.sum(ops.broadcast_to(x, shape) * g) == np.sum(x * ops.unbroadcast(g, x_shape))


@given(hnp.arrays(np.float64, (4,), elements=st.integers(-1000, 1000)))
def test_gradients_of_arithmetic_are_the_schoolbook_ones(x):
    for f, slope in ((ops.square, 2 * x), (ops.neg, -1), (lambda t: t - 3.0 * t, -2), (lambda t: 7.0 - t, -1), (lambda t: t / 4.0, 0.25),
                     (lambda t: t * t * t, 3 * x * x)):
        t = Tensor(x)
        assert (grad(ops.sum(f(t)), t) == slope).all()


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda x: ops.add(x, np.ones(3)), ShapeError, r"`x` \(2,\) and `y` \(3,\) do not broadcast"),
    (lambda x: ops.add(x, x.astype(np.float32)), DTypeError, "same dtype, got `x` float64, `y` float32"),
    (lambda x: ops.mul(x, np.ones(2, int)), DTypeError, "`y` has dtype int64"),
    (lambda x: ops.mul(x, np.ones(2, complex)), DTypeError, "`y` has dtype complex128"),
    (lambda x: ops.mul(x, np.array([1.0, 2.0], object)), DTypeError, "`y` has dtype object"),
    (lambda x: ops.mul(x, [1.0, 2.0]), DTypeError, r"`y` \(a list\) must be a NumPy array"),
    (lambda x: ops.mul(x, True), DTypeError, r"`y` \(a bool\)"),
    (lambda x: ops.exp(x.astype(np.float16)), DTypeError, "`x` has dtype float16"),
    (lambda x: ops.broadcast_to(x, (2, 3)), ShapeError, r"`x` of shape \(2,\) cannot be broadcast to `shape` \(=\(2, 3\)\)"),
    (lambda x: ops.broadcast_to(x, (2.0, 2)), ArgumentError, r"`shape` \(=2.0\) must be an integer"),
    (lambda x: ops.broadcast_to(x, (-1, 2)), ArgumentError, r"`shape` \(=-1\) must not be negative"),
    (lambda x: ops.unbroadcast(x, "2"), ArgumentError, r"`shape` \(='2'\) must be an integer"),
    (lambda x: ops.unbroadcast(x, (3,)), ShapeError, r"`x` of shape \(2,\) is no broadcast of `shape` \(=\(3,\)\)"),
    (lambda x: ops.unbroadcast(x, (1, 2)), ShapeError, "no broadcast"),
    (lambda x: ops.add(Tensor(x), x.astype(np.float32)), DTypeError, "same dtype"),
    (lambda x: ops.broadcast_to(x, Tensor(x)), ArgumentError, "`shape` of `broadcast_to` is not differentiable"),
])
def test_bad_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call(np.ones(2))
