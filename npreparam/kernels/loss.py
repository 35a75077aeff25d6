"""Binary cross-entropy and its slope, after NumPy's exp and log1p, in one pass; contiguous arrays of one shape and dtype are assumed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy import uintp
from numpy.typing import NDArray

from npreparam.kernels import _threads
from npreparam.kernels._compile import loop

Array = NDArray[Any]
SMALL = 400_000  # elements below which waking a second thread costs more than it saves


@loop
def _bce(first: int, last: int, x: Any, t: Any, y: Any) -> None:
    zero, one = x.dtype.type(0), x.dtype.type(1)
    for i in range(uintp(first), uintp(last)):
        y[i] = x[i] * (one - t[i] if x[i] > zero else -t[i]) + y[i]


@loop
def _bce_slope(first: int, last: int, x: Any, t: Any, y: Any) -> None:
    zero, one = x.dtype.type(0), x.dtype.type(1)
    for i in range(uintp(first), uintp(last)):
        small = y[i]
        p, q = one if x[i] >= zero else small, small if x[i] >= zero else one
        y[i] = (p * (one - t[i]) - q * t[i]) / (one + small)


def _exp_minus_abs(x: Array) -> Array:
    y = np.abs(x)
    return np.exp(np.negative(y, out=y), out=y)


def bce(x: Array, t: Array) -> Array:
    """x*(1-t) where x > 0, else -x*t, plus log1p(exp(-|x|))."""
    y = _exp_minus_abs(x)
    np.log1p(y, out=y)
    _threads.run(_bce, x.size, x.reshape(-1), t.reshape(-1), y.reshape(-1), small=x.size < SMALL)
    return y


def bce_slope(x: Array, t: Array) -> Array:
    """sigmoid(x)*(1-t) - sigmoid(-x)*t, over the common denominator 1 + exp(-|x|)."""
    y = _exp_minus_abs(x)
    _threads.run(_bce_slope, x.size, x.reshape(-1), t.reshape(-1), y.reshape(-1), small=x.size < SMALL)
    return y
