"""Convolution of what users also pass: wrong shapes and dtypes, infinities at the padding, strides far beyond the kernel."""

import numpy as np
import pytest

from npreparam import ArgumentError, DTypeError, ShapeError, Window, ops
from npreparam.kernels import _plain
from tests import naive
from tests.ops.test_conv2d import assert_equal, integers
from tests.tolerances import assert_same_bits


def nothing(*shape, dtype=np.float64):
    return np.zeros(shape, dtype)


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda: ops.conv2d(nothing(2, 3, 4), nothing(1, 1, 1, 1)), ShapeError, r"`x` has shape \(2, 3, 4\), but must have 4 axes"),
    (lambda: ops.conv2d(nothing(1, 5, 4, 4), nothing(4, 2, 1, 1), groups=2), ShapeError, r"`in_channels` \(=5.*divisible by `groups` \(=2\)"),
    (lambda: ops.conv2d(nothing(1, 4, 4, 4), nothing(5, 2, 1, 1), groups=2), ShapeError, r"`out_channels` \(=5.*divisible by `groups` \(=2\)"),
    (lambda: ops.conv2d(nothing(1, 4, 4, 4), nothing(2, 3, 1, 1)), ShapeError, r"`in_channels` \(=4.*axis 1 of `w` \(=3\)"),
    (lambda: ops.conv2d(nothing(1, 1, 4, 4), nothing(2, 1, 1, 1), nothing(3)), ShapeError, r"`b` has shape \(3,\), but must have shape \(2,\)"),
    (lambda: ops.conv2d(nothing(1, 1, 2, 4), nothing(1, 1, 3, 3)), ShapeError, r"no window fits: `height` \(=2\)"),
    (lambda: ops.conv2d(nothing(1, 1, 4, 4), nothing(1, 1, 0, 3)), ArgumentError, r"`kernel` \(=0\) must be positive"),
    (lambda: ops.conv2d(nothing(1, 1, 4, 4), nothing(1, 1, 3, 3), stride=0), ArgumentError, r"`stride` \(=0\) must be positive"),
    (lambda: ops.conv2d(nothing(1, 1, 4, 4), nothing(1, 1, 3, 3), padding=-1), ArgumentError, r"`padding` \(=-1\) must not be negative"),
    (lambda: ops.conv2d(nothing(1, 1, 4, 4), nothing(1, 1, 3, 3), dilation=-1), ArgumentError, r"`dilation` \(=-1\) must be positive"),
    (lambda: ops.conv2d(nothing(1, 1, 4, 4, dtype=np.float32), nothing(1, 1, 3, 3)), DTypeError, "`x` float32, `w` float64; convert with .astype"),
    (lambda: ops.conv2d(nothing(1, 1, 4, 4, dtype=int), nothing(1, 1, 3, 3)), DTypeError, "`x` has dtype int64, but only float32 and float64"),
    (lambda: ops.conv2d(nothing(1, 1, 4, 4, dtype=complex), nothing(1, 1, 3, 3)), DTypeError, "`x` has dtype complex128"),
    (lambda: ops.conv2d(nothing(1, 1, 4, 4, dtype=object), nothing(1, 1, 3, 3)), DTypeError, "`x` has dtype object"),
    (lambda: ops.conv2d(nothing(1, 1, 4, 4, dtype=np.float16), nothing(1, 1, 3, 3)), DTypeError, "`x` has dtype float16"),
    (lambda: ops.conv2d([[[[1.0]]]], nothing(1, 1, 1, 1)), DTypeError, r"`x` \(a list\) must be a NumPy array"),
    (lambda: ops.conv2d_input_grad(nothing(1, 1, 2, 2), nothing(1, 1, 2, 2), (1, 1, 4, 4)), ShapeError, r"must have shape \(1, 1, 3, 3\)"),
    (lambda: ops.conv2d_input_grad(nothing(1, 1, 2, 2), nothing(1, 1, 2, 2), (1, 4, 4)), ShapeError, "must have 4 entries"),
    (lambda: ops.conv2d_weight_grad(nothing(2, 1, 3, 3), nothing(1, 1, 4, 4), (1, 1, 2, 2)), ShapeError, r"must have shape \(1, 1, 3, 3\)"),
    (lambda: ops.conv2d(None, nothing(1, 1, 1, 1)), DTypeError, r"`x` is None, but is required"),
    (lambda: ops.conv2d(nothing(1, 1, 4, 4), None), DTypeError, r"`w` is None, but is required"),
    (lambda: ops.conv2d(nothing(1, 1, 4, 4), nothing(1, 1, 3, 3), dilation=2**60), ArgumentError, "`dilation` leads to a length of"),
    (lambda: ops.conv2d(nothing(1, 1, 4, 4), nothing(1, 1, 3, 3), padding=2**30), ArgumentError, "which no memory holds"),
    (lambda: ops.conv2d_input_grad(nothing(1, 1, 2, 2), nothing(1, 1, 2, 2), 5), ShapeError, r"`input_shape` \(=5\) must have 4 entries"),
    (lambda: ops.conv_transpose2d(nothing(1, 1, 3, 3), nothing(1, 1, 1, 1), [1.0]), DTypeError, r"`b` \(a list\) must be a NumPy array"),
    (lambda: ops.conv_transpose2d(nothing(1, 2, 3, 3), nothing(3, 1, 1, 1)), ShapeError, r"`in_channels` \(=2.*axis 0 of `w` \(=3\)"),
    (lambda: ops.conv_transpose2d(nothing(1, 1, 3, 3), nothing(1, 1, 1, 1), output_padding=1), ArgumentError, "smaller than `stride`"),
    (lambda: ops.conv_transpose2d(nothing(1, 1, 3, 3), nothing(1, 1, 1, 1), padding="VALID"), ArgumentError, "must be numbers"),
])
def test_bad_calls(call, error, message):
    with pytest.raises(error, match=message):
        call()


