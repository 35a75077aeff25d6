"""The gamma function's logarithm and derivatives, the normal cdf, Bessel ratios, and remainders that divergences need.

All are computed in float64 and rounded once to the dtype. Accuracy against mpmath, relative unless said otherwise, is tested in tests/ops.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from npreparam import kernels
from npreparam._errors import ArgumentError
from npreparam._shapes import as_int
from npreparam.ops._primitive import gradient, primitive
from npreparam.ops._validate import Array, as_array, same_dtype
from npreparam.ops.arithmetic import add, broadcast_pair, div, exp, mul, neg, quiet, square, sub, summed_like

HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


def mapped(function: Any, *arguments: Any, outputs: int = 1) -> Any:
    """A loop kernel applied to arrays of one dtype, numbers passed on: one array, or a tuple, of that dtype."""
    dtype = next(v.dtype for v in arguments if isinstance(v, np.ndarray))
    results = tuple(r.astype(dtype, copy=False) for r in kernels.special.mapped(function, *arguments, outputs=outputs))
    return results if outputs > 1 else results[0]


@primitive
@quiet
def lgamma(x: Array) -> Array:
    """Logarithm of the gamma function of x > 0, elementwise: log of the integral of t^(x-1)*exp(-t). inf at 0.

    Rounding: a few ulp (the C library's lgamma).

    >>> lgamma(np.array([1.0, 5.0]))
    array([0.        , 3.17805383])
    """
    return mapped(kernels.special.apply_polygamma, -1, as_array(x, "x"))


@primitive
@quiet
def polygamma(order: int, x: Array) -> Array:
    """psi(x) = d/dx lgamma(x) (order 0) and its derivatives, for x > 0, elementwise; NaN for x <= 0.

    Rounding: relative error below 1e-15 * (4 + order), of psi near its zero at 1.4616... relative to 1.

    >>> polygamma(1, np.array([1.0]))    # pi^2/6
    array([1.64493407])
    """
    return mapped(kernels.special.apply_polygamma, as_int(order, "order", 0), as_array(x, "x"))


def digamma(x: Array) -> Array:
    """psi(x), the derivative of `lgamma`: polygamma(0, x).

    >>> digamma(np.array([1.0]))    # minus Euler's constant
    array([-0.57721566])
    """
    return polygamma(0, x)


gradient(lgamma, "x", lambda g, y, a: mul(g, polygamma(0, a.x)))
gradient(polygamma, "x", lambda g, y, a: mul(g, polygamma(a.order + 1, a.x)))


def normal_density(x: Array) -> Array:
    """The density of N(0, 1): exp(-x^2/2)/sqrt(2 pi).

    >>> normal_density(np.array([0.0]))
    array([0.39894228])
    """
    return exp(sub(mul(square(x), -0.5), HALF_LOG_TWO_PI))


@primitive
@quiet
def ndtr(x: Array) -> Array:
    """The cdf of N(0, 1), elementwise: erfc(-x/sqrt(2))/2, with the digits of the lower tail.

    >>> ndtr(np.array([0.0, -10.0]))
    array([5.00000000e-01, 7.61985302e-24])
    """
    return mapped(kernels.special.apply_ndtr, as_array(x, "x"))


@primitive
@quiet
def ndtri(u: Array) -> Array:
    """The quantile of N(0, 1), elementwise, for 0 < u < 1: the inverse of `ndtr`.

    >>> ndtri(np.array([0.5, 0.975]))
    array([0.        , 1.95996398])
    """
    return mapped(kernels.special.apply_ndtri, as_array(u, "u"))


gradient(ndtr, "x", lambda g, y, a: mul(g, normal_density(a.x)))
gradient(ndtri, "u", lambda g, y, a: div(g, normal_density(y)))


@primitive
@quiet
def log1p_remainder(x: Array) -> Array:
    """x - log(1 + x) for x > -1, elementwise: never negative, and without cancellation near 0.

    >>> log1p_remainder(np.array([1e-8]))
    array([4.99999997e-17])
    """
    return mapped(kernels.special.apply_log1p_remainder, as_array(x, "x"))


gradient(log1p_remainder, "x", lambda g, y, a: mul(g, div(a.x, add(a.x, 1.0))))


@primitive
@quiet
def lgamma_remainder(a: Array, h: Array) -> Array:
    """lgamma(a + h) - lgamma(a) - h*psi(a), elementwise with broadcasting: what lgamma leaves over its tangent; never negative, 0 at h = 0.

    a and a + h are positive. Rounding: relative error about 1e-12 at worst, near |h| = a/16 for a = 1e6, where the series for small h begins.

    >>> lgamma_remainder(np.array([1.0]), np.array([1e-6]))    # pi^2/12*h^2
    array([8.22466633e-13])
    """
    a, h = broadcast_pair(a, h)
    return mapped(kernels.special.apply_lgamma_remainder, a, h)


def _psi_step(a: Any) -> Array:
    return sub(digamma(add(a.a, a.h)), digamma(a.a))


gradient(lgamma_remainder, "a", lambda g, y, a: summed_like(mul(g, sub(_psi_step(a), mul(a.h, polygamma(1, a.a)))), a.a))
gradient(lgamma_remainder, "h", lambda g, y, a: summed_like(mul(g, _psi_step(a)), a.h))


@primitive
@quiet
def log_i0(x: Array) -> Array:
    """Logarithm of the modified Bessel function I0 of x >= 0, elementwise; finite however large x is.

    >>> log_i0(np.array([0.0, 1000.0]))
    array([  0.        , 995.62730889])
    """
    return mapped(kernels.von_mises.apply_constants, as_array(x, "x"), outputs=3)[0]


@primitive
@quiet
def i1_i0(x: Array) -> Array:
    """I1(x)/I0(x) for x >= 0, elementwise: the mean of cos(Z) for Z von Mises with concentration x; the slope of `log_i0`.

    >>> i1_i0(np.array([0.0, 1.0]))
    array([0.        , 0.44638997])
    """
    return mapped(kernels.von_mises.apply_constants, as_array(x, "x"), outputs=3)[1]


def _i1_i0_slope(x: Any) -> Array:
    """The variance of cos(Z); not differentiable once more."""
    return mapped(kernels.von_mises.apply_constants, as_array(x, "x"), outputs=3)[2]


gradient(log_i0, "x", lambda g, y, a: mul(g, i1_i0(a.x)))
gradient(i1_i0, "x", lambda g, y, a: mul(g, _i1_i0_slope(a.x)))


def checked_noise(eps: Any, **parameters: Any) -> list[Array]:
    """The parameters and the noise as arrays of one dtype, broadcast to the shape of the noise."""
    *values, eps = same_dtype(**parameters, eps=eps)
    return [*(np.broadcast_to(value, eps.shape) for value in values), eps]


def implicit(g: Array, slope: Array, parameter: Any) -> Array:
    """A cotangent of a sample on its way to a parameter: g*dz/dtheta, summed to the parameter's shape."""
    return summed_like(mul(g, slope), parameter)


def only_arrays(derivative: str, *arguments: Any) -> None:
    """Raise ArgumentError where the tape wants to record how a sample's slope changes with its parameters, of which no derivative is known."""
    if any(hasattr(type(argument), "__npreparam_apply__") for argument in arguments):
        raise ArgumentError(f"the derivatives of {derivative} are not implemented: samples re-parameterized implicitly can be differentiated "
                            "twice in their parameters, not three times; take the second derivative with create_graph=False")


def slope_in_value(slope: Array, score: Array, log_density_slope: Array) -> Array:
    """How r = dz/dtheta changes with z: f*r = -dF/dtheta differentiated in z gives dr/dz = -d(log f)/dtheta - r*d(log f)/dz."""
    return neg(add(score, mul(slope, log_density_slope)))
