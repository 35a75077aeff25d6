"""Nothing is certified where a proof does not hold: a wrong compilation, a thread that flushes or rounds otherwise; and generic code is right."""

import subprocess
import sys

import numpy as np
import pytest

from npreparam import StateError, certified, kernels
from npreparam.certified import _trust
from tests.certified.test_conv2d import ONE


@pytest.mark.parametrize("name", ["forward_sums", "weight_grad_sums"])
def test_a_wrong_compilation_refuses_to_serve(name, monkeypatch):
    """What fast-math makes of TwoSum: the error term is optimized away."""
    right = getattr(kernels.conv2d, name)

    def reassociated(*args, **kwargs):
        y = right(*args, **kwargs)
        if kwargs.get("pair"):
            y[0], y[1] = y[0] + y[1], 0
        return y

    _trust.trust_the_compiler.cache_clear()
    monkeypatch.setattr(kernels.conv2d, name, reassociated)
    with pytest.raises(StateError, match="compiled wrong"):
        certified.conv2d(ONE, ONE)
    monkeypatch.undo()
    assert certified.conv2d(ONE, ONE).value == 1


def test_a_rounding_test_that_loses_the_rest_refuses_to_serve(monkeypatch):
    right = kernels.certify.round_and_doubt
    _trust.trust_the_compiler.cache_clear()
    monkeypatch.setattr(kernels.certify, "round_and_doubt", lambda y, *rest: right(np.stack([y[0] + y[1], 0 * y[1]]), *rest))
    with pytest.raises(StateError, match="compiled wrong"):
        certified.conv2d(ONE, ONE)
    monkeypatch.undo()


@pytest.mark.parametrize(("one", "smallest"), [(1.0, 0.0), (1 + 2.0**-52, 2.0**-1022)])
def test_a_thread_that_flushes_or_rounds_otherwise_refuses_to_serve(one, smallest, monkeypatch):
    """The arithmetic is as the CPU is told; what it would give then stands for it here."""
    right = kernels.certify.default_environment
    monkeypatch.setattr(kernels.certify, "default_environment", lambda *values: right(one, smallest))
    with pytest.raises(StateError, match="does not round to nearest, or flushes"):
        certified.conv2d(ONE, ONE)


GENERIC = """
import numpy as np
from npreparam import certified, exact
from npreparam.kernels import _cpu
assert not _cpu.AVX512
rng = np.random.default_rng(0)
for dtype in (np.float32, np.float64):
    x, w = rng.standard_normal((1, 3, 7, 6)).astype(dtype), rng.standard_normal((4, 3, 3, 3)).astype(dtype)
    assert certified.conv2d(x, w).value.tobytes() == exact.conv2d(x, w).tobytes()
print("the same")
"""


def test_generic_machine_code_gives_the_same_numbers(tmp_path):
    environment = {"NUMBA_CPU_NAME": "generic", "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": ":".join(sys.path), "PATH": ""}
    run = subprocess.run([sys.executable, "-c", GENERIC], env=environment, capture_output=True, text=True)
    assert run.stdout == "the same\n", run.stderr
