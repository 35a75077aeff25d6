"""Sums of many floats each, correctly rounded: enclosed as pairs, and where that does not decide, summed as integers."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npreparam import kernels
from npreparam.certified._affine import carrier, flat, settled, spread
from npreparam.exact.roots import Number
from npreparam.exact.rounding import FORMATS, round_to_bits
from npreparam.exact.special import INF, NAN

Array = NDArray[Any]
AT_ONCE = 2048  # rows summed as integers at a time: their digits take a few kilobytes each


def unit_of(values: Array) -> int:
    """The exact sums of a float32 or float64 array are in units of 2^-this, those of products in units of 2^-2*this."""
    return 150 if values.dtype == np.float32 else 1075


def special_sum(code: int) -> Number:
    """What NaN and infinities add up to, by the code in `exact_sums`."""
    return NAN if code & 1 or code & 6 == 6 else INF if code & 2 else -INF


def exact_row_sums(rows: Array) -> list[Number]:
    """The sum of each row of a float32 or float64 matrix."""
    sums: list[Number] = []
    for first in range(0, len(rows), AT_ONCE):
        some = rows[first : first + AT_ONCE]
        values = some.reshape(-1)
        totals, _, codes = kernels.exact_sums.exact_sums(values, values, (1, *some.shape))
        sums += [special_sum(code) if code else Fraction(total, 1 << unit_of(values)) for total, code in zip(totals, codes.tolist(), strict=True)]
    return sums


def rounded_row_sums(rows: Array, counts: Array, dtype: np.dtype[Any]) -> tuple[Array, int]:
    """The sum of each row of a matrix over its count, a positive integer, correctly rounded; and the number of repairs."""
    rows = flat(rows).reshape(rows.shape)
    counts = np.require(np.broadcast_to(counts, len(rows)), np.float64, ["C", "W"])
    low, high = np.empty((2, len(rows)), carrier(dtype))
    kernels.arithmetic.enclose_sums(rows, counts, spread(dtype), low, high)

    def repair(opened: Array) -> list[int]:
        sums = zip(exact_row_sums(rows[opened]), counts[opened].tolist(), strict=True)
        return [round_to_bits(total * Fraction(1, int(count)), FORMATS[dtype.name]) for total, count in sums]

    return settled(low, high, dtype, repair)


def reduced(x: Array, axes: tuple[int, ...]) -> Array:
    """x as a matrix whose rows run over these axes."""
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    return x.transpose(*kept, *axes).reshape(math.prod(x.shape[axis] for axis in kept), math.prod(x.shape[axis] for axis in axes))
