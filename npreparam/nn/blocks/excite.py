"""Gates for each channel, which are not linear and stay when their surroundings are fused: squeeze-and-excitation, global response."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from npreparam import ops
from npreparam._shapes import as_int
from npreparam.nn.channels import Scale, Shift
from npreparam.nn.containers import Sequential
from npreparam.nn.layers import BatchNorm2d, Conv2d, Linear
from npreparam.nn.module import Module
from npreparam.tape import Tensor


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


class GlobalResponse(Module):
    """x * (1 + gamma * g / (mean of g over the channels + 1e-6)), g the root of the sum of squares over all places of a channel.

    Global response normalization without its constant, which `grn_tail` has behind it.

    Source: Woo et al., ConvNeXt V2, arXiv 2301.00808, section 3.2.

    >>> GlobalResponse(2, dtype=np.float64)(np.ones((1, 2, 1, 1))).ravel()
    array([1., 1.])
    """

    def __init__(self, channels: int, *, dtype: DTypeLike = np.float32) -> None:
        self.gamma = Tensor(np.zeros(as_int(channels, "channels", 1), dtype), "gamma")

    def forward(self, x: Any, training: bool) -> Any:
        """x gated."""
        response = ops.sqrt(ops.sum(ops.square(x), axis=(2, 3), keepdims=True))
        relative = ops.div(response, ops.add(ops.mean(response, axis=1, keepdims=True), 1e-6))
        gamma = ops.reshape(self.use(self.gamma, x, training), (1, -1, 1, 1))
        return ops.mul(x, ops.add(ops.mul(gamma, relative), 1.0))


def grn_tail(in_channels: int, out_channels: int, *, layer_scale: float = 1e-6, rng: np.random.Generator, dtype: Any = np.float32) -> Sequential:
    """scale * bn(W (response(x) + beta)), W without a bias: the second half of UniRepLKNet's feed-forward block.

    The response is not linear and stays; the constant beta, the matrix, its batch norm and the layer scale are one 1x1 convolution behind it.

    Source: Ding et al., UniRepLKNet, arXiv 2311.15599, section 3.1, and its code.

    >>> from npreparam.nn import fuse
    >>> [type(part).__name__ for part in fuse(grn_tail(4, 2, rng=np.random.default_rng(0)))]
    ['GlobalResponse', 'Conv2d']
    """
    return Sequential(response=GlobalResponse(in_channels, dtype=dtype), beta=Shift(in_channels, dtype=dtype),
                      pwconv2=Conv2d(in_channels, out_channels, 1, bias=False, rng=rng, dtype=dtype), bn=BatchNorm2d(out_channels, dtype=dtype),
                      gamma=Scale(out_channels, value=layer_scale, dtype=dtype))
