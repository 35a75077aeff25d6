"""ReLU and its gradient in one pass over memory; contiguous arrays of one dtype are assumed."""

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
def _relu(first: int, last: int, x: Any, y: Any) -> None:
    zero = x.dtype.type(0)
    for i in range(uintp(first), uintp(last)):
        y[i] = zero if x[i] <= zero else x[i]


@loop
def _gate(first: int, last: int, g: Any, x: Any, y: Any) -> None:
    zero, one = x.dtype.type(0), x.dtype.type(1)
    for i in range(uintp(first), uintp(last)):
        below = zero if x[i] <= zero else x[i]
        y[i] = g[i] * (one if x[i] > zero else below)  # a product, so that an infinite cotangent is not masked


def relu(x: Array) -> Array:
    """0 where x <= 0, else x (NaN stays NaN)."""
    y = np.empty_like(x)
    _threads.run(_relu, x.size, x.reshape(-1), y.reshape(-1), small=x.size < SMALL)
    return y


def gate(g: Array, x: Array) -> Array:
    """g times 1 where x > 0, 0 where x <= 0, NaN where x is NaN."""
    y = np.empty_like(x)
    _threads.run(_gate, x.size, g.reshape(-1), x.reshape(-1), y.reshape(-1), small=x.size < SMALL)
    return y
