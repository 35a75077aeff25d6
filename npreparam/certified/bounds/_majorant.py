"""Float64 arithmetic that errs upwards: what is computed here is never below what it stands for.

All quantities are sums and products of non-negative numbers, so each operation is off by at most 2^-53 relatively and nothing cancels;
a factor at the end outweighs all of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from npreparam._errors import ArgumentError, DTypeError
from npreparam.exact.rounding import FORMATS

Floats = NDArray[np.float64]

U = 2.0**-53
ETA = 2.0**-1074
OPERATIONS = 200  # more than any formula here has; elementary functions count as 4 (off by at most 2 ulp)

quiet = np.errstate(all="ignore")  # a decorator: infinity and underflow are dealt with


def up(value: Any, operations: Any = OPERATIONS) -> Floats:
    """At least the number that `value`, non-negative and computed by so many roundings of non-negative numbers, stands for.

    With n operations v >= exact*(1 - U)^n - n*ETA, so exact <= (v + n*ETA)*(1 + 2*(n + 2)*U), the 2 outweighing second order; one ulp
    further for the rounding of this. Zero stays zero: no term was there. An infinity, or a NaN from one times 0, is infinity.

    >>> float(up(1.0, 0) - 1.0) == 2.0**-51 + 2.0**-52
    True
    """
    v, n = np.asarray(value, np.float64), np.asarray(operations, np.float64)
    raised = np.nextafter((v + n * ETA) * (1 + 2 * (n + 2) * U), np.inf)
    return np.where(np.isnan(v), np.inf, np.where(v == 0, 0.0, raised))


def plus(*growths: Any) -> Any:
    """(1 + f)(1 + g)... - 1 = f + g + f*g ..., without the cancellation of writing it so: factors of error that act one after the other.

    >>> plus(2.0**-60, 2.0**-60) > 2.0**-59
    False
    >>> plus(1.0, 1.0, 1.0)
    7.0
    """
    total = growths[0]
    for growth in growths[1:]:
        total = total + growth + total * growth
    return total


def as_finite(x: Any, name: str) -> Floats:
    """An array of one of the formats, or of integers, as float64.

    Raises DTypeError, ArgumentError (NaN, infinity, or an integer that is no float64).
    """
    array = np.asarray(x)
    if array.dtype.kind not in "iu" and array.dtype.name not in FORMATS:
        raise DTypeError(f"`{name}` has dtype {array.dtype}, but must be an integer type or one of {', '.join(FORMATS)}")
    with np.errstate(invalid="ignore"):  # a signalling NaN is reported below
        values = array.astype(np.float64)
    if not np.isfinite(values).all():
        raise ArgumentError(f"`{name}` holds NaN or infinity, for which no error is defined; remove them first")
    if array.dtype.kind in "iu" and np.abs(values).max(initial=0) >= 2.0**53:
        raise ArgumentError(f"`{name}` holds integers of 2^53 or more, which float64 may not hold; convert them to floats first")
    return values
