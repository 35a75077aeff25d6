"""What happens at the border when one map follows another.

The second map reads, beyond the border of the image between, its own continuation `outside`; the fused map reads there what the first map's
formula gives beyond its last output. The two agree for every input size iff on each side of each axis

* the second map reads nothing beyond that side: no offset < 0, or none > -slack - 1; or
* at the places it reads there the first map reads nothing but its own continuation (stride1*place + offset < 0, or all offsets >= -slack - 1;
  on both sides that is the extent of one unpadded element), and gives what the second expects: bias1 + (sum of K1) outside1 = outside2.

So padding between maps is exact after a 1x1 convolution without bias, with padding by that bias (DBB, ECB), and where the padding is moved to
the front (SPAN). Where only the constant is wrong, the exact result is the fused map plus a bias that depends on the position, one value for
each set of taps that lie inside: `bias_map`.
"""

from __future__ import annotations

import numpy as np

from npreparam._errors import FusionError
from npreparam.fuse.affine import AffineConv, Array, apply_to, axis_name


def reads_beyond(conv: AffineConv) -> list[tuple[bool, bool]]:
    """For each axis, whether some output of some input size reads (before, after) the input."""
    if conv.transposed:
        return [(False, False)] * conv.rank
    spans = [conv.span(axis) for axis in range(conv.rank)]
    return [(low < 0, high > -slack - 1) for (low, high), slack in zip(spans, conv.slack, strict=True)]


def is_constant_before(second: AffineConv, first: AffineConv, axis: int) -> bool:
    """Whether `first` reads nothing but `outside` at the last place before its outputs that `second` reads, and so at all places before."""
    stride = second.stride[axis]
    place = max((o + stride * ((-o - 1) // stride) for o in (tap[axis] for tap in second.taps) if o < 0), default=-1)
    return first.stride[axis] * place + first.span(axis)[1] < 0


def is_constant_after(first: AffineConv, axis: int) -> bool:
    """Whether `first` reads nothing but `outside` at all places after its outputs; the first of them is read for some input size."""
    return first.span(axis)[0] >= -first.slack[axis] - 1


def continuation(conv: AffineConv) -> Array:
    """What a map gives where it reads only its own `outside`."""
    return conv.bias + apply_to(conv, conv.outside) if any(conv.outside != 0) else conv.bias


def check_geometry(second: AffineConv, first: AffineConv) -> bool:
    """Whether the constant matters; FusionError where the first map's extent makes the border inexact."""
    beyond = reads_beyond(second)
    for axis, (before, after) in enumerate(beyond):
        if (before and not is_constant_before(second, first, axis)) or (after and not is_constant_after(first, axis)):
            low, high = first.span(axis)
            raise FusionError(f"the second of two maps pads the {axis_name(second, axis)}, where the first spans {high - low + 1} elements or "
                              "pads",
                              "move the padding in front of the first map, remove it, or accept a wrong border with border='interior'")
    return any(map(any, beyond))


def check_border(second: AffineConv, first: AffineConv) -> None:
    """FusionError unless `second` after `first` is exact at the border for every input size."""
    if not check_geometry(second, first):
        return
    given, expected = continuation(first), second.outside
    wrong = np.flatnonzero(given != expected)
    if len(wrong):
        c = int(wrong[0])
        raise FusionError(f"the second of two maps pads channel {c} with {_told(expected[c])}, where the first continues with {_told(given[c])}",
                          "pad with that constant (`padded_with`), make it zero, use `bias_map`, or accept a wrong border with "
                          "border='interior'")


def _told(number: object) -> str:
    return f"{float(number):.6g}"  # type: ignore[arg-type]
