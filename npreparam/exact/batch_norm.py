"""Batch norm in evaluation mode, correctly rounded although its square root is irrational.

With t = (x - mean)*gamma and v = var + eps the value is t/sqrt(v) + beta. The root is known between two rationals as narrow as one likes,
by integer arithmetic (`math.isqrt`), so the value is too; they are narrowed until both ends round to the same number. Where v is the
square of a rational, the value is rational and rounded directly. Otherwise it is irrational, so it equals no midpoint of two floats, and
narrowing ends; or t = 0, and both ends are beta.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np

from npreparam._errors import ArgumentError, ShapeError
from npreparam.exact.rounding import FORMATS, Format, as_fractions, checked, dtype_of, round_to_bits

FIRST_BITS = 128


def rational_sqrt(v: Fraction) -> Fraction | None:
    """The square root of a rational where it is rational."""
    root = Fraction(math.isqrt(v.numerator), math.isqrt(v.denominator))
    return root if root * root == v else None


def sqrt_between(v: Fraction, bits: int) -> tuple[Fraction, Fraction]:
    """Two rationals with low < sqrt(v) < high of relative distance about 2^-bits, for a v that is no square of a rational.

    >>> low, high = sqrt_between(Fraction(2), 8)
    >>> low * low < 2 < high * high
    True
    """
    shift = bits + max(0, v.denominator.bit_length() - v.numerator.bit_length()) // 2
    root = math.isqrt((v.numerator << 2 * shift) // v.denominator)
    return Fraction(root, 1 << shift), Fraction(root + 1, 1 << shift)


def normalize(t: Fraction, v: Fraction, beta: Fraction, form: Format) -> int:
    """The bits of t/sqrt(v) + beta, correctly rounded."""
    root = rational_sqrt(v)
    if root is not None:
        return round_to_bits(t / root + beta, form)
    bits = FIRST_BITS
    while True:
        low, high = sqrt_between(v, bits)
        ends = [round_to_bits(t / end + beta, form) for end in (low, high) if end]
        if len(ends) == 2 and ends[0] == ends[1]:
            return ends[0]
        bits *= 2


def batch_norm(x: Any, gamma: Any, beta: Any, running_mean: Any, running_var: Any, eps: float = 1e-5, out_dtype: Any = "same") -> Any:
    """The correctly rounded batch norm in evaluation mode: y = (x - mean)/sqrt(var + eps) * gamma + beta for each channel.

    x is NCHW or (N, C), the others (C,); `eps` is the rational number that the float is. `out_dtype` defaults to the dtype of x; None is
    refused, since the root is seldom rational.

    Rounding: once, to nearest, ties to even, the root decided by integer arithmetic.

    Raises ShapeError, DTypeError, ArgumentError (var + eps not positive; NaN or infinity).

    Source: Ioffe and Szegedy, Batch normalization, 2015, algorithm 2; the narrowing is Ziv's (TOMS 17(3), 1991).

    >>> batch_norm(np.array([[3.0]]), [1], [0], [1], [4], eps=0)
    array([[1.]])
    """
    dtype = dtype_of(np.asarray(x).dtype if isinstance(out_dtype, str) and out_dtype == "same" else out_dtype)
    form = FORMATS[dtype.name]
    exact_x, exact_eps = as_fractions(x, "x"), checked(as_fractions(eps, "eps"), "eps", ()).item()
    channels = exact_x.shape[1] if exact_x.ndim in (2, 4) else -1
    vectors = [as_fractions(value, name) for name, value in
               (("gamma", gamma), ("beta", beta), ("running_mean", running_mean), ("running_var", running_var))]
    if any(vector.shape != (channels,) for vector in vectors):
        raise ShapeError(f"`x` has shape {exact_x.shape} and the statistics {[v.shape for v in vectors]}; "
                         f"they must be NCHW or (N, C), and (C,)")
    bits = np.empty(exact_x.shape, form.bits)
    for c, (g, b, mean, var) in enumerate(zip(*vectors, strict=True)):
        v = var + exact_eps
        if v <= 0:
            raise ArgumentError(f"`running_var` + `eps` (={float(v)}) of channel {c} must be positive")
        part = exact_x[:, c]
        flat = [normalize((value - mean) * g, v, b, form) for value in part.ravel()]
        bits[:, c] = np.array(flat, form.bits).reshape(part.shape)
    return bits.view(dtype)
