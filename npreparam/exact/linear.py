"""The linear layer over rational numbers."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from npreparam._errors import ShapeError
from npreparam.exact.rounding import as_fractions, checked, finish


def linear(x: Any, w: Any, b: Any = None, out_dtype: Any = "same") -> Any:
    """The correctly rounded linear layer: y[n, o] = b[o] + sum over i of x[n, i] * w[o, i].

    x (N, I), w (O, I), b (O,); `out_dtype` as in `conv2d`.

    Rounding: once, to nearest, ties to even.

    Raises ShapeError, DTypeError, ArgumentError (NaN or infinity).

    >>> import numpy as np
    >>> linear(np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]]), np.array([0.5]))
    array([[11.5]])
    """
    exact_x, exact_w = as_fractions(x, "x"), as_fractions(w, "w")
    if exact_x.ndim != 2 or exact_w.ndim != 2 or exact_x.shape[1] != exact_w.shape[1]:
        raise ShapeError(f"`x` of shape {exact_x.shape} and `w` of shape {exact_w.shape} must be (batch, inputs) and (outputs, inputs)")
    y = exact_x @ exact_w.T + Fraction(0)  # an empty sum is the int 0
    if b is not None:
        y = y + checked(as_fractions(b, "b"), "b", exact_w.shape[:1])
    return finish(y, out_dtype, x)
