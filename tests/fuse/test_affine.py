"""Every constructor against the loop nest of its layer, and every map back as the arguments of an operation. Nothing rounds, so all is ==."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npreparam import ArgumentError, FusionError, ShapeError, fuse
from tests import naive
from tests.fuse.maps import SCALARS, evaluate, numbers

GEOMETRIES = [((1, 1), ((0, 0), (0, 0)), (1, 1)), ((2, 1), ((1, 2), (0, 1)), (1, 2)), ((3, 2), ((2, 0), (3, 3)), (2, 1))]
KERNELS = [(1, 1), (3, 3), (2, 3), (1, 5)]


@pytest.mark.parametrize("kind", SCALARS)
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("kernel", KERNELS)
def test_convolution_and_back(kernel, geometry, groups, kind):
    rng = np.random.default_rng(0)
    x, w, b = numbers(rng, 1, 2 * groups, 5, 9, kind=kind), numbers(rng, 3 * groups, 2, *kernel, kind=kind), numbers(rng, 3 * groups, kind=kind)
    expected = naive.conv2d(x, w, b, *geometry, groups)
    conv = fuse.from_conv(w, b, *geometry, groups)
    assert conv.output_size((5, 9)) == expected.shape[2:]
    assert (evaluate(conv, x) == expected).all()
    w, b, stride, padding, dilation, groups = fuse.to_conv2d(conv)
    assert (naive.conv2d(x, w, b, stride, padding, (dilation, dilation), groups) == expected).all()
    w[0, 0] += 1
    assert not (naive.conv2d(x, w, b, stride, padding, (dilation, dilation), groups) == expected).all()


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("stride", [(1, 1), (2, 1), (3, 2)])
@pytest.mark.parametrize("output_padding", [0, (1, 0)])
def test_transposed_convolution_and_back(groups, stride, output_padding):
    """A convolution's adjoint by its loop nest; of stride 1 it is a convolution."""
    rng = np.random.default_rng(0)
    if output_padding and stride[0] == 1:
        return
    more = output_padding or (0, 0)
    x, w, b = numbers(rng, 1, 2 * groups, 3, 4), numbers(rng, 2 * groups, 3, 3, 2), numbers(rng, 3 * groups)
    padding = ((1, 0), (0, 1))
    size = tuple((n - 1) * s - sum(p) + k + m for n, s, p, k, m in zip((3, 4), stride, padding, (3, 2), more, strict=True))
    expected = naive.conv2d_input_grad(x, w, (1, 3 * groups, *size), stride, padding, (1, 1), groups) + b.reshape(1, -1, 1, 1)
    conv = fuse.from_conv_transpose(w, b, stride, padding, output_padding, 1, groups)
    assert conv.transposed == (stride != (1, 1))
    assert conv.output_size((3, 4)) == size
    assert (evaluate(conv, x) == expected).all()
    if conv.transposed:
        v, c, s, p, m, d, g = fuse.to_conv_transpose2d(conv)
        assert (v == w).all()
        assert (s, p, m, d, g) == (stride, padding, more, 1, groups)
        assert (c == b).all()


@pytest.mark.parametrize("kind", SCALARS)
def test_layers_of_other_kinds(kind):
    rng = np.random.default_rng(0)
    x, scale, shift = numbers(rng, 2, 4, 5, 6, kind=kind), numbers(rng, 4, kind=kind), numbers(rng, 4, kind=kind)
    assert (evaluate(fuse.pointwise(scale, shift).lifted(2), x) == naive.scale_shift(x, scale, shift)).all()
    assert (evaluate(fuse.identity(4).lifted(2), x) == x).all()
    assert (evaluate(fuse.pad(4, ((1, 2), (0, 3))).padded_with(shift), x) == naive.pad(x, ((1, 2), (0, 3)), shift)).all()
    assert (evaluate(fuse.select(4, [2, 0]).lifted(2), x) == x[:, [2, 0]]).all()
    assert (evaluate(fuse.shuffle(4, 2).lifted(2), x) == x[:, [0, 2, 1, 3]]).all()
    w, b = numbers(rng, 3, 4, kind=kind), numbers(rng, 3, kind=kind)
    assert (evaluate(fuse.linear(w, b), x[:, :, 0, 0]) == naive.linear(x[:, :, 0, 0], w, b)).all()
    sobel = np.array([[1, 0, -1], [2, 0, -2], [1, 0, -1]])
    expected = naive.conv2d(x, np.broadcast_to(sobel, (4, 1, 3, 3)), None, (1, 1), ((1, 1), (1, 1)), (1, 1), 4)
    assert (evaluate(fuse.filters(sobel, 4, padding=1), x) == expected).all()


@pytest.mark.parametrize("stride", [None, 2])
def test_average_pooling_counts_its_padding(stride):
    x = numbers(np.random.default_rng(0), 1, 2, 5, 6, kind="Fraction")
    padding = ((1, 1), (0, 1))
    expected = naive.avg_pool2d(x, (3, 2), (3, 2) if stride is None else (2, 2), padding, True)
    assert (evaluate(fuse.average_pool(2, (3, 2), stride, padding, exact=True), x) == expected).all()


def test_one_axis_by_the_same_code():
    """A signal is an image of height 1."""
    rng = np.random.default_rng(0)
    x, w = numbers(rng, 1, 2, 9), numbers(rng, 3, 2, 4)
    expected = naive.conv2d(x[:, :, None], w[:, :, None], None, (1, 2), ((0, 0), (3, 0)), (1, 2), 1)[:, :, 0]
    assert (evaluate(fuse.from_conv(w, None, 2, ((3, 0),), 2), x) == expected).all()


