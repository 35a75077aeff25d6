"""Average and max pooling over NCHW; valid input is assumed, `npreparam.ops.pool` checks it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from npreparam._shapes import Pair, Window
from npreparam.kernels import _threads
from npreparam.kernels._compile import kernel

Array = NDArray[Any]
Geometry = tuple[Pair, Pair, Pair]  # kernel, stride, (top, left)
SMALL = 50_000  # elements below which waking a second thread costs more than it saves


@kernel
def span(r: int, size: int, kernel: int, stride: int, before: int) -> tuple[int, int]:
    """First and one past the last input element under window r of one axis, the padding left out."""
    begin = r * stride - before
    return max(0, begin), min(size, begin + kernel)


@kernel
def average_planes(first: int, last: int, x: Any, geometry: Geometry, counted: bool, y: Any) -> None:
    """y = sum under the window / its size (padding counted or not), for the planes first..last-1 of x (planes, H, W)."""
    (kh, kw), (sh, sw), (top, left) = geometry
    size = np.float64(kh) * np.float64(kw)  # in floating point, since it may pass 2^63
    for plane in range(first, last):
        for r in range(y.shape[1]):
            i0, i1 = span(r, x.shape[1], kh, sh, top)
            for c in range(y.shape[2]):
                j0, j1 = span(c, x.shape[2], kw, sw, left)
                total = 0.0
                for i in range(i0, i1):
                    for j in range(j0, j1):
                        total += np.float64(x[plane, i, j])
                y[plane, r, c] = total / (size if counted else np.float64((i1 - i0) * (j1 - j0)))


@kernel
def spread_planes(first: int, last: int, gy: Any, geometry: Geometry, counted: bool, gx: Any) -> None:
    """The adjoint of `average_planes`: every cotangent divided, in float64, among the elements under its window; added in window order."""
    (kh, kw), (sh, sw), (top, left) = geometry
    size = np.float64(kh) * np.float64(kw)
    for plane in range(first, last):
        for r in range(gy.shape[1]):
            i0, i1 = span(r, gx.shape[1], kh, sh, top)
            for c in range(gy.shape[2]):
                j0, j1 = span(c, gx.shape[2], kw, sw, left)
                share = np.float64(gy[plane, r, c]) / (size if counted else np.float64((i1 - i0) * (j1 - j0)))
                for i in range(i0, i1):
                    for j in range(j0, j1):
                        gx[plane, i, j] += share


@kernel
def find_maxima(first: int, last: int, x: Any, geometry: Geometry, places: Any) -> None:
    """places = flat index in its plane of the largest element under each window: the first of equals, a NaN before all."""
    (kh, kw), (sh, sw), (top, left) = geometry
    for plane in range(first, last):
        for r in range(places.shape[1]):
            i0, i1 = span(r, x.shape[1], kh, sh, top)
            for c in range(places.shape[2]):
                j0, j1 = span(c, x.shape[2], kw, sw, left)
                best, place = x[plane, i0, j0], i0 * x.shape[2] + j0
                for i in range(i0, i1):
                    for j in range(j0, j1):
                        value = x[plane, i, j]
                        better = (value > best) | ((value != value) & (best == best))  # selects: branches would be mispredicted
                        best = value if better else best
                        place = i * x.shape[2] + j if better else place
                places[plane, r, c] = place


@kernel
def scatter_planes(first: int, last: int, gy: Any, places: Any, gx: Any) -> None:
    """gx[plane, places] += gy, in the order of the windows."""
    for plane in range(first, last):
        for i in range(gy.shape[1]):
            gx[plane, places[plane, i]] += gy[plane, i]


def _planes(x: Array) -> Array:
    """x in C order, writable, as (N*C, H, W)."""
    x = np.require(x, requirements=["C", "A", "W"])
    return x.reshape(-1, *x.shape[2:]) if x.size else np.empty((0, *x.shape[2:]), x.dtype)


def _geometry(window: Window) -> Geometry:
    (top, _), (left, _) = window.padding
    return window.kernel, window.stride, (top, left)


def average(x: Array, window: Window, counted: bool) -> Array:
    """Means under the windows, summed in float64."""
    y = np.empty((*x.shape[:2], *window.output_size((x.shape[2], x.shape[3]))), x.dtype)
    planes = _planes(x)
    _threads.run(average_planes, len(planes), planes, _geometry(window), counted, _planes(y), small=x.size < SMALL)
    return y


def spread(gy: Array, shape: tuple[int, ...], window: Window, counted: bool) -> Array:
    """The adjoint of `average` for an input of `shape`."""
    gx = np.zeros(shape, gy.dtype)
    planes = _planes(gy)
    _threads.run(spread_planes, len(planes), planes, _geometry(window), counted, _planes(gx), small=gx.size < SMALL)
    return gx


def maxima(x: Array, window: Window) -> Array:
    """(N, C, Ho, Wo) of int64: where in its plane the largest element under each window is."""
    places = np.empty((*x.shape[:2], *window.output_size((x.shape[2], x.shape[3]))), np.int64)
    planes = _planes(x)
    _threads.run(find_maxima, len(planes), planes, _geometry(window), _planes(places), small=x.size < SMALL)
    return places


def take(x: Array, places: Array) -> Array:
    """x at the places, plane by plane."""
    n, c = places.shape[:2]
    flat = places.reshape(n, c, places.shape[2] * places.shape[3])
    return np.take_along_axis(x.reshape(n, c, x.shape[2] * x.shape[3]), flat, axis=2).reshape(places.shape)


def put(gy: Array, places: Array, shape: tuple[int, ...]) -> Array:
    """The adjoint of `take`: zeros of `shape` with gy added at the places."""
    gx = np.zeros(shape, gy.dtype)
    flat = _planes(gy).reshape(-1, gy.shape[2] * gy.shape[3])
    _threads.run(scatter_planes, len(flat), flat, places.reshape(flat.shape), gx.reshape(len(flat), -1) if gx.size else gx,
                 small=gx.size < SMALL)
    return gx
