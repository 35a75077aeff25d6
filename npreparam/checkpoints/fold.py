"""Recognised blocks as one convolution: the expression read as an affine map, and its parameters rounded to the storage format."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from npreparam._errors import FusionError
from npreparam.checkpoints._read import Array, CostlyError, Reader, Tensors
from npreparam.checkpoints._recognise import Block
from npreparam.checkpoints._restrict import Pairs, Part, can_restrict, parts_of
from npreparam.checkpoints._rows import Rows
from npreparam.checkpoints.expression import Conv, Expression, leaves
from npreparam.fuse import AffineConv, to_conv_transpose2d
from npreparam.fuse.rounded import STORED, Entry, Read, correctly_rounded
from npreparam.fuse.scalars import FLOAT64

OPTIONS = {"identity": "--identity or --no-identity"}  # of the commands, where they are not called as what they tell
EXACTLY, ONCE = "correctly rounded", "float64, then rounded once"


@dataclass(frozen=True, eq=False)
class Folded:
    """The convolution that a block is: stored parameters, and by which of two ways they were rounded.

    >>> Folded(np.ones((1, 1, 3, 3), np.float32), np.zeros(1, np.float32), EXACTLY).rounding
    'correctly rounded'
    """

    weight: Array
    bias: Array
    rounding: str


def fold(block: Block, tensors: Tensors, dtype: DTypeLike | None = None) -> Folded:
    """The weight and bias of the one convolution that a block is.

    weight is (O, I/groups, ...), of a transposed convolution (I, O/groups, ...), bias (O,); `dtype` is by default that of the first kernel.

    Rounding: float16, float32 and float64 to nearest, once, from the exact number, unless a block whose float64 value does not tell the
    rounding is too large for exact arithmetic; then, and in other formats, from the float64 value. `Folded.rounding` says which.

    Raises FusionError: a refused block, one of which something must still be given, numbers that are not finite, no exact border.

    >>> from npreparam.checkpoints import certify, recognise
    >>> tensors = {"0.weight": np.full((2, 3, 3, 1), 0.1, np.float32), "1.weight": np.full((4, 2, 1, 3), 0.1, np.float32)}
    >>> block, = recognise(tensors, "tdesr").blocks
    >>> folded = fold(block, tensors)
    >>> folded.weight.shape, folded.rounding, certify(block, tensors, folded.weight, folded.bias).held
    ((4, 3, 3, 3), 'correctly rounded', True)
    """
    check(block, tensors)
    first = next((leaf.weight for leaf in leaves(block.expression) if isinstance(leaf, Conv)), block.tensors[0])
    return _folded(block.expression, tensors, np.dtype(tensors[first].dtype if dtype is None else dtype))


def _folded(expression: Expression, tensors: Tensors, dtype: np.dtype[Any]) -> Folded:
    """Part by part, so that little memory beyond the result is used."""
    reader, factors = Reader(expression, tensors), sum(1 for _ in leaves(expression)) + 1
    single = Pairs(reader) if can_restrict(expression) and not reader.budget.rational else Rows(reader)
    kernels, shifts, ways = [], [], set()
    for part in parts_of(expression, tensors):
        conv, way = read_rounded(part.reader, partial(_entry, single, part), dtype, factors)
        kernel, shift = stored(kernel_of(conv)[0], conv.bias, dtype)
        kernels.append(kernel), shifts.append(shift), ways.add(way)
    return Folded(np.concatenate(kernels), np.concatenate(shifts), ONCE if ONCE in ways else EXACTLY)


def _entry(single: Rows | Pairs, part: Part, row: int, column: int, conv: AffineConv) -> Read:
    """One output and one input of a part, as the part numbers them."""
    return single.entry((part.rows.start or 0) + row, part.column + column, part.outputs or conv.outputs)


def read_rounded(read: Read, entry: Entry, dtype: np.dtype[Any], factors: int) -> tuple[AffineConv, str]:
    """The map with numbers of `dtype`, and by which of the two ways they were rounded; the arguments are those of `correctly_rounded`."""
    if dtype.name in STORED:
        try:
            return correctly_rounded(read, dtype, factors, entry), EXACTLY
        except CostlyError:
            pass
    return read(FLOAT64), ONCE


def stored(weight: Array, bias: Array, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """Both in `dtype`. Raises FusionError where it does not hold them."""
    with np.errstate(over="ignore", under="ignore"):
        weight, bias = weight.astype(dtype), bias.astype(dtype)
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise FusionError(f"its fused numbers exceed {dtype}", "store a wider format")
    return weight, bias


def check(block: Block, tensors: Tensors) -> None:
    """FusionError for a block that is refused, of which something must still be given, or with numbers that are not finite."""
    if block.refusal:
        raise FusionError(block.refusal, "leave it as it is")
    if block.needed():
        names = [what.partition(",")[0] for what in block.needed()]
        options = " and ".join(OPTIONS.get(name, f"--{name}") for name in names if not name.startswith("the "))
        given = f"give it ({options}; in Python arguments of `recognise`), or " if options else ""
        raise FusionError(f"its tensors do not tell {', '.join(block.needed())}",
                          f"look into the network's code and {given}describe the family in a TOML file (--family)")
    bad = next((name for name in block.tensors if not np.isfinite(tensors[name]).all()), None)
    if bad:
        raise FusionError(f"{bad} holds a number that is not finite", "repair the checkpoint")


def kernel_of(conv: AffineConv) -> tuple[Array, dict[str, Any]]:
    """(w, geometry) with which `ops` compute a map; the size of w depends on the taps, not on which of them are zero.

    >>> from npreparam.fuse import from_conv
    >>> kernel_of(from_conv(np.array([[[0.0, 1.0, 0.0]]]), padding=1))
    (array([[[0., 1., 0.]]]), {'stride': (1,), 'padding': ((1, 1),), 'groups': 1})
    """
    if conv.transposed:
        w, _, stride, padding, more, _, groups = to_conv_transpose2d(conv)
        return w, {"stride": stride, "padding": padding, "output_padding": more, "groups": groups}
    spans = [conv.span(axis) for axis in range(conv.rank)]
    lows = [min(0, low) for low, _ in spans]
    highs = [max(high, low, -slack - 1) for (_, high), low, slack in zip(spans, lows, conv.slack, strict=True)]
    lengths = tuple(high - low + 1 for low, high in zip(lows, highs, strict=True))
    if conv.taps == tuple(product(*(range(low, high + 1) for low, high in zip(lows, highs, strict=True)))):  # as a kernel has them: a view
        w = np.moveaxis(conv.blocks, 0, -1).reshape(*conv.blocks.shape[1:], *lengths)
        return w, _geometry(conv, lows, highs)
    w = np.zeros((*conv.blocks.shape[1:], *lengths))
    for tap, matrix in zip(conv.taps, conv.blocks, strict=True):
        w[(slice(None), slice(None), *(o - low for o, low in zip(tap, lows, strict=True)))] = matrix
    return w, _geometry(conv, lows, highs)


def _geometry(conv: AffineConv, lows: list[int], highs: list[int]) -> dict[str, Any]:
    padding = tuple((-low, slack + high + 1) for low, high, slack in zip(lows, highs, conv.slack, strict=True))
    return {"stride": conv.stride, "padding": padding, "groups": conv.groups}
