"""The batch-norm kernels: moments against exact ones, and the same bits whatever the threads, the layout and the split of the batch."""

from fractions import Fraction

import numpy as np
import pytest

from npreparam import get_num_threads, set_num_threads
from npreparam.kernels import _threads
from npreparam.kernels import batch_norm as kernel
from tests.layouts import layouts
from tests.tolerances import assert_same_bits, assert_within, moments_bounds

SHAPES = [(3, 5, 4, 7), (2, 3, 16, 16), (7, 2, 1, 1), (33, 4), (1, 1, 5, 67)]


@pytest.fixture(autouse=True)
def _restore_threads():
    before = get_num_threads()
    yield
    set_num_threads(before)


def draw(shape, dtype, seed=0):
    """gy, x, gamma, beta, mean, var: statistics far from 0 and 1, channels of different scale."""
    rng = np.random.default_rng(seed)
    c = shape[1]
    x = rng.standard_normal(shape) * (1 + np.arange(c)).reshape(1, c, *[1] * (len(shape) - 2)) + 3
    return [v.astype(dtype) for v in (rng.standard_normal(shape), x, rng.standard_normal(c), rng.standard_normal(c), rng.standard_normal(c),
                                      rng.uniform(0.5, 2, c))]


def everything(gy, x, gamma, beta, mean, var):
    moments = kernel.statistics(x)
    return (*moments, kernel.normalize(x, gamma, beta, *moments, 1e-5), *kernel.backward(gy, x, gamma, *moments, 1e-5, True),
            kernel.normalize(x, gamma, beta, mean, var, 1e-5), *kernel.backward(gy, x, gamma, mean, var, 1e-5, False))


def exact_moments(values):
    values = [Fraction(float(v)) for v in values]
    mean = sum(values) / len(values)
    return float(mean), float(sum((v - mean) ** 2 for v in values) / len(values))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("offset", [0.0, 1e3, -1e6])
def test_moments_against_rational_ones(shape, dtype, offset):
    x = draw(shape, dtype)[1] + dtype(offset)
    expected = np.array([exact_moments(x[:, c].ravel()) for c in range(shape[1])]).T
    for got, want, bound in zip(kernel.statistics(x), expected, moments_bounds(x), strict=True):
        assert got.dtype == np.float64
        assert_within(got, want, bound)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_variance_of_values_far_from_zero_is_not_cancelled(dtype):
    """The known bug: E[x^2] - E[x]^2 in the dtype of x. The truth is 1.25."""
    x = (1e4 + np.arange(4)).astype(dtype).reshape(4, 1)
    mean, var = kernel.statistics(x)
    assert mean[0] == 10001.5
    assert var[0] == 1.25


def test_the_one_pass_variance_would_fail():
    """The fault planted: in float32 the squares, near 1e8, lie 8 apart."""
    x = (1e4 + np.arange(4)).astype(np.float32)
    one_pass = np.mean(np.square(x), dtype=np.float32) - np.square(np.mean(x, dtype=np.float32))
    with pytest.raises(AssertionError):
        assert_within([one_pass], [1.25], moments_bounds(x.reshape(4, 1))[1])


def test_variance_is_two_pass_where_even_float64_cancels():
    x = (2.0**40 + np.arange(4)).reshape(4, 1)
    assert kernel.statistics(x)[1][0] == 1.25
    one_pass = np.mean(np.square(x)) - np.square(np.mean(x))
    assert one_pass != 1.25


def test_variance_of_a_constant_is_zero():
    """1/10 has no finite binary expansion, so the sum of its copies is rounded."""
    mean, var = kernel.statistics(np.full((7, 1, 3, 5), 0.1))
    assert mean[0] == 0.1
    assert var[0] == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_thread_count_changes_no_bit(shape, dtype, monkeypatch):
    monkeypatch.setattr(kernel, "SMALL", 0)
    arrays = draw(shape, dtype)
    set_num_threads(1)
    expected = everything(*arrays)
    for threads in (2, 3, 5):
        set_num_threads(threads)
        for got, want in zip(everything(*arrays), expected, strict=True):
            assert_same_bits(got, want)


def test_the_thread_tests_do_share_the_work_out(monkeypatch):
    """Without this, a kernel that always ran on one thread would pass them."""
    pieces = []

    class Job(_threads._Job):
        def __init__(self, kernel, tasks, chunks, args):
            pieces.append((kernel.__name__, chunks))
            super().__init__(kernel, tasks, chunks, args)

    monkeypatch.setattr(_threads, "_Job", Job)
    monkeypatch.setattr(kernel, "SMALL", 0)
    set_num_threads(2)
    everything(*draw(SHAPES[0], np.float32))
    assert {name for name, chunks in pieces if chunks > 1} == {"channel_sums", "normalize_planes", "affine_planes"}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_layout_changes_no_bit(dtype):
    gy, x, *rest = draw((3, 5, 4, 7), dtype)
    expected = everything(gy, x, *rest)
    for (name, moved_x), (_, moved_gy) in zip(layouts(x), layouts(gy), strict=True):
        if name != "byte-swapped":  # `ops` swaps bytes
            for got, want in zip(everything(moved_gy, moved_x, *rest), expected, strict=True):
                assert_same_bits(got, want)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_batch_split_changes_no_bit_in_evaluation(dtype):
    gy, x, gamma, beta, mean, var = draw((6, 3, 5, 7), dtype)
    whole = kernel.normalize(x, gamma, beta, mean, var, 1e-5), kernel.backward(gy, x, gamma, mean, var, 1e-5, False)[0]
    for parts in ((1, 5), (2, 2, 2)):
        cuts = np.cumsum(parts)[:-1]
        pairs = list(zip(np.split(x, cuts), np.split(gy, cuts), strict=True))
        assert_same_bits(np.concatenate([kernel.normalize(p, gamma, beta, mean, var, 1e-5) for p, _ in pairs]), whole[0])
        assert_same_bits(np.concatenate([kernel.backward(g, p, gamma, mean, var, 1e-5, False)[0] for p, g in pairs]), whole[1])


def test_planes_beyond_two_to_the_32_elements_are_addressed(tmp_path):
    """A sparse file of 2^32 + 64 elements, more than 32-bit indices reach signed or not, of which the kernel touches the last plane only."""
    size, plane = 2**32 + 64, 64
    try:
        x = np.memmap(tmp_path / "x", np.float32, "w+", shape=(size,))
    except OSError as error:
        pytest.skip(f"no sparse file of {4 * size} bytes: {error}")
    x[-plane:] = np.arange(plane)
    sums = np.zeros((4, kernel.LANES))
    y = np.asarray(x)
    kernel.row_sums(y, size - plane, plane, 0.0, y, sums)
    assert sums[0].sum() == plane * (plane - 1) // 2
    one = np.ones(1)
    kernel.normalize_planes(size // plane - 1, size // plane, y, one, 2 * one, one, (size // plane, 1, plane), y)
    assert (y[-plane:] == 2 * (np.arange(plane) - 1) + 1).all()
