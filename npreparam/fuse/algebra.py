"""Sums, compositions and stacks of affine shift-equivariant maps, each again such a map, or refused."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np

from npreparam._errors import ArgumentError, FusionError, ShapeError
from npreparam._shapes import as_int
from npreparam.exact.rounding import as_fractions
from npreparam.fuse.affine import AffineConv, Array, Offset, apply_to, pointwise, zeros
from npreparam.fuse.border import check_border, reads_beyond
from npreparam.fuse.rational import summed_products


def regroup(conv: AffineConv, groups: int) -> AffineConv:
    """The same map as block-diagonal in another number of groups: 1 is dense, the number of channels is depthwise.

    Raises ShapeError (groups that do not divide the channels), FusionError (a block off the diagonal is not zero).

    >>> from npreparam.fuse.affine import pointwise
    >>> regroup(pointwise(np.array([2.0, 3.0])), 1).blocks[0]
    array([[2., 0.],
           [0., 3.]])
    """
    groups = as_int(groups, "groups", 1)
    for name, channels in (("out_channels", conv.outputs), ("in_channels", conv.inputs)):
        if channels % groups:
            raise ShapeError(f"`{name}` (={channels}) must be divisible by `groups` (={groups})")
    common = math.gcd(groups, conv.groups)
    coarse = _coarser(conv, common)
    return coarse if groups == common else _finer(coarse, groups)


def _coarser(conv: AffineConv, groups: int) -> AffineConv:
    if groups == conv.groups:
        return conv
    taps, merged = len(conv.taps), conv.groups // groups
    rows, columns = conv.outputs // conv.groups, conv.inputs // conv.groups
    wide = zeros((taps, groups, merged, rows, merged, columns), conv.blocks)
    parts = conv.blocks.reshape(taps, groups, merged, rows, columns)
    for i in range(merged):
        wide[:, :, i, :, i] = parts[:, :, i]
    return replace(conv, blocks=wide.reshape(taps, conv.outputs, merged * columns), groups=groups)


def _finer(conv: AffineConv, groups: int) -> AffineConv:
    taps, split = len(conv.taps), groups // conv.groups
    rows, columns = conv.outputs // groups, conv.inputs // groups
    parts = conv.blocks.reshape(taps, conv.groups, split, rows, split, columns)
    if any((parts[:, :, i, :, j] != 0).any() for i in range(split) for j in range(split) if i != j):
        raise FusionError(f"it mixes channels across {groups} groups", f"keep it in {conv.groups}")
    blocks = np.stack([parts[:, :, i, :, i] for i in range(split)], 2).reshape(taps, conv.outputs, columns)
    return replace(conv, blocks=blocks, groups=groups)


def add(*convs: AffineConv) -> AffineConv:
    """The sum of parallel branches: the union of their taps.

    Raises FusionError where strides, output sizes or continuations differ (naming the branch by its number), ShapeError for other channels.

    >>> add(pointwise(np.ones(1)), pointwise(np.ones(1))).blocks
    array([[[2.]]])
    """
    if not convs:
        raise ArgumentError("`convs` (=()) must hold at least one map")
    convs = _alike(convs)
    groups = reduce(math.gcd, (conv.groups for conv in convs))
    return reduce(_add, [_coarser(conv, groups) for conv in convs])


def _add(a: AffineConv, b: AffineConv) -> AffineConv:
    place = {tap: i for i, tap in enumerate(dict.fromkeys(a.taps + b.taps))}
    if len(place) == len(a.taps):
        blocks = a.blocks.copy(order="K")  # in its layout: at the speed of a copy for the taps that b has not
    else:
        blocks = zeros((len(place), *a.blocks.shape[1:]), a.blocks)
        blocks[:len(a.taps)] += a.blocks
    for tap, block in zip(b.taps, b.blocks, strict=True):
        blocks[place[tap]] += block
    return replace(a, taps=tuple(place), blocks=blocks, bias=a.bias + b.bias, roundings=max(a.roundings, b.roundings) + 1)


def _alike(convs: Sequence[AffineConv], same_outputs: bool = True, same_inputs: bool = True) -> list[AffineConv]:
    """Branches over the same axes and scalars, once their geometry is known to agree at every size."""
    convs = same_scalars(convs)
    rank = max(conv.rank for conv in convs)
    convs = [conv.lifted(rank) for conv in convs]
    first = convs[0]
    for i, conv in enumerate(convs[1:], 1):
        if (same_inputs and conv.inputs != first.inputs) or (same_outputs and conv.outputs != first.outputs):
            raise ShapeError(f"branch {i} maps {conv.inputs} to {conv.outputs} channels, but branch 0 {first.inputs} to {first.outputs}")
        for name in ("stride", "transposed", "slack"):
            own, other = getattr(conv, name), getattr(first, name)
            if own != other:
                raise FusionError(*_grid_refusal(name, own, other), branch=str(i))
    return _same_outside(convs) if same_inputs else convs


def _grid_refusal(name: str, own: Any, other: Any) -> tuple[str, str]:
    if name == "stride":
        return f"its stride is {own}, that of the first branch {other}", "give all branches one stride"
    if name == "transposed":
        return "a transposed convolution and a convolution are added", "keep them as two"
    return (f"its output length is floor((n + {list(own)})/stride) + 1, that of the first branch has {list(other)}",
            "choose paddings with which all outputs are equally large for every input size")


def _same_outside(convs: list[AffineConv]) -> list[AffineConv]:
    """What lies beyond the border matters only to maps that read there."""
    reading = [i for i, conv in enumerate(convs) if any(map(any, reads_beyond(conv)))]
    outside = convs[reading[0]].outside if reading else zeros(convs[0].inputs, convs[0].blocks)
    for i in reading:
        if (convs[i].outside != outside).any():
            raise FusionError("it pads with another constant than branch " + str(reading[0]), "pad all branches alike", branch=str(i))
    return [replace(conv, outside=outside) for conv in convs]


def compose(second: AffineConv, first: AffineConv, border: str = "exact") -> AffineConv:
    """second(first(x)) as one map: taps at stride1*offset2 + offset1 with the blocks K2 K1, bias K2 b1 + b2.

    With `border` "interior" the outputs for which `second` reads beyond the border of its input may be wrong, and no others.

    Raises FusionError where the border is not exact (see `border`), ShapeError for other channels.

    >>> from npreparam.fuse.affine import from_conv
    >>> both = compose(from_conv(np.array([[[1.0, 1.0]]])), from_conv(np.array([[[1.0, -1.0]]])))
    >>> both.taps, both.blocks.ravel()
    (((0,), (1,), (2,)), array([ 1.,  0., -1.]))
    """
    if border not in ("exact", "interior"):
        raise ArgumentError(f"`border` (={border!r}) must be 'exact' or 'interior'")
    second, first = same_scalars((second, first))
    rank = max(second.rank, first.rank)
    second, first = second.lifted(rank), first.lifted(rank)
    if second.inputs != first.outputs:
        raise ShapeError(f"a map of {second.inputs} input channels cannot follow one of {first.outputs} output channels")
    if second.transposed or first.transposed:
        return _compose_transposed(second, first)
    if border == "exact":
        check_border(second, first)
    taps, blocks, groups = _products(second, first, lambda t2, t1: tuple(s * o2 + o1 for s, o2, o1 in zip(first.stride, t2, t1, strict=True)))
    slack = tuple(c1 + s * (1 + c2) for c1, s, c2 in zip(first.slack, first.stride, second.slack, strict=True))
    stride = tuple(s1 * s2 for s1, s2 in zip(first.stride, second.stride, strict=True))
    return AffineConv(taps, blocks, apply_to(second, first.bias) + second.bias, stride, slack, first.outside, groups,
                      roundings=_roundings(second, first))


def _compose_transposed(second: AffineConv, first: AffineConv) -> AffineConv:
    """A pointwise map after a transposed convolution, or one without a shift before it."""
    if second.transposed and (first.transposed or not first.is_pointwise):
        raise FusionError("a transposed convolution follows a map that is not pointwise", "keep them as two")
    if not second.transposed and not second.is_pointwise:
        raise FusionError("a map that is not pointwise follows a transposed convolution", "keep them as two")
    if second.transposed and any(first.bias != 0):
        raise FusionError("a transposed convolution spreads the bias of the map before it unevenly", "drop that bias, or keep them as two")
    taps, blocks, groups = _products(second, first, lambda t2, t1: t2 if second.transposed else t1)
    grid, bias = second if second.transposed else first, second.bias
    if first.transposed:
        bias = apply_to(second, first.bias) + bias
    return replace(grid, taps=taps, blocks=blocks, bias=bias, groups=groups, outside=zeros(first.inputs, blocks),
                   roundings=_roundings(second, first))


def _products(second: AffineConv, first: AffineConv, place: Callable[[Offset, Offset], Offset]) -> tuple[tuple[Offset, ...], Array, int]:
    """(taps, blocks, groups) of K2 K1 at place(tap 2, tap 1), added where places coincide.

    Where one of them works on each channel by itself, it scales the rows or columns of the other; as matrices they would be full of zeros.
    """
    left, right = second.blocks, first.blocks
    if second.is_diagonal and second.blocks.dtype == first.blocks.dtype != object:
        return tuple(place(second.taps[0], tap) for tap in first.taps), left[0] * right, first.groups  # in the layout of `first`
    if second.is_depthwise:
        groups = first.groups
    elif first.is_depthwise:
        groups = second.groups
        right = np.repeat(right.reshape(len(right), groups, 1, -1), second.outputs // groups, 2).reshape(len(right), second.outputs, -1)
    else:
        groups = math.gcd(second.groups, first.groups)
        left, right = (_coarser(conv, groups).blocks.reshape(len(conv.taps), groups, conv.outputs // groups, -1) for conv in (second, first))
    multiply = np.multiply if second.is_depthwise or first.is_depthwise else np.matmul
    pairs = [(place(tap2, tap1), i, j) for i, tap2 in enumerate(second.taps) for j, tap1 in enumerate(first.taps)]
    taps = tuple(dict.fromkeys(at for at, *_ in pairs))
    return taps, summed_products(left, right, pairs, multiply).reshape(len(taps), second.outputs, first.inputs // groups), groups


def _roundings(second: AffineConv, first: AffineConv) -> int:
    """A product of numbers with k1 and k2 roundings behind them has k1 + k2 + 1; then the sums over the channels between and over pairs of taps.

    For the bias: the sum over the taps of K2, over the channels, and b2.
    """
    channels = 1 if second.is_depthwise or first.is_depthwise else second.inputs // math.gcd(second.groups, first.groups)
    return second.roundings + first.roundings + max(channels, second.inputs // second.groups) + len(second.taps) * len(first.taps) + 2


def scale_after(conv: AffineConv, scale: Array, shift: Array | None = None) -> AffineConv:
    """scale*conv(x) + shift for each output channel: batch norm, alpha, negation or layer scale behind a map.

    >>> from npreparam.fuse.affine import from_conv
    >>> after = scale_after(from_conv(np.ones((1, 1, 2)), np.ones(1)), np.array([3.0]), np.array([0.5]))
    >>> after.blocks.ravel(), after.bias
    (array([3., 3.]), array([3.5]))
    """
    return compose(pointwise(np.broadcast_to(scale, conv.outputs), shift), conv)


def scale_before(conv: AffineConv, scale: Array, shift: Array | None = None, border: str = "exact") -> AffineConv:
    """conv(scale*x + shift): batch norm before a convolution, exact with a shift only where the border allows it.

    >>> from npreparam.fuse.affine import from_conv
    >>> before = scale_before(from_conv(np.ones((1, 1, 2))), np.array([3.0]), np.array([0.5]))
    >>> before.blocks.ravel(), before.bias
    (array([3., 3.]), array([1.]))
    """
    return compose(conv, pointwise(np.broadcast_to(scale, conv.inputs), shift), border)


def concat_outputs(*convs: AffineConv) -> AffineConv:
    """Branches of one input with their outputs stacked: rows of blocks under each other.

    >>> from npreparam.fuse.affine import linear
    >>> concat_outputs(linear(np.eye(1)), linear(2 * np.eye(1))).blocks[0]
    array([[1.],
           [2.]])
    """
    if not convs:
        raise ArgumentError("`convs` (=()) must hold at least one map")
    convs = _alike(convs, same_outputs=False)
    outputs = sum(conv.outputs for conv in convs)
    return reduce(_add, [_embedded(conv, first, outputs) for conv, first in zip(convs, _starts([c.outputs for c in convs]), strict=True)])


def concat_inputs(*convs: AffineConv) -> AffineConv:
    """The sum of maps, each of its own part of the input's channels: blocks beside each other.

    >>> from npreparam.fuse.affine import linear
    >>> concat_inputs(linear(np.eye(1)), linear(2 * np.eye(1))).blocks[0]
    array([[1., 2.]])
    """
    if not convs:
        raise ArgumentError("`convs` (=()) must hold at least one map")
    convs = _alike(convs, same_inputs=False)
    inputs, outside = sum(conv.inputs for conv in convs), np.concatenate([conv.outside for conv in convs])
    parts = []
    for conv, first in zip(convs, _starts([c.inputs for c in convs]), strict=True):
        dense = _coarser(conv, 1)
        blocks = zeros((len(dense.taps), conv.outputs, inputs), conv.blocks)
        blocks[:, :, first:first + conv.inputs] = dense.blocks
        parts.append(replace(dense, blocks=blocks, outside=outside))
    return reduce(_add, parts)


def _embedded(conv: AffineConv, first: int, outputs: int) -> AffineConv:
    """The map with output channels of zeros around its own."""
    dense = _coarser(conv, 1)
    blocks, bias = zeros((len(dense.taps), outputs, conv.inputs), conv.blocks), zeros(outputs, conv.bias)
    blocks[:, first:first + conv.outputs], bias[first:first + conv.outputs] = dense.blocks, conv.bias
    return replace(dense, blocks=blocks, bias=bias)


def _starts(lengths: Sequence[int]) -> list[int]:
    return [sum(lengths[:i]) for i in range(len(lengths))]


def same_scalars(convs: Sequence[AffineConv]) -> list[AffineConv]:
    """float64 beside exact scalars becomes the rationals that it is."""
    def arrays(conv: AffineConv) -> dict[str, Array]:
        return {name: getattr(conv, name) for name in ("blocks", "bias", "outside")}

    if all(values.dtype != object for conv in convs for values in arrays(conv).values()):
        return list(convs)
    return [replace(conv, **{name: values if values.dtype == object else as_fractions(values, name) for name, values in arrays(conv).items()})
            for conv in convs]
