"""Sums and moves of elements: against loops and NumPy with ==, adjoints, errors."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from npreparam import ArgumentError, DTypeError, ShapeError, ops
from npreparam.ops.shape import concat_arrays, scatter_slice
from npreparam.tape import Tensor, grad
from tests.tolerances import assert_same_bits, assert_within, dot_bound

X = np.arange(24.0).reshape(2, 3, 4)


def check_adjoint(f, *args):
    """<g, f(x)> = sum of <f^T g, x> for linear f on integers, with ==; and f on arrays gives what it gives on Tensors."""
    tensors = [Tensor(a) for a in args]
    y = f(*tensors)
    assert_same_bits(f(*args), y.value)
    g = np.random.default_rng(0).integers(-9, 10, y.shape).astype(float)
    pulled = grad(y, tensors, g)
    assert np.sum(g * y.value) == sum(np.sum(p * a) for p, a in zip(pulled, args, strict=True))
    for p, a in zip(pulled, args, strict=True):
        assert p.shape == a.shape


AXES = [None, *(axes for n in range(4) for axes in itertools.permutations(range(3), n)), 0, 1, 2, -1, -3, (0, -1)]


@pytest.mark.parametrize("keepdims", [False, True])
def test_sum_and_mean_exhaustive_over_axes(keepdims):
    for axis in AXES:
        assert (ops.sum(X, axis, keepdims) == X.sum(axis, keepdims=keepdims)).all()
        assert (ops.mean(X * 12, axis, keepdims) == (X * 12).mean(axis, keepdims=keepdims)).all()  # 12 = lcm(2, 3, 4): exact
        check_adjoint(lambda x, axis=axis: ops.sum(x, axis, keepdims), X)


def test_the_gradient_of_a_mean_is_one_over_the_count():
    x = Tensor(X)
    assert (grad(ops.mean(x), x) == 1 / 24).all()
    assert (grad(ops.mean(x, axis=(0, 2)), x, np.ones(3)) == 1 / 8).all()


@given(hnp.arrays(np.float32, hnp.array_shapes(min_dims=1, max_dims=3, max_side=40), elements=st.floats(-(2.0**40), 2.0**40, width=32)))
def test_sum_is_within_its_bound_in_every_layout_to_the_same_bit(x):
    total = ops.sum(x)
    assert_within(total, x.astype(np.float64).sum(), dot_bound(x.size, np.abs(x).astype(np.float64).sum(), np.float32))
    for axis in (None, 0, -1):
        assert_same_bits(ops.sum(np.asfortranarray(x), axis), ops.sum(x, axis))


def test_reductions_without_elements():
    empty = np.zeros((0, 3), np.float32)
    assert_same_bits(ops.sum(empty), np.array(0, np.float32))
    assert np.isnan(ops.mean(empty, axis=0)).all()
    x = Tensor(empty)
    assert grad(ops.sum(x), x).shape == (0, 3)


def test_non_finite_values_reach_the_sum():
    assert np.isnan(ops.sum(np.array([np.inf, -np.inf])))
    assert ops.sum(np.full(2, np.finfo(np.float32).max)) == np.inf


@pytest.mark.parametrize("axes", [None, *itertools.permutations(range(3)), (-1, 0, 1), [2, 0, 1]])
def test_transpose_exhaustive(axes):
    assert (ops.transpose(X, axes) == np.transpose(X, axes)).all()
    check_adjoint(lambda x: ops.transpose(x, axes), X)


@pytest.mark.parametrize("shape", [24, -1, (24,), (-1,), (4, 3, 2), (2, -1), (1, 24, 1), [6, 4]])
def test_reshape_keeps_c_order(shape):
    assert (ops.reshape(np.asfortranarray(X), shape) == X.ravel().reshape(shape)).all()
    check_adjoint(lambda x: ops.reshape(x, shape), X)


@pytest.mark.parametrize("index", [
    0, -1, np.int64(1), slice(None), slice(1, None, 2), slice(None, None, -1), slice(5, 5), ..., None, (), (..., 1), (0, ..., 2), (1, 2, 3),
    (slice(None), None, 1), (slice(None, None, -2), slice(1, 3), slice(-1, None, -3)), (None, ..., None),
])
def test_getitem_is_numpys_basic_indexing(index):
    assert (ops.getitem(X, index) == X[index]).all()
    assert (Tensor(X)[index].value == X[index]).all()
    check_adjoint(lambda x: ops.getitem(x, index), X)
    check_adjoint(lambda y: scatter_slice(y, index, X.shape), np.array(X[index]))


@pytest.mark.parametrize("widths", [[(0, 0)] * 3, [(1, 0), (0, 2), (3, 1)], [[1, 1], [1, 1], [1, 1]]])
def test_pad_is_numpys_zero_padding(widths):
    assert (ops.pad(X, widths) == np.pad(X, widths)).all()
    check_adjoint(lambda x: ops.pad(x, widths), X)


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
def test_concat_joins_arrays_and_its_gradient_splits(axis):
    other = np.take(X, [0], axis) * 7
    assert (ops.concat([X, other, X], axis) == np.concatenate([X, other, X], axis)).all()
    check_adjoint(lambda x, y: ops.concat([x, y, x], axis), X, other)
    check_adjoint(lambda x: ops.concat([x], axis), X)


def test_concat_takes_arrays_beside_tensors():
    x = Tensor(X)
    y = ops.concat([X, x], axis=1)
    assert (grad(ops.sum(y), x) == 1).all()


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda: ops.sum(X, 3), ArgumentError, r"`axis` \(=3\) must lie in \[-3, 3\)"),
    (lambda: ops.sum(X, -4), ArgumentError, r"`axis` \(=-4\) must be at least -3"),
    (lambda: ops.sum(X, (0, -3)), ArgumentError, r"`axis` \(=\(0, -3\)\) names an axis twice"),
    (lambda: ops.sum(X, 0.0), ArgumentError, r"`axis` \(=0.0\) must be an integer"),
    (lambda: ops.mean(X, True), ArgumentError, r"`axis` \(=True\) must be an integer"),
    (lambda: ops.sum(np.arange(3)), DTypeError, "`x` has dtype int64"),
    (lambda: ops.reshape(X, (5, 5)), ShapeError, r"`x` of shape \(2, 3, 4\) \(24 elements\) cannot be reshaped to `shape` \(=\(5, 5\)\)"),
    (lambda: ops.reshape(X, (-1, -1)), ShapeError, r"cannot be reshaped to `shape` \(=\(-1, -1\)\)"),
    (lambda: ops.reshape(X, (-2, 12)), ArgumentError, r"`shape` \(=-2\) must be at least -1"),
    (lambda: ops.reshape(X, (24.0,)), ArgumentError, r"`shape` \(=24.0\) must be an integer"),
    (lambda: scatter_slice(X, 0, (-1,)), ArgumentError, r"`shape` \(=-1\) must not be negative"),
    (lambda: ops.concat([X, X], 0.0), ArgumentError, r"`axis` \(=0.0\) must be an integer"),
    (lambda: ops.transpose(X, (0, 1)), ArgumentError, r"`axes` \(=\(0, 1\)\) must name each of the 3 axes once"),
    (lambda: ops.transpose(X, (0, 1, 1)), ArgumentError, "twice"),
    (lambda: ops.concat([]), ArgumentError, "at least one array"),
    (lambda: ops.concat([X, X[0]]), ShapeError, r"shapes \[\(2, 3, 4\), \(3, 4\)\] must agree except along `axis` \(=0\)"),
    (lambda: ops.concat([X, X], 3), ShapeError, r"`axis` \(=3\)"),
    (lambda: concat_arrays(X, X.astype(np.float32)), DTypeError, r"`arrays\[0\]` float64, `arrays\[1\]` float32"),
    (lambda: ops.getitem(X, [0, 1]), ArgumentError, r"`index` \(=\[0, 1\]\) must be basic"),
    (lambda: ops.getitem(X, X > 3), ArgumentError, "must be basic"),
    (lambda: ops.getitem(X, True), ArgumentError, "must be basic"),
    (lambda: ops.getitem(X, 2), ArgumentError, r"`index` \(=2\) does not fit an array of shape \(2, 3, 4\)"),
    (lambda: scatter_slice(np.ones(1), slice(0, 3), (3,)), ShapeError, r"`x` has shape \(1,\), but must have shape \(3,\)"),
    (lambda: ops.pad(X, [(1, 1)]), ShapeError, r"`x` has shape \(2, 3, 4\), but must have 1 axes: one for each \(before, after\)"),
    (lambda: ops.pad(X, [(1, 1), (0, 0), (-1, 0)]), ArgumentError, r"`widths` \(=-1\) must not be negative"),
    (lambda: ops.pad([1.0], [(1, 1)]), DTypeError, r"`x` \(a list\)"),
])
def test_bad_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()
