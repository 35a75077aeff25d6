"""The exact alternative where a composition fails by a constant alone: a bias that depends on the position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce

import numpy as np

from npreparam._errors import FusionError
from npreparam.fuse.affine import AffineConv, Array, zeros
from npreparam.fuse.algebra import compose, regroup, same_scalars


def bias_map(second: AffineConv, first: AffineConv, size: Sequence[int]) -> tuple[AffineConv, Array]:
    """`second` after `first` where only the constant at the border is in the way: the fused map without bias, and the bias at every place.

    bias[:, j] = b2 + sum over the taps of `second` that lie inside for output j of K2 b1 + over those that lie beyond of K2 outside2

    `size` are the lengths of the input's axes; the bias is (O, output lengths), with as many values as there are sets of taps inside: k^2
    zones for a k x k kernel padded by k - 1 in all. What the first map reads beyond its own border must be 0.

    Raises FusionError where more than the constant is in the way.

    >>> from npreparam.fuse import from_conv, pointwise
    >>> ones = from_conv(np.ones((1, 1, 3)), padding=1)
    >>> bias_map(ones, pointwise(np.ones(1), np.ones(1)), (4,))[1]
    array([[2., 3., 3., 2.]])
    """
    second, first = same_scalars((second, first))
    rank = max(second.rank, first.rank)
    second, first = second.lifted(rank), first.lifted(rank)
    if (first.outside != 0).any():
        raise FusionError("the first of two maps pads with a constant other than 0", "fuse that constant first")
    without = compose(replace(second, outside=zeros(second.inputs, second.blocks), bias=zeros(second.outputs, second.bias)),
                      replace(first, bias=zeros(first.outputs, first.bias)))
    between = first.output_size(size)
    out, ones = second.output_size(between), (1,) * rank
    bias = zeros((second.outputs, *out), second.blocks) + second.bias.reshape(-1, *ones)
    for tap, matrix in zip(second.taps, regroup(second, 1).blocks, strict=True):
        inside = _inside(second, tap, between, out)
        bias = bias + np.where(inside, (matrix @ first.bias).reshape(-1, *ones), (matrix @ second.outside).reshape(-1, *ones))
    return without, bias


def _inside(conv: AffineConv, tap: Sequence[int], size: Sequence[int], out: Sequence[int]) -> Array:
    """For which outputs a tap reads inside an input of lengths `size`."""
    read = [stride * place + offset for stride, place, offset in zip(conv.stride, np.indices(out, sparse=True), tap, strict=True)]
    return reduce(np.logical_and, [(at >= 0) & (at < length) for at, length in zip(read, size, strict=True)])
