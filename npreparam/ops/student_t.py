"""Student's t with location 0 and scale 1 as primitives: cdf, quantile, samples differentiable in the degrees of freedom (see `incomplete_gamma`).

**Accuracy.** Relative error of dt/dn below 2e-14 against mpmath for n from 1e-2 to 1e6 and probabilities within [1e-12, 1 - 1e-12], at grids of
such points. See `npreparam.kernels.student_t`.
"""

from __future__ import annotations

from typing import Any

import numpy as np  # noqa: F401  (the examples use it)

from npreparam import kernels
from npreparam.ops._primitive import gradient, primitive
from npreparam.ops._validate import Array
from npreparam.ops.arithmetic import add, broadcast_pair, div, exp, log, log1p, mul, neg, quiet, square, sub, summed_like
from npreparam.ops.incomplete_beta import log_beta
from npreparam.ops.special import checked_noise, digamma, implicit, mapped, only_arrays, slope_in_value


def t_log_density(df: Array, z: Array) -> Array:
    """-(n + 1)/2*log(1 + z^2/n) - log(n)/2 - log_beta(n/2, 1/2).

    >>> np.exp(t_log_density(np.array([1.0]), np.array([0.0])))    # 1/pi
    array([0.31830989])
    """
    half = mul(df, 0.5)
    return sub(sub(neg(mul(add(half, 0.5), log1p(div(square(z), df)))), mul(log(df), 0.5)), log_beta(half, 0.5))


@primitive
@quiet
def t_cdf(df: Array, z: Array) -> Array:
    """The cdf of Student's t, elementwise with broadcasting.

    >>> t_cdf(np.array([1.0]), np.array([1.0]))
    array([0.75])
    """
    df, z = broadcast_pair(df, z)
    return mapped(kernels.student_t.apply_cdf, df, z)


@primitive
@quiet
def t_icdf(df: Array, u: Array) -> Array:
    """The quantile of Student's t for 0 < u < 1, elementwise with broadcasting.

    >>> t_icdf(np.array([1.0]), np.array([0.75]))
    array([1.])
    """
    df, u = broadcast_pair(df, u)
    return mapped(kernels.student_t.apply_quantile, df, u)


@primitive
@quiet
def standard_t_rsample(df: Array, eps: Array) -> Array:
    """eps itself, a draw from Student's t with these degrees of freedom, now differentiable in them; df broadcasts to the shape of eps.

    >>> standard_t_rsample(np.array([3.0]), np.array([-0.5]))
    array([-0.5])
    """
    return checked_noise(eps, df=df)[-1].copy()


@primitive
@quiet
def t_slope(df: Array, z: Array) -> Array:
    """dz/dn at constant probability, elementwise with broadcasting; of the sign of -z.

    >>> t_slope(np.array([1.0]), np.array([0.0]))
    array([0.])
    """
    return _slopes(df, z)[0]


def _slopes(df: Any, z: Any) -> tuple[Array, ...]:
    """dz/dn, and its derivative in n at constant z; that is not differentiable once more."""
    only_arrays("d(dz/dn)/dn of a StudentT sample z of n degrees of freedom", df, z)
    return mapped(kernels.student_t.apply_slopes, *broadcast_pair(df, z), outputs=2)


def _score(a: Any) -> Array:
    """d log f/dn = (psi((n+1)/2) - psi(n/2) - 1/n - log(1 + z^2/n) + (n + 1)*z^2/(n*(n + z^2)))/2."""
    half, square_z = mul(a.df, 0.5), square(a.z)
    constant = sub(sub(digamma(add(half, 0.5)), digamma(half)), div(1.0, a.df))
    share = div(mul(square_z, add(a.df, 1.0)), mul(a.df, add(a.df, square_z)))
    return mul(add(sub(constant, log1p(div(square_z, a.df))), share), 0.5)


def _log_density_slope(a: Any) -> Array:
    return neg(div(mul(add(a.df, 1.0), a.z), add(a.df, square(a.z))))


def _density(a: Any, z: Array) -> Array:
    return exp(t_log_density(a.df, z))


gradient(t_cdf, "z", lambda g, y, a: summed_like(mul(g, _density(a, a.z)), a.z))
gradient(t_cdf, "df", lambda g, y, a: implicit(neg(mul(g, _density(a, a.z))), t_slope(a.df, a.z), a.df))
gradient(t_icdf, "u", lambda g, y, a: summed_like(div(g, _density(a, y)), a.u))
gradient(t_icdf, "df", lambda g, y, a: implicit(g, t_slope(a.df, y), a.df))
gradient(standard_t_rsample, "df", lambda g, y, a: implicit(g, t_slope(a.df, y), a.df))
gradient(t_slope, "df", lambda g, y, a: implicit(g, _slopes(a.df, a.z)[1], a.df))
gradient(t_slope, "z", lambda g, y, a: implicit(g, slope_in_value(y, _score(a), _log_density_slope(a)), a.z))
