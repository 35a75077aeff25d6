"""The product in panels: every element is one chain over k, whatever the tile, the layout, the number of threads or the neighbours."""

import numpy as np
import pytest

import npreparam
from npreparam import ops
from tests import naive
from tests.tolerances import assert_same_bits, assert_within, dot_bound, relative_bound

SIZES = [1, 2, 11, 12, 13, 16, 17, 31, 32, 33, 65]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("m", SIZES)
def test_every_size_of_tile_and_remainder(m, dtype):
    rng = np.random.default_rng(m)
    for n in SIZES:
        for k in (1, 5, 70):
            a, b = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
            y = ops.matmul(a, b)
            reference, size = a.astype(np.longdouble) @ b.astype(np.longdouble), np.abs(a).astype(float) @ np.abs(b).astype(float)
            assert_within(y, reference, dot_bound(k, size, dtype) + relative_bound(1, size, np.float64))  # the reference is rounded once more
            row, column = m - 1, n - 1
            assert_same_bits(ops.matmul(a[row:], b), y[row:])
            assert_same_bits(ops.matmul(a, b[:, column:]), y[:, column:])
            assert_same_bits(ops.matmul(np.asfortranarray(a), np.asfortranarray(b)), y)
            assert_same_bits(ops.linear(a, np.ascontiguousarray(b.T)), y)


def test_a_strip_of_panels_and_several_threads_change_no_bit():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((50, 3000)).astype(np.float32), rng.standard_normal((3000, 200)).astype(np.float32)
    whole = ops.matmul(a, b)
    threads = npreparam.get_num_threads()
    try:
        for count in (1, 3):
            npreparam.set_num_threads(count)
            assert_same_bits(ops.matmul(a, b), whole)
    finally:
        npreparam.set_num_threads(threads)
    for i in range(0, 200, 37):
        assert_same_bits(ops.matmul(a, b[:, i : i + 5]), whole[:, i : i + 5])


def test_a_chain_begins_with_the_bias_and_no_terms_leave_it():
    assert_same_bits(ops.linear(np.zeros((3, 0)), np.zeros((14, 0)), np.arange(14.0)), np.repeat(np.arange(14.0)[None], 3, 0))
    assert ops.matmul(np.zeros((3, 0)), np.zeros((0, 4))).tolist() == [[0.0] * 4] * 3
    assert ops.matmul(np.zeros((0, 3)), np.zeros((3, 4))).shape == (0, 4)
    assert_within(ops.matmul(np.ones((2, 3)), np.ones((3, 2))), naive.matmul(np.ones((2, 3)), np.ones((3, 2))), 0)


def test_infinities_stay_in_their_rows_and_columns():
    a, b = np.ones((30, 20)), np.ones((20, 40))
    a[3, 2], b[5, 7] = np.inf, np.nan
    y = ops.matmul(a, b)
    clean = np.ones(y.shape, bool)
    clean[3], clean[:, 7] = False, False
    assert (y[clean] == 20).all()
    assert (np.delete(y[3], 7) == np.inf).all()
    assert np.isnan(y[:, 7]).all()
