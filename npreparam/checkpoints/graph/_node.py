"""One node of a graph: its attributes, its constants, and what it is as a linear step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from npreparam._errors import FormatError, FusionError
from npreparam.checkpoints import _onnx
from npreparam.checkpoints._dtypes import Array
from npreparam.checkpoints.graph._model import Graph
from npreparam.fuse import AffineConv
from npreparam.fuse.scalars import Scalars

LONGEST = 2**12  # padding, stride or dilation of a layer that is worth fusing
Lengths = tuple[int, ...]
Sides = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Context:
    """How a step is read: over which scalars, the channels of each input, the number of axes, and which of its outputs matter."""

    scalars: Scalars
    channels: tuple[int, ...]
    rank: int
    rows: Array | None = None  # None for all; others may be left out


@dataclass(frozen=True, eq=False)
class Step:
    """A node as an affine map: each of `outputs` is the sum over `inputs` of the maps that `read` gives, one row for each output.

    `evaluate` computes it in float64 from arrays (N, C, ...), without those maps. `channels` and `rank` are those of its input where the node
    tells them, else 0; `kernel` is the shape of a convolution's weight, `numbers` the number of its parameters; `roundings` lie behind a number
    that `evaluate` has made.
    """

    index: int
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    read: Callable[[Context], list[list[AffineConv]]]
    evaluate: Callable[..., list[Array]]
    channels: int = 0
    rank: int = 0
    kernel: Lengths = ()
    numbers: int = 0
    dtype: Any = None
    roundings: int = 8
    growth: tuple[int, int] = (1, 0)  # an axis of n becomes at most growth[0]*n + growth[1] long
    factors: int = 1  # so many of its parameters are multiplied in one product


class Node:
    """A NodeProto with its attributes by name and its constants at hand."""

    def __init__(self, graph: Graph, index: int) -> None:
        self.graph, self.index, self.proto = graph, index, graph.nodes[index]
        self.op, self.inputs = self.proto.op_type, tuple(self.proto.input)
        self.values = {attribute.name: _onnx.package().helper.get_attribute_value(attribute) for attribute in self.proto.attribute}
        self.data = tuple(name for name in self.inputs if name and name not in graph.constants)

    def malformed(self, what: str) -> FormatError:
        """The error for a node that no reading makes sense of."""
        return FormatError(f"node {self.graph.label(self.index)[:80]!r} ({self.op}): {what}")

    def text(self, name: str, default: str) -> str:
        """An attribute that is text."""
        value = self.values.get(name, default)
        return value.decode(errors="replace") if isinstance(value, bytes) else str(value)

    def lengths(self, name: str, count: int, default: int) -> Lengths:
        """An attribute with a number for each axis."""
        value = tuple(self.values.get(name, (default,) * count))
        if len(value) != count:
            raise self.malformed(f"`{name}` (={list(value)}) must have {count} entries")
        if max(value) > LONGEST:
            raise FusionError(f"`{name}` (={list(value)}) is larger than {LONGEST}", "keep it as it is")
        return value

    def has(self, i: int) -> bool:
        """Whether the i-th input is given."""
        return i < len(self.inputs) and self.inputs[i] != ""

    def constant(self, i: int) -> Array | None:
        """The i-th input, None where it is left out. Raises FusionError where it is computed."""
        if not self.has(i):
            return None
        if self.inputs[i] not in self.graph.constants:
            raise FusionError(f"its input {self.inputs[i][:80]} is computed, not a constant", "only constant parameters are fused")
        return self.graph.constants[self.inputs[i]]

    def parameter(self, i: int) -> Array | None:
        """A constant of finite floating-point numbers."""
        value = self.constant(i)
        if value is None:
            return None
        try:
            with np.errstate(invalid="ignore"):  # of signalling NaN, refused below
                numbers = value.astype(np.float64)
        except (TypeError, ValueError):
            raise self.malformed(f"{self.inputs[i][:80]} holds no numbers") from None
        if not np.isfinite(numbers).all():
            raise self.malformed(f"{self.inputs[i][:80]} holds a number that is not finite")
        return numbers

    def one_input(self) -> tuple[str, ...]:
        """The only computed input, which must be the first."""
        if self.data != self.inputs[:1]:
            raise FusionError("its first input is constant, or others are computed", "only constant parameters are fused")
        return self.data


def windows(node: Node, lengths: Lengths) -> tuple[Lengths, Sides, Lengths]:
    """(stride, padding, dilation) of a window of these lengths. Raises FusionError where they depend on the size of the input."""
    rank = len(lengths)
    stride, dilation = node.lengths("strides", rank, 1), node.lengths("dilations", rank, 1)
    pads, auto = node.lengths("pads", 2 * rank, 0), node.text("auto_pad", "NOTSET")
    if min((*stride, *dilation, *lengths)) < 1:
        raise node.malformed("strides, dilations and kernel lengths must be positive")
    if auto in ("NOTSET", ""):
        if min(pads) < 0:
            raise FusionError("its padding is negative", "crop with a Pad or Slice in front of it")
        return stride, tuple(zip(pads[:rank], pads[rank:], strict=True)), dilation
    if auto == "VALID":
        return stride, ((0, 0),) * rank, dilation
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        raise node.malformed(f"`auto_pad` (={auto[:40]}) must be NOTSET, VALID, SAME_UPPER or SAME_LOWER")
    if max(stride) > 1:
        raise FusionError(f"its padding, {auto} of a stride, depends on the size of the input", "export it with explicit pads")
    totals = [d * (k - 1) for d, k in zip(dilation, lengths, strict=True)]
    return stride, tuple((t // 2, t - t // 2) if auto == "SAME_UPPER" else (t - t // 2, t // 2) for t in totals), dilation
