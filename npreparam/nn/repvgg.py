"""The RepVGG block: three branches to train, one convolution to deploy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from npreparam import ops
from npreparam.fuse import branch_kernels, fuse_repvgg
from npreparam.nn.layers import BatchNorm2d, Conv2d
from npreparam.nn.module import Module
from npreparam.tape import Tensor


class ConvBN(Module):
    """A convolution without bias and its batch norm, under the names `conv` and `bn`."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, stride: int, padding: int, groups: int,
                 rng: np.random.Generator, dtype: DTypeLike) -> None:
        self.conv = Conv2d(in_channels, out_channels, kernel, stride=stride, padding=padding, groups=groups, bias=False, rng=rng, dtype=dtype)
        self.bn = BatchNorm2d(out_channels, dtype=dtype)

    def forward(self, x: Any, training: bool) -> Any:
        """The normalized convolution of x."""
        return self.bn(self.conv(x, training), training)


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
        common: dict[str, Any] = {"stride": stride, "groups": groups, "rng": rng, "dtype": dtype}
        self.stride, self.groups, self.dtype = stride, groups, dtype
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

    def fuse(self) -> Conv2d:
        """The one 3x3 convolution, with ReLU, that equals this block in evaluation mode."""
        w, b = fuse_repvgg(*self._branches())
        outputs, inputs = w.shape[:2]
        conv = Conv2d(inputs * self.groups, outputs, 3, stride=self.stride, padding=1, groups=self.groups, relu=True,
                      rng=np.random.default_rng(0), dtype=self.dtype)  # its first weights are replaced at once
        conv.weight, conv.bias = Tensor(w, "weight"), Tensor(b, "bias")
        return conv