@given(st.integers(0, 2**32), st.tuples(st.integers(1, 4), st.integers(1, 4)), st.integers(-2, 3), st.integers(-2, 3), st.integers(1, 3))
def test_crops_and_paddings_become_kernels(seed, kernel, before, after, stride):
    """Negative padding crops; the smallest kernel of the operation, which cannot crop, has zero taps there instead."""
    rng = np.random.default_rng(seed)
    x, w = numbers(rng, 1, 1, 9, 9), numbers(rng, 1, 1, *kernel)
    conv = fuse.from_conv(w, None, stride, ((before, after), (0, 0)))
    expected = evaluate(conv, x)
    cut = x[:, :, max(0, -before):9 - max(0, -after)]
    sides = ((max(0, before), max(0, after)), (0, 0))
    assert (naive.conv2d(cut, w, None, (stride, stride), sides, (1, 1), 1) == expected).all()
    v, b, strides, padding, _, _ = fuse.to_conv2d(conv)
    assert min(min(side) for side in padding) >= 0
    assert v.shape[2] <= kernel[0] + max(0, -before) + max(0, -after)
    assert (naive.conv2d(x, v, b, strides, padding, (1, 1), 1) == expected).all()


def test_dilated_kernels_become_dense_and_small_ones_centred():
    w = np.arange(1.0, 10).reshape(1, 1, 3, 3)
    dense = fuse.to_conv2d(fuse.from_conv(w, None, 1, 2, 2))[0]
    expected = np.zeros((1, 1, 5, 5))
    expected[:, :, ::2, ::2] = w
    assert (dense == expected).all()
    v, _, _, padding, _, _ = fuse.to_conv2d(fuse.from_conv(w, None, 1, 1), kernel=(7, 7))
    assert (v[:, :, 2:5, 2:5] == w).all()
    assert padding == ((3, 3), (3, 3))
    assert v.sum() == w.sum()


def test_zero_taps_are_left_out():
    w = np.zeros((1, 1, 5, 5))
    w[0, 0, 2, 1:4] = 1
    v, _, _, padding, _, _ = fuse.to_conv2d(fuse.from_conv(w, None, 1, 2))
    assert v.shape == (1, 1, 1, 3)
    assert padding == ((0, 0), (1, 1))


def test_numbers_keep_their_scalars():
    third = np.full((1, 1), Fraction(1, 3), object)
    assert fuse.linear(third).blocks[0, 0, 0] == Fraction(1, 3)
    assert fuse.linear(np.ones((1, 1), np.float32)).blocks.dtype == np.float64


W = np.ones((4, 2, 3, 3))
BAD = {
    "no axes": (lambda: fuse.from_conv(np.ones(3)), ShapeError, r"`w` has shape \(3,\)"),
    "empty kernel": (lambda: fuse.from_conv(np.ones((1, 1, 0))), ShapeError, "a positive length for each axis"),
    "groups": (lambda: fuse.from_conv(W, groups=3), ShapeError, r"`out_channels` \(=4, axis 0 of `w`\) must be divisible by `groups` \(=3\)"),
    "bias": (lambda: fuse.from_conv(W, np.ones(3)), ShapeError, r"`b` has shape \(3,\), but must have shape \(4,\)"),
    "stride": (lambda: fuse.from_conv(W, stride=0), ArgumentError, r"`stride` \(=0\) must be positive"),
    "padding of 3 axes": (lambda: fuse.from_conv(W, padding=(1, 1, 1)), ArgumentError, r"`padding` .* one entry for each of the 2 axes"),
    "constant": (lambda: fuse.identity(2).padded_with(np.ones(3)), ShapeError, r"`constant` has shape \(3,\)"),
    "channel": (lambda: fuse.select(2, [2]), ArgumentError, r"`chosen` \(=\[2\]\) must name"),
    "no channel": (lambda: fuse.select(2, []), ArgumentError, r"`chosen` \(=\[\]\) must name at least one"),
    "shuffle": (lambda: fuse.shuffle(3, 2), ShapeError, r"`channels` \(=3\) must be divisible by `groups` \(=2\)"),
    "axes": (lambda: fuse.from_conv(W).lifted(1), ShapeError, "a map over 2 axes cannot act on 1"),
    "a tap outside": (lambda: fuse.to_conv2d(fuse.from_conv(W, None, 1, 3, 3), kernel=(5, 5)), FusionError,
                      r"its taps span 7 elements of the height, more than the 5 of `kernel` .*; use a kernel that large; taps are never cropped"),
    "transposed": (lambda: fuse.to_conv2d(fuse.from_conv_transpose(W, stride=2)), FusionError, "it is a transposed convolution"),
    "not transposed": (lambda: fuse.to_conv_transpose2d(fuse.from_conv(W)), FusionError, "it is no transposed convolution"),
    "longer than the taps reach": (lambda: fuse.to_conv_transpose2d(fuse.from_conv_transpose(W, stride=2, output_padding=2)), FusionError,
                                   "longer by .* an output padding must be smaller than the stride"),
    "constant padding": (lambda: fuse.to_conv2d(fuse.pad(1, 1).padded_with(np.ones(1))), FusionError, "pads with a constant other than 0"),
}


@pytest.mark.parametrize("row", BAD)
def test_refusals(row):
    make, kind, message = BAD[row]
    with pytest.raises(kind, match=message):
        make()
