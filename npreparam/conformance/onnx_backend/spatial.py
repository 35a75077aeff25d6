"""Convolution and pooling over one or two spatial axes: ONNX's attributes as the geometry of `ops`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from npreparam import ops
from npreparam._errors import ShapeError
from npreparam._shapes import extent, same_padding
from npreparam.conformance.onnx_backend.node import Array, Node, computed
from npreparam.ops.pool import take_maxima

SAME = ("SAME_UPPER", "SAME_LOWER")


@dataclass(frozen=True)
class Axis:
    """The geometry along one axis."""

    size: int
    kernel: int
    stride: int = 1
    before: int = 0
    after: int = 0
    dilation: int = 1

    def rounded_up(self) -> Axis:
        """As ceil_mode wants it: the end padded so that the last window, which must begin inside the image or the padding before it, fits."""
        stop = self.size + self.before
        windows = -(-(stop + self.after - extent(self.kernel, self.dilation)) // self.stride) + 1
        windows -= (windows - 1) * self.stride >= stop
        after = (windows - 1) * self.stride + extent(self.kernel, self.dilation) - stop
        return Axis(self.size, self.kernel, self.stride, self.before, max(after, self.after), self.dilation)


def planar(x: Array) -> Array:
    """(N, C, L) as (N, C, 1, L); NCHW stays. Raises ShapeError for any other rank."""
    if x.ndim not in (3, 4):
        raise ShapeError(f"the input has shape {x.shape}: this backend has one or two spatial axes")
    return x.reshape(*x.shape[:2], -1, x.shape[-1])


def axes_of(node: Node, sizes: tuple[int, ...], kernel: tuple[int, ...]) -> list[Axis]:
    """Two axes, height and width, from the attributes of Conv and the pools."""
    rank = len(sizes)
    strides, dilations = node.get("strides", [1] * rank), node.get("dilations", [1] * rank)
    pads, name = node.get("pads", [0] * 2 * rank), node.get("auto_pad", "NOTSET")
    axes = []
    for i, (size, k, s, d) in enumerate(zip(sizes, kernel, strides, dilations, strict=True)):
        sides = same_padding(size, k, s, d, name) if name in SAME else (pads[i], pads[i + rank]) if name == "NOTSET" else (0, 0)
        axes.append(Axis(size, k, s, *sides, d))
    return [Axis(1, 1)] * (2 - rank) + axes


def each(axes: list[Axis], name: str) -> tuple[int, ...]:
    """One number of both axes."""
    return tuple(getattr(axis, name) for axis in axes)


def sides(axes: list[Axis]) -> tuple[tuple[int, int], ...]:
    """((top, bottom), (left, right))."""
    return tuple((axis.before, axis.after) for axis in axes)


def _plane(y: Array, rank: int) -> Array:
    """Back to one spatial axis where the input had one."""
    return y if rank == 4 else y[:, :, 0]


def conv(node: Node) -> Array:
    """Conv."""
    x, w, b = node.input(0), node.input(1), node.input(2)
    axes = axes_of(node, x.shape[2:], w.shape[2:])
    y = computed(lambda x, w, b: ops.conv2d(planar(x), planar(w), b, each(axes, "stride"), sides(axes), each(axes, "dilation"),
                                            node.get("group", 1)), x, w, b)
    return _plane(y, x.ndim)


def _transposed(node: Node, axis: Axis, more: int, wanted: int | None) -> tuple[Axis, int]:
    """Padding and output padding of ConvTranspose along one axis, by its `output_shape` or `auto_pad`."""
    name = node.get("auto_pad", "NOTSET")
    if wanted is None and name in SAME:
        wanted = axis.size * axis.stride
    if wanted is None:
        return axis, more
    total = axis.stride * (axis.size - 1) + more + extent(axis.kernel, axis.dilation) - wanted
    small = max(0, total) // 2
    before, after = (small, max(0, total) - small) if name == "SAME_UPPER" else (max(0, total) - small, small)
    return Axis(axis.size, axis.kernel, axis.stride, before, after, axis.dilation), more + max(0, -total)


def conv_transpose(node: Node) -> Array:
    """ConvTranspose."""
    x, w, b = node.input(0), node.input(1), node.input(2)
    rank = x.ndim - 2
    leading = 2 - rank
    wanted = [None] * leading + list(node.get("output_shape", [None] * rank))[-rank:]
    more = [0] * leading + list(node.get("output_padding", [0] * rank))
    solved = [_transposed(node, *axis) for axis in zip(axes_of(node, x.shape[2:], w.shape[2:]), more, wanted, strict=True)]
    axes, extra = [axis for axis, _ in solved], tuple(rows for _, rows in solved)
    y = computed(lambda x, w, b: ops.conv_transpose2d(planar(x), planar(w), b, each(axes, "stride"), sides(axes), extra, each(axes, "dilation"),
                                                      node.get("group", 1)), x, w, b)
    return _plane(y, x.ndim)


def _pool_axes(node: Node, x: Array) -> list[Axis]:
    node.refuse("dilations", [1] * (x.ndim - 2))
    axes = axes_of(node, x.shape[2:], tuple(node.get("kernel_shape")))
    return [axis.rounded_up() for axis in axes] if node.get("ceil_mode", 0) else axes


def average_pool(node: Node) -> Array:
    """AveragePool; the padding that ceil_mode adds counts never."""
    x = node.input(0)
    axes = _pool_axes(node, x)

    def pooled(x: Array) -> Array:
        around = sides(axes)
        if node.get("count_include_pad", 0):
            declared = sides(axes_of(node, x.shape[2:], tuple(node.get("kernel_shape"))))
            x = ops.pad(planar(x), ((0, 0), (0, 0), *declared))
            around = tuple((0, axis.after - after) for axis, (_, after) in zip(axes, declared, strict=True))
        return ops.avg_pool2d(planar(x), each(axes, "kernel"), each(axes, "stride"), around, count_include_pad=False)

    return _plane(computed(pooled, x), x.ndim)


def max_pool(node: Node) -> tuple[Array, ...]:
    """MaxPool, and the places of the maxima, counted in row-major or column-major order."""
    x = node.input(0)
    axes = _pool_axes(node, x)
    geometry = each(axes, "kernel"), each(axes, "stride"), sides(axes)
    if x.dtype.kind in "iu":  # 8 bits, exact in float64
        y = ops.max_pool2d(planar(x).astype(np.float64), *geometry).astype(x.dtype)
    else:
        y = computed(lambda x: ops.max_pool2d(planar(x), *geometry), x)
    if node.outputs == 1:
        return (_plane(y, x.ndim),)
    order = planar(x).shape
    places = np.arange(x.size, dtype=np.float64).reshape(order)
    if node.get("storage_order", 0):
        places = np.swapaxes(places.reshape(*order[:2], order[3], order[2]), 2, 3)
    chosen = take_maxima(places, planar(x).astype(np.float64), *geometry)
    return _plane(y, x.ndim), _plane(chosen, x.ndim).astype(np.int64)


def global_average_pool(node: Node) -> Array:
    """GlobalAveragePool."""
    x = node.input(0)
    return computed(lambda x: ops.global_avg_pool(planar(x)), x).reshape(*x.shape[:2], *[1] * (x.ndim - 2))


def global_max_pool(node: Node) -> Array:
    """GlobalMaxPool."""
    x = node.input(0)
    return computed(lambda x: ops.max_pool2d(planar(x), planar(x).shape[2:]), x).reshape(*x.shape[:2], *[1] * (x.ndim - 2))


def column_to_image(node: Node) -> Array:
    """Col2Im."""
    x, size, block = node.input(0), tuple(map(int, node.input(1))), tuple(map(int, node.input(2)))
    axes = axes_of(node, size, block)
    shape = (len(x), x.shape[1] // math.prod(block), *each(axes, "size"))
    y = computed(lambda x: ops.col2im(x, shape, each(axes, "kernel"), each(axes, "stride"), sides(axes), each(axes, "dilation")), x)
    return y.reshape(*shape[:2], *size)
