"""Bounds of sums, means and average pooling."""

import dataclasses
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, target
from hypothesis import strategies as st

from npreparam import ArgumentError, DTypeError, ShapeError, exact
from npreparam.certified.bounds import BFLOAT16_FLOAT32, FLOAT16_FLOAT16, FLOAT32, FLOAT64, Profile
from tests import naive
from tests.certified import data, simulate
from tests.certified.verdict import float32_bounds as bounds
from tests.certified.verdict import worst_ratio

PROFILES = {"FLOAT32": FLOAT32, "FLOAT64": FLOAT64, "BFLOAT16_FLOAT32": BFLOAT16_FLOAT32, "FLOAT16_FLOAT16": FLOAT16_FLOAT16,
            "FLUSHED": dataclasses.replace(FLOAT32, flush_to_zero=True)}
STYLES = [style for style in simulate.STYLES if style != "fma"]
ADDITIVE = [kind for kind in data.KINDS if kind != "subnormal"]  # additions of subnormal numbers are exact


def machine_sum(x, profile, style, rng, divide=None):
    """A sum along axis 0, or a mean: divided by n, multiplied by 1/n, or with every term divided first."""
    machine = simulate.Machine(simulate.DTYPES[profile.accumulator], profile.flush_to_zero)
    terms, n = machine.out(x.astype(machine.dtype)), machine.dtype(len(x))
    if divide == "first":
        terms = machine.out(terms / n)
    total = machine.total(terms, style, rng)
    if divide == "last":
        total = machine.out(total / n)
    if divide == "inverse":
        total = machine.mul(total, machine.dtype(1) / n)
    with np.errstate(all="ignore"):
        return total.astype(simulate.DTYPES[profile.output])


def additive(kind, shape, rng, profile):
    """Numbers of the accumulator's format whose sums are hard; those around the least normal number are so themselves."""
    x, _ = data.operands(kind, shape, rng, profile.accumulator)
    if kind == "cancelling":
        x[-1] = -x[:-1].sum(0)
    if kind == "least_normal":
        x = x / np.abs(x).max() * 2.0 ** (2 + {"float16": -14}.get(profile.accumulator, -1022 if profile.accumulator == "float64" else -126))
    return simulate.rounded(x, profile.accumulator)


@pytest.mark.parametrize("name", PROFILES)
def test_sums_and_means(name, record_property):
    profile, rng, reached = PROFILES[name], np.random.default_rng(0), {}
    for kind, n, style in [(kind, n, style) for kind in ADDITIVE for n in (1, 2, 23) for style in STYLES]:
        x = additive(kind, (n, 8), rng, profile)
        total = exact.as_fractions(x, "x").sum(0)
        ratios = [worst_ratio(machine_sum(x, profile, style, rng), total, bounds.sum_bound(x, 0, profile=profile))]
        ratios += [worst_ratio(machine_sum(x, profile, style, rng, divide), total / n, bounds.mean_bound(x, 0, profile=profile))
                   for divide in ("first", "last", "inverse")]
        reached[kind] = np.maximum(reached.get(kind, 0), (ratios[0], max(ratios[1:])))
    record_property("error/bound of sums and means", reached)
    assert np.min(list(reached.values()), 0)[1] > 0
    assert np.max(list(reached.values()), 0)[0] > 0


@given(st.integers(0, 2**32 - 1), st.sampled_from(sorted(PROFILES)), st.sampled_from(ADDITIVE), st.sampled_from(STYLES), st.integers(1, 40))
def test_sums_searched(seed, name, kind, style, n):
    rng, profile = np.random.default_rng(seed), PROFILES[name]
    x = additive(kind, (n, 3), rng, profile)
    target(worst_ratio(machine_sum(x, profile, style, rng), exact.as_fractions(x, "x").sum(0), bounds.sum_bound(x, 0, profile=profile)))


