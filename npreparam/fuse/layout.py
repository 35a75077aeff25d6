"""Maps as the arguments of the operations that compute them."""

from __future__ import annotations

from collections.abc import Sequence

from npreparam._errors import FusionError
from npreparam.fuse.affine import AffineConv, Array, Offset, axis_name, zeros

Sides = tuple[tuple[int, int], ...]


def to_conv2d(conv: AffineConv, kernel: Sequence[int] | None = None) -> tuple[Array, Array, Offset, Sides, int, int]:
    """(w, b, stride, padding, dilation 1, groups) of the smallest convolution that is this map, as `ops.conv2d` takes them.

    Taps whose blocks are zero are left out; a map that crops its input gets zero taps where the cropped elements lie. `kernel` asks for that
    size, centred as the padding allows. Works for any number of axes.

    Raises FusionError: a tap that `kernel` does not hold (it is never cropped), an input that does not continue with 0, a transposed map.

    >>> import numpy as np
    >>> from npreparam.fuse import pointwise
    >>> to_conv2d(pointwise(np.array([2.0])).lifted(2), kernel=(3, 3))[0]
    array([[[[0., 0., 0.],
             [0., 2., 0.],
             [0., 0., 0.]]]])
    """
    if conv.transposed:
        raise FusionError("it is a transposed convolution, which no convolution equals", "use `to_conv_transpose2d`")
    lengths, padding, first = _box(conv, kernel)
    if any(conv.outside != 0) and any(map(any, padding)):
        raise FusionError("it pads with a constant other than 0", "pad the input by that constant first, or subtract it from the input")
    return _dense(conv, first, lengths), conv.bias, conv.stride, padding, 1, conv.groups


def _box(conv: AffineConv, kernel: Sequence[int] | None) -> tuple[Offset, Sides, Offset]:
    """Kernel lengths, padding, and the offset of the kernel's first tap."""
    used = [tap for tap, block in zip(conv.taps, conv.blocks, strict=True) if (block != 0).any()]
    lengths, padding, first = [], [], []
    for axis, slack in enumerate(conv.slack):
        low = min((0, *(tap[axis] for tap in used)))
        high = max((-slack - 1, low, *(tap[axis] for tap in used)))
        if kernel is not None:
            spare = kernel[axis] - (high - low + 1)
            if spare < 0:
                raise FusionError(f"its taps span {high - low + 1} elements of the {axis_name(conv, axis)}, more than the {kernel[axis]} of "
                                  f"`kernel` (={tuple(kernel)})", "use a kernel that large; taps are never cropped")
            # towards equal padding on both sides, where a kernel that is larger than needed leaves the choice
            ahead = max(0, min(spare, (slack + high + 1 + low + spare) // 2))
            low, high = low - ahead, high + spare - ahead
        lengths.append(high - low + 1)
        padding.append((-low, slack + high + 1))
        first.append(low)
    return tuple(lengths), tuple(padding), tuple(first)


def _dense(conv: AffineConv, first: Offset, lengths: Offset) -> Array:
    """The blocks as a kernel (O, I/groups, lengths...) whose first tap has the offset `first`."""
    kernel = zeros((*conv.blocks.shape[1:], *lengths), conv.blocks)
    for tap, block in zip(conv.taps, conv.blocks, strict=True):
        place = tuple(o - f for o, f in zip(tap, first, strict=True))
        if all(0 <= p < n for p, n in zip(place, lengths, strict=True)):  # what lies beyond is zero
            kernel[(slice(None), slice(None), *place)] = block
    return kernel


def to_conv_transpose2d(conv: AffineConv) -> tuple[Array, Array, Offset, Sides, Offset, int, int]:
    """(w, b, stride, padding, output_padding, dilation 1, groups) of a transposed map, as `ops.conv_transpose2d` takes them.

    Raises FusionError for a map that is not transposed, or that no such layer holds.

    >>> import numpy as np
    >>> import numpy as np
    >>> from npreparam.fuse.affine import from_conv_transpose
    >>> w, b, stride, *rest = to_conv_transpose2d(from_conv_transpose(np.ones((1, 2, 2, 2)), stride=2))
    >>> w.shape, stride
    ((1, 2, 2, 2), (2, 2))
    """
    if not conv.transposed:
        raise FusionError("it is no transposed convolution", "use `to_conv2d`")
    lows, highs = ([side[i] for side in map(conv.span, range(conv.rank))] for i in (0, 1))
    lows = [min(0, low) for low in lows]
    lengths = tuple(high - low + 1 for low, high in zip(lows, highs, strict=True))
    after = [max(0, high + 1 - c) for high, c in zip(highs, conv.slack, strict=True)]
    more = tuple(c - high - 1 + p for c, high, p in zip(conv.slack, highs, after, strict=True))
    if any(m >= s for m, s in zip(more, conv.stride, strict=True)):
        raise FusionError(f"its output is longer by {more} than its taps reach", "an output padding must be smaller than the stride")
    kernel, groups = _dense(conv, tuple(lows), lengths), conv.groups
    parts = kernel.reshape(groups, conv.outputs // groups, conv.inputs // groups, *lengths).swapaxes(1, 2)
    w = parts.reshape(conv.inputs, conv.outputs // groups, *lengths)
    return w, conv.bias, conv.stride, tuple((-low, p) for low, p in zip(lows, after, strict=True)), more, 1, groups
