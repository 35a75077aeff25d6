"""Sums and means over axes, correctly rounded at the speed of arrays (see `_sums`). Errors, NaN and infinities: as in `exact`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from npreparam.certified._affine import as_array, target
from npreparam.certified._record import Certified
from npreparam.certified._sums import Array, reduced, rounded_row_sums
from npreparam.exact.arithmetic import Axes, checked_axes
from npreparam.exact.rounding import FORMATS, result_dtype


def sum(x: Any, axis: Axes = None, keepdims: bool = False, out_dtype: Any = "same") -> Certified:
    """The correctly rounded sum over one axis, several, or all (None).

    x, of any shape, and the result are float16, bfloat16, float32 or float64. Of nothing: 0.

    Rounding: once, to nearest, ties to even, whatever the order of the elements; an exact zero is +0.

    Raises DTypeError, ArgumentError (axis out of range or named twice).

    Source: IEEE 754-2019, 4.3.1.

    >>> sum(np.array([1.0, 2.0**-60, -1.0])).value
    array(8.67361738e-19)
    """
    return _over(x, axis, keepdims, out_dtype, divide=False)


def mean(x: Any, axis: Axes = None, keepdims: bool = False, out_dtype: Any = "same") -> Certified:
    """The correctly rounded arithmetic mean: the exact sum over the number of elements; of nothing, NaN. As `sum` in all else.

    >>> mean(np.array([1.0, 2.0])).value
    array(1.5)
    """
    return _over(x, axis, keepdims, out_dtype, divide=True)


def _over(x: Any, axis: Axes, keepdims: bool, out_dtype: Any, divide: bool) -> Certified:
    x = as_array(x, "x")
    dtype, axes = target(result_dtype(out_dtype, x)), checked_axes(axis, x.ndim)
    shape = tuple(1 if i in axes else length for i, length in enumerate(x.shape) if keepdims or i not in axes)
    count = math.prod(x.shape[i] for i in axes)
    if divide and not count:
        return Certified(np.full(shape, FORMATS[dtype.name].nan, FORMATS[dtype.name].bits).view(dtype), 0)
    rows: Array = reduced(x, axes)
    value, repaired = rounded_row_sums(rows, np.float64(count if divide else 1), dtype)
    return Certified(value.reshape(shape), repaired)
