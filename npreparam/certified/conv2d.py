"""Convolution and its gradients, correctly rounded at the speed of arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npreparam import kernels
from npreparam._shapes import Padding, Pair, Size2, Window
from npreparam.certified._inputs import check_terms, one_format, quiet, result_format, widened, widened_into
from npreparam.certified._products import Sum, settle
from npreparam.certified._record import Certified
from npreparam.kernels._scratch import scratch
from npreparam.ops._geometry import NCHW, forward_window, input_grad_window, transposed_window, weight_grad_window
from npreparam.ops._validate import check_rank, check_shape

Array = NDArray[Any]
PART, PASSES = 8 * 2**20, 2  # bytes of images, at least, and in sizes of the weights, that are taken at once


@quiet
def conv2d(x: Array, w: Array, b: Array | None = None, stride: Size2 = 1, padding: Padding = 0, dilation: Size2 = 1, groups: int = 1,
           out_dtype: Any = "same") -> Certified:
    """The correctly rounded convolution: the same numbers as `exact.conv2d`, at the speed of arrays.

    y[n, o, r, c] = b[o] + sum over (i, kh, kw) of w[o, i, kh, kw] * x[n, g*I + i, r*s + kh*d - top, c*s + kw*d - left]

    x NCHW, w OIHW, b (O,), all float16, bfloat16, float32 or float64; `value` has their dtype, or `out_dtype`, one of these four.
    `repaired` counts the elements that were summed a second time.

    Rounding: once, to nearest, ties to even, whatever the order, threads, batch or machine; exact zeros are +0; infinities and NaN as IEEE
    754 has them, from the taps inside the image alone.

    Raises as `ops.conv2d`, and ArgumentError beyond 2^28 terms.

    Source: see `certified._products`.

    >>> conv2d(np.float32([[[[1, 2**-25]]]]), np.float32([[[[1, 1]]]])).value    # 1 + 2^-25 rounds to 1
    array([[[[1.]]]], dtype=float32)
    """
    dtype = result_format(out_dtype, one_format(x=x, w=w, b=b, optional=("b",)))
    window = forward_window(x, w, b, (stride, padding, dilation, groups))
    check_terms(math.prod(w.shape[1:]))
    y = np.empty((len(x), len(w), *window.output_size((x.shape[2], x.shape[3]))), dtype)
    parts, (b,) = _image_parts(x, w, y), widened(b)
    with scratch(np.dtype(np.float64), certified_x=x[parts[-1]].size, certified_w=w.size) as (memory_x, memory_w):
        w = widened_into(memory_w, w)
        norms = row_norms(w)
        return Certified(y, sum(forward(widened_into(memory_x, x[part]), w, b, window, norms, y[part]).repaired for part in parts))


def _image_parts(x: Array, w: Array, y: Array) -> list[slice]:
    """Which images to take together, the largest part last: candidates are tested while they are in a cache, and no fresh memory is touched.

    Their float64 copies, or candidates, have PART bytes, or PASSES times those of the weights, which are packed for each part again.
    """
    image = max(1, math.prod(x.shape[1:]), math.prod(y.shape[1:]))
    parts = max(1, -(-len(x) // max(1, max(PART, 8 * PASSES * w.size) // (8 * image))))
    return [slice(len(x) * i // parts, len(x) * (i + 1) // parts) for i in range(parts)]


def row_norms(w: Array) -> tuple[Callable[[], Array], Callable[[], Array]]:
    """`Sum.along` and `Sum.walk` for the rows of float64 weights."""
    rows = w.reshape(len(w), math.prod(w.shape[1:]))
    return cache(lambda: np.sqrt(kernels.certify.squares_of_rows(rows))), cache(lambda: kernels.certify.prefix_norms_of_rows(rows))


def forward(x: Array, w: Array, b: Array | None, window: Window, norms: tuple[Callable[[], Array], Callable[[], Array]], y: Array) -> Certified:
    """`conv2d` of float64 arrays in C order, with the `row_norms` of w, written to y."""
    n, outputs, *out = y.shape
    terms = math.prod(w.shape[1:])
    squares = _squares_by_group(x, window.groups)
    across = kernels.conv2d.forward_sums(squares, _ones(window), None, window)
    problem = Sum(
        candidate=lambda pair: _planes(kernels.conv2d.forward_sums(x, w, b, window, pair=pair), pair),
        terms=terms, depth=terms,
        across=np.sqrt(across).reshape(n, window.groups, math.prod(out)),
        along=norms[0], walk=norms[1],
        start=np.zeros(outputs) if b is None else b,
        repair=lambda indices, start, target: kernels.certify.repair(
            kernels.certify.FORWARD, indices, w, x, start, kernels.certify.sizes_of(x.shape, w.shape, window), target, terms),
        operands=(x, w), out=y)
    return settle(problem, y.shape, y.dtype)


@quiet
def conv2d_input_grad(gy: Array, w: Array, input_shape: Sequence[int], stride: Size2 = 1, padding: Padding = 0, dilation: Size2 = 1,
                      groups: int = 1, out_dtype: Any = "same") -> Certified:
    """The correctly rounded gradient of a convolution with respect to its input.

    gx[n, g*I + i, r*s + kh*d - top, c*s + kw*d - left] += w[o, i, kh, kw] * gy[n, o, r, c]   for all (n, o, i, kh, kw, r, c)

    gy is (N, O, output height, output width), w OIHW, `input_shape` the shape of x; all else as in `conv2d`.

    Raises as `ops.conv2d_input_grad`, and ArgumentError beyond 2^28 terms.

    >>> conv2d_input_grad(np.ones((1, 1, 1, 2)), np.ones((1, 1, 1, 2)), (1, 1, 1, 3)).value
    array([[[[1., 2., 1.]]]])
    """
    dtype = result_format(out_dtype, one_format(gy=gy, w=w))
    window, size = input_grad_window(gy, w, input_shape, (stride, padding, dilation, groups))
    check_terms(w.size // max(1, w.shape[1] * window.groups))
    return _input_grad(*widened(gy, w), None, size, window, dtype)


def _input_grad(gy: Array, w: Array, b: Array | None, size: Pair, window: Window, dtype: np.dtype[Any]) -> Certified:
    groups, (outputs, inputs, *kernel) = window.groups, w.shape
    terms, channels = outputs // groups * math.prod(kernel), inputs * groups
    squares = _squares_by_group(gy, groups)
    across = kernels.conv2d.input_grad_sums(squares, _ones(window), None, size, window)
    by_input = np.ascontiguousarray(w.reshape(groups, outputs // groups, inputs, math.prod(kernel)).swapaxes(1, 2)).reshape(channels, terms)
    shape = (len(gy), channels, *size)
    problem = Sum(
        candidate=lambda pair: _planes(kernels.conv2d.input_grad_sums(gy, w, b, size, window, pair), pair),
        terms=terms, depth=terms,
        across=np.sqrt(across).reshape(len(gy), groups, math.prod(size)),
        along=lambda: np.sqrt(kernels.certify.squares_of_rows(by_input)),
        walk=lambda: kernels.certify.prefix_norms_of_rows(by_input),
        start=np.zeros(channels) if b is None else b,
        repair=lambda indices, start, target: kernels.certify.repair(
            kernels.certify.INPUT_GRAD, indices, w, gy, start, kernels.certify.sizes_of(shape, w.shape, window), target, terms),
        operands=(gy, w))
    return settle(problem, shape, dtype)


@quiet
def conv_transpose2d(x: Array, w: Array, b: Array | None = None, stride: Size2 = 1, padding: Padding = 0, output_padding: Size2 = 0,
                     dilation: Size2 = 1, groups: int = 1, out_dtype: Any = "same") -> Certified:
    """The correctly rounded transposed convolution: `conv2d_input_grad` of x plus a bias, in one rounding.

    x is (N, I, H, W), w (I, O/groups, kh, kw), b (O,); `padding` must be numbers, `output_padding` smaller than the stride; all else as in
    `conv2d`.

    Raises as `ops.conv_transpose2d`, and ArgumentError beyond 2^28 terms.

    >>> conv_transpose2d(np.ones((1, 1, 1, 2)), np.ones((1, 1, 1, 1)), np.array([2.0]), stride=(1, 2)).value
    array([[[[3., 2., 3.]]]])
    """
    dtype = result_format(out_dtype, one_format(x=x, w=w, b=b, optional=("b",)))
    check_rank(x, "x", 4, NCHW)
    check_rank(w, "w", 4, "(input channels, output channels / groups, kernel height, kernel width)")
    window, size = transposed_window(x.shape, w.shape, (stride, padding, dilation, groups), output_padding)
    channels = w.shape[1] * window.groups
    if b is not None:
        check_shape(b, "b", (channels,), "one value for each output channel")
    input_grad_window(x, w, (len(x), channels, *size), (stride, padding, dilation, groups))
    check_terms(w.size // max(1, channels))
    return _input_grad(*widened(x, w, b), size, window, dtype)


@quiet
def conv2d_weight_grad(gy: Array, x: Array, weight_shape: Sequence[int], stride: Size2 = 1, padding: Padding = 0, dilation: Size2 = 1,
                       groups: int = 1, out_dtype: Any = "same") -> Certified:
    """The correctly rounded gradient of a convolution with respect to its weights.

    gw[o, i, kh, kw] = sum over (n, r, c) of gy[n, o, r, c] * x[n, g*I + i, r*s + kh*d - top, c*s + kw*d - left]

    gy is (N, O, output height, output width), x NCHW, `weight_shape` OIHW; all else as in `conv2d`.

    Raises as `ops.conv2d_weight_grad`, and ArgumentError beyond 2^28 terms.

    >>> conv2d_weight_grad(np.ones((1, 1, 1, 2)), np.ones((1, 1, 1, 3)), (1, 1, 1, 2)).value
    array([[[[2., 2.]]]])
    """
    dtype = result_format(out_dtype, one_format(gy=gy, x=x))
    window = weight_grad_window(gy, x, weight_shape, (stride, padding, dilation, groups))
    check_terms(gy.size // max(1, gy.shape[1]))
    return _weight_grad(*widened(gy, x), window, dtype)


def _weight_grad(gy: Array, x: Array, window: Window, dtype: np.dtype[Any]) -> Certified:
    n, outputs, pixels = len(x), gy.shape[1], math.prod(gy.shape[2:])
    inputs, taps = x.shape[1] // window.groups, math.prod(window.kernel)
    shape = (outputs, inputs, *window.kernel)
    norms = np.sqrt(_squares_by_channel(x)).reshape(1, window.groups, inputs)

    def along() -> Array:
        return np.sqrt(_squares_by_channel(gy))

    problem = Sum(
        candidate=lambda pair: _planes(kernels.conv2d.weight_grad_sums(gy, x, window, pair=pair)[(slice(None), None) if pair else None], pair),
        terms=n * pixels, depth=kernels.conv2d.weight_grad_depth(n, pixels),
        across=np.repeat(norms, taps, axis=2), along=along, walk=along,
        start=np.zeros(outputs),
        repair=lambda indices, start, target: kernels.certify.repair(
            kernels.certify.WEIGHT_GRAD, indices, gy, x, start, kernels.certify.sizes_of(x.shape, shape, window), target, n * pixels),
        operands=(gy, x))
    return settle(problem, shape, dtype)


def _planes(y: Array, pair: bool) -> Array:
    """(N, O, P), or pairs (2, N, O, P), from all axes of the result."""
    kept = 3 if pair else 2
    return y.reshape(*y.shape[:kept], math.prod(y.shape[kept:]))


def _squares_by_group(x: Array, groups: int) -> Array:
    """(N, G, H, W): squares summed over the channels of a group."""
    n, channels, *size = x.shape
    return kernels.certify.squares_over_channels(x.reshape(n * groups, channels // groups, math.prod(size))).reshape(n, groups, *size)


def _squares_by_channel(x: Array) -> Array:
    """(C,): squares summed over all images and pixels."""
    n, channels, *size = x.shape
    return kernels.certify.squares_of_rows(x.reshape(n * channels, math.prod(size))).reshape(n, channels).sum(axis=0)


def _ones(window: Window) -> Array:
    return np.ones((window.groups, 1, *window.kernel))
