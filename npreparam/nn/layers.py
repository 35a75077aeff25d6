"""Layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from npreparam import ops
from npreparam._errors import ArgumentError, ShapeError
from npreparam._shapes import Padding, Size2, Window, as_int, as_pair
from npreparam.nn.init import he_normal
from npreparam.nn.module import Module
from npreparam.tape import Tensor


class Conv2d(Module):
    """A convolution with its weights (OIHW) and bias; `relu` fuses a ReLU behind it."""

    def __init__(self, in_channels: int, out_channels: int, kernel: Size2, *, stride: Size2 = 1, padding: Padding = 0, dilation: Size2 = 1,
                 groups: int = 1, bias: bool = True, relu: bool = False, rng: np.random.Generator, dtype: DTypeLike = np.float32) -> None:
        groups = as_int(groups, "groups", 1)
        for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            if as_int(channels, name, 1) % groups:
                raise ShapeError(f"`{name}` (={channels}) must be divisible by `groups` (={groups})")
        Window.of(kernel, stride, padding, dilation, groups, size=(1, 1))  # so that a bad geometry is named here, not at the first call
        self.geometry = (stride, padding, dilation, groups)
        self.relu = relu
        self.weight = Tensor(he_normal((out_channels, in_channels // groups, *as_pair(kernel, "kernel", 1)), rng, dtype), "weight")
        self.bias = Tensor(np.zeros(out_channels, dtype), "bias") if bias else None

    def forward(self, x: Any, training: bool) -> Any:
        """The convolution of x."""
        w, b = self.use(self.weight, x, training), self.use(self.bias, x, training)
        if self.relu and isinstance(x, np.ndarray) and not training:
            return ops.conv2d_relu(x, w, b, *self.geometry)
        y = ops.conv2d(x, w, b, *self.geometry)
        return ops.relu(y) if self.relu else y


class ConvTranspose2d(Module):
    """A transposed convolution with weights (in, out/groups, kh, kw) and bias."""

    def __init__(self, in_channels: int, out_channels: int, kernel: Size2, *, stride: Size2 = 1, padding: Padding = 0,
                 output_padding: Size2 = 0, dilation: Size2 = 1, groups: int = 1, bias: bool = True, rng: np.random.Generator,
                 dtype: DTypeLike = np.float32) -> None:
        groups = as_int(groups, "groups", 1)
        for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            if as_int(channels, name, 1) % groups:
                raise ShapeError(f"`{name}` (={channels}) must be divisible by `groups` (={groups})")
        window = Window.of(kernel, stride, padding, dilation, groups)
        self.geometry = (stride, padding, output_padding, dilation, groups)
        # taps lie a stride apart in the output, so only kernel/stride of them meet in one output element
        fan_in = in_channels // groups * math.prod(window.kernel) / math.prod(window.stride)
        self.weight = Tensor(he_normal((in_channels, out_channels // groups, *window.kernel), rng, dtype, fan_in), "weight")
        self.bias = Tensor(np.zeros(out_channels, dtype), "bias") if bias else None

    def forward(self, x: Any, training: bool) -> Any:
        """The transposed convolution of x."""
        return ops.conv_transpose2d(x, self.use(self.weight, x, training), self.use(self.bias, x, training), *self.geometry)


class BatchNorm2d(Module):
    """Batch norm over NCHW or (N, C). In training it replaces its running statistics by the new ones, and nothing else."""

    def __init__(self, channels: int, *, momentum: float = 0.1, eps: float = 1e-5, dtype: DTypeLike = np.float32) -> None:
        channels = as_int(channels, "channels", 1)
        self.momentum, self.eps = momentum, eps
        self.weight, self.bias = Tensor(np.ones(channels, dtype), "weight"), Tensor(np.zeros(channels, dtype), "bias")
        self.running_mean, self.running_var = np.zeros(channels, dtype), np.ones(channels, dtype)

    def forward(self, x: Any, training: bool) -> Any:
        """x normalized."""
        arguments = (x, self.use(self.weight, x, training), self.use(self.bias, x, training), self.running_mean, self.running_var)
        if not training:
            return ops.batch_norm(*arguments, eps=self.eps)
        y, self.running_mean, self.running_var = ops.batch_norm(*arguments, training=True, momentum=self.momentum, eps=self.eps)
        return y

    def numbers(self) -> tuple[Any, Any, Any, Any, float]:
        """(gamma, beta, mean, var, eps), as `npreparam.fuse` takes them."""
        return self.weight.value, self.bias.value, self.running_mean, self.running_var, self.eps


class Linear(Module):
    """A linear layer with weights (O, I) and bias."""

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True, rng: np.random.Generator,
                 dtype: DTypeLike = np.float32) -> None:
        shape = (as_int(out_features, "out_features", 1), as_int(in_features, "in_features", 1))
        self.weight = Tensor(he_normal(shape, rng, dtype), "weight")
        self.bias = Tensor(np.zeros(out_features, dtype), "bias") if bias else None

    def forward(self, x: Any, training: bool) -> Any:
        """x @ weight.T + bias."""
        return ops.linear(x, self.use(self.weight, x, training), self.use(self.bias, x, training))


class ReLU(Module):
    """max(0, x)."""

    def forward(self, x: Any, training: bool) -> Any:
        """The positive part of x."""
        return ops.relu(x)


class Identity(Module):
    """x itself."""

    def forward(self, x: Any, training: bool) -> Any:
        """x itself."""
        return x


class GlobalAvgPool(Module):
    """The mean of every channel: NCHW to (N, C)."""

    def forward(self, x: Any, training: bool) -> Any:
        """Channel means of x."""
        return ops.global_avg_pool(x)


class Flatten(Module):
    """All axes but the first as one."""

    def forward(self, x: Any, training: bool) -> Any:
        """x as (N, everything else)."""
        return ops.reshape(x, (x.shape[0], math.prod(x.shape[1:])))


class Sequential(Module):
    """Modules one after the other, named 0, 1, 2 ..."""

    def __init__(self, *modules: Module) -> None:
        _adopt(self, modules)

    def __iter__(self) -> Any:
        return (child for _, child in self.children())

    def forward(self, x: Any, training: bool) -> Any:
        """The last module's output."""
        for module in self:
            x = module(x, training)
        return x


class Sum(Module):
    """Parallel branches added up, named 0, 1, 2 ..."""

    def __init__(self, *branches: Module) -> None:
        if not branches:
            raise ArgumentError("`branches` (=()) must hold at least one module")
        _adopt(self, branches)

    def forward(self, x: Any, training: bool) -> Any:
        """The sum of all branches' outputs."""
        outputs = [branch(x, training) for _, branch in self.children()]
        total = outputs[0]
        for output in outputs[1:]:
            total = ops.add(total, output)
        return total


def _adopt(owner: Module, modules: Sequence[Module]) -> None:
    for i, module in enumerate(modules):
        if not isinstance(module, Module):
            raise ArgumentError(f"number {i} (a {type(module).__name__}) must be a Module")
        setattr(owner, str(i), module)
