"""The official ONNX tests of every operator the backend has, and its own errors."""

import re
import unittest
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper  # noqa: E402
from onnx.backend.test.loader import load_model_tests  # noqa: E402
from onnx.backend.test.runner import Runner  # noqa: E402

from npreparam.conformance.onnx_backend import NpreparamBackend  # noqa: E402
from npreparam.conformance.onnx_backend.table import OPERATORS  # noqa: E402

pytestmark = [pytest.mark.filterwarnings(f"ignore:{what}:RuntimeWarning")  # in computing the official tests' own data
              for what in ("overflow", "divide by zero", "invalid value")]
KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator")
LINES = (Path(__file__).parent / "onnx_known_failures.txt").read_text().splitlines()
KNOWN_FAILURES = [line for line in LINES if line and not line.startswith("#")]


def model_of(case):
    return case.model if case.model is not None else onnx.load(Path(case.model_dir) / "model.onnx")


def run_official(backend, names):
    """The official runner over the tests of these names, on the CPU."""
    runner = Runner(backend, __name__)
    runner.include("^(" + "|".join(map(re.escape, names)) + ")_cpu$")
    for name in KNOWN_FAILURES:
        runner.xfail(f"^{name}$")
    result = unittest.TestResult()
    runner.test_suite.run(result)
    return result


@pytest.fixture(scope="module")
def official():
    return [(case.name, model_of(case)) for kind in KINDS for case in load_model_tests(kind=kind)]


@pytest.fixture(scope="module")
def supported(official):
    return [name for name, model in official if NpreparamBackend.is_compatible(model)]


def test_the_official_tests_pass_or_are_known_failures(official, supported, capsys):
    result = run_official(NpreparamBackend, supported)
    failed = [(case.id(), text.splitlines()[-1]) for case, text in result.failures + result.errors]
    with capsys.disabled():
        print(f"\nONNX {onnx.__version__}: {len(official)} official tests, {len(supported)} of operators that the backend has: "
              f"{len(supported) - len(KNOWN_FAILURES) - len(failed)} pass, {len(KNOWN_FAILURES)} known failures, {len(failed)} other failures")
    assert not failed
    assert not result.unexpectedSuccesses
    assert len(result.expectedFailures) == len(KNOWN_FAILURES)
    assert result.testsRun - len(result.skipped) == len(supported)


def test_the_official_tests_can_fail(supported, monkeypatch):
    """Planted fault: the kernel flipped."""
    honest = OPERATORS["Conv"]

    def flipped(node):
        node.inputs[1] = node.inputs[1][..., ::-1, ::-1]
        return honest(node)

    monkeypatch.setitem(OPERATORS, "Conv", flipped)
    result = run_official(NpreparamBackend, [name for name in supported if name.startswith("test_Conv2d")])
    assert len(result.failures) > 5


def test_every_operator_has_an_official_test(official, supported):
    tested = {node.op_type for name, model in official if name in set(supported) for node in model.graph.node}
    assert set(OPERATORS) <= tested


def graph(*nodes, inputs, outputs):
    value = helper.make_tensor_value_info
    return helper.make_model(helper.make_graph(list(nodes), "g", [value(i, TensorProto.FLOAT, ["n"]) for i in inputs],
                                               [value(o, TensorProto.FLOAT, ["n"]) for o in outputs]), ir_version=10)


def test_inputs_come_in_order_or_by_name():
    model = NpreparamBackend.prepare(graph(helper.make_node("Sub", ["a", "b"], ["y"]), inputs="ab", outputs="y"))
    a, b = np.float32([5]), np.float32([3])
    assert model.run([a, b])[0] == model.run({"b": b, "a": a})[0] == 2


@pytest.mark.parametrize("inputs", [[np.float32([1])], [np.float32([1])] * 3, {"a": np.float32([1])}])
def test_inputs_that_are_missing_or_too_many_are_named(inputs):
    model = NpreparamBackend.prepare(graph(helper.make_node("Sub", ["a", "b"], ["y"]), inputs="ab", outputs="y"))
    with pytest.raises(ValueError, match="must be the graph's: a, b"):
        model.run(inputs)


