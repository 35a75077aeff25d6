"""The generative re-parameterization: a sample as a differentiable function of its distribution's parameters and of noise drawn elsewhere."""

from __future__ import annotations

import math

import numpy as np

from npreparam._errors import ShapeError
from npreparam.ops._primitive import gradient, primitive
from npreparam.ops._validate import Array, check_shape, same_dtype
from npreparam.ops.arithmetic import add, div, expm1, log, mul, square, sub, unbroadcast

HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


@primitive
def normal_rsample(mu: Array, sigma: Array, eps: Array) -> Array:
    """A re-parameterized sample of N(mu, sigma^2): z = mu + sigma*eps with eps ~ N(0, 1).

    Noise enters as an argument, so dz/dmu = 1 and dz/dsigma = eps exist; a sample drawn directly from N(mu, sigma^2) has no gradient at all.

    mu and sigma broadcast together to the shape of eps; float32 or float64, all the same. sigma is a standard deviation.

    Rounding: the product, then the sum, each rounded once.

    Raises ShapeError, DTypeError.

    Source: Kingma and Welling, Auto-encoding variational Bayes, arXiv 1312.6114, section 2.4.

    >>> normal_rsample(np.array([1.0]), np.array([2.0]), np.array([-0.5]))
    array([0.])
    """
    mu, sigma, eps = same_dtype(mu=mu, sigma=sigma, eps=eps)  # type: ignore[assignment]
    try:
        shape = np.broadcast_shapes(mu.shape, sigma.shape)
    except ValueError:
        raise ShapeError(f"shapes of `mu` {mu.shape} and `sigma` {sigma.shape} do not broadcast together") from None
    check_shape(eps, "eps", shape, "that of `mu` and `sigma` broadcast together, one number for each element of the sample")
    return mu + sigma * eps


gradient(normal_rsample, "mu", lambda g, y, a: unbroadcast(g, a.mu.shape))
gradient(normal_rsample, "sigma", lambda g, y, a: unbroadcast(mul(g, a.eps), a.sigma.shape))
gradient(normal_rsample, "eps", lambda g, y, a: mul(g, a.sigma))


def normal_log_prob(x: Array, mu: Array, sigma: Array) -> Array:
    """Logarithm of the density of N(mu, sigma^2) at x: -((x - mu)/sigma)^2/2 - log(sigma) - log(2 pi)/2, elementwise.

    >>> normal_log_prob(np.zeros(1), np.zeros(1), np.ones(1))
    array([-0.91893853])
    """
    scaled = div(sub(x, mu), sigma)
    return sub(sub(mul(square(scaled), -0.5), log(sigma)), HALF_LOG_TWO_PI)


def gaussian_kl(mu: Array, logvar: Array) -> Array:
    """Kullback-Leibler divergence of N(mu, exp(logvar)) from N(0, 1): (expm1(logvar) - logvar + mu^2)/2, elementwise.

    In nats. Written with expm1, since exp(logvar) - 1 - logvar cancels near 0.

    Source: Kingma and Welling, arXiv 1312.6114, appendix B.

    >>> gaussian_kl(np.array([1.0]), np.array([0.0]))
    array([0.5])
    """
    return mul(add(sub(expm1(logvar), logvar), square(mu)), 0.5)
