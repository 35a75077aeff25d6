"""ReLU and leaky ReLU, correctly rounded; the other activation functions are in `functions`."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from npreparam.certified._affine import as_array, as_floats, flat, number, rounded_affine, row, spread, target
from npreparam.certified._record import Certified
from npreparam.certified.functions import narrowed
from npreparam.exact.batch_norm import scalar
from npreparam.exact.rounding import FORMATS, result_dtype, round_to_bits


def relu(x: Any, out_dtype: Any = "same") -> Certified:
    """max(0, x), elementwise; +0 for both zeros, NaN for NaN.

    x and the result are float16, bfloat16, float32 or float64. Rounding: none with the dtype of x, else once. Raises DTypeError.

    >>> relu(np.array([-1.0, 0.0, 2.0])).value
    array([0., 0., 2.])
    """
    x = as_array(x, "x")
    dtype = target(result_dtype(out_dtype, x))
    with np.errstate(invalid="ignore", over="ignore"):
        y = x.astype(np.float64)
        return Certified(np.array(narrowed(np.where(np.isnan(y), np.nan, np.where(y > 0, y, 0.0)), dtype)), 0)


def leaky_relu(x: Any, slope: float = 0.01, out_dtype: Any = "same") -> Certified:
    """x where x > 0, slope*x elsewhere, correctly rounded; `slope` is the rational number that the float is, whatever the dtype of x.

    As `relu` in all else, but -0 stays. Raises ArgumentError, too (slope NaN or infinite).

    >>> leaky_relu(np.array([-1.0, 2.0]), slope=0.25).value
    array([-0.25,  2.  ])
    """
    x, factor = as_array(x, "x"), scalar(slope, "slope")
    dtype, values = target(result_dtype(out_dtype, x)), flat(x)
    form, below = FORMATS[dtype.name], (values < 0) & np.isfinite(values)
    with np.errstate(invalid="ignore", over="ignore"):
        y = np.array(narrowed(np.where(np.isnan(values), np.nan, values).astype(np.float64), dtype))
    y[values == -np.inf] = -np.inf * float(factor) if factor else 0.0
    negative = values[below]
    table = [row(([0.0] * 3, 0.0), as_floats(factor), spread=spread(dtype))]
    y[below], repaired = rounded_affine(negative, None, table.__getitem__, (1, 1, negative.size), dtype,
                                        lambda index: round_to_bits(Fraction(number(negative[index])) * factor, form))
    return Certified(y.reshape(x.shape), repaired)
