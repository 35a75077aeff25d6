"""JAX on the CPU: `jax.lax`, `jax.nn` and `jax.scipy`, one call at a time or under jit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from npreparam._shapes import Padding, Size2, Window, as_pair, extent
from npreparam.conformance.adapters import _arrays
from npreparam.conformance.adapters._arrays import Array
from npreparam.conformance.target import Declaration

LAYOUT = ("NCHW", "OIHW", "NCHW")


class Jax:
    """JAX behind the judge's signatures; gradients are those of its `vjp` through the forward function.

    `jit` compiles every function; `nhwc` gives images and weights in that layout.
    """

    def __init__(self, jit: bool = False, nhwc: bool = False) -> None:
        self.jit, self.nhwc = jit, nhwc

    def declare(self) -> Declaration:
        """Version and dtypes; no batch norm of training, no groups in transposed convolutions, no number of threads that could be set later on.

        An infinity over padding counts nothing in its convolution, but is multiplied by zero in the gradient of the weights.
        """
        jax = _arrays.framework("jax", "jax[cpu]")
        variant = " jit" if self.jit else " NHWC" if self.nhwc else ""
        return Declaration(f"JAX{variant}", jax.__version__, ("float32", "float64", "float16", "bfloat16"),
                           {"batch_norm": ("training",), "conv_transpose2d": ("groups",)}, conventions={"infinity_on_padding": "either"})

    def conv2d(self, x: Array, w: Array, b: Array | None = None, stride: Size2 = 1, padding: Padding = 0, dilation: Size2 = 1,
               groups: int = 1) -> Array:
        """jax.lax.conv_general_dilated, plus the bias."""
        convolve = self._convolution(x.shape, w.shape, stride, padding, dilation, groups)
        return self._run(lambda x, w, *b: convolve(x, w) + (b[0].reshape(1, -1, 1, 1) if b else 0), x, w, *(() if b is None else (b,)))

    def conv2d_input_grad(self, gy: Array, w: Array, input_shape: Sequence[int], stride: Size2 = 1, padding: Padding = 0, dilation: Size2 = 1,
                          groups: int = 1) -> Array:
        """The gradient of conv2d with respect to its input."""
        convolve = self._convolution(input_shape, w.shape, stride, padding, dilation, groups)
        return self._gradients(convolve, gy, np.zeros(input_shape, gy.dtype), w)[0]

    def conv2d_weight_grad(self, gy: Array, x: Array, weight_shape: Sequence[int], stride: Size2 = 1, padding: Padding = 0, dilation: Size2 = 1,
                           groups: int = 1) -> Array:
        """The gradient of conv2d with respect to its weights."""
        convolve = self._convolution(x.shape, weight_shape, stride, padding, dilation, groups)
        return self._gradients(convolve, gy, x, np.zeros(weight_shape, gy.dtype))[1]

    def conv_transpose2d(self, x: Array, w: Array, b: Array | None = None, stride: Size2 = 1, padding: Padding = 0, output_padding: Size2 = 0,
                         dilation: Size2 = 1, groups: int = 1) -> Array:
        """jax.lax.conv_transpose, whose padding is that of the dilated input."""
        import jax

        if groups != 1:
            raise _arrays.Unsupported("jax.lax.conv_transpose has no groups")
        window, more = _arrays.transposed_window(x.shape, w.shape, stride, padding, dilation, groups), as_pair(output_padding, "output_padding", 0)
        around = [(extent(k, d) - 1 - before, extent(k, d) - 1 - after + extra) for k, d, (before, after), extra
                  in zip(window.kernel, window.dilation, window.padding, more, strict=True)]

        def call(x: Any, w: Any, *b: Any) -> Any:
            y = jax.lax.conv_transpose(x, w, window.stride, around, window.dilation, LAYOUT, transpose_kernel=True)
            return y + (b[0].reshape(1, -1, 1, 1) if b else 0)

        return self._run(call, x, w, *(() if b is None else (b,)))

    def linear(self, x: Array, w: Array, b: Array | None = None) -> Array:
        """jax.numpy.matmul, plus the bias."""
        return self._run(lambda x, w, *b: x @ w.T + (b[0] if b else 0), x, w, *(() if b is None else (b,)))

    def batch_norm(self, x: Array, gamma: Array, beta: Array, running_mean: Array, running_var: Array, training: bool = False,
                   momentum: float = 0.1, eps: float = 1e-5) -> Any:
        """jax.nn.standardize in evaluation mode, times gamma plus beta; JAX has no running statistics."""
        if training:
            raise _arrays.Unsupported("JAX has no batch norm of training")
        import jax

        def call(x: Any, gamma: Any, beta: Any, mean: Any, var: Any) -> Any:
            gamma, beta, mean, var = (value.reshape(1, -1, *[1] * (x.ndim - 2)) for value in (gamma, beta, mean, var))
            return jax.nn.standardize(x, 1, mean, var, eps) * gamma + beta

        return self._run(call, x, gamma, beta, running_mean, running_var)

    def avg_pool2d(self, x: Array, kernel: Size2, stride: Size2 | None = None, padding: Padding = 0, count_include_pad: bool = True) -> Array:
        """jax.lax.reduce_window with addition, over the number of elements."""
        import jax

        window = _arrays.pool_window(x.shape, kernel, stride, padding)

        def total(x: Any) -> Any:
            return jax.lax.reduce_window(x, np.zeros((), x.dtype), jax.lax.add, *_pooling(window))

        area = window.kernel[0] * window.kernel[1]
        return self._run(lambda x: total(x) / (area if count_include_pad else total(jax.numpy.ones_like(x))), x)

    def max_pool2d(self, x: Array, kernel: Size2, stride: Size2 | None = None, padding: Padding = 0) -> Array:
        """jax.lax.reduce_window with the maximum."""
        import jax

        window = _arrays.pool_window(x.shape, kernel, stride, padding)
        return self._run(lambda x: jax.lax.reduce_window(x, np.array(-np.inf, x.dtype), jax.lax.max, *_pooling(window)), x)

    def softplus(self, x: Array) -> Array:
        """jax.nn.softplus."""
        import jax

        return self._run(jax.nn.softplus, x)

    def sigmoid(self, x: Array) -> Array:
        """jax.nn.sigmoid."""
        import jax

        return self._run(jax.nn.sigmoid, x)

    def tanh(self, x: Array) -> Array:
        """jax.numpy.tanh."""
        import jax

        return self._run(jax.numpy.tanh, x)

    def silu(self, x: Array) -> Array:
        """jax.nn.silu."""
        import jax

        return self._run(jax.nn.silu, x)

    def log_softmax(self, x: Array) -> Array:
        """jax.nn.log_softmax over the last axis."""
        import jax

        return self._run(jax.nn.log_softmax, x)

    def normal_log_prob(self, x: Array, mu: Array, sigma: Array) -> Array:
        """jax.scipy.stats.norm.logpdf."""
        from jax.scipy.stats import norm

        return self._run(norm.logpdf, x, mu, sigma)

    def _convolution(self, x_shape: Sequence[int], w_shape: Sequence[int], stride: Size2, padding: Padding, dilation: Size2,
                     groups: int) -> Callable[[Any, Any], Any]:
        import jax

        window = _arrays.window_of(x_shape, w_shape, stride, padding, dilation, groups)
        geometry = {"window_strides": window.stride, "padding": window.padding, "rhs_dilation": window.dilation, "feature_group_count": groups}

        def convolve(x: Any, w: Any) -> Any:
            if not self.nhwc:
                return jax.lax.conv_general_dilated(x, w, dimension_numbers=LAYOUT, **geometry)
            y = jax.lax.conv_general_dilated(x.transpose(0, 2, 3, 1), w.transpose(2, 3, 1, 0), dimension_numbers=("NHWC", "HWIO", "NHWC"), **geometry)
            return y.transpose(0, 3, 1, 2)

        return convolve

    def _run(self, function: Callable[..., Any], *arrays: Array) -> Array:
        with _wide() as jax:
            result = (jax.jit(function) if self.jit else function)(*(jax.numpy.asarray(array) for array in arrays))
            return np.array(result)

    def _gradients(self, function: Callable[..., Any], gy: Array, *arrays: Array) -> tuple[Array, ...]:
        with _wide() as jax:
            def pulled(gy: Any, *arrays: Any) -> Any:
                return jax.vjp(function, *arrays)[1](gy)

            results = (jax.jit(pulled) if self.jit else pulled)(*(jax.numpy.asarray(array) for array in (gy, *arrays)))
            return tuple(np.array(g) for g in results)


def _pooling(window: Window) -> tuple[tuple[Any, ...], ...]:
    """(kernel, stride, padding) of all four axes."""
    return (1, 1, *window.kernel), (1, 1, *window.stride), _arrays.widths(window)


@contextmanager
def _wide() -> Iterator[Any]:
    """JAX on the CPU, whatever other devices it has, with float64 switched on, which it has not by default."""
    import jax

    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    try:
        with jax.default_device(jax.devices("cpu")[0]):
            yield jax
    finally:
        jax.config.update("jax_enable_x64", before)


eager = Jax()
compiled = Jax(jit=True)
nhwc = Jax(nhwc=True)


def __getattr__(name: str) -> Any:
    """The module itself offers what `eager` does."""
    return getattr(eager, name)
