"""Mistakes in convolution: the kernel, geometry, channels, bias, borders and sizes."""

from __future__ import annotations

from typing import Any

import numpy as np

from npreparam._shapes import Pair, Sides, extent
from npreparam.conformance.mistakes._registry import counting, image, mistake, row
from npreparam.conformance.mistakes._right import output_size

ONE, TWO = image((1,)), image((1, 2))


def swap(pair: Any) -> Any:
    """Height and width exchanged."""
    return pair[1], pair[0]


def both(pair: Any) -> Any:
    """What belongs to the height, for the width as well."""
    return pair[0], pair[0]


def interleaved(x: Any, groups: int, axis: int) -> Any:
    """Channels that are counted group by group, dealt out one to each group in turn.

    >>> interleaved(np.arange(4), 2, 0)
    array([0, 2, 1, 3])
    """
    order = np.arange(x.shape[axis]).reshape(groups, -1).T.ravel()
    return x[(slice(None),) * axis + (order,)]


def first_for_all(x: Any, count: int, axis: int = 0) -> Any:
    """The first of `count` equal parts in place of each."""
    length = x.shape[axis] // count
    return x[(slice(None),) * axis + (np.arange(x.shape[axis]) % max(1, length),)]


def _sized(right: Any, arguments: dict[str, Any], **changed: Any) -> Any:
    """The right convolution of changed arguments, as many windows as the unchanged ones have."""
    x, w = arguments["x"], arguments["w"]
    out = output_size(x, w.shape[2:], arguments["stride"], arguments["padding"], arguments["dilation"])
    return right.conv2d(**{"out": out, **arguments, **changed})


def _between(right: Any, x: Any, w: Any, stride: Pair, dilation: Pair, **rest: Any) -> Any:
    """Where both stride and dilation exceed 1, taps are a stride further apart."""
    wrong = tuple(d * s if d > 1 else d for s, d in zip(stride, dilation, strict=True))
    return _sized(right, {"x": x, "w": w, "stride": stride, "dilation": dilation, **rest}, dilation=wrong)


def _padded(right: Any, mode: str, x: Any, padding: Sides, **rest: Any) -> Any:
    """Borders filled from the image: np.pad's edge, reflect or wrap by indices."""
    index = [np.pad(np.arange(n), side, mode) for n, side in zip(x.shape[2:], padding, strict=True)]  # type: ignore[call-overload]
    return right.conv2d(x=x[:, :, index[0]][:, :, :, index[1]], padding=((0, 0), (0, 0)), **rest)


def _constant(right: Any, x: Any, b: Any, padding: Sides, **rest: Any) -> Any:
    """Borders filled with the bias, in place of zero."""
    inside = np.pad(np.ones(x.shape[2:]), padding) == 1
    framed = np.where(inside, np.pad(x, ((0, 0), (0, 0), *padding)), b[:x.shape[1]].reshape(1, -1, 1, 1))
    return right.conv2d(x=framed, b=b, padding=((0, 0), (0, 0)), **rest)


def _lower(padding: Sides) -> Sides:
    """The odd element of padding at the other end."""
    top, left = (side[::-1] if abs(side[0] - side[1]) == 1 else side for side in padding)
    return top, left


