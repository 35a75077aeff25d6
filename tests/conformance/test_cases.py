"""The cases show what they are made to show."""

from types import SimpleNamespace

import numpy as np
import pytest

from npreparam import ops
from npreparam.certified import bounds
from npreparam.conformance import Declaration, Key
from npreparam.conformance.cases import keys, make_case
from npreparam.conformance.cases.builders import BUILDERS
from npreparam.conformance.cases.sources import RandomSource
from npreparam.conformance.sweep import round_keys
from tests.certified import simulate
from tests.conformance.test_judge import failures

EVEN = {"x_shape": (4, 4, 5, 4), "w_shape": (4, 4, 3, 3), "shape": (4, 4, 4)}


def test_cases_are_made_from_their_keys_alone():
    for key in round_keys(0, ["conv2d", "batch_norm", "fuse_repvgg"], ["float32"], 5):
        first, second = make_case(key), make_case(key)
        assert Key.parse(str(key)) == key
        assert all(first.arrays()[name].tobytes() == second.arrays()[name].tobytes() for name in first.arrays())


def test_results_narrower_than_their_dtype_conform_where_they_are_declared_so():
    """Small integers are exact in bfloat16, their sums are not."""
    def conv2d(*arguments, **rest):
        y = ops.conv2d(*arguments, **rest)
        return simulate.rounded(y.astype(np.float64), "bfloat16").astype(y.dtype)

    wanted = [key for phase in ("exact", "geometry", "random") for key in keys("conv2d", phase, "float32", 0, range(12))]
    profile = bounds.Profile(output="bfloat16")
    target = SimpleNamespace(conv2d=conv2d, declaration=Declaration("narrow", dtypes=("float32",), profiles={"float32": profile}))
    assert any(make_case(key).exact for key in wanted)
    assert failures(target, wanted) == []
    assert failures(SimpleNamespace(conv2d=conv2d), wanted)
    assert failures(SimpleNamespace(conv2d=lambda x, w, *a, **k: conv2d(x, w[..., ::-1], *a, **k)), wanted, profile)


@pytest.mark.parametrize("rounding", ["tf32", "bfloat16"])
@pytest.mark.parametrize("dtypes", [("float32",), ("float32", "float64")])
def test_one_round_sees_rounded_operands_of_a_convolution_without_any_options(rounding, dtypes):
    """No bias, stride, padding, dilation, groups, layouts, special values, empty batches: what is left must not be small integers alone."""
    def conv2d(x, w):
        return ops.conv2d(*(simulate.rounded(v.astype(np.float64), rounding).astype(v.dtype) for v in (x, w)))

    lacking = {"conv2d": ("b", "stride", "padding", "dilation", "groups", "special values", "empty batch")}
    target = SimpleNamespace(conv2d=conv2d, declaration=Declaration("plain", dtypes=dtypes, unsupported=lacking, layouts=("contiguous",)))
    for dtype in dtypes:
        wanted = [key for key in round_keys(0, ["conv2d"], [dtype]) if key.phase in ("exact", "geometry", "random")]
        assert failures(target, wanted)
        assert failures(SimpleNamespace(conv2d=lambda x, w: ops.conv2d(x, w), declaration=target.declaration), wanted) == []


@pytest.mark.parametrize("op", ["conv2d", "conv2d_input_grad", "conv2d_weight_grad", "conv_transpose2d", "linear"])
def test_sums_of_the_cancelling_kind_cancel(op):
    """|sum| is a small part of the sum of magnitudes; of n normal terms it is about 1/sqrt(n)."""
    def share(kind):
        found = []
        for index in range(40):
            rng = np.random.default_rng(index)
            given = BUILDERS[op][1](RandomSource(rng, "float64", kind), EVEN)
            given.pop("b", None)
            magnitudes = {name: np.abs(value) if isinstance(value, np.ndarray) else value for name, value in given.items()}
            found.append(np.median(np.abs(getattr(ops, op)(**given)) / getattr(ops, op)(**magnitudes)))
        return np.median(found)

    assert share("cancelling") < share("normal") / 100
