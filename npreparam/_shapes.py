"""The `Window` record and the output-size arithmetic that every storey shares.

One spatial axis of length `size`, padded by `before + after`, is covered by windows of extent ``dilation*(kernel-1) + 1`` whose
first elements are `stride` apart:

    output = floor((size + before + after - extent) / stride) + 1, or 0 if not even one window fits

The floor is Python's (towards minus infinity). C's division, which truncates, would count one window where none fits.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from npreparam._errors import ArgumentError, ShapeError

Pair = tuple[int, int]
Sides = tuple[Pair, Pair]
Size2 = int | Sequence[int]
Padding = int | str | Sequence[int] | Sequence[Sequence[int]]

LIMIT = 2**60  # on strides, padding and extents: positions are 64-bit integers
PADDING_NAMES = ("SAME_UPPER", "SAME_LOWER", "VALID")


def as_int(value: Any, name: str, minimum: int) -> int:
    """`value` as an int not below `minimum`; floats and booleans are refused rather than truncated."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise ArgumentError(f"`{name}` (={value!r}) must be an integer")
    if number < minimum:
        rule = {0: "must not be negative", 1: "must be positive"}.get(minimum, f"must be at least {minimum}")
        raise ArgumentError(f"`{name}` (={value!r}) {rule}")
    return number


def as_bool(value: Any, name: str) -> bool:
    """`value` as a bool; what is merely true or false in a condition is refused."""
    if not isinstance(value, bool) and type(value).__name__ != "bool":  # numpy.bool too
        raise ArgumentError(f"`{name}` (={value!r}) must be True or False")
    return bool(value)


def as_pair(value: Size2, name: str, minimum: int) -> Pair:
    """`value` as (height, width): an int stands for both."""
    if hasattr(value, "tolist"):
        value = value.tolist()  # an array
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) != 2:
            sides = ", or four sides as ((top, bottom), (left, right))" if name == "padding" else ""
            raise ArgumentError(f"`{name}` (={value!r}) must be an int or a pair (height, width){sides}")
        return as_int(value[0], name, minimum), as_int(value[1], name, minimum)
    number = as_int(value, name, minimum)
    return number, number


def extent(kernel: int, dilation: int) -> int:
    """Number of input elements from the first to the last tap of a dilated kernel: dilation*(kernel-1) + 1."""
    return dilation * (kernel - 1) + 1


