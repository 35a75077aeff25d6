"""ONNX graphs with every maximal linear region as one convolution, each with its certificate."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from npreparam._errors import FusionError, ShapeError
from npreparam.checkpoints import _onnx
from npreparam.checkpoints._dtypes import Array
from npreparam.checkpoints._files import told_of, written
from npreparam.checkpoints.certificate import SPARE, Certificate, are_arrays_of, judged, random_input, unfit
from npreparam.checkpoints.fold import read_rounded, stored
from npreparam.checkpoints.graph._convolutions import convolved
from npreparam.checkpoints.graph._layout import Layout, layout_of
from npreparam.checkpoints.graph._model import Graph, check, open_model
from npreparam.checkpoints.graph._region import MOST_REGIONS, Region, linear_steps, regions_before
from npreparam.checkpoints.graph._rewrite import Pieces, rewritten
from npreparam.checkpoints.transform import Fused, Row, Step, beyond, nothing
from npreparam.fuse import is_no_larger
from npreparam.fuse.scalars import FLOAT64

TOLD = ("Conv", "ConvTranspose", "BatchNormalization", "Gemm")  # why one of these is no step is worth a line
MOST_MEASURED = 2**26  # elements of the largest array of a measurement


@dataclass(eq=False)
class FusedGraph(Fused):
    """What became of a graph: as `Fused`, its rows being regions; `model` is the new ModelProto.

    `kept` are regions that would be larger as one convolution, `refused` those that have no exact one; both stay, in smaller regions or as
    they were.

    >>> FusedGraph().held, FusedGraph().model is None
    (True, True)
    """

    model: Any = None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model, whole or not at all."""
        content = self.model.SerializeToString(deterministic=True)
        with written(Path(path)) as file:
            file.write(content)


def fuse_graph(path: str | os.PathLike[str], *, insist: bool = False, largest: float = 1.0, step: Step = nothing) -> FusedGraph:
    """The graph of an ONNX file with each linear region as one Conv, ConvTranspose or Gemm.

    A region lies between two tensors, through the first of which all paths to the second lead; no other node and no output of the graph reads
    what is inside. Its nodes are Conv, ConvTranspose, Gemm, BatchNormalization, AveragePool, Pad, Add, Sum, Sub, Neg, Mul and Div by constants,
    Identity, Dropout, Flatten of rows, and Concat, Split and Slice of channels, whose parameters are constants, initializers that are inputs of
    the graph included. Of the regions that end at one tensor the largest is fused that is exact at every border and has no more weights than
    its convolutions have together (`npreparam.fuse.is_no_larger`), unless `insist`; then it has no more multiply-adds either, since none of its
    convolutions computes fewer places than the last. Graphs inside nodes stay as they are. Inputs, outputs, operator sets, open lengths and
    metadata stay.

    Bounds are for inputs of at most `largest` in magnitude. `step` is called after each region.

    Rounding: as `fold`, to the type of the region's kernels.

    Raises FormatError (damage, an invalid graph, external data outside the file's folder, parameters that are not finite, negative variance),
    ImportError without the extra `onnx`.

    >>> import tempfile
    >>> from onnx import TensorProto, helper, numpy_helper, save
    >>> weights = [numpy_helper.from_array(np.ones((2, 2, 1, 1), np.float32), "w")]
    >>> nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Add", ["c", "x"], ["y"])]
    >>> x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2, "h", "w"]) for name in "xy")
    >>> model = helper.make_model(helper.make_graph(nodes, "g", [x], [y], weights), opset_imports=[helper.make_opsetid("", 17)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(model, f"{folder}/m.onnx")
    ...     fused = fuse_graph(f"{folder}/m.onnx")
    >>> [node.op_type for node in fused.model.graph.node], fused.rows[0].weight[..., 0, 0].tolist(), fused.held
    (['Conv'], [[2.0, 1.0], [1.0, 2.0]], True)
    """
    with told_of(Path(path)):
        graph = Graph(open_model(Path(path)))
        result = FusedGraph()
        pieces: Pieces = []
        for region, layout in _plan(graph, insist, result):
            try:
                conv, rounding = read_rounded(region, region.entry, region.dtype(), region.factors)
                weight, bias = stored(layout.weight(conv), conv.bias, region.dtype())
            except FusionError as error:  # of what float64 arithmetic did not show
                result.refused.append(f"{region.name} ({region.family}) is not fused: {error}")
                continue
            pieces.append((region, layout.geometry(conv), weight, bias))
            result.rows.append(Row(region, region.numbers, weight, bias, certify_region(region, weight, bias, largest), None, rounding))
            region.forget()
            step()
        result.rows.reverse()
        result.faults += beyond(result.rows)
        result.model = rewritten(graph, pieces)
        _note(result.model, hashlib.sha256(Path(path).read_bytes()).hexdigest())
        check(result.model)
    return result


