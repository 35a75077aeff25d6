"""Sums, scales, concatenation and splitting as linear steps."""

from __future__ import annotations

import numpy as np

from npreparam._errors import FusionError
from npreparam.checkpoints._dtypes import Array
from npreparam.checkpoints.graph._node import Context, Node, Step
from npreparam.exact.rounding import as_fractions
from npreparam.fuse import AffineConv, identity, linear, pointwise, select
from npreparam.fuse.scalars import UNROUNDED, Scalars


def per_channel(value: Array, channels: int, rank: int) -> Array:
    """A constant that is added to or multiplied with (N, C, ...) as one number for each channel. Raises FusionError where it is not."""
    shape = (1,) * (rank + 2 - value.ndim) + value.shape
    if len(shape) != rank + 2 or any(n != 1 for i, n in enumerate(shape) if i != 1):
        raise FusionError(f"its constant of shape {value.shape} depends on the position", "only constants for each channel are fused")
    if shape[1] not in (1, channels):
        raise FusionError(f"its constant of shape {value.shape} repeats {channels} channels", "keep it as it is")
    return np.broadcast_to(value.reshape(-1), channels)


def total(node: Node) -> Step:
    """Add, Sum, Sub and Neg of computed tensors and constants."""
    signs = [-1.0 if node.op == "Neg" or (node.op == "Sub" and i) else 1.0 for i in range(len(node.inputs))]
    terms = list(zip(node.inputs, signs, strict=True))
    data = [(name, sign) for name, sign in terms if name in node.data]
    constants = [sign * _numbers(node, i) for i, (name, sign) in enumerate(terms) if name not in node.data]
    if not data:
        raise FusionError("it adds constants alone", "fold constants first")

    def read(context: Context) -> list[list[AffineConv]]:
        maps = []
        for i, ((_, sign), channels) in enumerate(zip(data, context.channels, strict=True)):
            shifts = [context.scalars.numbers(per_channel(value, channels, context.rank)) for value in constants] if not i else []
            maps.append(pointwise(context.scalars.numbers(np.full(channels, sign)), np.sum(shifts, 0) if shifts else None, len(shifts)))
        return [maps]

    def evaluate(*xs: Array) -> list[Array]:
        return [sum(sign * x for (_, sign), x in zip(data, xs, strict=True)) + sum(constants)]

    return Step(node.index, node.op, tuple(name for name, _ in data), tuple(node.proto.output), read, evaluate,
                numbers=sum(value.size for value in constants), roundings=len(terms))


def scale(node: Node) -> Step:
    """Mul and Div by a constant."""
    if len(node.data) != 1 or len(node.inputs) != 2 or (node.op == "Div" and node.data != node.inputs[:1]):
        raise FusionError("two computed tensors are multiplied, or a constant is divided", "keep it as it is")
    value, divided = _numbers(node, node.inputs.index(node.data[0]) ^ 1), node.op == "Div"
    if divided and not value.all():
        raise FusionError("it divides by zero", "keep it as it is")

    def read(context: Context) -> list[list[AffineConv]]:
        numbers = per_channel(value, context.channels[0], context.rank)
        return [[pointwise(_reciprocals(numbers, context.scalars) if divided else context.scalars.numbers(numbers), roundings=int(divided))]]

    return Step(node.index, node.op, node.data, tuple(node.proto.output), read, lambda x: [x / value if divided else x * value],
                numbers=value.size)


def _numbers(node: Node, i: int) -> Array:
    value = node.constant(i)
    numbers = np.zeros(0) if value is None else value
    if numbers.dtype.kind not in "fV" and numbers.dtype.name != "bfloat16":  # ml_dtypes' kind
        raise FusionError(f"its constant is of {numbers.dtype}", "only floats are fused")
    numbers = numbers.astype(np.float64)
    if not numbers.size or not np.isfinite(numbers).all():
        raise FusionError("its constant is empty or not finite", "keep it as it is")
    return numbers


def _reciprocals(numbers: Array, scalars: Scalars) -> Array:
    """1/numbers of a kind."""
    if scalars not in UNROUNDED:
        return scalars.numbers(1 / numbers)
    exact = np.empty(len(numbers), object)
    exact[:] = [scalars.fraction(1 / number) for number in as_fractions(numbers, "numbers")]
    return exact


