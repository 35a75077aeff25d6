"""Explicit im2col: convolution written as a matrix product, the classical way."""

from __future__ import annotations

from collections.abc import Sequence

from npreparam import kernels
from npreparam._errors import ShapeError
from npreparam._shapes import Padding, Size2, Window, as_int
from npreparam.ops._primitive import gradient, primitive
from npreparam.ops._validate import Array, as_array, check_rank, check_shape

NCHW = "(batch, channels, height, width)"


@primitive
def im2col(x: Array, kernel: Size2, stride: Size2 = 1, padding: Padding = 0, dilation: Size2 = 1) -> Array:
    """Unfold a batch of images: one column for each window, holding the elements under it.

    y[n, (i*KH + kh)*KW + kw, r*Wo + c] = x[n, i, r*s + kh*d - top, c*s + kw*d - left], zero outside the borders

    x is NCHW, float32 or float64; y is (N, C*KH*KW, Ho*Wo). Then ``w.reshape(O, -1) @ y`` is the convolution with w.

    Rounding: none, elements are copied.

    Raises ShapeError, ArgumentError, DTypeError.

    Source: Chellapilla, Puri and Simard, High performance convolutional neural networks for document processing, 2006.

    >>> import numpy as np
    >>> im2col(np.arange(4.0).reshape(1, 1, 2, 2), kernel=(1, 2))
    array([[[0., 2.],
            [1., 3.]]])
    """
    x = as_array(x, "x")
    check_rank(x, "x", 4, NCHW)
    window = Window.of(kernel, stride, padding, dilation, size=x.shape[2:])
    window.checked_output_size(x.shape[2:])
    return kernels.im2col.im2col(x, window)


@primitive
def col2im(columns: Array, shape: Sequence[int], kernel: Size2, stride: Size2 = 1, padding: Padding = 0, dilation: Size2 = 1) -> Array:
    """Fold columns back: the adjoint of `im2col`, which adds every element to where it came from.

    x[n, i, r*s + kh*d - top, c*s + kw*d - left] += columns[n, (i*KH + kh)*KW + kw, r*Wo + c], dropping what falls on the padding

    columns is (N, C*KH*KW, Ho*Wo), `shape` the NCHW shape of the result.

    Rounding: elements that meet are added in the order (kh, kw); |error| <= (m-1)*u*sum|columns| where m meet.

    Raises ShapeError, ArgumentError, DTypeError.

    >>> import numpy as np
    >>> col2im(np.ones((1, 2, 2)), (1, 1, 1, 3), kernel=(1, 2))
    array([[[[1., 2., 1.]]]])
    """
    columns = as_array(columns, "columns")
    if len(shape) != 4:
        raise ShapeError(f"`shape` (={tuple(shape)!r}) must have 4 entries: {NCHW}")
    n, c, h, w = (as_int(length, "shape", 0) for length in shape)
    window = Window.of(kernel, stride, padding, dilation, size=(h, w))
    ho, wo = window.checked_output_size((h, w))
    check_shape(columns, "columns", (n, c * window.kernel[0] * window.kernel[1], ho * wo), "what `im2col` makes of `shape`")
    return kernels.im2col.col2im(columns, (n, c, h, w), window)


gradient(im2col, "x", lambda g, y, a: col2im(g, a.x.shape, a.kernel, a.stride, a.padding, a.dilation))
gradient(col2im, "columns", lambda g, y, a: im2col(g, a.kernel, a.stride, a.padding, a.dilation))
