"""The convolution kernels' promises: the same bits whatever the threads, the batch split and the layout; no crash from threads or after fork."""

import itertools
import multiprocessing
import os
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npreparam import Window, get_num_threads, ops, set_num_threads
from npreparam.kernels import _correlate, _plan, _reduce
from tests import naive
from tests.tolerances import assert_same_bits

GEOMETRIES = [  # n, in/groups, out/groups, groups, height, width, kernel, stride, padding, dilation
    (3, 5, 13, 1, 17, 19, (3, 3), 1, 1, 1),
    (2, 4, 12, 2, 23, 14, (3, 2), (2, 3), ((0, 2), (1, 0)), (2, 1)),
    (4, 1, 1, 9, 12, 31, (5, 5), 1, 2, 1),
    (1, 24, 40, 1, 9, 9, (1, 1), 1, 0, 1),
    (2, 3, 25, 1, 40, 40, (7, 7), 2, 3, 1),
]


@pytest.fixture(autouse=True)
def _restore_threads():
    before = get_num_threads()
    yield
    set_num_threads(before)


def draw(rng, case, dtype):
    n, ci, co, groups, h, w, kernel, stride, padding, dilation = case
    x, weights, b = rng.standard_normal((n, ci * groups, h, w)), rng.standard_normal((co * groups, ci, *kernel)), rng.standard_normal(co * groups)
    return x.astype(dtype), weights.astype(dtype), b.astype(dtype), (stride, padding, dilation, groups)


def all_three(x, w, b, geometry):
    y = ops.conv2d(x, w, b, *geometry)
    gy = np.sin(np.arange(y.size, dtype=np.float64)).reshape(y.shape).astype(y.dtype)
    return y, ops.conv2d_input_grad(gy, w, x.shape, *geometry), ops.conv2d_weight_grad(gy, x, w.shape, *geometry)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", GEOMETRIES)
def test_thread_count_changes_no_bit(case, dtype, monkeypatch):
    for product in (_correlate, _reduce):
        monkeypatch.setattr(product, "SMALL_PRODUCT", 0)  # else one thread does so little work
    arguments = draw(np.random.default_rng(1), case, dtype)
    set_num_threads(1)
    expected = all_three(*arguments)
    for threads in (2, 3, 5):
        set_num_threads(threads)
        for got, want in zip(all_three(*arguments), expected, strict=True):
            assert_same_bits(got, want)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", GEOMETRIES)
def test_packed_and_unpacked_weights_give_the_same_bits(case, dtype, monkeypatch):
    x, w, b, geometry = draw(np.random.default_rng(4), case, dtype)
    monkeypatch.setattr(_correlate, "UNPACKED_TILES", 0)
    packed, product = ops.conv2d(x, w, b, *geometry), ops.matmul(x[0, 0], x[0, 0].T)
    monkeypatch.setattr(_correlate, "UNPACKED_TILES", 10**9)
    assert_same_bits(ops.conv2d(x, w, b, *geometry), packed)
    assert_same_bits(ops.matmul(x[0, 0], x[0, 0].T), product)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", GEOMETRIES)
def test_batch_split_changes_no_bit(case, dtype):
    x, w, b, geometry = draw(np.random.default_rng(2), case, dtype)
    y, gx, _ = all_three(x, w, b, geometry)
    gy = np.sin(np.arange(y.size, dtype=np.float64)).reshape(y.shape).astype(y.dtype)
    for i in range(len(x)):
        assert_same_bits(ops.conv2d(x[i : i + 1], w, b, *geometry), y[i : i + 1])
        assert_same_bits(ops.conv2d_input_grad(gy[i : i + 1], w, (1, *x.shape[1:]), *geometry), gx[i : i + 1])


