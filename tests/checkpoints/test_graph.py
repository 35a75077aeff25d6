"""Linear regions of ONNX graphs: fused they compute the same, to the last bit where nothing rounds; what reads them stays right."""

import sys

import numpy as np
import pytest

pytest.importorskip("onnx")

import onnx

from npreparam.checkpoints import fuse_graph, verify_graph
from npreparam.fuse import border
from tests.checkpoints.graphs import EPS, Builder, evaluate, operators, session, written


def fused(tmp_path, builder, *outputs, insist=False, size=None):
    """Both models, after checking that the fused one is valid, agrees bit for bit, and verifies."""
    model = builder.model(*outputs, size=size)
    path = written(tmp_path, model)
    result = fuse_graph(path, insist=insist)
    assert result.held, result.faults
    x = builder.images(*(size or ())[:1])
    for ours, theirs in zip(evaluate(result.model, x), evaluate(model, x), strict=True):
        assert ours.shape == theirs.shape
        assert (ours == theirs).all()
    onnx.checker.check_model(result.model, full_check=True)
    if result.rows:
        result.save(tmp_path / "out.onnx")
        assert verify_graph(path, tmp_path / "out.onnx").faults == []
    assert [v.SerializeToString() for v in (*result.model.graph.input, *result.model.graph.output)] \
        == [v.SerializeToString() for v in (*model.graph.input, *model.graph.output)]
    return result


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


def test_padding_by_the_bias(tmp_path):
    """A biased pointwise map, padded by its bias: one convolution, as DBB and ECB are."""
    b = Builder(1)
    weight, bias = b.const(b.numbers(1, 1, 1, 1)), 0.75
    first = b.node("Conv", "x", weight, b.const(np.array([bias])))
    padded = b.node("Pad", first, b.const(np.array([0, 0, 1, 1, 0, 0, 1, 1])), b.const(np.array(bias)))
    result = fused(tmp_path, b, b.conv(padded, 4, 3))
    assert operators(result.model) == ["Conv"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("mean", "merged"), [(0.0, True), (1e-20, False)])
def test_padding_by_almost_the_bias(mean, merged, dtype, tmp_path):
    """1 - 1e-20 is no 1, though float64 rounds it to 1, and the sum of magnitudes as well."""
    b = Builder(1, dtype=dtype)
    parts = [b.const(np.array([value], dtype)) for value in (1.0, 1.0, mean, 1.0 - EPS)]
    first = b.node("BatchNormalization", b.conv("x", 1, bias=False), *parts, epsilon=EPS)
    padded = b.node("Pad", first, b.const(np.array([0, 0, 1, 1, 0, 0, 1, 1])), b.const(np.array(1.0, dtype)))
    model = b.model(b.conv(padded, 1, 3))
    result = fuse_graph(written(tmp_path, model))
    assert (operators(result.model) == ["Conv"]) == merged
    assert result.held


@pytest.mark.parametrize("where", ["pads", "Pad", "SAME_UPPER"])
def test_biased_pointwise_before_padding_is_left(where, tmp_path):
    b = Builder()
    first = b.norm(b.conv("x", 4))
    if where == "Pad":
        first = b.node("Pad", first, b.const(np.array([0, 0, 1, 1, 0, 0, 1, 1])))
    y = b.norm(b.conv(first, 4, 3, 0 if where == "Pad" else 1) if where != "SAME_UPPER" else b.conv(first, 4, 3, auto_pad=where))
    result = fused(tmp_path, b, y)
    assert operators(result.model).count("Conv") == 2
    assert "BatchNormalization" not in operators(result.model)
    assert any("pads channel" in line for line in result.refused)


def test_the_border_test_catches_a_missing_border_rule(tmp_path, monkeypatch):
    """Planted fault: without the rule the biased pointwise map is fused, and wrong; its certificate says so too."""
    from npreparam.fuse import algebra
    b = Builder()
    model = b.model(b.conv(b.conv("x", 4), 4, 3, 1))
    monkeypatch.setattr(algebra, "check_border", lambda second, first: None)
    result = fuse_graph(written(tmp_path, model))
    assert operators(result.model) == ["Conv"]
    assert not result.held
    x = b.images()
    assert (evaluate(result.model, x)[0] != evaluate(model, x)[0]).any()
    assert border.check_border is not algebra.check_border


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


@pytest.mark.parametrize(("shift", "merged"), [([1.5, -1.0], True), ([2.0**60, 0.5, -(2.0**60)], False)])
def test_a_constant_that_cancels_before_padding(shift, merged, tmp_path):
    """Biases that add up to 0 are no obstacle, those for which only float64 says so are one."""
    b = Builder(1)
    first = b.node("Conv", "x", b.const(b.numbers(2, 1, 1, 1)), b.const(np.full(2, -0.5 if merged else 0.0)), channels=2)
    for value in shift:
        first = b.node("Add", first, b.const(np.array(value)))
    model = b.model(b.conv(first, 1, 3, 1))
    result = fuse_graph(written(tmp_path, model), insist=True)
    assert (operators(result.model) == ["Conv"]) == merged
    assert result.held


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


@pytest.mark.parametrize(("attributes", "merged"), [({}, True), ({"pads": [1] * 4}, False), ({"pads": [1] * 4, "count_include_pad": 1}, True),
                                                    ({"ceil_mode": 1}, False), ({"auto_pad": "SAME_LOWER", "count_include_pad": 1}, True)])
def test_average_pooling(attributes, merged, tmp_path):
    b = Builder()
    y = b.conv(b.node("AveragePool", "x", kernel_shape=[2, 2], strides=[1, 1], **attributes), 4, 1)
    assert (operators(fused(tmp_path, b, y, insist=True).model) == ["Conv"]) == merged


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
