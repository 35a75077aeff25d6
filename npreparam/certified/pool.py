"""Average, max and global pooling, correctly rounded at the speed of arrays (see `_sums`). Errors, NaN and infinities: as in `exact`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from npreparam._shapes import Padding, Size2, Window
from npreparam.certified._affine import as_array, target
from npreparam.certified._record import Certified
from npreparam.certified._sums import Array, rounded_row_sums
from npreparam.certified.functions import narrowed
from npreparam.exact.pool import checked_planes, checked_window
from npreparam.exact.rounding import result_dtype


def avg_pool2d(x: Any, kernel: Size2, stride: Size2 | None = None, padding: Padding = 0, count_include_pad: bool = True,
               out_dtype: Any = "same") -> Certified:
    """The correctly rounded mean of the elements under each window: their sum over kh*kw, or over their number.

    Arguments as in `exact.avg_pool2d`, but x and the result are float16, bfloat16, float32 or float64.

    Rounding: once, to nearest, ties to even; an exact zero is +0. Raises ShapeError, DTypeError, ArgumentError (geometry).

    Source: ONNX operator AveragePool.

    >>> avg_pool2d(np.arange(4.0).reshape(1, 1, 2, 2), 2)
    Certified(value=array([[[[1.5]]]]), repaired=0)
    """
    x = as_array(x, "x")
    dtype, (window, shape) = target(result_dtype(out_dtype, x)), checked_window(x.shape, kernel, stride, padding)
    rows = _windows(x, window, 0)
    inside = _windows(np.ones((1, 1, *x.shape[2:])), window, 0 if not count_include_pad else 1).sum(axis=(-2, -1))
    counts = np.broadcast_to(inside, shape).reshape(-1)
    value, repaired = rounded_row_sums(rows.reshape(counts.size, window.kernel[0] * window.kernel[1]), counts, dtype)
    return Certified(value.reshape(shape), repaired)


def max_pool2d(x: Any, kernel: Size2, stride: Size2 | None = None, padding: Padding = 0, out_dtype: Any = "same") -> Certified:
    """The largest element under each window; padding counts as -infinity, and NaN is larger than everything.

    Arguments as `avg_pool2d`. Rounding: none with the dtype of x, else once; zeros of both signs give +0. Nothing is ever repaired.

    Source: ONNX operator MaxPool.

    >>> max_pool2d(np.arange(4.0).reshape(1, 1, 2, 2), 2).value
    array([[[[3.]]]])
    """
    x = as_array(x, "x")
    dtype, (window, _) = target(result_dtype(out_dtype, x)), checked_window(x.shape, kernel, stride, padding)
    with np.errstate(invalid="ignore", over="ignore"):
        y = _windows(x.astype(np.float64), window, -np.inf).max(axis=(-2, -1)) + 0.0  # -0 + 0 = +0
        return Certified(narrowed(np.where(np.isnan(y), np.nan, y), dtype), 0)


def global_avg_pool(x: Any, out_dtype: Any = "same") -> Certified:
    """The correctly rounded mean of each channel over its whole plane: x NCHW, result (N, C). As `avg_pool2d` with one window.

    >>> global_avg_pool(np.arange(4.0).reshape(1, 1, 2, 2)).value
    array([[1.5]])
    """
    x = as_array(x, "x")
    shape, dtype = checked_planes(x.shape), target(result_dtype(out_dtype, x))
    value, repaired = rounded_row_sums(x.reshape(shape[0] * shape[1], shape[2] * shape[3]), np.float64(shape[2] * shape[3]), dtype)
    return Certified(value.reshape(shape[:2]), repaired)


def _windows(x: Array, window: Window, fill: float) -> Array:
    """(N, C, OH, OW, kh, kw): what lies under each window, `fill` in the padding."""
    padded = np.pad(x, ((0, 0), (0, 0), *window.padding), constant_values=x.dtype.type(fill))
    return sliding_window_view(padded, window.kernel, axis=(2, 3))[:, :, :: window.stride[0], :: window.stride[1]]
