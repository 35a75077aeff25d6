"""Recognised blocks as one convolution: the expression read as an affine map, and its parameters rounded to the storage format."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from npreparam._errors import FusionError
from npreparam.checkpoints._read import Array, CostlyError, Reader, Tensors, input_channels
from npreparam.checkpoints._recognise import Block
from npreparam.checkpoints._restrict import Restriction, can_restrict, common_groups, output_channels
from npreparam.checkpoints._rows import Rows
from npreparam.checkpoints.expression import Conv, Expression, leaves, tensor_names
from npreparam.fuse import AffineConv, to_conv_transpose2d
from npreparam.fuse.rounded import STORED, Entry, Read, correctly_rounded
from npreparam.fuse.scalars import FLOAT64, Scalars

EXACTLY, ONCE = "correctly rounded", "float64, then rounded once"
PART = 2**17  # numbers that are fused at a time


@dataclass(frozen=True, eq=False)
class Folded:
    """The convolution that a block is: stored parameters, and by which of two ways they were rounded."""

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
    """Part by part, so that little memory beyond the result is used, and most of that lies in the cache."""
    entries, factors, ways = Entries(expression, tensors), sum(1 for _ in leaves(expression)) + 1, set()
    weight, bias = np.empty(0, dtype), np.empty(0, dtype)
    for rows, columns, reader in parts_of(expression, tensors):
        conv, way = read_rounded(reader, entries.of(rows, columns), dtype, factors)
        kernel, shift = stored(kernel_of(conv)[0], conv.bias, dtype)
        if rows is None:
            return Folded(kernel, shift, way)
        if not bias.size:
            outputs = output_channels(expression, tensors)
            weight, bias = np.empty((outputs, *kernel.shape[1:]), dtype), np.empty(outputs, dtype)
        weight[rows.start:rows.stop], bias[rows.start:rows.stop] = kernel, shift
        ways.add(way)
    return Folded(weight, bias, ONCE if ONCE in ways else EXACTLY)


class Entries:
    """Single outputs and inputs of an expression, to decide a few numbers: where there are roots, of the parameters behind both, in balls.

    Without roots, whole rows of fractions are read at once, with integers over a common denominator.
    """

    def __init__(self, expression: Expression, tensors: Tensors) -> None:
        self.whole = Reader(expression, tensors)
        self.rows = Rows(self.whole) if self.whole.rational or not can_restrict(expression) else None

    def of(self, rows: range | None, columns: range | None) -> Entry:
        """Those of a part, as the part numbers them."""
        first_row, first_column = rows.start if rows else 0, columns.start if columns else 0

        def entry(row: int, column: int, part: AffineConv) -> Read:
            row, column = first_row + row, first_column + column
            if self.rows:
                return self.rows.entry(row, column, part.outputs if rows is None else output_channels(self.whole.expression, self.whole.tensors))
            return self._read(restricted(self.whole, range(row, row + 1), range(column, column + 1)))
        return entry

    def _read(self, part: Reader) -> Read:
        """The part's numbers, at the whole's expense."""
        def read(scalars: Scalars) -> AffineConv:
            part.products = 0
            self.whole.check_cost(scalars)
            conv = part.read(part.expression, scalars, input_channels(part.expression, part.tensors))
            self.whole.products += part.products
            return conv
        return read


def parts_of(expression: Expression, tensors: Tensors) -> Iterator[tuple[range | None, range | None, Reader]]:
    """(outputs, inputs, the block restricted to them): some groups of channels or a part of one at a time, or (None, None, the block)."""
    per_output = sum(tensors[leaf.weight][0].size for leaf in leaves(expression) if isinstance(leaf, Conv))
    outputs, inputs = output_channels(expression, tensors), input_channels(expression, tensors)
    if not can_restrict(expression) or outputs * per_output <= PART:
        yield None, None, Reader(expression, tensors)
        return
    groups = common_groups(expression)
    size, together = outputs // groups, max(1, PART * groups // (outputs * per_output))
    many = max(1, PART // per_output)
    for group in range(0, groups, together):
        stop = min(group + together, groups)
        columns = range(group * inputs // groups, stop * inputs // groups) if groups > 1 else None
        for start in range(group * size, stop * size, many if together == 1 else stop * size):
            rows = range(start, min(start + many, stop * size) if together == 1 else stop * size)
            yield rows, columns, restricted(Reader(expression, tensors), rows, columns)


def restricted(whole: Reader, rows: range, columns: range | None) -> Reader:
    """A reader of some outputs, where no inputs but some are other than 0."""
    restriction = Restriction({name: whole.tensors[name] for name in tensor_names(whole.expression)})
    expression = restriction.of(whole.expression, rows, columns, input_channels(whole.expression, whole.tensors))
    return Reader(expression, restriction.tensors)


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
        raise FusionError(f"its tensors do not tell {', '.join(block.needed())}", "give it, or describe the family in a TOML file")
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
