"""Random graphs of linear nodes, activations and second readers: fused or not, they give the very same numbers."""

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

pytest.importorskip("onnx")

from npreparam.checkpoints import fuse_graph
from tests.checkpoints.graphs import Builder, evaluate, operators, written

DEPTH = 4


@st.composite
def graphs(draw):
    """A graph over one or two axes, at most four nodes deep between the joins of its branches."""
    b = Builder(channels=draw(st.sampled_from([2, 4])), rank=draw(st.sampled_from([1, 2])), seed=draw(st.integers(0, 99)))
    y = branch(draw, b, "x", DEPTH)
    outputs = [y]
    if draw(st.booleans()):
        names = [name for node in b.nodes for name in node.output if name != y]
        outputs += draw(st.lists(st.sampled_from(names), max_size=1)) if names else []
    return b, outputs


def branch(draw, b, x, depth):
    """A tensor made of x; all keep its lengths, so that branches can be added."""
    if not depth:
        return b.conv(x, 4, 1, bias=draw(st.booleans()))
    kind = draw(st.sampled_from(["conv", "conv", "norm", "scale", "shift", "sum", "concat", "split", "slice", "pool", "relu", "pad"]))
    below = branch(draw, b, x, depth - 1)
    n = b.channels[below]
    match kind:
        case "conv":
            groups = draw(st.sampled_from([g for g in (1, 2, n) if n % g == 0]))
            kernel, pads = draw(st.sampled_from([(1, 0), (3, 1), (5, 2), (2, [0] * b.rank + [1] * b.rank)]))
            return b.conv(below, draw(st.sampled_from([n, 2 * groups])), kernel, pads, draw(st.booleans()), groups)
        case "norm":
            return b.norm(below)
        case "scale":
            return b.node("Div", below, b.const(np.array(4.0))) if draw(st.booleans()) else b.node("Mul", b.per_channel(below), below, channels=n)
        case "shift":
            return b.node("Sub", b.per_channel(below), below, channels=n) if draw(st.booleans()) else b.node("Add", below, b.const(np.array(0.5)))
        case "sum":
            other = b.conv(branch(draw, b, x, draw(st.integers(0, depth - 1))), n, 1, 0, False)
            return b.node(draw(st.sampled_from(["Add", "Sub", "Sum"])), below, draw(st.sampled_from([other, below])))
        case "concat":
            other = branch(draw, b, x, 0)
            return b.conv(b.node("Concat", below, other, axis=1, channels=n + b.channels[other]), 4)
        case "split" if n % 2 == 0:
            parts = b.node("Split", below, axis=1, outputs=2)
            b.channels |= dict.fromkeys(parts, n // 2)
            return b.node("Concat", parts[1], b.node("Neg", parts[0]), axis=1, channels=n)
        case "slice" if n % 2 == 0:
            return b.node("Sub", b.slice(below, 0, n, step=2), b.slice(below, -1, -n - 1, step=-2))
        case "pool":
            return b.node("AveragePool", below, kernel_shape=[2] * b.rank, auto_pad="SAME_UPPER", count_include_pad=1)
        case "pad":
            padded = b.node("Pad", below, b.const(np.array([0, 0, *[1] * b.rank] * 2)))
            return b.conv(padded, n, 3, 0)
        case "relu":
            return b.node("Relu", below)
    return below


@given(graphs(), st.booleans())
@settings(max_examples=80)
def test_random_graphs(tmp_path_factory, graph, insist):
    b, outputs = graph
    model = b.model(*outputs)
    result = fuse_graph(written(tmp_path_factory.mktemp("graph"), model), insist=insist)
    event(f"{min(len(result.rows), 3)} regions")
    assert result.held, result.faults
    x = b.images(5)
    for ours, theirs in zip(evaluate(result.model, x), evaluate(model, x), strict=True):
        assert ours.shape == theirs.shape
        assert (ours == theirs).all()
    convolutions = [[node for node in operators(each) if node == "Conv"] for each in (result.model, model)]
    assert len(convolutions[0]) <= len(convolutions[1])


def test_many_random_graphs_are_fused(tmp_path):
    """The strategy tested: a good part of its graphs have regions to fuse, and some are refused for their border."""
    seen = {"fused": 0, "border": 0}

    @given(graphs())
    @settings(max_examples=40)
    def look(graph):
        b, outputs = graph
        result = fuse_graph(written(tmp_path, b.model(*outputs)))
        seen["fused"] += bool(result.rows)
        seen["border"] += any("pads" in line for line in result.refused)

    look()
    assert seen["fused"] > 10
    assert seen["border"] > 2
