"""The generative re-parameterization and its terms, correctly rounded, decided by a wider format (see `_wide`). In units of u, to first order:

    mu + sigma*eps                       1 for the product, 1 for the sum
    ((x - mu)/sigma)^2/2                 5: the difference and the quotient, doubled by the square, and the square
    log(sigma), log(2*pi)/2              8; 1
    exp(v) - 1 - v = v^2*p(v), |v| <= 1  p = 1/2! + v/3! + ..., by Horner's rule: 8, and 2 for the products by v
    exp(v) - 1 - v, |v| > 1              8 times exp(v) - 1, and the difference

Horner's rule: the step at v^k is wrong by 3 times its size, |v|^k/(k + 2)! and the rest, less than 1.4 of it; 3*1.4*(e - 2) < 8*p(-1).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from npreparam.certified._affine import Array, target
from npreparam.certified._record import Certified
from npreparam.certified._wide import Wide, finite
from npreparam.exact.rounding import FORMATS, as_fractions, checked, result_dtype, round_to_bits
from npreparam.exact.sampling import check_positive, gaussian_kl_between, normal_log_prob_between, together
from npreparam.exact.ziv import Interval, round_real

HALF_LOG_2PI = "0.91893853320467274178032973640561763986"
TERMS = 24  # of p: the next one is below 2^-84


def normal_rsample(mu: Any, sigma: Any, eps: Any, out_dtype: Any = "same") -> Certified:
    """A re-parameterized sample of N(mu, sigma^2), z = mu + sigma*eps with eps ~ N(0, 1), correctly rounded.

    mu and sigma broadcast together to the shape of eps; these and the result are float16, bfloat16, float32 or float64. sigma is a standard
    deviation.

    Rounding: once, to nearest, ties to even. Raises ShapeError, DTypeError, ArgumentError (NaN or infinity).

    Source: Kingma and Welling, Auto-encoding variational Bayes, arXiv 1312.6114, section 2.4.

    >>> normal_rsample(np.array([1.0]), np.array([2.0]), np.array([-0.25])).value
    array([0.5])
    """
    mu, sigma, eps = finite(mu, "mu"), finite(sigma, "sigma"), finite(eps, "eps")
    dtype = target(result_dtype(out_dtype, mu))
    arguments = (*together({"mu": mu, "sigma": sigma}), eps)
    checked(eps, "eps", arguments[0].shape)
    wide = Wide(*(a.dtype for a in arguments), dtype)

    def repair(opened: Array) -> list[int]:
        return [round_to_bits(m + s * e, FORMATS[dtype.name]) for m, s, e in _fractions(arguments, opened)]

    with np.errstate(all="ignore"):
        m, s, e = wide.of(*arguments)
        product = s * e
        return wide.rounded(m + product, np.abs(product) + np.abs(m + product), dtype, repair)


def normal_log_prob(x: Any, mu: Any, sigma: Any, out_dtype: Any = "same") -> Certified:
    """Logarithm of the density of N(mu, sigma^2) at x, -((x - mu)/sigma)^2/2 - log(2*pi*sigma^2)/2, correctly rounded.

    Elementwise with broadcasting, dtypes as in `normal_rsample`. sigma is a standard deviation.

    Rounding: once, to nearest, ties to even. Raises ShapeError, DTypeError, ArgumentError (sigma not positive; NaN or infinity).

    >>> normal_log_prob(np.zeros(1), np.zeros(1), np.ones(1)).value
    array([-0.91893853])
    """
    arguments = together({name: finite(a, name) for name, a in (("x", x), ("mu", mu), ("sigma", sigma))})
    check_positive(arguments[2])
    dtype = target(result_dtype(out_dtype, x))
    wide = Wide(*(a.dtype for a in arguments), dtype)
    with np.errstate(all="ignore"):
        value, mean, deviation = wide.of(*arguments)
        square, scale, constant = ((value - mean) / deviation) ** 2 / 2, np.log(deviation), wide.type(HALF_LOG_2PI)
        units = 7 * square + 10 * np.abs(scale) + 3 * constant
        return wide.rounded(-square - (scale + constant), units, dtype, _each(normal_log_prob_between, arguments, dtype))


def gaussian_kl(mu: Any, logvar: Any, out_dtype: Any = "same") -> Certified:
    """Kullback-Leibler divergence of N(mu, exp(logvar)) from N(0, 1), (exp(logvar) - 1 - logvar + mu^2)/2, correctly rounded.

    In nats; elementwise with broadcasting, dtypes as in `normal_rsample`; logvar is the logarithm of the *variance*.

    Rounding: once, to nearest, ties to even. Raises ShapeError, DTypeError, ArgumentError (NaN or infinity).

    Source: Kingma and Welling, Auto-encoding variational Bayes, arXiv 1312.6114, appendix B.

    >>> gaussian_kl(np.array([1.0, 0.0]), np.array([0.0, 1e-8])).value
    array([5.00000000e-01, 2.50000001e-17])
    """
    arguments = together({"mu": finite(mu, "mu"), "logvar": finite(logvar, "logvar")})
    dtype = target(result_dtype(out_dtype, mu))
    wide = Wide(*(a.dtype for a in arguments), dtype)
    with np.errstate(all="ignore"):
        m, v = wide.of(*arguments)
        near, power = np.clip(v, -1, 1), np.expm1(v)
        polynomial = np.zeros_like(v)
        for k in range(TERMS, 1, -1):
            polynomial = polynomial * near + 1 / wide.type(math.factorial(k))
        small, large = near * near * polynomial, np.minimum(power, wide.huge) - v
        square, rest = m * m, np.where(np.abs(v) <= 1, small, large)
        units = square + np.where(np.abs(v) <= 1, 10 * small, 8 * np.minimum(np.abs(power), wide.huge) + large) + (square + rest)
        return wide.rounded((square + rest) / 2, units / 2, dtype, _each(gaussian_kl_between, arguments, dtype), wide.type(0))


def _fractions(arguments: Sequence[Array], opened: Array) -> list[tuple[Fraction, ...]]:
    """The arguments at these flat indices."""
    return list(zip(*(as_fractions(a.reshape(-1)[opened], "arguments") for a in arguments), strict=True))


def _each(between: Callable[..., Interval], arguments: Sequence[Array], dtype: np.dtype[Any]) -> Callable[[Array], list[int]]:
    """The repair by an interval function of `exact`."""
    def repair(opened: Array) -> list[int]:
        return [round_real(functools.partial(between, *values), FORMATS[dtype.name]) for values in _fractions(arguments, opened)]

    return repair
