"""The border rule in ONNX graphs: what is merged, what is left, and constants that float64 does not tell apart."""

import numpy as np
import pytest

from npreparam.checkpoints import fuse_graph
from npreparam.fuse import border
from tests.checkpoints.graphs import EPS, Builder, evaluate, fused, operators, written

pytest.importorskip("onnx")


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
