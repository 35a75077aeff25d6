"""Depthwise blocks with a large kernel beside smaller or dilated ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from npreparam._errors import ArgumentError
from npreparam.nn.containers import Sequential, Sum
from npreparam.nn.layers import BatchNorm2d
from npreparam.nn.repvgg import ConvBN

# large kernel: (kernel, dilation) of the branches beside it (UniRepLKNet's code)
DILATED = {17: [(5, 1), (9, 2), (3, 4), (3, 5), (3, 7)], 15: [(5, 1), (7, 2), (3, 3), (3, 5), (3, 7)],
           13: [(5, 1), (7, 2), (3, 3), (3, 4), (3, 5)], 11: [(5, 1), (5, 2), (3, 3), (3, 4), (3, 5)],
           9: [(5, 1), (5, 2), (3, 3), (3, 4)], 7: [(5, 1), (3, 2), (3, 3)], 5: [(3, 1), (3, 2)]}


def large_kernel_block(channels: int, kernel: int = 31, small: int = 5, *, rng: np.random.Generator, dtype: Any = np.float32) -> Sum:
    """bn(depthwise KxK x) + bn(depthwise kxk x).

    Source: Ding et al., RepLKNet, arXiv 2203.06717, section 3.

    >>> from npreparam.nn import fuse
    >>> fuse(large_kernel_block(4, rng=np.random.default_rng(0))).weight.shape
    (4, 1, 31, 31)
    """
    own: dict[str, Any] = {"groups": channels, "rng": rng, "dtype": dtype}
    if kernel % 2 == 0 or small % 2 == 0:
        raise ArgumentError(f"`kernel` (={kernel}) and `small` (={small}) must be odd, so that they have one centre")
    return Sum(lkb_origin=ConvBN(channels, channels, kernel, padding=kernel // 2, **own),
               small_conv=ConvBN(channels, channels, small, padding=small // 2, **own))


def dilated_reparam_block(channels: int, kernel: int = 9, *, rng: np.random.Generator, dtype: Any = np.float32) -> Sequential:
    """bn(bn(depthwise KxK x) + the sum of bn(depthwise kxk x, dilated)).

    Source: Ding et al., UniRepLKNet, arXiv 2311.15599, section 3.2; the branches are those of its code.

    >>> from npreparam.nn import fuse
    >>> fuse(dilated_reparam_block(4, rng=np.random.default_rng(0))).weight.shape
    (4, 1, 9, 9)
    """
    if kernel not in DILATED:
        raise ArgumentError(f"`kernel` (={kernel}) must be one of {sorted(DILATED)}")
    own: dict[str, Any] = {"groups": channels, "rng": rng, "dtype": dtype}
    branches = {f"dil_conv_k{k}_{d}": ConvBN(channels, channels, k, padding=d * (k // 2), dilation=d, **own) for k, d in DILATED[kernel]}
    return Sequential(Sum(lk_origin=ConvBN(channels, channels, kernel, padding=kernel // 2, **own), **branches),
                      norm=BatchNorm2d(channels, dtype=dtype))
