"""Mistakes in memory: layouts read as another, overflowing indices, buffers that hold something, races, and narrow accumulators."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from npreparam._shapes import Pair, Window
from npreparam.certified.bounds import Profile
from npreparam.certified.bounds.winograd import KERNEL, both_sides, tiles, transforms
from npreparam.conformance.mistakes._ball import Ball
from npreparam.conformance.mistakes._registry import counting, image, mistake
from npreparam.conformance.mistakes._right import output_size
from npreparam.conformance.mistakes.conv2d import ONE


def _of_memory(read: Any) -> Any:
    """A function of an array in memory, for Balls as well: they keep the layout in their midpoints, and a copied one in their radii."""
    def call(x: Any) -> Any:
        return Ball(read(x.value), np.max(x.radius, initial=0), x.profile) if isinstance(x, Ball) else read(x)

    return call


@_of_memory
def read_as_contiguous(x: Any) -> Any:
    """The memory from x's first element on, as if in C order: x itself where it is so laid out, or would be read past its end."""
    last = sum((n - 1) * step for n, step in zip(x.shape, x.strides, strict=True))
    if x.size == 0 or min(x.strides, default=0) < 0 or (x.size - 1) * x.itemsize > last:
        return x
    steps = [x.itemsize * math.prod(x.shape[i + 1:]) for i in range(x.ndim)]
    return np.lib.stride_tricks.as_strided(x, x.shape, steps, writeable=False).copy()


@_of_memory
def read_forwards(x: Any) -> Any:
    """x with its negative strides taken as positive ones, from the beginning of its memory."""
    return x[tuple(slice(None, None, -1 if step < 0 else 1) for step in x.strides)].copy()


def is_channels_last(x: Any) -> bool:
    """Four axes stored as NHWC, as far as strides tell."""
    x = x.value if isinstance(x, Ball) else x
    if x.ndim != 4 or x.shape[2] * x.shape[3] == 1:  # nothing to tell by
        return False
    step = x.itemsize * x.shape[1]
    return x.strides[1:] == (x.itemsize, step * x.shape[3], step)


def _unlike(condition: Any, x: Any) -> Any:
    return read_as_contiguous(x) if condition(x) else x


def _nhwc_result(right: Any, x: Any, w: Any, **rest: Any) -> Any:
    """One input channel hides which layout is meant: the result is written in that of the weights and read as NCHW."""
    y = right.conv2d(x=x, w=w, **rest)
    if x.shape[1] > 1 or not is_channels_last(w):
        return y
    return np.transpose(y, (0, 2, 3, 1)).reshape(y.shape)


def _low_half(x: Any, bits: int = 15) -> Any:
    """Elements read at offsets of so many bits: what lies beyond is found at the beginning again."""
    return x.reshape(-1)[np.arange(x.size) & (2**bits - 1)].reshape(x.shape)


