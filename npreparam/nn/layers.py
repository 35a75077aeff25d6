"""Layers."""

from __future__ import annotations

import copy
import math
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike

from npreparam import fuse, ops
from npreparam._errors import ArgumentError, FusionError, ShapeError
from npreparam._shapes import Padding, Size2, Window, as_int, as_pair
from npreparam.fuse import AffineConv
from npreparam.fuse.scalars import BATCH_NORM_ROUNDINGS, FLOAT64, Scalars
from npreparam.nn.init import fan_in_uniform, he_normal
from npreparam.nn.module import Module
from npreparam.tape import Tensor


class Conv2d(Module):
    """A convolution with its weights (OIHW) and bias; `relu` fuses a ReLU behind it.

    >>> conv = Conv2d(3, 8, 3, stride=2, padding=1, rng=np.random.default_rng(0))
    >>> conv(np.zeros((1, 3, 9, 9), np.float32)).shape
    (1, 8, 5, 5)
    """

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

    @classmethod
    def holding(cls, w: Any, b: Any, stride: Size2 = 1, padding: Padding = 0, dilation: Size2 = 1, groups: int = 1, relu: bool = False) -> Self:
        """The layer with these weights and bias (None for none)."""
        layer = cls.__new__(cls)
        layer.geometry, layer.relu = (stride, padding, dilation, groups), relu
        layer.weight, layer.bias = Tensor(w, "weight"), None if b is None else Tensor(b, "bias")
        return layer

    def as_affine_conv(self, scalars: Scalars = FLOAT64, border: str = "exact") -> AffineConv:
        """The convolution as a map."""
        if self.relu:
            raise FusionError("it has a ReLU", "fuse the linear parts around it, with `npreparam.nn.fuse`")
        stride, padding, dilation, groups = self.geometry
        if isinstance(padding, str) and padding != "VALID" and as_pair(stride, "stride", 1) != (1, 1):
            raise FusionError(f"its padding {padding} depends on the input's size where the stride is not 1", "give the padding in numbers")
        # of stride 1, any size gives the same padding
        window = Window.of(self.weight.shape[2:], stride, padding, dilation, groups, size=(1, 1))
        return fuse.from_conv(scalars.numbers(self.weight.value), _numbers(self.bias, scalars), window.stride, window.padding, window.dilation,
                              groups)

    def parts(self) -> list[tuple[str, Module]]:
        """A fused ReLU is a part of its own."""
        if not self.relu:
            return [("", self)]
        linear = copy.copy(self)
        linear.relu = False
        return [("", linear), ("", ReLU())]


class ConvTranspose2d(Module):
    """A transposed convolution with weights (in, out/groups, kh, kw) and bias.

    >>> up = ConvTranspose2d(3, 8, 2, stride=2, rng=np.random.default_rng(0))
    >>> up(np.zeros((1, 3, 4, 4), np.float32)).shape
    (1, 8, 8, 8)
    """

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

    @classmethod
    def holding(cls, w: Any, b: Any, stride: Size2 = 1, padding: Padding = 0, output_padding: Size2 = 0, dilation: Size2 = 1,
                groups: int = 1) -> Self:
        """The layer with these weights and bias (None for none)."""
        layer = cls.__new__(cls)
        layer.geometry = (stride, padding, output_padding, dilation, groups)
        layer.weight, layer.bias = Tensor(w, "weight"), None if b is None else Tensor(b, "bias")
        return layer

    def as_affine_conv(self, scalars: Scalars = FLOAT64, border: str = "exact") -> AffineConv:
        """The transposed convolution as a map."""
        stride, padding, output_padding, dilation, groups = self.geometry
        window = Window.of(self.weight.shape[2:], stride, padding, dilation, groups)
        return fuse.from_conv_transpose(scalars.numbers(self.weight.value), _numbers(self.bias, scalars), window.stride, window.padding,
                                        output_padding, window.dilation, groups)


