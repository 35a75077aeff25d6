"""Two-dimensional convolution and its two gradients: three primitives whose vector-Jacobian products are each other.

Convolution is bilinear in (x, w), so for every cotangent gy

    <gy, conv2d(x, w)> = <conv2d_input_grad(gy, w), x> = <conv2d_weight_grad(gy, x), w>

Each of the three is linear in both arguments, and the gradients of each are the other two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from npreparam import kernels
from npreparam._shapes import Padding, Size2
from npreparam.ops._geometry import NCHW, forward_window, input_grad_window, transposed_window, weight_grad_window
from npreparam.ops._primitive import gradient, primitive
from npreparam.ops._validate import Array, check_shape_of, same_dtype, shape_of
from npreparam.ops.arithmetic import add
from npreparam.ops.shape import reshape
from npreparam.ops.shape import sum as sum_over


@primitive
def conv2d(x: Array, w: Array, b: Array | None = None, stride: Size2 = 1, padding: Padding = 0, dilation: Size2 = 1, groups: int = 1) -> Array:
    """Two-dimensional cross-correlation of a batch of images with a set of kernels.

    y[n, o, r, c] = b[o] + sum over (i, kh, kw) of w[o, i, kh, kw] * x[n, g*I + i, r*s + kh*d - top, c*s + kw*d - left]

    with I = w.shape[1], g = o // (O/groups), and x zero outside its borders.

    x is NCHW, w OIHW, b (O,); float32 or float64, all the same. The result has their dtype and is C-contiguous.
    `padding` is an int, (h, w), ((top, bottom), (left, right)), "SAME_UPPER", "SAME_LOWER" or "VALID".

    Rounding: each element is one chain of fused multiply-adds in the order (i, kh, kw) begun from b[o], so it does not depend on the number of
    threads, the batch or the memory layout; |error| <= n*u*sum|w||x| with n taps (+1 with a bias) barring underflow.

    Raises ShapeError (rank, channels, groups, no window fits), ArgumentError (stride, padding, dilation), DTypeError.

    Source: Dumoulin and Visin, A guide to convolution arithmetic for deep learning, arXiv 1603.07285, section 2; bound: Jeannerod and Rump,
    SIAM J. Matrix Anal. Appl. 34(2), 2013.

    >>> import numpy as np
    >>> x = np.arange(9.0).reshape(1, 1, 3, 3)
    >>> conv2d(x, np.ones((1, 1, 2, 2)), np.array([0.5]))
    array([[[[ 8.5, 12.5],
             [20.5, 24.5]]]])
    """
    return _forward(x, w, b, (stride, padding, dilation, groups), relu=False)


def conv2d_relu(x: Array, w: Array, b: Array | None = None, stride: Size2 = 1, padding: Padding = 0, dilation: Size2 = 1,
                groups: int = 1) -> Array:
    """`relu(conv2d(...))` in one pass over memory, for inference on arrays.

    y = max(0, conv2d(x, w, b, ...)) elementwise; shapes, dtypes, rounding and errors are those of `conv2d`; a NaN stays a NaN.

    >>> import numpy as np
    >>> conv2d_relu(np.array([[[[-1.0, 2.0]]]]), np.ones((1, 1, 1, 1)))
    array([[[[0., 2.]]]])
    """
    return _forward(x, w, b, (stride, padding, dilation, groups), relu=True)


def _forward(x: Array, w: Array, b: Array | None, geometry: Sequence[Any], relu: bool) -> Array:
    x, w, b = same_dtype(x=x, w=w, b=b, optional=("b",))
    window = forward_window(x, w, b, geometry)
    return kernels.conv2d.conv2d(x, w, b, window, relu)


@primitive
def conv2d_input_grad(gy: Array, w: Array, input_shape: Sequence[int], stride: Size2 = 1, padding: Padding = 0, dilation: Size2 = 1,
                      groups: int = 1) -> Array:
    """Gradient of a convolution with respect to its input: the adjoint map, also known as transposed convolution.

    gx[n, g*I + i, r*s + kh*d - top, c*s + kw*d - left] += w[o, i, kh, kw] * gy[n, o, r, c]   for all (n, o, i, kh, kw, r, c)

    gy is (N, O, output height, output width), w OIHW, `input_shape` the NCHW shape of x; the result has that shape.

    Rounding: each element is one chain of fused multiply-adds in the order (o, kh, kw); bound as for `conv2d`.

    Raises as `conv2d`, and ShapeError where gy is not the output of a convolution of `input_shape`.

    Source: Dumoulin and Visin, arXiv 1603.07285, section 4.

    >>> import numpy as np
    >>> conv2d_input_grad(np.ones((1, 1, 2, 2)), np.ones((1, 1, 2, 2)), (1, 1, 3, 3))
    array([[[[1., 2., 1.],
             [2., 4., 2.],
             [1., 2., 1.]]]])
    """
    gy, w = same_dtype(gy=gy, w=w)
    window, size = input_grad_window(gy, w, input_shape, (stride, padding, dilation, groups))
    return kernels.conv2d.conv2d_input_grad(gy, w, size, window)


@primitive
def conv2d_weight_grad(gy: Array, x: Array, weight_shape: Sequence[int], stride: Size2 = 1, padding: Padding = 0, dilation: Size2 = 1,
                       groups: int = 1) -> Array:
    """Gradient of a convolution with respect to its weights.

    gw[o, i, kh, kw] = sum over (n, r, c) of gy[n, o, r, c] * x[n, g*I + i, r*s + kh*d - top, c*s + kw*d - left]

    gy is (N, O, output height, output width), x NCHW, `weight_shape` OIHW; the result has that shape.

    Rounding: each image's pixels, in the order (r, c), are cut into pieces of 256; each piece is one chain of fused multiply-adds and the pieces
    are added in the order (n, piece), whatever the number of threads; |error| <= n*u*sum|gy||x| for n pixels in all, barring underflow.

    Raises as `conv2d`, and ShapeError where gy is not the output of a convolution of x with weights of `weight_shape`.

    >>> import numpy as np
    >>> conv2d_weight_grad(np.ones((1, 1, 2, 2)), np.arange(9.0).reshape(1, 1, 3, 3), (1, 1, 2, 2))
    array([[[[ 8., 12.],
             [20., 24.]]]])
    """
    gy, x = same_dtype(gy=gy, x=x)
    return kernels.conv2d.conv2d_weight_grad(gy, x, weight_grad_window(gy, x, weight_shape, (stride, padding, dilation, groups)))


def _geometry(a: Any) -> tuple[Any, Any, Any, Any]:
    return a.stride, a.padding, a.dilation, a.groups


gradient(conv2d, "x", lambda g, y, a: conv2d_input_grad(g, a.w, a.x.shape, *_geometry(a)))
gradient(conv2d, "w", lambda g, y, a: conv2d_weight_grad(g, a.x, a.w.shape, *_geometry(a)))
gradient(conv2d, "b", lambda g, y, a: sum_over(g, axis=(0, 2, 3)))
gradient(conv2d_input_grad, "gy", lambda g, y, a: conv2d(g, a.w, None, *_geometry(a)))
gradient(conv2d_input_grad, "w", lambda g, y, a: conv2d_weight_grad(a.gy, g, a.w.shape, *_geometry(a)))
gradient(conv2d_weight_grad, "gy", lambda g, y, a: conv2d(a.x, g, None, *_geometry(a)))
gradient(conv2d_weight_grad, "x", lambda g, y, a: conv2d_input_grad(a.gy, g, a.x.shape, *_geometry(a)))


def conv_transpose2d(x: Array, w: Array, b: Array | None = None, stride: Size2 = 1, padding: Padding = 0, output_padding: Size2 = 0,
                     dilation: Size2 = 1, groups: int = 1) -> Array:
    """Transposed convolution: `conv2d_input_grad` of x, plus a bias.

    y = b + conv2d_input_grad(x, w, output shape), of height (H-1)*s - top - bottom + d*(kh-1) + 1 + output_padding, and likewise the width.

    x is (N, I, H, W), w (I, O/groups, kh, kw), b (O,). `padding` must be numbers. `output_padding` chooses one of the s input sizes that a
    convolution of stride s maps to this output size; it must be smaller than the stride.

    Rounding: as `conv2d_input_grad`, and one more for the bias.

    Raises as `conv2d`, and ArgumentError for a padding name or too large an output padding.

    Source: Dumoulin and Visin, arXiv 1603.07285, section 4.

    >>> import numpy as np
    >>> conv_transpose2d(np.ones((1, 1, 2, 2)), np.ones((1, 1, 1, 1)), stride=2)
    array([[[[1., 0., 1.],
             [0., 0., 0.],
             [1., 0., 1.]]]])
    """
    x_shape = shape_of(x, "x", 4, NCHW)
    w_shape = shape_of(w, "w", 4, "(input channels, output channels / groups, kernel height, kernel width)")
    window, size = transposed_window(x_shape, w_shape, (stride, padding, dilation, groups), output_padding)
    channels = w_shape[1] * window.groups
    if b is not None:
        check_shape_of(b, "b", (channels,), "one value for each output channel")
    y = conv2d_input_grad(x, w, (x_shape[0], channels, *size), stride, padding, dilation, groups)
    if b is None:
        return y
    return add(y, reshape(b, (1, channels, 1, 1)))
