"""Gradient estimators: exact means and variances by quadrature over their noise, the variance table by simulation, each sample against a loop.

Every simulated check has a false-alarm probability of at most 1e-13 (`block_false_alarm`) and a fixed seed besides.
"""

import importlib
import itertools
import math

import numpy as np
import pytest

from npreparam import ops
from npreparam._errors import UnusedInputError
from npreparam.prob import (
    MeasureNoise,
    Normal,
    measure_valued,
    pathwise,
    quadratic_moments,
    score_function,
)
from npreparam.tape.tensor import value_of
from tests.prob import expectation as ex
from tests.tolerances import assert_within, relative_bound

measure_module = importlib.import_module("npreparam.prob.estimators.measure_valued")  # the package has functions of the same names
score_module = importlib.import_module("npreparam.prob.estimators.score_function")
SIZE = 20_000  # samples of a block
SETTINGS = [(1.0, 1.0, -3.0), (0.5, 2.0, 1.0), (-1.0, 0.25, -1.0)]
DIRECT = {"score function": score_function, "measure-valued": measure_valued, "pathwise": pathwise}
POOLED = ["leave-one-out", "optimal baseline"]  # baselines made of the other samples


def table(mu, sigma, k):
    """GENERATIVE.md's table: name -> (variance for mu, variance for sigma)."""
    a, s = mu - k, sigma
    return {"score function": (a**4 / s**2 + 14 * a**2 + 15 * s**2, 2 * a**4 / s**2 + 60 * a**2 + 74 * s**2),
            "optimal baseline": (8 * a**2 + 6 * s**2, 40 * a**2 + 24 * s**2),
            "pathwise": (4 * s**2, 4 * a**2 + 8 * s**2),
            "measure-valued": (a**2 * (16 / math.pi - 4), 4 * a**2 + 4 * s**2)}


def best_constants(mu, sigma, k):
    """E[f h^2]/E[h^2] of the quadratic, for mu and for sigma."""
    a, s = mu - k, sigma
    return a**2 + 3 * s**2, a**2 + 5 * s**2


def quadratic(k):
    return lambda z: ops.square(ops.sub(z, k))


def run(estimator, f, mu, sigma, **noise):
    found = estimator(f, Normal, {"loc": mu, "scale": sigma}, **noise)
    return found["loc"], found["scale"]


def with_baseline(baseline):
    return lambda *args, **kwargs: score_function(*args, baseline=baseline, **kwargs)


def by_quadrature(estimator, f, mu, sigma, count):
    """Means and variances of both gradients, exact up to the rule, with weights and values: the estimator run at the nodes of its noise."""
    if estimator is not measure_valued:
        x, w = ex.normal_nodes(count)
        return [(*ex.moments(g, w)[:2], w, g) for g in run(estimator, f, mu, sigma, eps=x)]
    x, w = ex.rayleigh_nodes(4 * count)
    nodes, v = ex.product_nodes(ex.maxwell_nodes(count), ex.uniform_nodes(count))
    rest = np.full_like(x, 0.5)
    of_mu = run(measure_valued, f, mu, sigma, eps=MeasureNoise(x, rest, rest))[0]
    half = np.full(len(v), 0.5)
    of_sigma = run(measure_valued, f, mu, sigma, eps=MeasureNoise(half, nodes[:, 0].copy(), nodes[:, 1].copy()))[1]
    return [(*ex.moments(of_mu, w)[:2], w, of_mu), (*ex.moments(of_sigma, v)[:2], v, of_sigma)]


def check_by_quadrature(estimator, f, mu, sigma, counts, means, variances=(None, None)):
    coarse, fine = (by_quadrature(estimator, f, mu, sigma, count) for count in counts)
    for (m0, v0, *_), (m, v, w, g), mean, variance in zip(coarse, fine, means, variances, strict=True):
        assert_within(m, mean, ex.quadrature_bound(m0, m, len(w), (w * np.abs(g)).sum()))
        if variance is not None:
            assert_within(v, variance, ex.quadrature_bound(v0, v, len(w), (w * g * g).sum()))


@pytest.mark.parametrize("setting", SETTINGS)
def test_exact_means_and_variances_of_the_table_by_quadrature(setting):
    mu, sigma, k = setting
    means, expected = (2 * (mu - k), 2 * sigma), table(*setting)
    for name, estimator in DIRECT.items():
        check_by_quadrature(estimator, quadratic(k), mu, sigma, (20, 26), means, expected[name])
    for i, constant in enumerate(best_constants(*setting)):
        wanted = [None, None]
        wanted[i] = expected["optimal baseline"][i]
        check_by_quadrature(with_baseline(constant), quadratic(k), mu, sigma, (20, 26), means, wanted)


