"""The RepVGG block: three branches to train, one convolution to deploy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from npreparam import ops
from npreparam._shapes import Padding, Size2, as_int
from npreparam.fuse import branch_kernels
from npreparam.nn.containers import Sequential, Sum
from npreparam.nn.fusion import as_layer
from npreparam.nn.layers import BatchNorm2d, Conv2d, ReLU
from npreparam.nn.module import Module


class ConvBN(Sequential):
    """A convolution without bias and its batch norm, under the names `conv` and `bn`.

    >>> layer = ConvBN(3, 8, 3, padding=1, rng=np.random.default_rng(0))
    >>> sorted(layer.state_dict())
    ['bn.bias', 'bn.running_mean', 'bn.running_var', 'bn.weight', 'conv.weight']
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: Size2, *, stride: Size2 = 1, padding: Padding = 0, dilation: Size2 = 1,
                 groups: int = 1, rng: np.random.Generator, dtype: DTypeLike = np.float32) -> None:
        super().__init__(conv=Conv2d(in_channels, out_channels, kernel, stride=stride, padding=padding, dilation=dilation, groups=groups,
                                     bias=False, rng=rng, dtype=dtype),
                         bn=BatchNorm2d(out_channels, dtype=dtype))


class RepVGGBlock(Module):
    """relu(bn(conv3x3(x)) + bn(conv1x1(x)) + bn(x)), the last where input and output have the same shape.

    Parameter names are those of the authors' checkpoints: rbr_dense.conv, rbr_dense.bn, rbr_1x1.conv, rbr_1x1.bn, rbr_identity.

    Source: Ding et al., RepVGG: making VGG-style ConvNets great again, arXiv 2101.03697, section 3.

    >>> rng = np.random.default_rng(0)
    >>> block = RepVGGBlock(4, 4, rng=rng)
    >>> x = rng.standard_normal((1, 4, 5, 5)).astype(np.float32)
    >>> bool(np.abs(block(x) - block.fuse()(x)).max() < 1e-5)
    True
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, groups: int = 1, rng: np.random.Generator,
                 dtype: DTypeLike = np.float32) -> None:
        stride = as_int(stride, "stride", 1)  # a pair (1, 1) would silently lose the identity branch
        common: dict[str, Any] = {"stride": stride, "groups": groups, "rng": rng, "dtype": dtype}
        self.stride, self.groups = stride, groups
        self.rbr_dense = ConvBN(in_channels, out_channels, 3, padding=1, **common)
        self.rbr_1x1 = ConvBN(in_channels, out_channels, 1, padding=0, **common)
        self.rbr_identity = BatchNorm2d(out_channels, dtype=dtype) if in_channels == out_channels and stride == 1 else None

    def forward(self, x: Any, training: bool) -> Any:
        """The rectified sum of the branches."""
        total = ops.add(self.rbr_dense(x, training), self.rbr_1x1(x, training))
        if self.rbr_identity is not None:
            total = ops.add(total, self.rbr_identity(x, training))
        return ops.relu(total)

    def _branches(self) -> tuple[Any, ...]:
        identity = None if self.rbr_identity is None else self.rbr_identity.numbers()
        return (self.rbr_dense.conv.weight.value, self.rbr_dense.bn.numbers(), self.rbr_1x1.conv.weight.value, self.rbr_1x1.bn.numbers(),
                identity, self.groups)

    def branch_kernels(self) -> list[tuple[Any, Any]]:
        """Kernel and bias of each branch as a 3x3 convolution, in float64."""
        return branch_kernels(*self._branches())

    def absolute_terms(self) -> tuple[Any, Any]:
        """Kernel and bias with every term of every branch in absolute value, in float64: what rounding errors of a fusion are measured by.

        sum over branches of |s||w|, and of |beta| + |mean*s|,   s = gamma/sqrt(var + eps)
        """
        kernel = np.sum([np.abs(branch) for branch, _ in self.branch_kernels()], axis=0)
        bias = np.zeros(len(kernel))
        for bn in (self.rbr_dense.bn, self.rbr_1x1.bn, self.rbr_identity):
            if bn is not None:
                gamma, beta, mean, var, eps = bn.numbers()
                bias += np.abs(beta) + np.abs(mean * (gamma / np.sqrt(var.astype(np.float64) + eps)))
        return kernel, bias

    def _linear(self) -> Sum:
        return Sum(**dict(self.children()))

    def parts(self) -> list[tuple[str, Module]]:
        """The sum of the branches, and the ReLU."""
        return [("", self._linear()), ("relu", ReLU())]

    def fuse(self) -> Conv2d:
        """The one 3x3 convolution, with ReLU, that equals this block in evaluation mode: what `npreparam.nn.fuse` makes of it."""
        conv = as_layer(self._linear().as_affine_conv(), self.rbr_dense.conv.weight.dtype, kernel=(3, 3))
        conv.relu = True  # type: ignore[attr-defined]
        return conv  # type: ignore[return-value]
