"""The example whose gradients have closed-form variances: E[(z - k)^2], z ~ N(mu, sigma^2), which is (mu - k)^2 + sigma^2."""

from __future__ import annotations

import math
from typing import NamedTuple

from npreparam._errors import ArgumentError
from npreparam._shapes import as_int

HEADROOM = 1e16  # of a variance below the largest number, so that squares of single gradients fit too


class Moments(NamedTuple):
    """Mean and variance of one sample's gradient.

    >>> quadratic_moments(1.0, 1.0, -3.0, samples=100)["pathwise"]["mu"].variance
    4.0
    """

    mean: float
    variance: float


def quadratic_moments(mu: float, sigma: float, k: float, samples: int) -> dict[str, dict[str, Moments]]:
    """Exact moments of every estimator's gradient with respect to mu and sigma; a = mu - k, s = sigma, n the samples. The means are 2a and 2s.

        estimator          variance for mu                      variance for sigma
        score function     a^4/s^2 + 14a^2 + 15s^2              2a^4/s^2 + 60a^2 + 74s^2
        leave-one-out      8a^2 + 10s^2 + (4a^2 + 2s^2)/(n-1)   40a^2 + 56s^2 + (8a^2 + 4s^2)/(n-1)
        optimal baseline   8a^2 + 6s^2                          40a^2 + 24s^2
        measure-valued     a^2(16/pi - 4)                       4a^2 + 4s^2
        pathwise           4s^2                                 4a^2 + 8s^2

    Of the optimal baseline, the variance is that of the constant itself, which the estimate nears as n grows.

    Raises ArgumentError for a sigma that is not positive, numbers that are not finite, and variances too large for float64.

    Source: with f of degree 2 they are moments of a normal, a Rayleigh and a Maxwell variable; the curves are those of Mohamed et al.,
    JMLR 21(132), 2020, figure 2.

    >>> quadratic_moments(1.0, 1.0, -3.0, samples=100)["score function"]["sigma"]
    Moments(mean=2.0, variance=1546.0)
    """
    for name, value in {"mu": mu, "sigma": sigma, "k": k}.items():
        if not math.isfinite(value):
            raise ArgumentError(f"`{name}` (={value}) must be finite")
    if sigma <= 0:
        raise ArgumentError(f"`sigma` (={sigma}) must be positive")
    n, a, s = as_int(samples, "samples", 2), mu - k, sigma
    aa, ss, ratio = a * a, s * s, (a * a / s) * (a * a / s)
    variances: dict[str, tuple[float, float]] = {
        "score function": (ratio + 14 * aa + 15 * ss, 2 * ratio + 60 * aa + 74 * ss),
        "leave-one-out": (8 * aa + 10 * ss + (4 * aa + 2 * ss) / (n - 1), 40 * aa + 56 * ss + (8 * aa + 4 * ss) / (n - 1)),
        "optimal baseline": (8 * aa + 6 * ss, 40 * aa + 24 * ss),
        "measure-valued": (aa * (16 / math.pi - 4), 4 * aa + 4 * ss),
        "pathwise": (4 * ss, 4 * aa + 8 * ss),
    }
    if not math.isfinite(HEADROOM * max(variances["score function"])):
        raise ArgumentError(f"`mu` (={mu}), `sigma` (={sigma}) and `k` (={k}) lead to variances beyond float64; choose a smaller mu - k, or a "
                            "sigma of its size")
    return {name: {"mu": Moments(2 * a, for_mu), "sigma": Moments(2 * s, for_sigma)} for name, (for_mu, for_sigma) in variances.items()}
