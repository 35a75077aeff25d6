"""Sums of the rows of a matrix as pairs of float64, with a bound on their error.

    s, t = s + x (TwoSum)        c, e = c + t (TwoSum)        m = m + |e|            from 0, for the elements x of a row

The sum is s plus the sum of all t, and that is c plus the sum of all e, exactly; so s + c lacks at most m, or nothing where m is 0. m itself is
off by a factor 1 + nu at most. The pair over the row's count k, with remainders that are floats (FMA):

    h = s/k        r = s - h*k        d, f = r + c (TwoSum)        l = d/k        q = d - l*k

    |sum/k - (h + l)| <= B = (m + |f| + |q|)/k*(1 + 2^-20) + 2u|l|

for up to 2^30 elements; 2u|l| is for the rounding of l - B and l + B, and left out where B is 0: ties are then decided. 2^-1072 is added where
q/k may underflow; additions do not. The ends h + (l - B) and h + (l + B) are used as in `affine`, with `spread` as there unless h is the result.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from npreparam.kernels import _threads
from npreparam.kernels._compile import kernel
from npreparam.kernels._tile import scalar_fma
from npreparam.kernels.affine import UNIT, two_sum

Array = NDArray[Any]
SLACK = 1 + 2.0**-20
SUBNORMAL, UNDERFLOW = 2.0**-1000, 2.0**-1072
SMALL = 20_000


@kernel
def enclose_rows(first: int, last: int, x: Any, counts: Any, spread: float, low: Any, high: Any) -> None:
    """The ends of the sums of the rows first..last-1 of x over their counts."""
    length = x.shape[1]
    for i in range(first, last):
        s, c, m = 0.0, 0.0, 0.0
        for j in range(length):
            s, t = two_sum(s, np.float64(x[i, j]))
            c, e = two_sum(c, t)
            m += abs(e)
        h = s / counts[i]
        d, f = two_sum(scalar_fma(-h, counts[i], s), c)
        tail = d / counts[i]
        q = scalar_fma(-tail, counts[i], d)
        bound = (m + abs(f) + abs(q)) / counts[i] * SLACK
        if q != 0 and abs(tail) < SUBNORMAL:
            bound += UNDERFLOW
        if bound != 0:
            bound += 2 * UNIT * abs(tail)
        if bound != 0 or tail != 0:
            bound += spread * abs(h)
        end = h + (tail - bound)
        low[i] = end
        high[i] = h + (tail + bound) if abs(end) < np.inf else 0.0


def enclose_sums(x: Array, counts: Array, spread: float, low: Array, high: Array) -> None:
    """`enclose_rows` for all rows of a matrix."""
    with np.errstate(all="ignore"):
        _threads.run(enclose_rows, x.shape[0], x, counts, spread, low, high, small=x.size < SMALL)