def _rounded_up(right: Any, x: Any, w: Any, stride: Pair, padding: Sides, dilation: Pair, **rest: Any) -> Any:
    out = tuple(-(-(n + sum(p) - extent(k, d)) // s) + 1 for n, k, s, p, d in
                zip(x.shape[2:], w.shape[2:], stride, padding, dilation, strict=True))
    return right.conv2d(x=x, w=w, stride=stride, padding=padding, dilation=dilation, out=out, **rest)


def blank(y: Any, *at: Any) -> Any:
    """y with a part of it left at zero."""
    keep = np.ones(y.shape)
    keep[at] = 0
    return np.where(keep == 1, y, np.zeros_like(y))


def _no_tail(right: Any, w: Any, **rest: Any) -> Any:
    """The last row and column of taps left out, where there are others."""
    for axis in (2, 3):
        if w.shape[axis] > 1:
            w = blank(w, *[slice(None)] * axis, -1)
    return right.conv2d(w=w, **rest)


def _bias_along_rows(right: Any, b: Any, **rest: Any) -> Any:
    y = right.conv2d(b=None, **rest)
    return y + b.reshape(1, 1, -1, 1) if y.shape[2] == len(b) else y + b.reshape(1, 1, 1, -1)


def _without(right: Any, x: Any, channel: int, **rest: Any) -> Any:
    return right.conv2d(x=blank(x, slice(None), channel), **rest)


def _first_row_of_windows(right: Any, x: Any, w: Any, stride: Pair, padding: Sides, dilation: Pair, **rest: Any) -> Any:
    """Windows begin where the image does: padding only enlarges the output."""
    out = output_size(x, w.shape[2:], stride, padding, dilation)
    return right.conv2d(x=x, w=w, stride=stride, padding=((0, 0), (0, 0)), dilation=dilation, **{"out": out, **rest})


mistake("conv2d", "kernel flipped", lambda right, w, **g: right.conv2d(w=w[..., ::-1, ::-1], **g), seen="KNOWN_BUGS 6",
        look="true convolution in place of cross-correlation: do not turn the kernel",
        example={"x": image((1, 2), (3, 4)), "w": image((1, 2), (3, 4))})
mistake("conv2d", "kernel flipped in height", lambda right, w, **g: right.conv2d(w=w[..., ::-1, :], **g),
        look="order of the kernel's rows", example={"x": image((1,), (2,)), "w": image((1,), (2,))})
mistake("conv2d", "kernel flipped in width", lambda right, w, **g: right.conv2d(w=w[..., ::-1], **g),
        look="order of the kernel's columns", example={"x": TWO, "w": TWO})
mistake("conv2d", "kernel transposed", lambda right, w, **g: right.conv2d(w=np.swapaxes(w, 2, 3), **g),
        look="height and width of the kernel exchanged", example={"x": image((1, 2), (3, 4)), "w": image((1, 2), (3, 4))})
mistake("conv2d", "stride of H and W swapped", lambda right, stride, **g: right.conv2d(stride=swap(stride), **g), seen="KNOWN_BUGS 7",
        look="order of the stride's two numbers", example={"x": counting(1, 1, 1, 2), "w": ONE, "stride": (1, 2)})
mistake("conv2d", "stride of H and W swapped, size right", lambda right, stride, **g: _sized(right, {"stride": stride, **g}, stride=swap(stride)),
        look="order of the stride's two numbers in the loops", example={"x": counting(1, 1, 1, 3), "w": ONE, "stride": (1, 2)})
mistake("conv2d", "padding of H and W swapped", lambda right, padding, **g: right.conv2d(padding=swap(padding), **g), seen="KNOWN_BUGS 7",
        look="order of the padding's two numbers", example={"x": ONE, "w": ONE, "padding": (0, 1)})
mistake("conv2d", "padding of H and W swapped, size right",
        lambda right, padding, **g: _sized(right, {"padding": padding, **g}, padding=swap(padding)),
        look="order of the padding's two numbers in the loops", example={"x": ONE, "w": ONE, "padding": (0, 1)})
mistake("conv2d", "dilation of H and W swapped", lambda right, dilation, **g: right.conv2d(dilation=swap(dilation), **g),
        look="order of the dilation's two numbers", example={"x": counting(1, 1, 1, 3), "w": TWO, "dilation": (1, 2)})
mistake("conv2d", "stride of H used for W", lambda right, stride, **g: right.conv2d(stride=both(stride), **g),
        look="the second number of the stride", example={"x": counting(1, 1, 1, 2), "w": ONE, "stride": (1, 2)})
mistake("conv2d", "padding of H used for W", lambda right, padding, **g: right.conv2d(padding=both(padding), **g),
        look="the second number of the padding", example={"x": ONE, "w": ONE, "padding": (0, 1)})
mistake("conv2d", "dilation of H used for W", lambda right, dilation, **g: right.conv2d(dilation=both(dilation), **g),
        look="the second number of the dilation", example={"x": counting(1, 1, 1, 3), "w": TWO, "dilation": (1, 2)})
mistake("conv2d", "stride ignored", lambda right, stride, **g: right.conv2d(stride=(1, 1), **g),
        look="the stride is not passed on", example={"x": TWO, "w": ONE, "stride": 2})
mistake("conv2d", "stride ignored, size right", lambda right, stride, **g: _sized(right, {"stride": stride, **g}, stride=(1, 1)),
        look="the stride is not used in the loops", example={"x": counting(1, 1, 1, 3), "w": ONE, "stride": 2})
mistake("conv2d", "padding ignored", lambda right, padding, **g: right.conv2d(padding=((0, 0), (0, 0)), **g),
        look="the padding is not passed on", example={"x": ONE, "w": ONE, "padding": 1})
mistake("conv2d", "padding enlarges the output only", _first_row_of_windows,
        look="the offset -padding of the first window", example={"x": ONE, "w": ONE, "padding": (0, 1)})
mistake("conv2d", "dilation ignored", lambda right, dilation, **g: _sized(right, {"dilation": dilation, **g}, dilation=(1, 1)),
        seen="tensorflow#19992, ncnn#315 (KNOWN_BUGS 4)", look="the distance of taps, depthwise kernels first",
        example={"x": counting(1, 1, 1, 3), "w": TWO, "dilation": (1, 2)})
mistake("conv2d", "dilation ignored, size too", lambda right, dilation, **g: right.conv2d(dilation=(1, 1), **g),
        look="the dilation is not passed on", example={"x": counting(1, 1, 1, 3), "w": TWO, "dilation": (1, 2)})
mistake("conv2d", "dilation and stride mixed up", _between, seen="tensorflow#100237 (KNOWN_BUGS 5)",
        look="taps a dilation apart, whatever the stride", example={"x": counting(1, 1, 1, 3), "w": TWO, "stride": 2, "dilation": 2})
mistake("conv2d", "stride and dilation exchanged", lambda right, stride, dilation, **g: right.conv2d(stride=dilation, dilation=stride, **g),
        look="order of the arguments stride and dilation", example={"x": counting(1, 1, 1, 3), "w": TWO, "stride": 2})
mistake("conv2d", "every group sees the first group's channels", lambda right, x, groups, **g:
        right.conv2d(x=first_for_all(x, groups, 1), groups=groups, **g),
        look="the input channel's offset of a group", example={"x": counting(1, 2, 1, 1), "w": row(1, 1).reshape(2, 1, 1, 1), "groups": 2})
mistake("conv2d", "input channels dealt out to groups in turn", lambda right, x, groups, **g:
        right.conv2d(x=interleaved(x, groups, 1), groups=groups, **g),
        look="groups are blocks of neighbouring channels", example={"x": counting(1, 4, 1, 1), "w": row(1, 0, 1, 0).reshape(2, 2, 1, 1), "groups": 2})
mistake("conv2d", "output channels dealt out to groups in turn", lambda right, w, b, groups, **g:
        interleaved(right.conv2d(w=w, b=b, groups=groups, **g), groups, 1), look="output channels of a group are neighbours",
        example={"x": counting(1, 2, 1, 1), "w": counting(4, 1, 1, 1), "groups": 2})
mistake("conv2d", "weights of the first group used for all", lambda right, w, groups, **g:
        right.conv2d(w=first_for_all(w, groups), groups=groups, **g),
        look="the output channel's offset of a group", example={"x": counting(1, 2, 1, 1), "w": counting(2, 1, 1, 1), "groups": 2})
mistake("conv2d", "only the first group computed", lambda right, groups, **g:
        (lambda y: blank(y, slice(None), slice(y.shape[1] // groups, None)))(right.conv2d(groups=groups, **g)),
        look="the loop over groups", example={"x": counting(1, 2, 1, 1), "w": counting(2, 1, 1, 1), "groups": 2})
mistake("conv2d", "weights read as IOHW", lambda right, w, **g: right.conv2d(w=np.swapaxes(w, 0, 1), **g),
        look="order of the weights' first two axes", example={"x": counting(1, 2, 1, 1), "w": counting(2, 2, 1, 1)})
mistake("conv2d", "weights read as HWIO", lambda right, w, **g:
        right.conv2d(w=np.transpose(w.reshape(*w.shape[2:], w.shape[1], w.shape[0]), (3, 2, 0, 1)), **g),
        look="order of the weights' axes", example={"x": TWO, "w": counting(2, 1, 1, 2)}, seldom=True)
mistake("conv2d", "input channels in reverse", lambda right, x, **g: right.conv2d(x=x[:, ::-1], **g),
        look="order of the channels (BGR for RGB)", example={"x": counting(1, 2, 1, 1), "w": row(1, 0).reshape(1, 2, 1, 1)})
mistake("conv2d", "last input channel left out", lambda right, x, **g: _without(right, x, -1, **g),
        look="the end of the loop over input channels, a remainder of the vector width", example={"x": ONE, "w": ONE})
mistake("conv2d", "first input channel left out", lambda right, x, **g: _without(right, x, 0, **g),
        look="the start of the loop over input channels", example={"x": counting(1, 2, 1, 1), "w": counting(1, 2, 1, 1)})
mistake("conv2d", "last row and column of taps left out", _no_tail,
        look="the end of the loop over taps", example={"x": TWO, "w": TWO})
mistake("conv2d", "bias left out", lambda right, b, **g: right.conv2d(b=None, **g),
        look="the bias", example={"x": ONE, "w": ONE, "b": row(1)})
mistake("conv2d", "bias added twice", lambda right, b, **g: right.conv2d(b=b + b, **g),
        look="the bias, in the accumulator's start and again at the end", example={"x": ONE, "w": ONE, "b": row(1)})
mistake("conv2d", "bias subtracted", lambda right, b, **g: right.conv2d(b=-b, **g),
        look="the bias's sign", example={"x": ONE, "w": ONE, "b": row(1)})
mistake("conv2d", "bias along the wrong axis", _bias_along_rows,
        look="the axis that the bias is broadcast along", example={"x": image((1, 2)), "w": row(1, 1).reshape(2, 1, 1, 1), "b": row(1, 2)})
mistake("conv2d", "bias of the first channel used for all", lambda right, b, **g: right.conv2d(b=first_for_all(b, len(b)), **g),
        look="the bias's index", example={"x": ONE, "w": row(1, 1).reshape(2, 1, 1, 1), "b": row(1, 2)})
mistake("conv2d", "border filled with the bias", _constant,
        look="padding is zero, before the convolution", example={"x": ONE, "w": ONE, "b": row(1), "padding": 1})
mistake("conv2d", "border filled with the nearest element", lambda right, x, padding, **g: _padded(right, "edge", x, padding, **g),
        look="padding is zero", example={"x": ONE, "w": ONE, "padding": 1})
mistake("conv2d", "border wrapped around", lambda right, x, padding, **g: _padded(right, "wrap", x, padding, **g),
        look="padding is zero, not circular", example={"x": TWO, "w": ONE, "padding": (0, 1)})
mistake("conv2d", "border mirrored", lambda right, x, padding, **g: _padded(right, "reflect", x, padding, **g),
        look="padding is zero", example={"x": TWO, "w": ONE, "padding": (0, 1)})
mistake("conv2d", "border mirrored, the edge repeated", lambda right, x, padding, **g:
        _padded(right, "symmetric", x, padding, **g), look="padding is zero",
        example={"x": image((1, 2, 3)), "w": ONE, "padding": (0, 2)}, seldom=True)
mistake("conv2d", "odd padding at the wrong end", lambda right, padding, **g: right.conv2d(padding=_lower(padding), **g),
        look="SAME_UPPER and SAME_LOWER", example={"x": TWO, "w": TWO, "padding": "SAME_UPPER"})
mistake("conv2d", "first window one too far out", lambda right, padding, **g:
        _sized(right, {"padding": padding, **g}, padding=tuple((side[0] + 1, side[1]) for side in padding)),
        look="the offset of the first window", example={"x": ONE, "w": ONE})
mistake("conv2d", "first window one too far in", lambda right, padding, **g:
        _sized(right, {"padding": padding, **g}, padding=tuple((side[0] - 1, side[1]) for side in padding)),
        look="the offset of the first window", example={"x": image((1, 2)), "w": ONE})
mistake("conv2d", "padding one too much", lambda right, padding, **g: right.conv2d(padding=tuple((a + 1, z + 1) for a, z in padding), **g),
        look="the amount of padding", example={"x": ONE, "w": ONE})
mistake("conv2d", "output size rounded up", _rounded_up,
        look="floor((size + padding - extent)/stride) + 1", example={"x": TWO, "w": ONE, "stride": 2})
mistake("conv2d", "last output row left out", lambda right, **g: (lambda y: blank(y, slice(None), slice(None), -1))(right.conv2d(**g)),
        look="the end of the loop over rows", example={"x": ONE, "w": ONE})
mistake("conv2d", "last output column left out", lambda right, **g: (lambda y: blank(y, ..., -1))(right.conv2d(**g)),
        look="the end of the loop over columns, a remainder of the tile", example={"x": image((1,), (2,)), "w": ONE})
mistake("conv2d", "last image left out", lambda right, **g: (lambda y: blank(y, -1))(right.conv2d(**g)),
        look="the end of the loop over the batch", example={"x": counting(2, 1, 1, 1), "w": ONE})
mistake("conv2d", "first image used for the whole batch", lambda right, x, **g: right.conv2d(x=first_for_all(x, len(x)), **g),
        look="the image's offset in the batch", example={"x": counting(2, 1, 1, 1), "w": ONE})
mistake("conv2d", "result transposed", lambda right, **g: np.swapaxes(right.conv2d(**g), 2, 3),
        look="order of height and width in the result", example={"x": image((1, 2)), "w": ONE})
mistake("conv2d", "negative results cut off", lambda right, **g: np.maximum(right.conv2d(**g), 0.0),
        look="a fused activation", example={"x": -ONE, "w": ONE})
mistake("conv2d", "NaN replaced by zero", lambda right, x, **g: right.conv2d(x=np.where(np.isnan(x), np.zeros_like(x), x), **g),
        look="special values must pass", example={"x": image((np.nan,)), "w": ONE})
