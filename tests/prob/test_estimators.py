"""Gradient estimators: exact means and variances by quadrature over their noise, the variance table by simulation, each sample against a loop.

Every simulated check has a false-alarm probability of at most 1e-13 (`block_false_alarm`) and a fixed seed besides.
"""

import importlib
import itertools
import math

import numpy as np
import pytest

from npreparam import ops
from npreparam._errors import ArgumentError, DTypeError, ShapeError, UnusedInputError
from npreparam.prob import (
    Bernoulli,
    Categorical,
    Gamma,
    Independent,
    MeasureNoise,
    MultivariateNormal,
    Normal,
    RelaxedOneHotCategorical,
    measure_noise,
    measure_valued,
    pathwise,
    quadratic_moments,
    score_function,
    straight_through,
)
from npreparam.tape import Tensor, grad
from npreparam.tape.tensor import value_of
from tests.prob import expectation as ex
from tests.tolerances import assert_within, function_bound, relative_bound

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


def test_planted_baseline_of_all_samples_is_biased(monkeypatch):
    """The sample's own value in its baseline: seen exactly by enumeration, where it is (S - 1)/S of the gradient."""
    monkeypatch.setattr(score_module, "_of_others", lambda terms: np.broadcast_to(terms.sum(0) * (len(terms) - 1) / len(terms), terms.shape))
    with pytest.raises(AssertionError):
        check_enumerated("leave_one_out")


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


# discrete distributions, by enumeration


def check_enumerated(baseline):
    """The mean over all outcomes of 3 draws of a Bernoulli is the true gradient f(1) - f(0)."""
    p, f = 0.3, lambda z: ops.add(ops.mul(z, 5.0), 2.0)
    total = magnitude = 0.0
    for i in range(8):
        z = np.array([(i >> j) & 1 for j in range(3)], float)
        g = score_function(f, Bernoulli, {"probs": p}, baseline=baseline, eps=np.where(z == 1, p / 2, (1 + p) / 2))["probs"]
        weight = np.prod(np.where(z == 1, p, 1 - p))
        total, magnitude = total + weight * g.mean(), magnitude + weight * np.abs(g).mean()
    assert_within(total, 5.0, relative_bound(64, magnitude, np.float64))


@pytest.mark.parametrize("baseline", [None, 4.0, "leave_one_out", "optimal"])
def test_score_function_of_a_bernoulli_is_unbiased_exactly(baseline):
    check_enumerated(baseline)


def test_score_function_of_a_categorical():
    p = np.array([0.2, 0.5, 0.3])
    f = np.array([1.0, -2.0, 4.0])
    logits, eps = np.log(p), np.cumsum(p) - p / 2
    g = score_function(lambda z: f[z.value.astype(int)], Categorical, {"logits": logits}, eps=eps)["logits"]
    assert_within((p[:, None] * g).sum(0), p * (f - (p * f).sum()), relative_bound(64, 4.0, np.float64))


def test_straight_through_is_exact_for_an_affine_objective_and_biased_otherwise():
    p = 0.3
    eps, weights = np.array([p / 2, (1 + p) / 2]), np.array([p, 1 - p])

    def mean(f):
        return (weights * straight_through(f, Bernoulli, {"probs": p}, eps=eps)["probs"]).sum()

    assert_within(mean(lambda z: ops.mul(z, 3.0)), 3.0, relative_bound(16, 3.0, np.float64))
    assert_within(mean(quadratic(0.25)), 2 * (p - 0.25), relative_bound(16, 2.0, np.float64))  # the truth is 1 - 2*0.25
    logits = np.array([0.5, -1.0, 0.0])
    weigh = np.array([1.0, 2.0, 5.0])
    g = straight_through(lambda z: ops.sum(ops.mul(z, weigh), axis=-1), Categorical, {"logits": logits}, 4, rng=0)["logits"]
    q = np.exp(logits) / np.exp(logits).sum()
    assert g.shape == (4, 3)
    assert_within(g, np.broadcast_to(q * (weigh - (q * weigh).sum()), g.shape), relative_bound(64, 5.0, np.float64))


def test_straight_through_shows_the_choice_to_the_objective():
    seen = []
    straight_through(lambda z: (seen.append(z.value), ops.sum(z, axis=-1))[1], Categorical, {"probs": np.array([0.5, 0.25, 0.25])},
                     eps=np.array([0.1, 0.6, 0.9]))
    assert (seen[0] == np.eye(3)).all()
    with pytest.raises(ArgumentError, match="makes a Normal, but straight-through gradients are for Bernoulli and Categorical"):
        straight_through(ops.square, Normal, {"loc": 0.0, "scale": 1.0}, 3, rng=0)


# each sample against a loop


def total(z):
    return ops.sum(ops.square(z), tuple(range(1, z.ndim))) if z.ndim > 1 else ops.square(z)


