"""Linear layers in ONNX graphs: Gemm, alone and with batch norms around it, and Flatten of what is flat."""

import numpy as np
import pytest

pytest.importorskip("onnx")

from npreparam.checkpoints import fuse_graph, verify_graph
from npreparam.fuse.scalars import EXACT
from tests.checkpoints.graphs import Builder, fused, operators, same_in_runtime, written


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize(("shift", "attributes"), [(None, {}), ((3,), {}), ((1, 3), {"beta": 0.5}), ((), {"alpha": -2.0}),
                                                   ((1,), {"alpha": 0.25, "beta": 4.0}), ((3,), {"alpha": 0.0})])
def test_gemm_between_batch_norms(shift, attributes, transposed, dtype, tmp_path):
    b = Builder(5, rank=0, dtype=dtype)
    y = b.norm(b.gemm(b.norm("x"), 3, shift, transB=transposed, **attributes))
    y = b.node("Mul", b.node("Add", y, b.const(b.numbers(3))), b.per_channel(y))
    result = fused(tmp_path, b, y)
    assert operators(result.model) == ["Gemm"]
    row, = result.rows
    assert (row.weight.shape, row.weight.dtype, row.rounding) == ((3, 5), dtype, "correctly rounded")
    assert same_in_runtime(result, b.model(y), b.images())


def test_branches_of_linear_layers(tmp_path):
    """Two layers in turn beside one and the identity; what is left of an activation stays."""
    b = Builder(4, rank=0)
    chain = b.gemm(b.node("Flatten", b.gemm("x", 4, (4,), transB=1)), 4, (4,), transB=1)
    y = b.node("Sum", chain, b.gemm("x", 4), "x")
    y = b.gemm(b.node("Relu", y), 2, (2,))
    assert operators(fused(tmp_path, b, y).model) == ["Gemm", "Relu", "Gemm"]


def test_a_bottleneck_stays_unless_asked(tmp_path):
    b = Builder(8, rank=0)
    y = b.gemm(b.gemm("x", 2, (2,)), 8, (8,))
    assert operators(fused(tmp_path, b, y).model) == ["Gemm", "Gemm"]
    assert operators(fused(tmp_path, b, y, insist=True).model) == ["Gemm"]


def test_slices_and_concatenation_of_rows(tmp_path):
    b = Builder(4, rank=0)
    parts = [b.gemm(b.slice("x", first, first + 2), 4, (4,)) for first in (0, 2)]
    joined = b.gemm(b.node("Concat", *parts, axis=-1, channels=8), 2)
    assert operators(fused(tmp_path, b, joined, insist=True).model) == ["Gemm"]


@pytest.mark.parametrize(("case", "why"), [("rows", "differs from row to row"), ("transposed", "transposed"), ("computed", "computed"),
                                           ("images", "")])
def test_what_is_no_linear_layer_stays(case, why, tmp_path):
    b = Builder(4, rank=0 if case != "images" else 2)
    match case:
        case "rows":
            y = b.gemm("x", 3, (2, 3))
        case "transposed":
            y = b.node("Gemm", "x", b.const(b.numbers(2, 3)), transA=1, channels=3)
        case "computed":
            y = b.node("Gemm", "x", b.node("Relu", b.const(b.numbers(4, 3))), channels=3)
        case _:
            b.rank = 0  # of what comes out
            y = b.norm(b.gemm(b.node("Flatten", "x", channels=4 * 9), 3))
            b.rank = 2
    model = b.model(b.norm(y) if case != "images" else y, size=[3, 3] if case == "images" else None)
    dims = model.graph.output[0].type.tensor_type.shape.dim
    del dims[2:]
    dims[0].Clear()
    result = fuse_graph(written(tmp_path, model))
    assert operators(result.model) == (["Flatten", "Gemm"] if case == "images" else operators(model))
    assert any(why in line for line in result.refused) or not why


def test_stored_numbers_are_correctly_rounded(tmp_path):
    """Random parameters, alpha included, against the exact map."""
    from npreparam.checkpoints.graph._model import Graph, open_model
    from npreparam.checkpoints.graph._region import linear_steps, regions_before
    from npreparam.exact.rounding import FORMATS
    from npreparam.exact.surds import round_surd
    b = Builder(5, rank=0, dtype=np.float32)
    b.numbers = lambda *shape: b.rng.standard_normal(shape).astype(np.float32)
    path = written(tmp_path, b.model(b.norm(b.gemm("x", 3, (3,), alpha=0.3, beta=1.7))))
    result = fuse_graph(path)
    row, = result.rows
    graph = Graph(open_model(path))
    exact = list(regions_before(graph, linear_steps(graph)[0], 1))[-1](EXACT)
    for ours, theirs in ((row.weight, exact.blocks[0]), (row.bias, exact.bias)):
        assert (ours.view(np.uint32) == [[round_surd(n, FORMATS["float32"]) for n in line] for line in np.atleast_2d(theirs)]).all()
    worse = row.weight.copy()
    worse[0, 0] += 2 * np.spacing(worse[0, 0])
    for tensor in result.model.graph.initializer:
        if tuple(tensor.dims) == worse.shape:
            tensor.raw_data = worse.tobytes()
    result.save(tmp_path / "bad.onnx")
    assert not verify_graph(path, tmp_path / "bad.onnx").held