def layouts(array):
    """The same values as F-ordered, strided, negatively strided, channels-last, read-only, unaligned and byte-swapped arrays."""
    yield np.asfortranarray(array)
    wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
    wide[..., ::2] = array
    yield wide[..., ::2]
    yield np.ascontiguousarray(array[::-1, ..., ::-1])[::-1, ..., ::-1]
    yield np.ascontiguousarray(array.transpose(0, *range(2, array.ndim), 1)).transpose(0, array.ndim - 1, *range(1, array.ndim - 1))
    frozen = array.copy()
    frozen.flags.writeable = False
    yield frozen
    raw = np.zeros(array.nbytes + 1, np.uint8)
    unaligned = raw[1:].view(array.dtype).reshape(array.shape)
    unaligned[...] = array
    yield unaligned
    yield array.astype(array.dtype.newbyteorder())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", GEOMETRIES)
def test_layout_changes_no_bit(case, dtype):
    x, w, b, geometry = draw(np.random.default_rng(3), case, dtype)
    expected = all_three(x, w, b, geometry)
    for other_x, other_w in zip(layouts(x), layouts(w), strict=True):
        for got, want in zip(all_three(other_x, other_w, b, geometry), expected, strict=True):
            assert_same_bits(got, want)


def test_broadcast_input_is_read_where_it_lies():
    x = np.broadcast_to(np.float64(1.5), (2, 3, 8, 8))
    w = np.ones((4, 3, 3, 3))
    assert (ops.conv2d(x, w) == 27 * 1.5).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_each_output_is_one_chain_of_fused_multiply_adds(dtype):
    """The rounding contract itself: bit-equal to a scalar chain in the order (i, kh, kw), begun from the bias."""
    from npreparam.kernels._fma import fma
    rng = np.random.default_rng(4)
    x, w, b = (rng.standard_normal(s).astype(dtype) for s in ((1, 2, 4, 5), (3, 2, 3, 3), 3))
    y = ops.conv2d(x, w, b, 2, 1)
    for o, r, c in itertools.product(range(3), range(y.shape[2]), range(y.shape[3])):
        total = b[o]
        for _, at_x, at_w in (t for t in naive.conv_terms(x.shape, w.shape, (2, 2), ((1, 1), (1, 1)), (1, 1), 1) if t[0] == (0, o, r, c)):
            total = fma(w[at_w], x[at_x], total)
        assert y[0, o, r, c] == total


def test_relu_in_the_store_is_the_relu_behind_it():
    x, w, b, geometry = draw(np.random.default_rng(5), GEOMETRIES[1], np.float32)
    x[0, 0, 3, 3] = np.nan
    assert_same_bits(ops.conv2d_relu(x, w, b, *geometry), ops.relu(ops.conv2d(x, w, b, *geometry)))


def test_non_finite_values_go_where_ieee_sends_them_and_nowhere_else():
    rng = np.random.default_rng(6)
    for bad in (np.nan, np.inf, -np.inf):
        x, w = rng.standard_normal((2, 2, 6, 7)), rng.standard_normal((3, 2, 3, 3))
        x[0, 1, 2, 6] = bad
        with np.errstate(invalid="ignore"):
            args = (2, 1), ((1, 0), (1, 1)), (1, 2), 1
            y = ops.conv2d(x, w, None, *args)
            expected = naive.conv2d(x, w, None, *args)
            assert (np.isnan(y) == np.isnan(expected)).all()
            assert (np.isinf(y) == np.isinf(expected)).all()
            gy = rng.standard_normal(y.shape)
            gw, expected = ops.conv2d_weight_grad(gy, x, w.shape, *args), naive.conv2d_weight_grad(gy, x, w.shape, *args)
            assert (np.isfinite(gw) == np.isfinite(expected)).all()
            gy[1, 2, 1, 3] = bad
            gx, expected = ops.conv2d_input_grad(gy, w, x.shape, *args), naive.conv2d_input_grad(gy, w, x.shape, *args)
            assert (np.isfinite(gx) == np.isfinite(expected)).all()


