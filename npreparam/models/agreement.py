"""How far a RepVGG network and its fused form may be apart, so that their difference can be judged and not only shown."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from npreparam import ops
from npreparam.models.repvgg import RepVGG

Array = NDArray[Any]


def fusion_bound(network: RepVGG, x: Array) -> Array:
    """An upper bound of |network(x) - network.fuse()(x)| for a float64 network, for every logit: both are roundings of one function.

    Through a block with K and c as in `RepVGGBlock.absolute_terms`, n taps and B branches, a difference E of the inputs becomes at most

        E' = K*E + gamma_2k (K*(|x| + E) + c),   k = n + B + 8,   gamma_j = j*u/(1 - j*u)

    since either side passes at most k roundings on its way from a term to the output; a ReLU adds nothing. The mean over P pixels and the
    linear layer of C inputs follow in the same way, with k = P + 1 and C + 1.

    Source: Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., lemma 3.1 and section 3.5.

    >>> network = RepVGG(1, widths=[2], depths=[1], rng=np.random.default_rng(0), dtype=np.float64)
    >>> x = np.ones((1, 1, 4, 4))
    >>> bool((np.abs(network(x) - network.fuse()(x)) <= fusion_bound(network, x)).all())
    True
    """
    error = np.zeros_like(x)
    for block in network.blocks:
        kernel, bias = block.absolute_terms()
        branches = len(block.branch_kernels())
        geometry = {"stride": block.stride, "padding": 1, "groups": block.groups}
        rounding = _gamma(2 * (kernel[0].size + branches + 8))
        size = np.abs(x) + error
        error = ops.conv2d(error, kernel, **geometry) + rounding * ops.conv2d(size, kernel, bias, **geometry)
        x = block(x)
    size = (np.abs(x) + error).mean((2, 3))
    error = error.mean((2, 3)) + _gamma(2 * (x[0, 0].size + 1)) * size
    w, b = np.abs(network.linear.weight.value), np.abs(network.linear.bias.value)
    return ops.linear(error, w) + _gamma(2 * (w.shape[1] + 1)) * ops.linear(size + error, w, b)


def _gamma(roundings: int) -> float:
    return roundings * 2.0**-53 / (1 - roundings * 2.0**-53)
