"""One step of Adam for one array, in place and in one pass; contiguous arrays of one shape and dtype are assumed."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy import uintp
from numpy.typing import NDArray

from npreparam.kernels import _threads
from npreparam.kernels._compile import loop

Array = NDArray[Any]
SMALL = 100_000  # elements below which waking a second thread costs more than it saves


class Rates(NamedTuple):
    """The numbers of a step, in the dtype of the arrays."""

    keep1: Any  # b1
    take1: Any  # 1 - b1
    keep2: Any
    take2: Any
    size: Any  # rate/(1 - b1^t)
    scale: Any  # 1/sqrt(1 - b2^t)
    eps: Any


@loop
def _adam(first: int, last: int, p: Any, g: Any, m: Any, v: Any, rates: Rates) -> None:
    for i in range(uintp(first), uintp(last)):
        m[i] = rates.keep1 * m[i] + rates.take1 * g[i]
        v[i] = rates.keep2 * v[i] + rates.take2 * g[i] * g[i]
        p[i] = p[i] - rates.size * (m[i] / (np.sqrt(v[i]) * rates.scale + rates.eps))


def adam(p: Array, g: Array, m: Array, v: Array, rates: Rates) -> None:
    """m = b1*m + (1-b1)*g,  v = b2*v + (1-b2)*g^2,  p = p - size*m/(sqrt(v)*scale + eps)."""
    _threads.run(_adam, p.size, p.reshape(-1), g.reshape(-1), m.reshape(-1), v.reshape(-1), rates, small=p.size < SMALL)
