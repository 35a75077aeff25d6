"""Correctly rounded fused parameters of any expression of maps.

The expression is read twice in float64: for its values, and for the sums of the magnitudes of their terms. A value that k roundings have made
lies within (2k + 4)*u of its magnitude from the exact one: gamma_k for the roundings of the value, as much again for those of the magnitude
and for underflow, which is smaller than u times the magnitude of any product, since `Magnitudes` are not below a floor. Where both ends of that
interval round to one number of the storage format, that number is the answer; the few others are read exactly, as sums of a/sqrt(v), and
rounded by `npreparam.exact`. For storage in float64 those are all.

Source: the rounding test is Ziv's, ACM TOMS 17(3), 1991; gamma_k: Higham, Accuracy and Stability of Numerical Algorithms, lemma 3.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from npreparam._errors import DTypeError
from npreparam.exact.rounding import FORMATS
from npreparam.exact.surds import round_surd
from npreparam.fuse.affine import AffineConv, Array
from npreparam.fuse.scalars import EXACT, FLOAT64, Magnitudes, Scalars

Read = Callable[[Scalars], AffineConv]
Entry = Callable[[int, int, AffineConv], Read]
UNIT = 2.0**-53
MANY = 8  # beyond one in so many entries the whole is read exactly
STORED = ("float16", "float32", "float64")


def correctly_rounded(read: Read, dtype: DTypeLike, factors: int, entry: Entry | None = None) -> AffineConv:
    """The map of an expression, each number the value of `dtype` nearest to the exact one, ties to even, held in float64.

    `read` evaluates the expression over a kind of scalars; no product in it has more than `factors` parameters. `entry(row, column, whole)`
    restricts it to one output and one input channel of the whole map, so that a repair need not read all of it exactly.

    Raises DTypeError (float16, float32 and float64 are stored), and what `read` raises.

    >>> from npreparam.fuse import pointwise
    >>> third = lambda scalars: pointwise(scalars.batch_norm([np.array([v]) for v in (1.0, 0.0, 0.0, 9.0)] + [0.0], 1)[0])
    >>> correctly_rounded(third, np.float16, 1).blocks
    array([[[0.33325195]]])
    """
    dtype = np.dtype(dtype)
    if dtype.name not in STORED:
        raise DTypeError(f"`dtype` (={dtype}) must be one of {', '.join(STORED)}")
    conv, sizes = read(FLOAT64), read(Magnitudes(2.0 ** (-960 / max(1, factors))))
    relative = (2 * conv.roundings + 4) * UNIT
    blocks, unsure = _rounded(conv.blocks, sizes.blocks, relative, dtype)
    bias, unsure_bias = _rounded(conv.bias, sizes.bias, relative, dtype)
    pairs = unsure.any(0)
    pairs[:, 0] |= unsure_bias  # a bias is read beside some entry of its row
    if entry is None or pairs.sum() * MANY > pairs.size:
        exact = read(EXACT)
        blocks[unsure] = _round(exact.blocks[unsure], dtype)
        bias[unsure_bias] = _round(exact.bias[unsure_bias], dtype)
    else:
        for row, column in np.argwhere(pairs).tolist():
            first = row // (conv.outputs // conv.groups) * blocks.shape[2]
            exact = entry(row, first + column, conv)(EXACT)
            if unsure_bias[row]:
                bias[row] = _round(exact.bias, dtype)[0]
            for tap in np.flatnonzero(unsure[:, row, column]):
                blocks[tap, row, column] = _round(exact.blocks[exact.taps.index(conv.taps[tap]), 0], dtype)[0]
    return replace(conv, blocks=blocks, bias=bias)


def _rounded(values: Array, sizes: Array, relative: float, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """The values in `dtype`, and where the exact ones may round otherwise."""
    with np.errstate(all="ignore"):
        error = sizes * relative
        low, high = (np.nextafter(values + sign * error, sign * np.inf).astype(dtype) for sign in (-1, 1))
        sure = (low == high) & (np.signbit(low) == np.signbit(high))
        return np.where(sizes == 0, 0.0, low.astype(np.float64)), ~(sure | (sizes == 0))


def _round(numbers: Iterable[Any], dtype: np.dtype[Any]) -> Array:
    form = FORMATS[dtype.name]
    return np.array([round_surd(number, form) for number in numbers], form.bits).view(dtype).astype(np.float64)
