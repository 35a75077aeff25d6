"""RepMLP: convolutions beside a linear layer over all elements of an image of fixed size."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from npreparam import fuse, ops
from npreparam._errors import ShapeError
from npreparam._shapes import Size2, as_int, as_pair
from npreparam.fuse import AffineConv
from npreparam.fuse.scalars import FLOAT64, Scalars
from npreparam.nn.containers import Sequential, Sum, branch_map
from npreparam.nn.layers import BatchNorm2d, Conv2d
from npreparam.nn.module import Module
from npreparam.nn.repvgg import ConvBN


class OnGrid(Module):
    """A module over images of the fixed size `grid`, whose elements are the channels of x: (N, C*height*width, H, W) at each place of H x W.

    >>> x = np.ones((1, 8, 1, 1), np.float32)  # 2 channels of 2x2
    >>> OnGrid(Conv2d(2, 3, 1, rng=np.random.default_rng(0)), (2, 2))(x).shape
    (1, 12, 1, 1)
    """

    def __init__(self, inner: Module, grid: Size2) -> None:
        self.inner, self.grid = inner, as_pair(grid, "grid", 1)

    def forward(self, x: Any, training: bool) -> Any:
        """The module applied to the image at each place."""
        n, channels, *places = x.shape
        if channels % math.prod(self.grid):
            raise ShapeError(f"`x` has {channels} channels, but must have a multiple of {math.prod(self.grid)}, the elements of `grid`")
        images = ops.reshape(ops.transpose(x, (0, 2, 3, 1)), (-1, channels // math.prod(self.grid), *self.grid))
        return ops.transpose(ops.reshape(self.inner(images, training), (n, *places, -1)), (0, 3, 1, 2))

    def as_affine_conv(self, scalars: Scalars = FLOAT64, border: str = "exact") -> AffineConv:
        """The matrix that the module is on images of one size."""
        return fuse.on_grid(branch_map("inner", self.inner, scalars, border), self.grid)


def repmlp(sets: int, grid: Size2, kernels: tuple[int, ...] = (1, 3), *, rng: np.random.Generator, dtype: Any = np.float32) -> Sum:
    """bn(fc3 x) + the sum of bn(depthwise kxk x): x is (N, sets*height*width, 1, 1), all elements of `sets` channels of a patch.

    fc3 is a 1x1 convolution in `sets` groups, and after fusion it is all that is left. A kernel larger than the patch is padded as any other.

    Source: Ding et al., RepMLP, arXiv 2105.01883, section 3.1 (partition and local perceptron), with the layout of RepMLPNet's code.

    >>> from npreparam.nn import fuse
    >>> fuse(repmlp(2, (4, 4), rng=np.random.default_rng(0))).weight.shape
    (32, 16, 1, 1)
    """
    grid = as_pair(grid, "grid", 1)
    wide = as_int(sets, "sets", 1) * math.prod(grid)
    own: dict[str, Any] = {"groups": sets, "rng": rng, "dtype": dtype}
    convs = {f"repconv{k}": OnGrid(ConvBN(sets, sets, k, padding=k // 2, **own), grid) for k in kernels}
    return Sum(fc3=Sequential(Conv2d(wide, wide, 1, bias=False, **own), bn=OnGrid(BatchNorm2d(sets, dtype=dtype), grid)), **convs)
