"""Arrays of numbers that are known only up to the rounding errors of an implementation: midpoints, and a radius for each.

A formula written in NumPy, given `Ball`s instead of arrays, says what it computes and how far an honest implementation of a `Profile` may be
from that when it evaluates the same formula. Radii are of first order and computed to nearest, so they describe; they prove nothing.
With u the profile's unit, f the growth of a sum, and r the radius of each operand:

    a + b   ra + rb                      a*b   |a|*rb + |b|*ra + ra*rb       a/b   (ra + |a/b|*rb)/(|b| - rb), infinite where b may be 0
    g(a)    the larger of |g(a + ra) - g(a)| and |g(a) - g(a - ra)|, g monotone         sum   sum of r, and f*(sum |a| + r)

each with u*|result| and an underflow more, 8u for the elementary functions (4 ulp). What exceeds the format is infinite, as there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npreparam.certified.bounds import Profile

Floats = NDArray[np.float64]
FUNCTION = 8  # u per elementary function: 4 ulp


class Ball(np.lib.mixins.NDArrayOperatorsMixin):
    """Midpoints, radii, and the profile whose arithmetic they come from.

    >>> x = Ball(np.ones(2), np.zeros(2), Profile())
    >>> y = x / 3 + 1
    >>> bool((y.radius < 3 * 2.0**-24).all() and (y.radius > 2.0**-24).all())
    True
    """

    def __init__(self, value: Any, radius: Any, profile: Profile) -> None:
        self.value = np.asarray(value, np.float64)
        self.radius = np.broadcast_to(np.asarray(radius, np.float64), self.value.shape)
        self.profile = profile

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        return self.value.shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.value.ndim

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.value.size

    @property
    def T(self) -> Ball:
        """Axes in reverse."""
        return Ball(self.value.T, self.radius.T, self.profile)

    def __len__(self) -> int:
        return len(self.value)

    def __getitem__(self, at: Any) -> Ball:
        return Ball(self.value[at], self.radius[at], self.profile)

    def reshape(self, *shape: Any) -> Ball:
        """The same elements in another shape."""
        return Ball(self.value.reshape(*shape), self.radius.reshape(*shape), self.profile)

    def rounded(self, value: Any, radius: Any, roundings: float = 1) -> Ball:
        """A result after so many roundings, in the range of the accumulator's format."""
        value = np.asarray(value, np.float64)
        with np.errstate(all="ignore"):
            radius = np.asarray(radius + roundings * (self.profile.unit * (np.abs(value) + radius) + self.profile.tiny))
            value = np.where(np.abs(value) > self.profile.limit, np.copysign(np.inf, value), value)
            value = np.where(np.abs(value) < self.profile.tiny / 2, 0.0, value)
            radius = np.where(np.isfinite(value), np.where(np.isnan(radius), np.inf, radius), 0.0)
        return Ball(value, radius, self.profile)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        values = [_value(x) for x in inputs]
        if method != "__call__" or kwargs:
            return NotImplemented
        with np.errstate(all="ignore"):
            if ufunc in (np.multiply, np.divide) and _is_power_of_two(inputs[1]):
                return self.rounded(ufunc(*values), ufunc(self.radius, abs(inputs[1])), 0)
            if ufunc in _ARITHMETIC:
                return self.rounded(ufunc(*values), _ARITHMETIC[ufunc](*values, *[_radius(x) for x in inputs]))
            if ufunc in _MONOTONE:
                low, middle, high = (ufunc(values[0] + sign * self.radius) for sign in (-1, 0, 1))
                return self.rounded(middle, np.where(self.radius == 0, 0, np.maximum(np.abs(high - middle), np.abs(middle - low))), _MONOTONE[ufunc])
            if ufunc in _EXACT:
                return Ball(ufunc(*values), _larger(*[_radius(x) for x in inputs]), self.profile)
        return ufunc(*values)  # a comparison, or a test: of the midpoints

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        with np.errstate(all="ignore"):
            if function in (np.sum, np.mean):
                return self._summed(function is np.mean, *args[1:], **kwargs)
            if function is np.max:
                return Ball(*(np.max(part, *args[1:], **kwargs) for part in (self.value, self.radius)), self.profile)
            values = function(*_each(_value, args), **kwargs)
            if function is np.full_like:
                return Ball(values, 0.0, self.profile)
            if function in (np.argmax, np.shape, np.ndim):
                return values
            return Ball(values, function(*_each(_moved_radius, args), **kwargs), self.profile)

    def _summed(self, averaged: bool, axis: Any = None, keepdims: bool = False) -> Ball:
        value = np.sum(self.value, axis=axis, keepdims=keepdims)
        count = self.size // max(1, value.size)
        growth = self.profile.growth(count)
        radius = np.sum(self.radius + growth * (np.abs(self.value) + self.radius), axis=axis, keepdims=keepdims)
        divisor = count if averaged else 1
        return self.rounded(np.asarray(value) / divisor, radius / divisor, 2 * averaged)


def _value(x: Any) -> Any:
    return x.value if isinstance(x, Ball) else x


def _radius(x: Any) -> Any:
    return x.radius if isinstance(x, Ball) else 0.0


def _moved_radius(x: Any) -> Any:
    """What stands for an argument where radii are moved as the values are: masks, indices and shapes for themselves, other numbers for 0."""
    if isinstance(x, Ball):
        return x.radius
    if isinstance(x, np.ndarray) and x.dtype.kind == "f":
        return np.zeros_like(x)
    return 0.0 if isinstance(x, float) else x


def _each(part: Callable[[Any], Any], args: Any) -> list[Any]:
    """Arguments, and those in a list of arrays, replaced."""
    return [[part(x) for x in arg] if isinstance(arg, list) else part(arg) for arg in args]


def _product_radius(a: Any, b: Any, ra: Any, rb: Any) -> Any:
    return np.abs(a) * rb + np.abs(b) * ra + ra * rb


def _quotient_radius(a: Any, b: Any, ra: Any, rb: Any) -> Any:
    distance = np.abs(b) - rb
    return np.where((ra == 0) & (rb == 0), 0.0, np.where(distance > 0, (ra + np.abs(a / b) * rb) / distance, math.inf))


def _is_power_of_two(x: Any) -> bool:
    return isinstance(x, int | float) and abs(math.frexp(x)[0]) == 0.5


def _sum_radius(a: Any, b: Any, ra: Any, rb: Any) -> Any:
    return ra + rb


def _larger(ra: Any, rb: Any = 0.0) -> Any:
    return np.maximum(ra, rb)


_ARITHMETIC = {np.add: _sum_radius, np.subtract: _sum_radius, np.multiply: _product_radius, np.divide: _quotient_radius}
_MONOTONE = {**dict.fromkeys((np.exp, np.expm1, np.log, np.log1p, np.tanh), FUNCTION), np.sqrt: 1, np.floor: 0}
_EXACT = (np.negative, np.positive, np.abs, np.maximum, np.minimum, np.fmax)