def _lost_beyond(y: Any, bits: int = 15) -> Any:
    """Elements written at offsets of so many bits: later ones overwrite the first."""
    flat = y.reshape(-1)
    source, kept = np.arange(y.size), 2**bits
    source[:min(kept, y.size)] = [((y.size - 1 - i) // kept) * kept + i for i in range(min(kept, y.size))]
    return np.where(np.arange(y.size) < kept, flat[source], np.zeros_like(flat)).reshape(y.shape)


def _onto_buffer(right: Any, out: Any = None, **rest: Any) -> Any:
    """0 * (what the result's buffer held) + y."""
    y = right.conv2d(**rest)
    return y if out is None else y + 0.0 * out


def in_steps(x: Any, w: Any, stride: Pair, dilation: Pair, groups: int, dtype: Any) -> Any:
    """The convolution of a padded image, summed tap by tap in a narrow format."""
    rows, columns = output_size(x, w.shape[2:], stride, ((0, 0), (0, 0)), dilation)
    share = w.shape[0] // groups
    y = np.zeros((len(x), groups, share, rows, columns), dtype)
    split = x.reshape(len(x), groups, w.shape[1], *x.shape[2:]).astype(dtype)
    kernels = w.reshape(groups, share, *w.shape[1:]).astype(dtype)
    for i, kh, kw in np.ndindex(w.shape[1:]):
        top, left = kh * dilation[0], kw * dilation[1]
        seen = split[:, :, i, top:top + (rows - 1) * stride[0] + 1:stride[0], left:left + (columns - 1) * stride[1] + 1:stride[1]]
        y = y + kernels[None, :, :, i, kh, kw, None, None] * seen[:, :, None]
    return y.reshape(len(x), w.shape[0], rows, columns)


def _narrow(v: Any, algorithm: str = "direct") -> Any:
    """A Ball whose arithmetic is float16's."""
    return None if v is None else Ball(v.value, v.radius, Profile("float16", "float16", algorithm=algorithm, output=v.profile.output))


def _half(right: Any, x: Any, w: Any, b: Any, padding: Any, **g: Any) -> Any:
    if isinstance(x, Ball):
        return right.conv2d(x=_narrow(x), w=_narrow(w), b=_narrow(b), padding=padding, **g)
    y = in_steps(np.pad(x, ((0, 0), (0, 0), *padding)), w, g["stride"], g["dilation"], g["groups"], np.float16)
    return (y if b is None else y + b.astype(np.float16).reshape(1, -1, 1, 1)).astype(x.dtype)


def _half_linear(right: Any, x: Any, w: Any, b: Any) -> Any:
    if isinstance(x, Ball):
        return right.linear(x=_narrow(x), w=_narrow(w), b=_narrow(b))
    y = np.zeros((len(x), len(w)), np.float16) if b is None else np.tile(b.astype(np.float16), (len(x), 1))
    for i in range(x.shape[1]):
        y = y + np.outer(x[:, i], w[:, i]).astype(np.float16)
    return y.astype(x.dtype)


def _half_winograd(right: Any, x: Any, w: Any, b: Any, **g: Any) -> Any:
    """Winograd F(4, 3) with transforms and products in float16."""
    if w.shape[2:] != (KERNEL, KERNEL) or (g["stride"], g["dilation"], g["groups"]) != ((1, 1), (1, 1), 1):
        return right.conv2d(x=x, w=w, b=b, **g)
    if isinstance(x, Ball):
        return right.conv2d(x=_narrow(x, "winograd_4_3"), w=_narrow(w, "winograd_4_3"), b=_narrow(b, "winograd_4_3"), **g)
    at, forward, bt = (matrix.astype(np.float64).astype(np.float16) for matrix in transforms(4))
    window = Window((3, 3), padding=g["padding"])
    rows, columns = window.output_size(x.shape[2:])
    v = both_sides(bt, tiles(x, window, 4).astype(np.float16))
    u = both_sides(forward, w.astype(np.float16))
    m = sum(u[None, :, c, None, None] * v[:, None, c] for c in range(w.shape[1]))
    y = both_sides(at, m).swapaxes(3, 4)  # (N, O, tile rows, m, tile columns, m)
    y = y.reshape(*y.shape[:2], y.shape[2] * 4, -1)[:, :, :rows, :columns]
    return (y if b is None else y + b.reshape(1, -1, 1, 1)).astype(x.dtype)


def _lost_update(right: Any, x: Any, gy: Any, **g: Any) -> Any:
    """Threads that each sum one image, of which the last overwrites."""
    return right.conv2d_weight_grad(x=x[-1:], gy=gy[-1:], **g)


FAR = np.zeros((1, 1, 1, 2**15 + 1), np.float32)  # one element more than 15 bits count
FAR[..., -1] = 1

mistake("conv2d", "channels_last input read as NCHW", lambda right, x, **g: right.conv2d(x=_unlike(is_channels_last, x), **g),
        seen="pytorch#77299, executorch#21837 (KNOWN_BUGS 3)", look="strides of the input", layout="channels_last",
        example={"x": counting(1, 2, 1, 2), "w": counting(1, 2, 1, 1)})
mistake("conv2d", "channels_last weights read as NCHW", lambda right, w, **g: right.conv2d(w=_unlike(is_channels_last, w), **g),
        look="strides of the weights", layout="channels_last", example={"x": counting(1, 2, 1, 2), "w": counting(1, 2, 1, 2)})
mistake("conv2d", "result in the layout of channels_last weights", _nhwc_result, seen="pytorch#82060 (KNOWN_BUGS 1)",
        look="the layout chosen where the input has one channel", layout="channels_last",
        example={"x": image((1, 2, 3)), "w": counting(2, 1, 1, 2)})
mistake("conv2d", "strides of the input ignored", lambda right, x, **g: right.conv2d(x=_unlike(lambda v: not is_channels_last(v), x), **g),
        look="a view that is not contiguous", layout="transposed", example={"x": image((1, 2), (3, 4)), "w": ONE})
mistake("conv2d", "strides of the weights ignored", lambda right, w, **g: right.conv2d(w=_unlike(lambda v: not is_channels_last(v), w), **g),
        seen="pytorch#1246, pytorch#55781 (KNOWN_BUGS 2)", look="a view that is not contiguous", layout="strided",
        example={"x": image((1, 2)), "w": image((1, 2))})
mistake("conv2d", "negative strides of the input read forwards", lambda right, x, **g: right.conv2d(x=read_forwards(x), **g),
        look="a view that runs backwards", layout="reversed", example={"x": image((1, 2)), "w": ONE})
mistake("conv2d", "input offset overflows", lambda right, x, **g: right.conv2d(x=_low_half(x), **g),
        seen="mlx#3248, rocm-libraries#4611 (KNOWN_BUGS 9)", look="the integer type of offsets into the input", example={"x": FAR, "w": ONE})
mistake("conv2d", "output offset overflows", lambda right, **g: _lost_beyond(right.conv2d(**g)), seen="tensorflow#112776 (KNOWN_BUGS 9)",
        look="the integer type of offsets into the result", example={"x": FAR, "w": ONE})
mistake("conv2d", "beta = 0 times what the buffer held", _onto_buffer, seen="MIOpen#1577, MIOpenGEMM#13 (KNOWN_BUGS 8)",
        look="0 * NaN: where beta is 0, store without reading", relation="prefilled", example={"x": ONE, "w": ONE})
mistake("conv2d", "sums in float16", _half, look="the format of the accumulator", example={"x": image((2048, 1)), "w": image((1, 1))})
mistake("conv2d", "Winograd F(4,3) in float16", _half_winograd, seen="rocm-libraries#3508, rocm-libraries#7024 (KNOWN_BUGS 10)",
        look="the error of the transforms, 14 times the direct bound", example={"x": image((1,)), "w": np.eye(3, dtype=np.float32)[None, None] / 3,
                                                                                "padding": 1})
mistake("conv2d_weight_grad", "only the last image counts, now and then", _lost_update, seen="NNlib.jl#197 (KNOWN_BUGS 15)", flickers=True,
        relation="repeat", look="a race: threads that add to the same sum",
        example={"gy": counting(2, 1, 1, 1), "x": counting(2, 1, 1, 1), "weight_shape": (1, 1, 1, 1)})
mistake("conv2d_weight_grad", "empty batch leaves it uninitialised", lambda right, gy, **g:
        right.conv2d_weight_grad(gy=gy, **g) if len(gy) else np.full(g["weight_shape"], np.nan, np.float32), seen="NNlib.jl#763 (KNOWN_BUGS 15)",
        look="a sum of nothing is zero", example={"gy": counting(0, 1, 1, 1), "x": counting(0, 1, 1, 1), "weight_shape": (1, 1, 1, 1)})
mistake("conv2d_input_grad", "channels_last gradient read as NCHW", lambda right, gy, **g:
        right.conv2d_input_grad(gy=_unlike(is_channels_last, gy), **g), look="strides of the gradient", layout="channels_last",
        example={"gy": counting(1, 2, 1, 2), "w": counting(2, 1, 1, 1), "input_shape": (1, 1, 1, 2)})
mistake("conv2d_weight_grad", "channels_last input read as NCHW", lambda right, x, **g:
        right.conv2d_weight_grad(x=_unlike(is_channels_last, x), **g), look="strides of the input", layout="channels_last",
        example={"gy": counting(1, 1, 1, 2), "x": counting(1, 2, 1, 2), "weight_shape": (1, 2, 1, 1)})
mistake("linear", "strides of the weights ignored", lambda right, w, **r: right.linear(w=_unlike(lambda v: True, w), **r),
        look="a view that is not contiguous", layout="strided", example={"x": counting(1, 2), "w": counting(1, 2)})
mistake("linear", "sums in float16", _half_linear, look="the format of the accumulator",
        example={"x": np.float32([[2048, 1]]), "w": np.float32([[1, 1]])})
mistake("softplus", "strides ignored", lambda right, x: right.softplus(read_as_contiguous(x)), look="a view that is not contiguous", layout="strided",
        example={"x": np.float32([1, 2])})
mistake("batch_norm", "channels_last input read as NCHW", lambda right, x, **r: right.batch_norm(x=_unlike(is_channels_last, x), **r),
        look="strides of the input", layout="channels_last",
        example={"x": counting(1, 2, 1, 2), **{name: np.float32([value] * 2) for name, value in
                                              (("gamma", 1), ("beta", 0), ("running_mean", 0), ("running_var", 1))}})
mistake("max_pool2d", "channels_last input read as NCHW", lambda right, x, **r: right.max_pool2d(x=_unlike(is_channels_last, x), **r),
        look="strides of the input", layout="channels_last", example={"x": counting(1, 2, 1, 2), "kernel": 1})
