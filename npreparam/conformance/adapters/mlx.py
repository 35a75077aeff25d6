"""MLX on the CPU; its images are NHWC, its weights OHWI."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from npreparam._shapes import Padding, Size2, Window
from npreparam.conformance.adapters import _arrays
from npreparam.conformance.adapters._arrays import Array
from npreparam.conformance.target import Declaration


class Mlx:
    """MLX behind the judge's signatures; gradients are those of its `vjp` through the forward function."""

    def declare(self) -> Declaration:
        """Version and dtypes: no float64; pools pad symmetrically and count the padding."""
        _arrays.framework("mlx.core", "mlx[cpu]")
        pools = ("padding:asymmetric", "count_include_pad")
        return Declaration("MLX", version("mlx"), ("float32", "float16", "bfloat16"), {"avg_pool2d": pools, "max_pool2d": pools[:1]})

    def conv2d(self, x: Array, w: Array, b: Array | None = None, stride: Size2 = 1, padding: Padding = 0, dilation: Size2 = 1,
               groups: int = 1) -> Array:
        """mlx.core.conv_general, plus the bias."""
        window = _arrays.window_of(x.shape, w.shape, stride, padding, dilation, groups)
        return _run(lambda x, w, *b: _conv2d(x, w, window) + (b[0].reshape(1, -1, 1, 1) if b else 0), x, w, *(() if b is None else (b,)))

    def conv2d_input_grad(self, gy: Array, w: Array, input_shape: Sequence[int], stride: Size2 = 1, padding: Padding = 0, dilation: Size2 = 1,
                          groups: int = 1) -> Array:
        """The gradient of conv_general with respect to its input."""
        window = _arrays.window_of(input_shape, w.shape, stride, padding, dilation, groups)
        return _gradient(lambda x, w: _conv2d(x, w, window), gy, np.zeros(input_shape, gy.dtype), w)

    def conv2d_weight_grad(self, gy: Array, x: Array, weight_shape: Sequence[int], stride: Size2 = 1, padding: Padding = 0, dilation: Size2 = 1,
                           groups: int = 1) -> Array:
        """The gradient of conv_general with respect to its weights."""
        window = _arrays.window_of(x.shape, weight_shape, stride, padding, dilation, groups)
        return _gradient(lambda w, x: _conv2d(x, w, window), gy, np.zeros(weight_shape, gy.dtype), x)

    def linear(self, x: Array, w: Array, b: Array | None = None) -> Array:
        """mlx.core.matmul, or addmm with a bias."""
        import mlx.core as mx

        return _run(lambda x, w, *b: mx.addmm(b[0], x, w.T) if b else x @ w.T, x, w, *(() if b is None else (b,)))

    def batch_norm(self, x: Array, gamma: Array, beta: Array, running_mean: Array, running_var: Array, training: bool = False,
                   momentum: float = 0.1, eps: float = 1e-5) -> Any:
        """mlx.nn.BatchNorm, with the parameters and running statistics given."""
        import mlx.nn as nn

        norm = nn.BatchNorm(len(gamma), eps=eps, momentum=momentum)
        norm.train(training)
        norm.weight, norm.bias, norm.running_mean, norm.running_var = (_tensor(value) for value in (gamma, beta, running_mean, running_var))
        last = norm(_tensor(np.moveaxis(x, 1, -1)))
        y = np.moveaxis(_array(last), -1, 1)
        return (y, _array(norm.running_mean), _array(norm.running_var)) if training else y

    def avg_pool2d(self, x: Array, kernel: Size2, stride: Size2 | None = None, padding: Padding = 0, count_include_pad: bool = True) -> Array:
        """mlx.nn.AvgPool2d."""
        if not count_include_pad:
            raise _arrays.Unsupported("MLX counts the padding")
        return _pool("AvgPool2d", x, kernel, stride, padding)

    def max_pool2d(self, x: Array, kernel: Size2, stride: Size2 | None = None, padding: Padding = 0) -> Array:
        """mlx.nn.MaxPool2d."""
        return _pool("MaxPool2d", x, kernel, stride, padding)

    def softplus(self, x: Array) -> Array:
        """mlx.nn.softplus."""
        return _nn("softplus", x)

    def sigmoid(self, x: Array) -> Array:
        """mlx.nn.sigmoid."""
        return _nn("sigmoid", x)

    def tanh(self, x: Array) -> Array:
        """mlx.nn.tanh."""
        return _nn("tanh", x)

    def silu(self, x: Array) -> Array:
        """mlx.nn.silu."""
        return _nn("silu", x)

    def log_softmax(self, x: Array) -> Array:
        """mlx.nn.log_softmax over the last axis."""
        return _nn("log_softmax", x)

    def cross_entropy(self, logits: Array, labels: Array) -> Array:
        """mlx.nn.losses.cross_entropy without reduction."""
        import mlx.nn as nn

        return _run(lambda x, labels: nn.losses.cross_entropy(x, labels, reduction="none"), logits, np.asarray(labels, np.int32))

    def bce_with_logits(self, logits: Array, targets: Array) -> Array:
        """mlx.nn.losses.binary_cross_entropy without reduction."""
        import mlx.nn as nn

        return _run(lambda x, t: nn.losses.binary_cross_entropy(x, t, with_logits=True, reduction="none"), logits, targets)


def _nn(name: str, x: Array) -> Array:
    import mlx.nn as nn

    return _run(getattr(nn, name), x)


def _pool(name: str, x: Array, kernel: Size2, stride: Size2 | None, padding: Padding) -> Array:
    import mlx.nn as nn

    window = _arrays.pool_window(x.shape, kernel, stride, padding)
    even = _arrays.symmetric(window)
    if even is None:
        raise _arrays.Unsupported("MLX's pools pad symmetrically")
    pool = getattr(nn, name)(window.kernel, window.stride, even)
    return _run(lambda x: pool(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2), x)


def _conv2d(x: Any, w: Any, window: Window) -> Any:
    import mlx.core as mx

    (top, bottom), (left, right) = window.padding
    y = mx.conv_general(x.transpose(0, 2, 3, 1), w.transpose(0, 2, 3, 1), window.stride, ([top, left], [bottom, right]), window.dilation,
                        groups=window.groups)
    return y.transpose(0, 3, 1, 2)


def _run(function: Callable[..., Any], *arrays: Array) -> Array:
    return _array(function(*(_tensor(array) for array in arrays)))


def _gradient(function: Callable[..., Any], gy: Array, *arrays: Array) -> Array:
    """The gradient with respect to the first array."""
    import mlx.core as mx

    return _array(mx.vjp(lambda first: function(first, *(_tensor(array) for array in arrays[1:])), [_tensor(arrays[0])], [_tensor(gy)])[1][0])


def _tensor(array: Array) -> Any:
    import mlx.core as mx

    if _arrays.is_bfloat16(array):
        return mx.array(np.ascontiguousarray(array).view(np.uint16)).view(mx.bfloat16)
    return mx.array(_arrays.ordinary(np.asarray(array)))


def _array(tensor: Any) -> Array:
    import mlx.core as mx

    if tensor.dtype == mx.bfloat16:
        return _arrays.as_bfloat16(np.array(tensor.view(mx.uint16)))
    return np.array(tensor)


cpu = Mlx()


def __getattr__(name: str) -> Any:
    """The module itself offers what `cpu` does."""
    return getattr(cpu, name)
