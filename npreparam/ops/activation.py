"""Activation functions, in forms that neither overflow nor cancel; NaN goes in and NaN comes out."""

from __future__ import annotations

import numpy as np

from npreparam import kernels
from npreparam.ops._primitive import gradient, primitive
from npreparam.ops._validate import Array, as_array, as_dense, check_shape, same_dtype
from npreparam.ops.arithmetic import mul, quiet


@primitive
def step(x: Array, below: float = 0.0) -> Array:
    """1 where x > 0, `below` elsewhere (NaN where x is NaN): the slope of `leaky_relu`, itself without a gradient that matters.

    >>> step(np.array([-1.0, 0.0, 2.0]))
    array([0., 0., 1.])
    """
    x = as_array(x, "x")
    return np.where(np.isnan(x), x, np.where(x > 0, x.dtype.type(1), x.dtype.type(below)))


gradient(step, "x", lambda g, y, a: mul(g, 0.0))


@primitive
def relu(x: Array) -> Array:
    """max(0, x), elementwise; the derivative at 0 is 0.

    Rounding: none. Source: the convention at 0 is PyTorch's and TensorFlow's.

    >>> relu(np.array([-1.0, 0.0, 2.0]))
    array([0., 0., 2.])
    """
    return kernels.activation.relu(as_dense(x, "x"))


@primitive
def gate(g: Array, x: Array) -> Array:
    """g times 1 where x > 0, 0 where x <= 0, NaN where x is NaN: the cotangent of `relu`.

    >>> gate(np.array([5.0, 5.0, 5.0]), np.array([-1.0, 0.0, 2.0]))
    array([0., 0., 5.])
    """
    g, x = same_dtype(g=g, x=x)
    check_shape(g, "g", x.shape, "that of `x`")
    return kernels.activation.gate(as_dense(g, "g"), as_dense(x, "x"))


gradient(relu, "x", lambda g, y, a: gate(g, a.x))
gradient(gate, "g", lambda g, y, a: gate(g, a.x))
gradient(gate, "x", lambda g, y, a: mul(mul(g, a.g), 0.0))


@primitive
@quiet
def leaky_relu(x: Array, slope: float = 0.01) -> Array:
    """x where x > 0, slope*x elsewhere; the derivative at 0 is `slope`.

    >>> leaky_relu(np.array([-1.0, 2.0]))
    array([-0.01,  2.  ])
    """
    x = as_array(x, "x")
    return np.where(x <= 0, x * x.dtype.type(slope), x)


gradient(leaky_relu, "x", lambda g, y, a: mul(g, step(a.x, a.slope)))


@primitive
@quiet
def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), elementwise, by exp(-|x|) alone: nothing overflows, and small values keep their digits.

    Rounding: a few ulp (NumPy's exp, one addition, one division).

    >>> sigmoid(np.array([0.0, -800.0, 800.0]))
    array([0.5, 0. , 1. ])
    """
    x = as_dense(x, "x")
    small = np.exp(-np.abs(x))
    return np.where(x < 0, small, x.dtype.type(1)) / (1 + small)


gradient(sigmoid, "x", lambda g, y, a: mul(g, mul(y, sigmoid(-a.x))))  # 1 - y would cancel


@primitive
@quiet
def tanh(x: Array) -> Array:
    """Hyperbolic tangent, elementwise.

    >>> tanh(np.array([0.0]))
    array([0.])
    """
    return np.tanh(as_dense(x, "x"))


gradient(tanh, "x", lambda g, y, a: mul(g, _sech_squared(a.x)))


def _sech_squared(x: Array) -> Array:
    """1 - tanh(x)^2 without its cancellation: 4*sigmoid(2x)*sigmoid(-2x)."""
    twice = mul(x, 2.0)
    return mul(mul(sigmoid(twice), sigmoid(-twice)), 4.0)


@primitive
@quiet
def softplus(x: Array) -> Array:
    """log(1 + exp(x)) = max(x, 0) + log1p(exp(-|x|)), elementwise, finite and accurate for every x.

    Rounding: a few ulp (NumPy's exp and log1p, one addition).

    >>> softplus(np.array([-17.0, 0.0, 89.0], dtype=np.float32))
    array([4.1399375e-08, 6.9314718e-01, 8.9000000e+01], dtype=float32)
    """
    x = as_dense(x, "x")
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


gradient(softplus, "x", lambda g, y, a: mul(g, sigmoid(a.x)))


def silu(x: Array) -> Array:
    """x * sigmoid(x), elementwise (also called swish).

    Source: Elfwing, Uchibe and Doya, arXiv 1702.03118.

    >>> silu(np.array([0.0, 800.0]))
    array([  0., 800.])
    """
    return mul(x, sigmoid(x))
