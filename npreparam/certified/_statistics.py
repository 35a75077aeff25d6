"""Mean and variance of channels, as batch norm needs them: floats near them for all channels at once, and the exact numbers of a few.

Exact numbers cost some microseconds each, so they are made where a float does not decide, channel by channel.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npreparam import kernels
from npreparam.certified._affine import as_floats, number, quotient, within
from npreparam.certified._sums import special_sum, unit_of
from npreparam.exact.batch_norm import at_least_two, inverse_root
from npreparam.exact.roots import InverseRoot, Number
from npreparam.exact.rounding import FORMATS, as_numbers
from npreparam.exact.special import NAN

Array = NDArray[Any]
Shape = tuple[int, int, int]


class Vector:
    """A vector of numbers, each exact where it is asked for; `floats` is the same as float64, or NaN where it was given as other than floats."""

    def __init__(self, value: Any, name: str) -> None:
        array = np.asarray(value)
        self.shape, self.exact = array.shape, None
        if array.dtype.name in FORMATS:
            with np.errstate(invalid="ignore"):  # a signalling NaN is a NaN
                self.floats = array.astype(np.float64)
        else:
            self.exact, self.floats = as_numbers(array, name), np.full(array.shape, np.nan)

    def __getitem__(self, c: int) -> Number:
        value: Number = number(self.floats[c]) if self.exact is None else self.exact[c]
        return value


class Statistics:
    """Mean, variance and 1/sqrt(variance + eps) of each channel.

    `means` (C, 2) and `variances` (C,) are float64: a mean is within u of the second float of the sum of both, a variance within u; NaN where
    no such floats are known. `v` is the variance + eps, within 2u, as no terms of opposite signs are added; NaN also where it is not `within`.
    `exact(c)` is (mean, variance).
    """

    def __init__(self, means: Array, variances: Array, exact: Callable[[int], tuple[Number, Number]], eps: Fraction, training: bool) -> None:
        self.means, self.variances, self.exact = means, variances, cache(exact)
        self.root: Callable[[int], InverseRoot] = cache(lambda c: inverse_root(self.exact(c)[1], eps, c, training))
        with np.errstate(invalid="ignore"):
            v = np.where(variances >= 0, variances, np.nan) + (as_floats(eps)[0][0] if eps >= 0 else np.nan)
        self.v = within(np.where(v > 0, v, np.nan))
        for c in np.flatnonzero(np.isnan(self.v)).tolist():
            self.root(c)  # raises where it is not positive

    def scales(self, gamma: Vector) -> Array:
        """gamma/sqrt(v), within 3u."""
        return within(within(gamma.floats) / np.sqrt(self.v))

    @classmethod
    def of_running(cls, mean: Vector, var: Vector, eps: Fraction) -> Statistics:
        """The running ones."""
        means = np.stack([mean.floats, np.zeros_like(mean.floats)], axis=1)
        return cls(means, var.floats, lambda c: (mean[c], var[c]), eps, training=False)

    @classmethod
    def of_batch(cls, values: Array, shape: Shape, eps: Fraction) -> Statistics:
        """Those of flat float32 or float64 values of shape (N, C, H*W); the variance is biased.

        Floats near them are made for float32 alone. A mean is an integer over n*2^150, n < 2^36; so its second float is 0 or above 2^-280.
        """
        n, unit = at_least_two(shape[0] * shape[2]) if shape[1] else 0, unit_of(values)
        totals, squares, codes = kernels.exact_sums.exact_sums(values, values, shape)

        def exact(c: int) -> tuple[Number, Number]:
            if codes[c]:
                return special_sum(codes[c]) * Fraction(1, n), NAN
            return Fraction(totals[c], n << unit), Fraction(n * squares[c] - totals[c] ** 2, n * n << 2 * unit)

        means, variances = np.full((shape[1], 2), np.nan), np.full(shape[1], np.nan)
        if values.dtype == np.float32:
            for c in np.flatnonzero(codes == 0).tolist():
                means[c] = quotient(totals[c], n << unit, 2)[0]
                variances[c] = quotient(n * squares[c] - totals[c] ** 2, n * n << 2 * unit)[0][0]
        return cls(means, variances, exact, eps, training=True)


class Sums(NamedTuple):
    """The sums of a cotangent g, and of g*(x - mean), for each channel: floats within u, NaN where none are `within`, and the exact numbers."""

    totals: Array
    products: Array
    exact_total: Callable[[int], Number]
    exact_product: Callable[[int], Number]

    @classmethod
    def of(cls, g: Array, x: Array, shape: Shape, exact_mean: Callable[[int], Number]) -> Sums:
        """Of flat arrays of shape (N, C, H*W)."""
        totals, products, codes = kernels.exact_sums.exact_sums(g, x, shape)
        unit = unit_of(g)

        def exact_total(c: int) -> Number:
            return special_sum(codes[c]) if codes[c] & 7 else Fraction(totals[c], 1 << unit)

        def exact_product(c: int) -> Number:
            if codes[c] or not isinstance(exact_mean(c), Fraction):
                numbers = [as_numbers(v.reshape(shape)[:, c], "x") for v in (g, x)]
                product: Number = np.sum(numbers[0] * (numbers[1] - exact_mean(c)))
                return product
            return Fraction(products[c], 1 << 2 * unit) - exact_mean(c) * exact_total(c)

        near = np.full((2, shape[1]), np.nan)
        if g.dtype == np.float32:
            for c in np.flatnonzero(codes == 0).tolist():
                near[0, c] = quotient(totals[c], 1 << unit)[0][0]
                near[1, c] = near_product(totals[c], products[c], exact_mean(c), unit)
        return cls(*within(near), cache(exact_total), cache(exact_product))


def near_product(total: int, product: int, mean: Number, unit: int) -> float:
    """product/2^(2*unit) - mean*total/2^unit, rounded once; NaN if the mean is no number."""
    if not isinstance(mean, Fraction):
        return math.nan
    return quotient(product * mean.denominator - (mean.numerator * total << unit), mean.denominator << 2 * unit)[0][0]
