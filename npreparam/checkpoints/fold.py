"""Recognised blocks as one convolution: the expression read as an affine map, and its parameters rounded to the storage format."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial, reduce
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from npreparam._errors import FusionError
from npreparam.checkpoints._recognise import Block
from npreparam.checkpoints.expression import AvgPool, BatchNorm, Conv, Expression, Pad, Scale, Sequence, Sum, leaves, tensor_names
from npreparam.checkpoints.restrict import Array, Restriction, Tensors, can_restrict, common_groups, input_channels, output_channels
from npreparam.fuse import AffineConv, add, average_pool, compose, from_conv, from_conv_transpose, identity, pad, pointwise, to_conv_transpose2d
from npreparam.fuse.rounded import STORED, Entry, correctly_rounded
from npreparam.fuse.scalars import BALLS, BATCH_NORM_ROUNDINGS, EXACT, FLOAT64, Scalars

AFFORDABLE = {BALLS: 3_000_000, EXACT: 300_000}  # products of such numbers in one block, a few seconds
EXACTLY, ONCE = "correctly rounded", "float64, then rounded once"
PART = 2**17  # numbers that are fused at a time: what is made of them stays in the cache


class _CostlyError(Exception):
    """Exact arithmetic would take too long."""


@dataclass(frozen=True, eq=False)
class Folded:
    """The convolution that a block is: stored parameters, and by which of two ways they were rounded."""

    weight: Array
    bias: Array
    rounding: str


class Reader:
    """A block's expression as an affine map over a kind of scalars; `spent` counts the products of balls and exact numbers."""

    def __init__(self, expression: Expression, tensors: Tensors, spent: dict[Scalars, int] | None = None) -> None:
        self.expression, self.tensors = expression, tensors
        self.spent = dict.fromkeys(AFFORDABLE, 0) if spent is None else spent

    def __call__(self, scalars: Scalars) -> AffineConv:
        """The whole expression."""
        return self.read(self.expression, scalars, input_channels(self.expression, self.tensors))

    def part(self, rows: range, columns: range | None) -> Reader:
        """Some outputs, where no inputs but some are other than 0."""
        restriction = Restriction({name: self.tensors[name] for name in tensor_names(self.expression)})
        expression = restriction.of(self.expression, rows, columns, input_channels(self.expression, self.tensors))
        return Reader(expression, restriction.tensors, self.spent)

    def read(self, expression: Expression, scalars: Scalars, channels: int) -> AffineConv:
        """One node, which acts on so many channels."""
        match expression:
            case Sum():
                inputs = input_channels(expression, self.tensors) or channels
                return add(*(self.read(term, scalars, inputs) for term in expression.terms))
            case Sequence():
                parts: list[AffineConv] = []
                for step in expression.steps:
                    parts.append(self.read(step, scalars, parts[-1].outputs if parts else channels))
                return reduce(partial(self._then, scalars), parts)
            case Conv():
                return self._conv(expression, scalars)
            case BatchNorm():
                return self._batch_norm(expression, scalars)
            case Scale():
                return self._scale(expression, scalars, channels)
            case Pad():
                return pad(channels, tuple((n, n) for n in expression.amount), len(expression.amount))
            case AvgPool():
                return average_pool(channels, expression.kernel, expression.stride or 1, exact=scalars in AFFORDABLE)
        return identity(channels)

    def _then(self, scalars: Scalars, first: AffineConv, second: AffineConv) -> AffineConv:
        if scalars in AFFORDABLE:
            products = len(first.taps) * second.blocks.size * (1 if first.is_depthwise else first.inputs // first.groups)
            self.spent[scalars] += max(products, first.blocks.size)
            if self.spent[scalars] > AFFORDABLE[scalars]:
                raise _CostlyError
        return compose(second, first)

    def _numbers(self, name: str, scalars: Scalars) -> Array:
        return scalars.numbers(np.asarray(self.tensors[name], np.float64))

    def _conv(self, conv: Conv, scalars: Scalars) -> AffineConv:
        """What is unknown (`Block.open`) has no influence on the weights, or the block is refused: so the simplest value stands for it."""
        weight = self._numbers(conv.weight, scalars)
        if conv.factor:
            factor = self._numbers(conv.factor, scalars)
            weight = weight * factor.reshape(len(weight), *factor.shape[1:], *(1,) * (weight.ndim - max(1, factor.ndim)))
        bias = self._numbers(conv.bias, scalars) if conv.bias else None
        padding, dilation, groups = conv.padding or 0, conv.dilation or 1, conv.groups or 1
        if conv.transposed:  # of stride 1 it would become a convolution, with the taps mirrored
            return from_conv_transpose(weight, bias, max(2, conv.stride or 2), padding, 0, dilation, groups)
        made = from_conv(weight, bias, conv.stride or 1, padding, dilation, groups)
        return replace(made, roundings=int(conv.factor is not None))

    def _batch_norm(self, norm: BatchNorm, scalars: Scalars) -> AffineConv:
        mean, var = (np.asarray(self.tensors[name], np.float64) for name in (norm.mean, norm.var))
        gamma = np.asarray(self.tensors[norm.weight], np.float64) if norm.weight else np.ones_like(mean)
        beta = np.asarray(self.tensors[norm.bias], np.float64) if norm.bias else np.zeros_like(mean)
        return pointwise(*scalars.batch_norm((gamma, beta, mean, var, norm.eps), len(mean)), BATCH_NORM_ROUNDINGS)

    def _scale(self, step: Scale, scalars: Scalars, channels: int) -> AffineConv:
        scale = np.broadcast_to(scalars.numbers(np.array([step.number])), channels)
        if step.weight:
            scale = scale * self._numbers(step.weight, scalars).reshape(-1)
        shift = np.broadcast_to(self._numbers(step.bias, scalars).reshape(-1), channels) if step.bias else None
        return pointwise(scale, shift, 1)


def fold(block: Block, tensors: Tensors, dtype: DTypeLike | None = None) -> Folded:
    """The weight and bias of the one convolution that a block is.

    weight is (O, I/groups, ...), of a transposed convolution (I, O/groups, ...), bias (O,); `dtype` is by default that of the first kernel.
    Large blocks are fused in parts, so that little memory beyond the result is used.

    Rounding: float16, float32 and float64 to nearest, once, from the exact number, unless that takes too many products of exact numbers;
    then, and in other formats, from the float64 value. `Folded.rounding` says which.

    Raises FusionError: a refused block, one of which something must still be given, numbers that are not finite, no exact border.
    """
    if block.refusal:
        raise FusionError(block.refusal, "leave it as it is")
    if block.needed():
        raise FusionError(f"its tensors do not tell {', '.join(block.needed())}", "give it, or describe the family in a TOML file")
    bad = next((name for name in block.tensors if not np.isfinite(tensors[name]).all()), None)
    if bad:
        raise FusionError(f"{bad} holds a number that is not finite", "repair the checkpoint")
    first = next((leaf.weight for leaf in leaves(block.expression) if isinstance(leaf, Conv)), block.tensors[0])
    dtype = np.dtype(tensors[first].dtype if dtype is None else dtype)
    rounding = EXACTLY if dtype.name in STORED else ONCE
    if rounding == EXACTLY:
        try:
            return Folded(*_folded(block.expression, tensors, dtype, exactly=True), rounding)
        except _CostlyError:
            rounding = ONCE
    return Folded(*_folded(block.expression, tensors, dtype, exactly=False), rounding)


def _folded(expression: Expression, tensors: Tensors, dtype: np.dtype[Any], exactly: bool) -> tuple[Array, Array]:
    """The stored weight and bias, part by part."""
    whole, factors = Reader(expression, tensors), sum(1 for _ in leaves(expression)) + 1
    weight, bias = np.empty(0, dtype), np.empty(0, dtype)
    for rows, columns, reader in parts_of(whole):
        conv = correctly_rounded(reader, dtype, factors, _entries(whole, rows, columns)) if exactly else reader(FLOAT64)
        with np.errstate(over="ignore", under="ignore"):
            kernel, shift = kernel_of(conv)[0].astype(dtype, copy=False), conv.bias.astype(dtype, copy=False)
        if not (np.isfinite(kernel).all() and np.isfinite(shift).all()):
            raise FusionError(f"its fused numbers exceed {dtype}", "store a wider format")
        if rows is None:
            return kernel, shift
        if not bias.size:
            outputs = output_channels(expression, tensors)
            weight, bias = np.empty((outputs, *kernel.shape[1:]), dtype), np.empty(outputs, dtype)
        weight[rows.start:rows.stop], bias[rows.start:rows.stop] = kernel, shift
    return weight, bias


def parts_of(whole: Reader) -> Iterator[tuple[range | None, range | None, Reader]]:
    """(outputs, inputs, the block restricted to them): some groups of channels or a part of one at a time, or (None, None, the block)."""
    expression, tensors = whole.expression, whole.tensors
    outputs, inputs = output_channels(expression, tensors), input_channels(expression, tensors)
    per_output = sum(tensors[leaf.weight][0].size for leaf in leaves(expression) if isinstance(leaf, Conv))
    if not can_restrict(expression) or outputs * per_output <= PART:
        yield None, None, whole
        return
    groups = common_groups(expression)
    size, together = outputs // groups, max(1, PART * groups // (outputs * per_output))
    many = max(1, PART // per_output)
    for group in range(0, groups, together):
        stop = min(group + together, groups)
        columns = range(group * inputs // groups, stop * inputs // groups) if groups > 1 else None
        for start in range(group * size, stop * size, many if together == 1 else stop * size):
            rows = range(start, min(start + many, stop * size) if together == 1 else stop * size)
            yield rows, columns, whole.part(rows, columns)


def _entries(whole: Reader, rows: range | None, columns: range | None) -> Entry | None:
    """One output and one input of a part, as the part numbers them."""
    if not can_restrict(whole.expression):
        return None
    first_row, first_column = rows.start if rows else 0, columns.start if columns else 0

    def entry(row: int, column: int, _: AffineConv) -> Reader:
        row, column = first_row + row, first_column + column
        return whole.part(range(row, row + 1), range(column, column + 1))
    return entry


def kernel_of(conv: AffineConv) -> tuple[Array, dict[str, Any]]:
    """(w, geometry) with which `ops` compute a map; the size of w depends on the taps, not on which of them are zero.

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