def verify_graph(path: str | os.PathLike[str], other: str | os.PathLike[str], *, largest: float = 1.0, step: Step = nothing) -> FusedGraph:
    """Check that a file is what fusing another gives: every number of every region, and all else as it was.

    Regions that one convolution would make larger may be fused, all or none.

    Raises as `fuse_graph`.

    >>> import tempfile
    >>> from onnx import TensorProto, helper, numpy_helper, save
    >>> weights = [numpy_helper.from_array(np.ones((2, 2, 1, 1), np.float32), "w")]
    >>> nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Add", ["c", "x"], ["y"])]
    >>> x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2, "h", "w"]) for name in "xy")
    >>> model = helper.make_model(helper.make_graph(nodes, "g", [x], [y], weights), opset_imports=[helper.make_opsetid("", 17)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(model, f"{folder}/m.onnx")
    ...     fuse_graph(f"{folder}/m.onnx").save(f"{folder}/fused.onnx")
    ...     checked = verify_graph(f"{folder}/m.onnx", f"{folder}/fused.onnx")
    >>> checked.faults, checked.held
    ([], True)
    """
    with told_of(Path(path)):
        graph = Graph(open_model(Path(path)))
    with told_of(Path(other)):
        found = open_model(Path(other))
        tensors = {tensor.name: _onnx.array_of(tensor) for tensor in found.graph.initializer}
    with told_of(Path(path)):
        result = _compared(graph, found, tensors, False, largest, step)
        if result.faults and result.kept:
            insisted = _compared(graph, found, tensors, True, largest, step)
            result = min(result, insisted, key=lambda each: len(each.faults))
    return result


def _compared(graph: Graph, found: Any, tensors: dict[str, Array], insist: bool, largest: float, step: Step) -> FusedGraph:
    """Verification against one way of choosing regions."""
    result, pieces, makers = FusedGraph(model=found), [], {name: node for node in found.graph.node for name in node.output}
    for region, layout in _plan(graph, insist, result):
        arrays = [tensors.get(name) for name in getattr(makers.get(region.output), "input", ())[1:]]
        if len(arrays) != 2 or any(array is None for array in arrays):
            result.faults.append(f"{region.name}: {region.output} is not made by one convolution with a bias in the fused file")
            continue
        weight, bias = arrays
        pieces.append((region, layout.geometry(region(FLOAT64)), weight, bias))
        result.rows.append(Row(region, region.numbers, weight, bias, certify_region(region, weight, bias, largest)))
        region.forget()
        step()
    result.rows.reverse()
    result.faults += beyond(result.rows)
    if len(result.rows) == len(pieces) and not result.faults:
        result.faults += _differences(rewritten(graph, pieces), found)
    return result


def _differences(expected: Any, found: Any) -> Iterator[str]:
    """What is not as it should be in a model, the numbers of fused convolutions apart."""
    for kind in ("node", "initializer", "sparse_initializer", "input", "output"):
        ours, theirs = ({_key(entry): entry.SerializeToString(deterministic=True) for entry in getattr(model.graph, kind)}
                        for model in (expected, found))
        yield from (f"{kind} {name[:80]} is not as it was" for name in ours if theirs.get(name) != ours[name])
        yield from (f"{kind} {name[:80]} is in the fused file alone" for name in theirs if name not in ours)
    ours, theirs = ([*(f"{entry.domain}:{entry.version}" for entry in model.opset_import), str(model.ir_version)] for model in (expected, found))
    if ours != theirs:
        yield f"the operator sets or the version are {', '.join(theirs)} instead of {', '.join(ours)}"


