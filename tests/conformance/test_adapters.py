"""The built-in adapters: exact where every honest implementation is, absent rather than wrong where a framework has nothing to offer."""

import dataclasses
import importlib
import importlib.metadata
import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

from npreparam.conformance import Case, Key, Level, Target
from npreparam.conformance.adapters import openvino
from npreparam.conformance.cases import SUMS, keys, make_case
from npreparam.conformance.isolation import Isolated
from npreparam.conformance.judge import judge_case
from npreparam.conformance.runner import InProcess, Question

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # JAX warns when another framework forks
ADAPTERS = Path(importlib.import_module("npreparam.conformance.adapters").__file__).parent
FRAMEWORK = {"pytorch": "torch", "jax": "jax", "onnxruntime": "onnxruntime", "onnx_reference": "onnx", "openvino": "openvino", "tinygrad": "tinygrad",
             "mlx": "mlx", "ncnn": "ncnn", "scipy": "scipy", "npreparam": "npreparam", "template": "numpy"}
VARIANTS = [*FRAMEWORK, "pytorch:channels_last", "jax:compiled", "jax:nhwc", "openvino:default_precision", "ncnn:direct"]
KNOWN_WRONG = {"onnx_reference": ("conv_transpose2d", "max_pool2d")}  # docs/findings.md
LEAKING = ("openvino:default_precision", "onnx_reference")  # the same, 4 and 18: NaN of an infinity that no window reaches
IMAGE = np.float32([[[[1, 2, 3], [4, 5, 6], [7, 8, 9]]]])


def runner_of(spec):
    package = FRAMEWORK[spec.partition(":")[0]]
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{package} is not installed")
    return InProcess(spec)


def test_every_adapter_is_tested():
    files = {path.stem for path in ADAPTERS.glob("*.py") if not path.stem.startswith("_")}
    assert files == set(FRAMEWORK)


SLOW = {"jax": 3, "tinygrad": 3, "onnx_reference": 1}  # cases of each function


@pytest.mark.parametrize("spec", VARIANTS)
def test_sums_of_small_integers_are_exact(spec):
    runner = runner_of(spec)
    assert "conv2d" in runner.offers
    for op in [op for op in SUMS if op in runner.offers and op not in KNOWN_WRONG.get(spec, ())]:
        for key in keys(op, "exact", "float32", 0, range(SLOW.get(spec, 6))):
            case = make_case(key)
            if case.exact:
                verdict = judge_case(case, runner)
                assert verdict.level in (Level.EXACT, Level.ABSENT), (spec, str(key), verdict.explanation)


@pytest.mark.parametrize("spec", VARIANTS)
def test_a_convolution_worked_by_hand(spec):
    """Kernel (1, 2) over rows, one column of padding on the right: x[r, c] + 2*x[r, c+1]."""
    case = Case("conv2d", {"x": IMAGE, "w": np.float32([[[[1, 2]]]]), "padding": ((0, 0), (0, 1))}, exact=True)
    runner = runner_of(spec)
    assert runner.ask(Question(case.op, case.arguments)).outputs[0].tolist() == [[[[5, 8, 3], [14, 17, 6], [23, 26, 9]]]]


@pytest.mark.parametrize("spec", [spec for spec in VARIANTS if spec not in ("template", "npreparam")])
def test_names_of_padding_are_understood(spec):
    case = Case("conv2d", {"x": IMAGE, "w": np.float32([[[[1, 2]]]]), "padding": "SAME_LOWER"}, exact=True)
    verdict = judge_case(case, runner_of(spec))
    assert verdict.level is Level.EXACT, verdict


@pytest.mark.parametrize("spec", VARIANTS)
def test_batch_norm_by_given_statistics(spec):
    """(x - 1)/sqrt(4 + 0)*3 + 1, and in two dimensions as well as in four."""
    runner = runner_of(spec)
    if "batch_norm" not in runner.offers:
        pytest.skip("not offered")
    for x in (IMAGE, np.float32([[5], [1]])):
        one = np.float32([1])
        case = Case("batch_norm", {"x": x, "gamma": 3 * one, "beta": one, "running_mean": one, "running_var": 4 * one, "eps": 2.0**-20})
        verdict = judge_case(case, runner)
        assert verdict.conforms, verdict
        assert verdict.level is not Level.ABSENT


