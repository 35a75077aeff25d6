"""The one rule for whether convolutions become one: never at the price of a larger network."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

Shape = Sequence[int]


def is_no_larger(fused: Shape, parts: Iterable[Shape]) -> bool:
    """Whether a kernel of shape `fused` has no more numbers than the kernels it replaces together.

    prod(fused) <= sum of prod(part) over the convolutions and linear layers of the region

    Shapes are those of the stored kernels, grouped and transposed ones included. Biases and batch norms are left out: one convolution has
    one bias, and the alternative, only the batch norms folded, has one for each part. A region for which this is false keeps its
    convolutions, with their batch norms folded, unless its owner insists.

    >>> is_no_larger((64, 64, 3, 3), [(64, 64, 3, 3), (64, 64, 1, 1)])  # RepVGG
    True
    >>> is_no_larger((64, 64, 3, 3), [(64, 64, 1, 1), (64, 1, 3, 3)])  # pointwise, then depthwise
    False
    """
    return math.prod(fused) <= sum(math.prod(part) for part in parts)
