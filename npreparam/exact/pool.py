"""Average, max and global pooling as their definitions say, over rational numbers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from npreparam._errors import ShapeError
from npreparam._shapes import Padding, Size2, Window
from npreparam.exact.rounding import Array, finish, operand
from npreparam.exact.special import order


def checked_window(shape: tuple[int, ...], kernel: Size2, stride: Size2 | None, padding: Padding) -> tuple[Window, tuple[int, ...]]:
    """(geometry, shape of the results) of a pooling over arrays of this shape."""
    if len(shape) != 4:
        raise ShapeError(f"`x` has shape {shape}, but must have 4 axes: (batch, channels, height, width)")
    images, channels, height, width = shape
    window = Window.of(kernel, kernel if stride is None else stride, padding, size=(height, width))
    if any(max(sides) >= length for sides, length in zip(window.padding, window.kernel, strict=True)):
        raise ShapeError(f"`padding` (={padding!r}) must be smaller than `kernel` (={kernel!r}) on every side, "
                         "so that no window lies wholly in the padding")
    if 0 in (height, width):
        raise ShapeError(f"`x` has shape {shape}: there is nothing to pool; `height` and `width` must be positive")
    return window, (images, channels, *window.checked_output_size((height, width)))


def _windows(x: Array, kernel: Size2, stride: Size2 | None, padding: Padding) -> tuple[Array, int, Iterator[tuple[tuple[int, ...], Array]]]:
    """(empty array for the results, kh*kw, all (index of y, elements of x under its window in row-major order))."""
    window, shape = checked_window(x.shape, kernel, stride, padding)
    (kh, kw), (sh, sw), ((top, _), (left, _)) = window.kernel, window.stride, window.padding

    def under() -> Iterator[tuple[tuple[int, ...], Array]]:
        for n, c, r, q in itertools.product(*map(range, shape)):
            up, before = r * sh - top, q * sw - left
            yield (n, c, r, q), x[n, c, max(0, up):up + kh, max(0, before):before + kw].ravel()

    return np.empty(shape, object), kh * kw, under()


def avg_pool2d(x: Any, kernel: Size2, stride: Size2 | None = None, padding: Padding = 0, count_include_pad: bool = True,
               out_dtype: Any = "same") -> Array:
    """The correctly rounded mean of the elements under each window: their sum over kh*kw, or over their number.

    x NCHW; `stride` None means the kernel. The padding, smaller than the kernel on every side, has no elements; without `count_include_pad`
    it is not counted either. `out_dtype` as in `conv2d`. A NaN, or infinities of both signs, under a window give NaN, else an infinity itself.

    Rounding: once, to nearest, ties to even; an exact zero is +0.

    Raises ShapeError, DTypeError, ArgumentError (geometry; NaN or infinity where `out_dtype` is None).

    Source: ONNX operator AveragePool.

    >>> avg_pool2d(np.arange(4.0).reshape(1, 1, 2, 2), 2)
    array([[[[1.5]]]])
    """
    y, taps, windows = _windows(operand(x, "x", out_dtype), kernel, stride, padding)
    for at, elements in windows:
        y[at] = np.sum(elements) * Fraction(1, taps if count_include_pad else elements.size)
    return finish(y, out_dtype, x)


def max_pool2d(x: Any, kernel: Size2, stride: Size2 | None = None, padding: Padding = 0, out_dtype: Any = "same") -> Array:
    """The largest element under each window; padding counts as -infinity, and NaN is larger than everything.

    Arguments as `avg_pool2d`. Rounding: none with the dtype of x, else once; zeros of both signs give +0. Raises as `avg_pool2d`.

    Source: ONNX operator MaxPool.

    >>> max_pool2d(np.arange(4.0).reshape(1, 1, 2, 2), 2)
    array([[[[3.]]]])
    """
    y, _, windows = _windows(operand(x, "x", out_dtype), kernel, stride, padding)
    for at, elements in windows:
        y[at] = max(elements, key=order)
    return finish(y, out_dtype, x)


def global_avg_pool(x: Any, out_dtype: Any = "same") -> Array:
    """The correctly rounded mean of each channel over its whole plane: x NCHW, result (N, C). As `avg_pool2d` with one window.

    >>> global_avg_pool(np.arange(4.0).reshape(1, 1, 2, 2))
    array([[1.5]])
    """
    shape = checked_planes(np.shape(x))
    return avg_pool2d(x, shape[2:], out_dtype=out_dtype).reshape(shape[:2])


def checked_planes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of an NCHW array with elements in each plane."""
    if len(shape) != 4 or 0 in shape[2:]:
        raise ShapeError(f"`x` has shape {shape}, but must have 4 axes, (batch, channels, height, width), the last two not of length 0")
    return shape
