"""Convolutions, batch norm, average pooling and padding as linear steps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from npreparam import ops
from npreparam._errors import ArgumentError, FusionError
from npreparam.checkpoints._dtypes import Array
from npreparam.checkpoints._evaluate import flat
from npreparam.checkpoints.graph._node import LONGEST, Context, Lengths, Node, Sides, Step, windows
from npreparam.fuse import AffineConv, average_pool, from_conv, from_conv_transpose, pad, pointwise
from npreparam.fuse.conv_bn import scale_and_shift
from npreparam.fuse.scalars import BATCH_NORM_ROUNDINGS, UNROUNDED

MOST_POOLED = 2**12


def convolution(node: Node) -> Step:
    """Conv and ConvTranspose with constant weights."""
    data, weight, bias = node.one_input(), node.parameter(1), node.parameter(2)
    if weight is None or weight.ndim < 3 or not weight.size:
        raise node.malformed("its weight must be (out, in / groups, a length for each axis)")
    lengths, rank = weight.shape[2:], weight.ndim - 2
    if node.lengths("kernel_shape", rank, 0) not in (lengths, (0,) * rank):
        raise node.malformed(f"`kernel_shape` (={list(node.values['kernel_shape'])}) is not that of its weight {weight.shape}")
    geometry = dict(zip(("stride", "padding", "dilation"), windows(node, lengths), strict=True)) | {"groups": node.values.get("group", 1)}
    transposed = node.op == "ConvTranspose"
    if transposed:
        geometry["output_padding"] = _output_padding(node, geometry["stride"])
    make = from_conv_transpose if transposed else from_conv
    try:
        outputs, inputs = (made := make(weight, bias, **geometry)).outputs, made.inputs
    except ArgumentError as error:
        raise node.malformed(str(error)) from None
    if outputs < 1:
        raise node.malformed("it has no output channels")

    def read(context: Context) -> list[list[AffineConv]]:
        numbers, shift, rows = weight, bias, context.rows
        if rows is not None and not transposed and geometry["groups"] == 1:
            numbers, shift = weight[rows], None if bias is None else bias[rows]
        numbers = context.scalars.numbers(numbers)
        return [[make(numbers, None if shift is None else context.scalars.numbers(shift), **geometry)]]

    dtype = node.graph.constants[node.inputs[1]].dtype
    growth = (max(geometry["stride"]), max(d * k for d, k in zip(geometry["dilation"], lengths, strict=True))) if transposed else \
        (1, max(map(sum, geometry["padding"])))
    return Step(node.index, node.op, data, tuple(node.proto.output), read, lambda x: [convolved(x, weight, bias, geometry)], inputs, rank,
                weight.shape, weight.size + (0 if bias is None else bias.size), dtype, weight.size // min(weight.shape[:2]) + 2, growth)


def _output_padding(node: Node, stride: Lengths) -> Lengths:
    more = node.lengths("output_padding", len(stride), 0)
    if "output_shape" in node.values or node.text("auto_pad", "NOTSET") not in ("NOTSET", "VALID", ""):
        raise FusionError("its output's size is given instead of its padding", "export it with explicit pads")
    if any(not 0 <= m < max(s, 1) for m, s in zip(more, stride, strict=True)):
        raise FusionError(f"its output padding (={list(more)}) is not smaller than its stride", "keep it as it is")
    return more


def convolved(x: Array, weight: Array, bias: Array | None, geometry: dict[str, Any]) -> Array:
    """A convolution over one or two axes in float64."""
    missing = 4 - weight.ndim
    filler: dict[str, Any] = {"stride": 1, "padding": (0, 0), "dilation": 1, "output_padding": 0}
    more = {name: (*(filler[name],) * missing, *value) for name, value in geometry.items() if name != "groups"}
    operation = ops.conv_transpose2d if "output_padding" in geometry else ops.conv2d
    return _unlifted(operation(flat(x), flat(weight), bias, **more, groups=geometry["groups"]), missing)


def _unlifted(y: Array, missing: int) -> Array:
    """Without the axes of length 1 that `flat` has inserted."""
    return y.reshape(*y.shape[:2], *y.shape[2 + missing:])


def batch_norm(node: Node) -> Step:
    """BatchNormalization in evaluation mode."""
    data, old = node.one_input(), node.graph.version < 7
    if node.values.get("training_mode", 0) or (old and not node.values.get("is_test", 0)) or any(node.proto.output[1:]):
        raise FusionError("it is a batch norm in training mode", "export the network in evaluation mode")
    if not node.values.get("spatial", 1):
        raise FusionError("it normalizes each place by itself", "keep it as it is")
    gamma, beta, mean, var = (node.parameter(i) for i in range(1, 5))
    eps, channels = float(node.values.get("epsilon", 1e-5)), 0 if gamma is None else gamma.size
    bn = (gamma, beta, mean, var, eps)
    try:
        scale_and_shift(bn, channels, "the batch norm")  # type: ignore[arg-type]
    except (ArgumentError, TypeError) as error:
        raise node.malformed(str(error)) from None

    def evaluate(x: Array) -> list[Array]:
        g, b, m, v = (values.reshape(-1, *(1,) * (x.ndim - 2)) for values in (gamma, beta, mean, var))  # type: ignore[union-attr]
        return [(x - m) / np.sqrt(v + eps) * g + b]

    return Step(node.index, node.op, data, tuple(node.proto.output[:1]),
                lambda c: [[pointwise(*c.scalars.batch_norm(bn, channels), BATCH_NORM_ROUNDINGS)]],  # type: ignore[arg-type]
                evaluate, channels, numbers=4 * channels)


def pool(node: Node) -> Step:
    """AveragePool whose windows all count the same number of elements."""
    data = node.one_input()
    lengths = tuple(node.values.get("kernel_shape", ()))
    if not lengths:
        raise node.malformed("`kernel_shape` is missing")
    stride, padding, dilation = windows(node, lengths)
    if max(dilation) > 1 or np.prod(lengths) > MOST_POOLED:
        raise FusionError(f"it averages over a dilated window, or one of more than {MOST_POOLED} elements", "keep it as it is")
    padding, rank = _counted(node, lengths, stride, padding), len(lengths)

    def evaluate(x: Array) -> list[Array]:
        ones = (1,) * (2 - rank)
        return [_unlifted(ops.avg_pool2d(flat(_padded(x, padding)), (*ones, *lengths), (*ones, *stride)), 2 - rank)]

    return Step(node.index, node.op, data, tuple(node.proto.output),
                lambda c: [[average_pool(c.channels[0], lengths, stride, padding, exact=c.scalars in UNROUNDED)]], evaluate, rank=rank,
                roundings=int(np.prod(lengths)) + 2, growth=(1, max(map(sum, padding))))


def _counted(node: Node, lengths: Lengths, stride: Lengths, padding: Sides) -> Sides:
    """The padding with which every window counts all of its elements: as it stands, or none where the image is of a size that no window leaves.

    `ceil_mode` adds windows at the end, without `count_include_pad` windows over the padding count fewer elements: both are one box of 1/size
    only where the size of the image is known, and does not let it happen.
    """
    shape = node.graph.shapes.get(node.inputs[0], ())
    sizes = shape[2:] if len(shape) == len(lengths) + 2 else (None,) * len(lengths)
    included, ceil = bool(node.values.get("count_include_pad", 0)), bool(node.values.get("ceil_mode", 0))
    kept = []
    for n, k, s, (before, after) in zip(sizes, lengths, stride, padding, strict=True):
        if ceil and s > 1 and (n is None or (n + before + after - k) % s):
            raise FusionError("with ceil_mode it averages over what is left at the border"
                              + (", and the size of its input is open" if n is None else f" of an axis of {n}"), "export it without ceil_mode")
        if not included and (before or (after and (n is None or (n + after - k) // s != (n - k) // s))):
            raise FusionError("it averages without counting its padding", "count the padding (count_include_pad), or pad with 0 in front of it")
        kept.append((before, after) if included else (0, 0))
    return tuple(kept)


def padding(node: Node) -> Step:
    """Pad with a constant, or crop."""
    data = node.one_input()
    if node.text("mode", "constant") != "constant":
        raise FusionError(f"it pads by {node.text('mode', '')}", "pad with a constant")
    amounts, value = _amounts(node)
    half = len(amounts) // 2
    if len(amounts) % 2 or half < 3:
        raise FusionError("it does not pad images or signals", "keep it as it is")
    if any(amounts[i] for i in (0, 1, half, half + 1)):
        raise FusionError("it pads the channels or the batch", "keep it as it is")
    sides: Sides = tuple(zip(amounts[2:half], amounts[half + 2:], strict=True))
    if max(map(abs, amounts)) > LONGEST:
        raise FusionError(f"it pads or crops by more than {LONGEST}", "keep it as it is")

    def read(context: Context) -> list[list[AffineConv]]:
        made = pad(context.channels[0], sides, half - 2)
        number = context.scalars.numbers(np.array([value]))
        return [[replace(made, outside=np.repeat(number, context.channels[0])) if value else made]]

    return Step(node.index, node.op, data, tuple(node.proto.output), read, lambda x: [_padded(x, sides, value)], rank=half - 2,
                growth=(1, max(0, *map(sum, sides))))


def _amounts(node: Node) -> tuple[Lengths, float]:
    """The amounts before and after for all axes, and the constant."""
    if node.graph.version < 11:
        return tuple(node.values.get("pads", node.values.get("paddings", ()))), float(node.values.get("value", 0.0))
    amounts, value, axes = node.constant(1), node.parameter(2), node.constant(3)
    if amounts is None or axes is not None:
        raise FusionError("it pads chosen axes", "name the padding of all axes")
    if value is not None and value.size != 1:
        raise node.malformed("it pads with more than one constant")
    return tuple(int(n) for n in amounts.reshape(-1)), 0.0 if value is None else float(value.reshape(-1)[0])


def _padded(x: Array, sides: Sides, value: float = 0.0) -> Array:
    whole = (*((0, 0),) * (x.ndim - len(sides)), *sides)
    x = np.pad(x, [(max(a, 0), max(b, 0)) for a, b in whole], constant_values=value)
    return x[tuple(slice(max(-a, 0), n - max(-b, 0)) for (a, b), n in zip(whole, x.shape, strict=True))]
