"""Linear regions of ONNX graphs: fused they compute the same, to the last bit where nothing rounds; what reads them stays right."""

import sys

import numpy as np
import pytest

pytest.importorskip("onnx")

import onnx

from npreparam.checkpoints import fuse_graph, verify_graph
from tests.checkpoints.graphs import Builder, fused, operators, session, written


def repvgg(b, x, groups=1, outputs=None, **attributes):
    three = b.norm(b.conv(x, outputs, 3, 1, bias=False, groups=groups, **attributes))
    one = b.norm(b.conv(x, outputs, 1, 0, bias=False, groups=groups, **attributes))
    return b.node("Add", three, one)


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_repvgg(groups, rank, tmp_path):
    b = Builder(rank=rank)
    y = b.node("Relu", b.node("Add", repvgg(b, "x", groups), b.norm("x")))
    y = repvgg(b, y, groups, 8, strides=[2] * rank)
    result = fused(tmp_path, b, y)
    assert operators(result.model) == ["Conv", "Relu", "Conv"]
    assert result.rows[0].weight.shape == (4, 4 // groups, *(3,) * rank)
    assert [row.block.name for row in result.rows] == ["n6", "n12"]


def test_diverse_branches(tmp_path):
    """1x1 before 3x3 and average pooling without padding between them, a concatenation, scales and a shift by constants."""
    b = Builder()
    x = b.node("Pad", "x", b.const(np.array([0, 0, 1, 1, 0, 0, 1, 1])))
    chain = b.norm(b.conv(b.conv(x, 4), 4, 3))
    pooled = b.norm(b.node("AveragePool", b.conv(x, 4), kernel_shape=[2, 2]))
    pooled = b.conv(pooled, 4, 2, 0)
    both = b.node("Concat", chain, pooled, axis=1, channels=8)
    y = b.node("Sub", b.node("Div", b.node("Mul", b.conv(both, 4), b.per_channel(chain)), b.const(np.array(4.0))), b.per_channel(chain))
    y = b.node("Sum", y, b.conv("x", 4, 3, 1), "x", b.const(b.numbers(4, 1, 1)))
    result = fused(tmp_path, b, y)
    assert "Conv" in operators(result.model)


def test_a_dropout_whose_mask_is_used_stays(tmp_path):
    b = Builder(dtype=np.float32)
    y, mask = b.node("Dropout", b.norm(b.conv("x", 4, bias=False)), outputs=2)
    model = b.model(y)
    assert operators(fuse_graph(written(tmp_path, model)).model) == ["Conv"]
    model.graph.output.append(onnx.helper.make_tensor_value_info(mask, onnx.TensorProto.BOOL, [None] * 4))
    assert operators(fuse_graph(written(tmp_path, model)).model) == ["Conv", "Dropout"]


def test_operators_of_others_are_left(tmp_path):
    b = Builder(dtype=np.float32)
    y = b.norm(b.conv(b.node("Conv", b.conv("x", 4), b.const(b.numbers(4, 4, 1, 1)), domain="com.somebody"), 4))
    model = b.model(y)
    model.opset_import.append(onnx.helper.make_opsetid("com.somebody", 1))
    result = fuse_graph(written(tmp_path, model))
    assert [(node.op_type, node.domain) for node in result.model.graph.node] == [("Conv", ""), ("Conv", "com.somebody"), ("Conv", "")]


@pytest.mark.parametrize("reader", ["node", "output", "inner graph"])
def test_a_value_with_another_reader_stays(reader, tmp_path):
    b = Builder()
    first = b.conv("x", 4, bias=False)
    y = b.norm(b.conv(first, 4, 3, 1))
    outputs = [y]
    if reader == "node":
        outputs.append(b.node("Relu", first))
    elif reader == "output":
        outputs.append(first)
    else:
        branch = onnx.helper.make_graph([onnx.helper.make_node("Neg", [first], ["inner"])], "branch", [],
                                        [onnx.helper.make_tensor_value_info("inner", onnx.TensorProto.DOUBLE, None)])
        outputs.append(b.node("If", b.const(np.array(True)), then_branch=branch, else_branch=branch, channels=4))
    result = fused(tmp_path, b, *outputs)
    assert [row.block.family for row in result.rows] == ["Conv+BatchNormalization"]
    assert result.rows[0].block.source == first


def test_diamonds_on_diamonds(tmp_path):
    """Twelve sums of a tensor with itself and its scale: as a tree there would be 3**12 branches."""
    b = Builder(2)
    y = b.conv("x", 2, 3, 1)
    for _ in range(12):
        y = b.node("Add", y, b.node("Sub", y, b.node("Mul", y, b.const(np.array(0.5)))))
    assert operators(fused(tmp_path, b, y).model) == ["Conv"]


def test_larger_regions_are_left_unless_asked(tmp_path):
    """Depthwise and pointwise, and a bottleneck, stay in their parts with their batch norms folded."""
    b = Builder(8)
    y = b.norm(b.conv("x", 16, 1, bias=False))
    y = b.node("Relu", y)
    y = b.norm(b.conv(b.conv(y, 16, 1, bias=False), 16, 3, 1, bias=False, groups=16))
    y = b.node("Relu", y)
    y = b.conv(b.conv(b.conv(y, 2, 1, bias=False), 2, 3, 1, bias=False), 16, 1)
    model = fused(tmp_path, b, y)
    assert operators(model.model) == ["Conv", "Relu", "Conv", "Conv", "Relu", *["Conv"] * 3]
    assert "would be larger" in " ".join(model.kept.values())
    whole = fused(tmp_path, b, y, insist=True)
    assert operators(whole.model) == ["Conv", "Relu", "Conv", "Relu", "Conv"]
    assert verify_graph(tmp_path / "m.onnx", tmp_path / "out.onnx").faults == []


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize(("stride", "more", "groups", "dilation"), [(1, 0, 1, 1), (1, 0, 4, 2), (2, 1, 2, 1), (3, 0, 1, 1), (2, 0, 1, 2)])
def test_transposed_convolutions(stride, more, groups, dilation, rank, tmp_path):
    b = Builder(rank=rank, dtype=np.float32)
    y = b.norm(b.conv_transpose(b.conv("x", 4, bias=False), 8, 3, groups, strides=[stride] * rank, pads=[1, 0] * rank, dilations=[dilation] * rank,
                                output_padding=[more] * rank))
    result = fused(tmp_path, b, y, insist=True)
    assert operators(result.model) == (["Conv"] if stride == 1 else ["ConvTranspose"])


def test_dilation_is_kept(tmp_path):
    b = Builder()
    result = fused(tmp_path, b, b.norm(b.conv("x", 4, 3, 5, dilations=[5, 5])))
    assert result.rows[0].weight.shape == (4, 4, 3, 3)


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_automatic_padding(auto_pad, tmp_path):
    b = Builder()
    assert operators(fused(tmp_path, b, b.norm(b.conv("x", 4, (4, 3), auto_pad=auto_pad))).model) == ["Conv"]
    c = Builder()
    strided = fused(tmp_path, c, c.norm(c.conv("x", 4, 3, auto_pad=auto_pad, strides=[2, 2])))
    assert len(strided.rows) == (auto_pad == "VALID")


def test_split_and_concatenation(tmp_path):
    b = Builder()
    left, right = b.node("Split", b.conv("x", 4, 3, 1), b.const(np.array([1, 3])), axis=1, outputs=2)
    b.channels |= {left: 1, right: 3}
    y = b.node("Concat", b.conv(right, 2, 1), b.node("Neg", left), axis=1, channels=3)
    assert operators(fused(tmp_path, b, y).model) == ["Conv"]


def test_position_dependent_constants_are_left(tmp_path):
    b = Builder()
    y = b.node("Add", b.norm(b.conv("x", 4)), b.const(b.numbers(1, 4, 9, 9)))
    assert operators(fused(tmp_path, b, y, size=[9, 9]).model) == ["Conv", "Add"]


def test_constants_of_all_kinds_are_found_and_dropped(tmp_path):
    """Initializers that are inputs of the graph, Constant nodes, and what Identity and Unsqueeze make of them."""
    b = Builder(opset=9, dtype=np.float32)
    weight = b.node("Constant", value=onnx.numpy_helper.from_array(b.numbers(4, 4, 1, 1)))
    bias = b.node("Identity", b.const(b.numbers(4)))
    scale = b.node("Unsqueeze", b.const(b.numbers(4)), axes=[1, 2])
    y = b.node("Mul", b.node("Conv", "x", weight, bias, channels=4), scale, channels=4)
    y = b.node("Dropout", b.norm(y))
    unread = b.const(b.numbers(3))
    model = b.model(y, old=True)
    result = fuse_graph(written(tmp_path, model))
    graph = result.model.graph
    assert operators(result.model) == ["Conv"]
    assert [value.name for value in graph.input] == ["x", unread, f"{y}.weight", f"{y}.bias"]  # as this old version demands
    assert {tensor.name for tensor in graph.initializer} == {unread, f"{y}.weight", f"{y}.bias"}
    assert {entry.key for entry in result.model.metadata_props} == {"author", "npreparam"}
    assert list(result.model.opset_import) == list(model.opset_import)
    x = b.images()
    ours, theirs = (session(each).run(None, {"x": x})[0] for each in (result.model, model))
    assert (ours == theirs).all()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16"])
def test_storage_types(dtype, tmp_path):
    """Numbers of the graph's type, correctly rounded: random ones this time."""
    kind = np.dtype(dtype) if dtype != "bfloat16" else np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
    b = Builder(dtype=kind, opset=22)
    b.numbers = lambda *shape: b.rng.standard_normal(shape).astype(kind)
    path = written(tmp_path, b.model(b.node("Add", repvgg(b, "x"), "x")))
    result = fuse_graph(path)
    row, = result.rows
    assert result.held
    assert row.weight.dtype == row.bias.dtype == kind
    assert row.rounding == ("float64, then rounded once" if dtype == "bfloat16" else "correctly rounded")
    result.save(tmp_path / "out.onnx")
    assert verify_graph(path, tmp_path / "out.onnx").faults == []


def test_numbers_too_large_for_the_type_are_left(tmp_path):
    b = Builder(dtype=np.float16)
    y = b.node("Mul", b.node("Mul", b.conv("x", 4), b.const(np.float16(6e4))), b.const(np.float16(6e4)))
    assert "exceed float16" in " ".join(fuse_graph(written(tmp_path, b.model(y))).refused)


def test_entries_are_those_of_the_whole(tmp_path):
    """Exact single entries, read from the end, against the exact whole, read from the start."""
    from npreparam.checkpoints.graph._model import Graph, open_model
    from npreparam.checkpoints.graph._region import linear_steps, regions_before
    from npreparam.fuse import regroup
    from npreparam.fuse.scalars import EXACT
    b = Builder(rank=1)
    parts = b.node("Split", b.conv("x", 4, 3, 1, groups=2), axis=1, outputs=2)
    b.channels |= dict.fromkeys(parts, 2)
    joined = b.node("Concat", b.norm(b.conv(parts[0], 2)), parts[1], axis=1, channels=4)
    graph = Graph(open_model(written(tmp_path, b.model(b.node("Sub", joined, b.norm("x"))))))
    steps, _ = linear_steps(graph)
    region = list(regions_before(graph, steps, max(steps)))[-1]
    whole = regroup(region(EXACT), 1)
    for row in range(4):
        for column in range(4):
            entry = region.entry(row, column, whole)(EXACT)
            assert entry.bias[0] == whole.bias[row]
            for tap, block in zip(entry.taps, entry.blocks, strict=True):
                assert block[0, 0] == whole.blocks[whole.taps.index(tap), row, column]


def test_a_missing_package_names_the_extra(tmp_path, monkeypatch):
    path = written(tmp_path, Builder().model("x"))
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"pip install 'npreparam\[onnx\]'"):
        fuse_graph(path)
