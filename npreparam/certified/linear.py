"""Linear layer and matrix product, correctly rounded: pointwise convolutions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from npreparam._shapes import Window
from npreparam.certified._inputs import check_terms, one_format, quiet, result_format, widened
from npreparam.certified._record import Certified
from npreparam.certified.conv2d import forward, row_norms
from npreparam.certified.functions import narrowed
from npreparam.ops._geometry import check_linear, check_product

Array = NDArray[Any]


@quiet
def linear(x: Array, w: Array, b: Array | None = None, out_dtype: Any = "same") -> Certified:
    """The correctly rounded linear layer: y[n, o] = b[o] + sum over i of x[n, i] * w[o, i].

    x (N, I), w (O, I), b (O,); formats, rounding and errors as in `certified.conv2d`.

    >>> linear(np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]]), np.array([0.5])).value
    array([[11.5]])
    """
    dtype = result_format(out_dtype, one_format(x=x, w=w, b=b, optional=("b",)))
    check_linear(x, w, b)
    return _transposed(x, w, b, dtype)


@quiet
def matmul(a: Array, b: Array, out_dtype: Any = "same") -> Certified:
    """The correctly rounded product of two matrices: y[m, n] = sum over k of a[m, k] * b[k, n].

    a (M, K), b (K, N); formats, rounding and errors as in `certified.conv2d`.

    >>> matmul(np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]])).value
    array([[11.]])
    """
    dtype = result_format(out_dtype, one_format(a=a, b=b))
    check_product(a, b)
    return _transposed(a, b.T, None, dtype)


def _transposed(x: Array, w: Array, b: Array | None, dtype: np.dtype[Any]) -> Certified:
    """x w^T + b, as the convolution of one image whose pixels are the rows of x."""
    check_terms(x.shape[1])
    x, w, b = widened(x, w, b)
    if not x.shape[1]:
        return Certified(np.tile(np.zeros(len(w), dtype) if b is None else narrowed(b + 0.0, dtype), (len(x), 1)), 0)
    image = np.ascontiguousarray(x.T)[None, :, None]
    found = forward(image, w[:, :, None, None], b, Window.of(1), row_norms(w), np.empty((1, len(w), 1, len(x)), dtype))
    return Certified(np.ascontiguousarray(found.value[0, :, 0].T), found.repaired)