def _key(entry: Any) -> str:
    """What tells an entry of a graph from others of its kind."""
    return str(getattr(entry, "name", "") or next(filter(None, getattr(entry, "output", ())), "") or getattr(entry, "values", entry).name)


def _plan(graph: Graph, insist: bool, result: Fused) -> Iterator[tuple[Region, Layout]]:
    """The regions to fuse, from the last; what stays is told in `result`."""
    steps, reasons = linear_steps(graph)
    result.refused += [f"{graph.label(i)} ({graph.nodes[i].op_type}) stays as it is: {why}" for i, why in reasons.items()
                       if graph.nodes[i].op_type in TOLD]
    free = dict(steps)
    for last in sorted(steps, reverse=True):
        if last not in free or len(steps[last].outputs) != 1:
            continue
        regions = [region for region in regions_before(graph, free, last) if region.kernels and len(region.steps) > 1]
        first = ""
        for region in regions[::-1][:MOST_REGIONS]:
            try:
                layout, smaller = _fusible(region)
            except FusionError as error:
                first = first or str(error)
                region.forget()
                continue
            if smaller or insist:
                for step in region.steps:
                    del free[step.index]
                yield region, layout
                break
            now = sum(int(np.prod(kernel)) for kernel in region.kernels)
            result.kept.setdefault(region.name, f"one {'x'.join(map(str, layout.shape))} kernel would be larger than its {len(region.kernels)} of "
                                                f"{now:,} weights")
        if first:
            whole = regions[-1]
            result.refused.append(f"{whole.name} ({whole.family}) is not fused as a whole: {first}")


def _fusible(region: Region) -> tuple[Layout, bool]:
    """The layout of the one convolution that a region is, and whether that is no larger. Raises FusionError where it is none."""
    with np.errstate(all="ignore"):
        conv = region(FLOAT64)
        region.check_borders()
    layout = layout_of(conv)
    layout.geometry(conv)
    stored(layout.weight(conv), conv.bias, region.dtype())
    return layout, is_no_larger(layout.shape, region.kernels)


def certify_region(region: Region, weight: Array, bias: Array, largest: float = 1.0) -> Certificate:
    """The certificate of a region's stored parameters, as `certify` gives it for blocks."""
    conv, sizes = region(FLOAT64), region(region.sizes)
    layout = layout_of(conv)
    kernel = layout.weight(conv)
    if not are_arrays_of(weight, bias, (kernel.shape, conv.bias.shape)):
        return unfit(weight, bias, largest)
    measured = _measured(region, layout, layout.geometry(conv), (weight, bias), largest)
    return judged((conv, sizes), (weight, kernel, layout.weight(sizes)), bias, largest, measured, sum(step.roundings for step in region.steps))


def _measured(region: Region, layout: Layout, geometry: dict[str, Any], arrays: tuple[Array, Array], largest: float) -> float | None:
    """The largest difference on random inputs, node by node in float64; None where they are too large, too small inside, or of three axes."""
    window = tuple(d * (n - 1) + 1 for d, n in zip(layout.dilation, layout.lengths, strict=True))
    plane, channels = [n + SPARE for n in window], max(region.counts.values())
    for step in region.steps:
        plane = [step.growth[0] * n + step.growth[1] for n in plane]
    if region.rank > 2 or channels * np.prod([float(n) for n in plane]) > MOST_MEASURED:
        return None
    x = random_input(window, region.channels, largest)
    values = {region.source: x.reshape(*x.shape[:2], *x.shape[4 - region.rank:])}
    try:
        for each in region.steps:
            values |= zip(each.outputs, each.evaluate(*(values[name] for name in each.inputs)), strict=True)
    except ShapeError:  # something inside crops more than the whole does
        return None
    weight, bias = (array.astype(np.float64) for array in arrays)
    return float(np.abs(convolved(values[region.source], weight, bias, geometry) - values[region.output]).max())


def _note(model: Any, digest: str) -> None:
    """Say in the metadata which file was fused."""
    kept = [entry for entry in model.metadata_props if entry.key != "npreparam"]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    model.metadata_props.add(key="npreparam", value=f'{{"input sha256": "{digest}"}}')
