"""ncnn on the CPU: one image at a time, with its default options or by direct sums in float32."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from npreparam._shapes import Padding, Size2, Window, as_pair
from npreparam.conformance.adapters import _arrays
from npreparam.conformance.adapters._arrays import Array
from npreparam.conformance.target import Declaration

MAGIC, FLOAT32_FOLLOWS = 7767517, b"\0\0\0\0"


class Ncnn:
    """ncnn's layers behind the judge's signatures: every call is a network of one layer.

    `fast` has its default options; without it there is no Winograd, no matrix product, and no float16 weights of inner products.
    """

    def __init__(self, fast: bool = True) -> None:
        self.fast, self._threads = fast, 1

    def declare(self) -> Declaration:
        """Version and dtype; its fast 3x3 convolution may be Winograd's, its inner products have float16 weights."""
        ncnn = _arrays.framework("ncnn", "ncnn")
        return Declaration("ncnn" if self.fast else "ncnn direct", ncnn.__version__, ("float32",), {"*": ("empty batch",)})

    def set_threads(self, count: int) -> None:
        """How many threads a layer may use."""
        self._threads = count

    def conv2d(self, x: Array, w: Array, b: Array | None = None, stride: Size2 = 1, padding: Padding = 0, dilation: Size2 = 1,
               groups: int = 1) -> Array:
        """Convolution or ConvolutionDepthWise."""
        window = _arrays.window_of(x.shape, w.shape, stride, padding, dilation, groups)
        layer = "Convolution" if groups == 1 else "ConvolutionDepthWise"
        return self._run(layer, x, _convolution(window, len(w), w.size, b), _weights(w, b))

    def conv_transpose2d(self, x: Array, w: Array, b: Array | None = None, stride: Size2 = 1, padding: Padding = 0, output_padding: Size2 = 0,
                         dilation: Size2 = 1, groups: int = 1) -> Array:
        """Deconvolution or DeconvolutionDepthWise; its weights have the output channel before the input channel."""
        window, more = _arrays.transposed_window(x.shape, w.shape, stride, padding, dilation, groups), as_pair(output_padding, "output_padding", 0)
        layer = "Deconvolution" if groups == 1 else "DeconvolutionDepthWise"
        parts = w.reshape(groups, -1, *w.shape[1:]).swapaxes(1, 2)
        parameters = {**_convolution(window, groups * w.shape[1], w.size, b), 18: more[1], 19: more[0]}
        return self._run(layer, x, parameters, _weights(parts, b))

    def linear(self, x: Array, w: Array, b: Array | None = None) -> Array:
        """InnerProduct."""
        return self._run("InnerProduct", x, {0: len(w), 1: int(b is not None), 2: w.size}, _weights(w, b))

    def batch_norm(self, x: Array, gamma: Array, beta: Array, running_mean: Array, running_var: Array, training: bool = False,
                   momentum: float = 0.1, eps: float = 1e-5) -> Any:
        """BatchNorm."""
        if training:
            raise _arrays.Unsupported("ncnn has no training")
        weights = b"".join(np.float32(array).tobytes() for array in (gamma, running_mean, running_var, beta))
        return self._run("BatchNorm", x, {0: len(gamma), 1: f"{eps:e}"}, weights)

    def avg_pool2d(self, x: Array, kernel: Size2, stride: Size2 | None = None, padding: Padding = 0, count_include_pad: bool = True) -> Array:
        """Pooling, of averages."""
        window = _arrays.pool_window(x.shape, kernel, stride, padding)
        return self._run("Pooling", x, {**_pooling(window), 0: 1, 6: int(count_include_pad)})

    def max_pool2d(self, x: Array, kernel: Size2, stride: Size2 | None = None, padding: Padding = 0) -> Array:
        """Pooling, of maxima."""
        return self._run("Pooling", x, {**_pooling(_arrays.pool_window(x.shape, kernel, stride, padding)), 0: 0})

    def sigmoid(self, x: Array) -> Array:
        """Sigmoid."""
        return self._elementwise("Sigmoid", x)

    def tanh(self, x: Array) -> Array:
        """TanH."""
        return self._elementwise("TanH", x)

    def silu(self, x: Array) -> Array:
        """Swish."""
        return self._elementwise("Swish", x)

    def _elementwise(self, layer: str, x: Array) -> Array:
        return self._run(layer, x.reshape(1, -1), {}).reshape(x.shape)

    def _run(self, layer: str, x: Array, parameters: dict[int, Any], weights: bytes = b"") -> Array:
        """The layer over every image of a batch."""
        import ncnn

        net = ncnn.Net()
        net.opt.num_threads = self._threads
        if not self.fast:
            net.opt.use_winograd_convolution = net.opt.use_sgemm_convolution = net.opt.use_packing_layout = net.opt.use_fp16_storage = False
        options = " ".join(f"{key}={value}" for key, value in parameters.items())
        with tempfile.TemporaryDirectory() as folder:
            model = Path(folder) / "layer.bin"
            model.write_bytes(weights)
            status = net.load_param_mem(f"{MAGIC}\n2 2\nInput in 0 1 x\n{layer} layer 1 1 x y {options}\n") or net.load_model(str(model))
        if status:
            raise RuntimeError(f"ncnn cannot load {layer} {options}")
        images = []
        for image in np.ascontiguousarray(x):
            extractor = net.create_extractor()
            extractor.input("x", ncnn.Mat(image).clone())
            failed, y = extractor.extract("y")
            if failed:
                raise RuntimeError(f"ncnn cannot compute {layer} {options}")
            images.append(np.array(y))
        return np.stack(images)


def _weights(w: Array, b: Array | None) -> bytes:
    """A tag that says float32, the weights, and the bias."""
    return FLOAT32_FOLLOWS + np.ascontiguousarray(w).tobytes() + (b"" if b is None else np.ascontiguousarray(b).tobytes())


def _convolution(window: Window, outputs: int, size: int, b: Array | None) -> dict[int, Any]:
    (kh, kw), (sh, sw), (dh, dw) = window.kernel, window.stride, window.dilation
    (top, bottom), (left, right) = window.padding
    found = {0: outputs, 1: kw, 11: kh, 2: dw, 12: dh, 3: sw, 13: sh, 4: left, 15: right, 14: top, 16: bottom, 5: int(b is not None), 6: size}
    return found if window.groups == 1 else {**found, 7: window.groups}


def _pooling(window: Window) -> dict[int, Any]:
    (kh, kw), (sh, sw) = window.kernel, window.stride
    (top, bottom), (left, right) = window.padding
    return {1: kw, 11: kh, 2: sw, 12: sh, 3: left, 14: right, 13: top, 15: bottom, 5: 1}


fast = Ncnn()
direct = Ncnn(fast=False)


def __getattr__(name: str) -> Any:
    """The module itself offers what `fast` does."""
    return getattr(fast, name)
