"""What the numbers of a layer are when it is read as an affine map: float64, balls, exact, or magnitudes that bound float64's rounding errors."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any, Protocol

import numpy as np

from npreparam.exact.balls import Ball
from npreparam.exact.rounding import as_fractions
from npreparam.exact.surds import inverse_root
from npreparam.fuse.affine import Array
from npreparam.fuse.conv_bn import BatchNorm, scale_and_shift

BATCH_NORM_ROUNDINGS = 5  # var + eps, its root, the quotient; mean*scale, beta - ...


class Scalars(Protocol):
    """A kind of scalar."""

    def numbers(self, values: Any) -> Array:
        """An array of parameters in this kind."""

    def fraction(self, value: Fraction) -> Any:
        """A constant of a layer."""

    def batch_norm(self, bn: BatchNorm, channels: int) -> tuple[Array, Array]:
        """(scale, shift) of batch norm in evaluation mode: gamma/sqrt(var + eps), beta - mean*scale."""


class Float64:
    """float64, each operation rounded."""

    def numbers(self, values: Any) -> Array:
        """The values in float64."""
        return np.asarray(values, np.float64)

    def fraction(self, value: Fraction) -> float:
        """The nearest float."""
        return float(value)

    def batch_norm(self, bn: BatchNorm, channels: int) -> tuple[Array, Array]:
        """At most 3 and 5 roundings."""
        return scale_and_shift(bn, channels, "bn")


class Exact:
    """Fractions, and where a root is irrational `Surd`s: nothing is rounded."""

    def numbers(self, values: Any) -> Array:
        """The rationals that the floats are."""
        return as_fractions(values, "parameters")

    def fraction(self, value: Fraction) -> Fraction:
        """The fraction."""
        return value

    def batch_norm(self, bn: BatchNorm, channels: int) -> tuple[Array, Array]:
        """The exact numbers."""
        scale_and_shift(bn, channels, "bn")  # for its checks
        gamma, beta, mean, var = (as_fractions(values, "parameters") for values in bn[:4])
        eps = Fraction(float(bn[4]))
        scale = np.empty(channels, object)
        scale[:] = [g * inverse_root(v + eps) for g, v in zip(gamma, var, strict=True)]
        return scale, beta - mean * scale


class Balls:
    """Intervals of 2^-320 and less around the exact numbers, a hundred times as fast as those."""

    def numbers(self, values: Any) -> Array:
        """The numbers that the floats are."""
        values = np.asarray(values, np.float64)
        if not np.isfinite(values).all():
            as_fractions(values, "parameters")  # raises
        return self._each(Ball.of_float, values)

    def fraction(self, value: Fraction) -> Ball:
        """The fraction."""
        return Ball.of(value)

    def batch_norm(self, bn: BatchNorm, channels: int) -> tuple[Array, Array]:
        """Balls around the exact numbers."""
        scale_and_shift(bn, channels, "bn")  # for its checks
        gamma, beta, mean = map(self.numbers, bn[:3])
        eps = Fraction(float(bn[4]))
        scale = gamma * self._each(lambda v: Ball.inverse_root(v + eps), as_fractions(bn[3], "parameters"))
        return scale, beta - mean * scale

    @staticmethod
    def _each(function: Callable[[Any], Ball], values: Array) -> Array:
        result = np.empty(values.shape, object)
        result.ravel()[:] = [function(value) for value in values.ravel().tolist()]
        return result


class Magnitudes:
    """Absolute values in float64, those below `floor` but not 0 raised to it, so that no product of few of them is small.

    The map read with these numbers bounds, for each number of the float64 map, the sum of the magnitudes of its terms.
    """

    def __init__(self, floor: float) -> None:
        self.floor = floor

    def numbers(self, values: Any) -> Array:
        """|values|."""
        sizes = np.asarray(np.abs(np.asarray(values, np.float64)))
        return np.maximum(sizes, self.floor, out=sizes, where=sizes != 0)

    def fraction(self, value: Fraction) -> float:
        """|value|."""
        return float(self.numbers(float(value)))

    def batch_norm(self, bn: BatchNorm, channels: int) -> tuple[Array, Array]:
        """|scale| and |beta| + |mean*scale|."""
        scale = self.numbers(scale_and_shift(bn, channels, "bn")[0])
        return scale, self.numbers(bn[1]) + self.numbers(bn[2]) * scale


FLOAT64, BALLS, EXACT = Float64(), Balls(), Exact()
UNROUNDED = (BALLS, EXACT)
