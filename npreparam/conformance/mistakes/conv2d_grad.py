"""Mistakes in the gradients of a convolution, and in transposed convolution."""

from __future__ import annotations

from typing import Any

import numpy as np

from npreparam._shapes import Pair, extent
from npreparam.conformance.mistakes._registry import counting, image, mistake, row
from npreparam.conformance.mistakes._right import fitted
from npreparam.conformance.mistakes.conv2d import ONE, TWO, blank, first_for_all, interleaved, swap

NONE = ((0, 0), (0, 0))
FIRST = {"gy": counting(1, 1, 1, 1), "w": TWO, "input_shape": (1, 1, 1, 2)}  # one window, two taps
OF_WEIGHTS = {"gy": counting(1, 1, 1, 1), "x": TWO, "weight_shape": (1, 1, 1, 2)}


def _overwritten(right: Any, gy: Any, w: Any, **g: Any) -> Any:
    """Where windows overlap, the last tap's contribution in place of the sum."""
    total, one = None, np.ones((1, 1, *gy.shape[2:]))
    for kh, kw in np.ndindex(w.shape[2:]):
        only = np.zeros((1, 1, *w.shape[2:]))
        only[..., kh, kw] = 1
        part = right.conv2d_input_grad(gy=gy, w=np.where(only == 1, w, np.zeros_like(w)), **g)
        hit = right.conv2d_input_grad(gy=one, w=only, **{**g, "groups": 1, "input_shape": (1, 1, *g["input_shape"][2:])}) > 0
        total = part if total is None else np.where(hit, part, total)
    return total


def _undilated_size(right: Any, w: Any, input_shape: Any, dilation: Pair, **g: Any) -> Any:
    """The image that the windows of an undilated kernel cover; what the dilated ones see beyond it is zero."""
    y = right.conv2d_input_grad(w=w, input_shape=input_shape, dilation=dilation, **g)
    size = [min(full, (n - 1) * s - sum(p) + k) for full, n, s, p, k in
            zip(input_shape[2:], g["gy"].shape[2:], g["stride"], g["padding"], w.shape[2:], strict=True)]
    return fitted(y[:, :, :size[0], :size[1]], (0, 0), input_shape[2:])


def _no_tail_of_input(right: Any, x: Any, weight_shape: Any, stride: Pair, padding: Any, dilation: Pair, **g: Any) -> Any:
    """The remainder of the division by the stride cut off the image, although the padding behind it holds it."""
    for axis, (k, s, p, d) in enumerate(zip(weight_shape[2:], stride, padding, dilation, strict=True), 2):
        rest = (x.shape[axis] + sum(p) - extent(k, d)) % s
        x = blank(x, *[slice(None)] * axis, slice(x.shape[axis] - rest, None)) if rest else x
    return right.conv2d_weight_grad(x=x, weight_shape=weight_shape, stride=stride, padding=padding, dilation=dilation, **g)


def _ungrouped_shape(right: Any, weight_shape: Any, groups: int, **g: Any) -> Any:
    outputs, inputs, *kernel = weight_shape
    return right.conv2d_weight_grad(weight_shape=(outputs, inputs * groups, *kernel), groups=1, **g)


def _shuffled(y: Any) -> Any:
    """Taps written channels last, read channels first."""
    return np.transpose(y, (0, 2, 3, 1)).reshape(y.shape)


def _in_front(right: Any, output_padding: Pair, **g: Any) -> Any:
    """The extra rows and columns added before the image."""
    plain = right.conv_transpose2d(output_padding=(0, 0), **g)
    return fitted(plain, output_padding, tuple(n + more for n, more in zip(plain.shape[2:], output_padding, strict=True)))


def _zeros_behind(right: Any, output_padding: Pair, **g: Any) -> Any:
    """The extra rows and columns filled with zeros, without the bias and what the kernel reaches there."""
    plain = right.conv_transpose2d(output_padding=(0, 0), **g)
    return fitted(plain, (0, 0), tuple(n + more for n, more in zip(plain.shape[2:], output_padding, strict=True)))


mistake("conv2d_input_grad", "kernel not turned", lambda right, w, **g: right.conv2d_input_grad(w=w[..., ::-1, ::-1], **g),
        look="the adjoint has the kernel turned by half a turn", example=FIRST)
mistake("conv2d_input_grad", "size ignores dilation", _undilated_size, seen="pytorch#13008 (KNOWN_BUGS 12)",
        look="the extent d*(k - 1) + 1 in the image's size", example={**FIRST, "input_shape": (1, 1, 1, 3), "dilation": 2})
