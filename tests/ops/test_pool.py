"""Pooling against loop twins with ==, bilinear identities, finite differences, and PyTorch."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npreparam import ops
from npreparam.ops.pool import avg_pool2d_grad, max_pool2d_grad, take_maxima
from npreparam.tape import Tensor, check_grads, grad
from tests import naive
from tests.tolerances import assert_same_bits, assert_within, relative_bound

BOTH = pytest.mark.parametrize("dtype", [np.float32, np.float64])
PADDINGS = ((0, 0), (0, 1), (1, 0), (1, 1), (2, 1), (2, 2))
# size, kernel, stride, padding of one axis; padding is below the kernel and at least one window fits
AXES = [(size, kernel, stride, padding)
        for size, kernel, stride, padding in itertools.product((1, 2, 3, 5), (1, 2, 3), (1, 2, 4), PADDINGS)
        if max(padding) < kernel and naive.output_length(size, kernel, stride, *padding, 1)]


def multiples(rng, shape, dtype):
    """Multiples of 2520 = lcm(1..10), so that every mean of up to 10 of them is an integer, and sums are exact in float32."""
    return (2520 * rng.integers(-6, 7, shape)).astype(dtype)


def check_all(x, gy_of, window, compare):
    """Average (padding counted and not) and maximum, forward and backward, against loop twins; `compare(actual, expected, kind)`."""
    for counted in (False, True):
        y = ops.avg_pool2d(x, *window, counted)
        compare(y, naive.avg_pool2d(x, *window, counted), counted)
        gy = gy_of(y.shape)
        compare(avg_pool2d_grad(gy, x.shape, *window, counted), naive.avg_pool2d_grad(gy, x.shape, *window, counted), counted)
    compare(ops.max_pool2d(x, *window), naive.max_pool2d(x, *window)[0], "max")
    compare(max_pool2d_grad(gy, x, *window), naive.max_pool2d_grad(gy, x, *window), "max")


@pytest.mark.interpreted
@BOTH
def test_every_small_axis_geometry_equals_the_definition(dtype):
    """Exhaustive along one axis, the other a fixed mixed case; integers with many ties, and all divisions exact: ==."""
    rng = np.random.default_rng(0)

    def compare(got, want, kind):
        assert got.dtype == dtype
        assert got.shape == want.shape
        assert (got == want).all(), (kind, window)

    for axis in AXES:
        for (h, kh, sh, ph), (w, kw, sw, pw) in ((axis, (3, 2, 2, (1, 0))), ((3, 2, 2, (1, 0)), axis)):
            window = (kh, kw), (sh, sw), (ph, pw)
            check_all(multiples(rng, (1, 2, h, w), dtype), lambda shape: multiples(rng, shape, dtype), window, compare)


@st.composite
def geometries(draw):
    """x shape and (kernel, stride, padding)."""
    axes = []
    for _ in range(2):
        k, s = draw(st.integers(1, 6)), draw(st.integers(1, 5))
        before, after = draw(st.integers(0, k - 1)), draw(st.integers(0, k - 1))
        axes.append((draw(st.integers(max(1, k - before - after), 9)), k, s, (before, after)))
    size, kernel_, stride, padding = zip(*axes, strict=True)
    return (draw(st.integers(1, 3)), draw(st.integers(1, 3)), *size), (kernel_, stride, padding)


@given(geometries(), st.integers(0, 2**32), st.sampled_from([np.float32, np.float64]))
def test_random_geometries_and_values(case, seed, dtype):
    """|fl(mean) - mean| <= gamma_{k+1} * mean|x| for k terms, here on both sides; a maximum is exact, and sums over at most k windows."""
    shape, window = case
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape).astype(dtype)
    terms = window[0][0] * window[0][1] + 1
    bounds = [(ops.avg_pool2d(np.abs(x), *window, counted), counted) for counted in (False, True)]

    def random(y_shape):
        return rng.standard_normal(y_shape).astype(dtype)

    for of_abs, counted in bounds:
        assert_within(ops.avg_pool2d(x, *window, counted), naive.avg_pool2d(x, *window, counted), 2 * relative_bound(terms, of_abs, dtype))
        gy = random(of_abs.shape)
        size = naive.avg_pool2d_grad(np.abs(gy).astype(np.float64), shape, *window, counted)
        assert_within(avg_pool2d_grad(gy, shape, *window, counted), naive.avg_pool2d_grad(gy, shape, *window, counted),
                      2 * relative_bound(terms, size, dtype))
    y, _ = naive.max_pool2d(x, *window)
    assert (ops.max_pool2d(x, *window) == y).all()
    gy = random(y.shape)
    assert_same_bits(max_pool2d_grad(gy, x, *window), naive.max_pool2d_grad(gy, x, *window))


@pytest.mark.parametrize("fault", ["count", "place", "last of equals"])
def test_the_comparison_catches_planted_faults(fault):
    rng = np.random.default_rng(0)
    x, window = multiples(rng, (1, 1, 5, 5), np.float64) // 2520, ((3, 3), (2, 2), ((1, 1), (1, 1)))
    gy = rng.integers(1, 9, (1, 1, 3, 3)).astype(np.float64)
    if fault == "count":
        assert (ops.avg_pool2d(x, *window, True) != naive.avg_pool2d(x, *window, False)).any()
    elif fault == "place":
        assert (ops.max_pool2d(x, *window) != naive.max_pool2d(x, (3, 3), (2, 2), ((2, 0), (1, 1)))[0]).any()
    else:
        flipped = naive.max_pool2d_grad(gy[..., ::-1, ::-1], x[..., ::-1, ::-1], *window)[..., ::-1, ::-1]
        assert (max_pool2d_grad(gy, x, *window) != flipped).any()


# What the arguments mean.

def test_stride_none_is_the_kernel():
    x = np.arange(30.0).reshape(1, 1, 5, 6)
    assert_same_bits(ops.avg_pool2d(x, (2, 3)), ops.avg_pool2d(x, (2, 3), (2, 3)))
    assert_same_bits(ops.max_pool2d(x, (2, 3)), ops.max_pool2d(x, (2, 3), (2, 3)))


def test_padding_is_counted_or_not_in_the_average():
    x = np.full((1, 1, 2, 2), 36.0)
    assert ops.avg_pool2d(x, 3, 1, 1)[0, 0].tolist() == [[16.0, 16.0], [16.0, 16.0]]
    assert ops.avg_pool2d(x, 3, 1, 1, count_include_pad=False)[0, 0].tolist() == [[36.0, 36.0], [36.0, 36.0]]


def test_padding_is_minus_infinity_in_the_maximum():
    assert ops.max_pool2d(np.full((1, 1, 1, 1), -5.0), 3, 1, 1)[0, 0, 0, 0] == -5
    assert ops.max_pool2d(np.full((1, 1, 2, 2), -np.inf), 3, 1, 1)[0, 0].tolist() == [[-np.inf] * 2] * 2


def test_names_of_padding():
    x = np.arange(25.0).reshape(1, 1, 5, 5)
    for name, sides in (("SAME_UPPER", ((0, 1), (0, 1))), ("SAME_LOWER", ((1, 0), (1, 0))), ("VALID", 0)):
        for pool in (ops.avg_pool2d, ops.max_pool2d):
            assert_same_bits(pool(x, 2, 1, name), pool(x, 2, 1, sides))


def test_the_first_of_equals_gets_the_cotangent():
    x = np.array([[[[1.0, 7.0, 7.0], [7.0, 0.0, 7.0]]]])
    assert max_pool2d_grad(np.ones((1, 1, 1, 1)), x, (2, 3))[0, 0].tolist() == [[0, 1, 0], [0, 0, 0]]


@BOTH
def test_nan_is_larger_than_everything_and_the_first_one_gets_the_cotangent(dtype):
    x = np.array([[[[np.inf, 1.0, np.nan, np.nan]]]], dtype)
    assert np.isnan(ops.max_pool2d(x, (1, 4))).all()
    assert max_pool2d_grad(np.ones((1, 1, 1, 1), dtype), x, (1, 4)).ravel().tolist() == [0, 0, 1, 0]
    assert np.isnan(ops.avg_pool2d(x, (1, 2))).ravel().tolist() == [False, True]
    assert ops.avg_pool2d(x, (1, 2))[0, 0, 0, 0] == np.inf


@pytest.mark.parametrize("at", range(9))
def test_nan_propagates_wherever_it_is(at):
    x = np.arange(9.0)
    x[at] = np.nan
    assert np.isnan(ops.max_pool2d(x.reshape(1, 1, 3, 3), 3)).all()


@BOTH
def test_global_average_is_one_window_over_everything(dtype):
    x = multiples(np.random.default_rng(0), (3, 4, 2, 5), dtype)
    y = ops.global_avg_pool(x)
    assert y.shape == (3, 4)
    assert y.dtype == dtype
    assert (y == x.sum((2, 3)) / 10).all()
    (gx,) = grad(ops.global_avg_pool(t := Tensor(x)), [t], 10 * y)
    assert (gx == np.broadcast_to(y[:, :, None, None], x.shape)).all()


def test_float32_averages_are_summed_in_float64():
    """2^24 ones added to 2^24 one by one in float32 stay 2^24."""
    x = np.ones((1, 1, 4097, 4097), np.float32)
    assert ops.global_avg_pool(x)[0, 0] == 1


@pytest.mark.parametrize("exponent", [16, 33])
def test_windows_of_more_than_two_to_the_31_elements(exponent):
    """The count kh*kw is 2^32, then 2^66, more than an int64 holds."""
    k = 2**exponent
    x = np.full((1, 1, 1, 1), 3.0)
    window = k, k, k - 1
    assert ops.avg_pool2d(x, *window)[0, 0, 0, 0] == 3 / k**2
    assert avg_pool2d_grad(x, (1, 1, 1, 1), *window)[0, 0, 0, 0] == 3 / k**2
    assert ops.avg_pool2d(x, *window, count_include_pad=False)[0, 0, 0, 0] == 3
    assert ops.max_pool2d(x, *window)[0, 0, 0, 0] == 3


# Differentiation.

@pytest.mark.parametrize("window", [(2,), (3, 2, 1), ((2, 3), 1, ((0, 1), (2, 0)))])
def test_gradients_of_two_orders(window):
    x = np.random.default_rng(0).permutation(60).reshape(2, 1, 5, 6).astype(float)  # apart by 1, far more than the differences' step
    check_grads(lambda x: ops.square(ops.max_pool2d(x, *window)), [x])
    gy = np.random.default_rng(1).standard_normal(ops.max_pool2d(x, *window).shape)
    check_grads(lambda g: ops.square(max_pool2d_grad(g, x, *window)), [gy])
    check_grads(lambda v: ops.square(take_maxima(v, x, *window)), [gy[:1, :1, :1, :1] + x])
    for counted in (False, True):
        check_grads(lambda x, counted=counted: ops.square(ops.avg_pool2d(x, *window, count_include_pad=counted)), [x / 60])
        check_grads(lambda g, counted=counted: ops.square(avg_pool2d_grad(g, x.shape, *window, count_include_pad=counted)), [gy])
    check_grads(lambda x: ops.square(ops.global_avg_pool(x)), [x / 60])


@given(geometries(), st.integers(0, 2**32))
def test_bilinear_identity(case, seed):
    """<gy, pool(x)> = <pool_grad(gy), x>, on integers with ==."""
    shape, window = case
    rng = np.random.default_rng(seed)
    x = rng.integers(-9, 10, shape).astype(np.float64)
    y = ops.max_pool2d(x, *window)
    gy = rng.integers(-9, 10, y.shape).astype(np.float64)
    assert np.sum(gy * y) == np.sum(max_pool2d_grad(gy, x, *window) * x)
    count = float(np.prod(window[0]))
    averages, spread = ops.avg_pool2d(x, *window), avg_pool2d_grad(gy, shape, *window)
    assert np.sum(gy * np.round(averages * count)) == np.sum(np.round(spread * count) * x)


# PyTorch as a witness from outside (it allows symmetric padding up to half the kernel).

@BOTH
@pytest.mark.parametrize(("kernel_", "stride", "padding"), [(2, 2, 0), (3, 2, 1), (3, 1, 1), ((5, 2), (1, 3), (2, 1)), (4, 3, 2)])
def test_pytorch_agrees(kernel_, stride, padding, dtype):
    """Sums of small integers are exact, and the division is rounded once by each, or twice through float64: gamma_2 on both sides."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x = rng.integers(-9, 10, (2, 3, 9, 10)).astype(dtype)
    for counted in (False, True, None):
        tx = torch.tensor(x, requires_grad=True)
        if counted is None:
            y, ty = ops.max_pool2d(x, kernel_, stride, padding), torch.nn.functional.max_pool2d(tx, kernel_, stride, padding)
        else:
            y = ops.avg_pool2d(x, kernel_, stride, padding, counted)
            ty = torch.nn.functional.avg_pool2d(tx, kernel_, stride, padding, False, counted)
        assert_within(y, ty.detach().numpy(), 2 * relative_bound(2, y, dtype))
        gy = rng.integers(-9, 10, y.shape).astype(dtype)
        ty.backward(torch.tensor(gy))
        if counted is None:
            assert (max_pool2d_grad(gy, x, kernel_, stride, padding) == tx.grad.numpy()).all()
        else:
            got = avg_pool2d_grad(gy, x.shape, kernel_, stride, padding, counted)
            terms = int(np.prod(kernel_)) ** (1 if isinstance(kernel_, tuple) else 2) + 1
            size = avg_pool2d_grad(np.abs(gy), x.shape, kernel_, stride, padding, counted)
            assert_within(got, tx.grad.numpy(), 2 * relative_bound(terms, size, dtype))
