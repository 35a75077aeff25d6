"""Gamma-family functions of one positive number, Gauss-Legendre nodes, and the loop that applies such functions to arrays.

All of it in float64, on several threads where there is much to do. Accuracy is stated at the doors, in `npreparam.ops.special`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npreparam.kernels import _threads
from npreparam.kernels._compile import kernel

Array = NDArray[Any]
NODES, WEIGHTS = (np.ascontiguousarray(v) for v in np.polynomial.legendre.leggauss(32))
NODES, WEIGHTS = (NODES + 1) / 2, WEIGHTS / 2  # of the unit interval
BERNOULLI = np.array([1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510, 43867 / 798, -174611 / 330])  # B_2, B_4, ...
SHIFT = 12.0  # asymptotic series are used from here on
HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)
SMALL = 500  # elements
LEAST, MOST = 1e-100, 1e15  # shape parameters outside give NaN: integrals over such scales were never looked at


@kernel
def usable(a: float) -> bool:
    """Whether the incomplete functions take this shape parameter."""
    return LEAST <= a <= MOST


@kernel
def log_minus_digamma(x: float) -> float:
    """log(x) - psi(x) for x >= SHIFT: 1/(2x) + sum of B_2k/(2k*x^2k)."""
    total, power = 0.5 / x, 1.0
    for k in range(8):
        power /= x * x
        total += BERNOULLI[k] / (2 * k + 2) * power
    return total


@kernel
def digamma(x: float) -> float:
    """psi(x): shifted up by psi(x) = psi(x + 1) - 1/x."""
    low = 0.0
    while x < SHIFT:
        low += 1 / x
        x += 1
    return math.log(x) - log_minus_digamma(x) - low


@kernel
def digamma_difference(a: float, b: float) -> float:
    """psi(a + b) - psi(a), every term positive, so that small differences keep their digits."""
    total = 0.0
    while a < SHIFT:
        total += b / (a * (a + b))
        a += 1
    step = math.log1p(b / a)
    total += step + 0.5 * b / (a * (a + b))
    power = 1.0
    for k in range(8):
        power /= a * a
        total += BERNOULLI[k] / (2 * k + 2) * power * -math.expm1(-(2 * k + 2) * step)
    return total


@kernel
def zeta(s: float, x: float) -> float:
    """Hurwitz zeta: sum over k of (x + k)^-s, by Euler and Maclaurin after SHIFT."""
    total = 0.0
    while x < SHIFT:
        total += x**-s
        x += 1
    power = x**-s
    total += power * (x / (s - 1) + 0.5)
    factor = s / x
    for k in range(10):
        total += BERNOULLI[k] * factor * power / ((2 * k + 1) * (2 * k + 2))
        factor *= (s + 2 * k + 1) * (s + 2 * k + 2) / (x * x * (2 * k + 1) * (2 * k + 2))
    return total


@kernel
def polygamma(order: int, x: float) -> float:
    """The derivative of order `order` of psi: (-1)^(n+1) * n! * zeta(n + 1, x)."""
    if not x > 0:
        return np.nan
    if order == 0:
        return digamma(x)
    return (-1.0) ** (order + 1) * math.gamma(order + 1.0) * zeta(order + 1.0, x)


@kernel
def log1p_remainder(x: float) -> float:
    """x - log(1 + x) for x > -1: near 0 x*t - 2*(t^3/3 + t^5/5 + ...) with t = x/(2 + x), else the difference."""
    if abs(x) > 0.5:
        return x - math.log1p(x)
    t = x / (2 + x)
    series = 0.0
    for k in range(19, 0, -1):
        series = series * t * t + 1.0 / (2 * k + 1)
    return x * t - 2 * t * t * t * series


@kernel
def stirling_error(x: float) -> float:
    """lgamma(x) - (x - 1/2)*log(x) + x - log(2 pi)/2 for x >= SHIFT."""
    total, power = 0.0, 1 / x
    for k in range(8):
        total += BERNOULLI[k] / ((2 * k + 1) * (2 * k + 2)) * power
        power /= x * x
    return total


@kernel
def lgamma_remainder(a: float, h: float) -> float:
    """lgamma(a + h) - lgamma(a) - h*psi(a), never negative: the sum of (-h)^k*zeta(k, a)/k for small h/a, else the difference."""
    if h == 0:
        return 0.0
    if abs(h) > a / 16:
        return math.lgamma(a + h) - math.lgamma(a) - h * digamma(a)
    total, power = 0.0, 1.0
    for k in range(2, 17):
        power *= -h
        total += power * -h * zeta(float(k), a) / k
    return total


@kernel
def ndtr(x: float) -> float:
    """The cdf of N(0, 1)."""
    return 0.5 * math.erfc(-x * math.sqrt(0.5))


@kernel
def ndtri(u: float) -> float:
    """The quantile of N(0, 1) for 0 < u < 1: Newton's method on log(cdf) in the lower half, whose steps grow too small at the root alone."""
    tail = min(u, 1 - u)
    if tail == 0.5:
        return 0.0
    goal = math.log(tail)
    x = -math.sqrt(max(0.0, -2 * goal - math.log(max(-2 * goal, 1.0)))) if tail < 0.1 else (tail - 0.5) * 2.5
    for _ in range(60):
        p = ndtr(x)
        if p == 0:
            break  # u is subnormal
        slope = math.exp(-0.5 * x * x - HALF_LOG_TWO_PI) / p
        step = (math.log(p / tail)) / slope
        x -= step
        if abs(step) <= 1e-15 * abs(x):
            break
    return x if u < 0.5 else -x


@kernel
def apply_polygamma(first: int, last: int, order: int, x: Any, y: Any) -> None:
    """y = polygamma(order, x); order -1 is lgamma."""
    for i in range(first, last):
        y[i] = polygamma(order, x[i]) if order >= 0 else math.lgamma(x[i])


@kernel
def apply_lgamma_remainder(first: int, last: int, a: Any, h: Any, y: Any) -> None:
    """y = lgamma_remainder(a, h)."""
    for i in range(first, last):
        y[i] = lgamma_remainder(a[i], h[i]) if a[i] > 0 and a[i] + h[i] > 0 else np.nan


@kernel
def apply_log1p_remainder(first: int, last: int, x: Any, y: Any) -> None:
    """y = log1p_remainder(x)."""
    for i in range(first, last):
        y[i] = log1p_remainder(x[i])


@kernel
def apply_ndtr(first: int, last: int, x: Any, y: Any) -> None:
    """y = ndtr(x)."""
    for i in range(first, last):
        y[i] = ndtr(x[i])


@kernel
def apply_ndtri(first: int, last: int, u: Any, x: Any) -> None:
    """x = ndtri(u)."""
    for i in range(first, last):
        x[i] = ndtri(u[i]) if 0 < u[i] < 1 else np.nan


def mapped(function: Any, *arguments: Any, outputs: int = 1) -> list[Array]:
    """A loop kernel over arrays broadcast together, numbers passed on as they are: its outputs in float64, in the broadcast shape."""
    arrays = np.broadcast_arrays(*(v for v in arguments if isinstance(v, np.ndarray)))
    flat = iter([np.ascontiguousarray(v, np.float64).ravel() for v in arrays])
    given = [next(flat) if isinstance(v, np.ndarray) else v for v in arguments]
    results = [np.empty(arrays[0].size) for _ in range(outputs)]
    _threads.run(function, arrays[0].size, *given, *results, small=arrays[0].size < SMALL)
    return [result.reshape(arrays[0].shape) for result in results]