FAMILIES = [
    (Normal, {"loc": np.array([0.5, -1.0, 2.0]), "scale": 1.5}),
    (Normal, {"loc": np.zeros((2, 3)), "scale": np.array([1.0, 2.0, 0.5])}),
    (Gamma, {"concentration": np.array([0.7, 3.0]), "rate": 2.0}),
    (MultivariateNormal, {"loc": np.array([1.0, -1.0]), "covariance": np.array([[2.0, 0.5], [0.5, 1.0]])}),
    (RelaxedOneHotCategorical, {"temperature": 0.5, "logits": np.array([0.1, 0.7, -0.3])}),
    (lambda loc, log_scale: Independent(Normal(loc, ops.exp(log_scale)), 1), {"loc": np.array([0.5, -1.0]), "log_scale": 0.3}),
]


@pytest.mark.parametrize(("family", "parameters"), FAMILIES)
@pytest.mark.parametrize("kind", ["pathwise", "score"])
def test_each_sample_has_the_gradient_it_would_have_alone(family, parameters, kind):
    base = family(**{name: np.asarray(value) for name, value in parameters.items()})
    eps = base.noise((5,), rng=3)
    found = (pathwise if kind == "pathwise" else score_function)(total, family, parameters, eps=eps)
    assert {name: g.shape for name, g in found.items()} == {name: (5, *np.shape(value)) for name, value in parameters.items()}
    for s in range(5):
        leaves = {name: Tensor(np.array(value, float), name) for name, value in parameters.items()}
        alone = family(**leaves)
        if kind == "pathwise":
            expected = grad(total(alone.rsample(eps=eps[s:s + 1])), leaves, np.ones(1))
        else:
            z = base.sample(eps=eps[s:s + 1])
            scores = grad(ops.sum(alone.log_prob(z)), leaves)
            expected = {name: total(Tensor(z)).value[0] * score for name, score in scores.items()}
        for name, g in expected.items():
            assert_within(found[name][s], g, function_bound(256, np.abs(g).max(), np.float64))


def test_measure_valued_in_a_batch_moves_one_element_at_a_time():
    """f = sum of c_i*(z_i - k)^2: each element's gradient is its own alone, for the rest cancels up to rounding."""
    loc, c = np.array([0.5, -1.0, 2.0]), np.array([1.0, 3.0, -2.0])
    noise = measure_noise((6, 3), rng=2)
    found = measure_valued(lambda z: ops.sum(ops.mul(ops.square(ops.sub(z, 1.0)), c), axis=1), Normal, {"loc": loc, "scale": 0.5}, eps=noise)
    assert found["scale"].shape == (6,)
    alone = [measure_valued(lambda z, i=i: ops.mul(ops.square(ops.sub(z, 1.0)), c[i]), Normal, {"loc": loc[i], "scale": 0.5},
                            eps=MeasureNoise(*(part[:, i].copy() for part in noise))) for i in range(3)]
    bound = relative_bound(64, 3 * 3 * (np.abs(loc).max() + 0.5 * 6 + 1) ** 2 / 0.5, np.float64)
    assert_within(found["loc"], np.stack([a["loc"] for a in alone], 1), bound)
    assert_within(found["scale"], sum(a["scale"] for a in alone), 3 * bound)


@pytest.mark.parametrize("baseline", ["leave_one_out", "optimal"])
def test_baselines_of_other_samples_against_their_definition(baseline):
    eps, mu, sigma = np.array([0.5, -1.0, 3.0, 0.25, 40.0]), 1.0, 2.0
    f = (mu + sigma * eps - 3) ** 2
    found = score_function(quadratic(3.0), Normal, {"loc": mu, "scale": sigma}, baseline=baseline, eps=eps)
    for name, h in (("loc", eps / sigma), ("scale", (eps * eps - 1) / sigma)):
        for s in range(len(eps)):
            others = [t for t in range(len(eps)) if t != s]
            weights = [1.0 if baseline == "leave_one_out" else h[t] ** 2 for t in others]
            b = sum(v * f[t] for v, t in zip(weights, others, strict=True)) / sum(weights)
            assert_within(found[name][s], (f[s] - b) * h[s], relative_bound(64, (f[s] + abs(b)) * (abs(h[s]) + 1), np.float64))


def test_float32_stays():
    parameters = {"loc": np.float32(1), "scale": np.float32(2)}
    for estimator in (pathwise, score_function, with_baseline("optimal"), with_baseline(2.5), measure_valued):
        assert {g.dtype for g in estimator(quadratic(1.0), Normal, parameters, 3, rng=0).values()} == {np.dtype(np.float32)}


