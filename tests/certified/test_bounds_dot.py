"""Bounds of sums of products against simulated machines of every profile, on data made to hurt."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, target
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from npreparam import ArgumentError, DTypeError, ShapeError, exact
from npreparam.certified.bounds import BFLOAT16_FLOAT32, FLOAT16_FLOAT16, FLOAT16_FLOAT32, FLOAT32, FLOAT64, TF32, Profile
from tests.certified import data, simulate
from tests.certified.verdict import float32_bounds as bounds
from tests.certified.verdict import worst_ratio

FLUSHED = dataclasses.replace(FLOAT32, flush_to_zero=True)
DIRECT = {"FLOAT32": FLOAT32, "FLOAT64": FLOAT64, "TF32": TF32, "BFLOAT16_FLOAT32": BFLOAT16_FLOAT32, "FLOAT16_FLOAT32": FLOAT16_FLOAT32,
          "FLOAT16_FLOAT16": FLOAT16_FLOAT16, "FLUSHED": FLUSHED, "BFLOAT16": Profile("bfloat16", "bfloat16", output="bfloat16")}


def styles(profile):
    """The styles that a profile allows."""
    named = {"pairwise": ("pairwise",), 4: ("blocked",), "tensor_core": ("sequential",)}.get(profile.order, simulate.STYLES)
    return [style for style in named if style != "fma" or profile.accumulator == "float32"]


def judged(x, w, profile, style, rng, bias=None, judge=None):
    """The largest error/bound of dot products along axis 0, cases along axis 1, simulated by `profile` and bounded by `judge`."""
    got = simulate.dot(x, w, profile, style, rng, bias)
    truth = [exact.linear(x[:, i][None], w[:, i][None], None if bias is None else np.array([bias]), out_dtype=None).item() for i in range(x.shape[1])]
    limit = [bounds.linear_bound(x[:, i][None], w[:, i][None], None if bias is None else np.array([bias]), judge or profile).item()
             for i in range(x.shape[1])]
    return worst_ratio(got, np.array(truth, object), np.array(limit))


@pytest.mark.parametrize("name", DIRECT)
def test_no_honest_machine_exceeds_its_bound(name, record_property):
    profile, rng, reached = DIRECT[name], np.random.default_rng(0), {}
    for kind in data.KINDS:
        for n in (1, 2, 7, 33):
            x, w = data.operands(kind, (n, 6), rng, profile.accumulator if profile is not TF32 else "float32")
            for style in styles(profile):
                reached[kind] = max(reached.get(kind, 0), judged(x, w, profile, style, rng, bias=None if n % 2 else 0.375))
    record_property("error/bound", reached)
    assert min(reached.values()) > 0


@pytest.mark.parametrize("order", ["pairwise", 4])
def test_fixed_orders(order, record_property):
    profile, rng, worst = dataclasses.replace(FLOAT32, order=order), np.random.default_rng(1), 0
    for kind in data.KINDS:
        x, w = data.operands(kind, (61, 8), rng)
        for style in styles(profile):
            worst = max(worst, judged(x, w, profile, style, rng))
    record_property("error/bound", worst)
    assert worst > 0
    assert profile.growth(61) < FLOAT32.growth(61)


@pytest.mark.parametrize("profile", [FLOAT16_FLOAT32, BFLOAT16_FLOAT32], ids=["FLOAT16_FLOAT32", "BFLOAT16_FLOAT32"])
def test_a_bias_may_be_added_to_the_rounded_sum(profile):
    """Two roundings of the output: more than one allows."""
    x, w = data.operands("one_sign", (8, 300), np.random.default_rng(3), profile.output)
    assert 0.5 < judged(x, w, profile, "late_bias", None, bias=0.75) <= 1


def test_the_bound_is_reached_where_every_term_is_lost():
    """1 + 255 terms of u, each a tie to even: the error is (n - 1)*u, the bound n*u*(1 + (n - 1)*u)."""
    x, w = data.operands("stagnant", (256, 1), np.random.default_rng(0))
    assert judged(x, w, FLOAT32, "sequential", None) > 0.99


numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)
terms = st.integers(1, 9).flatmap(lambda n: st.tuples(*[arrays(np.float32, (n, 1), elements=numbers) for _ in range(2)]))


@given(terms, st.sampled_from([FLOAT32, TF32, BFLOAT16_FLOAT32, FLOAT16_FLOAT32, FLOAT16_FLOAT16, FLUSHED]),
       st.sampled_from(simulate.STYLES), st.randoms(use_true_random=False), st.one_of(st.none(), numbers))
def test_any_floats_at_all(pair, profile, style, random, bias):
    """Of any magnitude: what overflows must have an infinite bound, what underflows a large enough one."""
    if style not in styles(profile):
        style = "sequential"
    x, w = (v.astype(np.float64) for v in pair)
    ratio = judged(x, w, profile, style, np.random.default_rng(random.getrandbits(32)), bias)
    target(ratio)


@dataclasses.dataclass(frozen=True, slots=True)
class SquareRoot(Profile):
    """Planted fault: the growth of n terms without a confidence, sqrt(n)*u."""

    def growth(self, terms, length=None, more=0):
        return np.sqrt(self.roundings(terms, length, more)) * self.unit


@dataclasses.dataclass(frozen=True, slots=True)
class NoUnderflow(Profile):
    """Planted fault: eta terms dropped."""

    def underflow(self, products):
        return np.zeros(np.shape(products))


@dataclasses.dataclass(frozen=True, slots=True)
class Nearest(Profile):
    """Planted fault: a truncating accumulator judged as though it rounded to nearest."""

    def growth(self, terms, length=None, more=0):
        return (np.asarray(terms) + more) * 2.0**-24


@pytest.mark.parametrize(("fault", "honest", "kind"), [
    (SquareRoot(), FLOAT32, "stagnant"), (NoUnderflow(), FLOAT32, "subnormal"), (NoUnderflow(flush_to_zero=True), FLUSHED, "least_normal"),
    (Nearest("tf32", order="tensor_core"), TF32, "stagnant"), (dataclasses.replace(FLOAT32, order="pairwise"), FLOAT32, "stagnant"),
    (FLOAT32, TF32, "normal"), (FLOAT32, FLUSHED, "least_normal"), (FLOAT16_FLOAT32, FLOAT16_FLOAT16, "one_sign"),
    (dataclasses.replace(FLOAT16_FLOAT32, output="float32"), FLOAT16_FLOAT32, "one_sign")])
def test_planted_faults_are_caught(fault, honest, kind):
    rng = np.random.default_rng(2)
    x, w = data.operands(kind, (64, 8), rng, honest.input_rounding if honest.input_rounding == "float16" else "float32")
    if kind == "stagnant":
        x[1:] *= 1.5 if honest.order == "tensor_core" else 1  # a truncated addend loses up to 2u
    judged(x, w, honest, "sequential", rng)
    with pytest.raises(AssertionError, match="above the bound"):
        judged(x, w, honest, "sequential", rng, judge=fault)


def test_overflow_makes_the_bound_infinite():
    big = np.full((1, 4), 2.0**126)
    assert bounds.matmul_bound(big, np.ones((4, 1))).item() == math.inf
    assert bounds.matmul_bound(big[:, :3] * 0.5, np.ones((3, 1))).item() < math.inf
    cancelling = np.array([[60000.0, -60000.0]])
    assert bounds.matmul_bound(cancelling, np.ones((2, 1)), FLOAT16_FLOAT16).item() == math.inf  # in another order it may overflow
    assert bounds.matmul_bound(cancelling, np.ones((2, 1)), FLOAT16_FLOAT32).item() < math.inf
    assert bounds.matmul_bound(cancelling * [1, -1], np.ones((2, 1)), FLOAT16_FLOAT32).item() == math.inf  # the output
    assert bounds.matmul_bound(np.array([[1e6]]), np.zeros((1, 1)), FLOAT16_FLOAT32).item() == math.inf  # the operand
    assert bounds.matmul_bound(np.full((1, 2), 1e308), np.ones((2, 1)), FLOAT64).item() == math.inf


def test_empty_sums_are_exact():
    assert bounds.matmul_bound(np.ones((2, 0)), np.ones((0, 3))).tolist() == [[0, 0, 0]] * 2
    assert bounds.linear_bound(np.ones((0, 2)), np.ones((3, 2))).shape == (0, 3)


def test_operands_of_every_dtype():
    import ml_dtypes
    one = np.ones((1, 2))
    for dtype in (np.int32, np.float16, ml_dtypes.bfloat16, np.float32):
        assert bounds.matmul_bound(one.astype(dtype), one.T, BFLOAT16_FLOAT32) == bounds.matmul_bound(one, one.T, BFLOAT16_FLOAT32)


def test_bad_input():
    one = np.ones((2, 2))
    with pytest.raises(ShapeError, match="inner lengths"):
        bounds.matmul_bound(one, np.ones((3, 2)))
    with pytest.raises(ShapeError, match=r"`x` has shape \(2,\) and `y` \(3,\)"):
        bounds.dot_bound(np.ones(2), np.ones(3))
    with pytest.raises(ShapeError, match="must be \\(batch, inputs\\)"):
        bounds.linear_bound(one, np.ones((1, 3)))
    with pytest.raises(ShapeError, match="must be \\(batch, inputs\\)"):
        bounds.linear_bound(one, one, np.ones(1))
    with pytest.raises(ArgumentError, match="NaN or infinity"):
        bounds.matmul_bound(one * np.nan, one)
    with pytest.raises(DTypeError, match="complex128"):
        bounds.matmul_bound(one * 1j, one)
    with pytest.raises(ArgumentError, match="'winograd_2_3', but a linear layer is bounded for 'direct' only"):
        bounds.linear_bound(one, one, profile=bounds.WINOGRAD_F2_3)