def same(node: Node) -> Step:
    """Identity, and Dropout in evaluation mode."""
    if node.op == "Dropout":
        old = node.graph.version < 7
        training = node.constant(2) if node.graph.version >= 12 else None
        if (training is not None and training.any()) or (old and not node.values.get("is_test", 0)):
            raise FusionError("it drops elements, in training mode", "export the network in evaluation mode")
        if any(name in node.graph.outputs or node.graph.readers.get(name) for name in node.proto.output[1:]):
            raise FusionError("its mask is used", "keep it as it is")
    return Step(node.index, node.op, node.one_input(), tuple(node.proto.output[:1]), lambda c: [[identity(c.channels[0])]], lambda x: [x])


def concatenation(node: Node) -> Step:
    """Concat of channels."""
    if node.data != node.inputs:
        raise FusionError("it concatenates constants", "keep it as it is")
    axis = node.values.get("axis", 1)

    def read(context: Context) -> list[list[AffineConv]]:
        if axis not in (1, -1 - context.rank):
            raise FusionError(f"it concatenates along axis {axis}, not the channels", "keep it as it is")
        ends = np.cumsum(context.channels)
        return [[linear(np.eye(int(ends[-1]))[:, end - n:end]) for end, n in zip(ends, context.channels, strict=True)]]

    return Step(node.index, node.op, node.data, tuple(node.proto.output), read, lambda *xs: [np.concatenate(xs, 1)], roundings=0)


def split(node: Node) -> Step:
    """Split of channels."""
    data, outputs = node.one_input(), tuple(node.proto.output)
    axis, version = node.values.get("axis", 0), node.graph.version
    given = node.constant(1) if version >= 13 else node.values.get("split")
    if axis != 1 or not all(outputs):
        raise FusionError(f"it splits along axis {axis}, or not everything is used", "keep it as it is")

    def parts(channels: int) -> list[list[int]]:
        sizes = [-(-channels // len(outputs))] * len(outputs) if given is None else [int(n) for n in given]
        sizes[-1] = channels - sum(sizes[:-1]) if given is None else sizes[-1]
        if len(sizes) != len(outputs) or sum(sizes) != channels or min(sizes) < 1:
            raise node.malformed(f"it splits {channels} channels into {sizes} for {len(outputs)} outputs")
        ends = np.cumsum(sizes).tolist()
        return [list(range(end - n, end)) for end, n in zip(ends, sizes, strict=True)]

    return Step(node.index, node.op, data, outputs, lambda c: [[select(c.channels[0], part)] for part in parts(c.channels[0])],
                lambda x: [x[:, part] for part in parts(x.shape[1])], roundings=0)


def channel_slice(node: Node) -> Step:
    """Slice of channels alone."""
    data, rank = node.one_input(), len(node.graph.shapes.get(node.inputs[0], ())) - 2
    starts, ends, axes, steps = _bounds(node)
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise node.malformed(f"its starts {starts}, ends {ends}, axes {axes} and steps {steps} do not belong together")
    if rank < 0 or any((axis if axis >= 0 else axis + rank + 2) != 1 for axis in axes) or len(axes) != 1:
        raise FusionError(f"it slices along the axes {axes}, not the channels alone", "keep it as it is")
    taken = slice(starts[0], ends[0], steps[0])

    def read(context: Context) -> list[list[AffineConv]]:
        channels = context.channels[0]
        if not range(channels)[taken]:
            raise FusionError(f"it takes none of {channels} channels", "keep it as it is")
        return [[select(channels, range(channels)[taken])]]

    return Step(node.index, node.op, data, tuple(node.proto.output), read, lambda x: [x[:, taken]], roundings=0)


def _bounds(node: Node) -> list[list[int]]:
    """Starts, ends, axes and steps, which were attributes once."""
    if node.graph.version < 10:
        found = [node.values.get(name) for name in ("starts", "ends", "axes")] + [None]
    else:
        found = [node.constant(i) for i in range(1, 5)]
    if found[0] is None or found[1] is None:
        raise node.malformed("it has no starts or no ends")
    given = [None if each is None else [int(n) for n in np.ravel(each)] for each in found]
    count = len(given[0] or ())
    return [given[0] or [], given[1] or [], list(range(count)) if given[2] is None else given[2], [1] * count if given[3] is None else given[3]]
