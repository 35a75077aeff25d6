"""An ONNX model, checked and made self-contained, and what is known of its tensors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from npreparam._errors import FormatError
from npreparam.checkpoints import _onnx
from npreparam.checkpoints._dtypes import Array
from npreparam.checkpoints._files import contents

LARGEST_FILE = 2**31 - 1  # protobuf's limit for one message
DOMAINS = ("", "ai.onnx")


def open_model(path: Path) -> Any:
    """The ModelProto of a file, its external data taken from the folder that it lies in.

    Raises FormatError without the path: damage, a graph that ONNX's checker refuses, external data elsewhere, more than one file can hold.
    """
    onnx = _onnx.package()
    model = _onnx.parse(contents(path))
    room = LARGEST_FILE - path.stat().st_size
    for tensor in _tensors(model.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            room -= _embed(tensor, path.parent, room)
    check(model)
    for node in model.graph.node:  # text is decoded when it is looked at: here, where an error is this file's
        _ = (node.name, node.op_type, node.domain, *node.input, *node.output)
    return model


def check(model: Any) -> None:
    """FormatError unless ONNX's checker accepts the model, types and shapes included."""
    onnx = _onnx.package()
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, RuntimeError, ValueError, TypeError, OverflowError) as error:
        raise FormatError(f"is no valid ONNX model: {' '.join(str(error).split())[:200]}") from None


def _tensors(graph: Any) -> Iterator[Any]:
    """Every tensor that a graph and the graphs inside it hold."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


def _embed(tensor: Any, folder: Path, room: int) -> int:
    """Put external data into the tensor; how many bytes they are."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    name = tensor.name[:80]
    try:
        path = (folder / entries["location"]).resolve()
        offset, length = int(entries.get("offset", 0)), int(entries["length"]) if "length" in entries else None
    except (KeyError, ValueError, OSError):
        raise FormatError(f"initializer {name!r} lies in another file, but does not say where") from None
    if not path.is_relative_to(folder.resolve()):
        raise FormatError(f"initializer {name!r} lies in {entries['location'][:80]!r}, outside the model's folder, where nothing is read")
    try:
        data = contents(path)
    except FormatError as error:
        raise FormatError(f"initializer {name!r} lies in {entries['location'][:80]!r}, which {error}") from None
    end = len(data) if length is None else offset + length
    if not 0 <= offset <= end <= len(data):
        raise FormatError(f"initializer {name!r} lies at bytes {offset} to {end} of {entries['location'][:80]!r}, which has {len(data)}")
    if end - offset > room:
        raise FormatError("has more external data than one ONNX file can hold, 2 GiB")
    tensor.raw_data = bytes(data[offset:end])
    tensor.data_location = _onnx.package().TensorProto.DEFAULT
    del tensor.external_data[:]
    return end - offset


class Graph:
    """The main graph of a model: constants, who makes each tensor and who reads it, and how many axes and channels it has.

    Initializers are constants also where they are inputs of the graph, as old exporters wrote them.
    """

    def __init__(self, model: Any) -> None:
        self.model, self.nodes = model, list(model.graph.node)
        self.version = next((entry.version for entry in model.opset_import if entry.domain in DOMAINS), 0)
        self.outputs = {value.name for value in model.graph.output}
        self.producers = {name: i for i, node in enumerate(self.nodes) for name in node.output if name}
        self.readers: dict[str, set[int]] = {}
        for i, node in enumerate(self.nodes):
            for name in read_by(node):
                self.readers.setdefault(name, set()).add(i)
        self.constants = _constants(model.graph)
        self.shapes = _shapes(model)

    def producer(self, name: str) -> int:
        """The node that makes a tensor, -1 for what the graph is given."""
        return self.producers.get(name, -1)

    def label(self, i: int) -> str:
        """What a node is called: its name, or that of what it makes."""
        node = self.nodes[i]
        return node.name or next(filter(None, node.output), f"node {i}")


def read_by(node: Any) -> Iterator[str]:
    """The names that a node reads, those inside its own graphs included."""
    yield from filter(None, node.input)
    for attribute in node.attribute:
        for inner in (attribute.g, *attribute.graphs):
            yield from (value.name for value in inner.output)
            for part in inner.node:
                yield from read_by(part)


def _constants(graph: Any) -> dict[str, Array]:
    """Initializers, `Constant` nodes, and what `Identity` and `Unsqueeze` make of them."""
    constants: dict[str, Array] = {}
    for tensor in graph.initializer:
        if tensor.name in constants:
            raise FormatError(f"has two initializers named {tensor.name[:80]!r}")
        constants[tensor.name] = _onnx.array_of(tensor)
    for node in graph.node:
        if node.domain in DOMAINS and len(node.output) == 1 and (value := _constant(node, constants)) is not None:
            constants[node.output[0]] = value
    return constants


def _constant(node: Any, known: dict[str, Array]) -> Array | None:
    values = {attribute.name: attribute for attribute in node.attribute}
    if node.op_type == "Constant":
        if "value" in values:
            return _onnx.array_of(values["value"].t)
        kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
        name = next(iter(values), "")
        return np.array(_onnx.package().helper.get_attribute_value(values[name]), kinds[name]) if name in kinds else None
    if node.op_type == "Identity" and node.input[0] in known:
        return known[node.input[0]]
    if node.op_type == "Unsqueeze" and node.input[0] in known:
        axes = list(values["axes"].ints) if "axes" in values else known.get(node.input[1]) if len(node.input) > 1 else None
        try:
            return None if axes is None else np.expand_dims(known[node.input[0]], tuple(int(axis) for axis in axes))
        except ValueError as error:
            raise FormatError(f"node {node.name or node.output[0]!r}: {error}") from None
    return None


def _shapes(model: Any) -> dict[str, tuple[int | None, ...]]:
    """What shape inference tells of each tensor, None for lengths that are open."""
    onnx = _onnx.package()
    try:
        graph = onnx.shape_inference.infer_shapes(model).graph
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError) as error:
        raise FormatError(f"is no valid ONNX model: {' '.join(str(error).split())[:200]}") from None
    return {value.name: tuple(d.dim_value if d.HasField("dim_value") else None for d in value.type.tensor_type.shape.dim)
            for value in (*graph.input, *graph.value_info, *graph.output) if value.type.tensor_type.HasField("shape")}
