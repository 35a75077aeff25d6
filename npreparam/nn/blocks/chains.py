"""Blocks with convolutions one after the other, mostly of super-resolution; padding stands in front of each chain, where it is exact."""

from __future__ import annotations

from typing import Any

import numpy as np

from npreparam._errors import ArgumentError
from npreparam.nn.blocks.filters import LAPLACE, SOBEL_X
from npreparam.nn.channels import ChannelShuffle, Crop, Filter2d, Pad, Scale, Slice
from npreparam.nn.containers import Concat, Identity, Sequential, Sum
from npreparam.nn.layers import BatchNorm2d, Conv2d, ReLU
from npreparam.nn.module import Module
from npreparam.nn.repvgg import ConvBN


def _edges(in_channels: int, out_channels: int, own: dict[str, Any]) -> dict[str, Module]:
    """The scaled Sobel and Laplace filters of a 1x1 convolution of x, padded by its bias."""
    return {f"conv1x1_{name}": Sequential(Pad(in_channels, 1), Conv2d(in_channels, out_channels, 1, **own),
                                          Filter2d(out_channels, mask, dtype=own["dtype"]), Scale(out_channels, bias=True, dtype=own["dtype"]))
            for name, mask in (("sbx", SOBEL_X), ("sby", SOBEL_X.T), ("lpl", LAPLACE))}


def ecb(in_channels: int, out_channels: int, *, depth: int = 2, pointwise: bool = False, rng: np.random.Generator,
        dtype: Any = np.float32) -> Sum:
    """conv3x3 x + conv3x3(conv1x1 x) + scaled Sobel x, Sobel y and Laplace of conv1x1 x (+ x where the channels stay).

    `pointwise` adds EDBB's conv1x1 x. Padding the input by 0 before a 1x1 convolution is padding its output by its bias.

    Source: Zhang, Zeng and Zhang, Edge-oriented convolution block, ACM Multimedia 2021, section 3; Wang, EFDN, arXiv 2204.08759.

    >>> from npreparam.nn import fuse
    >>> fuse(ecb(2, 4, rng=np.random.default_rng(0))).weight.shape
    (4, 2, 3, 3)
    """
    own: dict[str, Any] = {"rng": rng, "dtype": dtype}
    wide = depth * out_channels
    branches: dict[str, Module] = {
        "conv3x3": Conv2d(in_channels, out_channels, 3, padding=1, **own),
        "conv1x1_3x3": Sequential(Pad(in_channels, 1), Conv2d(in_channels, wide, 1, **own), Conv2d(wide, out_channels, 3, **own)),
        **_edges(in_channels, out_channels, own)}
    if pointwise:
        branches["conv1x1"] = Conv2d(in_channels, out_channels, 1, **own)
    if in_channels == out_channels:
        branches["identity"] = Identity()
    return Sum(**branches)


def conv3xc(in_channels: int, out_channels: int, *, gain: int = 2, stride: int = 1, rng: np.random.Generator, dtype: Any = np.float32) -> Sum:
    """conv1x1 x + conv1x1(conv3x3(conv1x1(pad x))), all with biases.

    Source: Wan et al., Swift parameter-free attention network, arXiv 2311.12770, section 3.

    >>> from npreparam.nn import fuse
    >>> fuse(conv3xc(2, 4, rng=np.random.default_rng(0))).weight.shape
    (4, 2, 3, 3)
    """
    own: dict[str, Any] = {"rng": rng, "dtype": dtype}
    first, second = gain * in_channels, gain * out_channels
    return Sum(sk=Conv2d(in_channels, out_channels, 1, stride=stride, **own),
               conv=Sequential(Pad(in_channels, 1), Conv2d(in_channels, first, 1, **own),
                               Conv2d(first, second, 3, stride=stride, **own), Conv2d(second, out_channels, 1, **own)))


def rrrb(channels: int, *, ratio: int = 2, rng: np.random.Generator, dtype: Any = np.float32) -> Sum:
    """x + reduce(conv3x3(pad expand x) + expand x), padded by the bias of the 1x1 expansion.

    Source: Du et al., Fast and memory-efficient network, arXiv 2204.08397, section 3.

    >>> from npreparam.nn import fuse
    >>> fuse(rrrb(2, rng=np.random.default_rng(0))).weight.shape
    (2, 2, 3, 3)
    """
    own: dict[str, Any] = {"rng": rng, "dtype": dtype}
    wide = ratio * channels
    return Sum(identity=Identity(),
               body=Sequential(Pad(channels, 1), Conv2d(channels, wide, 1, **own), Sum(fea_conv=Conv2d(wide, wide, 3, **own), same=Crop(wide, 1)),
                               Conv2d(wide, channels, 1, **own)))


