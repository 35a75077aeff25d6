"""A block's expression as an affine map over any kind of scalars, whole or one output at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np

from npreparam.checkpoints.expression import (
    AvgPool,
    BatchNorm,
    Concat,
    Conv,
    Expression,
    OnGrid,
    Pad,
    Scale,
    Sequence,
    Shuffle,
    Slice,
    Sum,
    leaves,
)
from npreparam.fuse import (
    AffineConv,
    add,
    average_pool,
    compose,
    concat_outputs,
    from_conv,
    from_conv_transpose,
    identity,
    on_grid,
    pad,
    pointwise,
    select,
    shuffle,
)
from npreparam.fuse.scalars import BALLS, BATCH_NORM_ROUNDINGS, EXACT, UNROUNDED, Scalars

Array = np.ndarray[Any, Any]
Tensors = Mapping[str, Array]
RATIONAL, IRRATIONAL, OF_BALLS = 6_000_000, 300_000, 3_000_000  # that take some seconds: see `Budget`


class CostlyError(Exception):
    """Exact arithmetic would take too long."""


class Budget:
    """How much exact arithmetic is affordable; so many `parts` of a block share it.

    Products of batch norms' roots and of balls are counted, of fractions the numbers that are multiplied and come out: between common
    denominators it is the conversions that take time, not the products (`npreparam.fuse.rational`).
    """

    def __init__(self, rational: bool, parts: int = 1) -> None:
        self.rational = rational
        self.products: dict[Scalars, int] = {EXACT: (RATIONAL if rational else IRRATIONAL) // parts, BALLS: OF_BALLS // parts}

    def kind(self, scalars: Scalars) -> Scalars:
        """The kind of scalars, but fractions instead of balls where no number is irrational."""
        return EXACT if scalars is BALLS and self.rational else scalars

    def price(self, first: AffineConv, second: AffineConv) -> int:
        """What `second` after `first` costs."""
        products = len(first.taps) * second.blocks.size * (1 if first.is_depthwise else first.inputs // first.groups)
        if self.rational and not (first.is_depthwise or second.is_depthwise):
            found = len(first.taps) * len(second.taps) * second.outputs * first.inputs // max(1, min(first.groups, second.groups))
            products = min(products, first.blocks.size + second.blocks.size + found)
        return max(products, first.blocks.size)

    def check(self, scalars: Scalars, products: int) -> None:
        """Raises CostlyError for too many products."""
        if products > self.products.get(scalars, products):
            raise CostlyError


class Reader:
    """A block's expression as an affine map over a kind of scalars; `products` counts the multiplications of its compositions."""

    def __init__(self, expression: Expression, tensors: Tensors, parts: int = 1) -> None:
        self.expression, self.tensors = expression, tensors
        self.products = 0
        self.budget = Budget(not any(isinstance(leaf, BatchNorm) for leaf in leaves(expression)), parts)

    def __call__(self, scalars: Scalars) -> AffineConv:
        """The whole expression. Raises CostlyError where the reading before it has had too many products for these scalars."""
        scalars = self.budget.kind(scalars)
        self.budget.check(scalars, self.products)
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
                return reduce(self.then, parts)
            case Concat():
                inputs = input_channels(expression, self.tensors) or channels
                return concat_outputs(*(self.read(term, scalars, inputs) for term in expression.terms))
            case OnGrid():
                return on_grid(self.read(expression.term, scalars, input_channels(expression.term, self.tensors)), expression.size)
            case Conv():
                return self._conv(expression, scalars)
            case BatchNorm():
                return self._batch_norm(expression, scalars)
            case Scale():
                return self._scale(expression, scalars, channels)
            case Pad():
                return pad(channels, tuple((n, n) for n in expression.amount), len(expression.amount))
            case AvgPool():
                return average_pool(channels, expression.kernel, expression.stride or 1, exact=scalars in UNROUNDED)
            case Shuffle():
                return shuffle(channels, expression.groups)
            case Slice():
                return select(expression.of, range(expression.first, expression.first + expression.count))
        return identity(channels)

    def then(self, first: AffineConv, second: AffineConv, border: str = "exact") -> AffineConv:
        """`second` after `first`."""
        self.products += self.budget.price(first, second)
        return compose(second, first, border)

    def _numbers(self, name: str, scalars: Scalars) -> Array:
        return scalars.numbers(np.asarray(self.tensors[name], np.float64))

    def _conv(self, conv: Conv, scalars: Scalars) -> AffineConv:
        """What is unknown (`Block.open`) has no influence on the weights, or the block is refused: so the simplest value stands for it."""
        weight = group_by_group(self._numbers(conv.weight, scalars), conv)
        if conv.factor:
            factor = self._numbers(conv.factor, scalars)
            weight = weight * factor.reshape(len(weight), *factor.shape[1:], *(1,) * (weight.ndim - max(1, factor.ndim)))
        if conv.shape:
            weight = kernel_of_window(weight, self._numbers(conv.shape, scalars))
        bias = self._numbers(conv.bias, scalars) if conv.bias else None
        padding, dilation, groups = conv.padding or 0, conv.dilation or 1, conv.groups or 1
        if conv.transposed:  # of stride 1 it would become a convolution, with the taps mirrored
            return from_conv_transpose(weight, bias, max(2, conv.stride or 2), padding, 0, dilation, groups)
        made = from_conv(weight, bias, conv.stride or 1, padding, dilation, groups)
        return replace(made, roundings=(conv.factor is not None) + (conv.shape is not None))

    def _batch_norm(self, norm: BatchNorm, scalars: Scalars) -> AffineConv:
        mean, var = (np.asarray(self.tensors[name], np.float64) for name in (norm.mean, norm.var))
        gamma = np.asarray(self.tensors[norm.weight], np.float64) if norm.weight else np.ones_like(mean)
        beta = np.asarray(self.tensors[norm.bias], np.float64) if norm.bias else np.zeros_like(mean)
        return pointwise(*scalars.batch_norm((gamma, beta, mean, var, norm.eps), len(mean)), BATCH_NORM_ROUNDINGS)

    def _scale(self, step: Scale, scalars: Scalars, channels: int) -> AffineConv:
        scale = np.broadcast_to(scalars.numbers(np.array([step.number])), channels)
        if step.weight:
            scale = scale * scale_of(self._numbers(step.weight, scalars), step.row)
        shift = np.broadcast_to(self._numbers(step.bias, scalars).reshape(-1), channels) if step.bias else None
        return pointwise(scale, shift, 1)


def scale_of(stored: Array, row: int | None) -> Array:
    """The numbers of a scale: one for each channel or for all, of a matrix those of one row."""
    return stored.reshape(-1) if row is None else stored[row]


def group_by_group(weight: Array, conv: Conv) -> Array:
    """A kernel with the rows of each group behind each other."""
    if not conv.in_turn:
        return weight
    return weight.reshape(-1, conv.groups or 1, *weight.shape[1:]).swapaxes(0, 1).reshape(weight.shape)


def kernel_of_window(weight: Array, window: Array) -> Array:
    """A 1x1 kernel times a window, or one for each output channel."""
    return weight * (window if window.ndim == weight.ndim - 2 else window[:, None])


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
            named = (expression.weight, expression.bias) if expression.weight else ()
            sizes = (scale_of(tensors[name], expression.row).size for name in named if name)
            return max((size for size in sizes if size > 1), default=0)  # one number stands for any number of channels
        case Slice():
            return expression.of
        case OnGrid():
            return input_channels(expression.term, tensors) * int(np.prod(expression.size))
        case Sum() | Concat():
            return max(input_channels(term, tensors) for term in expression.terms)
        case Sequence():
            return next(filter(None, (input_channels(step, tensors) for step in expression.steps)), 0)
    return 0
