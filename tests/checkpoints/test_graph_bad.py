"""Graphs that are no graphs, parameters that are no numbers, data outside the folder, and fused files that are not what they should be."""

import numpy as np
import pytest

pytest.importorskip("onnx")

import onnx

from npreparam import FormatError
from npreparam.checkpoints import fuse_graph, verify_graph
from tests.checkpoints.fuzz import fuzz
from tests.checkpoints.graphs import Builder, fused_numbers, seeds, written


def simple():
    b = Builder(dtype=np.float32)
    return b, b.norm(b.conv("x", 4, 3, 1))


def no_format(tmp_path, model, match, name="m.onnx"):
    before = {path.name for path in tmp_path.iterdir()}
    path = written(tmp_path, model, name)
    with pytest.raises(FormatError, match=match) as caught:
        fuse_graph(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == before | {name}


@pytest.mark.parametrize("part", range(1, 5))
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_parameters_that_are_not_finite(part, value, tmp_path):
    b, y = simple()
    b.constants[b.nodes[1].input[part]][0] = value
    no_format(tmp_path, b.model(y), "not finite")


def test_negative_variance(tmp_path):
    b = Builder()
    no_format(tmp_path, b.model(b.norm("x", var=-1)), "must be positive")


def test_kernels_that_are_not_finite(tmp_path):
    b, y = simple()
    b.constants[b.nodes[0].input[1]].flat[5] = np.nan
    no_format(tmp_path, b.model(y), "not finite")


BROKEN = {
    "cycle": "topologically sorted", "missing": "topologically sorted", "shape": "its parameters are for 3 channels", "groups": "must be divisible",
    "twice": "not unique", "short": "too small", "kernel_shape": "is not that of its weight", "norm": "mismatch",
}


@pytest.mark.parametrize("fault", BROKEN)
def test_graphs_that_are_none(fault, tmp_path):
    b, y = simple()
    if fault == "norm":
        b.constants[b.nodes[1].input[3]] = np.ones(3, np.float32)
    elif fault == "shape":
        b.constants[b.nodes[0].input[1]] = np.ones((4, 3, 3, 3), np.float32)
    model = b.model(y, size=[9, 9])
    graph = model.graph
    if fault == "cycle":
        graph.node[0].input[0] = y
    elif fault == "missing":
        del graph.initializer[0]
    elif fault == "groups":
        next(a for a in graph.node[0].attribute if a.name == "group").i = 3
    elif fault == "twice":
        graph.initializer.append(graph.initializer[0])
    elif fault == "short":
        graph.initializer[0].raw_data = b"abc"
    elif fault == "kernel_shape":
        graph.node[0].attribute.append(onnx.helper.make_attribute("kernel_shape", [5, 5]))
    no_format(tmp_path, model, BROKEN[fault])


@pytest.mark.parametrize("content", [b"", b"nonsense" * 9, b"\x08\x07"])
def test_bytes_that_are_no_model(content, tmp_path):
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(FormatError):
        fuse_graph(tmp_path / "m.onnx")


def test_text_that_is_not_utf8(tmp_path):
    b, y = simple()
    content = b.model(y).SerializeToString()
    (tmp_path / "m.onnx").write_bytes(content.replace(b"n1", b"n\xb5"))
    with pytest.raises(FormatError, match="not UTF-8"):
        fuse_graph(tmp_path / "m.onnx")


def external(tmp_path, location, offset=0, length=None):
    """A model whose kernel lies in another file."""
    b, y = simple()
    model = b.model(y)
    tensor, = (tensor for tensor in model.graph.initializer if tensor.name == b.nodes[0].input[1])
    data = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entries = {"location": location, "offset": str(offset)} | ({} if length is None else {"length": str(length)})
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return b, y, model, data


def test_external_data_beside_the_model(tmp_path):
    b, y, model, data = external(tmp_path, "w.bin", 8, 4 * 4 * 9 * 4)
    (tmp_path / "w.bin").write_bytes(b"12345678" + data + b"9")
    result = fuse_graph(written(tmp_path, model))
    inside = fuse_graph(written(tmp_path, b.model(y), "inside.onnx"))
    assert (result.rows[0].weight == inside.rows[0].weight).all()
    assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in result.model.graph.initializer)


@pytest.mark.parametrize(("location", "match"), [("../w.bin", "outside the model's folder"), ("/etc/passwd", "outside the model's folder"),
                                                 ("absent.bin", "cannot be read"), (".", "cannot be read"),
                                                 ("link.bin", "outside the model's folder"), ("w\0.bin", "does not say where")])
def test_external_data_elsewhere(location, match, tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    (tmp_path / "w.bin").write_bytes(bytes(1000))
    (folder / "link.bin").symlink_to(tmp_path / "w.bin")
    no_format(folder, external(folder, location)[2], match)


@pytest.mark.parametrize(("offset", "length"), [(0, 10**6), (-4, 8), (10**20, None), (0, "many"), (0, 100)])
def test_external_data_of_the_wrong_length(offset, length, tmp_path):
    (tmp_path / "w.bin").write_bytes(bytes(576))
    no_format(tmp_path, external(tmp_path, "w.bin", offset, length)[2], "initializer 'c.'|too small")


@pytest.fixture
def pair(tmp_path):
    b = Builder(dtype=np.float32)
    y = b.conv(b.node("Relu", b.norm(b.conv("x", 4, 3, 1))), 4, 3)
    path = written(tmp_path, b.model(y))
    result = fuse_graph(path)
    result.save(tmp_path / "out.onnx")
    return path, result.model, tmp_path / "out.onnx"


FAULTS = {
    "two ulps": "stored numbers", "passed through": "initializer", "node": "node", "attribute": "node", "missing": "not made by one convolution",
    "more": "fused file alone", "opset": "operator sets", "input": "input", "pads": "node",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_verify_catches(fault, pair):
    source, model, out = pair
    graph = model.graph
    names = {tensor.name: tensor for tensor in graph.initializer}
    fused = next(name for name in names if name.endswith(".weight"))
    if fault in ("two ulps", "passed through"):
        tensor = names[fused if fault == "two ulps" else graph.node[2].input[1]]
        array = np.array(onnx.numpy_helper.to_array(tensor))
        array.flat[3] += 2 * np.spacing(array.flat[3])
        tensor.raw_data = array.tobytes()
    elif fault == "node":
        graph.node[1].op_type = "Neg"
    elif fault == "attribute":
        next(a for a in graph.node[0].attribute if a.name == "strides").ints[0] = 2
    elif fault == "pads":
        pads = next(a for a in graph.node[0].attribute if a.name == "pads")
        pads.ints[:] = [2, 1, 0, 1]
    elif fault == "missing":
        graph.node[0].input.pop()
    elif fault == "more":
        graph.node.append(onnx.helper.make_node("Neg", ["x"], ["more"]))
    elif fault == "opset":
        model.opset_import[0].version = 18
    else:
        graph.input[0].type.tensor_type.shape.dim[0].dim_value = 7
    out.write_bytes(model.SerializeToString())
    assert FAULTS[fault] in " ".join(verify_graph(source, out).faults)


def test_damaged_models_are_fused_or_refused(tmp_path):
    faults, outcomes = fuzz(tmp_path, 400, seed=2, read=fused_numbers, good=seeds())
    assert faults == []
    assert min(outcomes.values()) > 20