mistake("conv2d_input_grad", "kernel transposed", lambda right, w, **g: right.conv2d_input_grad(w=np.swapaxes(w, 2, 3), **g)
        if w.shape[2] == w.shape[3] else np.zeros(g["input_shape"], np.float32), look="height and width of the kernel exchanged",
        example={"gy": ONE, "w": image((1, 2), (3, 4)), "input_shape": (1, 1, 2, 2)})
mistake("conv2d_input_grad", "stride of H and W swapped", lambda right, stride, **g: right.conv2d_input_grad(stride=swap(stride), **g),
        look="order of the stride's two numbers", example={"gy": TWO, "w": ONE, "input_shape": (1, 1, 1, 3), "stride": (1, 2)})
mistake("conv2d_input_grad", "padding of H and W swapped", lambda right, padding, **g: right.conv2d_input_grad(padding=swap(padding), **g),
        look="order of the padding's two numbers", example={"gy": counting(1, 1, 1, 3), "w": ONE, "input_shape": (1, 1, 1, 1), "padding": (0, 1)})
mistake("conv2d_input_grad", "stride ignored", lambda right, stride, **g: right.conv2d_input_grad(stride=(1, 1), **g),
        look="zeros between the elements of the gradient", example={"gy": TWO, "w": ONE, "input_shape": (1, 1, 1, 3), "stride": 2})
mistake("conv2d_input_grad", "padding ignored", lambda right, padding, **g: right.conv2d_input_grad(padding=NONE, **g),
        look="the border cut off again", example={"gy": counting(1, 1, 1, 3), "w": ONE, "input_shape": (1, 1, 1, 1), "padding": (0, 1)})
mistake("conv2d_input_grad", "dilation ignored", lambda right, dilation, **g: right.conv2d_input_grad(dilation=(1, 1), **g),
        look="the distance of taps", example={**FIRST, "input_shape": (1, 1, 1, 3), "dilation": (1, 2)})
mistake("conv2d_input_grad", "overlapping windows overwrite each other", _overwritten,
        look="contributions are added up", example={"gy": TWO, "w": TWO, "input_shape": (1, 1, 1, 3)})
mistake("conv2d_input_grad", "weights of the first group used for all", lambda right, w, groups, **g:
        right.conv2d_input_grad(w=first_for_all(w, groups), groups=groups, **g), look="the output channel's offset of a group",
        example={"gy": counting(1, 2, 1, 1), "w": counting(2, 1, 1, 1), "input_shape": (1, 2, 1, 1), "groups": 2})
mistake("conv2d_input_grad", "every group sees the first group's gradient", lambda right, gy, groups, **g:
        right.conv2d_input_grad(gy=first_for_all(gy, groups, 1), groups=groups, **g), look="the gradient's channel offset of a group",
        example={"gy": counting(1, 2, 1, 1), "w": counting(2, 1, 1, 1), "input_shape": (1, 2, 1, 1), "groups": 2})
mistake("conv2d_input_grad", "weights' first two axes exchanged", lambda right, w, **g: right.conv2d_input_grad(w=np.swapaxes(w, 0, 1), **g),
        look="the sum runs over output channels", example={"gy": counting(1, 2, 1, 1), "w": counting(2, 2, 1, 1), "input_shape": (1, 2, 1, 1)})
mistake("conv2d_input_grad", "last column left out", lambda right, **g: blank(right.conv2d_input_grad(**g), ..., -1),
        look="the end of the loop over columns", example=FIRST)
mistake("conv2d_input_grad", "last row left out", lambda right, **g: blank(right.conv2d_input_grad(**g), ..., -1, slice(None)),
        look="the end of the loop over rows", example=FIRST)
mistake("conv2d_input_grad", "divided by the batch size", lambda right, gy, **g: right.conv2d_input_grad(gy=gy, **g) / max(1, len(gy)),
        look="the mean over the batch belongs to the loss", example={"gy": counting(2, 1, 1, 1), "w": ONE, "input_shape": (2, 1, 1, 1)})

mistake("conv2d_weight_grad", "tail of the input lost", _no_tail_of_input, seen="pytorch#50042, burn#1877 (KNOWN_BUGS 11)",
        look="sizes that the stride does not divide",
        example={"gy": ONE, "x": TWO, "weight_shape": (1, 1, 1, 3), "stride": 2, "padding": (0, 1)})
mistake("conv2d_weight_grad", "shape without groups", _ungrouped_shape, seen="mlx#2184 (KNOWN_BUGS 13)", look="axis 1 is input channels / groups",
        example={"gy": counting(1, 2, 1, 1), "x": counting(1, 2, 1, 1), "weight_shape": (2, 1, 1, 1), "groups": 2})
