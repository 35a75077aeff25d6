"""Explicit im2col and col2im: the matrix that the fast kernels never store; for teaching and as a second route to the same results."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from npreparam._shapes import Pair, Window
from npreparam.kernels import _threads
from npreparam.kernels._compile import kernel

Array = NDArray[Any]
Geometry = tuple[Pair, Pair, Pair, Pair]  # kernel, stride, (top, left), dilation


@kernel
def gather(first: int, last: int, x: Any, geometry: Geometry, columns: Any) -> None:
    """columns[n, c, kh, kw, r, cc] = padded x for the planes first..last-1 (n and c numbered through)."""
    (kh, kw), (sh, sw), (top, left), (dh, dw) = geometry
    _, channels, height, width = x.shape
    for plane in range(first, last):
        n, c = divmod(plane, channels)
        for a in range(kh):
            for b in range(kw):
                for r in range(columns.shape[4]):
                    for q in range(columns.shape[5]):
                        i, j = r * sh + a * dh - top, q * sw + b * dw - left
                        inside = 0 <= i < height and 0 <= j < width
                        columns[n, c, a, b, r, q] = x[n, c, i, j] if inside else 0


@kernel
def scatter(first: int, last: int, columns: Any, geometry: Geometry, x: Any) -> None:
    """x[n, c, i, j] = sum of the columns gathered from there, in the order (kh, kw, r, c), for the planes first..last-1."""
    (kh, kw), (sh, sw), (top, left), (dh, dw) = geometry
    _, channels, height, width = x.shape
    for plane in range(first, last):
        n, c = divmod(plane, channels)
        for a in range(kh):
            for b in range(kw):
                for r in range(columns.shape[4]):
                    for q in range(columns.shape[5]):
                        i, j = r * sh + a * dh - top, q * sw + b * dw - left
                        if 0 <= i < height and 0 <= j < width:
                            x[n, c, i, j] += columns[n, c, a, b, r, q]


def _geometry(window: Window) -> Geometry:
    (top, _), (left, _) = window.padding
    return window.kernel, window.stride, (top, left), window.dilation


def im2col(x: Array, window: Window) -> Array:
    """(N, C*kh*kw, outputs): one column for each output pixel."""
    n, c, *size = x.shape
    columns = np.empty((n, c, *window.kernel, *window.output_size((size[0], size[1]))), x.dtype)
    _threads.run(gather, n * c, np.array(x, order="C"), _geometry(window), columns)
    return columns.reshape(n, c * window.kernel[0] * window.kernel[1], columns.shape[4] * columns.shape[5])


def col2im(columns: Array, shape: tuple[int, int, int, int], window: Window) -> Array:
    """The adjoint of `im2col`: every column added back to where it came from."""
    x = np.zeros(shape, columns.dtype)
    split = columns.reshape(shape[0], shape[1], *window.kernel, *window.output_size((shape[2], shape[3])))
    _threads.run(scatter, shape[0] * shape[1], np.array(split, order="C"), _geometry(window), x)
    return x
