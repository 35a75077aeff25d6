"""Correctly rounded functions of float arrays, decided by a wider format.

NumPy's functions give a candidate y in the wider format, float64 for float16, bfloat16 and float32, and `numpy.longdouble` for float64, with
|y - f(x)| <= B. Rounding is monotone, so where y - B and y + B round to the same number, f(x) does; elsewhere `exact` decides: for float32
about once in 10^7, for float64 about once in 100, where longdouble has 64 bits (x86), and always where it is no wider than float64.

The bound. u = 2^-p, p the wider format's precision. *Assumed* of NumPy's exp, expm1, log, log1p and tanh in it: an error of at most 4 ulp,
hence 8u*|f| (tests/certified/test_functions.py checks the assumption against mpmath). Then with s = exp(-|x|), to first order,

    sigmoid   1/(1 + s), s/(1 + s)      8u in s, at most 8u in 1 + s, an addition and a division: 18u
    silu      x*sigmoid(x)              a product more: 19u
    softplus  max(x, 0) + log1p(s)      8u in s changes log1p(s) by at most 8u, log1p 8u, an addition: 17u

since no two terms of opposite signs are ever added. 2u more leave room for terms of second order and for the rounding of y - B and y + B.
What underflows in the wider format is smaller than `tiny`, and what overflows larger than `huge`, which to the narrower one are 0 and
infinity, whatever B is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npreparam import exact
from npreparam._errors import DTypeError
from npreparam.certified._record import Certified

Array = NDArray[Any]

WIDER = {"float16": np.float64, "bfloat16": np.float64, "float32": np.float64, "float64": np.longdouble}
RANGE = {"float16": 800, "bfloat16": 800, "float32": 800, "float64": 1200}  # tiny = 2^-this, huge = 2^this
FUNCTION, COMPOSITE = 8 + 2, 19 + 2  # B/|y| in units of u


def exp(x: Any) -> Certified:
    """exp(x), elementwise, correctly rounded; special values as in `exact.exp`.

    x is float16, bfloat16, float32 or float64, of any shape; `value` has its shape and dtype.

    Rounding: once, to nearest, ties to even. Raises DTypeError.

    >>> exp(np.array([0, 1], np.float32))
    Certified(value=array([1.       , 2.7182817], dtype=float32), repaired=0)
    """
    return decided(np.exp, exact.exp, x, FUNCTION)


def expm1(x: Any) -> Certified:
    """exp(x) - 1, elementwise, correctly rounded; as `exp` in all else.

    >>> expm1(np.array([1e-8], np.float32)).value
    array([1.e-08], dtype=float32)
    """
    return decided(np.expm1, exact.expm1, x, FUNCTION)


def log(x: Any) -> Certified:
    """Natural logarithm, elementwise, correctly rounded; as `exp` in all else.

    >>> log(np.array([1, 10], np.float32)).value
    array([0.       , 2.3025851], dtype=float32)
    """
    return decided(np.log, exact.log, x, FUNCTION)


def log1p(x: Any) -> Certified:
    """log(1 + x), elementwise, correctly rounded; as `exp` in all else.

    >>> log1p(np.array([1e-8], np.float32)).value
    array([1.e-08], dtype=float32)
    """
    return decided(np.log1p, exact.log1p, x, FUNCTION)


def tanh(x: Any) -> Certified:
    """Hyperbolic tangent, elementwise, correctly rounded; as `exp` in all else.

    >>> tanh(np.array([0, 1], np.float32)).value
    array([0.       , 0.7615942], dtype=float32)
    """
    return decided(np.tanh, exact.tanh, x, FUNCTION)


def sigmoid(x: Any) -> Certified:
    """1/(1 + exp(-x)), elementwise, correctly rounded; as `exp` in all else.

    >>> sigmoid(np.array([0, 1], np.float32)).value
    array([0.5      , 0.7310586], dtype=float32)
    """
    return decided(wide_sigmoid, exact.sigmoid, x, COMPOSITE)


def softplus(x: Any) -> Certified:
    """log(1 + exp(x)), elementwise, correctly rounded; as `exp` in all else.

    >>> softplus(np.array([0, 1], np.float32)).value
    array([0.6931472, 1.3132616], dtype=float32)
    """
    return decided(wide_softplus, exact.softplus, x, COMPOSITE)


def silu(x: Any) -> Certified:
    """x/(1 + exp(-x)), elementwise, correctly rounded; as `exp` in all else.

    >>> silu(np.array([0, 1], np.float32)).value
    array([0.       , 0.7310586], dtype=float32)
    """
    return decided(wide_silu, exact.silu, x, COMPOSITE)


def wide_sigmoid(x: Array) -> Array:
    """The candidate for `sigmoid`."""
    s = np.exp(-np.abs(x))
    return np.where(x < 0, s, 1) / (1 + s)


def wide_softplus(x: Array) -> Array:
    """The candidate for `softplus`."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def wide_silu(x: Array) -> Array:
    """The candidate for `silu`; minus infinity times 0 would be NaN."""
    return np.maximum(x, np.finfo(x.dtype).min) * wide_sigmoid(x)


def decided(candidate: Callable[[Array], Array], repair: Callable[[Array], Array], x: Any, bound: float) -> Certified:
    """Candidates where both ends of their error interval round alike, repaired elsewhere; `bound` is B/|y| in units of u."""
    x = np.asarray(x)
    if x.dtype.name not in WIDER:
        raise DTypeError(f"`x` has dtype {x.dtype}, but must be one of {', '.join(WIDER)}")
    x = x.astype(x.dtype.newbyteorder("="))
    wide = WIDER[x.dtype.name]
    if x.dtype == np.float64 and np.finfo(wide).nmant not in (63, 112):  # no wider than float64, or a pair of float64 that is no IEEE format
        return Certified(repair(x), x.size)
    tiny, huge = (np.ldexp(wide(1), sign * RANGE[x.dtype.name]) for sign in (-1, 1))
    with np.errstate(all="ignore"):
        y = np.clip(candidate(x.astype(wide)), -huge, huge)
        y = np.where(np.isnan(y), wide(np.nan), y)  # one NaN for all
        radius = bound * (np.finfo(wide).eps / 2) * np.abs(y) + tiny
        certain = (narrowed(y - radius, x.dtype) == narrowed(y + radius, x.dtype)) | np.isnan(y)
        value = np.array(narrowed(y, x.dtype))
    value[~certain] = repair(x[~certain])
    return Certified(value, int(np.size(certain) - np.count_nonzero(certain)))


def narrowed(y: Array, dtype: np.dtype[Any]) -> Array:
    """The wider format correctly rounded to the narrower one.

    NumPy's casts are correctly rounded. That of ml_dtypes to bfloat16 goes by way of float32; it rounds once all the same if the float32 is
    rounded to odd: cut off, with the last bit set where something was lost (Boldo and Melquiond, IEEE Transactions on Computers 57(4), 2008).

    >>> import ml_dtypes
    >>> narrowed(np.array([1 + 2.0**-8 + 2.0**-40]), np.dtype(ml_dtypes.bfloat16)).astype(float)    # twice rounded, it would be 1
    array([1.0078125])
    """
    if dtype.name != "bfloat16":
        return y.astype(dtype)
    near = np.asarray(y, np.float64).astype(np.float32)
    bits = near.view(np.uint32) - (np.abs(near) > np.abs(y))  # one towards zero where the cast went away from it
    bits |= bits.view(np.float32) != y
    return bits.view(np.float32).astype(dtype)
