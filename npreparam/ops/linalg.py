"""Small dense matrices in the last two axes: Cholesky factor, inverse of a lower triangular matrix, products; any leading axes are batch axes."""

from __future__ import annotations

from typing import Any

import numpy as np

from npreparam._errors import ArgumentError, ShapeError
from npreparam.ops._primitive import gradient, primitive
from npreparam.ops._validate import Array, as_dense
from npreparam.ops.arithmetic import add, mul, neg
from npreparam.ops.shape import reshape, transpose
from npreparam.ops.shape import sum as sum_over


def _square(x: Any, name: str) -> Array:
    x = as_dense(x, name)
    if x.ndim < 2 or x.shape[-1] != x.shape[-2]:
        raise ShapeError(f"`{name}` has shape {x.shape}, but must be square in its last two axes")
    return x


@primitive
def cholesky(a: Array) -> Array:
    """The lower triangular L with positive diagonal and L L^T = a, of symmetric positive definite matrices; the lower triangle is read.

    Raises ArgumentError where a is not positive definite.

    Source of the gradient: Murray, Differentiation of the Cholesky decomposition, arXiv 1602.07527, section 4.

    >>> cholesky(np.array([[4.0, 2.0], [2.0, 5.0]]))
    array([[2., 0.],
           [1., 2.]])
    """
    try:
        return np.linalg.cholesky(_square(a, "a"))
    except np.linalg.LinAlgError:
        raise ArgumentError("`a` must be positive definite, but has no Cholesky factor") from None


@primitive
def inverse_lower(a: Array) -> Array:
    """The inverse of lower triangular matrices with a non-zero diagonal, itself lower triangular; the lower triangle is read.

    >>> inverse_lower(np.array([[2.0, 0.0], [1.0, 1.0]]))
    array([[ 0.5,  0. ],
           [-0.5,  1. ]])
    """
    return np.tril(np.linalg.inv(np.tril(_square(a, "a"))))


def swap(x: Any) -> Array:
    """The transpose of the last two axes.

    >>> swap(np.ones((5, 2, 3))).shape
    (5, 3, 2)
    """
    rank = len(x.shape)
    return transpose(x, (*range(rank - 2), rank - 1, rank - 2))


def product(x: Any, y: Any) -> Array:
    """Matrix products x y over the last two axes; the batch axes broadcast.

    >>> product(np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]]))
    array([[11.]])
    """
    return sum_over(mul(reshape(x, (*x.shape, 1)), reshape(y, (*y.shape[:-2], 1, *y.shape[-2:]))), axis=-2)


def apply(x: Any, v: Any) -> Array:
    """Matrices times vectors: the last axis of v; the batch axes broadcast.

    >>> apply(np.array([[1.0, 2.0], [0.0, 1.0]]), np.array([3.0, 4.0]))
    array([11.,  4.])
    """
    return sum_over(mul(x, reshape(v, (*v.shape[:-1], 1, v.shape[-1]))), axis=-1)


def lower(x: Any, diagonal: float = 1.0) -> Array:
    """The lower triangle, with the diagonal times a factor, as a product with a constant mask.

    >>> lower(np.ones((2, 2)), 0.5)
    array([[0.5, 0. ],
           [1. , 0.5]])
    """
    n = x.shape[-1]
    return mul(x, (np.tril(np.ones((n, n)), -1) + diagonal * np.eye(n)).astype(x.dtype))


def diagonal(x: Any) -> Array:
    """The diagonals.

    >>> diagonal(np.array([[1.0, 2.0], [3.0, 4.0]]))
    array([1., 4.])
    """
    return sum_over(mul(x, np.eye(x.shape[-1], dtype=x.dtype)), axis=-1)


def _cholesky_vjp(g: Array, factor: Array) -> Array:
    """S + S^T over 2, S = L^-T P L^-1, where P is the lower triangle of L^T g with half its diagonal."""
    inverse = inverse_lower(factor)
    s = product(product(swap(inverse), lower(product(swap(factor), lower(g)), 0.5)), inverse)
    return mul(add(s, swap(s)), 0.5)


gradient(cholesky, "a", lambda g, y, a: _cholesky_vjp(g, y))
gradient(inverse_lower, "a", lambda g, y, a: lower(neg(product(product(swap(y), lower(g)), swap(y)))))
