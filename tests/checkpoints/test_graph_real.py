"""Real graphs: fused, verified, and run beside the originals and beside the twin that one's authors have simplified."""

import json

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("typer")

import onnx

from npreparam import ops
from npreparam.checkpoints import fuse_graph, load
from npreparam.checkpoints.graph._layout import layout_of
from npreparam.fuse.scalars import Magnitudes
from tests.checkpoints.graphs import operators, session
from tests.checkpoints.real import real
from tests.test_cli_fuse import run
from tests.tolerances import assert_within, tree_bound

RFB, POST, TWIN, GTCRN = ("rfb320_conv_bn.onnx", "rfb320_with_postprocessing_conv_bn.onnx", "rfb320_with_postprocessing_simplified_by_authors.onnx",
                          "gtcrn_transposed_bn.onnx")


def inputs_of(model, seed=0):
    rng = np.random.default_rng(seed)
    constants = {tensor.name for tensor in model.graph.initializer}
    return {value.name: rng.uniform(-1, 1, [d.dim_value for d in value.type.tensor_type.shape.dim]).astype(np.float32)
            for value in model.graph.input if value.name not in constants}


def with_outputs(model, names):
    """The model with more tensors as outputs."""
    more = onnx.ModelProto()
    more.CopyFrom(model)
    more.graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names)
    return more


@pytest.mark.parametrize(("name", "regions", "refused"), [(RFB, 35, 3), (POST, 35, 3), (GTCRN, 11, 0)])
def test_the_commands(name, regions, refused, tmp_path):
    """No batch norm is left, except where the border forbids more; both files' hashes and every bound are in the certificate."""
    source, out, report = real(name), tmp_path / "out.onnx", tmp_path / "r.json"
    result = run("fuse", source, out, "--report", report, "--html", tmp_path / "r.html")
    assert result.exit_code == 0, result.output
    record = json.loads(report.read_text())
    assert len(record["blocks"]) == regions
    assert len(record["refused"]) == refused
    assert all(row["held"] and row["measured"] <= row["bound"] + row["evaluation bound"] for row in record["blocks"])
    assert all(row["rounding"] == "correctly rounded" for row in record["blocks"])
    model = onnx.load(out)
    assert "BatchNormalization" not in operators(model)
    assert len(model.graph.node) == len(onnx.load(source).graph.node) - regions
    assert {entry.key for entry in model.metadata_props} == {"npreparam"}
    assert run("verify", source, out).exit_code == 0


@pytest.mark.parametrize("name", [RFB, GTCRN])
def test_every_region_on_real_activations(name):
    """What ONNX Runtime computes for each region, on what reaches it in the network: within what both sides' float32 roundings allow."""
    model, result = onnx.load(real(name)), fuse_graph(real(name))
    regions = [row.block for row in result.rows]
    names = list(dict.fromkeys([region.source for region in regions] + [region.output for region in regions]))
    probed = session(with_outputs(model, [n for n in names if n not in inputs_of(model)]))
    feeds = inputs_of(model)
    values = feeds | dict(zip((output.name for output in probed.get_outputs()), probed.run(None, feeds), strict=True))
    for row, region in zip(result.rows, regions, strict=True):
        sizes = region(Magnitudes(0.0))
        layout = layout_of(sizes)
        geometry = layout.geometry(sizes)
        operation = ops.conv_transpose2d if sizes.transposed else ops.conv2d
        x = values[region.source].astype(np.float64)
        magnitude = operation(np.abs(x), layout.weight(sizes), sizes.bias, **geometry)
        fused = operation(x, row.weight.astype(np.float64), row.bias.astype(np.float64), **geometry)
        roundings = sum(step.roundings for step in region.steps) + 2
        assert_within(values[region.output], fused, tree_bound(roundings, magnitude, np.float32))


def test_the_twin_of_the_authors():
    """They fold in float32: within twice the roundings of ours from the sum of the magnitudes of each number's terms."""
    theirs, ours = load(real(TWIN)), fuse_graph(real(POST))
    for row in ours.rows:
        first = next(step for step in row.block.steps if step.kernel)
        weight, bias = (theirs[name] for name in _twin_names(ours, row, first))
        sizes = row.block(Magnitudes(0.0))
        assert_within(weight, row.weight, tree_bound(2 * sizes.roundings, layout_of(sizes).weight(sizes), np.float32))
        assert_within(bias, row.bias, tree_bound(2 * sizes.roundings, sizes.bias, np.float32))


def _twin_names(ours, row, first):
    """The twin keeps the order of its convolutions."""
    twin = [node for node in onnx.load(real(TWIN)).graph.node if node.op_type == "Conv"]
    mine = [node for node in ours.model.graph.node if node.op_type == "Conv"]
    at = next(i for i, node in enumerate(mine) if node.output[0] == row.block.output)
    return twin[at].input[1:3]


def test_outputs_are_as_near_as_those_of_the_authors_twin():
    """The largest difference to the original is no more than twice that of the twin, both roundings of the same network."""
    models = [onnx.load(real(RFB)), onnx.load(real(TWIN)), fuse_graph(real(RFB)).model]  # the twin too ends before the postprocessing
    feeds = inputs_of(models[0])
    original, twin, ours = (session(model).run(None, feeds) for model in models)
    for a, b, c in zip(original, twin, ours, strict=True):
        assert np.abs(c - a).max() <= 2 * np.abs(b - a).max()
