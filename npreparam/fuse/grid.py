"""A map on images of one size as a matrix, as RepMLP folds its convolutions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from npreparam._errors import FusionError
from npreparam.fuse.affine import AffineConv, Array, zeros


def on_grid(conv: AffineConv, size: Sequence[int]) -> AffineConv:
    """The linear map from the pixels of an image of lengths `size` to those of the output, channel by channel: (I*H*W,) to (O*H'*W',).

    matrix[(o, j), (i, s*j + o_t)] = K_t[o, i],   bias[(o, j)] = b[o]

    Exact at every border, since the grid, and with it what lies beyond, is fixed. Groups stay what they are.

    Raises FusionError for a transposed map or one that pads with another constant than 0.

    Source: Ding et al., RepMLP, arXiv 2105.01883, section 3.3.

    >>> from npreparam.fuse import from_conv
    >>> on_grid(from_conv(np.ones((1, 1, 3)), padding=1), (3,)).blocks[0]
    array([[1., 1., 0.],
           [1., 1., 1.],
           [0., 1., 1.]])
    """
    if conv.transposed or (conv.outside != 0).any():
        raise FusionError("on a grid it is a transposed convolution or pads with a constant other than 0", "keep it beside the matrix")
    out = conv.output_size(size)
    places, pixels = int(np.prod(out)), int(np.prod(size))
    matrix: Array = zeros((conv.outputs, places, conv.blocks.shape[2], pixels), conv.blocks)
    for tap, block in zip(conv.taps, conv.blocks, strict=True):
        for number, place in enumerate(np.ndindex(*out)):
            read = tuple(s * p + o for s, p, o in zip(conv.stride, place, tap, strict=True))
            if all(0 <= at < length for at, length in zip(read, size, strict=True)):
                matrix[:, number, :, np.ravel_multi_index(read, tuple(size))] = block
    blocks = matrix.reshape(1, conv.outputs * places, -1)
    return AffineConv(((),), blocks, np.repeat(conv.bias, places), (), (), zeros(conv.inputs * pixels, blocks), conv.groups,
                      roundings=conv.roundings)
