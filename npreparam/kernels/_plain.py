"""The same three products as plain loops that leave the padding out, for operands with infinities or NaN.

The fast kernels multiply padding zeros by weights (or cotangents) like any other element. That adds nothing, unless the other factor is not
finite: 0*inf is NaN, where the definition has no term at all. Each element is the chain that the fast kernel computes, without those terms.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npreparam._shapes import Pair, Window
from npreparam.kernels import _threads
from npreparam.kernels._compile import kernel
from npreparam.kernels._reduce import PIXELS_AT_ONCE
from npreparam.kernels._tile import scalar_fma

Array = NDArray[Any]
Geometry = tuple[Pair, Pair, Pair]  # stride, (top, left), dilation


@kernel
def forward_planes(first: int, last: int, x: Any, w: Any, start: Any, floor: Any, geometry: Geometry, y: Any) -> None:
    """y[n, o] for the planes first..last-1 (n and o numbered through)."""
    (sh, sw), (top, left), (dh, dw) = geometry
    outputs, inputs, kh, kw = w.shape
    for plane in range(first, last):
        n, o = divmod(plane, outputs)
        group = o // (outputs // (x.shape[1] // inputs))
        for r in range(y.shape[2]):
            for c in range(y.shape[3]):
                total = start[o]
                for i in range(inputs):
                    for a in range(kh):
                        for b in range(kw):
                            ih, iw = r * sh + a * dh - top, c * sw + b * dw - left
                            if 0 <= ih < x.shape[2] and 0 <= iw < x.shape[3]:
                                total = scalar_fma(w[o, i, a, b], x[n, group * inputs + i, ih, iw], total)
                y[n, o, r, c] = floor if total <= floor else total


@kernel
def input_planes(first: int, last: int, gy: Any, w: Any, geometry: Geometry, gx: Any) -> None:
    """gx[n, channel] for the planes first..last-1 (n and channel numbered through)."""
    (sh, sw), (top, left), (dh, dw) = geometry
    outputs, inputs, kh, kw = w.shape
    per_group = outputs // (gx.shape[1] // inputs)
    for plane in range(first, last):
        n, channel = divmod(plane, gx.shape[1])
        group, i = divmod(channel, inputs)
        for ih in range(gx.shape[2]):
            for iw in range(gx.shape[3]):
                total = gx.dtype.type(0)
                for o in range(group * per_group, (group + 1) * per_group):
                    for a in range(kh):
                        for b in range(kw):
                            (r, past_r), (c, past_c) = divmod(ih + top - a * dh, sh), divmod(iw + left - b * dw, sw)
                            if past_r == 0 and past_c == 0 and 0 <= r < gy.shape[2] and 0 <= c < gy.shape[3]:
                                total = scalar_fma(w[o, i, a, b], gy[n, o, r, c], total)
                gx[n, channel, ih, iw] = total


@kernel
def weight_channels(first: int, last: int, gy: Any, x: Any, geometry: Geometry, gw: Any) -> None:
    """gw[o] for the output channels first..last-1."""
    (sh, sw), (top, left), (dh, dw) = geometry
    outputs, inputs, kh, kw = gw.shape
    zero, columns = gw.dtype.type(0), gy.shape[3]
    for o in range(first, last):
        group = o // (outputs // (x.shape[1] // inputs))
        for i in range(inputs):
            for a in range(kh):
                for b in range(kw):
                    total = zero
                    for n in range(x.shape[0]):
                        piece = zero
                        for p in range(gy.shape[2] * columns):
                            if p and p % PIXELS_AT_ONCE == 0:
                                total, piece = total + piece, zero
                            ih, iw = p // columns * sh + a * dh - top, p % columns * sw + b * dw - left
                            if 0 <= ih < x.shape[2] and 0 <= iw < x.shape[3]:
                                piece = scalar_fma(x[n, group * inputs + i, ih, iw], gy[n, o, p // columns, p % columns], piece)
                        total = total + piece
                    gw[o, i, a, b] = total


def _geometry(window: Window) -> Geometry:
    (top, _), (left, _) = window.padding
    return window.stride, (top, left), window.dilation


def _writable(array: Array) -> Array:
    return np.require(array, requirements=["C", "A", "W"])


def conv2d(x: Array, w: Array, b: Array | None, window: Window, relu: bool, y: Array) -> None:
    """Overwrite `y` with the convolution."""
    start = np.zeros(w.shape[0], y.dtype) if b is None else _writable(b)
    floor = y.dtype.type(0 if relu else -math.inf)
    _threads.run(forward_planes, y.shape[0] * y.shape[1], _writable(x), _writable(w), start, floor, _geometry(window), y)


def conv2d_input_grad(gy: Array, w: Array, window: Window, gx: Array) -> None:
    """Overwrite `gx` with the input gradient."""
    _threads.run(input_planes, gx.shape[0] * gx.shape[1], _writable(gy), _writable(w), _geometry(window), gx)


def conv2d_weight_grad(gy: Array, x: Array, window: Window, gw: Array) -> None:
    """Overwrite `gw` with the weight gradient."""
    _threads.run(weight_channels, gw.shape[0], _writable(gy), _writable(x), _geometry(window), gw)
