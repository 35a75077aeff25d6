"""The matrix product and the linear layer over rational numbers."""

from __future__ import annotations

from typing import Any

from npreparam._errors import ShapeError
from npreparam.exact.rounding import Array, checked, finish, operand, over_common


def matmul(a: Any, b: Any, out_dtype: Any = "same") -> Array:
    """The correctly rounded product of two matrices: y[m, n] = sum over k of a[m, k] * b[k, n].

    a (M, K), b (K, N); `out_dtype`, NaN and infinities as in `conv2d`.

    Rounding: once, to nearest, ties to even.

    Raises ShapeError, DTypeError, ArgumentError (NaN or infinity where `out_dtype` is None).

    >>> import numpy as np
    >>> matmul(np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]]))
    array([[11.]])
    """
    exact_a, exact_b = operand(a, "a", out_dtype), operand(b, "b", out_dtype)
    if exact_a.ndim != 2 or exact_b.ndim != 2 or exact_a.shape[1] != exact_b.shape[0]:
        raise ShapeError(f"`a` of shape {exact_a.shape} and `b` of shape {exact_b.shape} must be (rows, inner) and (inner, columns)")
    return finish(_product(exact_a, exact_b), out_dtype, a)


def linear(x: Any, w: Any, b: Any = None, out_dtype: Any = "same") -> Array:
    """The correctly rounded linear layer: y[n, o] = b[o] + sum over i of x[n, i] * w[o, i].

    x (N, I), w (O, I), b (O,); `out_dtype`, NaN and infinities as in `conv2d`.

    Rounding: once, to nearest, ties to even.

    Raises ShapeError, DTypeError, ArgumentError (NaN or infinity where `out_dtype` is None).

    >>> import numpy as np
    >>> linear(np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]]), np.array([0.5]))
    array([[11.5]])
    """
    exact_x, exact_w = operand(x, "x", out_dtype), operand(w, "w", out_dtype)
    if exact_x.ndim != 2 or exact_w.ndim != 2 or exact_x.shape[1] != exact_w.shape[1]:
        raise ShapeError(f"`x` of shape {exact_x.shape} and `w` of shape {exact_w.shape} must be (batch, inputs) and (outputs, inputs)")
    y = _product(exact_x, exact_w.T)
    if b is not None:
        y = y + checked(operand(b, "b", out_dtype), "b", exact_w.shape[:1])
    return finish(y, out_dtype, x)


def _product(a: Array, b: Array) -> Array:
    """The product of two matrices of numbers, in integers."""
    (left, left_unit), (right, right_unit) = over_common(a), over_common(b)
    return (left @ right) * (left_unit * right_unit)
