"""Layers without a kernel of their own to train: scales, pooling, padding, selections of channels."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike

from npreparam import fuse, ops
from npreparam._errors import ArgumentError, FusionError, ShapeError
from npreparam._shapes import Padding, Size2, Window, as_int, as_sides
from npreparam.fuse import AffineConv
from npreparam.fuse.scalars import BATCH_NORM_ROUNDINGS, FLOAT64, Scalars
from npreparam.nn.layers import BatchNorm2d
from npreparam.nn.module import Module
from npreparam.tape import Tensor


def _per_channel(vector: Any, x: Any) -> Any:
    """(C,) so that it broadcasts over NCHW or (N, C)."""
    return ops.reshape(vector, (1, -1, *(1,) * (x.ndim - 2)))


class Scale(Module):
    """weight*x, or weight*x + bias, for each channel: layer scale.

    >>> Scale(2, value=3.0, dtype=np.float64)(np.ones((1, 2, 1, 1))).ravel()
    array([3., 3.])
    """

    def __init__(self, channels: int, *, value: float = 1.0, bias: bool = False, dtype: DTypeLike = np.float32) -> None:
        channels = as_int(channels, "channels", 1)
        self.weight = Tensor(np.full(channels, value, dtype), "weight")
        self.bias = Tensor(np.zeros(channels, dtype), "bias") if bias else None

    @classmethod
    def holding(cls, w: Any, b: Any) -> Self:
        """The layer with these numbers (None for no bias)."""
        layer = cls.__new__(cls)
        layer.weight, layer.bias = Tensor(w, "weight"), None if b is None else Tensor(b, "bias")
        return layer

    def forward(self, x: Any, training: bool) -> Any:
        """x scaled."""
        y = ops.mul(x, _per_channel(self.use(self.weight, x, training), x))
        return y if self.bias is None else ops.add(y, _per_channel(self.use(self.bias, x, training), x))

    def as_affine_conv(self, scalars: Scalars = FLOAT64, border: str = "exact") -> AffineConv:
        """The scale as a map."""
        return fuse.pointwise(scalars.numbers(self.weight.value), None if self.bias is None else scalars.numbers(self.bias.value))


class Shift(Module):
    """x + bias for each channel.

    >>> Shift(2, dtype=np.float64)(np.ones((1, 2, 1, 1))).ravel()
    array([1., 1.])
    """

    def __init__(self, channels: int, *, dtype: DTypeLike = np.float32) -> None:
        self.bias = Tensor(np.zeros(as_int(channels, "channels", 1), dtype), "bias")

    def forward(self, x: Any, training: bool) -> Any:
        """x shifted."""
        return ops.add(x, _per_channel(self.use(self.bias, x, training), x))

    def as_affine_conv(self, scalars: Scalars = FLOAT64, border: str = "exact") -> AffineConv:
        """The shift as a map."""
        return fuse.pointwise(scalars.numbers(np.ones(self.bias.size)), scalars.numbers(self.bias.value))


class Times(Module):
    """factor*x, with a fixed number: a branch that is subtracted has -1.

    >>> Times(1, -1.0)(np.ones((1, 1, 1, 1))).ravel()
    array([-1.])
    """

    def __init__(self, channels: int, factor: float) -> None:
        self.channels, self.factor = as_int(channels, "channels", 1), float(factor)

    def forward(self, x: Any, training: bool) -> Any:
        """x times the factor."""
        return ops.mul(x, self.factor)

    def as_affine_conv(self, scalars: Scalars = FLOAT64, border: str = "exact") -> AffineConv:
        """The factor as a map."""
        return fuse.pointwise(scalars.numbers(np.full(self.channels, self.factor)))


class AvgPool2d(Module):
    """Average pooling of `channels` channels.

    >>> AvgPool2d(1, 2)(np.arange(4.0).reshape(1, 1, 2, 2))
    array([[[[1.5]]]])
    """

    def __init__(self, channels: int, kernel: Size2, *, stride: Size2 | None = None, padding: Padding = 0, count_include_pad: bool = True) -> None:
        self.channels, self.count_include_pad = as_int(channels, "channels", 1), count_include_pad
        self.window = Window.of(kernel, kernel if stride is None else stride, padding)

    def forward(self, x: Any, training: bool) -> Any:
        """The mean under each window."""
        return ops.avg_pool2d(x, self.window.kernel, self.window.stride, self.window.padding, self.count_include_pad)

    def as_affine_conv(self, scalars: Scalars = FLOAT64, border: str = "exact") -> AffineConv:
        """A box of 1/size, which counts what is padded."""
        if not self.count_include_pad and any(map(any, self.window.padding)):
            raise FusionError("its average leaves out the padding, so its weights differ at the border",
                              "pool with count_include_pad=True, or without padding")
        size = Fraction(1, math.prod(self.window.kernel))
        box = np.full(self.window.kernel, scalars.fraction(size))
        return replace(fuse.filters(box, self.channels, self.window.stride, self.window.padding), roundings=1)


class Pad(Module):
    """Zeros around the images.

    >>> Pad(1, 1)(np.ones((1, 1, 1, 1)))
    array([[[[0., 0., 0.],
             [0., 1., 0.],
             [0., 0., 0.]]]])
    """

    def __init__(self, channels: int, padding: Padding) -> None:
        self.channels, self.sides = as_int(channels, "channels", 1), as_sides(padding)

    def forward(self, x: Any, training: bool) -> Any:
        """x with its border."""
        return ops.pad(x, ((0, 0), (0, 0), *self.sides))

    def as_affine_conv(self, scalars: Scalars = FLOAT64, border: str = "exact") -> AffineConv:
        """One tap, and a larger output."""
        return fuse.pad(self.channels, self.sides)


class Crop(Module):
    """The images without their border.

    >>> Crop(1, 1)(np.arange(9.0).reshape(1, 1, 3, 3))
    array([[[[4.]]]])
    """

    def __init__(self, channels: int, cropping: Padding) -> None:
        self.channels, self.sides = as_int(channels, "channels", 1), as_sides(cropping, "cropping")

    def forward(self, x: Any, training: bool) -> Any:
        """x without its border."""
        rows, columns = (slice(before, n - after) for n, (before, after) in zip(x.shape[2:], self.sides, strict=True))
        return ops.getitem(x, (slice(None), slice(None), rows, columns))

    def as_affine_conv(self, scalars: Scalars = FLOAT64, border: str = "exact") -> AffineConv:
        """Padding by less than nothing."""
        return fuse.pad(self.channels, tuple((-before, -after) for before, after in self.sides))


class Filter2d(Module):
    """One fixed kernel (kh, kw) for every channel by itself, padded by nothing: Sobel, Laplace. It is a buffer, not trained.

    >>> Filter2d(1, [[1.0, -1.0]], dtype=np.float64)(np.array([[[[3.0, 1.0]]]]))
    array([[[[2.]]]])
    """

    def __init__(self, channels: int, kernel: Any, *, dtype: DTypeLike = np.float32) -> None:
        kernel = np.asarray(kernel, dtype)
        self.kernel = np.repeat(kernel[None, None], as_int(channels, "channels", 1), 0)

    def forward(self, x: Any, training: bool) -> Any:
        """Each channel filtered."""
        return ops.conv2d(x, self.kernel, groups=len(self.kernel))

    def as_affine_conv(self, scalars: Scalars = FLOAT64, border: str = "exact") -> AffineConv:
        """A depthwise convolution."""
        return fuse.from_conv(scalars.numbers(self.kernel), groups=len(self.kernel))


class ScalarAffine(Module):
    """weight*x, or weight*x + bias, with one weight and one bias for all `channels`: PP-LCNetV3's learnable affine block, PP-YOLOE's alpha.

    >>> sorted(ScalarAffine(4).state_dict())
    ['bias', 'weight']
    """

    def __init__(self, channels: int, *, bias: bool = True, dtype: DTypeLike = np.float32) -> None:
        self.channels = as_int(channels, "channels", 1)
        self.weight = Tensor(np.ones(1, dtype), "weight")
        self.bias = Tensor(np.zeros(1, dtype), "bias") if bias else None

    def forward(self, x: Any, training: bool) -> Any:
        """x scaled and shifted."""
        y = ops.mul(x, self.use(self.weight, x, training))
        return y if self.bias is None else ops.add(y, self.use(self.bias, x, training))

    def as_affine_conv(self, scalars: Scalars = FLOAT64, border: str = "exact") -> AffineConv:
        """The same scale and shift for each channel."""
        return fuse.pointwise(*(None if p is None else np.repeat(scalars.numbers(p.value), self.channels) for p in (self.weight, self.bias)))


class BatchNormPad2d(BatchNorm2d):
    """Batch norm, then padding by what it makes of 0 with its running statistics, so that a padded input would have given the same.

    Source: Ding et al., Diverse Branch Block, arXiv 2103.13425, section 3.2, on padding between a 1x1 and a KxK convolution.

    >>> bn = BatchNormPad2d(1, 1, dtype=np.float64)
    >>> bn(np.ones((1, 1, 1, 1))).shape
    (1, 1, 3, 3)
    """

    def __init__(self, channels: int, padding: Padding, *, momentum: float = 0.1, eps: float = 1e-5, dtype: DTypeLike = np.float32) -> None:
        super().__init__(channels, momentum=momentum, eps=eps, dtype=dtype)
        self.sides = as_sides(padding)

    def forward(self, x: Any, training: bool) -> Any:
        """x normalized, with its border."""
        y = super().forward(x, training)
        gamma, beta = self.use(self.weight, x, training), self.use(self.bias, x, training)
        deviation = np.sqrt(self.running_var.astype(np.float64) + self.eps)
        shift = ops.sub(beta, ops.mul(gamma, (self.running_mean / deviation).astype(gamma.dtype)))
        inside = np.zeros((1, 1, *(n + sum(side) for n, side in zip(y.shape[2:], self.sides, strict=True))), gamma.dtype)
        (top, _), (left, _) = self.sides
        inside[:, :, top:top + y.shape[2], left:left + y.shape[3]] = 1
        return ops.add(ops.pad(y, ((0, 0), (0, 0), *self.sides)), ops.mul(_per_channel(shift, y), 1 - inside))

    def as_affine_conv(self, scalars: Scalars = FLOAT64, border: str = "exact") -> AffineConv:
        """Padding by the shift after batch norm: the input padded by 0 before it."""
        scale, shift = scalars.batch_norm(self.numbers(), self.weight.size)
        return fuse.compose(fuse.pad(len(scale), self.sides).padded_with(shift), fuse.pointwise(scale, shift, BATCH_NORM_ROUNDINGS))


class ChannelShuffle(Module):
    """Channels as (groups, channels/groups), transposed: ShuffleNet's shuffle.

    >>> ChannelShuffle(4, 2)(np.arange(4.0).reshape(1, 4, 1, 1)).ravel()
    array([0., 2., 1., 3.])
    """

    def __init__(self, channels: int, groups: int) -> None:
        self.channels, self.groups = as_int(channels, "channels", 1), as_int(groups, "groups", 1)
        if channels % groups:
            raise ShapeError(f"`channels` (={channels}) must be divisible by `groups` (={groups})")

    def forward(self, x: Any, training: bool) -> Any:
        """x with its channels in another order."""
        n, c, h, w = x.shape
        return ops.reshape(ops.transpose(ops.reshape(x, (n, self.groups, c // self.groups, h, w)), (0, 2, 1, 3, 4)), (n, c, h, w))

    def as_affine_conv(self, scalars: Scalars = FLOAT64, border: str = "exact") -> AffineConv:
        """A permutation."""
        return fuse.shuffle(self.channels, self.groups).lifted(2)


class Slice(Module):
    """Channels `first` to `last` - 1 of `channels`: splits and partial convolutions.

    >>> Slice(4, 1, 3)(np.arange(4.0).reshape(1, 4, 1, 1)).ravel()
    array([1., 2.])
    """

    def __init__(self, channels: int, first: int, last: int) -> None:
        if not 0 <= first < last <= channels:
            raise ArgumentError(f"`first` (={first}) and `last` (={last}) must choose at least one of the {channels} `channels`")
        self.channels, self.first, self.last = channels, first, last

    def forward(self, x: Any, training: bool) -> Any:
        """Some of x's channels."""
        return ops.getitem(x, (slice(None), slice(self.first, self.last)))

    def as_affine_conv(self, scalars: Scalars = FLOAT64, border: str = "exact") -> AffineConv:
        """Rows of the identity."""
        return fuse.select(self.channels, range(self.first, self.last)).lifted(2)