mistake("conv2d_weight_grad", "channels and taps mixed up", lambda right, **g: _shuffled(right.conv2d_weight_grad(**g)),
        seen="apple/tensorflow_macos#230 (KNOWN_BUGS 14)", look="the layout that the gradient is written in",
        example={"gy": ONE, "x": counting(1, 2, 1, 2), "weight_shape": (1, 2, 1, 2)})
mistake("conv2d_weight_grad", "stride cut to the kernel", lambda right, stride, **g: right.conv2d_weight_grad(
        stride=tuple(min(s, k) for s, k in zip(stride, g["weight_shape"][2:], strict=True)), **g), seen="pytorch#68868 (KNOWN_BUGS 16)",
        look="a stride larger than the kernel", example={"gy": TWO, "x": counting(1, 1, 1, 3), "weight_shape": (1, 1, 1, 1), "stride": (1, 2)})
mistake("conv2d_weight_grad", "kernel flipped", lambda right, **g: right.conv2d_weight_grad(**g)[..., ::-1, ::-1],
        look="order of the taps", example=OF_WEIGHTS)
mistake("conv2d_weight_grad", "kernel transposed", lambda right, **g: np.swapaxes(right.conv2d_weight_grad(**g), 2, 3),
        look="height and width of the kernel exchanged", example=OF_WEIGHTS)
mistake("conv2d_weight_grad", "stride and dilation exchanged", lambda right, stride, dilation, **g:
        right.conv2d_weight_grad(stride=dilation, dilation=stride, **g), look="as a convolution, its stride is the forward dilation",
        example={"gy": TWO, "x": counting(1, 1, 1, 3), "weight_shape": (1, 1, 1, 1), "stride": (1, 2)})
mistake("conv2d_weight_grad", "stride of H and W swapped", lambda right, stride, **g: right.conv2d_weight_grad(stride=swap(stride), **g),
        look="order of the stride's two numbers", example={"gy": TWO, "x": counting(1, 1, 1, 3), "weight_shape": (1, 1, 1, 1), "stride": (1, 2)})
mistake("conv2d_weight_grad", "padding of H and W swapped", lambda right, padding, **g: right.conv2d_weight_grad(padding=swap(padding), **g),
        look="order of the padding's two numbers",
        example={"gy": counting(1, 1, 1, 3), "x": ONE, "weight_shape": (1, 1, 1, 1), "padding": (0, 1)})
mistake("conv2d_weight_grad", "padding ignored", lambda right, padding, **g: right.conv2d_weight_grad(padding=NONE, **g),
        look="the offset of the first window", example={"gy": counting(1, 1, 1, 3), "x": ONE, "weight_shape": (1, 1, 1, 1), "padding": (0, 1)})
mistake("conv2d_weight_grad", "dilation ignored", lambda right, dilation, **g: right.conv2d_weight_grad(dilation=(1, 1), **g),
        look="the distance of taps", example={"gy": ONE, "x": counting(1, 1, 1, 3), "weight_shape": (1, 1, 1, 2), "dilation": (1, 2)})
mistake("conv2d_weight_grad", "only the last image counts", lambda right, gy, x, **g: right.conv2d_weight_grad(gy=gy[-1:], x=x[-1:], **g),
        look="the sum over the batch", example={"gy": counting(2, 1, 1, 1), "x": counting(2, 1, 1, 1), "weight_shape": (1, 1, 1, 1)})
mistake("conv2d_weight_grad", "last image left out", lambda right, gy, x, **g: right.conv2d_weight_grad(gy=gy[:-1], x=x[:-1], **g),
        look="the end of the loop over the batch", example={"gy": ONE, "x": ONE, "weight_shape": (1, 1, 1, 1)})
mistake("conv2d_weight_grad", "divided by the batch size", lambda right, gy, **g: right.conv2d_weight_grad(gy=gy, **g) / max(1, len(gy)),
        look="the mean over the batch belongs to the loss",
        example={"gy": counting(2, 1, 1, 1), "x": counting(2, 1, 1, 1), "weight_shape": (1, 1, 1, 1)})
mistake("conv2d_weight_grad", "divided by the number of pixels", lambda right, gy, **g:
        right.conv2d_weight_grad(gy=gy, **g) / (gy.shape[2] * gy.shape[3]), look="a sum over pixels, not a mean",
        example={"gy": TWO, "x": TWO, "weight_shape": (1, 1, 1, 1)})
mistake("conv2d_weight_grad", "every group sees the first group's channels", lambda right, x, groups, **g:
        right.conv2d_weight_grad(x=first_for_all(x, groups, 1), groups=groups, **g), look="the input channel's offset of a group",
        example={"gy": counting(1, 2, 1, 1), "x": counting(1, 2, 1, 1), "weight_shape": (2, 1, 1, 1), "groups": 2})