def rvsr_block(channels: int, *, ratio: int = 2, rng: np.random.Generator, dtype: Any = np.float32) -> Sum:
    """x + conv3x3 x + conv1x1 x + two chains reduce(conv3x3(expand x)), padded by the bias of the 1x1 expansion.

    Source: RepConv of RVSR (huai-chang/RVSR), as its code has it.

    >>> from npreparam.nn import fuse
    >>> fuse(rvsr_block(2, rng=np.random.default_rng(0))).weight.shape
    (2, 2, 3, 3)
    """
    own: dict[str, Any] = {"rng": rng, "dtype": dtype}
    wide = ratio * channels

    def chain() -> Sequential:
        return Sequential(Pad(channels, 1), expand_conv=Conv2d(channels, wide, 1, **own), fea_conv=Conv2d(wide, wide, 3, **own),
                          reduce_conv=Conv2d(wide, channels, 1, **own))

    return Sum(chain=chain(), chain1=chain(), res_conv3x3=Conv2d(channels, channels, 3, padding=1, **own),
               res_conv1x1=Conv2d(channels, channels, 1, **own), identity=Identity())


def rep_rfn(in_channels: int, out_channels: int, *, depth: int = 2, rng: np.random.Generator, dtype: Any = np.float32) -> Sum:
    """conv3x3 x + conv3x1 x + conv1x3 x + conv1x1 x + conv3x3(conv1x1 x) + the edges of `ecb` (+ x where the channels stay).

    The 1x1 convolution before the 3x3 one has no bias, so that padding between them is exact.

    Source: Deng et al., Reparameterized residual feature network (RepRFN), CVPR workshops 2023, section 3.

    >>> from npreparam.nn import fuse
    >>> fuse(rep_rfn(2, 4, rng=np.random.default_rng(0))).weight.shape
    (4, 2, 3, 3)
    """
    own: dict[str, Any] = {"rng": rng, "dtype": dtype}
    kernels = [("3x3", (3, 3)), ("3x1", (3, 1)), ("1x3", (1, 3)), ("1x1", (1, 1))]
    branches: dict[str, Module] = {f"branch_{name}": Conv2d(in_channels, out_channels, kernel, padding=(kernel[0] // 2, kernel[1] // 2), **own)
                                   for name, kernel in kernels}
    branches["branch_1x1_3x3"] = Sequential(Conv2d(in_channels, depth * out_channels, 1, bias=False, **own),
                                            Conv2d(depth * out_channels, out_channels, 3, padding=1, **own))
    same: dict[str, Module] = {"identity": Identity()} if in_channels == out_channels else {}
    return Sum(**branches, **_edges(in_channels, out_channels, own), **same)


def separable(in_channels: int, out_channels: int, *, rng: np.random.Generator, dtype: Any = np.float32) -> Sequential:
    """A 1x3 convolution after a 3x1 convolution without bias, each padded on its own axis: exact axis by axis (TDESR).

    >>> from npreparam.nn import fuse
    >>> fuse(separable(2, 4, rng=np.random.default_rng(0))).weight.shape
    (4, 2, 3, 3)
    """
    return Sequential(Conv2d(in_channels, out_channels, (3, 1), padding=(1, 0), bias=False, rng=rng, dtype=dtype),
                      Conv2d(out_channels, out_channels, (1, 3), padding=(0, 1), rng=rng, dtype=dtype))


def bsconv(in_channels: int, out_channels: int, kernel: int = 3, *, rng: np.random.Generator, dtype: Any = np.float32) -> Sequential:
    """A depthwise convolution after a 1x1 convolution without bias. With a bias it is no convolution: `npreparam.fuse.bias_map`.

    Source: Haase and Amthor, Rethinking depthwise separable convolutions, arXiv 2003.13549, section 3.

    >>> from npreparam.nn import fuse
    >>> fuse(bsconv(2, 4, rng=np.random.default_rng(0))).weight.shape
    (4, 2, 3, 3)
    """
    return Sequential(pw=Conv2d(in_channels, out_channels, 1, bias=False, rng=rng, dtype=dtype),
                      dw=Conv2d(out_channels, out_channels, kernel, padding=kernel // 2, groups=out_channels, rng=rng, dtype=dtype))


def conv_rep(in_channels: int, out_channels: int, kernel: int = 3, *, rng: np.random.Generator, dtype: Any = np.float32) -> Sequential:
    """conv1x1 of the concatenation of 3x3, 1x1, 3x1, 1x3 convolutions, of 5x5 ones too where `kernel` is 5, each with and without batch norm.

    Source: Gou et al., SYENet, arXiv 2308.08137, section 3 (ConvRep3 and ConvRep5).

    >>> from npreparam.nn import fuse
    >>> fuse(conv_rep(2, 4, kernel=5, rng=np.random.default_rng(0))).weight.shape
    (4, 2, 5, 5)
    """
    if kernel not in (3, 5):
        raise ArgumentError(f"`kernel` (={kernel}) must be 3 or 5")
    own: dict[str, Any] = {"rng": rng, "dtype": dtype}
    kernels = {"conv": (kernel, kernel), "conv1": (1, 1), **({"conv2": (3, 3)} if kernel == 5 else {}), "conv_crossv": (3, 1), "conv_crossh": (1, 3)}
    branches: dict[str, Module] = {}
    for name, size in kernels.items():
        padding = (size[0] // 2, size[1] // 2)
        branches[name] = Conv2d(in_channels, out_channels, size, padding=padding, **own)
        branches[f"{name}_bn"] = ConvBN(in_channels, out_channels, size, padding=padding, **own)
    return Sequential(Concat(**branches), conv_out=Conv2d(len(branches) * out_channels, out_channels, 1, **own))


def etds_layer(backbone: int, residual: int, *, rng: np.random.Generator, dtype: Any = np.float32) -> Sequential:
    """relu of (backbone conv of x + conv of r, residual conv of r) on the concatenated streams (x, r), all 3x3.

    Source: Chao et al., Equivalent transformation and dual stream network, CVPR 2023, section 3.

    >>> from npreparam.nn import fuse
    >>> fuse(etds_layer(3, 1, rng=np.random.default_rng(0))).weight.shape
    (4, 4, 3, 3)
    """
    def conv(inputs: int, outputs: int) -> Conv2d:
        return Conv2d(inputs, outputs, 3, padding=1, rng=rng, dtype=dtype)

    both = backbone + residual
    return Sequential(
        Concat(x=Sum(backbone=Sequential(Slice(both, 0, backbone), conv(backbone, backbone)),
                     add_residual=Sequential(Slice(both, backbone, both), conv(residual, backbone))),
               r=Sequential(Slice(both, backbone, both), conv(residual, residual))), ReLU())


def fsmn(channels: int, taps: int = 20, *, rng: np.random.Generator, dtype: Any = np.float32) -> Sum:
    """x + a causal depthwise convolution of x along the height, whose last tap is the present: asymmetric padding.

    Source: Zhang et al., Feedforward sequential memory networks, arXiv 1512.08301, section 2.

    >>> from npreparam.nn import fuse
    >>> fuse(fsmn(4, taps=3, rng=np.random.default_rng(0))).weight.shape
    (4, 1, 3, 1)
    """
    return Sum(identity=Identity(), memory=Conv2d(channels, channels, (taps, 1), padding=((taps - 1, 0), (0, 0)), groups=channels, bias=False,
                                                  rng=rng, dtype=dtype))


def shuffled_residual(channels: int, groups: int = 2, *, rng: np.random.Generator, dtype: Any = np.float32) -> Sum:
    """x + conv1x1(depthwise 3x3(shuffle(grouped conv1x1 x))), batch norm at the end.

    >>> from npreparam.nn import fuse
    >>> fuse(shuffled_residual(4, rng=np.random.default_rng(0))).weight.shape
    (4, 4, 3, 3)
    """
    own: dict[str, Any] = {"rng": rng, "dtype": dtype, "bias": False}
    return Sum(identity=Identity(),
               body=Sequential(Conv2d(channels, channels, 1, groups=groups, **own), ChannelShuffle(channels, groups),
                               Conv2d(channels, channels, 3, padding=1, groups=channels, **own), Conv2d(channels, channels, 1, **own),
                               BatchNorm2d(channels, dtype=dtype)))
