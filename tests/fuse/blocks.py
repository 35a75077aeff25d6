"""Random RepVGG blocks with batch norm statistics far from fresh ones, and their multi-branch output by loop nests."""

from typing import Any, NamedTuple

import numpy as np

from tests import naive
from tests.tolerances import fusion_bound


class Block(NamedTuple):
    x: Any
    w3: Any
    bn3: Any
    w1: Any
    bn1: Any
    bn_identity: Any
    stride: Any
    groups: int


def random_bn(rng, channels, dtype=np.float64, eps=1e-3):
    """(gamma, beta, mean, var, eps): gammas of both signs, variances over four decades."""
    gamma, beta, mean = rng.standard_normal((3, channels))
    return gamma.astype(dtype), beta.astype(dtype), mean.astype(dtype), (10 ** rng.uniform(-3, 1, channels)).astype(dtype), eps


def random_block(rng, batch, inputs, outputs, size, stride, groups, identity, dtype=np.float64, eps=1e-3):
    def normal(*shape):
        return rng.standard_normal(shape).astype(dtype)

    bns = [random_bn(rng, outputs, dtype, eps) for _ in range(3)]
    weights = outputs, inputs // groups
    return Block(normal(batch, inputs, *size), normal(*weights, 3, 3), bns[0], normal(*weights, 1, 1), bns[1], bns[2] if identity else None,
                 stride, groups)


def conv(x, kernel, stride, groups):
    """A 3x3 convolution padded by 1, or a 1x1 convolution, by its loop nest."""
    pad = kernel.shape[2] // 2
    return naive.conv2d(x, kernel, None, stride, ((pad, pad), (pad, pad)), (1, 1), groups)


def multi_branch(block):
    """bn3(conv3x3(x)) + bn1(conv1x1(x)) + bn(x), each by its loop nest."""
    total = naive.batch_norm(conv(block.x, block.w3, block.stride, block.groups), *block.bn3)
    total = total + naive.batch_norm(conv(block.x, block.w1, block.stride, block.groups), *block.bn1)
    return total if block.bn_identity is None else total + naive.batch_norm(block.x, *block.bn_identity)


def absolute_sum(block):
    """S of `fusion_bound` for every element of the output: the multi-branch sum with every term replaced by its absolute value."""
    x = np.abs(block.x).astype(np.float64)
    parts = [(conv(x, np.abs(block.w3).astype(np.float64), block.stride, block.groups), block.bn3),
             (conv(x, np.abs(block.w1).astype(np.float64), block.stride, block.groups), block.bn1)]
    if block.bn_identity is not None:
        parts.append((x, block.bn_identity))
    total = 0.0
    for terms, (gamma, beta, mean, var, eps) in parts:
        scale, shift, mean = (np.abs(v).astype(np.float64).reshape(1, -1, 1, 1) for v in (gamma / np.sqrt(var + eps), beta, mean))
        total = total + scale * (terms + mean) + shift
    return total


def permitted(block):
    branches = 2 if block.bn_identity is None else 3
    return fusion_bound(block.w3[0].size, branches, absolute_sum(block), block.x.dtype)
