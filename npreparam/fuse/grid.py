"""On images of one fixed size every map is a matrix, whatever happens at the border: how RepMLP merges convolutions into a linear layer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from npreparam._errors import FusionError, ShapeError
from npreparam._shapes import as_int
from npreparam.fuse.affine import AffineConv, zeros


def on_grid(conv: AffineConv, size: Sequence[int]) -> AffineConv:
    """A map on images of one size as a pointwise map of their elements: channel c at place p becomes channel c*places + p.

    matrix[(o, i), (c, stride*i + offset_t)] = K_t[o, c],   bias[(o, i)] = b[o] + sum over taps that read beyond the border of K_t outside

    Groups stay groups. Exact at the border, because the size is known.

    Raises ShapeError (a size of other axes, or without output), FusionError (a transposed map).

    Source: Ding et al., RepMLP, arXiv 2105.01883, section 3.2.

    >>> from npreparam.fuse import from_conv
    >>> on_grid(from_conv(np.ones((1, 1, 3)), padding=1), (3,)).blocks
    array([[[1., 1., 0.],
            [1., 1., 1.],
            [0., 1., 1.]]])
    """
    size = tuple(as_int(n, "size", 1) for n in size)
    if conv.transposed:
        raise FusionError("a transposed convolution has no matrix here", "keep it beside the others")
    conv = conv.lifted(len(size)) if conv.rank == 0 else conv
    if conv.rank != len(size):
        raise ShapeError(f"`size` (={size}) must have one length for each of the {conv.rank} axes")
    out = conv.output_size(size)
    if 0 in out:
        raise ShapeError(f"`size` (={size}) leaves no output, but {out}")
    places, columns = math.prod(out), conv.inputs // conv.groups
    matrix = zeros((conv.outputs, places, columns, math.prod(size)), conv.blocks)
    bias = np.repeat(conv.bias.reshape(-1, 1), places, 1)
    rows = conv.outputs // conv.groups
    outside = np.repeat(conv.outside.reshape(conv.groups, 1, columns), rows, 1).reshape(conv.outputs, columns)
    for tap, block in zip(conv.taps, conv.blocks, strict=True):
        read = [stride * place.reshape(-1) + offset for stride, place, offset in zip(conv.stride, np.indices(out), tap, strict=True)]
        inside = np.logical_and.reduce([(at >= 0) & (at < n) for at, n in zip(read, size, strict=True)])
        at = np.ravel_multi_index([places[inside] for places in read], size)
        matrix[:, np.flatnonzero(inside), :, at] = block
        bias[:, ~inside] = bias[:, ~inside] + (block * outside).sum(1)[:, None]
    return AffineConv(((),), matrix.reshape(1, conv.outputs * places, -1), bias.reshape(-1), (), (), zeros(conv.inputs * math.prod(size), matrix),
                      conv.groups, roundings=conv.roundings + (len(conv.taps) * columns + 1 if any(conv.outside != 0) else 0))
