"""Operators that only move elements, of any dtype: reshape, transpose, concatenate, cut, pad."""

from __future__ import annotations

import math

import numpy as np

from npreparam import ops
from npreparam._errors import ArgumentError
from npreparam.conformance.onnx_backend.node import Array, Node, rearranged


def _reshaped(x: Array, shape: tuple[int, ...] | list[int]) -> Array:
    return rearranged(lambda places: ops.reshape(places, shape), x)


def constant(node: Node) -> Array:
    """Constant."""
    kinds = {"value": None, "value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    name = next(iter(node.attributes), "")
    if name not in kinds:
        raise ArgumentError(f"Constant: attribute `{name}` is not supported; supported are {', '.join(kinds)}")
    return np.asarray(node.get(name), kinds[name])


def identity(node: Node) -> Array:
    """Identity."""
    return node.input(0)


def reshape(node: Node) -> Array:
    """Reshape: 0 stands for the input's own length, -1 for the rest."""
    x, shape = node.input(0), node.numbers(1, "shape")
    if not node.get("allowzero", 0):
        shape = [x.shape[i] if n == 0 else n for i, n in enumerate(shape)]
    return _reshaped(x, shape)


def flatten(node: Node) -> Array:
    """Flatten."""
    x = node.input(0)
    axis = range(x.ndim + 1)[node.get("axis", 1) + (x.ndim if node.get("axis", 1) < 0 else 0)]
    return _reshaped(x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


def squeeze(node: Node) -> Array:
    """Squeeze."""
    x = node.input(0)
    axes = node.numbers(1, "axes")
    gone = [i for i, n in enumerate(x.shape) if n == 1] if axes is None else [i % x.ndim for i in axes]
    return _reshaped(x, [n for i, n in enumerate(x.shape) if i not in gone])


def unsqueeze(node: Node) -> Array:
    """Unsqueeze."""
    x, axes = node.input(0), node.numbers(1, "axes")
    rank = x.ndim + len(axes)
    new, lengths = {i % rank for i in axes}, iter(x.shape)
    return _reshaped(x, [1 if i in new else next(lengths) for i in range(rank)])


def transpose(node: Node) -> Array:
    """Transpose."""
    return rearranged(lambda places: ops.transpose(places, node.get("perm")), node.input(0))


def expand(node: Node) -> Array:
    """Expand: broadcasting in both directions."""
    x = node.input(0)
    shape = np.broadcast_shapes(x.shape, tuple(int(n) for n in node.input(1)))
    return rearranged(lambda places: ops.broadcast_to(places, shape), x)


def concat(node: Node) -> Array:
    """Concat."""
    axis = node.get("axis", 1)
    x = np.concatenate([array.ravel() for array in node.inputs])
    starts = np.cumsum([0] + [array.size for array in node.inputs])
    places = [(np.arange(array.size) + start + 1.0).reshape(array.shape) for array, start in zip(node.inputs, starts, strict=False)]
    return rearranged(lambda _: ops.concat(places, axis), x)


def split(node: Node) -> tuple[Array, ...]:
    """Split: into the given lengths, or into equal parts of which the last may be shorter."""
    x, axis = node.input(0), node.get("axis", 0)
    length, parts = x.shape[axis], node.get("num_outputs", node.outputs)
    lengths = node.numbers(1, "split") or [min(-(-length // parts), length - i * -(-length // parts)) for i in range(parts)]
    stops = np.cumsum(lengths)
    index: list[slice] = [slice(None)] * x.ndim
    pieces = []
    for n, stop in zip(lengths, stops, strict=True):
        index[axis] = slice(int(stop) - n, int(stop))
        pieces.append(rearranged(lambda places, at=tuple(index): ops.getitem(places, at), x))
    return tuple(pieces)


def cut(node: Node) -> Array:
    """Slice."""
    x, starts, ends = node.input(0), node.numbers(1, "starts"), node.numbers(2, "ends")
    axes = node.numbers(3, "axes", range(len(starts)))
    steps = node.numbers(4, "steps", [1] * len(starts))
    index: list[slice] = [slice(None)] * x.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        n = x.shape[axis]
        low, high = (0, n) if step > 0 else (-1, n - 1)  # where a walk may end; unlike NumPy's, it begins within the array in any case
        first, last = (min(max(i + n if i < 0 else i, least), high) for i, least in ((start, 0), (end, low)))
        index[axis] = slice(first, None if last < 0 else last, step)
    return rearranged(lambda places: ops.getitem(places, tuple(index)), x)


def pad(node: Node) -> Array:
    """Pad with a constant; negative widths cut."""
    node.refuse("mode", "constant")
    x = node.input(0)
    pads, fill = node.numbers(1, "pads", node.get("paddings")), node.input(2, node.get("value", 0))
    axes = [i % x.ndim for i in node.numbers(3, "axes", range(x.ndim))]
    widths = [(0, 0)] * x.ndim
    for axis, before, after in zip(axes, pads[: len(axes)], pads[len(axes):], strict=True):
        widths[axis] = before, after
    kept = tuple(slice(max(0, -before), n - max(0, -after)) for n, (before, after) in zip(x.shape, widths, strict=True))
    around = [(max(0, before), max(0, after)) for before, after in widths]
    return rearranged(lambda places: ops.pad(ops.getitem(places, kept), around), x, np.ravel(fill)[0])
