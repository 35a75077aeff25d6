"""Batch normalization of unusual input: memory layouts, empty batches, special values, and errors."""

import numpy as np
import pytest

from npreparam import ArgumentError, DTypeError, ShapeError, ops
from tests.layouts import layouts
from tests.ops.test_batch_norm import BOTH, draw
from tests.tolerances import assert_same_bits


@BOTH
@pytest.mark.parametrize("training", [False, True])
def test_layout_changes_no_bit(training, dtype):
    gy, x, gamma, beta, mean, var = draw((3, 4, 5, 7), dtype)
    y = ops.batch_norm(x, gamma, beta, mean, var, training)
    expected = (*(y if training else (y,)), *ops.batch_norm_grad(gy, x, gamma, mean, var, training))
    for (_, moved), (_, moved_gy) in zip(layouts(x), layouts(gy), strict=True):
        y = ops.batch_norm(moved, gamma, beta, mean, var, training)
        results = (*(y if training else (y,)), *ops.batch_norm_grad(moved_gy, moved, gamma, mean, var, training))
        for got, want in zip(results, expected, strict=True):
            assert_same_bits(got, want)


def test_channel_arrays_may_be_strided_and_read_only():
    _, x, gamma, beta, mean, var = draw((3, 4), np.float64)
    other = [np.repeat(v, 2)[::-2][::-1] for v in (gamma, beta, mean, var)]
    for v in other:
        v.flags.writeable = False
    assert_same_bits(ops.batch_norm(x, *other), ops.batch_norm(x, gamma, beta, mean, var))


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (0, 3), (2, 3, 0, 4), (2, 0, 3, 3)])
def test_nothing_in_gives_nothing_out_in_evaluation(shape):
    c = np.ones(shape[1])
    assert ops.batch_norm(np.zeros(shape), c, c, c, c).shape == shape
    gx, ggamma, gbeta = ops.batch_norm_grad(np.zeros(shape), np.zeros(shape), c, c, c)
    assert gx.shape == shape
    assert (ggamma == 0).all()
    assert (gbeta == 0).all()


@BOTH
def test_a_non_finite_value_stays_in_its_channel(dtype):
    _, x, gamma, beta, mean, var = draw((3, 2, 2, 2), dtype)
    x[1, 0, 0, 0] = np.nan
    x[2, 0, 1, 1] = np.inf
    y = ops.batch_norm(x, gamma, beta, mean, var)
    assert [int((~np.isfinite(y[:, c])).sum()) for c in range(2)] == [2, 0]
    y, new_mean, new_var = ops.batch_norm(x, gamma, beta, mean, var, training=True)
    assert np.isnan(y[:, 0]).all()
    assert np.isnan([new_mean[0], new_var[0]]).all()
    assert np.isfinite(y[:, 1]).all()
    assert np.isfinite([new_mean[1], new_var[1]]).all()


def test_a_variance_beyond_float32_normalizes_and_is_reported_as_infinite():
    x, one = np.array([[1e30], [-1e30]], np.float32), np.ones(1, np.float32)
    y, _, var = ops.batch_norm(x, one, 0 * one, one, one, training=True, eps=0.0)
    assert (y.ravel() == [1, -1]).all()
    assert np.isposinf(var[0])


def test_zero_variance_and_zero_eps_give_nan_as_ieee_division_does():
    x, one = np.ones((2, 1)), np.ones(1)
    assert np.isnan(ops.batch_norm(x, one, one, one, 0 * one, eps=0)).all()


# Errors.

