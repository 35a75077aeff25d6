"""Convolution and its gradients as their definitions say, over rational numbers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npreparam._errors import ShapeError
from npreparam._shapes import Padding, Size2, Window, as_int
from npreparam.exact.rounding import as_fractions, checked, finish

Array = NDArray[Any]
Index = tuple[int, ...]


def _terms(x_shape: Sequence[int], w_shape: Sequence[int], window: Window) -> Iterator[tuple[Index, Index, Index]]:
    """All (index of y, index of x, index of w) whose product is a term of the convolution: its definition."""
    n_images, channels, height, width = x_shape
    outputs, inputs, kh_size, kw_size = w_shape
    if inputs * window.groups != channels or outputs % window.groups:
        raise ShapeError(f"`in_channels` (={channels}) must be axis 1 of `w` (={inputs}) times `groups` (={window.groups}), "
                         f"and `groups` must divide `out_channels` (={outputs})")
    (sh, sw), (dh, dw), ((top, _), (left, _)) = window.stride, window.dilation, window.padding
    ho, wo = window.checked_output_size((height, width))
    for n, o, r, c, i, kh, kw in itertools.product(*map(range, (n_images, outputs, ho, wo, inputs, kh_size, kw_size))):
        ih, iw = r * sh + kh * dh - top, c * sw + kw * dw - left
        if 0 <= ih < height and 0 <= iw < width:
            yield (n, o, r, c), (n, o // (outputs // window.groups) * inputs + i, ih, iw), (o, i, kh, kw)


def _output_shape(x_shape: Sequence[int], w_shape: Sequence[int], window: Window) -> Index:
    return (x_shape[0], w_shape[0], *window.checked_output_size((x_shape[2], x_shape[3])))


def _as_shape(shape: Any, name: str) -> Index:
    """A shape that a user passed, as four ints."""
    if not isinstance(shape, Sequence) or len(shape) != 4:
        raise ShapeError(f"`{name}` (={shape!r}) must be a sequence of 4 sizes")
    return tuple(as_int(size, name, 0) for size in shape)


def _zeros(shape: Sequence[int]) -> Array:
    zeros = np.empty(tuple(shape), object)
    zeros.fill(Fraction(0))
    return zeros


def _window(x_shape: Sequence[int], w_shape: Sequence[int], stride: Size2, padding: Padding, dilation: Size2, groups: int) -> Window:
    if len(x_shape) != 4 or len(w_shape) != 4:
        raise ShapeError(f"`x` has shape {tuple(x_shape)} and `w` {tuple(w_shape)}, but both must have 4 axes: NCHW and OIHW")
    return Window.of((w_shape[2], w_shape[3]), stride, padding, dilation, groups, size=(x_shape[2], x_shape[3]))


def conv2d(x: Any, w: Any, b: Any = None, stride: Size2 = 1, padding: Padding = 0, dilation: Size2 = 1, groups: int = 1,
           out_dtype: Any = "same") -> Array:
    """The correctly rounded convolution: y[n, o, r, c] = b[o] + sum of w*x over the taps inside the image.

    x NCHW, w OIHW, b (O,), of floats or integers (or Fractions). `out_dtype` is the dtype to round to, by default that of the first
    argument; None leaves Fractions.

    Rounding: once, to nearest, ties to even; overflow to infinity.

    Raises ShapeError, DTypeError, ArgumentError (geometry; NaN or infinity).

    Source: IEEE 754-2019, 4.3.1 (rounding); ONNX operator Conv (geometry).

    >>> conv2d(np.float32([[[[1, 2**-25]]]]), np.float32([[[[1, 1]]]]))    # 1 + 2^-25 rounds to 1
    array([[[[1.]]]], dtype=float32)
    """
    exact_x, exact_w = as_fractions(x, "x"), as_fractions(w, "w")
    window = _window(exact_x.shape, exact_w.shape, stride, padding, dilation, groups)
    y = _zeros(_output_shape(exact_x.shape, exact_w.shape, window))
    if b is not None:
        y += checked(as_fractions(b, "b"), "b", exact_w.shape[:1]).reshape(1, -1, 1, 1)
    for at_y, at_x, at_w in _terms(exact_x.shape, exact_w.shape, window):
        y[at_y] += exact_w[at_w] * exact_x[at_x]
    return finish(y, out_dtype, x)


def conv2d_input_grad(gy: Any, w: Any, input_shape: Sequence[int], stride: Size2 = 1, padding: Padding = 0, dilation: Size2 = 1,
                      groups: int = 1, out_dtype: Any = "same") -> Array:
    """The correctly rounded gradient with respect to x: every term gy*w of <gy, conv2d(x, w)> added where its x stood.

    gy (N, O, Ho, Wo), w OIHW; `out_dtype`, rounding and errors as in `conv2d`.

    >>> conv2d_input_grad(np.ones((1, 1, 1, 2)), np.ones((1, 1, 1, 2)), (1, 1, 1, 3))
    array([[[[1., 2., 1.]]]])
    """
    exact_gy, exact_w = as_fractions(gy, "gy"), as_fractions(w, "w")
    input_shape = _as_shape(input_shape, "input_shape")
    window = _window(input_shape, exact_w.shape, stride, padding, dilation, groups)
    checked(exact_gy, "gy", _output_shape(input_shape, exact_w.shape, window))
    gx = _zeros(input_shape)
    for at_y, at_x, at_w in _terms(input_shape, exact_w.shape, window):
        gx[at_x] += exact_gy[at_y] * exact_w[at_w]
    return finish(gx, out_dtype, gy)


def conv2d_weight_grad(gy: Any, x: Any, weight_shape: Sequence[int], stride: Size2 = 1, padding: Padding = 0, dilation: Size2 = 1,
                       groups: int = 1, out_dtype: Any = "same") -> Array:
    """The correctly rounded gradient with respect to w: every term gy*x of <gy, conv2d(x, w)> added where its w stood.

    gy (N, O, Ho, Wo), x NCHW; `out_dtype`, rounding and errors as in `conv2d`.

    >>> conv2d_weight_grad(np.ones((1, 1, 1, 2)), np.ones((1, 1, 1, 3)), (1, 1, 1, 2))
    array([[[[2., 2.]]]])
    """
    exact_gy, exact_x = as_fractions(gy, "gy"), as_fractions(x, "x")
    weight_shape = _as_shape(weight_shape, "weight_shape")
    window = _window(exact_x.shape, weight_shape, stride, padding, dilation, groups)
    checked(exact_gy, "gy", _output_shape(exact_x.shape, weight_shape, window))
    gw = _zeros(weight_shape)
    for at_y, at_x, at_w in _terms(exact_x.shape, weight_shape, window):
        gw[at_w] += exact_gy[at_y] * exact_x[at_x]
    return finish(gw, out_dtype, gy)
