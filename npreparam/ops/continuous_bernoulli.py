"""The continuous Bernoulli distribution in its logit: the cumulant function and its derivatives, and the quantile."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from npreparam._errors import ArgumentError
from npreparam._shapes import as_int
from npreparam.ops._primitive import gradient, primitive
from npreparam.ops._validate import Array, as_dense
from npreparam.ops.arithmetic import add, div, expm1, log1p, mul, neg, quiet, square, sub
from npreparam.ops.select import abs as magnitude
from npreparam.ops.select import where

BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510, 43867 / 798, -174611 / 330, 854513 / 138,
             -236364091 / 2730)  # B_2, B_4, ...


@primitive
@quiet
def continuous_bernoulli_cumulant(order: int, logits: Array) -> Array:
    """A(l) = log((exp(l) - 1)/l) and its derivatives up to order 3: the mean, the variance and the third cumulant, elementwise.

    Near 0 by A(l) = l/2 + sum of B_2k*l^2k/(2k*(2k)!), else in closed form; finite for every finite l. Rounding: some ulp (order 2 and 3: some tens).

    Source: Loaiza-Ganem and Cunningham, The continuous Bernoulli, arXiv 1907.06845.

    >>> continuous_bernoulli_cumulant(1, np.array([0.0, 800.0]))
    array([0.5    , 0.99875])
    """
    if as_int(order, "order", 0) > 3:
        raise ArgumentError(f"`order` (={order}) must not exceed 3")
    x = as_dense(logits, "logits")
    size = np.where(np.abs(x) < 1, 1, np.abs(x))
    small, side = np.exp(-size), np.sign(x)
    if order == 0:
        far = np.maximum(x, 0) + np.log(-np.expm1(-size) / size)
    elif order == 1:
        below = 1 / size + small / np.expm1(-size)  # the mean for l < 0
        far = np.where(x < 0, below, 1 - below)
    elif order == 2:
        far = 1 / size**2 - small / np.expm1(-size) ** 2
    else:
        far = side * (small * (1 + small) / -np.expm1(-size) ** 3 - 2 / size**3)
    return np.where(np.abs(x) < 1, _series(order, np.clip(x, -1, 1)), far).astype(x.dtype)


def _series(order: int, x: Array) -> Array:
    total = x / 2 if order == 0 else np.full_like(x, 0.5 if order == 1 else 0.0)
    for k, number in enumerate(BERNOULLI, 1):
        power, factor = 2 * k, number / (2 * k * math.factorial(2 * k))
        for _ in range(order):
            factor, power = factor * power, power - 1
        if power >= 0:
            total = total + x.dtype.type(factor) * x**power
    return total


gradient(continuous_bernoulli_cumulant, "logits", lambda g, y, a: mul(g, continuous_bernoulli_cumulant(a.order + 1, a.logits)))


def continuous_bernoulli_icdf(logits: Array, u: Array) -> Array:
    """log(1 + u*(exp(l) - 1))/l, elementwise with broadcasting, for 0 < u < 1; u at l = 0.

    For l > 0 it is 1 minus the value at 1 - u and -l, so that nothing overflows. For |l| < 0.01 the first six terms of its series in l are used: the
    coefficients are the cumulants of a Bernoulli variable with probability u over n!.

    >>> continuous_bernoulli_icdf(np.array([0.0, 1000.0]), np.array([0.25, 0.5]))
    array([0.25      , 0.99930685])
    """
    l_value, u_value = getattr(logits, "value", logits), getattr(u, "value", u)
    near, up = np.abs(l_value) < 0.01, l_value > 0
    size = where(near, 1.0, magnitude(logits))
    side = where(up, sub(1.0, u), u)
    part = div(log1p(mul(side, expm1(neg(size)))), neg(size))
    far = where(np.broadcast_to(up, np.broadcast_shapes(up.shape, np.shape(u_value))), sub(1.0, part), part)
    return where(near, _icdf_series(where(near, logits, 0.0), u), far)


def _icdf_series(logits: Any, u: Any) -> Array:
    spread, skew = mul(u, sub(1.0, u)), sub(1.0, mul(u, 2.0))
    tail = sub(add(mul(square(spread), 120.0), 1.0), mul(spread, 30.0))
    cumulants = (u, spread, mul(spread, skew), mul(spread, sub(1.0, mul(spread, 6.0))),
                 mul(mul(spread, skew), sub(1.0, mul(spread, 12.0))), mul(spread, tail))
    total: Any = 0.0
    for n in range(6, 0, -1):
        total = add(mul(total, logits), mul(cumulants[n - 1], 1 / math.factorial(n)))
    return total
