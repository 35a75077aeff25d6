"""Linear layer and matrix product, correctly rounded: pointwise convolutions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from npreparam._errors import ShapeError
from npreparam._shapes import Window
from npreparam.certified._inputs import check_terms, one_format, quiet, result_format, widened
from npreparam.certified._record import Certified
from npreparam.certified.conv2d import _forward
from npreparam.certified.functions import narrowed
from npreparam.ops._validate import check_rank, check_shape

Array = NDArray[Any]


@quiet
def linear(x: Array, w: Array, b: Array | None = None, out_dtype: Any = "same") -> Certified:
    """The correctly rounded linear layer: y[n, o] = b[o] + sum over i of x[n, i] * w[o, i].

    x (N, I), w (O, I), b (O,); formats, rounding and errors as in `certified.conv2d`.

    >>> linear(np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]]), np.array([0.5])).value
    array([[11.5]])
    """
    dtype = result_format(out_dtype, one_format(x=x, w=w, b=b, optional=("b",)))
    check_rank(x, "x", 2, "(batch, input channels)")
    check_rank(w, "w", 2, "(output channels, input channels)")
    if x.shape[1] != w.shape[1]:
        raise ShapeError(f"`in_features` (={x.shape[1]}, axis 1 of `x`) must be axis 1 of `w` (={w.shape[1]})")
    if b is not None:
        check_shape(b, "b", (w.shape[0],), "one value for each output channel")
    return _transposed(x, w, b, dtype)


@quiet
def matmul(a: Array, b: Array, out_dtype: Any = "same") -> Certified:
    """The correctly rounded product of two matrices: y[m, n] = sum over k of a[m, k] * b[k, n].

    a (M, K), b (K, N); formats, rounding and errors as in `certified.conv2d`.

    >>> matmul(np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]])).value
    array([[11.]])
    """
    dtype = result_format(out_dtype, one_format(a=a, b=b))
    check_rank(a, "a", 2, "(rows, inner)")
    check_rank(b, "b", 2, "(inner, columns)")
    if a.shape[1] != b.shape[0]:
        raise ShapeError(f"the inner lengths must agree: axis 1 of `a` (={a.shape[1]}) and axis 0 of `b` (={b.shape[0]})")
    return _transposed(a, b.T, None, dtype)


def _transposed(x: Array, w: Array, b: Array | None, dtype: np.dtype[Any]) -> Certified:
    """x w^T + b, as the convolution of one image whose pixels are the rows of x."""
    check_terms(x.shape[1])
    x, w, b = widened(x, w, b)
    if not x.shape[1]:
        return Certified(np.tile(np.zeros(len(w), dtype) if b is None else narrowed(b + 0.0, dtype), (len(x), 1)), 0)
    image = np.ascontiguousarray(x.T)[None, :, None]
    found = _forward(image, w[:, :, None, None], b, Window.of(1), dtype)
    return Certified(np.ascontiguousarray(found.value[0, :, 0].T), found.repaired)
