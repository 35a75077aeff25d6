"""Recognised blocks as one convolution: the expression read as an affine map, and its parameters rounded to the storage format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from npreparam._errors import FusionError
from npreparam.checkpoints._recognise import Block
from npreparam.checkpoints.expression import AvgPool, BatchNorm, Conv, Expression, Pad, Scale, Sequence, Sum, leaves
from npreparam.fuse import AffineConv, add, average_pool, compose, from_conv, from_conv_transpose, identity, pad, pointwise, to_conv_transpose2d
from npreparam.fuse.rounded import STORED, correctly_rounded
from npreparam.fuse.scalars import BATCH_NORM_ROUNDINGS, EXACT, FLOAT64, Scalars

Array = np.ndarray[Any, Any]
Tensors = Mapping[str, Array]
AFFORDABLE = 300_000  # products of exact numbers in one block, a few seconds
EXACTLY, ONCE = "correctly rounded", "float64, then rounded once"


class _CostlyError(Exception):
    """Exact arithmetic would take too long."""


@dataclass(frozen=True, eq=False)
class Folded:
    """The convolution that a block is: stored parameters, and by which of two ways they were rounded."""

    weight: Array
    bias: Array
    rounding: str


class Reader:
    """A block's expression as an affine map over a kind of scalars; `products` counts the multiplications of its compositions."""

    def __init__(self, expression: Expression, tensors: Tensors) -> None:
        self.expression, self.tensors = expression, tensors
        self.products = 0

    def __call__(self, scalars: Scalars) -> AffineConv:
        """The whole expression."""
        if scalars is EXACT and self.products > AFFORDABLE:
            raise _CostlyError
        self.products = 0
        return self.read(self.expression, scalars, input_channels(self.expression, self.tensors))

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
                return reduce(self._then, parts)
            case Conv():
                return self._conv(expression, scalars)
            case BatchNorm():
                return self._batch_norm(expression, scalars)
            case Scale():
                return self._scale(expression, scalars, channels)
            case Pad():
                return pad(channels, tuple((n, n) for n in expression.amount), len(expression.amount))
            case AvgPool():
                return average_pool(channels, expression.kernel, expression.stride or 1, exact=scalars is EXACT)
        return identity(channels)

    def _then(self, first: AffineConv, second: AffineConv) -> AffineConv:
        self.products += len(first.taps) * second.blocks.size * (1 if first.is_depthwise else first.inputs // first.groups)
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


def input_channels(expression: Expression, tensors: Tensors) -> int:
    """The number of input channels that an expression's tensors tell, 0 where they do not.

    >>> input_channels(Sum((Pad((0, 0)), Conv("w"))), {"w": np.ones((4, 3, 1, 1))})
    3
    """
    match expression:
        case Conv():
            shape = tensors[expression.weight].shape
            return shape[0] if expression.transposed else shape[1] * (expression.groups or 1)
        case BatchNorm():
            return len(tensors[expression.mean])
        case Scale():
            return max((tensors[name].size for name in (expression.weight, expression.bias) if name), default=0) if expression.weight else 0
        case Sum():
            return max(input_channels(term, tensors) for term in expression.terms)
        case Sequence():
            return next(filter(None, (input_channels(step, tensors) for step in expression.steps)), 0)
    return 0


def fold(block: Block, tensors: Tensors, dtype: DTypeLike | None = None) -> Folded:
    """The weight and bias of the one convolution that a block is.

    weight is (O, I/groups, ...), of a transposed convolution (I, O/groups, ...), bias (O,); `dtype` is by default that of the first kernel.

    Rounding: float16, float32 and float64 to nearest, once, from the exact number, unless a block whose float64 value does not tell the
    rounding is too large for exact arithmetic; then, and in other formats, from the float64 value. `Folded.rounding` says which.

    Raises FusionError: a refused block, one of which something must still be given, numbers that are not finite, no exact border.
    """
    if block.refusal:
        raise FusionError(block.refusal, "leave it as it is")
    if block.needed():
        raise FusionError(f"its tensors do not tell {', '.join(block.needed())}", "give it, or describe the family in a TOML file")
    bad = next((name for name in block.tensors if not np.isfinite(np.asarray(tensors[name], np.float64)).all()), None)
    if bad:
        raise FusionError(f"{bad} holds a number that is not finite", "repair the checkpoint")
    first = next((leaf.weight for leaf in leaves(block.expression) if isinstance(leaf, Conv)), block.tensors[0])
    dtype = np.dtype(tensors[first].dtype if dtype is None else dtype)
    reader = Reader(block.expression, tensors)
    rounding = EXACTLY if dtype.name in STORED else ONCE
    conv = reader(FLOAT64)
    if rounding == EXACTLY:
        try:
            conv = correctly_rounded(reader, dtype, sum(1 for _ in leaves(block.expression)) + 1)
        except _CostlyError:
            rounding = ONCE
    with np.errstate(over="ignore", under="ignore"):
        weight, bias = kernel_of(conv)[0].astype(dtype), conv.bias.astype(dtype)
    if not (np.isfinite(weight.astype(np.float64)).all() and np.isfinite(bias.astype(np.float64)).all()):
        raise FusionError(f"its fused numbers exceed {dtype}", "store a wider format")
    return Folded(weight, bias, rounding)


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
    w = np.zeros((*conv.blocks.shape[1:], *(high - low + 1 for low, high in zip(lows, highs, strict=True))))
    for tap, matrix in zip(conv.taps, conv.blocks, strict=True):
        w[(slice(None), slice(None), *(o - low for o, low in zip(tap, lows, strict=True)))] = matrix
    padding = tuple((-low, slack + high + 1) for low, high, slack in zip(lows, highs, conv.slack, strict=True))
    return w, {"stride": conv.stride, "padding": padding, "groups": conv.groups}
