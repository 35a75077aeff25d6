"""x*log(y) and its kin, with 0*log(0) = 0 and 0/0 = 0: what terms of weight zero contribute."""

from __future__ import annotations

import numpy as np

from npreparam.ops._primitive import gradient, primitive
from npreparam.ops._validate import Array, as_dense
from npreparam.ops.arithmetic import add, broadcast_pair, div, mul, neg, quiet, summed_like


@primitive
@quiet
def xdivy(x: Array, y: Array) -> Array:
    """x / y, elementwise with broadcasting, and 0 where x is 0 (unless y is NaN).

    >>> xdivy(np.array([0.0, 1.0]), np.array([0.0, 2.0]))
    array([0. , 0.5])
    """
    x, y = broadcast_pair(x, y)
    return np.where((x == 0) & ~np.isnan(y), 0 * y.dtype.type(1), x / y)


gradient(xdivy, "x", lambda g, y, a: summed_like(xdivy(g, a.y), a.x))
gradient(xdivy, "y", lambda g, y, a: summed_like(neg(xdivy(mul(g, y), a.y)), a.y))


@primitive
@quiet
def xlogy(x: Array, y: Array) -> Array:
    """x * log(y), elementwise with broadcasting, and 0 where x is 0 (unless y is NaN).

    The derivative with respect to y is x/y, and 0 where x is 0. Rounding: a few ulp.

    >>> xlogy(np.array([0.0, 2.0]), np.array([0.0, 1.0]))
    array([0., 0.])
    """
    x, y = broadcast_pair(x, y)
    return np.where((x == 0) & ~np.isnan(y), 0 * y.dtype.type(1), x * np.log(as_dense(y, "y")))


gradient(xlogy, "x", lambda g, y, a: summed_like(xlogy(g, a.y), a.x))
gradient(xlogy, "y", lambda g, y, a: summed_like(mul(g, xdivy(a.x, a.y)), a.y))


@primitive
@quiet
def xlog1py(x: Array, y: Array) -> Array:
    """x * log(1 + y), elementwise with broadcasting, and 0 where x is 0 (unless y is NaN).

    >>> xlog1py(np.array([0.0, 2.0]), np.array([-1.0, 0.0]))
    array([0., 0.])
    """
    x, y = broadcast_pair(x, y)
    return np.where((x == 0) & ~np.isnan(y), 0 * y.dtype.type(1), x * np.log1p(as_dense(y, "y")))


gradient(xlog1py, "x", lambda g, y, a: summed_like(xlog1py(g, a.y), a.x))
gradient(xlog1py, "y", lambda g, y, a: summed_like(mul(g, xdivy(a.x, add(a.y, 1.0))), a.y))


@primitive
@quiet
def log_ratio(x: Array, y: Array) -> Array:
    """log(x / y) of positive numbers, elementwise with broadcasting, accurate near x = y and for quotients that overflow.

    Where x/y lies in [1/2, 2] it is log1p((x - y)/y), whose difference is exact (Sterbenz). Rounding: a few ulp.

    >>> log_ratio(np.array([1.0, 1.0 + 2.0**-50]), np.array([1.0, 1.0]))
    array([0.0000000e+00, 8.8817842e-16])
    """
    x, y = broadcast_pair(x, y)
    ratio = np.asarray(x / y)
    far = np.where((ratio > np.finfo(ratio.dtype).tiny) & (ratio < np.inf), np.log(np.ascontiguousarray(ratio)).reshape(ratio.shape),
                   np.log(as_dense(x, "x")) - np.log(as_dense(y, "y")))
    return np.where((ratio >= 0.5) & (ratio <= 2), np.log1p(as_dense((x - y) / y, "x")), far)


gradient(log_ratio, "x", lambda g, y, a: summed_like(div(g, a.x), a.x))
gradient(log_ratio, "y", lambda g, y, a: summed_like(neg(div(g, a.y)), a.y))