@pytest.mark.parametrize("estimator", [score_function, with_baseline(-0.75), measure_valued, pathwise])
def test_unbiased_for_a_sine(estimator):
    """E[sin(z)] = sin(mu)*exp(-sigma^2/2)."""
    mu, sigma = 0.7, 1.3
    decay = math.exp(-sigma**2 / 2)
    check_by_quadrature(estimator, ops.sin, mu, sigma, (60, 80), (math.cos(mu) * decay, -sigma * math.sin(mu) * decay))


def test_the_closed_forms_are_the_table():
    for setting in SETTINGS:
        found = quadratic_moments(*setting, samples=7)
        for name, variances in table(*setting).items():
            for parameter, variance in zip(("mu", "sigma"), variances, strict=True):
                assert_within(found[name][parameter].variance, variance, relative_bound(16, variance, np.float64))
                assert found[name][parameter].mean == (2 * (setting[0] - setting[2]) if parameter == "mu" else 2 * setting[1])
    assert [round(v) for v in (*table(*SETTINGS[0])["score function"], *table(*SETTINGS[0])["optimal baseline"])] == [495, 1546, 134, 664]


def test_the_closed_form_of_leaving_one_out_by_quadrature_over_two_samples():
    """n = 2: g = (f(z) - f(z'))*h, an independent formula, so exact for polynomials."""
    for mu, sigma, k in SETTINGS:
        nodes, w = ex.product_nodes(ex.normal_nodes(12), ex.normal_nodes(12))
        z = mu + sigma * nodes
        difference = (z[:, 0] - k) ** 2 - (z[:, 1] - k) ** 2
        for name, h in (("mu", nodes[:, 0] / sigma), ("sigma", (nodes[:, 0] ** 2 - 1) / sigma)):
            mean, variance, _ = ex.moments(difference * h, w)
            exact = quadratic_moments(mu, sigma, k, 2)["leave-one-out"][name]
            assert_within(mean, exact.mean, ex.quadrature_bound(0, 0, len(w), (w * np.abs(difference * h)).sum()))
            assert_within(variance, exact.variance, ex.quadrature_bound(0, 0, len(w), (w * (difference * h) ** 2).sum()))


# simulation


def by_hand(name, setting, constant=0.0):
    """Mean, variance and fourth central moment of the gradients for mu and sigma, from their formulas, by quadrature."""
    mu, sigma, k = setting
    x, w = ex.normal_nodes(26)
    if name == "score function":
        f = (mu + sigma * x - k) ** 2 - constant
        return ex.moments(f * x / sigma, w), ex.moments(f * (x * x - 1) / sigma, w)
    if name == "pathwise":
        slope = 2 * (mu + sigma * x - k)
        return ex.moments(slope, w), ex.moments(slope * x, w)
    r, v = ex.rayleigh_nodes(100)
    nodes, both = ex.product_nodes(ex.maxwell_nodes(26), ex.uniform_nodes(26))
    outer, inner = nodes[:, 0], nodes[:, 0] * nodes[:, 1]
    of_mu = ((mu + sigma * r - k) ** 2 - (mu - sigma * r - k) ** 2) / (sigma * math.sqrt(2 * math.pi))
    return ex.moments(of_mu, v), ex.moments(((mu + sigma * outer - k) ** 2 - (mu + sigma * inner - k) ** 2) / sigma, both)


def blocks(estimator, setting, seed, size=SIZE):
    """Means and variances (blocks, 2) of gradients drawn in independent blocks."""
    mu, sigma, k = setting
    statistics = []
    for rng in np.random.default_rng(seed).spawn(ex.BLOCKS):
        found = run(estimator, quadratic(k), mu, sigma, samples=size, rng=rng)
        statistics.append([(g.mean(), g.var(ddof=1)) for g in found])
    return np.median(np.array(statistics), 0)


def check_simulated(name, setting, seed=0):
    """Medians of the blocks' means and variances against the table, the fourth moment being by hand."""
    means, found = (2 * (setting[0] - setting[2]), 2 * setting[1]), blocks(DIRECT[name], setting, seed)
    for (mean, variance), true_mean, exact, (*_, fourth) in zip(found, means, table(*setting)[name], by_hand(name, setting), strict=True):
        assert_within(mean, true_mean, ex.mean_interval(exact, SIZE))
        assert_within(variance, exact, ex.variance_interval(exact, fourth, SIZE))


