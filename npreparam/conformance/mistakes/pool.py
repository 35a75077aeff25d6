"""Mistakes in pooling."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from npreparam._shapes import Pair, Sides
from npreparam.conformance.mistakes._registry import counting, image, mistake
from npreparam.conformance.mistakes._right import output_size, reach
from npreparam.conformance.mistakes.conv2d import ONE, TWO, both, swap

TINY = float(np.finfo(np.float32).tiny)


def windows(x: Any, kernel: Pair, stride: Pair, padding: Sides, fill: float, out: Pair | None = None) -> Any:
    """The elements under each window along a new last axis, `fill` outside the image."""
    out = output_size(x, kernel, stride, padding) if out is None else out
    size = reach(out, kernel, stride, (1, 1))
    sides = [(before, max(0, whole - before - n)) for (before, _), whole, n in zip(padding, size, x.shape[2:], strict=True)]
    outside = np.pad(np.zeros(x.shape[2:]), sides, constant_values=1) == 1
    framed = np.where(outside, fill, np.pad(x, ((0, 0), (0, 0), *sides)))
    return np.stack([framed[:, :, i:i + (out[0] - 1) * stride[0] + 1:stride[0], j:j + (out[1] - 1) * stride[1] + 1:stride[1]]
                     for i in range(kernel[0]) for j in range(kernel[1])], axis=-1)


def averages(x: Any, kernel: Pair, stride: Pair, padding: Sides, count_include_pad: bool, out: Pair | None = None) -> Any:
    """The right averages, of `out` windows, in the format of x."""
    total = np.sum(windows(x, kernel, stride, padding, 0.0, out), axis=-1)
    inside = np.sum(windows(np.ones((1, 1, *x.shape[2:])), kernel, stride, padding, 0.0, out), axis=-1)
    return total / (math.prod(kernel) if count_include_pad else np.maximum(inside, 1).astype(np.float32))


def maxima(x: Any, kernel: Pair, stride: Pair, padding: Sides, fill: float = -math.inf, out: Pair | None = None) -> Any:
    """The right maxima, but for what is outside the image."""
    return np.max(windows(x, kernel, stride, padding, fill, out), axis=-1)


def _up(x: Any, kernel: Pair, stride: Pair, padding: Sides) -> Pair:
    """The output's size rounded up."""
    h, w = (-(-(n + sum(p) - k) // s) + 1 for n, k, s, p in zip(x.shape[2:], kernel, stride, padding, strict=True))
    return h, w


mistake("avg_pool2d", "padding counted although it should not be", lambda right, count_include_pad, **p: averages(count_include_pad=True, **p),
        look="count_include_pad=False", example={"x": ONE, "kernel": (1, 2), "padding": ((0, 0), (0, 1)), "count_include_pad": False})
mistake("avg_pool2d", "padding not counted although it should be", lambda right, count_include_pad, **p: averages(count_include_pad=False, **p),
        look="count_include_pad=True", example={"x": ONE, "kernel": (1, 2), "padding": ((0, 0), (0, 1))})
mistake("avg_pool2d", "sum in place of the mean", lambda right, kernel, **p: averages(kernel=kernel, **p) * math.prod(kernel),
        look="the divisor", example={"x": TWO, "kernel": (1, 2)})
mistake("avg_pool2d", "divided by the square of the kernel's height", lambda right, kernel, **p:
        averages(kernel=kernel, **p) * math.prod(kernel) / kernel[0] ** 2, look="the divisor kh*kw", example={"x": TWO, "kernel": (1, 2)})
mistake("avg_pool2d", "divided by the square of the kernel's width", lambda right, kernel, **p:
        averages(kernel=kernel, **p) * math.prod(kernel) / kernel[1] ** 2, look="the divisor kh*kw", example={"x": TWO, "kernel": (1, 2)})
mistake("avg_pool2d", "stride 1 in place of the kernel", lambda right, stride, **p: averages(stride=(1, 1), **p),
        look="the stride's default is the kernel", example={"x": counting(1, 1, 1, 3), "kernel": (1, 2)})
mistake("avg_pool2d", "stride ignored, kernel in its place", lambda right, kernel, stride, **p: averages(kernel=kernel, stride=kernel, **p),
        look="the stride is not passed on", example={"x": counting(1, 1, 1, 3), "kernel": (1, 2), "stride": 1})
mistake("avg_pool2d", "kernel of H and W swapped", lambda right, kernel, **p: averages(kernel=swap(kernel), **p),
        look="order of the kernel's two numbers", example={"x": image((1, 2), (4, 8)), "kernel": (1, 2), "stride": 2})
mistake("avg_pool2d", "stride of H and W swapped", lambda right, stride, **p: averages(stride=swap(stride), **p),
        look="order of the stride's two numbers", example={"x": TWO, "kernel": 1, "stride": (1, 2)})
mistake("avg_pool2d", "padding of H and W swapped", lambda right, padding, **p: averages(padding=swap(padding), **p),
        look="order of the padding's two numbers", example={"x": TWO, "kernel": 2, "padding": ((0, 1), (1, 1))})
mistake("avg_pool2d", "padding ignored", lambda right, padding, **p: averages(padding=((0, 0), (0, 0)), **p),
        look="the padding is not passed on", example={"x": TWO, "kernel": (1, 2), "padding": ((0, 0), (1, 1))})
mistake("avg_pool2d", "output size rounded up", lambda right, x, kernel, stride, padding, **p:
        averages(x, kernel, stride, padding, out=_up(x, kernel, stride, padding), **p), look="floor((size + padding - kernel)/stride) + 1",
        example={"x": counting(1, 1, 1, 3), "kernel": (1, 2)})
mistake("avg_pool2d", "largest in place of the mean", lambda right, count_include_pad, **p: maxima(fill=0.0, **p),
        look="which pooling is called", example={"x": TWO, "kernel": (1, 2)})
mistake("avg_pool2d", "mean rounded down", lambda right, **p: np.floor(averages(**p)),
        look="a division of integers", example={"x": TWO, "kernel": (1, 2)})
mistake("max_pool2d", "padding counted as zero", lambda right, **p: maxima(fill=0.0, **p),
        look="padding is minus infinity", example={"x": -ONE, "kernel": (1, 2), "padding": ((0, 0), (0, 1))})
mistake("max_pool2d", "maximum begun at zero", lambda right, **p: np.maximum(maxima(**p), 0.0),
        look="the maximum's first value is minus infinity", example={"x": -ONE, "kernel": 1})
mistake("max_pool2d", "maximum begun at the smallest normal number", lambda right, **p: np.maximum(maxima(**p), TINY),
        look="FLT_MIN is positive; the maximum's first value is minus infinity", example={"x": -ONE, "kernel": 1}, seldom=True)
mistake("max_pool2d", "NaN passed over", lambda right, x, **p: maxima(np.where(np.isnan(x), -math.inf, x), **p),
        look="comparisons with NaN are false; a NaN is the largest", example={"x": image((1, np.nan)), "kernel": (1, 2)})
mistake("max_pool2d", "largest magnitude", lambda right, x, **p: maxima(abs(x), fill=0.0, **p),
        look="the comparison", example={"x": -ONE, "kernel": 1})
mistake("max_pool2d", "smallest in place of the largest", lambda right, x, **p: -maxima(-x, **p),
        look="the comparison", example={"x": TWO, "kernel": (1, 2)})
mistake("max_pool2d", "mean in place of the largest", lambda right, **p: averages(count_include_pad=True, **p),
        look="which pooling is called", example={"x": TWO, "kernel": (1, 2)})
mistake("max_pool2d", "stride 1 in place of the kernel", lambda right, stride, **p: maxima(stride=(1, 1), **p),
        look="the stride's default is the kernel", example={"x": counting(1, 1, 1, 3), "kernel": (1, 2)})
mistake("max_pool2d", "stride ignored, kernel in its place", lambda right, kernel, stride, **p: maxima(kernel=kernel, stride=kernel, **p),
        look="the stride is not passed on", example={"x": counting(1, 1, 1, 3), "kernel": (1, 2), "stride": 1})
mistake("max_pool2d", "kernel of H and W swapped", lambda right, kernel, **p: maxima(kernel=swap(kernel), **p),
        look="order of the kernel's two numbers", example={"x": image((1, 2), (3, 4)), "kernel": (1, 2), "stride": 2})
mistake("max_pool2d", "stride of H and W swapped", lambda right, stride, **p: maxima(stride=swap(stride), **p),
        look="order of the stride's two numbers", example={"x": TWO, "kernel": 1, "stride": (1, 2)})
mistake("max_pool2d", "padding of H and W swapped", lambda right, padding, **p: maxima(padding=swap(padding), **p),
        look="order of the padding's two numbers", example={"x": TWO, "kernel": 2, "padding": ((0, 1), (1, 1))})
mistake("max_pool2d", "padding of H used for W", lambda right, padding, **p: maxima(padding=both(padding), **p),
        look="the second number of the padding", example={"x": TWO, "kernel": 2, "padding": ((0, 1), (1, 1))})
mistake("max_pool2d", "padding ignored", lambda right, padding, **p: maxima(padding=((0, 0), (0, 0)), **p),
        look="the padding is not passed on", example={"x": TWO, "kernel": (1, 2), "padding": ((0, 0), (1, 1))})
mistake("max_pool2d", "output size rounded up", lambda right, x, kernel, stride, padding:
        maxima(x, kernel, stride, padding, out=_up(x, kernel, stride, padding)), look="floor((size + padding - kernel)/stride) + 1",
        example={"x": counting(1, 1, 1, 3), "kernel": (1, 2)})
