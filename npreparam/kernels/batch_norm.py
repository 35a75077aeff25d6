"""Batch-norm statistics, normalization and backward over NCHW; valid input is assumed, `npreparam.ops.batch_norm` checks it.

Sums run in float64, one thread to a channel, in LANES partial sums that are added at the end: an order that depends on the shape alone.
The variance is two-pass: the mean first, then the squares of the differences from it (Chan, Golub and LeVeque, The American Statistician
37(3), 1983).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy import uintp
from numpy.typing import NDArray

from npreparam.kernels import _threads
from npreparam.kernels._compile import kernel

Array = NDArray[Any]
LANES = 16  # partial sums of a channel; enough independent ones to fill the vector units
SMALL = 50_000  # elements below which waking a second thread costs more than it saves


@kernel
def row_sums(x: Any, at: int, length: int, center: float, g: Any, sums: Any) -> None:
    """sums[:, j % LANES] += (x-center, (x-center)^2, g, g*(x-center)) over the elements j of a row; pass x for a `g` that is not needed."""
    whole = length - length % LANES
    for j in range(0, whole, LANES):
        for lane in range(LANES):
            d = np.float64(x[uintp(at + j + lane)]) - center
            c = np.float64(g[uintp(at + j + lane)])
            sums[0, lane] += d
            sums[1, lane] += d * d
            sums[2, lane] += c
            sums[3, lane] += c * d
    for j in range(whole, length):
        d, c = np.float64(x[uintp(at + j)]) - center, np.float64(g[uintp(at + j)])
        sums[0, j - whole] += d
        sums[1, j - whole] += d * d
        sums[2, j - whole] += c
        sums[3, j - whole] += c * d


@kernel
def channel_sums(first: int, last: int, x: Any, centers: Any, g: Any, shape: tuple[int, int, int], totals: Any) -> None:
    """`row_sums` over all images for the channels first..last-1; x and g flat, shape (N, C, H*W), totals (C, 4)."""
    n, channels, length = shape
    sums = np.empty((4, LANES))
    for c in range(first, last):
        sums[:] = 0.0
        for image in range(n):
            row_sums(x, (image * channels + c) * length, length, centers[c], g, sums)
        for q in range(4):
            for lane in range(LANES):
                totals[c, q] += sums[q, lane]


@kernel
def affine_planes(first: int, last: int, x: Any, center: Any, scale: Any, g: Any, slope: Any, shift: Any, shape: tuple[int, int, int],
                  y: Any) -> None:
    """y = g*scale[c] + (x - center[c])*slope[c] + shift[c] for the planes first..last-1, in float64, rounded once to y."""
    _, channels, length = shape
    for plane in range(first, last):
        c, at = plane % channels, plane * length
        m, s, a, b = center[c], scale[c], slope[c], shift[c]
        for j in range(length):
            here = uintp(at + j)
            y[here] = np.float64(g[here]) * s + ((np.float64(x[here]) - m) * a + b)


@kernel
def normalize_planes(first: int, last: int, x: Any, center: Any, slope: Any, shift: Any, shape: tuple[int, int, int], y: Any) -> None:
    """y = (x - center[c])*slope[c] + shift[c] for the planes first..last-1, in float64, rounded once to y."""
    _, channels, length = shape
    for plane in range(first, last):
        c, at = plane % channels, plane * length
        m, a, b = center[c], slope[c], shift[c]
        for j in range(length):
            here = uintp(at + j)
            y[here] = (np.float64(x[here]) - m) * a + b


def _flat(x: Array) -> tuple[Array, tuple[int, int, int]]:
    """x in C order as a writable flat array, and its shape as (N, C, H*W)."""
    x = np.require(x, requirements=["C", "A", "W"])
    n, c = x.shape[:2]
    return x.reshape(-1), (n, c, x.size // max(1, n * c))


def _rows(x: Array, shape: tuple[int, int, int]) -> tuple[Array, tuple[int, int, int]]:
    """x for summation: where H*W is 1, transposed, so that a channel is one long row instead of N rows of one element."""
    n, c, length = shape
    return (np.ascontiguousarray(x.reshape(n, c).T).reshape(-1), (1, c, n)) if length == 1 else (x, shape)


def _sums(x: Array, centers: Array, g: Array, shape: tuple[int, int, int]) -> Array:
    totals = np.zeros((shape[1], 4))
    _threads.run(channel_sums, shape[1], x, centers, g, shape, totals, small=x.size < SMALL)
    return totals


def _statistics(x: Array, shape: tuple[int, int, int]) -> tuple[Array, Array]:
    count = shape[0] * shape[2]
    about = _sums(x, np.zeros(shape[1]), x, shape)[:, 0] / count
    totals = _sums(x, about, x, shape)
    correction = totals[:, 0] / count  # the rounding error of the mean
    return about + correction, np.maximum(0.0, totals[:, 1] / count - correction * correction)


def statistics(x: Array) -> tuple[Array, Array]:
    """Mean and biased variance of each channel over (N, H, W), in float64."""
    with np.errstate(invalid="ignore", over="ignore"):
        return _statistics(*_rows(*_flat(x)))


def normalize(x: Array, gamma: Array, beta: Array, mean: Array, var: Array, eps: float) -> Array:
    """y = (x - mean) * gamma/sqrt(var + eps) + beta for each channel, computed in float64 and rounded once."""
    flat, shape = _flat(x)
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = gamma.astype(np.float64) / np.sqrt(var.astype(np.float64) + eps)
    y = np.empty(x.shape, x.dtype)
    _threads.run(normalize_planes, shape[0] * shape[1], flat, mean.astype(np.float64), slope, beta.astype(np.float64), shape,
                 y.reshape(-1), small=x.size < SMALL)
    return y


def backward(gy: Array, x: Array, gamma: Array, mean: Array, var: Array, eps: float, training: bool) -> tuple[Array, Array, Array]:
    """Cotangents of x, gamma and beta. With xhat = (x - mean)/sqrt(var + eps) and means over (N, H, W) of a channel:

    training: gx = gamma/sqrt(var + eps) * (gy - mean(gy) - xhat*mean(gy*xhat)); evaluation: gx = gamma/sqrt(var + eps) * gy.
    """
    flat, shape = _flat(x)
    g, _ = _flat(gy)
    mean = mean.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        scale = 1 / np.sqrt(var.astype(np.float64) + eps)
        totals = _sums(_rows(flat, shape)[0], mean, *_rows(g, shape))
        slope = gamma.astype(np.float64) * scale
        count = max(1, shape[0] * shape[2])
        through = -slope * scale * scale * totals[:, 3] / count if training else np.zeros_like(slope)
        shift = -slope * totals[:, 2] / count if training else np.zeros_like(slope)
    gx = np.empty(x.shape, x.dtype)
    if training:
        _threads.run(affine_planes, shape[0] * shape[1], flat, mean, slope, g, through, shift, shape, gx.reshape(-1), small=x.size < SMALL)
    else:
        _threads.run(normalize_planes, shape[0] * shape[1], g, np.zeros_like(mean), slope, shift, shape, gx.reshape(-1),
                     small=x.size < SMALL)
    with np.errstate(invalid="ignore", over="ignore"):
        return gx, (totals[:, 3] * scale).astype(x.dtype), totals[:, 2].astype(x.dtype)