X, C = np.ones((2, 3, 1, 1)), np.ones(3)
ERRORS = [
    (lambda: ops.batch_norm(X[:1], C, C, C, C, True), ArgumentError, r"`x` of shape \(1, 3, 1, 1\) has 1 values per channel"),
    (lambda: ops.batch_norm(X[:1], C, C, C, C, True), ArgumentError, r"at least 2: .* training=False"),
    (lambda: ops.batch_norm(X[:0], C, C, C, C, True), ArgumentError, r"has 0 values per channel"),
    (lambda: ops.batch_norm_grad(X[:1], X[:1], C, C, C, True), ArgumentError, r"has 1 values per channel"),
    (lambda: ops.batch_norm_grad(X[:0], X[:0], C, C, C, True), ArgumentError, r"has 0 values per channel"),
    (lambda: ops.batch_norm(np.ones((2, 3, 4)), C, C, C, C), ShapeError, r"`x` has shape \(2, 3, 4\), but must have 4 axes .*, or 2"),
    (lambda: ops.batch_norm(np.ones((2, 3, 4)), C, C, C, C, True), ShapeError, r"`x` has shape \(2, 3, 4\)"),
    (lambda: ops.batch_norm(X, C[:2], C, C, C), ShapeError, r"`gamma` has shape \(2,\), but must have shape \(3,\)"),
    (lambda: ops.batch_norm(X, C, C, C, C[:1]), ShapeError, r"`running_var` has shape \(1,\)"),
    (lambda: ops.batch_norm(X, C, C, C[:1], C, True), ShapeError, r"`running_mean` has shape \(1,\)"),
    (lambda: ops.batch_norm(X, C, 0.0, C, C), ShapeError, r"`beta` has shape \(\)"),
    (lambda: ops.batch_norm(X, None, C, C, C), DTypeError, r"`gamma` is None"),
    (lambda: ops.batch_norm(X, C, C, None, C), DTypeError, r"`running_mean` is None"),
    (lambda: ops.batch_norm(X, C, C, C, None, True), DTypeError, r"`running_var` is None"),
    (lambda: ops.batch_norm(None, C, C, C, C), DTypeError, r"`x` is None"),
    (lambda: ops.batch_norm(X.tolist(), C, C, C, C, True), DTypeError, r"`x` \(a list\)"),
    (lambda: ops.batch_norm(X.astype(int), C, C, C, C), DTypeError, r"`x` has dtype int64"),
    (lambda: ops.batch_norm(X.astype(complex), C, C, C, C), DTypeError, r"`x` has dtype complex128"),
    (lambda: ops.batch_norm(X.astype(object), C, C, C, C), DTypeError, r"`x` has dtype object"),
    (lambda: ops.batch_norm(X, C.astype(np.float32), C, C, C), DTypeError, r"same dtype, got `x` float64, `gamma` float32"),
    (lambda: ops.batch_norm(X, C, C, C.astype(np.float32), C, True), DTypeError, r"same dtype, got `x` float64, `running_mean` float32"),
    (lambda: ops.batch_norm(X, C, C, C, C, eps=-1e-5), ArgumentError, r"`eps` \(=-1e-05\) must be a finite number and not negative"),
    (lambda: ops.batch_norm(X, C, C, C, C, eps=float("nan")), ArgumentError, r"`eps` \(=nan\)"),
    (lambda: ops.batch_norm(X, C, C, C, C, eps=float("inf")), ArgumentError, r"`eps` \(=inf\)"),
    (lambda: ops.batch_norm(X, C, C, C, C, eps="small"), ArgumentError, r"`eps` \(='small'\)"),
    (lambda: ops.batch_norm(X, C, C, C, C, True, momentum=1.5), ArgumentError, r"`momentum` \(=1.5\).* must be a number in \[0, 1\]"),
    (lambda: ops.batch_norm(X, C, C, C, C, True, momentum=None), ArgumentError, r"`momentum` \(=None\)"),
    (lambda: ops.batch_norm_grad(X[:1], X, C, C, C), ShapeError, r"`gy` has shape \(1, 3, 1, 1\), but must have shape \(2, 3, 1, 1\)"),
    (lambda: ops.batch_norm_grad(None, X, C, C, C, True), DTypeError, r"`gy` is None"),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()
