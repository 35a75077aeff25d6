"""Average, max and global pooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from npreparam import kernels
from npreparam._errors import ShapeError
from npreparam._shapes import Padding, Size2, Window, as_int
from npreparam.ops._primitive import gradient, primitive
from npreparam.ops._validate import Array, as_array, check_rank, check_shape, same_dtype, shape_of
from npreparam.ops.shape import reshape

NCHW = "(batch, channels, height, width)"


def _window(shape: Sequence[int], kernel: Size2, stride: Size2 | None, padding: Padding) -> Window:
    window = Window.of(kernel, kernel if stride is None else stride, padding, size=(shape[2], shape[3]))
    for sides, length in zip(window.padding, window.kernel, strict=True):
        if max(sides) >= length:
            raise ShapeError(f"`padding` (={padding!r}) must be smaller than `kernel` (={kernel!r}) on every side, "
                             "so that no window lies wholly in the padding")
    if 0 in shape[2:]:
        raise ShapeError(f"the input has shape {tuple(shape)}: there is nothing to pool; `height` and `width` must be positive")
    window.checked_output_size((shape[2], shape[3]))
    return window


@primitive
def avg_pool2d(x: Array, kernel: Size2, stride: Size2 | None = None, padding: Padding = 0, count_include_pad: bool = True) -> Array:
    """Mean of the elements under each window.

    y[n, c, r, q] = sum over (i, j) of x[n, c, r*s + i - top, q*s + j - left] / count

    with count = kh*kw, or without `count_include_pad` the number of elements that are not padding. Padding must be smaller than the
    kernel on every side, so every window holds an element and the count is never 0. `stride` None means the kernel. x is NCHW, float32
    or float64; a batch of 0 gives an empty result.

    Rounding: summed in float64 in row-major order, divided and rounded to the dtype.

    Raises ShapeError (rank, empty image, no window fits, padding not smaller than the kernel), ArgumentError, DTypeError.

    Source: ONNX operator AveragePool.

    >>> avg_pool2d(np.arange(4.0).reshape(1, 1, 2, 2), 2)
    array([[[[1.5]]]])
    """
    x = as_array(x, "x")
    check_rank(x, "x", 4, NCHW)
    return kernels.pool.average(x, _window(x.shape, kernel, stride, padding), bool(count_include_pad))


@primitive
def avg_pool2d_grad(gy: Array, input_shape: Sequence[int], kernel: Size2, stride: Size2 | None = None, padding: Padding = 0,
                    count_include_pad: bool = True) -> Array:
    """The adjoint of `avg_pool2d`: every cotangent divided evenly among the elements under its window.

    gx[n, c, r*s + i - top, q*s + j - left] += gy[n, c, r, q] / count   over all r, q, i, j, padding left out

    Rounding: divided in float64; an element under k windows is rounded k times, and |error| <= (k+1)*u*sum|gy|/count.

    >>> avg_pool2d_grad(np.ones((1, 1, 1, 1)), (1, 1, 2, 2), 2)
    array([[[[0.25, 0.25],
             [0.25, 0.25]]]])
    """
    gy, shape = as_array(gy, "gy"), tuple(as_int(length, "input_shape", 0) for length in input_shape)
    if len(shape) != 4:
        raise ShapeError(f"`input_shape` (={input_shape!r}) must hold 4 lengths: {NCHW}")
    window = _window(shape, kernel, stride, padding)
    check_shape(gy, "gy", (*shape[:2], *window.output_size(shape[2:])), "the output shape of the pooling")
    return kernels.pool.spread(gy, shape, window, bool(count_include_pad))


gradient(avg_pool2d, "x", lambda g, y, a: avg_pool2d_grad(g, a.x.shape, a.kernel, a.stride, a.padding, a.count_include_pad))
gradient(avg_pool2d_grad, "gy", lambda g, y, a: avg_pool2d(g, a.kernel, a.stride, a.padding, a.count_include_pad))


@primitive
def max_pool2d(x: Array, kernel: Size2, stride: Size2 | None = None, padding: Padding = 0) -> Array:
    """Largest element under each window; padding counts as -infinity, a NaN is larger than everything.

    y[n, c, r, q] = max over (i, j) of x[n, c, r*s + i - top, q*s + j - left]

    The cotangent goes to the first of equal elements in row-major order, or to the first NaN. `stride` None means the kernel. x is NCHW,
    float32 or float64.

    Rounding: none. Raises as `avg_pool2d`.

    Source: ONNX operator MaxPool.

    >>> max_pool2d(np.arange(4.0).reshape(1, 1, 2, 2), 2)
    array([[[[3.]]]])
    """
    x = as_array(x, "x")
    check_rank(x, "x", 4, NCHW)
    return kernels.pool.take(x, kernels.pool.maxima(x, _window(x.shape, kernel, stride, padding)))


@primitive
def max_pool2d_grad(gy: Array, x: Any, kernel: Size2, stride: Size2 | None = None, padding: Padding = 0) -> Array:
    """The cotangent of `max_pool2d`: each element of gy added where x had the largest element under its window.

    >>> max_pool2d_grad(np.ones((1, 1, 1, 1)), np.arange(4.0).reshape(1, 1, 2, 2), 2)
    array([[[[0., 0.],
             [0., 1.]]]])
    """
    gy, x = same_dtype(gy=gy, x=x)
    check_rank(x, "x", 4, NCHW)
    places = kernels.pool.maxima(x, _window(x.shape, kernel, stride, padding))
    check_shape(gy, "gy", places.shape, "the output shape of the pooling")
    return kernels.pool.put(gy, places, x.shape)


@primitive
def take_maxima(x: Array, chosen_by: Any, kernel: Size2, stride: Size2 | None = None, padding: Padding = 0) -> Array:
    """x wherever `chosen_by`, of the same shape, has the largest element under each window: the adjoint of `max_pool2d_grad`.

    >>> take_maxima(np.array([[[[5.0, 6.0]]]]), np.array([[[[2.0, 1.0]]]]), (1, 2))
    array([[[[5.]]]])
    """
    x, chosen_by = same_dtype(x=x, chosen_by=chosen_by)
    check_rank(x, "x", 4, NCHW)
    check_shape(chosen_by, "chosen_by", x.shape, "that of `x`")
    return kernels.pool.take(x, kernels.pool.maxima(chosen_by, _window(x.shape, kernel, stride, padding)))


def _array(value: Any) -> Array:
    """The array behind a choice of maxima, which is piecewise constant and so has no gradient."""
    return value if isinstance(value, np.ndarray) else value.value


gradient(max_pool2d, "x", lambda g, y, a: max_pool2d_grad(g, _array(a.x), a.kernel, a.stride, a.padding))
gradient(max_pool2d_grad, "gy", lambda g, y, a: take_maxima(g, a.x, a.kernel, a.stride, a.padding))
gradient(take_maxima, "x", lambda g, y, a: max_pool2d_grad(g, a.chosen_by, a.kernel, a.stride, a.padding))


def global_avg_pool(x: Array) -> Array:
    """Mean of each channel over its whole plane: (N, C).

    y[n, c] = sum over (i, j) of x[n, c, i, j] / (H*W)

    Rounding and errors: as `avg_pool2d` with one window over everything.

    >>> global_avg_pool(np.arange(4.0).reshape(1, 1, 2, 2))
    array([[1.5]])
    """
    n, channels, height, width = shape_of(x, "x", 4, NCHW)
    if 0 in (height, width):
        raise ShapeError(f"`x` has shape {x.shape}: there is nothing to average; `height` and `width` must be positive")
    return reshape(avg_pool2d(x, (height, width)), (n, channels))
