"""Bounds of batch normalization against float32 and bfloat16 implementations of every common shape, the exact values by rationals and one root."""

import dataclasses
import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, target
from hypothesis import strategies as st

from npreparam import ArgumentError, ShapeError, exact
from npreparam.certified.bounds import BFLOAT16_FLOAT32, FLOAT16_FLOAT16, FLOAT32, FLOAT64, Profile
from npreparam.exact.roots import sqrt_between
from tests.certified import simulate
from tests.certified.verdict import float32_bounds as bounds
from tests.certified.verdict import worst_ratio

PROFILES = {"FLOAT32": FLOAT32, "FLOAT64": FLOAT64, "BFLOAT16_FLOAT32": BFLOAT16_FLOAT32,
            "FLUSHED": dataclasses.replace(FLOAT32, flush_to_zero=True)}
FORMS = ("centred", "affine", "reciprocal")
STYLES = [style for style in simulate.STYLES if style != "fma"]


def exact_moments(x):
    """Mean and biased variance of each channel as Fractions."""
    f = exact.as_fractions(x, "x")
    mean = f.sum(0) / len(x)
    return mean, ((f - mean) ** 2).sum(0) / len(x)


def exact_batch_norm(x, gamma, beta, mean, var, eps):
    """Rationals within 2^-200, relatively, of the exact values: the root is between two rationals that close."""
    f, (gamma, beta) = exact.as_fractions(x, "x"), (exact.as_fractions(v, "v") for v in (gamma, beta))
    root = np.array([sum(sqrt_between(v + Fraction(eps), 300)) / 2 for v in var], object)
    return (f - mean) * gamma / root + beta


def machine_moments(x, profile, variance, style, rng):
    """Mean and variance along axis 0, in the accumulator's arithmetic."""
    machine = simulate.Machine(simulate.DTYPES[profile.accumulator], profile.flush_to_zero)
    x, n = machine.out(x.astype(machine.dtype)), machine.dtype(len(x))
    mean = machine.out(machine.total(x, style, rng) / n)
    if variance == "one_pass":
        square = machine.out(machine.total(machine.mul(x, x), style, rng) / n)
        return mean, machine.add(square, -machine.mul(mean, mean))
    centred = machine.add(x, -mean)
    return mean, machine.out(machine.total(machine.mul(centred, centred), style, rng) / n)


@simulate.quiet
def machine_normalize(x, gamma, beta, mean, var, eps, profile, form):
    """(x - mean)*s*gamma + beta as written; x*slope + shift; or with the reciprocal root 2 ulp off, as hardware may give it."""
    machine = simulate.Machine(simulate.DTYPES[profile.accumulator], profile.flush_to_zero)
    x, gamma, beta, mean, var = (machine.out(np.asarray(v).astype(machine.dtype)) for v in (x, gamma, beta, mean, var))
    v = machine.add(var, machine.dtype(eps))
    root = machine.out(machine.dtype(1) / machine.out(np.sqrt(v)))
    if form == "reciprocal":
        spacing = np.spacing((1 / np.sqrt(v.astype(np.float64))).astype(machine.dtype))
        root = (1 / np.sqrt(v.astype(np.float64))).astype(machine.dtype) + spacing
    if form == "centred":
        y = machine.add(machine.mul(machine.mul(machine.add(x, -mean), root), gamma), beta)
    else:
        slope = machine.mul(gamma, root)
        y = machine.add(machine.mul(x, slope), machine.add(beta, -machine.mul(mean, slope)))
    return y.astype(simulate.DTYPES[profile.output])


def channel_data(rng, n, channels, ratio, profile):
    """x of mean `ratio` times its deviation, and gamma, beta; numbers of the operands' format."""
    x = rng.standard_normal((n, channels)) + ratio
    return [simulate.rounded(v, profile.input_rounding) for v in (x, rng.standard_normal(channels), rng.standard_normal(channels))]


