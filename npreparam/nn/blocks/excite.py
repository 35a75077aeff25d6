"""Squeeze-and-excitation: a gate for each channel, which is not linear and stays when its surroundings are fused."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from npreparam import ops
from npreparam._shapes import as_int
from npreparam.nn.layers import Linear
from npreparam.nn.module import Module


class SqueezeExcite(Module):
    """x * sigmoid(up(relu(down(mean of x)))), with channels // reduction numbers between.

    Source: Hu et al., Squeeze-and-excitation networks, arXiv 1709.01507, section 3.

    >>> [(name, part.weight.shape) for name, part in SqueezeExcite(32, rng=np.random.default_rng(0)).children()]
    [('down', (2, 32)), ('up', (32, 2))]
    """

    def __init__(self, channels: int, reduction: int = 16, *, rng: np.random.Generator, dtype: DTypeLike = np.float32) -> None:
        middle = max(1, as_int(channels, "channels", 1) // as_int(reduction, "reduction", 1))
        self.down, self.up = Linear(channels, middle, rng=rng, dtype=dtype), Linear(middle, channels, rng=rng, dtype=dtype)

    def forward(self, x: Any, training: bool) -> Any:
        """x gated."""
        gate = ops.sigmoid(self.up(ops.relu(self.down(ops.global_avg_pool(x), training)), training))
        return ops.mul(x, ops.reshape(gate, (*gate.shape, 1, 1)))
