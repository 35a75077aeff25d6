"""Correctly rounded fused parameters of any expression of maps.

The expression is read twice in float64: for its values, and for the sums of the magnitudes of their terms. A value that k roundings have made
lies within (2k + 4)*u of its magnitude from the exact one: gamma_k for the roundings of the value, as much again for those of the magnitude
and for underflow, which is smaller than u times the magnitude of any product, since `Magnitudes` are not below a floor. Where both ends of that
interval, which is 4u wider for their own roundings, are one number of the storage format, that number is the answer. The few others are read as
balls of 320 bits, and where those do not tell either, exactly, as sums of a/sqrt(v). For storage in float64 the few are all.

Source: the rounding test is Ziv's, ACM TOMS 17(3), 1991; gamma_k: Higham, Accuracy and Stability of Numerical Algorithms, lemma 3.1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from npreparam._errors import DTypeError, FusionError
from npreparam.exact.balls import Ball, round_ball
from npreparam.exact.rounding import FORMATS
from npreparam.exact.surds import round_surd
from npreparam.fuse.affine import AffineConv, Array, Offset
from npreparam.fuse.scalars import BALLS, EXACT, FLOAT64, Magnitudes, Scalars

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
    relative = (2 * conv.roundings + 8) * UNIT
    blocks, unsure = _rounded(conv.blocks, sizes.blocks, relative, dtype)
    bias, unsure_bias = _rounded(conv.bias, sizes.bias, relative, dtype)
    if not (unsure.any() or unsure_bias.any()):
        return replace(conv, blocks=blocks, bias=bias)
    pairs = unsure.any(0)
    pairs[:, 0] |= unsure_bias  # a bias is read beside some entry of its row
    if entry is None or pairs.sum() * MANY > pairs.size:
        settled = _settled(read, lambda full: [*full.blocks[unsure], *full.bias[unsure_bias]], dtype)
        blocks[unsure], bias[unsure_bias] = settled[:unsure.sum()], settled[unsure.sum():]
        return replace(conv, blocks=blocks, bias=bias)
    for row, column in np.argwhere(pairs).tolist():
        first = row // (conv.outputs // conv.groups) * blocks.shape[2]
        taps = np.flatnonzero(unsure[:, row, column])
        settled = _settled(entry(row, first + column, conv), partial(_entry, [conv.taps[tap] for tap in taps]), dtype)
        blocks[taps, row, column] = settled[:-1]
        if unsure_bias[row]:
            bias[row] = settled[-1]
    return replace(conv, blocks=blocks, bias=bias)


def _entry(taps: Sequence[Offset], part: AffineConv) -> list[Any]:
    """Some weights and the bias of a map of one channel."""
    return [*(part.blocks[part.taps.index(tap), 0, 0] for tap in taps), part.bias[0]]


def _settled(read: Read, wanted: Callable[[AffineConv], list[Any]], dtype: np.dtype[Any]) -> Array:
    """Some numbers of a map, rounded: those that balls tell, the others from exact ones."""
    form = FORMATS[dtype.name]
    try:
        bits = [round_ball(number, form) if isinstance(number, Ball) else round_surd(number, form) for number in wanted(read(BALLS))]
    except FusionError:  # a border whose constants balls cannot tell to be equal
        bits = [None]
    if None in bits:
        bits = [round_surd(number, form) for number in wanted(read(EXACT))]
    return np.array(bits, form.bits).view(dtype).astype(np.float64)


def _rounded(values: Array, sizes: Array, relative: float, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """The values in `dtype`, and where the exact ones may round otherwise."""
    bits = FORMATS[dtype.name].bits
    with np.errstate(all="ignore"):
        error = sizes * relative
        low, high = (values - error).astype(dtype, copy=False), (values + error).astype(dtype, copy=False)
        unsure = low.view(bits) != high.view(bits)  # zeros of different signs too
        if not np.isfinite(sizes.max(initial=0)):
            unsure |= ~np.isfinite(sizes)  # NaN and infinity among the parameters, for the exact reading to refuse
        np.copyto(low, 0, where=sizes == 0)
        return low.astype(np.float64, copy=False), unsure
