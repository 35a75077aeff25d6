"""Convolution and its gradients: how far an honest implementation may be from the exact result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from npreparam import ops
from npreparam._errors import ArgumentError, ShapeError
from npreparam._shapes import Padding, Size2, Window
from npreparam.certified.bounds._majorant import Floats, quiet, up
from npreparam.certified.bounds.dot import direct, sum_of_products_bound
from npreparam.certified.bounds.fft import fft_bound
from npreparam.certified.bounds.profile import Profile, profiled
from npreparam.certified.bounds.winograd import winograd_bound
from npreparam.ops._validate import check_rank

NCHW, OIHW = "(batch, channels, height, width)", "(output channels, input channels / groups, kernel height, kernel width)"


def _ranked(first: Any, name: str, second: Any, other: str, meaning: str) -> tuple[Any, Any]:
    """Both as arrays, checked to have 4 axes; the other checks are those of the operation, run on an empty batch."""
    first, second = np.asarray(first), np.asarray(second)
    check_rank(first, name, 4, NCHW)
    check_rank(second, other, 4, meaning)
    return first, second


@profiled
def conv2d_bound(x: Any, w: Any, b: Any = None, stride: Size2 = 1, padding: Padding = 0, dilation: Size2 = 1, groups: int = 1,
                 profile: Profile | str | None = None) -> Floats:
    """How far an honest convolution may be from the exact one.

    Direct, in any order, to nearest, with n taps inside the image (+1 with a bias) and S = sum |x||w| (+ |b|):

        |y^ - y| <= n*u*(S + n*eta) + n*eta

    (Jeannerod and Rump, SIAM J. Matrix Anal. Appl. 34(2), 2013). Other orders and formats: `Profile.growth` and the head of `dot`; Winograd
    and fast Fourier transform: `winograd_bound` and `fft_bound`.

    x is NCHW, w OIHW, b (O,), of any float or integer dtype; `padding` as in `ops.conv2d`. The bound is a float64 array of the output's
    shape, infinite where the format may overflow.

    Rounding: upwards; the bound is sound although S is a convolution in float64.

    Raises ShapeError, DTypeError, ArgumentError (geometry; NaN, infinity; an algorithm that does not have this geometry).

    >>> bound = conv2d_bound(np.ones((1, 1, 3, 3)), np.ones((1, 1, 3, 3)), padding=1, profile="float32")[0, 0]
    >>> np.round(bound / 2.0**-24, 6)    # n*S: 4, 6 or 9 taps are inside
    array([[16., 36., 16.],
           [36., 81., 36.],
           [16., 36., 16.]])
    """
    x, w = _ranked(x, "x", w, "w", OIHW)
    geometry = (stride, padding, dilation, groups)
    bias = None if b is None else np.asarray(b)
    ops.conv2d(np.zeros((0, *x.shape[1:])), np.zeros(w.shape), None if b is None else np.zeros(bias.shape), *geometry)
    bias = None if b is None else bias[:, None, None]
    if profile.algorithm == "direct":
        inside = ops.conv2d(np.ones((1, 1, *x.shape[2:])), np.ones((1, 1, *w.shape[2:])), None, stride, padding, dilation)
        return sum_of_products_bound(lambda p, q: ops.conv2d(p, q, None, *geometry), (x, w), inside * w.shape[1],
                                     w[0].size, profile, bias)
    window = Window.of(w.shape[2:], *geometry, size=x.shape[2:])
    return _by_transform(x, w, bias, window, profile)


@quiet
def _by_transform(x: Any, w: Any, bias: Any, window: Window, profile: Profile) -> Floats:
    """The bound of a transform's convolution, its bias and its output."""
    bound = fft_bound if profile.algorithm == "fft" else winograd_bound
    (exact_x, dx), (exact_w, dw) = profile.operand(x, "x"), profile.operand(w, "w")
    reach_x, reach_w = np.abs(exact_x) + dx, np.abs(exact_w) + dw
    error, partial = bound(reach_x, reach_w, window, profile)
    geometry, length = (window.stride, window.padding, window.dilation, window.groups), w[0].size
    value = ops.conv2d(reach_x, reach_w, None, *geometry)
    for p, q in ((dx, np.abs(exact_w)), (reach_x, dw)):
        if p.any() and q.any():
            error = error + up(ops.conv2d(p, q, None, *geometry), length)
    value, b = up(value, length), None
    if bias is not None:
        b, db = profile.addend(bias, "b")
        partial = partial + np.abs(b) + db
        error = error + profile.compound(1) * (value + np.abs(b) + db + error) + db
    return up(profile.finish(error, value, partial, b))


