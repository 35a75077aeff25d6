"""Convolution and its gradients by implicit im2col; valid input is assumed, `npreparam.ops.conv2d` checks it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npreparam._shapes import Pair, Window
from npreparam.kernels import _plain, _plan
from npreparam.kernels._correlate import product
from npreparam.kernels._memory import strided
from npreparam.kernels._reduce import PIXELS_AT_ONCE, reduction

Array = NDArray[Any]


def _dense(w: Array) -> Array:
    """OIHW weights in C order, which the weight offsets assume (a copy only for unusual layouts)."""
    return np.ascontiguousarray(w)


def _padding_met(factor: Array, *extremes: Array) -> bool:
    """Whether padding zeros may have met an infinity or NaN of `factor`.

    What reads padding for some tap does so first or last along an axis, so a look at the extreme elements of the result tells.
    """
    return any(np.isnan(values).any() for values in extremes) and not np.isfinite(factor).all()


def _corners(images: Array) -> Array:
    return images[:, :, :: max(1, images.shape[2] - 1), :: max(1, images.shape[3] - 1)]


def conv2d(x: Array, w: Array, b: Array | None, window: Window, relu: bool = False) -> Array:
    """y[n, o, r, c] = b[o] + sum over (i, kh, kw) of w[o, i, kh, kw] * padded x[n, i, r*s + kh*d, c*s + kw*d], then ReLU if asked."""
    y = forward_sums(x, w, b, window, relu)
    if y.size and window.padding != ((0, 0), (0, 0)) and _padding_met(w, _corners(y)):
        _plain.conv2d(x, w, b, window, relu, y)
    return y


def conv2d_input_grad(gy: Array, w: Array, size: Pair, window: Window) -> Array:
    """gx[n, i, ih, iw] = sum of w[o, i, kh, kw] * gy[n, o, r, c] over all taps and pixels that read x[n, i, ih, iw]."""
    gx, (sh, sw) = input_grad_sums(gy, w, None, size, window), window.stride
    if _padding_met(w, gx[:, :, :sh, :sw], gx[:, :, -sh:, -sw:]):
        _plain.conv2d_input_grad(gy, w, window, gx)
    return gx


def conv2d_weight_grad(gy: Array, x: Array, window: Window) -> Array:
    """gw[o, i, kh, kw] = sum over (n, r, c) of gy[n, o, r, c] * padded x[n, i, r*s + kh*d, c*s + kw*d]."""
    gw = weight_grad_sums(gy, x, window)
    if gw.size and window.padding != ((0, 0), (0, 0)) and _padding_met(gy, _corners(gw[:, :1])):
        _plain.conv2d_weight_grad(gy, x, window, gw)
    return gw


def forward_sums(x: Array, w: Array, b: Array | None, window: Window, relu: bool = False, pair: bool = False) -> Array:
    """`conv2d` that multiplies padding zeros like any other element: NaN where they meet an infinity.

    With `pair` in doubled precision: the sums are y[0] + y[1], see `kernels._pair`. So in both gradients.
    """
    y = _result((x.shape[0], w.shape[0], *window.output_size((x.shape[2], x.shape[3]))), x.dtype, pair)
    if y.size:
        source, plan = _plan.forward(x.shape, w.shape, window, x.itemsize)
        product(plan, x.shape[0], strided(_dense(w)), strided(x), source, b, relu, y, pair)
    return y


def input_grad_sums(gy: Array, w: Array, b: Array | None, size: Pair, window: Window, pair: bool = False) -> Array:
    """`conv2d_input_grad` plus b[i], as `forward_sums` is `conv2d`."""
    shape = (gy.shape[0], w.shape[1] * window.groups, *size)
    gx = _result(shape, gy.dtype, pair)
    if gx.size:
        source, plan = _plan.input_grad(gy.shape, w.shape, size, window, gy.itemsize)
        if not _plan.covers(plan, math.prod(shape[1:])):
            gx[...] = 0
            if b is not None:
                (gx[0] if pair else gx)[...] = b.reshape(-1, 1, 1)
        if len(plan.problems):
            product(plan, gy.shape[0], strided(_dense(w)), strided(gy), source, b, False, gx, pair)
    return gx


def weight_grad_sums(gy: Array, x: Array, window: Window, pair: bool = False) -> Array:
    """`conv2d_weight_grad`, as `forward_sums` is `conv2d`."""
    shape = (gy.shape[1], x.shape[1] // window.groups, *window.kernel)
    gw = _result(shape, gy.dtype, pair)
    if not (gy.size and x.size):
        gw[...] = 0
    elif gw.size:
        source, plan = _plan.weight_grad(x.shape, shape, window, x.itemsize)
        reduction(plan, x.shape[0], strided(x), source, strided(gy), (gy.shape[2], gy.shape[3]), gw, pair)
    return gw


def weight_grad_depth(images: int, pixels: int) -> int:
    """The most roundings that a product passes through in `conv2d_weight_grad`: its own and those of its piece, then one for each piece."""
    return min(pixels, PIXELS_AT_ONCE) + images * -(-pixels // PIXELS_AT_ONCE)


def _result(shape: tuple[int, ...], dtype: np.dtype[Any], pair: bool) -> Array:
    return np.empty((2, *shape) if pair else shape, dtype)
