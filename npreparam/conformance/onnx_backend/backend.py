"""The `onnx.backend.base` interface: models are checked, then their nodes are evaluated in order, each by one row of the operator table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

try:
    import onnx
    from onnx import numpy_helper
    from onnx.backend.base import Backend, BackendRep
    from onnx.helper import get_attribute_value
except ImportError:
    raise ImportError("npreparam.conformance.onnx_backend needs the onnx package: pip install 'npreparam[onnx]'") from None

from npreparam._errors import ArgumentError
from npreparam.conformance.onnx_backend.node import Node
from npreparam.conformance.onnx_backend.table import OPERATORS

DEFAULT_DOMAINS = ("", "ai.onnx")


class Prepared(BackendRep):  # type: ignore[misc]
    """A checked model, ready to run.

    >>> from onnx import parser
    >>> model = parser.parse_model('<ir_version: 8, opset_import: ["" : 17]> g (float[2] x) => (float[2] y) { y = Relu(x) }')
    >>> Prepared(model).run([np.float32([-1, 2])])
    (array([0., 2.], dtype=float32),)
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self.version = _version(model)
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        self.input_names = [value.name for value in model.graph.input if value.name not in self.constants]

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """The graph's outputs for its inputs: arrays in the graph's order, one array alone, or arrays by name.

        Raises ArgumentError (an input that is missing or too many), and what the operators raise.
        """
        inputs = [inputs] if isinstance(inputs, np.ndarray) else inputs  # whose rows are no inputs
        given = dict(inputs) if isinstance(inputs, Mapping) else dict(zip(self.input_names, inputs, strict=False))
        values = {**self.constants, **given}
        known = {value.name for value in self.graph.input} | self.constants.keys()
        if any(name not in values for name in self.input_names) or len(given) < len(inputs) or not given.keys() <= known:
            raise ArgumentError(f"`inputs` ({len(inputs)}) must be the graph's: {', '.join(self.input_names) or 'none'}")
        for node in self.graph.node:
            results = _evaluate(node, [values[name] if name else None for name in node.input], self.version)
            values |= {name: value for name, value in zip(node.output, results, strict=False) if name}
        return tuple(values[value.name] for value in self.graph.output)


class NpreparamBackend(Backend):  # type: ignore[misc]
    """ONNX models on `npreparam.ops`.

    float64 and float32 are computed as they are, float16 and bfloat16 in float32 and then rounded once. Whatever only moves elements takes any
    dtype. Source: ONNX, Operators.md; onnx/docs/ImplementingAnOnnxBackend.md.

    >>> node = onnx.helper.make_node("Relu", ["x"], ["y"])
    >>> NpreparamBackend.run_node(node, [np.array([-1.0, 2.0])])[0]
    array([0., 2.])
    """

    @classmethod
    def is_compatible(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """Whether the table has a row for every node; no sequences, no control flow, no functions of the model's own."""
        return not unsupported(model) and cls.supports_device(device)

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> Prepared:
        """A runnable model.

        Raises onnx.checker.ValidationError, and ArgumentError for an operator that is not supported.
        """
        super().prepare(model, device, **kwargs)
        absent = unsupported(model)
        if absent or not cls.supports_device(device):
            what = f"`model` with {', '.join(absent)}" if absent else f"`device` (={device!r})"
            raise ArgumentError(f"{what} is not supported; supported are tensors, on the CPU, and the operators {', '.join(sorted(OPERATORS))}")
        return Prepared(model)

    @classmethod
    def run_node(cls, node: onnx.NodeProto, inputs: Any, device: str = "CPU", outputs_info: Any = None, **kwargs: Any) -> tuple[Any, ...]:
        """One operator's outputs, by the newest operator set or the keyword `opset_version`."""
        super().run_node(node, inputs, device, outputs_info, **kwargs)
        if node.op_type not in OPERATORS:
            raise ArgumentError(f"operator {node.op_type} is not supported; supported are: {', '.join(sorted(OPERATORS))}")
        return tuple(_evaluate(node, list(inputs), kwargs.get("opset_version", onnx.defs.onnx_opset_version())))

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """The CPU only."""
        return device.partition(":")[0] == "CPU"


def unsupported(model: onnx.ModelProto) -> list[str]:
    """The operators of a model that have no row in the table, and the types of its inputs that are no tensors."""
    operators = {node.op_type for node in model.graph.node if node.domain not in DEFAULT_DOMAINS or node.op_type not in OPERATORS}
    types = {value.type.WhichOneof("value") for value in model.graph.input} - {"tensor_type"}
    return sorted(operators | types)


def _version(model: onnx.ModelProto) -> int:
    return next((entry.version for entry in model.opset_import if entry.domain in DEFAULT_DOMAINS), 1)


def _evaluate(node: onnx.NodeProto, inputs: list[Any], version: int) -> list[Any]:
    attributes = {attribute.name: _plain(get_attribute_value(attribute)) for attribute in node.attribute}
    result = OPERATORS[node.op_type](Node(node.op_type, inputs, attributes, version, len(node.output)))
    return [np.asarray(value) for value in (result if isinstance(result, tuple) else (result,))]


def _plain(value: Any) -> Any:
    """An attribute as Python knows it: text decoded, tensors as arrays."""
    if isinstance(value, bytes):
        return value.decode()
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value
