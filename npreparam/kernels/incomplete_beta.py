"""The regularized incomplete beta function I_x(a, b), its quantile, and how the quantile moves with a and b.

With y = 1 - x, W = x^a*y^b/B(a, b) = x*y*f(x), m = psi(a) - psi(a + b), and the logit w of t, so that dt = t*(1 - t)*dw,

    I = W * J (lower: t < x)  or  1 - I = W * J (upper: t > x)        J = integral of E        E = (t/x)^a * ((1 - t)/y)^b
    dx/da = -(dI/da)/f = x*y * integral of (m - log t)*E (lower)  =  x*y * integral of (log t - m)*E (upper)

Lower is used where log(x) <= m, upper where log(x) >= m: both integrands are then positive, and nothing cancels, in the tails either. log E is
concave; it is analytic in the strip |Im w| < pi, and linear to the last bit beyond |w| = 40: Gauss-Legendre nodes on panels of length 4 within
[-40, 40] and on one panel outside, as far as E > exp(-40). dx/db at x is -dx/da of the distribution of 1 - X, with a and b exchanged.
"""

from __future__ import annotations

import math
from typing import Any

from npreparam.kernels._compile import kernel
from npreparam.kernels.special import (
    HALF_LOG_TWO_PI,
    NODES,
    SHIFT,
    WEIGHTS,
    digamma_difference,
    log1p_remainder,
    ndtri,
    stirling_error,
    usable,
    zeta,
)

LINEAR, PANEL, DROP = 40.0, 4.0, 40.0
PANELS = 1000  # at most: far more than any parameters up to 1e12 take; beyond, a panel may be shorter than the spacing of floats


@kernel
def log_beta(a: float, b: float) -> float:
    """log(B(a, b)), by Stirling's series where lgamma of the larger argument would cancel."""
    small, large = min(a, b), max(a, b)
    if large < SHIFT:
        return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    ratio = math.log1p(small / large)
    rest = stirling_error(large) - stirling_error(small + large)
    if small < SHIFT:  # lgamma(L) - lgamma(L + s) = s - (L - 1/2)*log1p(s/L) - s*log(L + s) + ...
        return math.lgamma(small) + small - (large - 0.5) * ratio - small * math.log(small + large) + rest
    return HALF_LOG_TWO_PI - 0.5 * math.log(small) - (large - 0.5) * ratio + small * math.log(small / (small + large)) + rest + stirling_error(small)


@kernel
def log_weight(a: float, b: float, x: float, y: float) -> float:
    """log(W) = a*log(x) + b*log(y) - log(B(a, b)), by Stirling's series around the mean where a and b are large."""
    if min(a, b) < SHIFT:
        return a * _log_of(x, y) + b * _log_of(y, x) - log_beta(a, b)
    n = a + b
    p, q = a / n, b / n
    shift = x - p if x < 0.5 else q - y
    deviance = a * log1p_remainder(shift / p) + b * log1p_remainder(-shift / q)
    return 0.5 * math.log(a * q) - HALF_LOG_TWO_PI - deviance - (stirling_error(a) + stirling_error(b) - stirling_error(n))


@kernel
def _log_of(x: float, y: float) -> float:
    return math.log(x) if x < 0.5 else math.log1p(-y)


@kernel
def _panel_end(w: float, side: float, a: float, b: float) -> float:
    """Where the panel that begins at w ends: at most PANEL on within [-LINEAR, LINEAR], else where E has dropped, or at that border."""
    if side > 0:
        if w < -LINEAR:
            return -LINEAR
        return min(w + PANEL, LINEAR) if w < LINEAR else w + DROP / b
    if w > LINEAR:
        return LINEAR
    return max(w - PANEL, -LINEAR) if w > -LINEAR else w - DROP / a


@kernel
def _log_ratios(x: float, y: float, up: float) -> tuple[float, float]:
    """(log(t/x), log((1 - t)/y)) for t whose logit is that of x plus `up`; they differ by `up`, and the one that would cancel is taken from there."""
    p, q = y * math.expm1(-up), x * math.expm1(up)
    if p < -0.5:
        return up - math.log1p(q), -math.log1p(q)
    if q < -0.5:
        return -math.log1p(p), -math.log1p(p) - up
    return -math.log1p(p), -math.log1p(q)