@pytest.mark.parametrize("name", PROFILES)
def test_evaluation(name, record_property):
    """Given statistics of all magnitudes, every form of the expression."""
    profile, rng, worst = PROFILES[name], np.random.default_rng(0), dict.fromkeys(FORMS, 0.0)
    for form, ratio, scale in itertools.product(FORMS, (0, 30, 1e4), (2.0**-30, 1, 2.0**20)):
        x, gamma, beta = channel_data(rng, 9, 6, ratio, profile)
        mean, var = simulate.rounded(x[0], "bfloat16"), simulate.rounded(rng.random(6) * scale, profile.accumulator)
        got = machine_normalize(x, gamma, beta, mean, var, 1e-5, profile, form)
        truth = exact_batch_norm(x, gamma, beta, exact.as_fractions(mean, "mean"), exact.as_fractions(var, "var"), 1e-5)
        worst[form] = max(worst[form], worst_ratio(got, truth, bounds.batch_norm_eval_bound(x, gamma, beta, mean, var, profile=profile)))
    record_property("error/bound", worst)
    assert min(worst.values()) > 0


@pytest.mark.parametrize("name", PROFILES)
def test_training(name, record_property):
    """Both variances in all orders, means up to 1000 deviations away; the bound is finite wherever the variance is sure to be positive."""
    profile, rng, worst, finite = PROFILES[name], np.random.default_rng(1), {}, {}
    for variance, ratio, style in itertools.product(("two_pass", "one_pass"), (0, 5, 200, 1000), STYLES):
        n, form = int(rng.choice([2, 3, 40])), FORMS[rng.integers(3)]
        x, gamma, beta = channel_data(rng, n, 4, ratio, profile)
        mean, var = exact_moments(x)
        got_mean, got_var = machine_moments(x, profile, variance, style, rng)
        got = machine_normalize(x, gamma, beta, got_mean, got_var, 1e-3, profile, form)
        of_mean, of_var = bounds.moments_bounds(x, variance, profile)
        of_y = bounds.batch_norm_train_bound(x, gamma, beta, 1e-3, variance, profile)
        ratios = (worst_ratio(got_mean, mean, of_mean), worst_ratio(got_var, var, of_var),
                  worst_ratio(got, exact_batch_norm(x, gamma, beta, mean, var, 1e-3), of_y))
        worst[variance] = np.maximum(worst.get(variance, 0), ratios)
        finite[variance, ratio] = finite.get((variance, ratio), True) and bool(np.isfinite(of_y).all())
    record_property("error/bound of mean, variance and output", {key: value.tolist() for key, value in worst.items()})
    assert np.min(list(worst.values())) > 0
    assert all(finite["two_pass", ratio] for ratio in (0, 5, 200))
    assert finite["one_pass", 0]


@given(st.integers(0, 2**32 - 1), st.sampled_from(("one_pass", "two_pass")), st.integers(2, 30), st.floats(0, 12), st.sampled_from(STYLES))
def test_variances_searched(seed, variance, n, power, style):
    rng = np.random.default_rng(seed)
    x, _, _ = channel_data(rng, n, 2, 2**power, FLOAT32)
    _, got = machine_moments(x, FLOAT32, variance, style, rng)
    target(worst_ratio(got, exact_moments(x)[1], bounds.moments_bounds(x, variance)[1]))


def test_subnormal_values():
    """Squares and products around the smallest normal number: what underflow and flushing add is in the bounds, and is needed."""
    rng = np.random.default_rng(2)
    x = np.array([[1.0, 3.0], [2.5, -1.0], [1.25, 2.0]]) * 2.0**-70
    var = exact_moments(x)[1]
    for profile in (FLOAT32, PROFILES["FLUSHED"]):
        for variance in ("one_pass", "two_pass"):
            _, got = machine_moments(x, profile, variance, "sequential", rng)
            assert worst_ratio(got, var, bounds.moments_bounds(x, variance, profile)[1]) > 0
        gamma, beta, one = np.full(2, 2.0**-60), np.zeros(2), np.ones(2)
        got = machine_normalize(x, gamma, beta, 0 * one, one, 0.0, profile, "centred")
        limit = bounds.batch_norm_eval_bound(x, gamma, beta, 0 * one, one, 0.0, profile)
        worst_ratio(got, exact_batch_norm(x, gamma, beta, [Fraction(0)] * 2, [Fraction(1)] * 2, Fraction(1, 10**40)), limit)
    with pytest.raises(AssertionError, match="above the bound"):
        worst_ratio(got, exact_batch_norm(x, gamma, beta, [Fraction(0)] * 2, [Fraction(1)] * 2, Fraction(1, 10**40)), limit * 2.0**-26)
    gamma, x = np.full(2, 2.0**-130), x * 2.0**130  # a subnormal gamma times large x: flushed, all of it is the error
    got = machine_normalize(x, gamma, beta, 0 * one, one, 0.0, PROFILES["FLUSHED"], "affine")
    truth = exact_batch_norm(x, gamma, beta, [Fraction(0)] * 2, [Fraction(1)] * 2, Fraction(1, 10**40))
    assert (got == 0).all()
    assert worst_ratio(got, truth, bounds.batch_norm_eval_bound(x, gamma, beta, 0 * one, one, 0.0, PROFILES["FLUSHED"])) > 0
    tiny = 2.0**-140 * np.ones(1)
    assert bounds.batch_norm_eval_bound(np.ones((1, 1)), np.ones(1), np.ones(1), np.ones(1), tiny, 0.0).item() == np.inf


