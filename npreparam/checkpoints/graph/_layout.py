"""A map as the attributes and the weight of an ONNX convolution."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from npreparam._errors import FusionError
from npreparam.checkpoints._dtypes import Array
from npreparam.fuse import AffineConv

MOST = 2**26  # numbers in one kernel: half a GiB in float64


class Layout(NamedTuple):
    """Where the taps of a map lie in its kernel: first offset, dilation and length for each axis, and the padding."""

    first: tuple[int, ...]
    dilation: tuple[int, ...]
    lengths: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    shape: tuple[int, ...]  # of the weight

    def geometry(self, conv: AffineConv) -> dict[str, Any]:
        """The arguments of the operation that computes the map."""
        found: dict[str, Any] = {"stride": conv.stride, "padding": self.padding, "dilation": self.dilation, "groups": conv.groups}
        if conv.transposed:
            reach = [first + d * (n - 1) for first, d, n in zip(self.first, self.dilation, self.lengths, strict=True)]
            more = tuple(c - high - 1 + after for c, high, (_, after) in zip(conv.slack, reach, self.padding, strict=True))
            if any(m >= s for m, s in zip(more, conv.stride, strict=True)):
                raise FusionError(f"its output is longer by {list(more)} than its taps reach", "keep it as it is")
            found["output_padding"] = more
        return found

    def weight(self, conv: AffineConv) -> Array:
        """The kernel, (O, I/groups, ...), transposed (I, O/groups, ...)."""
        kernel = np.zeros((*conv.blocks.shape[1:], *self.lengths))
        for tap, block in zip(conv.taps, conv.blocks, strict=True):
            kernel[(..., *((o - f) // d for o, f, d in zip(tap, self.first, self.dilation, strict=True)))] = block
        if not conv.transposed:
            return kernel
        parts = kernel.reshape(conv.groups, conv.outputs // conv.groups, -1, *self.lengths).swapaxes(1, 2)
        return parts.reshape(self.shape)


def layout_of(conv: AffineConv) -> Layout:
    """The smallest kernel that holds all taps, dilated where all of them are a multiple apart.

    Raises FusionError: an input that continues with a constant other than 0, a kernel too large for memory.
    """
    axes = []
    for axis, slack in enumerate(conv.slack):
        offsets = {tap[axis] for tap in conv.taps}
        if min(offsets) > 0:  # no layer crops, but zeros in the kernel do
            offsets.add(0)
        if not conv.transposed and max(offsets) < -slack - 1:
            offsets.add(-slack - 1)
        low, high = min(offsets), max(offsets)
        step = math.gcd(*(o - low for o in offsets)) or 1
        after = max(0, high + 1 - slack) if conv.transposed else slack + high + 1
        axes.append((low, step, (high - low) // step + 1, (-low, after)))
    first, dilation, lengths, padding = zip(*axes, strict=True) if axes else ((),) * 4
    outputs, inputs = (conv.inputs, conv.outputs // conv.groups) if conv.transposed else conv.blocks.shape[1:]
    shape = (outputs, inputs, *lengths)
    if math.prod(shape) > MOST:
        raise FusionError(f"one kernel would have {math.prod(shape):,} numbers, more than {MOST:,}", "keep its parts")
    if (conv.outside != 0).any() and any(map(any, padding)):
        raise FusionError("it pads with a constant other than 0", "pad with 0, or in front of a convolution without padding")
    return Layout(first, dilation, lengths, padding, shape)