@pytest.mark.parametrize("spec", ["pytorch", "npreparam", "onnxruntime", "onnx_reference", "mlx", "tinygrad"])
def test_running_statistics_follow_the_declared_conventions(spec):
    runner = runner_of(spec)
    one = np.float32([1, 1])
    x = np.float32([[1, 10], [3, 10], [8, 40]]).reshape(3, 2, 1, 1)
    case = Case("batch_norm", {"x": x, "gamma": one, "beta": one, "running_mean": 0 * one, "running_var": 2 * one, "training": True,
                               "momentum": 0.25})
    verdict = judge_case(case, runner)
    assert verdict.conforms, verdict
    assert verdict.level is not Level.ABSENT


@pytest.mark.parametrize("spec", [spec for spec in VARIANTS if spec not in LEAKING])
def test_infinities_over_padding_follow_the_declared_convention(spec):
    runner = runner_of(spec)
    for op in ("conv2d", "conv2d_weight_grad"):
        for seed in range(3 if op in runner.offers else 0):
            case = make_case(Key(op, "random", "float32", seed, 5))
            assert "special values" in case.features()
            verdict = judge_case(case, runner)
            assert verdict.conforms, verdict.explanation


def test_the_wrong_convention_is_seen():
    """Planted fault: the running variance of ONNX, judged as if it were the unbiased one."""
    runner = runner_of("onnx_reference")
    runner.declaration = dataclasses.replace(runner.declaration, running_variance="unbiased")
    x = np.float32([[1], [3], [8]]).reshape(3, 1, 1, 1)
    one = np.float32([1])
    case = Case("batch_norm", {"x": x, "gamma": one, "beta": one, "running_mean": one, "running_var": one, "training": True})
    assert judge_case(case, runner).level is Level.FAIL


def test_what_a_framework_does_not_have_is_absent():
    runner = runner_of("pytorch")
    case = Case("avg_pool2d", {"x": IMAGE, "kernel": 2, "padding": ((1, 0), (0, 0)), "count_include_pad": False})
    verdict = judge_case(case, runner)
    assert verdict.level is Level.ABSENT
    assert "symmetrically" in verdict.explanation


def test_a_framework_that_is_there_but_does_not_load_says_why(monkeypatch):
    def broken(name):
        raise ImportError("libwanted.so.1: cannot open shared object file")

    monkeypatch.setattr("importlib.import_module", broken)
    with pytest.raises(ImportError, match=r"openvino, which is installed but cannot be imported: libwanted\.so\.1"):
        openvino.cpu.declare()


def test_a_missing_framework_says_what_to_install(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(ImportError, match="needs openvino, which is not installed: pip install 'openvino'"):
        openvino.cpu.declare()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_pytorch_takes_every_format(dtype):
    runner = runner_of("pytorch")
    for op in ("conv2d", "conv2d_weight_grad", "linear"):
        verdict = judge_case(make_case(Key(op, "exact", dtype, 0, 2)), runner)
        assert verdict.level is Level.EXACT, verdict


def test_torch_compile_gives_the_same_convolution():
    runner = runner_of("pytorch:compiled")
    case = Case("conv2d", {"x": IMAGE, "w": np.float32([[[[1, 2]]]])}, exact=True)
    try:
        verdict = judge_case(case, runner)
    except ImportError:
        pytest.skip("torch.compile does not work here")
    assert verdict.level in (Level.EXACT, Level.ERROR)
    if verdict.level is Level.ERROR:
        pytest.skip(f"torch.compile does not work here: {verdict.explanation}")


def test_a_framework_is_named_in_its_own_file_alone():
    names = re.compile(r"^\s*(?:import|from) (torch|jax|onnxruntime|openvino|tinygrad|mlx|ncnn|scipy)\b", re.MULTILINE)
    owner = {"torch": "pytorch"}
    for path in ADAPTERS.parent.rglob("*.py"):
        for name in names.findall(path.read_text()):
            assert path.stem == owner.get(name, name), path


def test_adapters_are_targets_by_their_bare_name():
    target = Target.of("template")
    assert target.offers() == ("conv2d", "batch_norm")
    assert target.declaration.name == "template"


def test_tinygrad_goes_without_a_compiler(tmp_path, monkeypatch):
    """Its device is chosen when it is imported, for which there is one moment in a process."""
    if importlib.util.find_spec("tinygrad") is None:
        pytest.skip("tinygrad is not installed")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("DEV", raising=False)
    runner = Isolated("tinygrad")
    try:
        assert judge_case(Case("conv2d", {"x": IMAGE, "w": np.float32([[[[1, 2]]]])}, exact=True), runner).level is Level.EXACT
    finally:
        runner.close()
