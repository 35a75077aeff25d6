"""What happens at the border when one map follows another.

The second map reads, beyond the border of the image between, its own continuation `outside`; the fused map reads there what the first map's
formula gives beyond its last output. The two agree for every input size iff on each axis

* the second map reads nothing beyond the border: all offsets lie in [0, -slack - 1]; or
* beyond it the first map reads nothing but its own continuation (offsets in [-slack - 1, stride - 1], so an extent of one unpadded element),
  and gives there what the second expects: bias1 + (sum of K1) outside1 = outside2.

So padding between maps is exact after a 1x1 convolution without bias, with padding by that bias (DBB, ECB), and where the padding is moved to
the front (SPAN). Where only the constant is wrong, the exact result is the fused map plus a bias that depends on the position, one value for
each set of taps that lie inside: `bias_map`.
"""

from __future__ import annotations

import numpy as np

from npreparam._errors import FusionError
from npreparam.fuse.affine import AffineConv, Array, apply_to, axis_name


def reads_beyond(conv: AffineConv) -> list[bool]:
    """For each axis, whether some output of some input size reads beyond the border."""
    if conv.transposed:
        return [False] * conv.rank
    return [not (conv.span(axis)[0] >= 0 and conv.span(axis)[1] <= -slack - 1) for axis, slack in enumerate(conv.slack)]


def constant_beyond(conv: AffineConv) -> list[bool]:
    """For each axis, whether the map's formula beyond its first and last output reads nothing but `outside`."""
    return [conv.span(axis)[0] >= -slack - 1 and conv.span(axis)[1] <= stride - 1
            for axis, (slack, stride) in enumerate(zip(conv.slack, conv.stride, strict=True))]


def continuation(conv: AffineConv) -> Array:
    """What a map gives where it reads only its own `outside`."""
    return conv.bias + apply_to(conv, conv.outside) if any(conv.outside != 0) else conv.bias


def check_geometry(second: AffineConv, first: AffineConv) -> bool:
    """Whether the constant matters; FusionError where the first map's extent makes the border inexact."""
    beyond, constant = reads_beyond(second), constant_beyond(first)
    for axis, (reads, harmless) in enumerate(zip(beyond, constant, strict=True)):
        if reads and not harmless:
            name, (low, high) = axis_name(second, axis), first.span(axis)
            raise FusionError(f"the second of two maps pads the {name}, where the first spans {high - low + 1} elements or pads",
                              "move the padding in front of the first map, remove it, or accept a wrong border with border='interior'")
    return any(beyond)


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
