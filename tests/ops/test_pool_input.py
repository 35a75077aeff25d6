"""Pooling of unusual input: threads, memory layouts, split and empty batches, and errors."""

import itertools

import numpy as np
import pytest

from npreparam import ArgumentError, DTypeError, ShapeError, get_num_threads, ops, set_num_threads
from npreparam.kernels import pool as kernel
from npreparam.ops.pool import avg_pool2d_grad, max_pool2d_grad, take_maxima
from tests.layouts import layouts
from tests.tolerances import assert_same_bits

BOTH = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@pytest.fixture(autouse=True)
def _restore_threads():
    before = get_num_threads()
    yield
    set_num_threads(before)


def everything(x, window):
    y = ops.max_pool2d(x, *window)
    gy = np.sin(np.arange(y.size)).reshape(y.shape).astype(y.dtype)
    return (y, max_pool2d_grad(gy, x, *window), ops.avg_pool2d(x, *window), ops.avg_pool2d(x, *window, False),
            avg_pool2d_grad(gy, x.shape, *window, False), ops.global_avg_pool(x))


@BOTH
def test_thread_count_and_layout_change_no_bit(dtype, monkeypatch):
    monkeypatch.setattr(kernel, "SMALL", 0)
    x, window = np.random.default_rng(0).standard_normal((3, 5, 9, 11)).astype(dtype), ((3, 2), (2, 1), ((1, 2), (0, 1)))
    set_num_threads(1)
    expected = everything(x, window)
    for threads, (_, moved) in itertools.product((2, 5), [("C", x), *layouts(x)]):
        set_num_threads(threads)
        for got, want in zip(everything(moved, window), expected, strict=True):
            assert_same_bits(got, want)


@BOTH
def test_cotangents_of_any_layout(dtype):
    rng = np.random.default_rng(0)
    x, gy = rng.standard_normal((2, 3, 6, 8)).astype(dtype), rng.standard_normal((2, 3, 3, 4)).astype(dtype)
    for _, moved in layouts(gy):
        assert_same_bits(max_pool2d_grad(moved, x, 2), max_pool2d_grad(gy, x, 2))
        assert_same_bits(avg_pool2d_grad(moved, x.shape, 2), avg_pool2d_grad(gy, x.shape, 2))


@BOTH
def test_batch_split_changes_no_bit(dtype):
    x, window = np.random.default_rng(0).standard_normal((5, 3, 7, 8)).astype(dtype), (3, 2, 1)
    pools = (lambda v: ops.max_pool2d(v, *window), lambda v: ops.avg_pool2d(v, *window, False), ops.global_avg_pool)
    for pool in pools:
        assert_same_bits(np.concatenate([pool(x[:2]), pool(x[2:])]), pool(x))


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 0, 4, 5)])
def test_an_empty_batch_gives_empty_results(shape):
    x, out = np.zeros(shape), (*shape[:2], 2, 2)
    assert ops.avg_pool2d(x, 2).shape == ops.max_pool2d(x, 2).shape == out
    assert avg_pool2d_grad(np.zeros(out), shape, 2).shape == max_pool2d_grad(np.zeros(out), x, 2).shape == shape
    assert ops.global_avg_pool(x).shape == shape[:2]


# Errors.

X = np.ones((1, 1, 4, 4))
ERRORS = [
    (lambda: ops.avg_pool2d(X[0], 2), ShapeError, r"`x` has shape \(1, 4, 4\), but must have 4 axes"),
    (lambda: ops.max_pool2d(X[0], 2), ShapeError, r"`x` has shape \(1, 4, 4\)"),
    (lambda: ops.global_avg_pool(X[0]), ShapeError, r"`x` has shape \(1, 4, 4\)"),
    (lambda: ops.avg_pool2d(X, 5), ShapeError, r"no window fits: `height` \(=4\)"),
    (lambda: ops.max_pool2d(X, (1, 6)), ShapeError, r"no window fits: `width` \(=4\)"),
    (lambda: ops.avg_pool2d(X, 2, 1, 2), ShapeError, r"`padding` \(=2\) must be smaller than `kernel` \(=2\) on every side"),
    (lambda: ops.avg_pool2d(X, 2, 1, 2, False), ShapeError, r"so that no window lies wholly in the padding"),
    (lambda: ops.max_pool2d(X, (3, 1), 1, ((0, 0), (0, 1))), ShapeError, r"`kernel` \(=\(3, 1\)\)"),
    (lambda: ops.avg_pool2d(X[:, :, :0], 2, 1, 1), ShapeError, r"nothing to pool; `height` and `width` must be positive"),
    (lambda: ops.max_pool2d(X[..., :0], 2, 1, 1), ShapeError, r"nothing to pool"),
    (lambda: avg_pool2d_grad(X, (1, 1, 0, 4), 2, 1, 1), ShapeError, r"nothing to pool"),
    (lambda: ops.global_avg_pool(X[..., :0]), ShapeError, r"nothing to average"),
    (lambda: ops.avg_pool2d(X, 0), ArgumentError, r"`kernel` \(=0\) must be positive"),
    (lambda: ops.max_pool2d(X, 2, 0), ArgumentError, r"`stride` \(=0\) must be positive"),
    (lambda: ops.max_pool2d(X, 2.0), ArgumentError, r"`kernel` \(=2.0\) must be an integer"),
    (lambda: ops.avg_pool2d(X, 2, 1, -1), ArgumentError, r"`padding` \(=-1\) must not be negative"),
    (lambda: ops.avg_pool2d(X, 2, 1, "SAME"), ArgumentError, r"`padding` \(='SAME'\)"),
    (lambda: ops.avg_pool2d(X.astype(np.float16), 2), DTypeError, r"`x` has dtype float16"),
    (lambda: ops.max_pool2d(X.astype(int), 2), DTypeError, r"`x` has dtype int64"),
    (lambda: ops.max_pool2d(X.astype(complex), 2), DTypeError, r"`x` has dtype complex128"),
    (lambda: ops.global_avg_pool([[1.0]]), DTypeError, r"`x` \(a list\)"),
    (lambda: ops.avg_pool2d(X, 2**64, 2**64, 2**64 - 1), ArgumentError, r"`kernel` leads to a length of 18446744073709551616, but"),
    (lambda: ops.max_pool2d(X, 2, 2**60), ArgumentError, r"`stride` leads to a length of 1152921504606846976, but must stay below"),
    (lambda: avg_pool2d_grad(X, (1, 1, 4, 4), 2), ShapeError, r"`gy` has shape \(1, 1, 4, 4\), but must have shape \(1, 1, 2, 2\)"),
    (lambda: avg_pool2d_grad(X, (4, 4), 2), ShapeError, r"`input_shape` \(=\(4, 4\)\) must hold"),
    (lambda: max_pool2d_grad(X, X, 2), ShapeError, r"`gy` has shape \(1, 1, 4, 4\)"),
    (lambda: max_pool2d_grad(X[..., :2, :2].astype(np.float32), X, 2), DTypeError, r"same dtype"),
    (lambda: take_maxima(X[..., :2], X, 2), ShapeError, r"`chosen_by` has shape"),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()
