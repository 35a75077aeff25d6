"""What exp leaves over its tangent at 0, beside NumPy's expm1; contiguous arrays of one shape and dtype are assumed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy import uintp
from numpy.typing import NDArray

from npreparam.kernels import _threads
from npreparam.kernels._compile import loop

Array = NDArray[Any]
SMALL = 100_000  # elements below which waking a second thread costs more than it saves
TERMS = 16  # of the series: beyond x^16/16! the rest is below u in proportion for |x| < 1/2, float64
LARGE = 64  # from here on x is below u in proportion to exp(x)


@loop
def _exp_remainder(first: int, last: int, x: Any, y: Any) -> None:
    kind = x.dtype.type
    one, zero = kind(1), kind(0)
    for i in range(uintp(first), uintp(last)):
        series = one
        for k in range(TERMS, 2, -1):
            series = one + series * x[i] / kind(k)
        near, far = x[i] * x[i] / kind(2) * series, y[i] - (x[i] if x[i] < kind(LARGE) else zero)
        y[i] = near if abs(x[i]) < kind(0.5) else far


def exp_remainder(x: Array) -> Array:
    """exp(x) - 1 - x: x^2/2*(1 + x/3*(1 + x/4*(...))) for |x| < 1/2, else expm1(x) - x, without the x where it does not count."""
    y = np.expm1(x, out=np.empty_like(x))
    _threads.run(_exp_remainder, x.size, x.reshape(-1), y.reshape(-1), small=x.size < SMALL)
    return y
