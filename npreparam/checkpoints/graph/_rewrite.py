"""A graph with each region as one node, and everything else as it was."""

from __future__ import annotations

from typing import Any

from npreparam.checkpoints import _onnx
from npreparam.checkpoints._dtypes import Array
from npreparam.checkpoints.graph._model import DOMAINS, Graph, read_by
from npreparam.checkpoints.graph._region import Region

INITIALIZERS_ALONE = 4  # the IR version since which an initializer need not be an input of the graph
Pieces = list[tuple[Region, dict[str, Any], Array, Array]]  # a region, and geometry, weight and bias of its convolution


def rewritten(graph: Graph, pieces: Pieces) -> Any:
    """A new model; inputs and outputs, operator sets, metadata and whatever is not fused keep their names and order.

    Constants that nothing reads any more are dropped, also from the inputs of the graph.
    """
    model = _onnx.package().ModelProto()
    model.CopyFrom(graph.model)
    target, taken = model.graph, _names(graph)
    ends = {region.steps[-1].index: (region, geometry, weight, bias) for region, geometry, weight, bias in pieces}
    gone = {step.index for region, *_ in pieces for step in region.steps}
    nodes = []
    for i, node in enumerate(graph.nodes):
        if i in ends:
            nodes.append(_convolution(graph, ends[i], target, taken))
        elif i not in gone:
            nodes.append(node)
    nodes = _without_unread(nodes, graph)
    del target.node[:]
    target.node.extend(nodes)
    _drop_unread(target, graph)
    return model


def _names(graph: Graph) -> set[str]:
    return {*graph.constants, *graph.producers, *graph.readers, *(value.name for value in graph.model.graph.input)}


def _convolution(graph: Graph, piece: tuple[Region, dict[str, Any], Array, Array], target: Any, taken: set[str]) -> Any:
    """The node of a region, with its initializers added to the graph."""
    onnx = _onnx.package()
    region, geometry, *arrays = piece
    names = [_free(f"{region.output}.{part}", taken) for part in ("weight", "bias")]
    for name, array in zip(names, arrays, strict=True):
        tensor = onnx.numpy_helper.from_array(array, name)
        target.initializer.append(tensor)
        if graph.model.ir_version < INITIALIZERS_ALONE:
            target.input.append(onnx.helper.make_tensor_value_info(name, tensor.data_type, array.shape))
    operator, attributes = _operation(geometry, arrays[0])
    node = onnx.helper.make_node(operator, [region.source, *names], [region.output], **attributes)
    node.name = graph.nodes[region.steps[-1].index].name
    return node


def _operation(geometry: dict[str, Any], weight: Array) -> tuple[str, dict[str, Any]]:
    """The operator that computes a map, and its attributes."""
    if weight.ndim == 2:
        return "Gemm", {"transB": 1}
    before, after = zip(*geometry["padding"], strict=True)
    attributes = {"dilations": geometry["dilation"], "group": geometry["groups"], "kernel_shape": weight.shape[2:],
                  "pads": (*before, *after), "strides": geometry["stride"]}
    if "output_padding" not in geometry:
        return "Conv", attributes
    if any(geometry["output_padding"]):
        attributes["output_padding"] = geometry["output_padding"]
    return "ConvTranspose", attributes


def _free(name: str, taken: set[str]) -> str:
    """A name that the graph does not use yet."""
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _without_unread(nodes: list[Any], graph: Graph) -> list[Any]:
    """Without the constants' nodes that were read before and no more."""
    kept: list[Any] = []
    read = set(graph.outputs)
    for node in reversed(nodes):
        was_read = any(graph.readers.get(name) for name in node.output)
        if node.domain in DOMAINS and was_read and all(name in graph.constants and name not in read for name in node.output):
            continue
        kept.append(node)
        read |= set(read_by(node))
    return kept[::-1]


def _drop_unread(target: Any, graph: Graph) -> None:
    """Drop initializers that were read before and no more, and what was said of tensors that are gone."""
    read = {name for node in target.node for name in read_by(node)} | graph.outputs
    dropped = {tensor.name for tensor in target.initializer if tensor.name not in read and graph.readers.get(tensor.name)}
    made = {name for node in target.node for name in node.output}
    gone = (set(graph.producers) - made) | dropped

    def keep(entries: Any, name_of: Any) -> None:
        left = [entry for entry in entries if name_of(entry) not in gone]
        if len(left) < len(entries):
            del entries[:]
            entries.extend(left)

    for entries in (target.initializer, target.input, target.value_info):
        keep(entries, lambda entry: entry.name)
    keep(target.quantization_annotation, lambda entry: entry.tensor_name)
