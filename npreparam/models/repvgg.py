"""A small RepVGG classifier, generic in image size, channels and widths."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from npreparam._errors import ArgumentError
from npreparam.nn import Conv2d, GlobalAvgPool, Linear, Module, RepVGGBlock, Sequential


class RepVGG(Module):
    """Stages of RepVGG blocks, then global average pooling and a linear layer.

    The first block of every stage but the first halves the image. `widths[i]` are the channels of stage i, `depths[i]` its blocks.

    Source: Ding et al., arXiv 2101.03697, table 2, scaled down.

    >>> RepVGG(3, classes=5, rng=np.random.default_rng(0))(np.zeros((2, 3, 8, 8), np.float32)).shape
    (2, 5)
    """

    def __init__(self, in_channels: int = 1, classes: int = 10, widths: Sequence[int] = (16, 32, 64), depths: Sequence[int] = (1, 2, 2), *,
                 rng: np.random.Generator, dtype: DTypeLike = np.float32) -> None:
        if len(widths) != len(depths) or not widths or min(depths) < 1:
            raise ArgumentError(f"`widths` (={widths!r}) and `depths` (={depths!r}) must be as long as each other, every depth at least 1")
        blocks, channels = [], in_channels
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            for i in range(depth):
                blocks.append(RepVGGBlock(channels, width, stride=2 if stage and not i else 1, rng=rng, dtype=dtype))
                channels = width
        self.blocks = Sequential(*blocks)
        self.pool = GlobalAvgPool()
        self.linear = Linear(channels, classes, rng=rng, dtype=dtype)

    def forward(self, x: Any, training: bool) -> Any:
        """Logits of the classes."""
        return self.linear(self.pool(self.blocks(x, training), training), training)

    def fuse(self) -> Sequential:
        """The deploy network: every block one 3x3 convolution with ReLU. Nothing that is done to it changes this network."""
        convolutions: list[Conv2d] = [block.fuse() for block in self.blocks]
        return Sequential(*convolutions, self.pool, copy.copy(self.linear))
