"""The fused multiply-add in plain Python: a*b + c with one rounding, for running the kernels without a compiler."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np


def fma(a: Any, b: Any, c: Any) -> Any:
    """a*b + c rounded once, in the format (float32 or float64) of `c`.

    float64: Python divides integers with one correct rounding. float32: the product is exact in float64; the sum is rounded *to odd*
    there, which makes the second rounding harmless (Boldo and Melquiond, IEEE Transactions on Computers 57(4), 2008).

    >>> bool(fma(np.float32(1 + 2**-12), np.float32(1 + 2**-12), np.float32(-1)) == 2.0**-11 + 2.0**-24)
    True
    """
    kind = type(c)
    x, y, z = float(a), float(b), float(c)
    if not (math.isfinite(x) and math.isfinite(y) and math.isfinite(z)) or x == 0 or y == 0:
        return kind(x * y + z)
    if kind is np.float32:
        product = x * y
        total = product + z
        back = total - product
        error = (product - (total - back)) + (z - back)  # TwoSum (Knuth)
        if error and not np.float64(total).view(np.int64) & 1:
            total = math.nextafter(total, math.copysign(math.inf, error))
        with np.errstate(over="ignore", under="ignore"):
            return np.float32(total)
    exact = Fraction(x) * Fraction(y) + Fraction(z)
    if not exact:
        return kind(x * y + z if x * y else z)
    try:
        return kind(exact.numerator / exact.denominator)
    except OverflowError:
        return kind(math.copysign(math.inf, exact))
