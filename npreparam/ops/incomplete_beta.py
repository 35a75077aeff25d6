"""The beta distribution as primitives: cdf, quantile, and samples that are differentiable in both concentrations (see `incomplete_gamma`).

**Accuracy.** Relative error of dz/da and dz/db below 6e-14 against mpmath for a, b from 1e-3 to 1e4 and probabilities from 1e-12 to 1 - 1e-9
(measured at a grid of such points, wherever z and 1 - z are representable). Parameters outside [1e-100, 1e15] give NaN.
See `npreparam.kernels.incomplete_beta`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from npreparam import kernels
from npreparam._errors import ShapeError
from npreparam.ops._primitive import gradient, primitive
from npreparam.ops._validate import Array, same_dtype
from npreparam.ops.arithmetic import add, div, exp, log, log1p, mul, neg, quiet, sub, summed_like
from npreparam.ops.special import checked_noise, digamma, implicit, mapped, only_arrays, slope_in_value
from npreparam.ops.xlogy import xlog1py, xlogy


def _triple(**arrays: Any) -> list[Array]:
    values = same_dtype(**arrays)
    try:
        np.broadcast_shapes(*(v.shape for v in values))
    except ValueError:
        raise ShapeError(f"shapes {[v.shape for v in values]} of {', '.join(arrays)} do not broadcast together") from None
    return values


@primitive
@quiet
def log_beta(a: Array, b: Array) -> Array:
    """log(gamma(a)*gamma(b)/gamma(a + b)) for a, b > 0, elementwise with broadcasting, without the cancellation for large arguments.

    >>> log_beta(np.array([1.0]), np.array([2.0]))    # -log 2
    array([-0.69314718])
    """
    a, b = _triple(a=a, b=b)
    return mapped(kernels.incomplete_beta.apply_log_beta, a, b)


gradient(log_beta, "a", lambda g, y, a: summed_like(mul(g, sub(digamma(a.a), digamma(add(a.a, a.b)))), a.a))
gradient(log_beta, "b", lambda g, y, a: summed_like(mul(g, sub(digamma(a.b), digamma(add(a.a, a.b)))), a.b))


def beta_log_density(a: Array, b: Array, z: Array) -> Array:
    """(a - 1)*log(z) + (b - 1)*log(1 - z) - log_beta(a, b), with 0*log(0) = 0.

    >>> beta_log_density(np.array([2.0]), np.array([1.0]), np.array([0.5]))
    array([0.])
    """
    return sub(add(xlogy(sub(a, 1.0), z), xlog1py(sub(b, 1.0), neg(z))), log_beta(a, b))


@primitive
@quiet
def betainc(a: Array, b: Array, z: Array) -> Array:
    """Regularized incomplete beta function I_z(a, b): the integral of t^(a-1)*(1-t)^(b-1)/B(a, b) from 0 to z, elementwise with broadcasting.

    >>> betainc(np.array([1.0]), np.array([2.0]), np.array([0.5]))    # 1 - (1 - z)^2
    array([0.75])
    """
    a, b, z = _triple(a=a, b=b, z=z)
    return mapped(kernels.incomplete_beta.apply_tails, a, b, z, outputs=2)[0]


@primitive
@quiet
def betaincinv(a: Array, b: Array, u: Array) -> Array:
    """The z with I_z(a, b) = u for 0 < u < 1, elementwise with broadcasting.

    >>> betaincinv(np.array([1.0]), np.array([2.0]), np.array([0.75]))
    array([0.5])
    """
    a, b, u = _triple(a=a, b=b, u=u)
    return mapped(kernels.incomplete_beta.apply_quantile, a, b, u)


@primitive
@quiet
def standard_beta_rsample(a: Array, b: Array, eps: Array) -> Array:
    """eps itself, a draw from Beta(a, b), now differentiable in a and b.

    a and b broadcast to the shape of eps. Where eps has been rounded to 0 or 1, the derivatives are 0.

    >>> standard_beta_rsample(np.array([2.0]), np.array([2.0]), np.array([0.25]))
    array([0.25])
    """
    return checked_noise(eps, a=a, b=b)[-1].copy()


@primitive
@quiet
def beta_slope_a(a: Array, b: Array, z: Array) -> Array:
    """dz/da at constant I_z(a, b), elementwise with broadcasting; always positive.

    >>> beta_slope_a(np.array([1.0]), np.array([1.0]), np.array([0.5]))    # -z*log(z)
    array([0.34657359])
    """
    return _slopes(a, b, z)[0]


@primitive
@quiet
def beta_slope_b(a: Array, b: Array, z: Array) -> Array:
    """dz/db at constant I_z(a, b), elementwise with broadcasting; always negative.

    >>> beta_slope_b(np.array([1.0]), np.array([1.0]), np.array([0.5]))    # (1 - z)*log(1 - z)
    array([-0.34657359])
    """
    return _mirrored(a, b, z)[0]


def _slopes(a: Any, b: Any, z: Any) -> tuple[Array, ...]:
    """dz/da, and its derivatives in a and b at constant z; those are not differentiable once more."""
    only_arrays("d(dz/da)/da and d(dz/da)/db of a Beta sample z", a, b, z)
    return mapped(kernels.incomplete_beta.apply_slopes, *_triple(a=a, b=b, z=z), outputs=3)


def _mirrored(a: Any, b: Any, z: Any) -> tuple[Array, ...]:
    """dz/db, and its derivatives in a and b at constant z; those are not differentiable once more."""
    only_arrays("d(dz/db)/da and d(dz/db)/db of a Beta sample z", a, b, z)
    return mapped(kernels.incomplete_beta.apply_mirrored_slopes, *_triple(a=a, b=b, z=z), outputs=3)


def _density(a: Any, z: Array) -> Array:
    return exp(beta_log_density(a.a, a.b, z))


def _log_density_slope(a: Any) -> Array:
    return sub(div(sub(a.a, 1.0), a.z), div(sub(a.b, 1.0), sub(1.0, a.z)))


def _score_a(a: Any) -> Array:
    return add(sub(log(a.z), digamma(a.a)), digamma(add(a.a, a.b)))


def _score_b(a: Any) -> Array:
    return add(sub(log1p(neg(a.z)), digamma(a.b)), digamma(add(a.a, a.b)))


gradient(betainc, "z", lambda g, y, a: summed_like(mul(g, _density(a, a.z)), a.z))
gradient(betainc, "a", lambda g, y, a: implicit(neg(mul(g, _density(a, a.z))), beta_slope_a(a.a, a.b, a.z), a.a))
gradient(betainc, "b", lambda g, y, a: implicit(neg(mul(g, _density(a, a.z))), beta_slope_b(a.a, a.b, a.z), a.b))
gradient(betaincinv, "u", lambda g, y, a: summed_like(div(g, _density(a, y)), a.u))
gradient(betaincinv, "a", lambda g, y, a: implicit(g, beta_slope_a(a.a, a.b, y), a.a))
gradient(betaincinv, "b", lambda g, y, a: implicit(g, beta_slope_b(a.a, a.b, y), a.b))
gradient(standard_beta_rsample, "a", lambda g, y, a: implicit(g, beta_slope_a(a.a, a.b, y), a.a))
gradient(standard_beta_rsample, "b", lambda g, y, a: implicit(g, beta_slope_b(a.a, a.b, y), a.b))
gradient(beta_slope_a, "a", lambda g, y, a: implicit(g, _slopes(a.a, a.b, a.z)[1], a.a))
gradient(beta_slope_a, "b", lambda g, y, a: implicit(g, _slopes(a.a, a.b, a.z)[2], a.b))
gradient(beta_slope_a, "z", lambda g, y, a: implicit(g, slope_in_value(y, _score_a(a), _log_density_slope(a)), a.z))
gradient(beta_slope_b, "a", lambda g, y, a: implicit(g, _mirrored(a.a, a.b, a.z)[1], a.a))
gradient(beta_slope_b, "b", lambda g, y, a: implicit(g, _mirrored(a.a, a.b, a.z)[2], a.b))
gradient(beta_slope_b, "z", lambda g, y, a: implicit(g, slope_in_value(y, _score_b(a), _log_density_slope(a)), a.z))
