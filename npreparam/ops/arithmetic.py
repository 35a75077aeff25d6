"""Elementwise arithmetic with broadcasting, and the one `unbroadcast` that its gradients need.

Rounding of add, sub, mul, div, neg, sqrt, square: correctly rounded (IEEE 754). Of exp, log, expm1, log1p: NumPy's, a few ulp. The bits of
a result depend on the values alone, not on strides or on the elements beside them. Overflow, division by zero and invalid operations give
the infinities and NaNs of IEEE 754, without warnings.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from npreparam._errors import ShapeError
from npreparam.ops._primitive import gradient, primitive
from npreparam.ops._validate import Array, as_array, as_dense, as_lengths, same_dtype

quiet = np.errstate(all="ignore")  # a decorator: the special values tell enough


def broadcast_pair(x: Array, y: Array) -> tuple[Array, Array]:
    """Two operands as arrays of one dtype whose shapes broadcast, or ShapeError."""
    x, y = same_dtype(x=x, y=y)
    if x.shape == y.shape:
        return x, y
    try:
        np.broadcast_shapes(x.shape, y.shape)
    except ValueError:
        raise ShapeError(f"shapes of `x` {x.shape} and `y` {y.shape} do not broadcast: aligned at the last axis, "
                         "lengths must agree or be 1") from None
    return x, y


@primitive
@quiet
def unbroadcast(x: Array, shape: Sequence[int]) -> Array:
    """Sum over the axes that broadcasting `shape` to x.shape repeated: the adjoint of `broadcast_to`.

    Raises ShapeError where `shape` does not broadcast to that of x.

    >>> unbroadcast(np.ones((2, 3)), (3,))
    array([2., 2., 2.])
    """
    x, shape = as_array(x, "x"), as_lengths(shape)
    if x.shape == shape:
        return x
    lead = x.ndim - len(shape)
    if lead < 0 or any(n not in (1, long) for n, long in zip(shape, x.shape[lead:], strict=True)):
        raise ShapeError(f"`x` of shape {x.shape} is no broadcast of `shape` (={shape})")
    axes = tuple(range(lead)) + tuple(lead + i for i, n in enumerate(shape) if n == 1 and x.shape[lead + i] != 1)
    return as_dense(x, "x").sum(axis=axes, keepdims=True).reshape(shape)


@primitive
def broadcast_to(x: Array, shape: Sequence[int]) -> Array:
    """x repeated along new axes and axes of length 1, as NumPy does.

    >>> broadcast_to(np.array([1.0, 2.0]), (2, 2))
    array([[1., 2.],
           [1., 2.]])
    """
    x, lengths = as_array(x, "x"), as_lengths(shape)
    try:
        return np.broadcast_to(x, lengths)
    except ValueError:
        raise ShapeError(f"`x` of shape {x.shape} cannot be broadcast to `shape` (={shape!r})") from None


gradient(unbroadcast, "x", lambda g, y, a: broadcast_to(g, a.x.shape))
gradient(broadcast_to, "x", lambda g, y, a: unbroadcast(g, a.x.shape))


def summed_like(g: Array, operand: object) -> Array:
    """The cotangent `g` summed to the shape of an operand."""
    return unbroadcast(g, np.shape(operand) if not hasattr(operand, "shape") else operand.shape)


@primitive
@quiet
def add(x: Array, y: Array) -> Array:
    """x + y, elementwise with broadcasting.

    >>> add(np.array([1.0, 2.0]), 1)
    array([2., 3.])
    """
    x, y = broadcast_pair(x, y)
    return np.add(x, y)


gradient(add, "x", lambda g, y, a: summed_like(g, a.x))
gradient(add, "y", lambda g, y, a: summed_like(g, a.y))


@primitive
@quiet
def sub(x: Array, y: Array) -> Array:
    """x - y, elementwise with broadcasting.

    >>> sub(np.array([1.0, 2.0]), 1)
    array([0., 1.])
    """
    x, y = broadcast_pair(x, y)
    return np.subtract(x, y)


gradient(sub, "x", lambda g, y, a: summed_like(g, a.x))
gradient(sub, "y", lambda g, y, a: summed_like(neg(g), a.y))


@primitive
@quiet
def mul(x: Array, y: Array) -> Array:
    """x * y, elementwise with broadcasting.

    >>> mul(np.array([1.0, 2.0]), 3)
    array([3., 6.])
    """
    x, y = broadcast_pair(x, y)
    return np.multiply(x, y)


gradient(mul, "x", lambda g, y, a: summed_like(mul(g, a.y), a.x))
gradient(mul, "y", lambda g, y, a: summed_like(mul(g, a.x), a.y))


@primitive
@quiet
def div(x: Array, y: Array) -> Array:
    """x / y, elementwise with broadcasting; 1/0 is inf, 0/0 NaN.

    >>> div(np.array([1.0, 0.0]), 2)
    array([0.5, 0. ])
    """
    x, y = broadcast_pair(x, y)
    return np.divide(x, y)


gradient(div, "x", lambda g, y, a: summed_like(div(g, a.y), a.x))
gradient(div, "y", lambda g, y, a: summed_like(neg(div(mul(g, y), a.y)), a.y))


@primitive
def neg(x: Array) -> Array:
    """-x, elementwise.

    >>> neg(np.array([1.0]))
    array([-1.])
    """
    return np.negative(as_array(x, "x"))


gradient(neg, "x", lambda g, y, a: neg(g))


@primitive
@quiet
def exp(x: Array) -> Array:
    """e to the power x, elementwise; inf where it overflows.

    >>> exp(np.array([0.0]))
    array([1.])
    """
    return np.exp(as_dense(x, "x"))


gradient(exp, "x", lambda g, y, a: mul(g, y))


@primitive
@quiet
def log(x: Array) -> Array:
    """Natural logarithm, elementwise; -inf at 0 and NaN below.

    >>> log(np.array([1.0, 0.0]))
    array([  0., -inf])
    """
    return np.log(as_dense(x, "x"))


gradient(log, "x", lambda g, y, a: div(g, a.x))


@primitive
@quiet
def expm1(x: Array) -> Array:
    """exp(x) - 1, elementwise, without cancellation near 0.

    >>> expm1(np.array([1e-20]))
    array([1.e-20])
    """
    return np.expm1(as_dense(x, "x"))


gradient(expm1, "x", lambda g, y, a: mul(g, exp(a.x)))


@primitive
@quiet
def log1p(x: Array) -> Array:
    """log(1 + x), elementwise, without cancellation near 0.

    >>> log1p(np.array([1e-20]))
    array([1.e-20])
    """
    return np.log1p(as_dense(x, "x"))


gradient(log1p, "x", lambda g, y, a: div(g, add(a.x, 1.0)))


@primitive
@quiet
def sqrt(x: Array) -> Array:
    """Square root, elementwise; NaN below 0.

    >>> sqrt(np.array([4.0]))
    array([2.])
    """
    return np.sqrt(as_array(x, "x"))


gradient(sqrt, "x", lambda g, y, a: div(g, mul(y, 2.0)))


@primitive
@quiet
def square(x: Array) -> Array:
    """x * x, elementwise.

    >>> square(np.array([3.0]))
    array([9.])
    """
    return np.square(as_array(x, "x"))


gradient(square, "x", lambda g, y, a: mul(g, mul(a.x, 2.0)))
