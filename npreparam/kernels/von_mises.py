"""The von Mises distribution on [-pi, pi]: normalizer, cdf, quantile, and how the quantile moves with the concentration k.

    N = integral over (0, pi) of exp(k*(cos t - 1))        I0(k) = exp(k)*N/pi        1 - A = 1 - I1(k)/I0(k) = mean of 1 - cos t
    dz/dk = -(dF/dk)/f = -integral over (0, z) of h(t)  =  integral over (z, pi) of h(t),    h = (cos t - A)*exp(k*(cos t - cos z)), for z > 0

cos t - A is positive up to some t and negative from there on: the first form is used where cos z > A, the second elsewhere. It is taken as
(1 - A) - (1 - cos t), so that a large k loses no digits.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from npreparam.kernels._compile import kernel
from npreparam.kernels.special import NODES, WEIGHTS, usable

DROP = 40.0
PANELS = 3
PI_TAIL = 1.2246467991473532e-16  # pi - math.pi


@kernel
def versine(t: float) -> float:
    """1 - cos(t) = 2*sin(t/2)^2."""
    return 2 * math.sin(0.5 * t) ** 2


@kernel
def _reach(k: float) -> float:
    """Beyond this, exp(k*(cos t - 1)) < exp(-DROP): 1 - cos t >= 2*(t/pi)^2."""
    return min(math.pi, math.pi * math.sqrt(0.5 * DROP / k))


@kernel
def constants(k: float) -> tuple[float, float, float]:
    """(N, 1 - A, dA/dk)."""
    total, first, second = 0.0, 0.0, 0.0
    width = _reach(k) / PANELS
    for panel in range(PANELS):
        for i in range(len(NODES)):
            v = versine((panel + NODES[i]) * width)
            e = WEIGHTS[i] * width * math.exp(-k * v)
            total += e
            first += e * v
            second += e * v * v
    mean = first / total
    return total, mean, second / total - mean * mean


@kernel
def _partial(k: float, start: float, end: float, at: float, mean: float, curvature: float) -> tuple[float, float, float]:
    """Integrals over (start, end) of E = exp(k*(cos t - cos at)), of (cos t - A)*E, and of the derivative of that in k."""
    total, slope, curve = 0.0, 0.0, 0.0
    width = (end - start + (PI_TAIL if end == math.pi else 0.0)) / PANELS
    for panel in range(PANELS):
        for i in range(len(NODES)):
            t = start + (panel + NODES[i]) * width
            rise = 2 * math.sin(0.5 * (at - t)) * math.sin(0.5 * (at + t))  # cos t - cos at
            e = WEIGHTS[i] * width * math.exp(k * rise)
            off = mean - versine(t)
            total += e
            slope += e * off
            curve += e * (off * rise - curvature)
    return total, slope, curve


@kernel
def _outer_end(k: float, z: float) -> float:
    """An end beyond which exp(k*(cos t - cos z)) is negligible: as far from z as `_reach` is from 0, or pi."""
    return min(math.pi, z + _reach(k))


@kernel
def slopes(k: float, z: float) -> tuple[float, float]:
    """dz/dk at constant probability, and its derivative in k at constant z, for 0 < z < pi."""
    _, mean, curvature = constants(k)
    if versine(z) < mean:
        _, slope, curve = _partial(k, 0.0, z, z, mean, curvature)
        return -slope, -curve
    _, slope, curve = _partial(k, z, _outer_end(k, z), z, mean, curvature)
    return slope, curve


@kernel
def tails(k: float, z: float) -> tuple[float, float]:
    """(F, 1 - F) at z >= 0."""
    total, mean, curvature = constants(k)
    if k * versine(z) < 1:
        half = 0.5 * _partial(k, 0.0, z, z, mean, curvature)[0] * math.exp(-k * versine(z)) / total
        return 0.5 + half, 0.5 - half
    rest = 0.5 * _partial(k, z, _outer_end(k, z), z, mean, curvature)[0] * math.exp(-k * versine(z)) / total
    return 1 - rest, rest


@kernel
def quantile(k: float, tail: float) -> float:
    """z >= 0 with 1 - F(z) = tail <= 1/2: Newton's method on log(1 - F) between bounds."""
    low, high, z = 0.0, math.pi, min(1.0, 1 / math.sqrt(k))
    total = constants(k)[0]
    for _ in range(200):
        rest = tails(k, z)[1]
        if rest > tail:
            low = z
        else:
            high = z
        density = 0.5 * math.exp(-k * versine(z)) / total
        new = 0.5 * (low + high)
        if rest > 0 and density > 0:
            step = math.log(rest / tail) * rest / density
            new = z + step if low < z + step < high else new
        if abs(new - z) <= 4e-16 * z:
            return new
        z = new
    return z


@kernel
def apply_constants(first: int, last: int, k: Any, log_i0: Any, ratio: Any, slope: Any) -> None:
    """log I0(k), A and dA/dk; the ends k = 0 and infinity are exact."""
    for i in range(first, last):
        if k[i] == 0:
            log_i0[i], ratio[i], slope[i] = 0.0, 0.0, 0.5
        elif not 0 < k[i] < np.inf:
            log_i0[i], ratio[i], slope[i] = np.nan, np.nan, np.nan
        else:
            total, mean, slope[i] = constants(k[i])
            log_i0[i], ratio[i] = k[i] + math.log(total / math.pi), 1 - mean


@kernel
def apply_cdf(first: int, last: int, k: Any, z: Any, p: Any) -> None:
    """The cdf."""
    for i in range(first, last):
        low, high = tails(k[i], abs(z[i])) if usable(k[i]) and abs(z[i]) <= math.pi else (np.nan, np.nan)
        p[i] = low if z[i] > 0 else high


@kernel
def apply_quantile(first: int, last: int, k: Any, u: Any, z: Any) -> None:
    """The quantile."""
    for i in range(first, last):
        if not (usable(k[i]) and 0 < u[i] < 1):
            z[i] = np.nan
            continue
        size = quantile(k[i], min(u[i], 1 - u[i])) if u[i] != 0.5 else 0.0
        z[i] = size if u[i] >= 0.5 else -size


@kernel
def apply_slopes(first: int, last: int, k: Any, z: Any, slope: Any, curve: Any) -> None:
    """dz/dk at constant probability, and its derivative in k at constant z; odd in z, 0 at 0 and at +-pi."""
    for i in range(first, last):
        fixed = usable(k[i]) and (z[i] == 0 or abs(z[i]) == math.pi)
        slope[i], curve[i] = (0.0, 0.0) if fixed else (np.nan, np.nan)
        if usable(k[i]) and 0 < abs(z[i]) < math.pi:
            s, c = slopes(k[i], abs(z[i]))
            slope[i], curve[i] = math.copysign(1.0, z[i]) * s, math.copysign(1.0, z[i]) * c
