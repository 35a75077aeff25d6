"""The pytest plugin in a pytest of its own, and the assertion for people's own suites."""

import re
import subprocess
import sys
from importlib.metadata import entry_points
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import find, given

from npreparam import ops
from npreparam._errors import ArgumentError
from npreparam.conformance import Declaration, assert_conforms
from npreparam.conformance.strategies import KINDS, arguments, arrays, cases
from npreparam.pytest_plugin import trial_of

GOOD = "import numpy as np\ndef tanh(x):\n    return np.tanh(x)\n"
WRONG = "import numpy as np\ndef tanh(x):\n    return np.arctan(x)\n"


def run_pytest(folder, *options):
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "--rootdir", str(folder), *options]
    if not registered():
        command[3:3] = ["-p", "npreparam.pytest_plugin"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, done.stdout + done.stderr


def registered():
    return any(point.value == "npreparam.pytest_plugin" for point in entry_points(group="pytest11"))


def test_a_right_target_passes(tmp_path):
    (tmp_path / "mine.py").write_text(GOOD)
    status, text = run_pytest(tmp_path, "--pyargs", "npreparam.conformance.tests", "--target", "mine.py")
    assert status == 0, text
    assert re.search(r"^[1-9]\d* passed", text, re.MULTILINE), text


def test_a_wrong_target_fails_and_the_worst_element_is_told(tmp_path):
    (tmp_path / "mine.py").write_text(WRONG)
    status, text = run_pytest(tmp_path, "--pyargs", "npreparam.conformance", "--target", "mine.py", "-k", "float32-random")
    assert status == 1, text
    for part in ("worst element  y[", "expected", "actual", "ulp", "times the bound", "tanh/random/float32/0/"):
        assert part in text


def test_a_target_that_is_not_there_is_named(tmp_path):
    status, text = run_pytest(tmp_path, "--pyargs", "npreparam.conformance.tests", "--target", "no_such_module")
    assert status != 0
    assert "no_such_module" in text


def test_options_make_a_job():
    assert trial_of(SimpleNamespace(getoption={"target": None}.get)) is None
    assert trial_of(SimpleNamespace(getoption={"target": "template", "target_profile": "tf32"}.get)).profile.input_rounding == "tf32"
    with pytest.raises(pytest.UsageError, match=r"--target-profile: .*float12"):
        trial_of(SimpleNamespace(getoption={"target": "template", "target_profile": "float12"}.get))


def test_the_fixture(tmp_path):
    (tmp_path / "test_mine.py").write_text(
        "import numpy as np\n"
        "def test_good(certified):\n    x = np.ones((2, 3), np.float32)\n    certified.assert_conforms(x @ x.T, 'linear', (x, x))\n"
        "    assert certified.linear(x, x).value.shape == (2, 2)\n"
        "def test_bad(certified):\n    x = np.ones((2, 3), np.float32)\n    certified.assert_conforms(x @ x.T + 1, 'linear', (x, x))\n")
    status, text = run_pytest(tmp_path)
    assert status == 1
    assert "1 failed, 1 passed" in text
    assert "linear float32: FAIL, 4 of 4 elements" in text
    assert "assertions.py" not in text  # the line that is told is the caller's


def test_the_plugin_imports_nothing_of_weight():
    done = subprocess.run([sys.executable, "-c", "import npreparam.pytest_plugin, sys\n"
                           "print([m for m in ('numba', 'hypothesis', 'npreparam.conformance', 'npreparam.certified') if m in sys.modules])"],
                          capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@given(arguments("conv2d", "float32") | arguments("conv2d", "float64", "lattice"))
def test_our_convolution_conforms_for_drawn_arguments(args):
    assert_conforms(ops.conv2d(**args), "conv2d", args)


@given(arguments("batch_norm", "float32", "lattice"))
def test_our_batch_norm_conforms_for_drawn_arguments(args):
    assert_conforms(ops.batch_norm(**args), "batch_norm", args)


@given(cases("linear", "float32", "lattice"))
def test_lattice_cases_have_zero_tolerance(case):
    assert case.exact
    y = ops.linear(**case.arguments)
    assert assert_conforms(y, "linear", case.arguments).level == "EXACT"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_arrays_have_their_format_and_are_finite(kind, dtype):
    @given(arrays((2, 3), dtype, kind))
    def check(x):
        assert (x.dtype.name, x.shape) == (dtype, (2, 3))
        assert np.isfinite(x).all()
    check()


def test_profiles_and_conventions_decide():
    """A product in which the operands were rounded to bfloat16 conforms to that profile, not to float32."""
    x = np.float32([[1.0 + 2.0**-9, 3.0]])
    rounded = np.float32([[1.0, 3.0]])
    with pytest.raises(AssertionError, match="consistent with bfloat16 inputs"):
        assert_conforms(rounded @ rounded.T, "linear", {"x": x, "w": x})
    assert assert_conforms(rounded @ rounded.T, "linear", {"x": x, "w": x}, profile="bfloat16_float32").conforms
    one = np.ones(1)
    args = {"x": np.float64([[1], [3]]), "gamma": one, "beta": one, "running_mean": one, "running_var": 2 * one, "training": True}
    y, mean, var = ops.batch_norm(**args)
    biased = 0.9 * 2 * one + 0.1 * args["x"].var()
    with pytest.raises(AssertionError, match="running_var"):
        assert_conforms((y, mean, biased), "batch_norm", args)
    assert_conforms((y, mean, biased), "batch_norm", args, declaration=Declaration("mine", running_variance="biased"))
    with pytest.raises(AssertionError, match="running_var"):
        assert_conforms((y, mean, var), "batch_norm", args, declaration=Declaration("mine", running_variance="biased"))


def test_wrong_shapes_and_arguments_are_named():
    x = np.ones((2, 2), np.float32)
    with pytest.raises(AssertionError, match="has shape"):
        assert_conforms(np.ones(3, np.float32), "tanh", {"x": x})
    with pytest.raises(AssertionError, match="has dtype"):
        assert_conforms(np.tanh(x).astype(np.float64), "tanh", {"x": x})
    with pytest.raises(ArgumentError, match=r"`op` \(='atanh'\)"):
        assert_conforms(x, "atanh", {"x": x})
    with pytest.raises(ArgumentError, match="holds 2 arguments, but tanh has 1: x"):
        assert_conforms(x, "tanh", (x, x))


@pytest.mark.parametrize("strategy", [lambda: arrays((1,), "int8"), lambda: arrays((1,), "float32", "odd"),
                                      lambda: find(arguments("atanh"), lambda drawn: True)])
def test_strategies_name_wrong_arguments(strategy):
    with pytest.raises(ArgumentError, match="must be one of"):
        strategy()
