"""Correctly rounded fused parameters of any expression of maps.

The expression is read twice in float64: for its values, and for the sums of the magnitudes of their terms. A value that k roundings have made
lies within (2k + 4)*u of its magnitude from the exact one: gamma_k for the roundings of the value, as much again for those of the magnitude
and for underflow, which is smaller than u times the magnitude of any product, since `Magnitudes` are not below a floor. Where both ends of that
interval round to one number of the storage format, that number is the answer; the few others are read exactly, as sums of a/sqrt(v), and
rounded by `npreparam.exact`. For storage in float64 those are all.

Source: the rounding test is Ziv's, ACM TOMS 17(3), 1991; gamma_k: Higham, Accuracy and Stability of Numerical Algorithms, lemma 3.1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from npreparam._errors import DTypeError
from npreparam.exact.rounding import FORMATS
from npreparam.exact.surds import round_surd
from npreparam.fuse.affine import AffineConv, Array
from npreparam.fuse.algebra import regroup
from npreparam.fuse.scalars import EXACT, FLOAT64, Magnitudes, Scalars

Read = Callable[[Scalars], AffineConv]
UNIT = 2.0**-53
STORED = ("float16", "float32", "float64")


def correctly_rounded(read: Read, dtype: DTypeLike, factors: int, rows: Callable[[Sequence[int], int], Read] | None = None) -> AffineConv:
    """The map of an expression, each number the value of `dtype` nearest to the exact one, ties to even, held in float64.

    `read` evaluates the expression over a kind of scalars; no product in it has more than `factors` parameters. `rows(chosen, outputs)`
    restricts it to some output channels, so that repairs need not read all of them exactly.

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
    chosen = np.flatnonzero(unsure.any((0, 2)) | unsure_bias)
    if len(chosen):
        if rows is None:
            exact, at = read(EXACT), chosen
        else:
            exact, at = _same_taps(rows(chosen.tolist(), conv.outputs)(EXACT), conv), np.arange(len(chosen))
        _repair(blocks, unsure, chosen, _columns(exact, conv, at, chosen), dtype)
        bias[unsure_bias] = _round(exact.bias[at[np.searchsorted(chosen, np.flatnonzero(unsure_bias))]], dtype)
    return replace(conv, blocks=blocks, bias=bias)


def _rounded(values: Array, sizes: Array, relative: float, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """The values in `dtype`, and where the exact ones may round otherwise."""
    with np.errstate(all="ignore"):
        error = sizes * relative
        low, high = (np.nextafter(values + sign * error, sign * np.inf).astype(dtype) for sign in (-1, 1))
        sure = (low == high) & (np.signbit(low) == np.signbit(high))
        return np.where(sizes == 0, 0.0, low.astype(np.float64)), ~(sure | (sizes == 0))


def _columns(exact: AffineConv, conv: AffineConv, at: Array, chosen: Array) -> Array:
    """Rows `at` of the exact blocks, with the columns that rows `chosen` have in the groups of `conv`."""
    if exact.groups == conv.groups:
        return exact.blocks[:, at]
    dense = regroup(exact, 1).blocks[:, at]
    width = conv.inputs // conv.groups
    first = chosen // (conv.outputs // conv.groups) * width
    return np.stack([dense[:, i, start:start + width] for i, start in enumerate(first)], 1)


def _same_taps(exact: AffineConv, conv: AffineConv) -> AffineConv:
    """The blocks in the order of another map's taps."""
    order = [exact.taps.index(tap) for tap in conv.taps]
    return replace(exact, taps=conv.taps, blocks=exact.blocks[order])


def _repair(blocks: Array, unsure: Array, chosen: Array, exact: Array, dtype: np.dtype[Any]) -> None:
    """Replace what is not certain by the exact value's rounding."""
    where = unsure[:, chosen]
    part = blocks[:, chosen]
    part[where] = _round(exact[where], dtype)
    blocks[:, chosen] = part


def _round(numbers: Array, dtype: np.dtype[Any]) -> Array:
    form = FORMATS[dtype.name]
    return np.array([round_surd(number, form) for number in numbers], form.bits).view(dtype).astype(np.float64)
