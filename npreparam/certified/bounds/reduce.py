"""Sums and means: no products, so one rounding less than a dot product."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from npreparam._errors import ShapeError
from npreparam.certified.bounds._majorant import Floats, plus, quiet, up
from npreparam.certified.bounds.profile import Profile, profiled

Axis = int | tuple[int, ...] | None


def _count(x: Floats, axis: Axis) -> int:
    axes = range(x.ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    return math.prod(x.shape[i] for i in axes)


def mean_error(absolute_mean: Floats, count: Any, length: Any, profile: Profile) -> Floats:
    """|m^ - m| <= (f + g + f*g)*(mean|x| + a) + a, with f the growth of n terms, g = (1 - u)^-2 - 1, a = (2n + 2)*tiny.

    Covers a sum divided by n or multiplied by 1/n, and a sum of terms scaled before: each term passes n - 1 additions, the rounding of 1/n and
    one product. `length` counts zeros of padding too.
    """
    growth, scaling = profile.growth(count, length), profile.compound(2)
    tiny = (2 * np.asarray(count, np.float64) + 2) * profile.tiny
    return up(plus(growth, scaling) * (absolute_mean + tiny) + tiny)


@profiled
@quiet
def sum_bound(x: Any, axis: Axis = None, keepdims: bool = False, profile: Profile | str | None = None) -> Floats:
    """How far an honest sum may be from the exact one.

    |y^ - y| <= (n - 1)*u*sum|x| in any order, to nearest; `Profile.growth` of n - 1 otherwise. Additions do not underflow, unless flushed to zero.

    x has any float or integer dtype; the bound is a float64 array, infinite where the format may overflow.

    Rounding: upwards. Raises DTypeError, ArgumentError (NaN, infinity).

    Source: Jeannerod and Rump, SIAM J. Matrix Anal. Appl. 34(2), 2013; ASNA, section 4.2.

    >>> bool(sum_bound(np.ones(5), profile="float32") > 4 * 5 * 2.0**-24)
    True
    """
    values, drift = profile.addend(x, "x")
    n = _count(values, axis)
    size = up(np.sum(np.abs(values) + drift, axis=axis, keepdims=keepdims), n)
    moved = up(np.sum(drift, axis=axis, keepdims=keepdims), n) if drift.any() else 0.0
    lost = n * profile.tiny if profile.flush_to_zero else 0.0
    value = up(np.abs(np.sum(values, axis=axis, keepdims=keepdims)) + n * 2.0**-52 * size, n)
    growth = profile.growth(max(n - 1, 0), n)
    return up(profile.finish(growth * (size + lost) + lost + moved, value, size + lost))


@profiled
@quiet
def mean_bound(x: Any, axis: Axis = None, keepdims: bool = False, profile: Profile | str | None = None) -> Floats:
    """How far an honest mean may be from the exact one: `mean_error`, whether the sum or each term is divided.

    x and the bound as in `sum_bound`.

    Raises DTypeError, ArgumentError, ShapeError (nothing to average).

    >>> bool(mean_bound(np.ones(4), profile="float32") < 6.01 * 2.0**-24)
    True
    """
    values, drift = profile.addend(x, "x")
    n = _count(values, axis)
    if n == 0:
        raise ShapeError(f"`x` has shape {values.shape}: there is nothing to average over `axis` (={axis})")
    size = up(np.mean(np.abs(values) + drift, axis=axis, keepdims=keepdims), n + 1)
    moved = up(np.mean(drift, axis=axis, keepdims=keepdims), n + 1) if drift.any() else 0.0
    value = up(np.abs(np.mean(values, axis=axis, keepdims=keepdims)) + (n + 1) * 2.0**-52 * size, n)
    return up(profile.finish(mean_error(size, n, n, profile) + moved, value, n * size))
