"""The regularized incomplete gamma function P(a, x), its quantile, and how the quantile moves with a.

With f(x) = x^(a-1)*exp(-x)/gamma(a), W = x*f(x), L = log(x) - psi(a) and t = x*exp(v) or x*exp(-v),

    1 - P = W * J         J = integral over v > 0 of E(v)     E = exp(a*v - x*(e^v - 1))
        P = W * J                                             E = exp(-a*v + x*(1 - e^-v))
    dx/da = -(dP/da)/f = x * integral of (v + L)*E (upper)  =  x * integral of (v - L)*E (lower)

Upper is used where L >= 0, lower where L <= 0: both integrands are then positive, and nothing cancels, in the tails either. The integrands are
entire in v, so Gauss-Legendre nodes on the interval where E > exp(-40) suffice. For small a, lower is the series with
c_k = x^k/(a*(a+1)*...*(a+k)), whose terms are positive for x <= a + 1/2, for psi(a + 1) > log(a + 1/2):

    J = sum of c_k        dx/da = x * sum of c_k*(psi(a+k+1) - log(x))
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from npreparam.kernels._compile import kernel
from npreparam.kernels.special import (
    HALF_LOG_TWO_PI,
    NODES,
    SHIFT,
    WEIGHTS,
    digamma,
    log1p_remainder,
    log_minus_digamma,
    ndtri,
    stirling_error,
    usable,
    zeta,
)

SERIES = 30.0  # the lower series below this a


@kernel
def log_weight(a: float, x: float) -> float:
    """log(W) = a*log(x) - x - lgamma(a), by Stirling's series around x = a for large a."""
    if a < SHIFT:
        return a * math.log(x) - x - math.lgamma(a)
    return 0.5 * math.log(a) - HALF_LOG_TWO_PI - stirling_error(a) - a * log1p_remainder((x - a) / a)


@kernel
def _log_x_minus_digamma(a: float, x: float) -> float:
    if a < SHIFT:
        return math.log(x) - digamma(a)
    near = abs(x - a) < 0.5 * a
    return (math.log1p((x - a) / a) if near else math.log(x / a)) + log_minus_digamma(a)


@kernel
def _series(a: float, x: float) -> tuple[float, float, float]:
    low, psi, log_x = digamma(a), digamma(a + 1), math.log(x)
    tri = zeta(2.0, a + 1)
    c, k = 1 / a, 0
    j, slope, curve = 0.0, 0.0, 0.0
    while True:
        j += c
        slope += c * (psi - log_x)
        curve += c * (tri - (psi - log_x) * (psi - low))
        k += 1
        if c * (a + k) <= 1e-18 * j * (a + k - x):  # the rest is below c/(1 - x/(a + k))
            return j, x * slope, x * curve
        c *= x / (a + k)
        psi += 1 / (a + k)
        tri -= 1 / (a + k) ** 2


@kernel
def gamma_parts(a: float, x: float) -> tuple[float, float, float, bool]:
    """(J, dx/da, its derivative in a at constant x, whether J is lower) for a, x > 0."""
    if a < SERIES and x <= a + 0.5:
        j, slope, curve = _series(a, x)
        return j, slope, curve, True
    offset = _log_x_minus_digamma(a, x)
    lower = offset < 0 and a >= SERIES
    side = -1.0 if lower else 1.0
    gap = side * (x - a)
    end = 80 / (gap + math.sqrt(max(gap, 0.0) ** 2 + 40 * x))
    if not lower:
        end = min(end, max(1.26, math.log1p(80 / x)))
    tri = zeta(2.0, a)
    j, slope, curve = 0.0, 0.0, 0.0
    panels = 1 if end < 1 else 3
    for panel in range(panels):
        for i in range(len(NODES)):
            v = side * end * (panel + NODES[i]) / panels
            e = WEIGHTS[i] * math.exp(a * v - x * math.expm1(v))
            j += e
            slope += e * side * (offset + v)
            curve += e * side * ((offset + v) * v - tri)
    width = end / panels
    return j * width, x * slope * width, x * curve * width, lower


@kernel
def tails(a: float, x: float) -> tuple[float, float]:
    """(P, 1 - P)."""
    if x <= 0:
        return 0.0, 1.0
    if x == np.inf:
        return 1.0, 0.0
    j, _, _, lower = gamma_parts(a, x)
    part = min(math.exp(log_weight(a, x)) * j, 1.0)
    return (part, 1 - part) if lower else (1 - part, part)


@kernel
def quantile(a: float, u: float) -> float:
    """x with P(a, x) = u: Newton's method on the logarithm of the smaller tail, over log(x), between bounds."""
    low = (math.log(u) + math.lgamma(a + 1)) / a  # P <= x^a/gamma(a + 1)
    if low < -740:
        return math.exp(low)  # P = x^a/gamma(a + 1) to within a factor 1 + x
    high = math.log(a + 40 * math.sqrt(a) + 800)
    cube = 1 - 1 / (9 * a) + ndtri(u) / (3 * math.sqrt(a))  # Wilson and Hilferty
    y = min(max(low, math.log(a) + 3 * math.log(max(cube, 1e-3))), high) if a > 0.5 else low
    for _ in range(200):
        x = math.exp(y)
        p, q = tails(a, x)
        if (p < u) if u < 0.5 else (q > 1 - u):
            low = y
        else:
            high = y
        weight, new = math.exp(log_weight(a, x)), low
        if weight > 0 and p > 0 and q > 0:
            new = y - (math.log(p / u) * p if u < 0.5 else -math.log(q / (1 - u)) * q) / weight
        if not low < new < high:
            new = 0.5 * (low + high)
        if abs(new - y) <= 4e-16 * max(1.0, abs(y)):
            return math.exp(new)
        y = new
    return math.exp(y)


@kernel
def apply_tails(first: int, last: int, a: Any, x: Any, p: Any, q: Any) -> None:
    """P and 1 - P."""
    for i in range(first, last):
        p[i], q[i] = tails(a[i], x[i]) if usable(a[i]) and x[i] >= 0 else (np.nan, np.nan)


@kernel
def apply_quantile(first: int, last: int, a: Any, u: Any, x: Any) -> None:
    """The quantile."""
    for i in range(first, last):
        x[i] = quantile(a[i], u[i]) if usable(a[i]) and 0 < u[i] < 1 else np.nan


@kernel
def apply_slopes(first: int, last: int, a: Any, x: Any, slope: Any, curve: Any) -> None:
    """dx/da at constant probability, and its derivative in a at constant x; 0 at x = 0, where a sample has underflowed."""
    for i in range(first, last):
        slope[i], curve[i] = (0.0, 0.0) if usable(a[i]) and x[i] == 0 else (np.nan, np.nan)
        if usable(a[i]) and 0 < x[i] < np.inf:
            _, slope[i], curve[i], _ = gamma_parts(a[i], x[i])