class BatchNorm2d(Module):
    """Batch norm over NCHW or (N, C). In training it replaces its running statistics by the new ones, and nothing else.

    >>> bn = BatchNorm2d(1, eps=0.0, dtype=np.float64)
    >>> bn.update({"running_mean": np.array([1.0]), "running_var": np.array([4.0])})
    >>> bn(np.array([[5.0]]))
    array([[2.]])
    """

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

    def as_affine_conv(self, scalars: Scalars = FLOAT64, border: str = "exact") -> AffineConv:
        """Its running statistics' scale and shift as a map."""
        return fuse.pointwise(*scalars.batch_norm(self.numbers(), self.weight.size), roundings=BATCH_NORM_ROUNDINGS)

    def numbers(self) -> tuple[Any, Any, Any, Any, float]:
        """(gamma, beta, mean, var, eps), as `npreparam.fuse` takes them."""
        return self.weight.value, self.bias.value, self.running_mean, self.running_var, self.eps


LINEAR_INITS = {"he_normal": he_normal, "fan_in_uniform": fan_in_uniform}


class Linear(Module):
    """A linear layer with weights (O, I) and bias.

    `init` is "he_normal" (for a ReLU after it; biases begin at 0), or "fan_in_uniform", biases too.

    >>> Linear(4, 2, rng=np.random.default_rng(0))(np.zeros((3, 4), np.float32)).shape
    (3, 2)
    """

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True, rng: np.random.Generator,
                 dtype: DTypeLike = np.float32, init: str = "he_normal") -> None:
        if init not in LINEAR_INITS:
            raise ArgumentError(f"`init` (={init!r}) must be one of {', '.join(LINEAR_INITS)}")
        shape = (as_int(out_features, "out_features", 1), as_int(in_features, "in_features", 1))
        self.weight = Tensor(LINEAR_INITS[init](shape, rng, dtype), "weight")
        begin = fan_in_uniform(shape[:1], rng, dtype, in_features) if bias and init == "fan_in_uniform" else np.zeros(out_features, dtype)
        self.bias = Tensor(begin, "bias") if bias else None

    def forward(self, x: Any, training: bool) -> Any:
        """x @ weight.T + bias."""
        return ops.linear(x, self.use(self.weight, x, training), self.use(self.bias, x, training))

    @classmethod
    def holding(cls, w: Any, b: Any) -> Self:
        """The layer with these weights and bias (None for none)."""
        layer = cls.__new__(cls)
        layer.weight, layer.bias = Tensor(w, "weight"), None if b is None else Tensor(b, "bias")
        return layer

    def as_affine_conv(self, scalars: Scalars = FLOAT64, border: str = "exact") -> AffineConv:
        """The matrix as a map without axes."""
        return fuse.linear(scalars.numbers(self.weight.value), _numbers(self.bias, scalars))


class ReLU(Module):
    """max(0, x).

    >>> ReLU()(np.array([-1.0, 2.0]))
    array([0., 2.])
    """

    def forward(self, x: Any, training: bool) -> Any:
        """The positive part of x."""
        return ops.relu(x)


class Absolute(Module):
    """|x|."""

    def forward(self, x: Any, training: bool) -> Any:
        """The sum of the positive parts of x and -x."""
        return ops.add(ops.relu(x), ops.relu(ops.neg(x)))


class GlobalAvgPool(Module):
    """The mean of every channel: NCHW to (N, C).

    >>> GlobalAvgPool()(np.arange(4.0).reshape(1, 1, 2, 2))
    array([[1.5]])
    """

    def forward(self, x: Any, training: bool) -> Any:
        """Channel means of x."""
        return ops.global_avg_pool(x)


class Flatten(Module):
    """All axes but the first as one.

    >>> Flatten()(np.zeros((2, 3, 4, 4))).shape
    (2, 48)
    """

    def forward(self, x: Any, training: bool) -> Any:
        """x as (N, everything else)."""
        return ops.reshape(x, (x.shape[0], math.prod(x.shape[1:])))


def _numbers(parameter: Tensor | None, scalars: Scalars) -> Any:
    return None if parameter is None else scalars.numbers(parameter.value)
