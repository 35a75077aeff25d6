"""Elementwise functions: how far an honest implementation may be whose exp, log and tanh are right to some ulps.

A function may be wrong by `ulps` ulps of the accumulator's format, 1 ulp <= 2u|y|, and every function and operation may round its result to the
output's format besides: with f functions and k operations one after the other, a factor within (1 - u)^-(2*ulps*f) * (1 - u_out)^-(f + k).
Bounds are computed from float64 values of the functions, which are right to 2^-50, and raised by `up`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from npreparam.certified.bounds._majorant import Floats, quiet, up
from npreparam.certified.bounds.profile import Profile, profiled, smallest, smallest_normal, unit

ULPS = 4.0  # of exp, log and tanh: what OpenCL C 3.0 (table 65) asks of exp and log in full profile is 3, of tanh 5


def relative(profile: Profile, ulps: float, functions: float, operations: float) -> float:
    """The factor above, less 1."""
    step = max(profile.unit, unit(profile.output))
    return float(np.expm1(-2 * ulps * functions * np.log1p(-profile.unit) - (functions + operations) * np.log1p(-step)))


def least(profile: Profile) -> float:
    """What one operation may lose by underflow, in either format."""
    return max(profile.tiny, smallest_normal(profile.output) if profile.flush_to_zero else smallest(profile.output))


def finished(error: Any, value: Any, profile: Profile) -> Floats:
    """`error` raised, and infinity where a format's range may be left."""
    return up(profile.finish(up(error), up(np.abs(value)), up(np.abs(value))))


@profiled
@quiet
def tanh_bound(x: Any, ulps: float = ULPS, profile: Profile | str | None = None) -> Floats:
    """How far an honest tanh may be from the exact one: `ulps` ulps, underflow, and what rounded operands do.

    x has any shape and float dtype, as has the float64 bound. Raises DTypeError, ArgumentError (NaN, infinity).

    >>> bool(tanh_bound(np.float32([1.0])) < 8.1 * 2.0**-24)
    True
    """
    x, dx = profile.operand(x, "x")
    y = np.tanh(x)
    return finished(relative(profile, ulps, 1, 0) * np.abs(y) + least(profile) + dx, y, profile)


@profiled
@quiet
def sigmoid_bound(x: Any, ulps: float = ULPS, profile: Profile | str | None = None) -> Floats:
    """How far an honest 1/(1 + exp(-x)) may be: one function, two operations, and 0 where exp(-x) overflows; else as `tanh_bound`.

    >>> bool(sigmoid_bound(np.float32([0.0])) < 6 * 2.0**-24)
    True
    """
    x, dx = profile.operand(x, "x")
    y = _sigmoid(x)
    return finished(relative(profile, ulps, 1, 2) * y + least(profile) + 1 / profile.limit + dx / 4, y, profile)


@profiled
@quiet
def silu_bound(x: Any, ulps: float = ULPS, profile: Profile | str | None = None) -> Floats:
    """How far an honest x/(1 + exp(-x)) may be: `sigmoid_bound` times |x|, one operation more; else as `tanh_bound`.

    >>> bool(silu_bound(np.float32([1.0])) < 10 * 2.0**-24)
    True
    """
    x, dx = profile.operand(x, "x")
    y = x * _sigmoid(x)
    return finished(relative(profile, ulps, 1, 3) * np.abs(y) + least(profile) * (1 + np.abs(x)) + np.abs(x) / profile.limit + 1.1 * dx, y, profile)


@profiled
@quiet
def softplus_bound(x: Any, ulps: float = ULPS, profile: Profile | str | None = None) -> Floats:
    """How far an honest log(1 + exp(x)) may be, as log1p(exp(x)) or max(x, 0) + log1p(exp(-|x|)); else as `tanh_bound`.

    The relative error of exp(x) is multiplied by exp(x)/((1 + exp(x))*log(1 + exp(x))) < 1: two functions, one operation.

    >>> bool(softplus_bound(np.float32([0.0])) < 14 * 2.0**-24)
    True
    """
    x, dx = profile.operand(x, "x")
    y = _softplus(x)
    return finished(relative(profile, ulps, 2, 1) * y + 2 * least(profile) + dx, y, profile)


def _sigmoid(x: Floats) -> Floats:
    return np.where(x >= 0, 1, np.exp(-np.abs(x))) / (1 + np.exp(-np.abs(x)))


def _softplus(x: Floats) -> Floats:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))