mistake("conv2d_weight_grad", "input channels dealt out to groups in turn", lambda right, x, groups, **g:
        right.conv2d_weight_grad(x=interleaved(x, groups, 1), groups=groups, **g), look="groups are blocks of neighbouring channels",
        example={"gy": counting(1, 2, 1, 1), "x": counting(1, 4, 1, 1), "weight_shape": (2, 2, 1, 1), "groups": 2})

UP = {"x": ONE, "w": TWO}
mistake("conv_transpose2d", "kernel flipped", lambda right, w, **g: right.conv_transpose2d(w=w[..., ::-1, ::-1], **g),
        look="the adjoint has the kernel turned once, not twice", example=UP)
mistake("conv_transpose2d", "weights read as (out, in)", lambda right, w, **g: right.conv_transpose2d(w=np.swapaxes(w, 0, 1), **g),
        look="order of the weights' first two axes: (in, out/groups)", example={"x": counting(1, 2, 1, 1), "w": counting(2, 2, 1, 1)})
mistake("conv_transpose2d", "stride ignored", lambda right, stride, **g: right.conv_transpose2d(stride=(1, 1), **g),
        look="zeros between the elements", example={"x": TWO, "w": ONE, "stride": 2})
mistake("conv_transpose2d", "stride of H and W swapped", lambda right, stride, **g: right.conv_transpose2d(stride=swap(stride), **g),
        look="order of the stride's two numbers", example={"x": TWO, "w": ONE, "stride": (1, 2)})
mistake("conv_transpose2d", "padding of H and W swapped", lambda right, padding, **g: right.conv_transpose2d(padding=swap(padding), **g),
        look="order of the padding's two numbers", example={"x": counting(1, 1, 3, 3), "w": ONE, "padding": (0, 1)})
mistake("conv_transpose2d", "padding ignored", lambda right, padding, **g: right.conv_transpose2d(padding=NONE, **g),
        look="padding takes rows and columns away", example={"x": counting(1, 1, 3, 3), "w": ONE, "padding": 1})
mistake("conv_transpose2d", "padding added", lambda right, padding, **g:
        right.conv_transpose2d(padding=tuple((-a, -z) for a, z in padding), **g), look="padding takes rows and columns away",
        example={"x": counting(1, 1, 3, 3), "w": ONE, "padding": 1})
mistake("conv_transpose2d", "output padding ignored", lambda right, output_padding, **g: right.conv_transpose2d(output_padding=(0, 0), **g),
        look="the output's size", example={"x": ONE, "w": ONE, "stride": 2, "output_padding": 1})
mistake("conv_transpose2d", "output padding in front", _in_front, look="the extra rows and columns come last",
        example={"x": ONE, "w": ONE, "stride": (1, 2), "output_padding": (0, 1)})
mistake("conv_transpose2d", "output padding filled with zeros", _zeros_behind, look="the bias, and the kernel's reach, in the extra rows and columns",
        example={"x": ONE, "w": ONE, "b": row(1), "stride": (1, 2), "output_padding": (0, 1)})
mistake("conv_transpose2d", "output padding of H and W swapped", lambda right, output_padding, **g:
        right.conv_transpose2d(output_padding=swap(output_padding), **g), look="order of its two numbers",
        example={"x": ONE, "w": ONE, "stride": 2, "output_padding": (0, 1)})
mistake("conv_transpose2d", "dilation ignored", lambda right, dilation, **g: right.conv_transpose2d(dilation=(1, 1), **g),
        look="the distance of taps", example={**UP, "dilation": 2})
mistake("conv_transpose2d", "bias left out", lambda right, b, **g: right.conv_transpose2d(b=None, **g),
        look="the bias", example={"x": ONE, "w": ONE, "b": row(1)})
mistake("conv_transpose2d", "bias added twice", lambda right, b, **g: right.conv_transpose2d(b=b + b, **g),
        look="the bias, in the accumulator's start and again at the end", example={"x": ONE, "w": ONE, "b": row(1)})
mistake("conv_transpose2d", "every group sees the first group's channels", lambda right, x, groups, **g:
        right.conv_transpose2d(x=first_for_all(x, groups, 1), groups=groups, **g), look="the input channel's offset of a group",
        example={"x": counting(1, 2, 1, 1), "w": counting(2, 1, 1, 1), "groups": 2})
mistake("conv_transpose2d", "output channels dealt out to groups in turn", lambda right, groups, **g:
        interleaved(right.conv_transpose2d(groups=groups, **g), groups, 1), look="output channels of a group are neighbours",
        example={"x": counting(1, 2, 1, 1), "w": counting(2, 2, 1, 1), "groups": 2})
