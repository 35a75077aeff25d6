"""OpenVINO on the CPU, at the precision of the arrays or at the one it chooses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from npreparam._shapes import Padding, Size2, Window, as_pair
from npreparam.conformance.adapters import _arrays
from npreparam.conformance.adapters._arrays import Array
from npreparam.conformance.target import Declaration


class OpenVino:
    """OpenVINO's operators behind the judge's signatures; every call compiles a model of one node.

    `hinted` asks for the precision of the arrays; without, OpenVINO may compute in bfloat16 where the processor has it.
    """

    def __init__(self, hinted: bool = True) -> None:
        self.hinted, self._threads = hinted, 1

    def declare(self) -> Declaration:
        """Version and dtypes."""
        openvino = _arrays.framework("openvino", "openvino")
        return Declaration("OpenVINO" if self.hinted else "OpenVINO default precision", openvino.__version__.partition("-")[0], ("float32",),
                           dict.fromkeys(("linear", "avg_pool2d", "max_pool2d"), ("empty batch",)), conventions={"max_pool_nan": "drop_to_lowest"})

    def set_threads(self, count: int) -> None:
        """How many threads an inference may use."""
        self._threads = count

    def conv2d(self, x: Array, w: Array, b: Array | None = None, stride: Size2 = 1, padding: Padding = 0, dilation: Size2 = 1,
               groups: int = 1) -> Array:
        """Convolution or GroupConvolution, plus the bias."""
        window = _arrays.window_of(x.shape, w.shape, stride, padding, dilation, groups)
        name = "convolution" if groups == 1 else "group_convolution"
        return self._run(lambda o, x, w, *b: _biased(o, getattr(o, name)(x, w, *_geometry(window), list(window.dilation)), b),
                         x, w if groups == 1 else w.reshape(groups, -1, *w.shape[1:]), *_bias(b))

    def conv_transpose2d(self, x: Array, w: Array, b: Array | None = None, stride: Size2 = 1, padding: Padding = 0, output_padding: Size2 = 0,
                         dilation: Size2 = 1, groups: int = 1) -> Array:
        """ConvolutionBackpropData or GroupConvolutionBackpropData, plus the bias."""
        window = _arrays.transposed_window(x.shape, w.shape, stride, padding, dilation, groups)
        name = "convolution_backprop_data" if groups == 1 else "group_convolution_backprop_data"
        strides, begin, end = _geometry(window)
        options = {"pads_begin": begin, "pads_end": end, "dilations": list(window.dilation),
                   "output_padding": list(as_pair(output_padding, "output_padding", 0))}
        return self._run(lambda o, x, w, *b: _biased(o, getattr(o, name)(x, w, strides, **options), b),
                         x, w if groups == 1 else w.reshape(groups, -1, *w.shape[1:]), *_bias(b))

    def linear(self, x: Array, w: Array, b: Array | None = None) -> Array:
        """MatMul with the second factor transposed, plus the bias."""
        return self._run(lambda o, x, w, *b: o.add(o.matmul(x, w, False, True), b[0]) if b else o.matmul(x, w, False, True),
                         x, w, *(() if b is None else (b,)))

    def batch_norm(self, x: Array, gamma: Array, beta: Array, running_mean: Array, running_var: Array, training: bool = False,
                   momentum: float = 0.1, eps: float = 1e-5) -> Any:
        """BatchNormInference."""
        if training:
            raise _arrays.Unsupported("OpenVINO has no training")
        return self._run(lambda o, x, *rest: o.batch_norm_inference(x, *rest, epsilon=eps), x, gamma, beta, running_mean, running_var)

    def avg_pool2d(self, x: Array, kernel: Size2, stride: Size2 | None = None, padding: Padding = 0, count_include_pad: bool = True) -> Array:
        """AvgPool."""
        window = _arrays.pool_window(x.shape, kernel, stride, padding)
        return self._run(lambda o, x: o.avg_pool(x, *_geometry(window), list(window.kernel), not count_include_pad), x)

    def max_pool2d(self, x: Array, kernel: Size2, stride: Size2 | None = None, padding: Padding = 0) -> Array:
        """MaxPool."""
        window = _arrays.pool_window(x.shape, kernel, stride, padding)
        strides, begin, end = _geometry(window)
        return self._run(lambda o, x: o.max_pool(x, strides, [1, 1], begin, end, list(window.kernel)), x)

    def softplus(self, x: Array) -> Array:
        """SoftPlus."""
        return self._run(lambda o, x: o.softplus(x), x)

    def sigmoid(self, x: Array) -> Array:
        """Sigmoid."""
        return self._run(lambda o, x: o.sigmoid(x), x)

    def tanh(self, x: Array) -> Array:
        """Tanh."""
        return self._run(lambda o, x: o.tanh(x), x)

    def silu(self, x: Array) -> Array:
        """Swish."""
        return self._run(lambda o, x: o.swish(x), x)

    def log_softmax(self, x: Array) -> Array:
        """LogSoftmax over the last axis."""
        return self._run(lambda o, x: o.log_softmax(x, x.get_partial_shape().rank.get_length() - 1), x)

    def _run(self, build: Callable[..., Any], *arrays: Array) -> Array:
        import openvino
        from openvino import opset15

        given = [_arrays.ordinary(np.asarray(array)) for array in arrays]
        parameters = [opset15.parameter(list(array.shape), array.dtype) for array in given]
        model = openvino.Model([opset15.result(build(opset15, *parameters))], parameters, "case")
        options: Mapping[str, Any] = {"INFERENCE_NUM_THREADS": self._threads}
        if self.hinted:
            options = {**options, "INFERENCE_PRECISION_HINT": openvino.Type(given[0].dtype)}
        compiled = openvino.Core().compile_model(model, "CPU", dict(options))
        return np.array(next(iter(compiled(given).values())))


def _bias(b: Array | None) -> tuple[Array, ...]:
    return () if b is None else (b.reshape(1, -1, 1, 1),)


def _biased(o: Any, y: Any, b: tuple[Any, ...]) -> Any:
    return o.add(y, b[0]) if b else y


def _geometry(window: Window) -> tuple[list[int], list[int], list[int]]:
    """(strides, padding at the beginning of each axis, padding at its end)."""
    (top, bottom), (left, right) = window.padding
    return list(window.stride), [top, left], [bottom, right]


cpu = OpenVino()
default_precision = OpenVino(hinted=False)


def __getattr__(name: str) -> Any:
    """The module itself offers what `cpu` does."""
    return getattr(cpu, name)