def test_same_seed_same_bits_and_explicit_noise():
    parameters = {"loc": 1.0, "scale": 2.0}
    for estimator in (pathwise, score_function):
        eps = Normal(**parameters).noise((4,), rng=5)
        assert (estimator(total, Normal, parameters, 4, rng=5)["loc"] == estimator(total, Normal, parameters, eps=eps)["loc"]).all()
    noise = measure_noise((4,), 5)
    assert (measure_valued(total, Normal, parameters, 4, rng=5)["scale"] == measure_valued(total, Normal, parameters, eps=noise)["scale"]).all()


PARAMETERS = {"loc": 0.0, "scale": 1.0}


@pytest.mark.parametrize(("arguments", "message"), [
    ({}, "neither is given"),
    ({"samples": 3}, "neither is given"),
    ({"rng": 0}, "`samples` is None, but is required with `rng`"),
    ({"rng": 0, "samples": 0}, r"`samples` \(=0\) must be positive"),
    ({"rng": 0, "samples": 2.5}, r"`samples` \(=2.5\) must be an integer"),
    ({"rng": 0, "eps": np.zeros(3)}, "both are given"),
    ({"eps": np.zeros((3, 1))}, r"`eps` has shape \(3, 1\), but must have shape \(samples\)"),
    ({"eps": np.zeros(3), "samples": 2}, r"`eps` has shape \(3,\), but must have shape \(2\)"),
    ({"eps": np.zeros(0)}, r"`eps` has shape \(0,\)"),
])
def test_noise_that_does_not_fit_is_refused(arguments, message):
    for estimator in (pathwise, score_function):
        with pytest.raises(ArgumentError, match=message):
            estimator(ops.square, Normal, PARAMETERS, **arguments)


@pytest.mark.parametrize(("f", "error", "message"), [
    (lambda z: 1.0, ArgumentError, "`f` returned a float"),
    (lambda z: ops.sum(z), ShapeError, r"`f` returned shape \(\), but must return shape \(3,\)"),
    (lambda z: z.value.astype(np.float32), DTypeError, "`f` returned dtype float32"),
])
def test_objectives_that_do_not_fit_are_refused(f, error, message):
    for estimator in (pathwise, score_function, measure_valued):
        with pytest.raises(error, match=message):
            estimator(f, Normal, PARAMETERS, 3, rng=0)


def test_other_bad_arguments_are_refused():
    for baseline in ("mean", np.nan, True, [1.0]):
        with pytest.raises(ArgumentError, match="must be None, a finite number, 'optimal' or 'leave_one_out'"):
            score_function(ops.square, Normal, PARAMETERS, 3, baseline=baseline, rng=0)
    with pytest.raises(ArgumentError, match="there is one sample; draw 2 at least"):
        score_function(ops.square, Normal, PARAMETERS, 1, baseline="optimal", rng=0)
    with pytest.raises(ArgumentError, match=r"`parameters` .* must be a dict"):
        pathwise(ops.square, Normal, (0.0, 1.0), 3, rng=0)
    with pytest.raises(ArgumentError, match=r"pass its \.value"):
        pathwise(ops.square, Normal, {"loc": Tensor(np.zeros(())), "scale": 1.0}, 3, rng=0)
    with pytest.raises(ArgumentError, match="`family` makes a ndarray, but must make a Distribution"):
        pathwise(ops.square, lambda loc: loc, {"loc": 1.0}, 3, rng=0)
    with pytest.raises(ShapeError, match="give all parameters as many batch axes"):
        pathwise(total, lambda t, logits: RelaxedOneHotCategorical(t, logits=logits), {"t": 1.0, "logits": np.zeros(3)}, 4, rng=0)
    with pytest.raises(ArgumentError, match="Bernoulli has no re-parameterized sample"):
        pathwise(ops.square, Bernoulli, {"probs": 0.5}, 3, rng=0)
    with pytest.raises(ArgumentError, match=r"'Gamma'.* must be Normal"):
        measure_valued(ops.square, Gamma, {"concentration": 1.0, "rate": 1.0}, 3, rng=0)
    with pytest.raises(ArgumentError, match="must be a MeasureNoise"):
        measure_valued(ops.square, Normal, PARAMETERS, eps=np.zeros(3))
    with pytest.raises(ShapeError, match="`maxwell` of `eps` has shape"):
        measure_valued(ops.square, Normal, PARAMETERS, eps=MeasureNoise(np.ones(3), np.ones(2), np.ones(3)))
    with pytest.raises(ArgumentError, match=r"`rayleigh`.* must be finite and not negative"):
        measure_valued(ops.square, Normal, PARAMETERS, eps=MeasureNoise(-np.ones(3), np.ones(3), np.ones(3)))
    for arguments, message in [((0.0, 0.0, 1.0), "`sigma` .* must be positive"), ((np.inf, 1.0, 0.0), "`mu` .* must be finite"),
                               ((1e100, 1.0, 0.0), "beyond float64"), ((1.0, 1e-200, 0.0), "beyond float64")]:
        with pytest.raises(ArgumentError, match=message):
            quadratic_moments(*arguments, samples=2)