@pytest.mark.parametrize("counted", [True, False])
def test_average_pooling(counted, record_property):
    """Windows of different counts at the border; the exact means by the naive loops over Fractions."""
    rng, worst = np.random.default_rng(1), {}
    for name, profile in PROFILES.items():
        x = additive("normal", (2, 2, 5, 6), rng, profile)
        geometry = ((3, 2), (2, 1), ((1, 1), (1, 0)))
        at, fractions = list(naive.windows(x.shape, *geometry)), exact.as_fractions(x, "x")
        limit = bounds.avg_pool2d_bound(x, *geometry, count_include_pad=counted, profile=profile)
        got, truth = np.empty(limit.shape, simulate.DTYPES[profile.output]), np.empty(limit.shape, object)
        for out, under in at:
            n = 6 if counted else len(under)
            terms = np.array([x[i] for i in under] + [0.0] * (n - len(under)))[:, None]
            got[out] = machine_sum(terms, profile, STYLES[rng.integers(4)], rng, "last")[0]
            truth[out] = sum(fractions[i] for i in under) / n
        worst[name] = worst_ratio(got, truth, limit)
    record_property("error/bound", worst)
    assert min(worst.values()) > 0


def test_ones_by_hand():
    assert 1 < bounds.sum_bound(np.ones(9)) / (8 * 9 * 2.0**-24) < 1 + 2.0**-40
    assert bounds.sum_bound(np.ones((2, 1)), 1).tolist() == [0, 0]
    assert bounds.sum_bound(np.ones((3, 0)), 1).tolist() == [0, 0, 0]
    assert bounds.mean_bound(np.ones((2, 3, 4)), (0, 2), keepdims=True).shape == (1, 3, 1)
    assert bounds.sum_bound(np.full(8, 2.0**125)).item() == np.inf
    corner, edge = bounds.avg_pool2d_bound(np.ones((1, 1, 4, 4)), 3, 1, 1)[0, 0, 0, :2] / FLOAT32.unit
    assert (round(corner * 9), round(edge * 9)) == ((4 + 2) * 4, (6 + 2) * 6)


@dataclasses.dataclass(frozen=True, slots=True)
class SquareRoot(Profile):
    """Planted fault: sqrt(n)*u."""

    def growth(self, terms, length=None, more=0):
        return np.sqrt(self.roundings(terms, length, more)) * self.unit


def test_planted_faults_are_caught():
    x, rng = np.full((200, 1), 2.0**-24), np.random.default_rng(0)
    x[0] = 1
    got, truth = machine_sum(x, FLOAT32, "sequential", rng), np.array([1 + 199 * Fraction(1, 2**24)])
    assert worst_ratio(got, truth, bounds.sum_bound(x, 0)) > 0.9
    mean = machine_sum(x, FLOAT32, "sequential", rng, "last")
    worst_ratio(mean, truth / 200, bounds.mean_bound(x, 0))
    with pytest.raises(AssertionError, match="above the bound"):
        worst_ratio(got, truth, bounds.sum_bound(x, 0, profile=SquareRoot()))
    with pytest.raises(AssertionError, match="above the bound"):
        worst_ratio(mean, truth / 200, bounds.mean_bound(x, 0, profile=SquareRoot()))
    tiny = np.array([[1.5 * 2.0**-126], [-(2.0**-126)]])
    flushed = machine_sum(tiny, PROFILES["FLUSHED"], "sequential", rng)
    truth = exact.as_fractions(tiny, "x").sum(0)
    assert worst_ratio(flushed, truth, bounds.sum_bound(tiny, 0, profile=PROFILES["FLUSHED"])) > 0
    with pytest.raises(AssertionError, match="above the bound"):
        worst_ratio(flushed, truth, bounds.sum_bound(tiny, 0))


def test_bad_input():
    with pytest.raises(ShapeError, match="nothing to average"):
        bounds.mean_bound(np.ones((0, 2)), 0)
    with pytest.raises(ArgumentError, match="NaN or infinity"):
        bounds.sum_bound(np.array([np.nan]))
    with pytest.raises(DTypeError, match="bool"):
        bounds.sum_bound(np.array([True]))
    with pytest.raises(ShapeError, match="smaller than `kernel`"):
        bounds.avg_pool2d_bound(np.ones((1, 1, 4, 4)), 2, padding=2)
