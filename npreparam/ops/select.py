"""Elementwise choice, magnitude and trigonometric functions."""

from __future__ import annotations

from typing import Any

import numpy as np

from npreparam._errors import DTypeError
from npreparam.ops._primitive import gradient, primitive
from npreparam.ops._validate import Array, as_array, as_dense, check_shape, same_dtype
from npreparam.ops.arithmetic import add, div, mul, neg, quiet, square, summed_like


@primitive
def where(mask: Any, x: Array, y: Array) -> Array:
    """x where the mask is True, else y, elementwise with broadcasting; no gradient reaches what was not chosen.

    Raises DTypeError for a mask that is not boolean.

    >>> where(np.array([True, False]), np.array([1.0, 1.0]), 0.0)
    array([1., 0.])
    """
    mask = np.asarray(mask)
    if mask.dtype != np.bool_:
        raise DTypeError(f"`mask` has dtype {mask.dtype}, but must be boolean")
    x, y = same_dtype(x=x, y=y)
    return np.where(mask, x, y)


gradient(where, "x", lambda g, y, a: summed_like(where(a.mask, g, 0.0), a.x))
gradient(where, "y", lambda g, y, a: summed_like(where(a.mask, 0.0, g), a.y))


@primitive
def abs(x: Array) -> Array:
    """|x|, elementwise; the derivative at 0 is 0.

    >>> abs(np.array([-1.0, 2.0]))
    array([1., 2.])
    """
    return np.abs(as_array(x, "x"))


@primitive
def sign(x: Array) -> Array:
    """-1, 0 or 1, elementwise: the slope of `abs`, itself with the gradient 0.

    >>> sign(np.array([-2.0, 0.0, 3.0]))
    array([-1.,  0.,  1.])
    """
    return np.sign(as_array(x, "x"))


gradient(abs, "x", lambda g, y, a: mul(g, sign(a.x)))
gradient(sign, "x", lambda g, y, a: mul(g, 0.0))


@primitive
@quiet
def sin(x: Array) -> Array:
    """Sine, elementwise, of an angle in radians.

    >>> sin(np.array([0.0]))
    array([0.])
    """
    return np.sin(as_dense(x, "x"))


@primitive
@quiet
def cos(x: Array) -> Array:
    """Cosine, elementwise, of an angle in radians.

    >>> cos(np.array([0.0]))
    array([1.])
    """
    return np.cos(as_dense(x, "x"))


gradient(sin, "x", lambda g, y, a: mul(g, cos(a.x)))
gradient(cos, "x", lambda g, y, a: neg(mul(g, sin(a.x))))


@primitive
@quiet
def arctan(x: Array) -> Array:
    """Inverse tangent, elementwise, in (-pi/2, pi/2).

    >>> arctan(np.array([0.0]))
    array([0.])
    """
    return np.arctan(as_dense(x, "x"))


gradient(arctan, "x", lambda g, y, a: div(g, add(square(a.x), 1.0)))


@primitive
def straight_through(soft: Array, hard: Array) -> Array:
    """The value of `hard` with the gradient of `soft`, of the same shape and dtype: a biased gradient for a discrete choice.

    Source: Bengio, Léonard and Courville, Estimating or propagating gradients through stochastic neurons, arXiv 1308.3432.

    >>> straight_through(np.array([0.7]), np.array([1.0]))
    array([1.])
    """
    soft, hard = same_dtype(soft=soft, hard=hard)
    check_shape(hard, "hard", soft.shape, "that of `soft`")
    return hard.copy()


gradient(straight_through, "soft", lambda g, y, a: g)