def pooled_excess(name, setting):
    """Bound on E[mean of d^2], d = (b_s - b)*h_s, for each gradient: how a baseline of n samples differs from the constant b it estimates.

    leave-one-out: Var(f)*E[h^2]/(n - 1), exactly. optimal: b_s - b = N/D, the means over the others of (f - b)*h^2 and of h^2. D is below E[h^2]/2
    with probability exp(-n*E[h^2]^2/(8*E[h^4])) at most, 2^-200 here for all s together; else d^2 <= 4*N^2*h^2/E[h^2]^2, whose mean is
    4*E[((f - b)*h^2)^2]/((n - 1)*E[h^2]).
    """
    mu, sigma, k = setting
    x, w = ex.normal_nodes(26)
    f, scores = (mu + sigma * x - k) ** 2, (x / sigma, (x * x - 1) / sigma)
    if name == "leave-one-out":
        return [ex.moments(f, w)[1] * (w * h * h).sum() / (SIZE - 1) for h in scores]
    found = []
    for h, b in zip(scores, best_constants(*setting), strict=True):
        square = (w * h * h).sum()
        assert SIZE * math.exp(-(SIZE - 1) * square**2 / (8 * (w * h**4).sum())) < 2.0**-200
        found.append(4 * (w * ((f - b) * h * h) ** 2).sum() / ((SIZE - 1) * square))
    return found


def check_pooled(name, setting, seed=0):
    """A baseline of the other samples against the constant that it estimates, whose moments are known."""
    mu, sigma, k = setting
    estimator = with_baseline({"leave-one-out": "leave_one_out", "optimal baseline": "optimal"}[name])
    constants = best_constants(*setting) if name == "optimal baseline" else [(mu - k) ** 2 + sigma**2] * 2
    found, excess = blocks(estimator, setting, seed), pooled_excess(name, setting)
    for i, constant in enumerate(constants):
        true_mean, variance, fourth = by_hand("score function", setting, constant)[i]
        least, greatest = ex.deviation_range(variance, fourth, SIZE, excess[i])
        assert least <= math.sqrt(found[i][1]) <= greatest, (name, i, found[i][1], variance)
        assert_within(found[i][0], true_mean, math.sqrt(2) * (ex.mean_interval(variance, SIZE) + ex.WIDTH * math.sqrt(excess[i])))


def test_the_false_alarm_probability_is_what_is_claimed():
    assert ex.block_false_alarm() <= 1e-13


@pytest.mark.parametrize("name", DIRECT)
@pytest.mark.parametrize("setting", SETTINGS[:2])
def test_the_table_by_simulation(name, setting):
    check_simulated(name, setting)


@pytest.mark.parametrize("name", POOLED)
@pytest.mark.parametrize("setting", SETTINGS[:2])
def test_the_table_by_simulation_with_baselines_of_other_samples(name, setting):
    check_pooled(name, setting)


# planted faults


def test_planted_a_plain_sample_has_no_gradient(monkeypatch):
    monkeypatch.setattr(Normal, "_transform", lambda self, eps: value_of(self.loc) + value_of(self.scale) * eps)
    with pytest.raises(UnusedInputError, match=r"does not depend on|was not computed"):
        pathwise(lambda z: z, Normal, {"loc": 0.0, "scale": 1.0}, 3, rng=0)


def test_planted_a_detached_sample_has_no_gradient():
    with pytest.raises(UnusedInputError, match=r"`loc` .*`scale`"):
        pathwise(lambda z: ops.square(z.detach()), Normal, {"loc": 0.0, "scale": 1.0}, 3, rng=0)


def test_planted_baseline_with_the_wrong_sign(monkeypatch):
    right = score_module._centred
    monkeypatch.setattr(score_module, "_centred", lambda values, score, baseline: 2 * right(values, score, None) - right(values, score, baseline))
    for name in POOLED:
        with pytest.raises(AssertionError):
            check_pooled(name, SETTINGS[0])


def test_planted_density_without_its_normalization(monkeypatch):
    """The score of sigma loses -1/sigma."""
    monkeypatch.setattr(Normal, "_log_prob", lambda self, x: ops.mul(ops.square(ops.div(ops.sub(x, self.loc), self.scale)), -0.5))
    with pytest.raises(AssertionError):
        check_by_quadrature(score_function, quadratic(-3.0), 1.0, 1.0, (20, 26), (8.0, 2.0))


def test_planted_measures_that_do_not_share_their_noise(monkeypatch):
    """W of its own for the lower point: unbiased, but of another variance."""
    right, other, calls = measure_module._values, np.random.default_rng(1), itertools.count()
    monkeypatch.setattr(measure_module, "_values", lambda f, z: right(f, other.permutation(z) if next(calls) % 4 == 2 else z))
    with pytest.raises(AssertionError):
        check_simulated("measure-valued", SETTINGS[0])
