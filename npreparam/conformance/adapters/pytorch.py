"""PyTorch on the CPU: eager, channels_last, and through torch.compile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import numpy as np

from npreparam._shapes import Padding, Size2, Window, as_pair
from npreparam.conformance.adapters import _arrays
from npreparam.conformance.adapters._arrays import Array
from npreparam.conformance.target import Declaration


class PyTorch:
    """PyTorch behind the judge's signatures; gradients are those of its autograd through the forward function.

    `channels_last` gives images and weights in that memory format; `compiled` runs every function through torch.compile.
    """

    def __init__(self, channels_last: bool = False, compiled: bool = False) -> None:
        self.channels_last, self.compiled = channels_last, compiled

    def declare(self) -> Declaration:
        """Version and dtypes; its convolutions multiply infinite weights by the zeros of the padding, or not, as the kernel chosen has it;
        its fold of batch norm does not know groups, and its pools pad by at most half the kernel."""
        torch = _arrays.framework("torch", "torch")
        variant = " channels_last" if self.channels_last else " compiled" if self.compiled else ""
        return Declaration(f"PyTorch{variant}", torch.__version__, ("float32", "float64", "float16", "bfloat16"),
                           conventions={"infinity_on_padding": "either"}, seconds=120.0 if self.compiled else 30.0)

    def set_threads(self, count: int) -> None:
        """How many threads PyTorch may use."""
        import torch

        torch.set_num_threads(count)

    def conv2d(self, x: Array, w: Array, b: Array | None = None, stride: Size2 = 1, padding: Padding = 0, dilation: Size2 = 1,
               groups: int = 1) -> Array:
        """torch.nn.functional.conv2d."""
        window = _arrays.window_of(x.shape, w.shape, stride, padding, dilation, groups)
        _check_padding(window, w)
        return self._run(lambda x, w, b: _conv2d(x, w, b, window), x, w, b)

    def conv2d_input_grad(self, gy: Array, w: Array, input_shape: Sequence[int], stride: Size2 = 1, padding: Padding = 0, dilation: Size2 = 1,
                          groups: int = 1) -> Array:
        """The gradient of conv2d with respect to its input."""
        window = _arrays.window_of(input_shape, w.shape, stride, padding, dilation, groups)
        _check_padding(window, gy, w)
        x = np.zeros(input_shape, gy.dtype)
        return self._gradients(lambda x, w: _conv2d(x, w, None, window), gy, (x, w), 1)[0]

    def conv2d_weight_grad(self, gy: Array, x: Array, weight_shape: Sequence[int], stride: Size2 = 1, padding: Padding = 0, dilation: Size2 = 1,
                           groups: int = 1) -> Array:
        """The gradient of conv2d with respect to its weights."""
        window = _arrays.window_of(x.shape, weight_shape, stride, padding, dilation, groups)
        _check_padding(window, gy)
        w = np.zeros(weight_shape, gy.dtype)
        return self._gradients(lambda w, x: _conv2d(x, w, None, window), gy, (w, x), 1)[0]

    def conv_transpose2d(self, x: Array, w: Array, b: Array | None = None, stride: Size2 = 1, padding: Padding = 0, output_padding: Size2 = 0,
                         dilation: Size2 = 1, groups: int = 1) -> Array:
        """torch.nn.functional.conv_transpose2d; padding that differs from side to side is cropped off afterwards."""
        import torch.nn.functional as f

        window = _arrays.transposed_window(x.shape, w.shape, stride, padding, dilation, groups)
        more, even = as_pair(output_padding, "output_padding", 0), _arrays.symmetric(window)

        def call(x: Any, w: Any, b: Any) -> Any:
            y = f.conv_transpose2d(x, w, b, window.stride, even or 0, more, groups, window.dilation)
            if even is not None:
                return y
            (top, bottom), (left, right) = window.padding
            return y[:, :, top : y.shape[2] - bottom, left : y.shape[3] - right]

        return self._run(call, x, w, b)

    def linear(self, x: Array, w: Array, b: Array | None = None) -> Array:
        """torch.nn.functional.linear."""
        import torch.nn.functional as f

        return self._run(f.linear, x, w, b)

    def batch_norm(self, x: Array, gamma: Array, beta: Array, running_mean: Array, running_var: Array, training: bool = False,
                   momentum: float = 0.1, eps: float = 1e-5) -> Any:
        """torch.nn.functional.batch_norm, which updates copies of the running statistics in place."""
        import torch.nn.functional as f

        def call(x: Any, gamma: Any, beta: Any, mean: Any, var: Any) -> Any:
            mean, var = mean.clone(), var.clone()
            y = f.batch_norm(x, mean, var, gamma, beta, training, momentum, eps)
            return (y, mean, var) if training else y

        return self._run(call, x, gamma, beta, running_mean, running_var)

    def batch_norm_grad(self, gy: Array, x: Array, gamma: Array, running_mean: Array, running_var: Array, training: bool = False,
                        eps: float = 1e-5) -> tuple[Array, ...]:
        """The gradients of batch_norm with respect to x, gamma and beta."""
        import torch.nn.functional as f

        def call(x: Any, gamma: Any, beta: Any, mean: Any, var: Any) -> Any:
            return f.batch_norm(x, mean.clone(), var.clone(), gamma, beta, training, 0.1, eps)

        return self._gradients(call, gy, (x, gamma, np.zeros_like(gamma), running_mean, running_var), 3)

    def avg_pool2d(self, x: Array, kernel: Size2, stride: Size2 | None = None, padding: Padding = 0, count_include_pad: bool = True) -> Array:
        """torch.nn.functional.avg_pool2d."""
        import torch.nn.functional as f

        window = _arrays.pool_window(x.shape, kernel, stride, padding)
        native = _native_pool_padding(window)
        if native is None and not count_include_pad:
            raise _arrays.Unsupported("PyTorch's pools pad symmetrically, by at most half the kernel")
        return self._run(lambda x: f.avg_pool2d(x if native is not None else _padded(x, window, 0.0), window.kernel, window.stride, native or 0,
                                                count_include_pad=count_include_pad), x)

    def max_pool2d(self, x: Array, kernel: Size2, stride: Size2 | None = None, padding: Padding = 0) -> Array:
        """torch.nn.functional.max_pool2d."""
        import torch.nn.functional as f

        window = _arrays.pool_window(x.shape, kernel, stride, padding)
        native = _native_pool_padding(window)
        return self._run(lambda x: f.max_pool2d(x if native is not None else _padded(x, window, -np.inf), window.kernel, window.stride,
                                                native or 0), x)

    def fuse_conv_bn(self, w: Array, b: Array | None, gamma: Array, beta: Array, mean: Array, var: Array, eps: float = 1e-5, groups: int = 1,
                     transposed: bool = False) -> tuple[Array, ...]:
        """torch.nn.utils.fusion.fuse_conv_bn_weights, which is not told the groups."""
        from torch.nn.utils.fusion import fuse_conv_bn_weights

        return self._run(lambda w, b, mean, var, gamma, beta: fuse_conv_bn_weights(w, b, mean, var, eps, gamma, beta, transposed),
                         w, b, mean, var, gamma, beta)

    def softplus(self, x: Array) -> Array:
        """torch.nn.functional.softplus."""
        import torch.nn.functional as f

        return self._run(f.softplus, x)

    def sigmoid(self, x: Array) -> Array:
        """torch.sigmoid."""
        import torch

        return self._run(torch.sigmoid, x)

    def tanh(self, x: Array) -> Array:
        """torch.tanh."""
        import torch

        return self._run(torch.tanh, x)

    def silu(self, x: Array) -> Array:
        """torch.nn.functional.silu."""
        import torch.nn.functional as f

        return self._run(f.silu, x)

    def log_softmax(self, x: Array) -> Array:
        """torch.nn.functional.log_softmax over the last axis."""
        import torch.nn.functional as f

        return self._run(lambda x: f.log_softmax(x, -1), x)

    def cross_entropy(self, logits: Array, labels: Array) -> Array:
        """torch.nn.functional.cross_entropy without reduction."""
        import torch
        import torch.nn.functional as f

        targets = torch.from_numpy(np.array(labels, np.int64))
        return self._run(lambda x: f.cross_entropy(x, targets, reduction="none"), logits)

    def bce_with_logits(self, logits: Array, targets: Array) -> Array:
        """torch.nn.functional.binary_cross_entropy_with_logits without reduction."""
        import torch.nn.functional as f

        return self._run(lambda x, t: f.binary_cross_entropy_with_logits(x, t, reduction="none"), logits, targets)

    def normal_rsample(self, mu: Array, sigma: Array, eps: Array) -> Array:
        """torch.distributions.Normal.rsample, given its noise."""
        import torch

        def call(mu: Any, sigma: Any, eps: Any) -> Any:
            with mock.patch("torch.distributions.normal._standard_normal", return_value=eps):
                return torch.distributions.Normal(mu, sigma, validate_args=False).rsample()

        return self._run(call, mu, sigma, eps)

    def normal_log_prob(self, x: Array, mu: Array, sigma: Array) -> Array:
        """torch.distributions.Normal.log_prob."""
        import torch

        return self._run(lambda x, mu, sigma: torch.distributions.Normal(mu, sigma, validate_args=False).log_prob(x), x, mu, sigma)

    def gaussian_kl(self, mu: Array, logvar: Array) -> Array:
        """torch.distributions.kl_divergence of Normal(mu, exp(logvar/2)) and Normal(0, 1)."""
        import torch
        from torch.distributions import Normal, kl_divergence

        def call(mu: Any, logvar: Any) -> Any:
            posterior = Normal(mu, torch.exp(logvar / 2), validate_args=False)
            return kl_divergence(posterior, Normal(torch.zeros_like(mu), torch.ones_like(mu), validate_args=False))

        return self._run(call, mu, logvar)

    def _run(self, function: Callable[..., Any], *arrays: Array | None) -> Any:
        import torch

        with torch.no_grad():
            results = self._prepared(function)(*(self._tensor(array) for array in arrays))
        return tuple(_array(r) for r in results) if isinstance(results, tuple) else _array(results)

    def _gradients(self, function: Callable[..., Any], gy: Array, arrays: Sequence[Array], count: int) -> tuple[Array, ...]:
        """The gradients with respect to the first `count` arrays."""
        import torch

        tensors = [self._tensor(array) for array in arrays]
        wanted = [tensor.requires_grad_() for tensor in tensors[:count]]
        y = self._prepared(function)(*tensors)
        return tuple(_array(g) for g in torch.autograd.grad(y, wanted, self._tensor(gy)))

    def _prepared(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if not self.compiled:
            return function
        import torch

        torch.compiler.reset()  # each case is a graph of its own; beyond a few it would silently run eagerly
        return torch.compile(function, dynamic=False)

    def _tensor(self, array: Array | None) -> Any:
        import torch

        if array is None:
            return None
        bits = _arrays.ordinary(array.view(np.int16) if _arrays.is_bfloat16(array) else np.asarray(array))
        tensor = torch.from_numpy(bits)
        tensor = tensor.view(torch.bfloat16) if _arrays.is_bfloat16(array) else tensor
        return tensor.contiguous(memory_format=torch.channels_last) if self.channels_last and tensor.ndim == 4 else tensor


def _array(tensor: Any) -> Array:
    import torch

    tensor = tensor.detach()
    return _arrays.as_bfloat16(tensor.view(torch.int16).numpy()) if tensor.dtype == torch.bfloat16 else tensor.numpy()


def _padded(x: Any, window: Window, value: float) -> Any:
    import torch.nn.functional as f

    (top, bottom), (left, right) = window.padding
    return f.pad(x, (left, right, top, bottom), value=value)


def _conv2d(x: Any, w: Any, b: Any, window: Window) -> Any:
    """With PyTorch's own padding where both sides have the same."""
    import torch.nn.functional as f

    even = _arrays.symmetric(window)
    return f.conv2d(x if even is not None else _padded(x, window, 0.0), w, b, window.stride, even or 0, window.dilation, window.groups)


def _check_padding(window: Window, *arrays: Array) -> None:
    """Padding that differs from side to side is no padding of PyTorch's convolution: zeros put there first would turn infinities into NaN."""
    if _arrays.symmetric(window) is None and not all(np.isfinite(array).all() for array in arrays):
        raise _arrays.Unsupported("PyTorch's convolutions pad symmetrically")


def _native_pool_padding(window: Window) -> tuple[int, int] | None:
    even = _arrays.symmetric(window)
    return even if even is not None and all(2 * p <= k for p, k in zip(even, window.kernel, strict=True)) else None


eager = PyTorch()
channels_last = PyTorch(channels_last=True)
compiled = PyTorch(compiled=True)


def __getattr__(name: str) -> Any:
    """The module itself offers what `eager` does."""
    return getattr(eager, name)
