"""tinygrad on the CPU: kernels compiled by clang where there is one, else by its Python emulator."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from npreparam._shapes import Padding, Size2, Window, as_pair
from npreparam.conformance.adapters import _arrays
from npreparam.conformance.adapters._arrays import Array
from npreparam.conformance.target import Declaration


class Tinygrad:
    """tinygrad behind the judge's signatures; gradients are those of its autograd through the forward function."""

    def declare(self) -> Declaration:
        """Version and dtypes; transposed convolutions pad symmetrically. Infinities over padding count nothing, or are multiplied by zero in the
        gradient of the weights, as its scheduler has it."""
        _tinygrad()
        return Declaration("tinygrad", version("tinygrad"), ("float32", "float64", "float16"), {"conv_transpose2d": ("padding:asymmetric",)},
                           conventions={"infinity_on_padding": "either"}, seconds=120.0)

    def conv2d(self, x: Array, w: Array, b: Array | None = None, stride: Size2 = 1, padding: Padding = 0, dilation: Size2 = 1,
               groups: int = 1) -> Array:
        """Tensor.conv2d."""
        window = _arrays.window_of(x.shape, w.shape, stride, padding, dilation, groups)
        return _run(lambda x, w, b: _conv2d(x, w, b, window), x, w, b)

    def conv2d_input_grad(self, gy: Array, w: Array, input_shape: Sequence[int], stride: Size2 = 1, padding: Padding = 0, dilation: Size2 = 1,
                          groups: int = 1) -> Array:
        """The gradient of Tensor.conv2d with respect to its input."""
        window = _arrays.window_of(input_shape, w.shape, stride, padding, dilation, groups)
        return _run(lambda x, w, gy: _conv2d(x, w, None, window).gradient(x, gradient=gy)[0], np.zeros(input_shape, gy.dtype), w, gy)

    def conv2d_weight_grad(self, gy: Array, x: Array, weight_shape: Sequence[int], stride: Size2 = 1, padding: Padding = 0, dilation: Size2 = 1,
                           groups: int = 1) -> Array:
        """The gradient of Tensor.conv2d with respect to its weights."""
        window = _arrays.window_of(x.shape, weight_shape, stride, padding, dilation, groups)
        return _run(lambda x, w, gy: _conv2d(x, w, None, window).gradient(w, gradient=gy)[0], x, np.zeros(weight_shape, gy.dtype), gy)

    def conv_transpose2d(self, x: Array, w: Array, b: Array | None = None, stride: Size2 = 1, padding: Padding = 0, output_padding: Size2 = 0,
                         dilation: Size2 = 1, groups: int = 1) -> Array:
        """Tensor.conv_transpose2d."""
        window = _arrays.transposed_window(x.shape, w.shape, stride, padding, dilation, groups)
        even, more = _arrays.symmetric(window), as_pair(output_padding, "output_padding", 0)
        if even is None:
            raise _arrays.Unsupported("tinygrad's transposed convolution pads symmetrically")
        return _run(lambda x, w, b: x.conv_transpose2d(w, b, groups, window.stride, window.dilation, even, more), x, w, b)

    def linear(self, x: Array, w: Array, b: Array | None = None) -> Array:
        """Tensor.linear."""
        return _run(lambda x, w, b: x.linear(w.T, b), x, w, b)

    def batch_norm(self, x: Array, gamma: Array, beta: Array, running_mean: Array, running_var: Array, training: bool = False,
                   momentum: float = 0.1, eps: float = 1e-5) -> Any:
        """tinygrad.nn.BatchNorm, with the momentum and running statistics given."""
        tinygrad = _tinygrad()
        arrays = [tinygrad.Tensor(_arrays.ordinary(array)) for array in (gamma, beta, running_mean, running_var)]
        norm = tinygrad.nn.BatchNorm(len(gamma), eps=eps, momentum=momentum)
        norm.weight, norm.bias, norm.running_mean, norm.running_var = arrays
        with tinygrad.Context(TRAINING=int(training)):
            y = norm(tinygrad.Tensor(_arrays.ordinary(x))).numpy()
        return (y, norm.running_mean.numpy(), norm.running_var.numpy()) if training else y

    def avg_pool2d(self, x: Array, kernel: Size2, stride: Size2 | None = None, padding: Padding = 0, count_include_pad: bool = True) -> Array:
        """Tensor.avg_pool2d."""
        window = _arrays.pool_window(x.shape, kernel, stride, padding)
        return _run(lambda x: x.avg_pool2d(window.kernel, window.stride, padding=_around(window), count_include_pad=count_include_pad), x)

    def max_pool2d(self, x: Array, kernel: Size2, stride: Size2 | None = None, padding: Padding = 0) -> Array:
        """Tensor.max_pool2d."""
        window = _arrays.pool_window(x.shape, kernel, stride, padding)
        return _run(lambda x: x.max_pool2d(window.kernel, window.stride, padding=_around(window)), x)

    def softplus(self, x: Array) -> Array:
        """Tensor.softplus."""
        return _run(lambda x: x.softplus(), x)

    def sigmoid(self, x: Array) -> Array:
        """Tensor.sigmoid."""
        return _run(lambda x: x.sigmoid(), x)

    def tanh(self, x: Array) -> Array:
        """Tensor.tanh."""
        return _run(lambda x: x.tanh(), x)

    def silu(self, x: Array) -> Array:
        """Tensor.silu."""
        return _run(lambda x: x.silu(), x)

    def log_softmax(self, x: Array) -> Array:
        """Tensor.log_softmax over the last axis."""
        return _run(lambda x: x.log_softmax(), x)

    def cross_entropy(self, logits: Array, labels: Array) -> Array:
        """Tensor.cross_entropy without reduction."""
        return _run(lambda x, labels: x.cross_entropy(labels, reduction="none"), logits, np.asarray(labels, np.int32))

    def bce_with_logits(self, logits: Array, targets: Array) -> Array:
        """Tensor.binary_crossentropy_logits without reduction."""
        return _run(lambda x, t: x.binary_crossentropy_logits(t, reduction="none"), logits, targets)


def _tinygrad() -> Any:
    os.environ.setdefault("DEV", "PYTHON" if shutil.which("clang") is None else "CPU")  # read once, when tinygrad is imported
    return _arrays.framework("tinygrad", "tinygrad")


def _run(function: Callable[..., Any], *arrays: Array | None) -> Array:
    tinygrad = _tinygrad()
    return function(*(None if array is None else tinygrad.Tensor(_arrays.ordinary(np.asarray(array))) for array in arrays)).numpy()


def _around(window: Window) -> tuple[int, ...]:
    """(left, right, top, bottom)."""
    (top, bottom), (left, right) = window.padding
    return left, right, top, bottom


def _conv2d(x: Any, w: Any, b: Any, window: Window) -> Any:
    return x.conv2d(w, b, window.groups, window.stride, window.dilation, _around(window))


cpu = Tinygrad()


def __getattr__(name: str) -> Any:
    """The module itself offers what `cpu` does."""
    return getattr(cpu, name)
