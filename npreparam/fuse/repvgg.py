"""The RepVGG block as one convolution: a 3x3, a 1x1 and an identity branch, each with batch norm, added up."""

from __future__ import annotations

import numpy as np

from npreparam._errors import ArgumentError, DTypeError, ShapeError
from npreparam._shapes import as_int
from npreparam.fuse.conv_bn import BatchNorm, quiet, scale_and_shift
from npreparam.ops._validate import Array, as_array, check_rank, check_shape


def identity_kernel(channels: int, groups: int = 1, size: int = 3) -> Array:
    """The kernel whose convolution, padded by size//2, changes nothing.

    I[o, i, size//2, size//2] = 1 where i = o mod (channels/groups), 0 elsewhere: one at the *centre*. Ones everywhere would be a box sum.

    >>> identity_kernel(1)
    array([[[[0., 0., 0.],
             [0., 1., 0.],
             [0., 0., 0.]]]])
    """
    channels, groups, size = as_int(channels, "channels", 1), as_int(groups, "groups", 1), as_int(size, "size", 1)
    if channels % groups:
        raise ShapeError(f"`channels` (={channels}) must be divisible by `groups` (={groups})")
    if size % 2 == 0:
        raise ArgumentError(f"`size` (={size}) must be odd, or the kernel has no centre")
    kernel = np.zeros((channels, channels // groups, size, size))
    kernel[np.arange(channels), np.arange(channels) % (channels // groups), size // 2, size // 2] = 1
    return kernel


@quiet
def branch_kernels(w3: Array, bn3: BatchNorm, w1: Array, bn1: BatchNorm, bn_identity: BatchNorm | None = None,
                   groups: int = 1) -> list[tuple[Array, Array]]:
    """The branches of a RepVGG block as 3x3 kernels with biases, in float64: what `fuse_repvgg` adds up, for looking at.

    >>> bn = (np.ones(1), np.zeros(1), np.zeros(1), np.ones(1), 0.0)
    >>> [kernel.sum() for kernel, bias in branch_kernels(np.ones((1, 1, 3, 3)), bn, np.ones((1, 1, 1, 1)), bn, bn)]
    [np.float64(9.0), np.float64(1.0), np.float64(1.0)]
    """
    w3, w1, groups = as_array(w3, "w3"), as_array(w1, "w1"), as_int(groups, "groups", 1)
    check_rank(w3, "w3", 4, "(output channels, input channels / groups, 3, 3)")
    outputs, inputs = w3.shape[:2]
    check_shape(w3, "w3", (outputs, inputs, 3, 3), "a 3x3 kernel")
    check_shape(w1, "w1", (outputs, inputs, 1, 1), "a 1x1 kernel with the channels of `w3`")
    if w1.dtype != w3.dtype:
        raise DTypeError(f"`w1` has dtype {w1.dtype}, but must have that of `w3`, {w3.dtype}")
    if outputs % groups:
        raise ShapeError(f"`out_channels` (={outputs}, axis 0 of `w3`) must be divisible by `groups` (={groups})")
    centred = np.zeros(w3.shape)
    centred[:, :, 1:2, 1:2] = w1
    kernels = [(w3.astype(np.float64), bn3, "bn3"), (centred, bn1, "bn1")]
    if bn_identity is not None:
        if inputs * groups != outputs:
            raise ShapeError(f"an identity branch needs `in_channels` (={inputs * groups}) equal to `out_channels` (={outputs})")
        kernels.append((identity_kernel(outputs, groups), bn_identity, "bn_identity"))
    branches = []
    for kernel, bn, name in kernels:
        scale, shift = scale_and_shift(bn, outputs, name)
        branches.append((kernel * scale[:, None, None, None], shift))
    return branches


@quiet
def fuse_repvgg(w3: Array, bn3: BatchNorm, w1: Array, bn1: BatchNorm, bn_identity: BatchNorm | None = None,
                groups: int = 1) -> tuple[Array, Array]:
    """Weights and bias of the one 3x3 convolution that equals a RepVGG block in evaluation mode.

    w = s3*w3 + s1*centre(w1) + si*I,   b = sum over branches of beta - mean*s,   s = gamma/sqrt(var + eps) of each branch's batch norm

    w3 is (O, I/groups, 3, 3), w1 (O, I/groups, 1, 1), bn = (gamma, beta, mean, var, eps); `bn_identity` needs O = I. Valid for every
    stride of the block, the 3x3 padded by 1 and the 1x1 by 0. The results have the dtype of w3.

    Rounding: computed in float64, at most 7 roundings for a weight; rounded once more where w3 is float32. Weights that are not finite
    propagate as in IEEE arithmetic, and what float32 cannot hold becomes infinite.

    Raises ShapeError, DTypeError, ArgumentError (var + eps not positive).

    Source: Ding et al., RepVGG, arXiv 2101.03697, section 3.3.

    >>> bn = (np.ones(1), np.zeros(1), np.zeros(1), np.ones(1), 0.0)
    >>> fuse_repvgg(np.ones((1, 1, 3, 3)), bn, np.ones((1, 1, 1, 1)), bn, bn)[0]
    array([[[[1., 1., 1.],
             [1., 3., 1.],
             [1., 1., 1.]]]])
    """
    branches = branch_kernels(w3, bn3, w1, bn1, bn_identity, groups)
    kernel, bias = (np.sum([branch[i] for branch in branches], axis=0) for i in (0, 1))
    return kernel.astype(w3.dtype), bias.astype(w3.dtype)