def test_calls_from_several_python_threads():
    x, w, b, geometry = draw(np.random.default_rng(7), (2, 16, 24, 1, 40, 40, (3, 3), 1, 1, 1), np.float32)
    expected = all_three(x, w, b, geometry)
    results, errors = [], []

    def call():
        try:
            results.append([all_three(x, w, b, geometry) for _ in range(5)])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=call) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
        assert not thread.is_alive()
    assert not errors
    for several in results:
        for got in several:
            for part, want in zip(got, expected, strict=True):
                assert_same_bits(part, want)


def _in_child(connection, x, w):
    connection.send(ops.conv2d(x, w, padding=1))
    connection.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_use_after_fork():
    rng = np.random.default_rng(8)
    x, w = rng.standard_normal((2, 16, 40, 40)), rng.standard_normal((16, 16, 3, 3))
    expected = ops.conv2d(x, w, padding=1)  # the helpers are running now
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    child = context.Process(target=_in_child, args=(there, x, w))
    child.start()
    assert here.poll(60), "the child hangs"
    assert_same_bits(here.recv(), expected)
    child.join(60)
    assert child.exitcode == 0


def test_index_arithmetic_beyond_two_to_the_31():
    """The tables of a geometry with more than 2^31 elements, without its arrays: 64-bit integers throughout, and the right last index."""
    channels = 3_000_000
    shape, weights, window = (3, channels, 200, 200), (2, channels, 3, 3), Window.of(3, 1, 1)
    source, plan = _plan.forward(shape, weights, window, 4)
    rows = plan.band + 2
    assert source.plane == (202, 202)
    assert source.held == rows
    assert plan.held == channels * rows * 202 > 2**31
    assert plan.offsets.dtype == np.int64
    assert plan.offsets[-1] == ((channels - 1) * rows + 2) * 202 + 2 > 2**31
    assert plan.offsets.min() == 0
    _, plan = _plan.input_grad(shape, (channels, 2, 3, 3), (200, 200), window, 4)
    assert plan.offsets.max() == ((channels - 1) * (plan.band + 2) + 2) * 202 + 2
    assert plan.weight_offsets.max() == (channels - 1) * 18 + 8
    assert plan.problems.dtype == np.int64
    source, reduction = _plan.weight_grad((3, 70_000, 200, 200), (2, 70_000, 3, 3), window, 4)
    assert reduction.image == 70_000 * 202 * 202 > 2**31
    assert reduction.offsets.max() == (69_999 * 202 + 2) * 202 + 2


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
def test_padded_copies_hold_no_more_than_the_padded_input(kernel, stride, dilation):
    """Peak extra memory: the planes of an image are at most the padded input and a row for each phase, and a strip at most all rows of them."""
    window = Window.of(kernel, stride, kernel // 2, dilation)
    height, width = 50 + 2 * (kernel // 2), 60 + 2 * (kernel // 2)
    source, reduction = _plan.weight_grad((1, 4, 50, 60), (8, 4, kernel, kernel), window, 4)
    planes = len(source.row_phases) * len(source.spans)
    assert reduction.image == 4 * planes * source.plane[0] * source.plane[1] <= 4 * (height + stride) * (width + stride)
    strip, plan = _plan.forward((1, 4, 50, 60), (8, 4, kernel, kernel), window, 4)
    assert plan.held == 4 * planes * strip.held * strip.plane[1] <= reduction.image


@given(height=st.integers(1, 300), columns=st.integers(1, 300), reach=st.integers(0, 30), gap=st.integers(0, 5), channels=st.integers(1, 4000),
       lanes=st.sampled_from([8, 16, 128]))
def test_strips_cover_all_rows_once_and_stay_small(height, columns, reach, gap, channels, lanes):
    row = columns + gap
    strips, band = _plan._bands((height, columns), reach, row, lanes, channels * row * 4, channels * 12 * row)
    assert (strips - 1) * band < height <= strips * band
    assert channels * row * 4 * (band + reach) <= _plan.STRIP_BYTES or band <= max(1, _plan.HALO * reach)
