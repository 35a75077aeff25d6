"""The generative re-parameterization: a sample as a differentiable function of a distribution's parameters and of noise drawn elsewhere."""

from __future__ import annotations

import math

import numpy as np

from npreparam import kernels
from npreparam._errors import ShapeError
from npreparam.ops._primitive import gradient, primitive
from npreparam.ops._validate import Array, as_dense, check_shape, same_dtype
from npreparam.ops.arithmetic import div, expm1, log, mul, quiet, square, sub, unbroadcast

HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


def broadcast_shape(**arrays: Array) -> tuple[int, ...]:
    """The shape to which arrays broadcast together."""
    try:
        return np.broadcast_shapes(*(array.shape for array in arrays.values()))
    except ValueError:
        shapes = " and ".join(f"`{name}` {array.shape}" for name, array in arrays.items())
        raise ShapeError(f"shapes of {shapes} do not broadcast together") from None


@primitive
@quiet
def normal_rsample(mu: Array, sigma: Array, eps: Array) -> Array:
    """A re-parameterized sample of N(mu, sigma^2): z = mu + sigma*eps with eps ~ N(0, 1).

    Noise enters as an argument, so dz/dmu = 1 and dz/dsigma = eps exist; a sample drawn from N(mu, sigma^2) itself has no gradient at all.

    mu and sigma broadcast together to the shape of eps; float32 or float64, all the same. sigma is a standard deviation.

    Rounding: the product, then the sum, each rounded once.

    Raises ShapeError, DTypeError.

    Source: Kingma and Welling, Auto-encoding variational Bayes, arXiv 1312.6114, section 2.4.

    >>> normal_rsample(np.array([1.0]), np.array([2.0]), np.array([-0.5]))
    array([0.])
    """
    mu, sigma, eps = same_dtype(mu=mu, sigma=sigma, eps=eps)
    shape = broadcast_shape(mu=mu, sigma=sigma)
    check_shape(eps, "eps", shape, "that of `mu` and `sigma` broadcast together, one number for each element of the sample")
    return mu + sigma * eps


gradient(normal_rsample, "mu", lambda g, y, a: unbroadcast(g, a.mu.shape))
gradient(normal_rsample, "sigma", lambda g, y, a: unbroadcast(mul(g, a.eps), a.sigma.shape))
gradient(normal_rsample, "eps", lambda g, y, a: mul(g, a.sigma))


def normal_log_prob(x: Array, mu: Array, sigma: Array) -> Array:
    """Logarithm of the density of N(mu, sigma^2) at x: -((x - mu)/sigma)^2/2 - log(sigma) - log(2 pi)/2, elementwise with broadcasting.

    float32 or float64, all the same; sigma is a standard deviation, and one that is negative gives NaN.

    Rounding: a few ulp of the sum of the three terms' magnitudes.

    Raises ShapeError, DTypeError.

    >>> normal_log_prob(np.zeros(1), np.zeros(1), np.ones(1))
    array([-0.91893853])
    """
    scaled = div(sub(x, mu), sigma)
    return sub(sub(mul(square(scaled), -0.5), log(sigma)), HALF_LOG_TWO_PI)


@primitive
@quiet
def exp_remainder(x: Array) -> Array:
    """exp(x) - 1 - x = x^2/2 + x^3/6 + ..., elementwise: what exp leaves over its tangent at 0, never negative.

    Rounding: a few ulp. The difference expm1(x) - x cancels near 0, so there the series is summed: up to x^16/16! for |x| < 1/2, where the
    rest is below u in proportion. From 64 on, x is below u in proportion to exp(x) and left out, so that infinity stays infinity.

    >>> exp_remainder(np.array([1e-8, 1.0]))
    array([5.00000002e-17, 7.18281828e-01])
    """
    return kernels.sampling.exp_remainder(as_dense(x, "x"))


gradient(exp_remainder, "x", lambda g, y, a: mul(g, expm1(a.x)))


@primitive
@quiet
def gaussian_kl(mu: Array, logvar: Array) -> Array:
    """Kullback-Leibler divergence of N(mu, exp(logvar)) from N(0, 1): (exp(logvar) - 1 - logvar + mu^2)/2, elementwise with broadcasting.

    In nats; float32 or float64, both the same; logvar is the logarithm of the *variance*.

    Rounding: a few ulp, and never negative, since nothing cancels (see `exp_remainder`).

    Raises ShapeError, DTypeError.

    Source: Kingma and Welling, Auto-encoding variational Bayes, arXiv 1312.6114, appendix B.

    >>> gaussian_kl(np.array([1.0, 0.0]), np.array([0.0, 1e-8]))
    array([5.00000000e-01, 2.50000001e-17])
    """
    mu, logvar = same_dtype(mu=mu, logvar=logvar)
    broadcast_shape(mu=mu, logvar=logvar)
    return (exp_remainder(logvar) + np.square(mu)) * mu.dtype.type(0.5)


gradient(gaussian_kl, "mu", lambda g, y, a: unbroadcast(mul(g, a.mu), a.mu.shape))
gradient(gaussian_kl, "logvar", lambda g, y, a: unbroadcast(mul(g, mul(expm1(a.logvar), 0.5)), a.logvar.shape))