@kernel
def beta_parts(a: float, b: float, x: float, y: float) -> tuple[float, float, float, float, bool]:
    """(J, dx/da, its derivatives in a and b at constant x, whether J is lower) for a, b > 0 and 0 < x < 1, y = 1 - x."""
    log_x, log_y = _log_of(x, y), _log_of(y, x)
    m = -digamma_difference(a, b)
    m_b = -zeta(2.0, a + b)
    m_a = zeta(2.0, a) + m_b
    lower = log_x < m
    side = -1.0 if lower else 1.0
    w = log_x - log_y
    start = w
    pull = abs(a * y - b * x)
    sharp = 2 * DROP / (pull + math.sqrt(pull * pull + 2 * DROP * (a + b) * x * y))  # where a parabola through the start has dropped
    j, slope, in_a, in_b, drop = 0.0, 0.0, 0.0, 0.0, 0.0
    for panel in range(PANELS + 1):
        if not drop > -DROP:
            break
        if panel == PANELS:
            slope = math.nan
        end = _panel_end(w, side, a, b)
        if abs(w) < LINEAR and abs(end - w) > sharp:
            end = w + side * sharp
        width = abs(end - w)
        for i in range(len(NODES) + 1):  # the last is the end itself, for the drop alone
            point = end if i == len(NODES) else w + (end - w) * NODES[i]
            up = point - start
            if point < -LINEAR:
                t, s = point - log_x, -log_y
            elif point > LINEAR:
                t, s = -log_x, -point - log_y
            elif start < -LINEAR or start > LINEAR:
                t, s = -math.log1p(math.exp(-point)) - log_x, -math.log1p(math.exp(point)) - log_y
            else:
                t, s = _log_ratios(x, y, up)
            exponent = a * t + b * s
            if i == len(NODES):
                drop = exponent
                break
            e = WEIGHTS[i] * width * math.exp(exponent)
            off = log_x + t - m
            j += e
            slope += e * off
            in_a += e * (off * t - m_a)
            in_b += e * (off * s - m_b)
        w = end
        if abs(w) > LINEAR and side * w > 0:
            break
    size = side * x * y
    return j, size * slope, size * in_a, size * in_b, lower


@kernel
def tails(a: float, b: float, x: float, y: float) -> tuple[float, float]:
    """(I, 1 - I)."""
    if x <= 0:
        return 0.0, 1.0
    if y <= 0:
        return 1.0, 0.0
    j, _, _, _, lower = beta_parts(a, b, x, y)
    part = min(math.exp(log_weight(a, b, x, y)) * j, 1.0)
    return (part, 1 - part) if lower else (1 - part, part)


@kernel
def quantile(a: float, b: float, u: float) -> tuple[float, float]:
    """(x, 1 - x) with I_x(a, b) = u: Newton's method on the logarithm of the smaller tail, over the logit of x, between bounds."""
    low, high = -744.0, 744.0
    mean = math.log(a / b)
    w = min(max(mean + ndtri(u) * math.sqrt(1 / a + 1 / b), -700.0), 700.0) if min(a, b) > 1 else 0.0
    x, y = 0.5, 0.5
    for _ in range(200):
        small = math.exp(-abs(w))
        x, y = (1 / (1 + small), small / (1 + small)) if w > 0 else (small / (1 + small), 1 / (1 + small))
        p, q = tails(a, b, x, y)
        if (p < u) if u < 0.5 else (q > 1 - u):
            low = w
        else:
            high = w
        weight, new = math.exp(log_weight(a, b, x, y)), low
        if weight > 0 and p > 0 and q > 0:
            new = w - (math.log(p / u) * p if u < 0.5 else -math.log(q / (1 - u)) * q) / weight
        if not low < new < high:
            new = 0.5 * (low + high)
        if abs(new - w) <= 4e-16 * max(1.0, abs(w)):
            break
        w = new
    return x, y


@kernel
def apply_tails(first: int, last: int, a: Any, b: Any, x: Any, p: Any, q: Any) -> None:
    """I and 1 - I."""
    for i in range(first, last):
        p[i], q[i] = tails(a[i], b[i], x[i], 1 - x[i]) if usable(a[i]) and usable(b[i]) and 0 <= x[i] <= 1 else (math.nan, math.nan)


@kernel
def apply_quantile(first: int, last: int, a: Any, b: Any, u: Any, x: Any) -> None:
    """The quantile."""
    for i in range(first, last):
        x[i] = quantile(a[i], b[i], u[i])[0] if usable(a[i]) and usable(b[i]) and 0 < u[i] < 1 else math.nan


@kernel
def apply_slopes(first: int, last: int, a: Any, b: Any, x: Any, slope: Any, in_a: Any, in_b: Any) -> None:
    """dx/da at constant probability, and its derivatives in a and b at constant x; 0 at the ends, where a sample has been rounded."""
    for i in range(first, last):
        if 0 < x[i] < 1 and usable(a[i]) and usable(b[i]):
            _, slope[i], in_a[i], in_b[i], _ = beta_parts(a[i], b[i], x[i], 1 - x[i])
        else:
            nothing = 0.0 if x[i] == 0 or x[i] == 1 else math.nan
            slope[i], in_a[i], in_b[i] = nothing, nothing, nothing


@kernel
def apply_mirrored_slopes(first: int, last: int, a: Any, b: Any, x: Any, slope: Any, in_a: Any, in_b: Any) -> None:
    """The same for dx/db, by exchanging X for 1 - X: 1 - x is not rounded here, so that x near 0 keeps its digits."""
    for i in range(first, last):
        if 0 < x[i] < 1 and usable(a[i]) and usable(b[i]):
            _, s, s_b, s_a, _ = beta_parts(b[i], a[i], 1 - x[i], x[i])
            slope[i], in_a[i], in_b[i] = -s, -s_a, -s_b
        else:
            nothing = 0.0 if x[i] == 0 or x[i] == 1 else math.nan
            slope[i], in_a[i], in_b[i] = nothing, nothing, nothing


@kernel
def apply_log_beta(first: int, last: int, a: Any, b: Any, y: Any) -> None:
    """log(B(a, b))."""
    for i in range(first, last):
        y[i] = log_beta(a[i], b[i]) if usable(a[i]) and usable(b[i]) else math.nan
