import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npreparam import DTypeError, ShapeError, ops
from tests import naive
from tests.ops.test_conv2d import assert_equal, integers
from tests.tolerances import assert_same_bits, assert_within, dot_bound


@pytest.mark.interpreted
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_small_product_equals_the_definition(dtype):
    rng = np.random.default_rng(0)
    for m, k, n in itertools.product((0, 1, 2, 13), (0, 1, 5), (0, 1, 3, 17)):
        a, b = integers(rng, (m, k), dtype), integers(rng, (k, n), dtype)
        assert_equal(ops.matmul(a, b), naive.matmul(a, b))


@given(st.integers(1, 60), st.integers(1, 80), st.integers(1, 60), st.integers(0, 2**32), st.sampled_from([np.float32, np.float64]))
def test_products_within_the_bound_and_rows_alone_the_same(m, k, n, seed, dtype):
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
    y = ops.matmul(a, b)
    wide = a.astype(np.float64), b.astype(np.float64)
    magnitude = np.abs(wide[0]) @ np.abs(wide[1])
    assert_within(y, wide[0] @ wide[1], dot_bound(k, magnitude, dtype) + dot_bound(k, magnitude, np.float64))
    assert_same_bits(ops.matmul(a[:1], b), y[:1])
    assert_same_bits(ops.matmul(np.asfortranarray(a), b[:, ::-1])[:, ::-1].copy(), y)


@given(st.integers(0, 40), st.integers(1, 30), st.integers(1, 40), st.integers(0, 2**32), st.sampled_from([np.float32, np.float64]))
def test_linear_is_a_pointwise_convolution_bit_for_bit(batch, inputs, outputs, seed, dtype):
    rng = np.random.default_rng(seed)
    x, w, b = (rng.standard_normal(shape).astype(dtype) for shape in ((batch, inputs), (outputs, inputs), (outputs,)))
    y = ops.linear(x, w, b)
    assert_same_bits(y, ops.conv2d(x[:, :, None, None], w[:, :, None, None], b)[:, :, 0, 0])
    assert_same_bits(ops.linear(x[:1], w, b), y[:1])
    assert_same_bits(ops.linear(np.asfortranarray(x), w[::-1], b[::-1].copy())[:, ::-1].copy(), y)


def test_linear_is_the_product_with_the_transposed_weights():
    rng = np.random.default_rng(1)
    x, w, b = (integers(rng, s, np.float64) for s in ((3, 4), (2, 4), (2,)))
    assert_equal(ops.linear(x, w, b), naive.matmul(x, w.T) + b)


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda: ops.matmul(np.zeros((2, 3)), np.zeros((2, 3))), ShapeError, r"axis 1 of `a` \(=3\) and axis 0 of `b` \(=2\)"),
    (lambda: ops.matmul(np.zeros(3), np.zeros((3, 3))), ShapeError, "`a` has shape"),
    (lambda: ops.matmul(np.zeros((2, 3), np.float32), np.zeros((3, 2))), DTypeError, "same dtype"),
    (lambda: ops.linear(np.zeros((2, 3)), np.zeros((2, 4))), ShapeError, r"`in_features` \(=3.*\(=4\)"),
    (lambda: ops.linear(np.zeros((2, 3)), np.zeros((2, 3)), np.zeros(3)), ShapeError, "`b` has shape"),
])
def test_bad_calls(call, error, message):
    with pytest.raises(error, match=message):
        call()