def test_the_variances_tell_each_other_apart():
    """Planted faults: a one-pass variance, and what comes out of it, is beyond the two-pass bound; so is a mean in a worse format."""
    rng = np.random.default_rng(3)
    x, gamma, beta = channel_data(rng, 8, 4, 300, FLOAT32)
    mean, var = exact_moments(x)
    got_mean, got_var = machine_moments(x, FLOAT32, "one_pass", "shuffled", rng)
    assert worst_ratio(got_var, var, bounds.moments_bounds(x, "one_pass")[1]) > 0
    with pytest.raises(AssertionError, match="above the bound"):
        worst_ratio(got_var, var, bounds.moments_bounds(x, "two_pass")[1])
    got = machine_normalize(x, gamma, beta, got_mean, got_var, 1e-3, FLOAT32, "centred")
    truth = exact_batch_norm(x, gamma, beta, mean, var, 1e-3)
    assert worst_ratio(got, truth, bounds.batch_norm_train_bound(x, gamma, beta, 1e-3, "one_pass")) > 0
    with pytest.raises(AssertionError, match="above the bound"):
        worst_ratio(got, truth, bounds.batch_norm_train_bound(x, gamma, beta, 1e-3, "two_pass"))
    with pytest.raises(AssertionError, match="above the bound"):
        worst_ratio(got_mean.astype(np.float16), mean, bounds.moments_bounds(x)[0])


def test_a_root_that_is_known():
    """x = mean + 2, var + eps = 4: by hand |gamma|*(|x| + |mean|)/2 + |beta| = 3, times 10 roundings."""
    args = (np.array([[3.0]]), np.ones(1), np.ones(1), np.ones(1), np.array([3.0]), 1.0)
    assert 1 < bounds.batch_norm_eval_bound(*args).item() / (3 * 10 * 2.0**-24) < 1 + 2.0**-18
    assert bounds.batch_norm_eval_bound(*args, Profile(accumulator="float64", output="float64", input_rounding="float64")).item() < 2.0**-48


def test_overflow_makes_the_bound_infinite():
    big = np.array([[2.0**100], [-(2.0**100)]])
    assert np.isinf(bounds.moments_bounds(big)[1]).all()
    assert np.isinf(bounds.batch_norm_train_bound(big, np.ones(1), np.ones(1))).all()
    one = np.ones(1)
    assert np.isinf(bounds.batch_norm_eval_bound(np.array([[2.0**127]]), one, one, one * 2.0**127, one)).all()
    small = simulate.rounded(np.array([[300.0], [-300.0]]), "float16")
    assert np.isinf(bounds.moments_bounds(small, profile=FLOAT16_FLOAT16)[1]).all()  # squares of 300 overflow float16
    assert math.isfinite(bounds.moments_bounds(small)[1].item())


def test_bad_input():
    x, one = np.ones((2, 3)), np.ones(3)
    with pytest.raises(ShapeError, match="`gamma` has shape \\(2,\\), but must have shape \\(3,\\)"):
        bounds.batch_norm_eval_bound(x, np.ones(2), one, one, one)
    with pytest.raises(ShapeError, match="must have 4 axes"):
        bounds.moments_bounds(np.ones(3))
    with pytest.raises(ShapeError, match="nothing to average"):
        bounds.moments_bounds(np.ones((0, 3)))
    with pytest.raises(ArgumentError, match=r"`running_var` \+ `eps` \(=-1.0\) must be positive"):
        bounds.batch_norm_eval_bound(x, one, one, one, -one, 0.0)
    with pytest.raises(ArgumentError, match=r"`variance` \(='welford'\) must be one of 'one_pass', 'two_pass'"):
        bounds.batch_norm_train_bound(x, one, one, variance="welford")
    with pytest.raises(ArgumentError, match="no float32 numbers"):
        bounds.batch_norm_eval_bound(0.1 * x, one, one, one, one)
