"""Elementary and activation functions, correctly rounded: each value is enclosed ever closer until its rounding is certain (see `ziv`).

For every function here: x has any shape, and is float16, bfloat16, float32, float64 or an object array of Fractions; `out_dtype` is one of
these formats, by default the dtype of x. Rounding: once, to nearest, ties to even; overflow to infinity, underflow through the subnormal
numbers to a zero with the sign of the value. NaN gives NaN; values at infinities and zeros are limits. Raises DTypeError for other dtypes.

When is a value rational? By the theorem of Lindemann and Weierstrass (Baker, Transcendental number theory, 1975, theorem 1.4) the powers
exp(a) of distinct algebraic numbers a are linearly independent over the algebraic numbers. For rational arguments this leaves:

    exp, expm1, tanh, sigmoid, silu   at 0 alone: a rational value would make exp(x), x not 0, rational
    log, log1p                        at log(1) = 0 alone: log(v) = q would make exp(q) = v rational, q not 0
    softplus                          nowhere: log(1 + exp(x)) = q means exp(0) + exp(x) = exp(q)
    sqrt                              at squares of rationals
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from npreparam.exact.elementary import LIMIT, exp_between, expm1_between, log1p_of_interval, log_between, sqrt_between
from npreparam.exact.rounding import FORMATS, Array, as_fractions, checked, result_dtype
from npreparam.exact.ziv import Interval, round_real

INF = math.inf


def elementwise(between: Callable[[Fraction, int], Interval], x: Any, out_dtype: Any, at: Mapping[float, float], start: float = -INF) -> Array:
    """Every element v of x by its brackets `between(v, bits)`, save those that `at` maps to their values, NaN, and v < start (NaN).

    A zero that `at` gives for a zero has its sign.
    """
    x = np.asarray(x)
    dtype = result_dtype(out_dtype, x)
    form, is_float = FORMATS[dtype.name], x.dtype.name in FORMATS
    with np.errstate(invalid="ignore"):  # a signalling NaN is a NaN
        values = x.astype(np.float64) if is_float else x
    finite = np.isfinite(values) if is_float else np.ones(x.shape, bool)
    fractions = as_fractions(np.where(finite, values, np.zeros_like(values)), "x")
    y = np.full(x.shape, math.nan, dtype)
    for index, value in np.ndenumerate(values):
        if value in at:
            y[index] = math.copysign(at[value], value) if at[value] == value == 0 else at[value]
        elif finite[index] and value >= start:
            y.view(form.bits)[index] = round_real(lambda bits, v=fractions[index]: between(v, bits), form)
    return y


def relu(x: Any, out_dtype: Any = "same") -> Array:
    """max(0, x), elementwise; +0 for both zeros.

    >>> relu(np.array([-1.0, 0.0, 2.0]))
    array([0., 0., 2.])
    """
    return np.abs(elementwise(lambda v, bits: (max(v, Fraction(0)),) * 2, x, out_dtype, {-INF: 0, INF: INF}))


def leaky_relu(x: Any, slope: float = 0.01, out_dtype: Any = "same") -> Array:
    """x where x > 0, slope*x elsewhere; `slope` is the rational number that the float is, whatever the dtype of x.

    Raises ArgumentError, too (slope NaN or infinite).

    >>> leaky_relu(np.array([-1.0, 2.0]), slope=0.25)
    array([-0.25,  2.  ])
    """
    factor = checked(as_fractions(slope, "slope"), "slope", ()).item()
    at_minus_infinity = -INF * float(factor) if factor else 0.0
    return elementwise(lambda v, bits: (v if v > 0 else factor * v,) * 2, x, out_dtype, {-INF: at_minus_infinity, 0: 0, INF: INF})


def sqrt(x: Any, out_dtype: Any = "same") -> Array:
    """Square root, elementwise; sqrt(-0) = -0, NaN below.

    >>> sqrt(np.array([2.25, 2.0]))
    array([1.5       , 1.41421356])
    """
    return elementwise(sqrt_between, x, out_dtype, {0: 0, INF: INF}, start=0)


def exp(x: Any, out_dtype: Any = "same") -> Array:
    """Exponential function, elementwise.

    >>> exp(np.array([0.0, 1.0, 1e300, -1e300]))
    array([1.        , 2.71828183,        inf, 0.        ])
    """
    # From `LIMIT` on, all is infinity: so x may be cut there.
    return elementwise(lambda v, bits: exp_between(min(v, Fraction(LIMIT)), bits), x, out_dtype, {-INF: 0, 0: 1, INF: INF})


def expm1(x: Any, out_dtype: Any = "same") -> Array:
    """exp(x) - 1, elementwise; expm1(-0) = -0.

    >>> expm1(np.array([1e-20, 1.0]))
    array([1.00000000e-20, 1.71828183e+00])
    """
    return elementwise(lambda v, bits: expm1_between(min(v, Fraction(LIMIT)), bits), x, out_dtype, {-INF: -1, 0: 0, INF: INF})


def log(x: Any, out_dtype: Any = "same") -> Array:
    """Natural logarithm, elementwise; minus infinity at both zeros, NaN below.

    >>> log(np.array([1.0, 10.0]))
    array([0.        , 2.30258509])
    """
    return elementwise(log_between, x, out_dtype, {0: -INF, INF: INF}, start=0)


def log1p(x: Any, out_dtype: Any = "same") -> Array:
    """log(1 + x), elementwise; log1p(-0) = -0, minus infinity at -1, NaN below.

    >>> log1p(np.array([1e-20, 1.0]))
    array([1.00000000e-20, 6.93147181e-01])
    """
    return elementwise(lambda v, bits: log_between(1 + v, bits), x, out_dtype, {-1: -INF, 0: 0, INF: INF}, start=-1)


def sigmoid(x: Any, out_dtype: Any = "same") -> Array:
    """1 / (1 + exp(-x)), elementwise.

    >>> sigmoid(np.array([0.0, 1.0, -800.0]))
    array([0.5       , 0.73105858, 0.        ])
    """
    return elementwise(sigmoid_between, x, out_dtype, {-INF: 0, 0: 0.5, INF: 1})


def tanh(x: Any, out_dtype: Any = "same") -> Array:
    """Hyperbolic tangent, elementwise; tanh(-0) = -0.

    >>> tanh(np.array([-1.0, 0.0, 20.0]))
    array([-0.76159416,  0.        ,  1.        ])
    """
    return elementwise(tanh_between, x, out_dtype, {-INF: -1, 0: 0, INF: 1})


def softplus(x: Any, out_dtype: Any = "same") -> Array:
    """log(1 + exp(x)), elementwise.

    >>> softplus(np.array([0.0, 1000.0]))
    array([6.93147181e-01, 1.00000000e+03])
    """
    return elementwise(softplus_between, x, out_dtype, {-INF: 0, INF: INF})


def silu(x: Any, out_dtype: Any = "same") -> Array:
    """x / (1 + exp(-x)), elementwise; silu(-0) = -0, and -0 at minus infinity, since the limit 0 is approached from below.

    Source: Elfwing, Uchibe and Doya, arXiv 1702.03118.

    >>> silu(np.array([0.0, 1.0]))
    array([0.        , 0.73105858])
    """
    return elementwise(silu_between, x, out_dtype, {-INF: -0.0, 0: 0, INF: INF})


def sigmoid_between(x: Fraction, bits: int) -> Interval:
    """1/(1 + s) for x > 0, s/(1 + s) otherwise, with s = exp(-|x|)."""
    low, high = exp_between(-abs(x), bits)
    return (1 / (1 + high), 1 / (1 + low)) if x > 0 else (low / (1 + low), high / (1 + high))


def tanh_between(x: Fraction, bits: int) -> Interval:
    """e/(2 - e) with e = 1 - exp(-2|x|), which neither overflows nor cancels; odd."""
    minus_high, minus_low = expm1_between(-2 * abs(x), bits)
    low, high = -minus_low / (2 + minus_low), -minus_high / (2 + minus_high)
    return (low, high) if x > 0 else (-high, -low)


def softplus_between(x: Fraction, bits: int) -> Interval:
    """max(x, 0) + log(1 + exp(-|x|))."""
    low, high = log1p_of_interval(exp_between(-abs(x), bits), bits)
    return max(x, Fraction(0)) + low, max(x, Fraction(0)) + high


def silu_between(x: Fraction, bits: int) -> Interval:
    """x*sigmoid(x)."""
    low, high = sigmoid_between(x, bits)
    return (x * low, x * high) if x > 0 else (x * high, x * low)