def output_length(size: int, kernel: int, stride: int = 1, padding: Pair = (0, 0), dilation: int = 1) -> int:
    """Number of window positions on one axis; 0 when not even one window fits.

    >>> output_length(7, kernel=3, stride=2, padding=(1, 1))
    4
    >>> output_length(2, kernel=3, stride=2)    # (2 - 3)//2 + 1 with floor division
    0
    """
    return max(0, (size + padding[0] + padding[1] - extent(kernel, dilation)) // stride + 1)


def same_padding(size: int, kernel: int, stride: int, dilation: int, name: str) -> Pair:
    """(before, after) of one axis such that output = ceil(size/stride); the odd element goes after (UPPER) or before (LOWER).

    Source: TensorFlow `tf.nn` notes on padding; ONNX operator Conv, attribute `auto_pad`.

    >>> same_padding(4, kernel=3, stride=2, dilation=1, name="SAME_UPPER")
    (0, 1)
    """
    wanted = -(-size // stride)
    total = max(0, (wanted - 1) * stride + extent(kernel, dilation) - size)
    small, large = total // 2, total - total // 2
    return (small, large) if name == "SAME_UPPER" else (large, small)


def as_sides(padding: Padding, name: str = "padding") -> Sides:
    """Explicit padding (int, (h, w) or ((top, bottom), (left, right))) as ((top, bottom), (left, right))."""
    if isinstance(padding, Sequence) and not isinstance(padding, str):
        axes = list(padding)
        if len(axes) == 2 and all(isinstance(axis, Sequence) for axis in axes):
            top, left = as_pair(axes[0], name, 0), as_pair(axes[1], name, 0)
            return top, left
    h, w = as_pair(padding, name, 0)  # type: ignore[arg-type]
    return (h, h), (w, w)


def _check_limit(name: str, lengths: Sequence[int]) -> None:
    for length in lengths:
        if length >= LIMIT:
            raise ArgumentError(f"`{name}` leads to a length of {length}, but must stay below 2**60, so that positions fit in 64 bits; "
                                f"choose a smaller `{name}`")


@dataclass(frozen=True, slots=True)
class Window:
    """The geometry of a convolution or pooling: kernel, stride, ((top, bottom), (left, right)) padding, dilation, groups.

    >>> Window.of(3, stride=2, padding=1).output_size((7, 8))
    (4, 4)
    """

    kernel: Pair
    stride: Pair = (1, 1)
    padding: Sides = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)
    groups: int = 1

    @classmethod
    def of(cls, kernel: Size2, stride: Size2 = 1, padding: Padding = 0, dilation: Size2 = 1, groups: int = 1, *,
           size: Pair | None = None) -> Window:
        """Validate and expand what a user passes; a padding *name* needs the (height, width) `size` it applies to.

        Raises ArgumentError for a stride, dilation or group count below 1, negative padding, or an unknown name.

        >>> Window.of(3, padding=1).padding
        ((1, 1), (1, 1))
        >>> Window.of((3, 2), stride=2, padding="SAME_UPPER", size=(7, 7)).padding
        ((1, 1), (0, 1))
        """
        kernel, stride, dilation = as_pair(kernel, "kernel", 1), as_pair(stride, "stride", 1), as_pair(dilation, "dilation", 1)
        groups = as_int(groups, "groups", 1)
        if isinstance(padding, str):
            if padding not in PADDING_NAMES:
                raise ArgumentError(f"`padding` (={padding!r}) must be an int, (h, w), ((top, bottom), (left, right)) "
                                    f"or one of {', '.join(PADDING_NAMES)}")
            if padding == "VALID":
                padding = 0
            elif size is None:
                raise ArgumentError(f"`padding` (={padding!r}) depends on the input size, which is not known here; pass numbers")
            else:
                padding = tuple(same_padding(*axis, padding) for axis in zip(size, kernel, stride, dilation, strict=True))
        sides = as_sides(padding)
        _check_limit("kernel", [extent(k, 1) for k in kernel])
        _check_limit("stride", stride)
        _check_limit("padding", [*sides[0], *sides[1]])
        _check_limit("dilation", [max(d, extent(k, d)) for k, d in zip(kernel, dilation, strict=True)])
        return cls(kernel, stride, sides, dilation, groups)

    def output_size(self, size: Pair) -> Pair:
        """(height, width) of the output for an input of (height, width) `size`; a side is 0 where no window fits."""
        h, w = (output_length(*axis) for axis in zip(size, self.kernel, self.stride, self.padding, self.dilation, strict=True))
        return h, w

    def checked_output_size(self, size: Pair) -> Pair:
        """`output_size`, or ShapeError where the output would be empty."""
        out = self.output_size(size)
        if 0 in out:
            axis = out.index(0)
            before, after = self.padding[axis]
            raise ShapeError(
                f"no window fits: `{'height' if axis == 0 else 'width'}` (={size[axis]}) plus padding {before}+{after} must be at least "
                f"the kernel's extent {extent(self.kernel[axis], self.dilation[axis])} "
                f"(kernel {self.kernel[axis]}, dilation {self.dilation[axis]}); pad more or use a smaller kernel")
        return out

    def transposed_size(self, size: Pair, output_padding: Pair = (0, 0)) -> Pair:
        """(height, width) of a transposed convolution's output: (size-1)*stride - padding + extent + output_padding."""
        h, w = ((n - 1) * s - sum(p) + extent(k, d) + more for n, k, s, p, d, more in
                zip(size, self.kernel, self.stride, self.padding, self.dilation, output_padding, strict=True))
        return h, w