SPECIALS = [np.inf, -np.inf, np.nan]


@pytest.mark.interpreted
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("at", [(0, 0), (0, 2), (1, 1), (2, 0), (2, 2)])
@pytest.mark.parametrize("geometry", [((1, 1), ((1, 1), (1, 1)), (1, 1), 1), ((2, 2), ((2, 0), (0, 3)), (1, 1), 1),
                                      ((1, 3), ((0, 2), (2, 2)), (2, 1), 1), ((3, 1), ((0, 0), (0, 0)), (1, 2), 1)])
def test_infinite_factors_do_not_meet_the_padding(geometry, at, dtype):
    """The definition has no term outside the image: 0*inf there would turn the whole border into NaN."""
    rng = np.random.default_rng(5)
    for special in SPECIALS:
        x, w = integers(rng, (2, 2, 7, 8), dtype), integers(rng, (2, 2, 3, 3), dtype)
        w[1, 0][at] = special
        with np.errstate(invalid="ignore"):
            check_specials(x, w, rng, special, at, geometry)


def check_specials(x, w, rng, special, at, geometry):
    y = naive.conv2d(x, w, None, *geometry)
    assert_equal(ops.conv2d(x, w, None, *geometry), y)
    assert_equal(ops.conv2d_relu(x, w, None, *geometry), np.maximum(y, 0))
    gy = integers(rng, y.shape, x.dtype)
    assert_equal(ops.conv2d_input_grad(gy, w, x.shape, *geometry), naive.conv2d_input_grad(gy, w, x.shape, *geometry))
    gy[1, 0].flat[at[0] * (gy[1, 0].size - 1) // 2] = special
    assert_equal(ops.conv2d_weight_grad(gy, x, w.shape, *geometry), naive.conv2d_weight_grad(gy, x, w.shape, *geometry))


def test_the_plain_route_gives_the_bits_of_the_fast_one():
    rng = np.random.default_rng(6)
    for groups in (1, 2):
        x, w = rng.standard_normal((2, 4, 19, 21)).astype(np.float32), rng.standard_normal((6, 4 // groups, 3, 2)).astype(np.float32)
        geometry = ((2, 1), ((1, 0), (1, 2)), (1, 2), groups)
        window, b = Window.of((3, 2), *geometry), rng.standard_normal(6).astype(np.float32)
        y = ops.conv2d(x, w, b, *geometry)
        got = np.empty_like(y)
        _plain.conv2d(x, w, b, window, False, got)
        assert_same_bits(got, y)
        gx, gw = np.empty_like(x), np.empty_like(w)
        _plain.conv2d_input_grad(y, w, window, gx)
        _plain.conv2d_weight_grad(y, x, window, gw)
        assert_same_bits(gx, ops.conv2d_input_grad(y, w, x.shape, *geometry))
        assert_same_bits(gw, ops.conv2d_weight_grad(y, x, w.shape, *geometry))


def test_strides_far_beyond_the_kernel_cost_no_more_than_the_taps():
    """A stride of s has s*s phases, of which only those that meet a tap are worked on."""
    x, w = np.ones((1, 2, 1, 3_000_001)), np.array([[[[2.0, 3.0]], [[5.0, 7.0]]]])
    gx = ops.conv2d_input_grad(np.ones((1, 1, 1, 3)), w, x.shape, stride=(10**6, 10**6))
    assert gx.sum() == 3 * 17
    assert gx[0, 1, 0, 10**6] == 5
