"""ONNX graphs of one node, for whatever runs ONNX models: the judge's signatures in the attributes of ONNX operators (extra `onnx`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from npreparam._shapes import Padding, Size2, Window, as_pair
from npreparam.conformance.adapters import _arrays
from npreparam.conformance.adapters._arrays import Array

OPSET, IR_VERSION = 17, 10
UNSUPPORTED = {"batch_norm": ("dtype:float64",)}  # ONNX attributes are float32 numbers: eps and momentum would be others than those asked for


def model_of(operator: str, inputs: Mapping[str, Array], attributes: Mapping[str, Any], outputs: Sequence[str] = ("y",)) -> bytes:
    """A serialized model of one node; its inputs have the names, dtypes and shapes of the arrays."""
    from onnx import TensorProto, helper

    element = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16, "float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE,
               "int64": TensorProto.INT64}
    values = [helper.make_tensor_value_info(name, element[array.dtype.name], array.shape) for name, array in inputs.items()]
    first = next(iter(inputs.values()))
    results = [helper.make_tensor_value_info(name, element[first.dtype.name], None) for name in outputs]
    node = helper.make_node(operator, list(inputs), list(outputs), **attributes)
    graph = helper.make_graph([node], "case", values, results)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    return model.SerializeToString(deterministic=True)


def geometry(window: Window) -> dict[str, Any]:
    """The attributes of Conv, ConvTranspose and the pools."""
    (top, bottom), (left, right) = window.padding
    return {"kernel_shape": list(window.kernel), "strides": list(window.stride), "pads": [top, left, bottom, right]}


class OnnxGraphs:
    """The judge's signatures over `run(model, inputs) -> list of arrays`; what an ONNX runtime has no operator for is left out."""

    def __init__(self, run: Callable[[bytes, dict[str, Array]], list[Array]]) -> None:
        self._evaluate = run

    def conv2d(self, x: Array, w: Array, b: Array | None = None, stride: Size2 = 1, padding: Padding = 0, dilation: Size2 = 1,
               groups: int = 1) -> Array:
        """Conv; padding names go to `auto_pad`, which not every runtime has for dilated kernels."""
        window = _arrays.window_of(x.shape, w.shape, stride, padding, dilation, groups)
        attributes = geometry(window) | {"dilations": list(window.dilation), "group": groups}
        if isinstance(padding, str) and window.dilation == (1, 1):
            attributes = {name: value for name, value in attributes.items() if name != "pads"} | {"auto_pad": padding}
        return self._run("Conv", {"x": x, "w": w, "b": b}, attributes)

    def conv_transpose2d(self, x: Array, w: Array, b: Array | None = None, stride: Size2 = 1, padding: Padding = 0, output_padding: Size2 = 0,
                         dilation: Size2 = 1, groups: int = 1) -> Array:
        """ConvTranspose."""
        window = _arrays.transposed_window(x.shape, w.shape, stride, padding, dilation, groups)
        more = {"dilations": list(window.dilation), "group": groups, "output_padding": list(as_pair(output_padding, "output_padding", 0))}
        return self._run("ConvTranspose", {"x": x, "w": w, "b": b}, geometry(window) | more)

    def linear(self, x: Array, w: Array, b: Array | None = None) -> Array:
        """Gemm with the second factor transposed."""
        return self._run("Gemm", {"x": x, "w": w, "b": b}, {"transB": 1})

    def batch_norm(self, x: Array, gamma: Array, beta: Array, running_mean: Array, running_var: Array, training: bool = False,
                   momentum: float = 0.1, eps: float = 1e-5) -> Any:
        """BatchNormalization; its momentum is the weight of the old statistic."""
        inputs = {"x": x, "gamma": gamma, "beta": beta, "mean": running_mean, "var": running_var}
        if not training:
            return self._run("BatchNormalization", inputs, {"epsilon": eps})
        attributes = {"epsilon": eps, "momentum": 1.0 - momentum, "training_mode": 1}
        return tuple(self._run("BatchNormalization", inputs, attributes, ("y", "new_mean", "new_var")))

    def avg_pool2d(self, x: Array, kernel: Size2, stride: Size2 | None = None, padding: Padding = 0, count_include_pad: bool = True) -> Array:
        """AveragePool."""
        window = _arrays.pool_window(x.shape, kernel, stride, padding)
        return self._run("AveragePool", {"x": x}, geometry(window) | {"count_include_pad": int(count_include_pad)})

    def max_pool2d(self, x: Array, kernel: Size2, stride: Size2 | None = None, padding: Padding = 0) -> Array:
        """MaxPool."""
        return self._run("MaxPool", {"x": x}, geometry(_arrays.pool_window(x.shape, kernel, stride, padding)))

    def softplus(self, x: Array) -> Array:
        """Softplus."""
        return self._run("Softplus", {"x": x})

    def sigmoid(self, x: Array) -> Array:
        """Sigmoid."""
        return self._run("Sigmoid", {"x": x})

    def tanh(self, x: Array) -> Array:
        """Tanh."""
        return self._run("Tanh", {"x": x})

    def log_softmax(self, x: Array) -> Array:
        """LogSoftmax over the last axis."""
        return self._run("LogSoftmax", {"x": x}, {"axis": -1})

    def cross_entropy(self, logits: Array, labels: Array) -> Array:
        """SoftmaxCrossEntropyLoss without reduction."""
        return self._run("SoftmaxCrossEntropyLoss", {"x": logits, "labels": np.asarray(labels, np.int64)}, {"reduction": "none"})

    def _run(self, operator: str, inputs: Mapping[str, Array | None], attributes: Mapping[str, Any] | None = None,
             outputs: Sequence[str] = ("y",)) -> Any:
        given = {name: _arrays.ordinary(np.asarray(array)) for name, array in inputs.items() if array is not None}
        results = [np.asarray(array) for array in self._evaluate(model_of(operator, given, attributes or {}, outputs), given)]
        return results if len(outputs) > 1 else results[0]


def graph_of(op: str, arguments: Mapping[str, Any]) -> tuple[bytes, dict[str, Array]]:
    """The model of one call, with the shapes of its results, and its inputs."""
    from onnx import ModelProto, shape_inference

    asked: list[tuple[bytes, dict[str, Array]]] = []

    def remember(model: bytes, inputs: dict[str, Array]) -> list[Array]:
        asked.append((model, inputs))
        return [np.zeros(0)] * 3

    getattr(OnnxGraphs(remember), op)(**arguments)
    model, inputs = asked[0]
    return shape_inference.infer_shapes(ModelProto.FromString(model)).SerializeToString(deterministic=True), inputs
