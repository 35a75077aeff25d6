"""Validation of convolutions and products: the shapes of all operands against each other, before any kernel sees raw memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from npreparam._errors import ArgumentError, ShapeError
from npreparam._shapes import LIMIT, Pair, Size2, Window, as_int, as_pair, extent
from npreparam.ops._validate import Array, check_rank, check_shape

NCHW, OIHW = "(batch, channels, height, width)", "(output channels, input channels / groups, kernel height, kernel width)"


def convolution_window(w_shape: Sequence[int], size: Pair, geometry: Sequence[Any]) -> Window:
    """The window of a convolution with weights of `w_shape` over an input of (height, width) `size`; geometry as the door has it."""
    stride, padding, dilation, groups = geometry
    outputs, _, kh, kw = w_shape
    window = Window.of((kh, kw), stride, padding, dilation, groups, size=size)
    if outputs % window.groups:
        raise ShapeError(f"`out_channels` (={outputs}, axis 0 of `w`) must be divisible by `groups` (={window.groups})")
    return window


def _checked(channels: int, name: str, size: Pair, w_shape: tuple[int, ...], geometry: Sequence[Any]) -> tuple[Window, Pair]:
    """The window, and the (height, width) of the output, which is not empty."""
    check = _checked_once if all(map(_is_plain, geometry)) else _checked_once.__wrapped__
    return check(channels, name, size, w_shape, tuple(geometry))


def _is_plain(value: Any) -> bool:
    """Whether equal values mean the same: 1.0 and True equal 1, but are no strides."""
    return type(value) in (int, str) or (type(value) is tuple and all(map(_is_plain, value)))


@lru_cache(1024)
def _checked_once(channels: int, name: str, size: Pair, w_shape: tuple[int, ...], geometry: tuple[Any, ...]) -> tuple[Window, Pair]:
    window = convolution_window(w_shape, size, geometry)
    groups = window.groups
    if channels % groups:
        raise ShapeError(f"`in_channels` (={channels}, axis 1 of `{name}`) must be divisible by `groups` (={groups})")
    if w_shape[1] * groups != channels:
        raise ShapeError(f"`in_channels` (={channels}, axis 1 of `{name}`) must be axis 1 of `w` (={w_shape[1]}) times `groups` (={groups})")
    out = window.checked_output_size(size)
    axes = zip(out, window.kernel, window.stride, window.dilation, strict=True)
    elements = channels * math.prod(min(k, s) * (n + (extent(k, d) - 1) // s) for n, k, s, d in axes)
    if elements >= LIMIT // 8:  # padded images are stored, by phases of the stride: refused before the size overflows
        raise ArgumentError(f"`padding` (={window.padding!r}) and `dilation` (={window.dilation!r}) make an image of up to {elements} elements, "
                            "which no memory holds; use less of them")
    return window, out


def _as_shape(shape: Sequence[int], name: str, meaning: str) -> tuple[int, int, int, int]:
    if not isinstance(shape, Sequence) or len(shape) != 4:
        raise ShapeError(f"`{name}` (={shape!r}) must have 4 entries: {meaning}")
    n, channels, height, width = (as_int(length, name, 0) for length in shape)
    return n, channels, height, width


def forward_window(x: Array, w: Array, b: Array | None, geometry: Sequence[Any]) -> Window:
    """The window of a convolution of x with w, all shapes checked."""
    check_rank(x, "x", 4, NCHW)
    check_rank(w, "w", 4, OIHW)
    if b is not None:
        check_shape(b, "b", (w.shape[0],), "one value for each output channel")
    return _checked(x.shape[1], "x", x.shape[2:], w.shape, geometry)[0]


def input_grad_window(gy: Array, w: Array, input_shape: Sequence[int], geometry: Sequence[Any]) -> tuple[Window, Pair]:
    """The window of the convolution whose input gradient is sought, and the (height, width) of its input, all shapes checked."""
    check_rank(gy, "gy", 4, NCHW)
    check_rank(w, "w", 4, OIHW)
    n, channels, height, width = _as_shape(input_shape, "input_shape", NCHW)
    window, out = _checked(channels, "input_shape", (height, width), w.shape, geometry)
    check_shape(gy, "gy", (n, w.shape[0], *out), f"the output shape of a convolution of `input_shape` (={tuple(input_shape)})")
    return window, (height, width)


def weight_grad_window(gy: Array, x: Array, weight_shape: Sequence[int], geometry: Sequence[Any]) -> Window:
    """The window of the convolution whose weight gradient is sought, all shapes checked."""
    check_rank(gy, "gy", 4, NCHW)
    check_rank(x, "x", 4, NCHW)
    shape = _as_shape(weight_shape, "weight_shape", OIHW)
    window, out = _checked(x.shape[1], "x", x.shape[2:], shape, geometry)
    check_shape(gy, "gy", (x.shape[0], shape[0], *out), f"the output shape of a convolution of `x` with weights of shape {shape}")
    return window


def transposed_window(x_shape: Sequence[int], w_shape: Sequence[int], geometry: Sequence[Any], output_padding: Size2) -> tuple[Window, Pair]:
    """The window of a transposed convolution, and the (height, width) of its output, checked; shapes of 4 axes."""
    stride, padding, *_ = geometry
    if isinstance(padding, str):
        raise ArgumentError(f"`padding` (={padding!r}) of a transposed convolution must be numbers: a name would need the output size it leads to")
    window = convolution_window(w_shape, (0, 0), geometry)
    more = as_pair(output_padding, "output_padding", 0)
    if more[0] >= window.stride[0] or more[1] >= window.stride[1]:
        raise ArgumentError(f"`output_padding` (={output_padding!r}) must be smaller than `stride` (={stride!r})")
    if x_shape[1] != w_shape[0]:
        raise ShapeError(f"`in_channels` (={x_shape[1]}, axis 1 of `x`) must be axis 0 of `w` (={w_shape[0]})")
    size = window.transposed_size((x_shape[2], x_shape[3]), more)
    if min(size) < 1 or min(x_shape[2:]) < 1:
        raise ShapeError(f"the output would be empty: (height, width) {size} for an input of {tuple(x_shape[2:])}; use less padding")
    return window, size


def check_product(a: Array, b: Array) -> None:
    """Raise ShapeError unless a and b are matrices whose product exists."""
    check_rank(a, "a", 2, "(rows, inner)")
    check_rank(b, "b", 2, "(inner, columns)")
    if a.shape[1] != b.shape[0]:
        raise ShapeError(f"the inner lengths must agree: axis 1 of `a` (={a.shape[1]}) and axis 0 of `b` (={b.shape[0]})")


def check_linear(x: Array, w: Array, b: Array | None) -> None:
    """Raise ShapeError unless x, w and b are the operands of a linear layer."""
    check_rank(x, "x", 2, "(batch, input channels)")
    check_rank(w, "w", 2, "(output channels, input channels)")
    if x.shape[1] != w.shape[1]:
        raise ShapeError(f"`in_features` (={x.shape[1]}, axis 1 of `x`) must be axis 1 of `w` (={w.shape[1]})")
    if b is not None:
        check_shape(b, "b", (w.shape[0],), "one value for each output channel")
