"""The generative re-parameterization and its terms: how far an honest implementation may be. Functions and steps as in `functions`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from npreparam.certified.bounds._majorant import Floats, quiet, up
from npreparam.certified.bounds.functions import ULPS, finished, least, relative
from npreparam.certified.bounds.profile import Profile, profiled, unit

HALF_LOG_2PI = math.log(2 * math.pi) / 2


@profiled
@quiet
def normal_rsample_bound(mu: Any, sigma: Any, eps: Any, profile: Profile | str | None = None) -> Floats:
    """How far an honest mu + sigma*eps may be: two roundings, |error| <= ((1 - u)^-2 - 1)*(|mu| + |sigma*eps|) + underflow.

    The arguments broadcast together; the bound is float64. Raises DTypeError, ArgumentError (NaN, infinity).

    >>> bool(normal_rsample_bound(np.float32([1.0]), np.float32([1.0]), np.float32([1.0])) < 5 * 2.0**-24)
    True
    """
    (m, dm), (s, ds), (e, de) = (profile.operand(v, name) for v, name in ((mu, "mu"), (sigma, "sigma"), (eps, "eps")))
    size = np.abs(m) + np.abs(s * e)
    return finished(relative(profile, 0, 0, 2) * size + 2 * least(profile) + dm + ds * (np.abs(e) + de) + de * np.abs(s), size, profile)


@profiled
@quiet
def normal_log_prob_bound(x: Any, mu: Any, sigma: Any, ulps: float = ULPS, profile: Profile | str | None = None) -> Floats:
    """How far an honest -((x - mu)/sigma)^2/2 - log(sigma) - log(2*pi)/2 may be.

    Seven operations on the square, as ((x - mu)/sigma)^2/2 or (x - mu)^2/(2*sigma^2); one function on a logarithm of at most 2|log sigma| +
    log(2*pi), whose argument, sigma^2 or 2*pi*sigma^2, is off by three; four on their sum. Infinite where sigma^2 or the square may leave the range.

    The arguments broadcast together; the bound is float64. Raises DTypeError, ArgumentError (NaN, infinity).

    >>> bool(normal_log_prob_bound(np.float32([0.0]), np.float32([0.0]), np.float32([1.0])) < 30 * 2.0**-24)
    True
    """
    (v, dv), (m, dm), (s, ds) = (profile.operand(v, name) for v, name in ((x, "x"), (mu, "mu"), (sigma, "sigma")))
    square, logarithm = ((v - m) / s) ** 2 / 2, np.abs(np.log(s)) + HALF_LOG_2PI
    tiny = least(profile) * (2 + np.abs(v - m) + 1 / s) * (1 + 1 / s)
    error = relative(profile, ulps, 0, 7) * square + relative(profile, ulps, 1, 0) * 2 * logarithm + relative(profile, ulps, 0, 3)
    error = error + relative(profile, ulps, 0, 4) * (square + 2 * logarithm) + 4 * tiny
    drift = np.abs(v - m) / s * ((dv + dm) / s + ds / s * np.abs(v - m) / s) * 4 + (dv + dm) ** 2 / s**2 + 2 * ds / s
    inside = (s * s * unit(profile.accumulator) > profile.tiny) & (2 * math.pi * s * s < profile.limit) & ((v - m) ** 2 < profile.limit)
    return np.where(inside, finished(error + drift, square + 2 * logarithm, profile), np.inf)


@profiled
@quiet
def gaussian_kl_bound(mu: Any, logvar: Any, ulps: float = ULPS, profile: Profile | str | None = None) -> Floats:
    """How far an honest (exp(logvar) + mu^2 - 1 - logvar)/2 may be: one function and five operations on the sum of the magnitudes.

    The arguments broadcast together; the bound is float64. Raises DTypeError, ArgumentError (NaN, infinity).

    >>> bool(gaussian_kl_bound(np.float32([0.0]), np.float32([0.0])) < 15 * 2.0**-24)
    True
    """
    (m, dm), (v, dv) = profile.operand(mu, "mu"), profile.operand(logvar, "logvar")
    power = np.exp(v)
    size = (power + m * m + 1 + np.abs(v)) / 2
    drift = dm * (np.abs(m) + dm) + dv * (1 + up(power) * np.exp(dv)) / 2
    return finished(relative(profile, ulps, 1, 5) * size + 4 * least(profile) + drift, 2 * size, profile)