def test_one_array_is_one_input_and_its_rows_are_none():
    model = NpreparamBackend.prepare(graph(helper.make_node("Neg", ["a"], ["y"]), inputs="a", outputs="y"))
    x = np.float32([1, 2])
    assert model.run(x)[0].tolist() == model.run([x])[0].tolist() == [-1, -2]
    with pytest.raises(ValueError, match="must be the graph's: a"):
        model.run({"a": x, "b": x})


INFINITE = np.float32([1, np.inf, 0, -2])


@pytest.mark.parametrize(("operator", "inputs", "expected"), [
    ("Slice", [np.float32([1, 2, 3]), [-8], [-9], [0], [-1]], [1]),     # a start is clamped into the array, unlike NumPy's
    ("Slice", [np.float32([1, 2, 3]), [8], [-9], [0], [-2]], [3, 1]),
    ("PRelu", [INFINITE, np.float32([np.inf, 2, 2, 2])], [1, np.inf, 0, -4]),
    ("Abs", [-INFINITE], [1, np.inf, 0, 2]),
    ("MatMul", [np.ones((2, 0), np.float32), np.ones((0, 1), np.float32)], [[0], [0]]),
    ("MatMul", [np.ones((0, 2, 3), np.float32), np.ones((3, 4), np.float32)], np.zeros((0, 2, 4)).tolist())])
def test_corners_of_operators(operator, inputs, expected):
    names = [f"i{place}" for place in range(len(inputs))]
    arrays = [value if isinstance(value, np.ndarray) else np.array(value, np.int64) for value in inputs]
    y = NpreparamBackend.run_node(helper.make_node(operator, names, ["y"]), arrays)[0]
    assert y.dtype == np.float32
    assert y.tolist() == expected


@pytest.mark.parametrize("name", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 2), (1, 4), (2, 3), (3, 2)])
def test_a_transposed_convolution_of_same_padding_is_the_stride_times_as_large(name, kernel, stride):
    """Also where the kernel is smaller than the stride, so that rows are missing at the end; values by ONNX's formula for the pads."""
    x, w = np.arange(1, 4, dtype=np.float32).reshape(1, 1, 1, 3), np.arange(1, kernel + 1, dtype=np.float32).reshape(1, 1, 1, kernel)
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], auto_pad=name, strides=[1, stride], kernel_shape=[1, kernel])
    full = np.zeros(2 * stride + max(kernel, stride), np.float32)
    for i in range(3):
        full[i * stride:i * stride + kernel] += x[0, 0, 0, i] * w[0, 0, 0]
    total = len(full) - 3 * stride
    begin = total // 2 if name == "SAME_UPPER" else total - total // 2
    y = NpreparamBackend.run_node(node, [x, w])[0]
    assert y.shape == (1, 1, 1, 3 * stride)
    assert y.ravel().tolist() == full[begin:begin + 3 * stride].tolist()


def test_what_is_not_supported_is_named():
    model = graph(helper.make_node("Erf", ["a"], ["y"]), inputs="a", outputs="y")
    assert not NpreparamBackend.is_compatible(model)
    with pytest.raises(ValueError, match="Erf"):
        NpreparamBackend.prepare(model)
    with pytest.raises(ValueError, match="Erf"):
        NpreparamBackend.run_node(model.graph.node[0], [np.float32([1])])
    with pytest.raises(ValueError, match="CUDA"):
        NpreparamBackend.prepare(graph(helper.make_node("Relu", ["a"], ["y"]), inputs="a", outputs="y"), "CUDA:0")
    assert NpreparamBackend.supports_device("CPU")


def test_no_known_failure_is_listed_twice():
    assert len(set(KNOWN_FAILURES)) == len(KNOWN_FAILURES)
