"""How the quantile of Student's t moves with the degrees of freedom n; its tails and quantile come from the incomplete beta function.

With s = sqrt(n)*sinh(w), p = tanh(w)^2, density f(s) proportional to cosh(w)^-(n+1), and the score g(s) = d log f(s)/dn,

    g = c - (-log(1 - p) - p)/2 + p/(2n)        c = (psi((n+1)/2) - psi(n/2) - 1/n)/2
    dt/dn = -(dF/dn)/f = -integral over (0, t) of g*f/f(t)  =  integral over (t, inf) of g*f/f(t)        for t > 0

g is positive up to some t and negative from there on: the first form is used where g(t) > 0, the second elsewhere, so that nothing cancels.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from npreparam.kernels import incomplete_beta
from npreparam.kernels._compile import kernel
from npreparam.kernels.special import BERNOULLI, NODES, SHIFT, WEIGHTS, digamma_difference, log1p_remainder, usable, zeta

LOG_TWO = math.log(2)
LINEAR, PANEL, DROP = 20.0, 2.0, 40.0  # cosh is an exponential beyond LINEAR; its nearest zero is at distance pi/2
PANELS = 1000  # at most, as in `incomplete_beta`


@kernel
def score_constants(n: float) -> tuple[float, float]:
    """c and dc/dn; for large n by the series of psi(z + 1/2) - psi(z) - 1/(2z), z = n/2: sum of (1 - 4^-k)*B_2k/k*z^-2k."""
    z = 0.5 * n
    if z < SHIFT:
        return 0.5 * (digamma_difference(z, 0.5) - 1 / n), 0.25 * (zeta(2.0, z + 0.5) - zeta(2.0, z)) + 0.5 / (n * n)
    value, slope, power = 0.0, 0.0, 1.0
    for k in range(1, 9):
        power /= z * z
        term = (1 - 4.0**-k) * BERNOULLI[k - 1] / k * power
        value += term
        slope -= 2 * k * term / n
    return 0.5 * value, 0.5 * slope


@kernel
def score(n: float, w: float, constant: float) -> float:
    """g at s = sqrt(n)*sinh(w), w >= 0: as written above where w is small, else with log(1 - p) = -2*log(cosh(w))."""
    p = math.tanh(w) ** 2
    if w < 0.5:
        return constant - 0.5 * log1p_remainder(-p) + 0.5 * p / n
    return constant - (w + math.log1p(math.exp(-2 * w)) - LOG_TWO) + 0.5 * p + 0.5 * p / n


@kernel
def _log_cosh_ratio(w: float, start: float) -> float:
    """log(cosh(w)/cosh(start)) for w, start >= 0: by sinh(w - start)*sinh(w + start) = cosh(w)^2 - cosh(start)^2 where they are close."""
    if abs(w - start) > 0.25:
        return (w + math.log1p(math.exp(-2 * w))) - (start + math.log1p(math.exp(-2 * start)))
    return 0.5 * math.log1p(math.sinh(w - start) * math.sinh(w + start) / math.cosh(start) ** 2)


@kernel
def _panel_end(w: float, inner: bool, n: float, sharp: float) -> float:
    if inner:
        return LINEAR if w > LINEAR else max(w - PANEL, 0.0)
    return min(w + min(PANEL, sharp), LINEAR) if w < LINEAR else w + DROP / n


@kernel
def t_parts(n: float, t: float) -> tuple[float, float]:
    """dt/dn at constant probability and its derivative in n at constant t, for t > 0."""
    c, c_n = score_constants(n)
    start = math.asinh(t / math.sqrt(n))
    here = score(n, start, c)
    inner = here > 0
    pull = n * math.tanh(start)
    sharp = 2 * DROP / (pull + math.sqrt(pull * pull + 2 * DROP * n))
    slope, curve, w, drop = 0.0, 0.0, start, 0.0
    for panel in range(PANELS + 1):
        if not ((w > 0) if inner else (drop > -DROP)):
            break
        if panel == PANELS:
            slope = math.nan
        end = _panel_end(w, inner, n, sharp)
        for i in range(len(NODES)):
            point = w + (end - w) * NODES[i]
            e = WEIGHTS[i] * abs(end - w) * math.exp(-n * _log_cosh_ratio(point, start))
            p = math.tanh(point) ** 2
            g = score(n, point, c)
            slope += e * g
            curve += e * (c_n + 0.5 * p / (n * n) * (p * (n + 1) - 2) + g * (g - here))
        drop = -n * _log_cosh_ratio(end, start) if end <= LINEAR else -2 * DROP
        w = end
    size = (-1 if inner else 1) * math.sqrt(n + t * t)  # sqrt(n)*cosh(start)
    return size * slope, size * curve


@kernel
def tails(n: float, t: float) -> tuple[float, float]:
    """(F, 1 - F) of t > 0 is (1 - I/2, I/2) with I at n/(n + t^2) for (n/2, 1/2)."""
    square = t / math.sqrt(n) * (t / math.sqrt(n))
    low, _ = incomplete_beta.tails(0.5 * n, 0.5, 1 / (1 + square), square / (1 + square) if square < 1e300 else 1.0)
    return 1 - 0.5 * low, 0.5 * low


@kernel
def apply_cdf(first: int, last: int, n: Any, t: Any, p: Any) -> None:
    """The cdf."""
    for i in range(first, last):
        high, low = tails(n[i], abs(t[i])) if usable(n[i]) else (np.nan, np.nan)
        p[i] = high if t[i] > 0 else low


@kernel
def apply_quantile(first: int, last: int, n: Any, u: Any, t: Any) -> None:
    """The quantile."""
    for i in range(first, last):
        if not (usable(n[i]) and 0 < u[i] < 1):
            t[i] = np.nan
            continue
        tail = min(u[i], 1 - u[i])
        x, y = incomplete_beta.quantile(0.5 * n[i], 0.5, 2 * tail) if tail < 0.5 else (1.0, 0.0)
        size = math.sqrt(n[i] * y / x)
        t[i] = size if u[i] >= 0.5 else -size


@kernel
def apply_slopes(first: int, last: int, n: Any, t: Any, slope: Any, curve: Any) -> None:
    """dt/dn at constant probability, and its derivative in n at constant t; odd in t, NaN where t has overflowed."""
    for i in range(first, last):
        slope[i], curve[i] = (0.0, 0.0) if usable(n[i]) and t[i] == 0 else (np.nan, np.nan)
        if usable(n[i]) and 0 < abs(t[i]) < np.inf:
            s, c = t_parts(n[i], abs(t[i]))
            slope[i], curve[i] = math.copysign(1.0, t[i]) * s, math.copysign(1.0, t[i]) * c
