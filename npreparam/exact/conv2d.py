"""Convolution, its gradients and the transposed convolution as their definitions say, over rational numbers.

Every result is a sum of products over the taps inside the image. `over_common` turns the numbers into integers times one unit, so the sums
are integer sums. NaN and infinities among the terms follow the rules in `special`; an exact zero is +0.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from npreparam._errors import ArgumentError, ShapeError
from npreparam._shapes import Padding, Size2, Window, as_int, as_pair
from npreparam.exact.rounding import Array, checked, finish, operand, over_common

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


def _sums(shape: Sequence[int], terms: Iterator[tuple[Index, Index, Index]], a: Array, b: Array) -> Array:
    """For every index the sum of a*b over its terms, given as (index of the sum, index of a, index of b)."""
    (left, left_unit), (right, right_unit) = over_common(a), over_common(b)
    sums = np.zeros(tuple(shape), object)
    for at, at_a, at_b in terms:
        sums[at] += left[at_a] * right[at_b]
    return sums * (left_unit * right_unit)


def _window(x_shape: Sequence[int], w_shape: Sequence[int], stride: Size2, padding: Padding, dilation: Size2, groups: int) -> Window:
    if len(x_shape) != 4 or len(w_shape) != 4:
        raise ShapeError(f"`x` has shape {tuple(x_shape)} and `w` {tuple(w_shape)}, but both must have 4 axes: NCHW and OIHW")
    return Window.of((w_shape[2], w_shape[3]), stride, padding, dilation, groups, size=(x_shape[2], x_shape[3]))


def conv2d(x: Any, w: Any, b: Any = None, stride: Size2 = 1, padding: Padding = 0, dilation: Size2 = 1, groups: int = 1,
           out_dtype: Any = "same") -> Array:
    """The correctly rounded convolution: y[n, o, r, c] = b[o] + sum of w*x over the taps inside the image.

    x NCHW, w OIHW, b (O,), of floats or integers (or Fractions). `out_dtype` is the dtype to round to, by default that of the first
    argument; None leaves Fractions. NaN, 0*inf or infinities of both signs among the terms give NaN, else an infinite term its infinity;
    padding is no term.

    Rounding: once, to nearest, ties to even; overflow to infinity; an exact zero is +0, a negative value that underflows -0.

    Raises ShapeError, DTypeError, ArgumentError (geometry; NaN or infinity where `out_dtype` is None).

    Source: IEEE 754-2019, 4.3.1 (rounding), 6.1 and 7.2 (infinities, NaN); ONNX operator Conv (geometry).

    >>> conv2d(np.float32([[[[1, 2**-25]]]]), np.float32([[[[1, 1]]]]))    # 1 + 2^-25 rounds to 1
    array([[[[1.]]]], dtype=float32)
    """
    exact_x, exact_w = operand(x, "x", out_dtype), operand(w, "w", out_dtype)
    window = _window(exact_x.shape, exact_w.shape, stride, padding, dilation, groups)
    terms = _terms(exact_x.shape, exact_w.shape, window)
    y = _sums(_output_shape(exact_x.shape, exact_w.shape, window), terms, exact_x, exact_w)
    return finish(_add_bias(y, b, out_dtype), out_dtype, x)


def conv2d_input_grad(gy: Any, w: Any, input_shape: Sequence[int], stride: Size2 = 1, padding: Padding = 0, dilation: Size2 = 1,
                      groups: int = 1, out_dtype: Any = "same") -> Array:
    """The correctly rounded gradient with respect to x: every term gy*w of <gy, conv2d(x, w)> added where its x stood.

    gy (N, O, Ho, Wo), w OIHW; `out_dtype`, rounding, NaN and infinities, errors as in `conv2d`.

    >>> conv2d_input_grad(np.ones((1, 1, 1, 2)), np.ones((1, 1, 1, 2)), (1, 1, 1, 3))
    array([[[[1., 2., 1.]]]])
    """
    exact_gy, exact_w = operand(gy, "gy", out_dtype), operand(w, "w", out_dtype)
    input_shape = _as_shape(input_shape, "input_shape")
    window = _window(input_shape, exact_w.shape, stride, padding, dilation, groups)
    checked(exact_gy, "gy", _output_shape(input_shape, exact_w.shape, window))
    return finish(_input_grad(exact_gy, exact_w, input_shape, window), out_dtype, gy)


def conv2d_weight_grad(gy: Any, x: Any, weight_shape: Sequence[int], stride: Size2 = 1, padding: Padding = 0, dilation: Size2 = 1,
                       groups: int = 1, out_dtype: Any = "same") -> Array:
    """The correctly rounded gradient with respect to w: every term gy*x of <gy, conv2d(x, w)> added where its w stood.

    gy (N, O, Ho, Wo), x NCHW; `out_dtype`, rounding, NaN and infinities, errors as in `conv2d`.

    >>> conv2d_weight_grad(np.ones((1, 1, 1, 2)), np.ones((1, 1, 1, 3)), (1, 1, 1, 2))
    array([[[[2., 2.]]]])
    """
    exact_gy, exact_x = operand(gy, "gy", out_dtype), operand(x, "x", out_dtype)
    weight_shape = _as_shape(weight_shape, "weight_shape")
    window = _window(exact_x.shape, weight_shape, stride, padding, dilation, groups)
    checked(exact_gy, "gy", _output_shape(exact_x.shape, weight_shape, window))
    terms = ((at_w, at_y, at_x) for at_y, at_x, at_w in _terms(exact_x.shape, weight_shape, window))
    return finish(_sums(weight_shape, terms, exact_gy, exact_x), out_dtype, gy)


def conv_transpose2d(x: Any, w: Any, b: Any = None, stride: Size2 = 1, padding: Padding = 0, output_padding: Size2 = 0,
                     dilation: Size2 = 1, groups: int = 1, out_dtype: Any = "same") -> Array:
    """The correctly rounded transposed convolution: b plus what `conv2d_input_grad` gives for x, in one rounding.

    x (N, I, H, W), w (I, O/groups, kh, kw), b (O,); the height is (H-1)*s - top - bottom + d*(kh-1) + 1 + output_padding. `padding` must
    be numbers, `output_padding` smaller than the stride. `out_dtype`, rounding, NaN and infinities as in `conv2d`.

    Raises as `conv2d`, and ArgumentError for a padding name or too large an output padding.

    Source: Dumoulin and Visin, arXiv 1603.07285, section 4.

    >>> conv_transpose2d(np.ones((1, 1, 1, 2)), np.ones((1, 1, 1, 1)), np.array([2.0]), stride=(1, 2))
    array([[[[3., 2., 3.]]]])
    """
    exact_x, exact_w = operand(x, "x", out_dtype), operand(w, "w", out_dtype)
    if isinstance(padding, str):
        raise ArgumentError(f"`padding` (={padding!r}) of a transposed convolution must be numbers: a name would need the output size")
    window = _window(exact_x.shape, exact_w.shape, stride, padding, dilation, groups)
    more = as_pair(output_padding, "output_padding", 0)
    if any(extra >= step for extra, step in zip(more, window.stride, strict=True)):
        raise ArgumentError(f"`output_padding` (={output_padding!r}) must be smaller than `stride` (={stride!r})")
    (images, inputs, height, width), (_, outputs, _, _) = exact_x.shape, exact_w.shape
    if inputs != exact_w.shape[0]:
        raise ShapeError(f"`in_channels` (={inputs}, axis 1 of `x`) must be axis 0 of `w` (={exact_w.shape[0]})")
    size = window.transposed_size((height, width), more)
    if min(*size, height, width) < 1:
        raise ShapeError(f"the output would be empty: (height, width) {size} for an input of {(height, width)}; use less padding")
    y = _input_grad(exact_x, exact_w, (images, outputs * window.groups, *size), window)
    return finish(_add_bias(y, b, out_dtype), out_dtype, x)


def _input_grad(gy: Array, w: Array, input_shape: Index, window: Window) -> Array:
    terms = ((at_x, at_y, at_w) for at_y, at_x, at_w in _terms(input_shape, w.shape, window))
    return _sums(input_shape, terms, gy, w)


def _add_bias(y: Array, b: Any, out_dtype: Any) -> Array:
    return y if b is None else y + checked(operand(b, "b", out_dtype), "b", y.shape[1:2]).reshape(1, -1, 1, 1)
