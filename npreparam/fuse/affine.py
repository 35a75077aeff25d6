"""The value type of the branch algebra: an affine map that commutes with shifts, as taps with integer offsets.

    out(i) = bias + sum over taps t of K_t x[stride*i + offset_t]        offset = dilation*k - padding

Padding, dilation, even, asymmetric, causal and cropped kernels are only other offsets. The length of an axis follows one rule,

    output = floor((n + slack) / stride) + 1                             slack = before + after - dilation*(kernel - 1) - 1

and beyond its borders x continues with the constant `outside`, 0 for the padding of a convolution. There may be any number of axes: two for
images, one for signals, none for a linear layer. A map without axes is pointwise and acts on any number of them.

The numbers are float64, or an object array of Fractions or other exact scalars; the same code computes with all of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import reduce
from typing import Any

import numpy as np

from npreparam._errors import ArgumentError, ShapeError
from npreparam._shapes import as_int
from npreparam.fuse.rational import Array, fractions_over, is_rational, over_common_denominator, summed_products

Offset = tuple[int, ...]
AXES = {1: ("length",), 2: ("height", "width")}


@dataclass(frozen=True, eq=False, slots=True)
class AffineConv:
    """An affine shift-equivariant map (see above); `transposed` marks the adjoint y[stride*i + offset_t] += K_t x[i] of a strided one.

    `taps` are the offsets, one integer for each axis; `blocks` (taps, O, I/groups) their matrices, block-diagonal in `groups` as OIHW weights
    are; `bias` (O,); `outside` (I,). `roundings` is how many roundings at most lie behind a number that float64 arithmetic has made.

    >>> conv = AffineConv(((-1,), (0,)), np.array([[[2.0]], [[3.0]]]), np.zeros(1), (1,), (0,), np.zeros(1))
    >>> conv.rank, conv.outputs
    (1, 1)
    """

    taps: tuple[Offset, ...]
    blocks: Array
    bias: Array
    stride: Offset
    slack: Offset
    outside: Array
    groups: int = 1
    transposed: bool = False
    roundings: int = 0

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.stride)

    @property
    def outputs(self) -> int:
        """Number of output channels."""
        return len(self.bias)

    @property
    def inputs(self) -> int:
        """Number of input channels."""
        return len(self.outside)

    @property
    def is_pointwise(self) -> bool:
        """Whether each output element depends on the input element at its own place alone."""
        return not any((*itertools.chain(*self.taps), *(s - 1 for s in self.stride), *(c + 1 for c in self.slack))) and len(self.taps) == 1

    @property
    def is_depthwise(self) -> bool:
        """Whether each output channel depends on the input channel of its number alone."""
        return self.groups == self.outputs == self.inputs

    @property
    def is_diagonal(self) -> bool:
        """Whether it is one scale and shift for each channel."""
        return self.is_pointwise and self.is_depthwise

    def span(self, axis: int) -> tuple[int, int]:
        """Least and greatest offset on an axis."""
        offsets = [tap[axis] for tap in self.taps]
        return min(offsets), max(offsets)

    def output_size(self, size: Sequence[int]) -> Offset:
        """Lengths of the output's axes."""
        if self.transposed:
            return tuple((n - 1) * s + c for n, s, c in zip(size, self.stride, self.slack, strict=True))
        return tuple(max(0, (n + c) // s + 1) for n, s, c in zip(size, self.stride, self.slack, strict=True))

    def lifted(self, rank: int) -> AffineConv:
        """A pointwise map with another number of axes."""
        if self.rank == rank:
            return self
        if self.rank:
            raise ShapeError(f"a map over {self.rank} axes cannot act on {rank}; only pointwise maps act on any number of axes")
        return replace(self, taps=((0,) * rank,), stride=(1,) * rank, slack=(-1,) * rank)

    def padded_with(self, constant: Array) -> AffineConv:
        """The same map of an input that continues with `constant` (I,) beyond its borders, as DBB and ECB pad."""
        constant = np.asarray(constant)
        if constant.shape != (self.inputs,):
            raise ShapeError(f"`constant` has shape {constant.shape}, but must have shape ({self.inputs},), one value for each input channel")
        return replace(self, outside=constant)


def per_axis(value: Any, rank: int, name: str) -> tuple[Any, ...]:
    """`value` for each axis; a number stands for all of them."""
    if not isinstance(value, Sequence):
        return (value,) * rank
    if len(value) != rank:
        raise ArgumentError(f"`{name}` (={value!r}) must be an int or have one entry for each of the {rank} axes")
    return tuple(value)


def from_conv(w: Array, b: Array | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1) -> AffineConv:
    """A convolution as an `AffineConv`.

    w is (O, I/groups, one length for each axis), b (O,); padding an int, one for each axis, or (before, after) for each axis; a negative one
    crops. The numbers keep their scalars; float arrays become float64, without rounding.

    Raises ShapeError, ArgumentError.

    >>> from_conv(np.ones((1, 1, 3)), padding=1).taps
    ((-1,), (0,), (1,))
    """
    w = as_scalars(w)
    if w.ndim < 2 or not w.size:
        raise ShapeError(f"`w` has shape {w.shape}, but must be (out_channels, in_channels / groups, a positive length for each axis)")
    rank, outputs, groups = w.ndim - 2, w.shape[0], as_int(groups, "groups", 1)
    if outputs % groups:
        raise ShapeError(f"`out_channels` (={outputs}, axis 0 of `w`) must be divisible by `groups` (={groups})")
    bias = zeros(outputs, w) if b is None else as_scalars(b)
    if bias.shape != (outputs,):
        raise ShapeError(f"`b` has shape {bias.shape}, but must have shape ({outputs},): one value for each output channel")
    strides = tuple(as_int(s, "stride", 1) for s in per_axis(stride, rank, "stride"))
    dilations = tuple(as_int(d, "dilation", 1) for d in per_axis(dilation, rank, "dilation"))
    sides = tuple(per_axis(p, 2, "padding") for p in per_axis(padding, rank, "padding"))
    taps = tuple(itertools.product(*([d * k - before for k in range(length)]
                                     for d, (before, _), length in zip(dilations, sides, w.shape[2:], strict=True))))
    slack = tuple(before + after - d * (length - 1) - 1 for d, (before, after), length in zip(dilations, sides, w.shape[2:], strict=True))
    blocks = np.moveaxis(w.reshape(outputs, w.shape[1], -1), -1, 0)
    return AffineConv(taps, blocks, bias, strides, slack, zeros(w.shape[1] * groups, w), groups)


def from_conv_transpose(w: Array, b: Array | None = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0, dilation: Any = 1,
                        groups: int = 1) -> AffineConv:
    """A transposed convolution, the adjoint of a convolution; of stride 1 it is a convolution with the taps mirrored.

    w is (I, O/groups, one length for each axis). Raises as `from_conv`.

    >>> from_conv_transpose(np.ones((1, 1, 3)), padding=1).taps
    ((1,), (0,), (-1,))
    """
    adjoint = from_conv(w, None, stride, padding, dilation, groups)
    count, inputs, per_group = adjoint.blocks.shape
    parts = adjoint.blocks.reshape(count, groups, inputs // groups, per_group).swapaxes(2, 3)
    blocks = parts.reshape(count, groups * per_group, inputs // groups)
    bias = zeros(len(blocks[0]), w) if b is None else as_scalars(b)
    more = per_axis(output_padding, adjoint.rank, "output_padding")
    # n outputs of the convolution came from (n - 1)*stride - slack elements, and as many as output_padding says beside
    lengths = tuple(m - c for m, c in zip(more, adjoint.slack, strict=True))
    taps, slack = adjoint.taps, lengths
    transposed = any(s > 1 for s in adjoint.stride)
    if not transposed:
        taps, slack = tuple(tuple(-o for o in tap) for tap in taps), tuple(c - 2 for c in lengths)
    return AffineConv(taps, blocks, bias, adjoint.stride, slack, zeros(inputs, w), groups, transposed)


def pointwise(scale: Array, shift: Array | None = None, roundings: int = 0) -> AffineConv:
    """scale*x + shift for each channel: batch norm in evaluation mode, layer scale, and with a scale of ones a shift.

    >>> pointwise(np.array([2.0]), np.array([1.0])).bias
    array([1.])
    """
    scale = as_scalars(scale)
    channels = len(scale)
    shift = zeros(channels, scale) if shift is None else as_scalars(shift)
    return AffineConv(((),), scale.reshape(1, channels, 1), shift, (), (), zeros(channels, scale), channels, roundings=roundings)


def identity(channels: int) -> AffineConv:
    """x itself.

    >>> identity(2).taps, identity(2).groups
    (((),), 2)
    """
    return pointwise(np.ones(as_int(channels, "channels", 1)))


def linear(w: Array, b: Array | None = None) -> AffineConv:
    """w @ x + b at every place; w is (O, I).

    >>> linear(np.array([[1.0, 2.0]]), np.array([3.0])).bias
    array([3.])
    """
    return from_conv(w, b)


def pad(channels: int, padding: Any, rank: int = 2) -> AffineConv:
    """Zeros around the input, (before, after) on each axis; with `padded_with`, a constant.

    >>> padded = pad(1, 1)
    >>> padded.output_size((3, 3))
    (5, 5)
    """
    return from_conv(np.ones((as_int(channels, "channels", 1), 1, *(1,) * rank)), None, 1, padding, 1, channels)


def filters(kernel: Array, channels: int, stride: Any = 1, padding: Any = 0) -> AffineConv:
    """One kernel for every channel by itself: Sobel, Laplace, box.

    >>> sobel = filters(np.array([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]]), channels=3)
    >>> len(sobel.taps), sobel.groups
    (9, 3)
    """
    kernel = as_scalars(kernel)
    return from_conv(np.broadcast_to(kernel, (channels, 1, *kernel.shape)), None, stride, padding, 1, channels)


def average_pool(channels: int, kernel: Sequence[int], stride: Any = None, padding: Any = 0, exact: bool = False) -> AffineConv:
    """Average pooling that counts its padding: a box of 1/size, as a Fraction where `exact`.

    >>> average_pool(1, (2, 2), exact=True).blocks.ravel().tolist()
    [Fraction(1, 4), Fraction(1, 4), Fraction(1, 4), Fraction(1, 4)]
    """
    size = int(np.prod(kernel))
    box = np.full(kernel, Fraction(1, size) if exact else 1 / size)
    return replace(filters(box, channels, tuple(kernel) if stride is None else stride, padding), roundings=0 if exact else 1)


def select(channels: int, chosen: Sequence[int]) -> AffineConv:
    """Some of the channels, in any order: slices, splits and permutations.

    >>> chosen = select(3, [2, 0])
    >>> chosen.inputs, chosen.outputs
    (3, 2)
    """
    chosen = [as_int(c, "chosen", 0) for c in chosen]
    if max(chosen, default=channels) >= channels:
        raise ArgumentError(f"`chosen` (={chosen!r}) must name at least one of the {channels} channels, and none beyond")
    return linear(np.eye(channels)[chosen])


def shuffle(channels: int, groups: int) -> AffineConv:
    """ShuffleNet's channel shuffle: (groups, channels/groups) transposed.

    >>> from npreparam.fuse import regroup
    >>> (regroup(shuffle(4, 2), 1).blocks[0] @ np.arange(4)).tolist()
    [0.0, 2.0, 1.0, 3.0]
    """
    if as_int(channels, "channels", 1) % as_int(groups, "groups", 1):
        raise ShapeError(f"`channels` (={channels}) must be divisible by `groups` (={groups})")
    return select(channels, np.arange(channels).reshape(groups, -1).T.ravel().tolist())


def apply_to(conv: AffineConv, constant: Array) -> Array:
    """(sum of the taps' blocks) @ constant, group by group: what the map makes of an input that is the same everywhere, but for the bias."""
    blocks, below = over_common_denominator(conv.blocks) if is_rational(conv.blocks) else (conv.blocks, 0)
    total = reduce(np.add, blocks).reshape(1, conv.groups, conv.outputs // conv.groups, -1)
    if below:
        total = fractions_over(total, below)
    return summed_products(total, constant.reshape(1, conv.groups, -1, 1), [((), 0, 0)], np.matmul).reshape(-1)


def as_scalars(values: Any) -> Array:
    """An array of float64, or the object array that it is."""
    values = np.asarray(values)
    return values if values.dtype == object else values.astype(np.float64, copy=False)


def zeros(shape: int | Sequence[int], like: Array) -> Array:
    """Zeros of the kind of scalar that an array holds."""
    return np.zeros(shape, object if np.asarray(like).dtype == object else np.float64)


def axis_name(conv: AffineConv, axis: int) -> str:
    """What an axis is called."""
    return AXES.get(conv.rank, [f"axis {axis}"] * conv.rank)[axis]
