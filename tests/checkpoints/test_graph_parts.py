"""Slices of channels, and average pools that are one box only for images of a certain size, in ONNX graphs."""

import numpy as np
import pytest

pytest.importorskip("onnx")

from npreparam.checkpoints import fuse_graph
from tests.checkpoints.graphs import Builder, evaluate, fused, operators, same_in_runtime, written

HUGE = 2**63 - 1


@pytest.mark.parametrize("opset", [9, 17])
@pytest.mark.parametrize("rank", [1, 2])
def test_partial_convolution(rank, opset, tmp_path):
    """As in FasterNet: the first channels are convolved, the others pass."""
    b = Builder(4, rank=rank, dtype=np.float32, opset=opset)
    first, rest = b.slice("x", 0, 2), b.slice("x", 2, HUGE, axis=1 if opset < 10 else -1 - rank)
    y = b.conv(b.node("Concat", b.conv(first, 2, 3, 1), rest, axis=1, channels=4), 4, 1)
    result = fused(tmp_path, b, y, insist=True)
    assert operators(result.model) == ["Conv"]
    assert same_in_runtime(result, b.model(y), b.images())


@pytest.mark.parametrize(("start", "end", "step"), [(1, 3, 1), (-2, HUGE, 1), (0, -1, 1), (0, 4, 2), (3, -HUGE, -1), (2, 0, -1), (-9, 9, 3)])
def test_any_slice_of_channels(start, end, step, tmp_path):
    b = Builder(4, dtype=np.float32)
    part = b.slice(b.conv("x", 4), start, end, step=step)
    y = b.conv(part, 3, 3)
    result = fused(tmp_path, b, y, insist=True)
    assert operators(result.model) == ["Conv"]
    assert same_in_runtime(result, b.model(y), b.images())


@pytest.mark.parametrize("case", ["axis", "two axes", "computed"])
def test_other_slices_stay(case, tmp_path):
    b = Builder(4)
    x = b.conv("x", 4)
    if case == "axis":
        part = b.slice(x, 1, 5, axis=2)
    elif case == "two axes":
        part = b.node("Slice", x, *(b.const(np.array(n)) for n in ([0, 0], [2, 2], [1, 3])), channels=2)
    else:
        bound = b.node("Abs", b.const(np.array([2])))
        part = b.node("Slice", x, b.const(np.array([0])), bound, b.const(np.array([1])), channels=2)
    assert "Slice" in operators(fused(tmp_path, b, b.conv(part, 4)).model)


@pytest.mark.parametrize(("attributes", "merged"), [({}, True), ({"pads": [1] * 4}, False), ({"pads": [1] * 4, "count_include_pad": 1}, True),
                                                    ({"ceil_mode": 1}, True), ({"auto_pad": "SAME_LOWER", "count_include_pad": 1}, True)])
def test_average_pooling(attributes, merged, tmp_path):
    b = Builder()
    y = b.conv(b.node("AveragePool", "x", kernel_shape=[2, 2], strides=[1, 1], **attributes), 4, 1)
    assert (operators(fused(tmp_path, b, y, insist=True).model) == ["Conv"]) == merged


@pytest.mark.parametrize("size", [None, 6, 7, 8, 9])
@pytest.mark.parametrize("kernel", [2, 3])
@pytest.mark.parametrize("ceil", [0, 1])
@pytest.mark.parametrize("included", [0, 1])
@pytest.mark.parametrize("pads", [(0, 0), (0, 1), (1, 1)])
def test_pools_are_merged_where_all_windows_are_whole(pads, included, ceil, kernel, size, tmp_path):
    """Whether the result is right `fused` tells; whether it is merged, the windows: none may end beyond what is counted."""
    b = Builder(dtype=np.float32)
    y = b.conv(b.node("AveragePool", "x", kernel_shape=[kernel] * 2, strides=[2, 2], ceil_mode=ceil, count_include_pad=included,
                      pads=[pads[0]] * 2 + [pads[1]] * 2), 4, 1)
    if kernel == 3:  # no multiple of a power of two: nothing is exact but the structure
        b.numbers = lambda *shape: np.zeros(shape, np.float32)
    model = b.model(y, size=size and [size] * 2)
    result = fuse_graph(written(tmp_path, model), insist=True)
    merged = operators(result.model) == ["Conv"]
    if size is None:
        assert merged == ((not any(pads) or bool(included)) and not ceil)
    else:
        over = size + sum(pads) - kernel
        counts, ends = over // 2 + 1 + bool(ceil and over % 2), size + (pads[1] if included else 0)
        assert merged == ((included or not pads[0]) and not (ceil and over % 2) and (counts - 1) * 2 - pads[0] + kernel <= ends)
    if not merged:
        assert "AveragePool" in operators(result.model)
    x = b.images(*([size] if size else []))
    assert all((ours == theirs).all() and ours.shape == theirs.shape
               for ours, theirs in zip(evaluate(result.model, x), evaluate(model, x), strict=True)) or kernel == 3
    assert same_in_runtime(result, model, x) or kernel == 3


@pytest.mark.parametrize(("attributes", "why"), [({"pads": [1] * 4}, "without counting its padding"),
                                                 ({"ceil_mode": 1, "strides": [2, 2]}, "the size of its input is open")])
def test_why_a_pool_stays(attributes, why):
    """The reason is that of the step, which a line is not worth where only a pool stays."""
    from npreparam.checkpoints.graph._model import Graph
    from npreparam.checkpoints.graph._region import linear_steps
    b = Builder()
    y = b.conv(b.node("AveragePool", "x", kernel_shape=[2, 2], **attributes), 4, 1)
    assert why in linear_steps(Graph(b.model(y)))[1][0]
