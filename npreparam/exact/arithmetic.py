"""Sums and means over axes, over rational numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

from npreparam._errors import ArgumentError
from npreparam._shapes import as_int
from npreparam.exact.rounding import Array, finish, operand, over_common
from npreparam.exact.special import NAN

Axes = int | Sequence[int] | None


def checked_axes(axis: Axes, rank: int) -> tuple[int, ...]:
    """`axis` as a tuple of distinct non-negative numbers; None stands for all."""
    if axis is None:
        return tuple(range(rank))
    chosen = [as_int(i, "axis", -rank) for i in (axis if isinstance(axis, Iterable) else (axis,))]
    if any(i >= rank for i in chosen):
        raise ArgumentError(f"`axis` (={axis!r}) must lie in [{-rank}, {rank}) for an array of {rank} axes")
    positive = tuple(i % rank for i in chosen)
    if len(set(positive)) < len(positive):
        raise ArgumentError(f"`axis` (={axis!r}) names an axis twice")
    return positive


def _total(numbers: Array, axes: tuple[int, ...], keepdims: bool) -> Array:
    integers, unit = over_common(numbers)
    return integers.sum(axis=axes, keepdims=keepdims) * unit


def sum(x: Any, axis: Axes = None, keepdims: bool = False, out_dtype: Any = "same") -> Array:
    """The correctly rounded sum over one axis, several, or all (None).

    x of any shape; `out_dtype` as in `conv2d`. NaN, or infinities of both signs, give NaN; else an infinity itself. Of nothing: 0.

    Rounding: once, to nearest, ties to even; an exact zero is +0.

    Raises DTypeError, ArgumentError (axis out of range or named twice; NaN or infinity where `out_dtype` is None).

    Source: IEEE 754-2019, 4.3.1.

    >>> import numpy as np
    >>> sum(np.array([1.0, 2.0**-60, -1.0]))    # every order of additions that begins with the first two loses 2^-60
    array(8.67361738e-19)
    """
    numbers = operand(x, "x", out_dtype)
    return finish(_total(numbers, checked_axes(axis, numbers.ndim), keepdims), out_dtype, x)


def mean(x: Any, axis: Axes = None, keepdims: bool = False, out_dtype: Any = "same") -> Array:
    """The correctly rounded arithmetic mean: the exact sum over the number of elements; of nothing, NaN.

    Arguments, rounding and errors as `sum`; ArgumentError, too, for the mean of nothing where `out_dtype` is None.

    >>> import numpy as np
    >>> mean(np.array([1.0, 2.0]))
    array(1.5)
    """
    numbers = operand(x, "x", out_dtype)
    axes = checked_axes(axis, numbers.ndim)
    count = math.prod(numbers.shape[i] for i in axes)
    if not count and out_dtype is None:
        raise ArgumentError(f"`x` of shape {numbers.shape} has no elements over `axis` (={axis!r}): their mean is no rational number")
    total = _total(numbers, axes, keepdims)
    return finish(total * (Fraction(1, count) if count else NAN), out_dtype, x)
