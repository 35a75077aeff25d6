"""Likely bounds: seldom exceeded by machines whose errors are random, often by machines whose errors are not."""

import math

import mpmath
import numpy as np
import pytest

from npreparam import ArgumentError, exact
from npreparam.certified.bounds import FLOAT16_FLOAT16, FLOAT32, TF32, Profile, failure_probability, likely
from tests.certified import data, simulate
from tests.certified.verdict import float32_bounds as bounds
from tests.certified.verdict import worst_ratio

N = 400


def dot_ratio(x, w, profile, style, judge):
    got = simulate.dot(x, w, profile, style, np.random.default_rng(0))
    truth = exact.as_fractions((x * w).astype(np.float64), "x").sum(0)  # operands of 24 bits: products are exact
    limit = np.array([bounds.dot_bound(a, b, judge) for a, b in zip(x.T, w.T, strict=True)])
    return worst_ratio(got, truth, limit)


@pytest.mark.parametrize("profile", [FLOAT32, FLOAT16_FLOAT16], ids=["FLOAT32", "FLOAT16_FLOAT16"])
def test_random_errors_stay_below(profile, record_property):
    """50 sums at lambda = 6, whose failure probability is below 2e-5 each; far tighter than the sound bound."""
    rng = np.random.default_rng(0)
    x, w = data.operands("normal", (N, 50), rng, profile.input_rounding)
    ratios = {style: dot_ratio(x, w, profile, style, likely(profile)) for style in ("sequential", "pairwise", "random_tree")}
    record_property("error/bound", ratios)
    assert all(0 < ratio <= 1 for ratio in ratios.values())
    assert likely(profile).growth(N) < profile.growth(N)
    assert failure_probability(N, 6.0, profile.unit) < 2e-5


def test_errors_of_one_sign_are_suspect_but_sound():
    """Stagnation: what the model excludes is beyond the likely bound, and within the sound one."""
    x, w = data.operands("stagnant", (N, 1), np.random.default_rng(0))
    assert dot_ratio(x, w, FLOAT32, "sequential", FLOAT32) <= 1
    with pytest.raises(AssertionError, match="above the bound"):
        dot_ratio(x, w, FLOAT32, "sequential", likely(FLOAT32, 4.0))


def test_the_formula_to_fifty_digits():
    """exp(lambda*sqrt(n)*u + n*u^2/(1 - u)) - 1, and never more than the sound growth."""
    for n, confidence in ((1, 0.5), (576, 4.0), (10**6, 6.0)):
        with mpmath.workdps(50):
            u = mpmath.mpf(2) ** -24
            want = mpmath.expm1(confidence * mpmath.sqrt(n) * u + n * u**2 / (1 - u))
            want = min(want, n * u)
            got = mpmath.mpf(float(likely(FLOAT32, confidence).growth(n)))
            assert abs(got / want - 1) < 8 * 2.0**-53
    assert likely(FLOAT32, 6.0).growth(4) == FLOAT32.growth(4)


def test_it_is_a_profile_for_every_bound():
    x, w = np.ones((1, 64, 3, 3)), np.ones((1, 64, 3, 3))
    level = likely(FLOAT32, 5.0)
    assert bounds.conv2d_bound(x, w, profile=level) < bounds.conv2d_bound(x, w) / 4
    assert bounds.sum_bound(np.ones(1000), profile=level) < bounds.sum_bound(np.ones(1000)) / 6
    assert level.confidence == 5
    assert level.accumulator == "float32"
    assert "confidence=5.0" in repr(level)


def test_the_failure_probability():
    assert failure_probability(10, 0.1) == 1
    assert abs(failure_probability(576, 6.0) / (2 * 576 * math.exp(-18)) - 1) < 18 * 2.0**-21  # (1 - u)^2 in the exponent


def test_bad_input():
    for profile in (TF32, Profile(flush_to_zero=True)):
        with pytest.raises(ArgumentError, match="do not have mean zero"):
            likely(profile)
    for confidence in (0, -1.0, math.inf, math.nan):
        with pytest.raises(ArgumentError, match="`confidence`"):
            likely(FLOAT32, confidence)