@profiled
def conv2d_input_grad_bound(gy: Any, w: Any, input_shape: Sequence[int], stride: Size2 = 1, padding: Padding = 0, dilation: Size2 = 1,
                            groups: int = 1, profile: Profile | str | None = None) -> Floats:
    """How far an honest gradient of a convolution with respect to x may be from the exact one.

    As `conv2d_bound`, with n the number of products gy*w in an element and S = sum |gy||w|. A transform's bound is that of the convolution
    with the kernels turned by 180 degrees, which is what such an implementation runs.

    gy is (N, O, Ho, Wo), w OIHW; the bound has `input_shape`.

    Raises as `conv2d_bound`, and ArgumentError for a transform with stride, groups or more padding than extent - 1.

    >>> bound = conv2d_input_grad_bound(np.ones((1, 1, 1, 2)), np.ones((1, 1, 1, 2)), (1, 1, 1, 3), profile="float32")
    >>> np.round(bound / 2.0**-24, 6)
    array([[[[1., 4., 1.]]]])
    """
    gy, w = _ranked(gy, "gy", w, "w", OIHW)
    geometry = (stride, padding, dilation, groups)
    ops.conv2d_input_grad(np.zeros((0, *gy.shape[1:])), np.zeros(w.shape), (0, *input_shape[1:]), *geometry)
    if gy.shape[0] != input_shape[0]:
        raise ShapeError(f"`gy` has {gy.shape[0]} images, but `input_shape` (={tuple(input_shape)}) has {input_shape[0]}")
    if profile.algorithm != "direct":
        window = Window.of(w.shape[2:], *geometry, size=input_shape[2:])
        return conv2d_bound(gy, np.flip(w.swapaxes(0, 1), (2, 3)), None, 1, _full_padding(window), dilation, 1, profile)
    inside = ops.conv2d_input_grad(np.ones((1, 1, *gy.shape[2:])), np.ones((1, 1, *w.shape[2:])), (1, 1, *input_shape[2:]),
                                   stride, padding, dilation)
    share = w.shape[0] // groups
    return sum_of_products_bound(lambda p, q: ops.conv2d_input_grad(p, q, input_shape, *geometry), (gy, w), inside * share,
                                 share * w[0, 0].size, profile)


def _full_padding(window: Window) -> tuple[tuple[int, int], ...]:
    """Padding extent - 1 - p, with which the turned kernels give the gradient of a convolution of stride 1."""
    reach = [dilation * (kernel - 1) for dilation, kernel in zip(window.dilation, window.kernel, strict=True)]
    sides = tuple((r - before, r - after) for r, (before, after) in zip(reach, window.padding, strict=True))
    if window.stride != (1, 1) or window.groups != 1 or min(map(min, sides)) < 0:
        raise ArgumentError(f"`stride` (={window.stride}) and `groups` (={window.groups}) must be 1, and `padding` (={window.padding}) at most "
                            f"the kernel's extent - 1 (={tuple(reach)}), for a gradient by a transform; use a direct profile")
    return sides


@profiled
def conv2d_weight_grad_bound(gy: Any, x: Any, weight_shape: Sequence[int], stride: Size2 = 1, padding: Padding = 0, dilation: Size2 = 1,
                             groups: int = 1, profile: Profile | str | None = None) -> Floats:
    """How far an honest gradient of a convolution with respect to w may be from the exact one.

    As `conv2d_bound`, with n = the pixels of the batch whose tap is inside the image, and S = sum |gy||x|.

    gy is (N, O, Ho, Wo), x NCHW; the bound has `weight_shape`.

    Raises as `conv2d_bound`, and ArgumentError for a profile that is not direct.

    >>> bound = conv2d_weight_grad_bound(np.ones((1, 1, 1, 2)), np.ones((1, 1, 1, 3)), (1, 1, 1, 2), profile="float32")
    >>> np.round(bound / 2.0**-24, 6)
    array([[[[4., 4.]]]])
    """
    direct(profile, "a weight gradient")
    gy, x = _ranked(gy, "gy", x, "x", NCHW)
    geometry = (stride, padding, dilation, groups)
    ops.conv2d_weight_grad(np.zeros((0, *gy.shape[1:])), np.zeros((0, *x.shape[1:])), weight_shape, *geometry)
    inside = ops.conv2d_weight_grad(np.ones((1, 1, *gy.shape[2:])), np.ones((1, 1, *x.shape[2:])), (1, 1, *weight_shape[2:]),
                                    stride, padding, dilation)
    batch, pixels = gy.shape[0], gy.shape[2] * gy.shape[3]
    return sum_of_products_bound(lambda p, q: ops.conv2d_weight_grad(p, q, weight_shape, *geometry), (gy, x), inside * batch,
                                 batch * pixels, profile)


@profiled
def conv_transpose2d_bound(x: Any, w: Any, b: Any = None, stride: Size2 = 1, padding: Padding = 0, output_padding: Size2 = 0,
                           dilation: Size2 = 1, groups: int = 1, profile: Profile | str | None = None) -> Floats:
    """How far an honest transposed convolution may be from the exact one: as `conv2d_input_grad_bound`, the bias being one more term.

    x is (N, I, H, W), w (I, O/groups, kh, kw), b (O,); the bound has the output's shape.

    Raises as `conv2d_bound`, and ArgumentError for a profile that is not direct.

    >>> bound = conv_transpose2d_bound(np.ones((1, 1, 1, 2)), np.ones((1, 1, 1, 2)), profile="float32")
    >>> np.round(bound / 2.0**-24, 6)
    array([[[[1., 4., 1.]]]])
    """
    direct(profile, "a transposed convolution")
    x, w = _ranked(x, "x", w, "w", "(input channels, output channels / groups, kernel height, kernel width)")
    geometry = (stride, padding, output_padding, dilation, groups)
    bias = None if b is None else np.asarray(b)
    ops.conv_transpose2d(np.zeros((0, *x.shape[1:])), np.zeros(w.shape), None if b is None else np.zeros(bias.shape), *geometry)
    inside = ops.conv_transpose2d(np.ones((1, 1, *x.shape[2:])), np.ones((1, 1, *w.shape[2:])), None, *geometry[:4])
    share = w.shape[0] // groups
    return sum_of_products_bound(lambda p, q: ops.conv_transpose2d(p, q, None, *geometry), (x, w), inside * share, share * w[0, 0].size, profile,
                                 None if b is None else bias[:, None, None])
