"""Divergences: never negative, 0 for equal parameters alone, equal to Monte Carlo, accurate near 0; and mistakes that these checks see."""

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npreparam import ArgumentError, ShapeError, ops, prob
from npreparam.prob import KL, kl, kl_monte_carlo
from npreparam.tape import Tensor, check_grads, grad
from tests.prob.cases import sigmas
from tests.tolerances import assert_within, function_bound
from tests.truth import assert_ulps, elementwise

COVARIANCE, FACTOR = np.array([[2.0, 0.5], [0.5, 1.0]]), np.array([[1.0], [0.5]])
EXAMPLES = {  # two parameter sets each; the second covers the first where supports depend on parameters
    "Normal": [(0.3, 1.2), (-0.5, 0.7)], "LogNormal": [(0.1, 0.5), (-0.2, 0.6)], "HalfNormal": [(1.3,), (0.8,)],
    "Laplace": [(0.3, 1.2), (-0.5, 0.7)], "Cauchy": [(0.3, 1.2), (-0.5, 0.7)], "Gumbel": [(0.3, 0.5), (-0.5, 0.7)],
    "Logistic": [(0.3, 1.2), (-0.5, 0.7)], "Weibull": [(1.2, 1.5), (0.8, 2.0)], "Exponential": [(1.3,), (0.8,)],
    "Uniform": [(0.2, 1.0), (0.0, 2.0)], "Gamma": [(1.5, 2.0), (2.5, 1.0)], "InverseGamma": [(5.5, 2.0), (6.5, 1.0)],
    "Beta": [(1.5, 2.0), (2.5, 1.0)], "Kumaraswamy": [(1.5, 2.0), (2.5, 1.0)], "Dirichlet": [([1.5, 2.0, 3.0],), ([2.5, 1.0, 0.7],)],
    "VonMises": [(0.3, 1.2), (-0.5, 0.7)], "Bernoulli": [(0.3,), (0.6,)], "Categorical": [([0.2, 0.3, 0.5],), ([0.1, 0.6, 0.3],)],
    "ContinuousBernoulli": [(0.3,), (0.6,)], "MultivariateNormal": [([0.0, 1.0], COVARIANCE), ([0.3, 0.2], np.eye(2))],
    "LowRankMultivariateNormal": [([0.0, 1.0], FACTOR, [1.0, 2.0]), ([0.5, 0.0], FACTOR, [2.0, 1.0])],
}
PAIRS = [pair for pair in KL if pair[0] is not prob.Independent]
SAME = [p for p, q in PAIRS if p is q]
SAMPLES = 100_000


def name_of(pair):
    return "-".join(kind.__name__ for kind in pair)


def example(kind, which):
    return kind(*EXAMPLES[kind.__name__][which])


def agrees_with_monte_carlo(value, p, q):
    estimate = kl_monte_carlo(p, q, SAMPLES, 1)
    bound = sigmas() * estimate.standard_error + function_bound(256, np.abs(estimate.terms).max(), np.float64)
    return bool(abs(value - estimate.mean) <= bound)


@pytest.mark.parametrize("pair", PAIRS, ids=name_of)
def test_equals_monte_carlo_and_is_positive(pair):
    p, q = example(pair[0], 0), example(pair[1], 1)
    value = kl(p, q)
    assert value > 0
    assert agrees_with_monte_carlo(value, p, q)


@pytest.mark.parametrize("kind", SAME, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("which", [0, 1])
def test_is_exactly_zero_for_equal_parameters(kind, which):
    assert kl(example(kind, which), example(kind, which)) == 0


numbers, positive, unit = st.floats(-3, 3), st.floats(0.05, 20), st.floats(0.01, 0.99)
STRATEGIES = {
    prob.Normal: (numbers, positive), prob.Laplace: (numbers, positive), prob.Cauchy: (numbers, positive), prob.Gumbel: (numbers, positive),
    prob.HalfNormal: (positive,), prob.Exponential: (positive,), prob.Weibull: (positive, st.floats(0.2, 5)), prob.Gamma: (positive, positive),
    prob.Beta: (positive, positive), prob.VonMises: (numbers, positive), prob.Bernoulli: (unit,), prob.ContinuousBernoulli: (unit,),
}


@pytest.mark.parametrize("kind", STRATEGIES, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_is_not_negative_and_zero_only_for_equal_parameters(kind, data):
    """KL >= 0 up to rounding, relative to the terms' size, for any parameters; and positive where they differ by a percent or more."""
    first, second = (tuple(data.draw(s) for s in STRATEGIES[kind]) for _ in range(2))
    value = float(kl(kind(*first), kind(*second)))
    size = 20 * sum(abs(v) + 1 + abs(np.log(abs(v) + 1e-9)) for v in (*first, *second)) ** 2
    assert value >= -function_bound(16, size, np.float64)
    if max(abs(a - b) / (abs(a) + abs(b) + 1e-9) for a, b in zip(first, second, strict=True)) > 0.01 and max(map(abs, (*first, *second))) < 3:
        assert value > 0


@pytest.mark.parametrize("step", [1e-12, 1e-8, 1e-4, 1e-2, 0.3])
def test_tiny_divergences_keep_their_digits(step):
    one, more = np.ones(1), np.array([1 + step])
    h = elementwise(lambda v: v - 1, more)  # as represented
    assert_ulps(kl(prob.Normal(0.0, more), prob.Normal(0.0, one)), elementwise(lambda d: d + d * d / 2 - mpmath.log1p(d), h.astype(float)), 32)
    assert_ulps(kl(prob.Exponential(one), prob.Exponential(more)), elementwise(lambda d: d - mpmath.log1p(d), h.astype(float)), 32)
    with mpmath.workdps(60):
        exact = elementwise(lambda d: mpmath.loggamma(1 + d) - d * mpmath.digamma(1), h.astype(float))
    assert_ulps(kl(prob.Gamma(one, 1.0), prob.Gamma(more, 1.0)), exact, 512)
    p = np.array([0.3])
    exact = elementwise(lambda a, b: a * mpmath.log(a / b) + (1 - a) * mpmath.log((1 - a) / (1 - b)), p, p * more)
    assert_within(kl(prob.Bernoulli(p), prob.Bernoulli(p * more)), exact.astype(float),
                  function_bound(64, exact.astype(float) + step * 2.0**-50, np.float64))


def test_the_naive_normal_form_loses_all_digits_in_float32():
    """GENERATIVE.md's example: logvar 1e-4 in float32 gives about 2.5e-9, and the naive form 0 or less."""
    sigma = np.exp(np.array([1e-4], np.float32) / 2)
    value = kl(prob.Normal(np.zeros(1, np.float32), sigma), prob.Normal(np.zeros(1, np.float32), np.float32(1.0)))
    exact = elementwise(lambda s: (s * s - 1) / 2 - mpmath.log(s), sigma)
    assert_ulps(value, exact, 16)
    naive = 0.5 * (sigma**2 - 1 - np.log(sigma**2))
    with pytest.raises(AssertionError):
        assert_ulps(naive, exact, 16)


def normal_with(formula):
    return lambda p, q: formula(p.loc - q.loc, p.scale, q.scale)


@pytest.mark.parametrize("wrong", [
    normal_with(lambda d, s, t: (s / t + (d / t) ** 2 - 1 - np.log(s / t)) / 2),  # sigma for sigma^2
    normal_with(lambda d, s, t: -((s / t) ** 2 + (d / t) ** 2 - 1 - 2 * np.log(s / t)) / 2),  # wrong sign
    normal_with(lambda d, s, t: (s / t) ** 2 + (d / t) ** 2 - 1 - 2 * np.log(s / t)),  # missing 1/2
    normal_with(lambda d, s, t: ((t / s) ** 2 + (d / s) ** 2 - 1 - 2 * np.log(t / s)) / 2),  # the other direction
    normal_with(lambda d, s, t: ((s / t) ** 2 + (d / t) ** 2 - 2 * np.log(s / t)) / 2),  # the constant forgotten
    normal_with(lambda d, s, t: ((np.exp(s) / t) ** 2 + (d / t) ** 2 - 1 - 2 * np.log(np.exp(s) / t)) / 2),  # exp taken once too often
], ids=["sigma", "sign", "half", "direction", "constant", "exp"])
def test_planted_mistakes_disagree_with_monte_carlo(wrong):
    p, q = example(prob.Normal, 0), example(prob.Normal, 1)
    assert not agrees_with_monte_carlo(wrong(p, q), p, q)


def test_gradients_at_the_standard_normal_are_mu_and_half_expm1_of_logvar():
    mu, logvar = Tensor(np.array([0.0, 1.0, -2.0])), Tensor(np.array([0.0, np.log(4.0), -1.0]))
    value = kl(prob.Normal(mu, ops.exp(ops.mul(logvar, 0.5))), prob.Normal(np.zeros(3), 1.0))
    to_mu, to_logvar = grad(ops.sum(value), [mu, logvar])
    assert_within(to_mu, mu.value, function_bound(2, mu.value, np.float64))
    exact = np.expm1(logvar.value) / 2
    assert_within(to_logvar, exact, function_bound(8, np.abs(exact), np.float64))


@pytest.mark.parametrize("kind", [kind for kind in SAME if kind not in (prob.Uniform, prob.Categorical, prob.MultivariateNormal)],
                         ids=lambda kind: kind.__name__)
def test_gradients_for_both_arguments(kind):
    first, second = (tuple(np.asarray(v) for v in EXAMPLES[kind.__name__][i]) for i in (0, 1))
    check_grads(lambda *ps: kl(kind(*ps[: len(first)]), kind(*ps[len(first):])), [*first, *second], order=1)


def test_independent_adds_dimensions_up_and_keeps_samples_apart():
    mu, sigma = np.arange(6.0).reshape(2, 3), np.full((2, 3), 0.5)
    each = kl(prob.Normal(mu, sigma), prob.Normal(0.0, 1.0))
    whole = kl(prob.Independent(prob.Normal(mu, sigma), 1), prob.Independent(prob.Normal(np.zeros((2, 3)), 1.0), 1))
    assert each.shape == (2, 3)
    assert whole.shape == (2,)
    assert (whole == each.sum(1)).all()


def test_monte_carlo_is_differentiable_and_explicit_about_noise():
    mu = Tensor(np.array([0.5, 1.0]), "mu")
    estimate = kl_monte_carlo(prob.Normal(mu, 1.0), prob.Laplace(np.zeros(2), 1.0), 1000, 3)
    assert estimate.terms.shape == (1000, 2)
    assert estimate.mean.shape == estimate.standard_error.shape == (2,)
    assert grad(ops.sum(estimate.mean), mu).shape == (2,)
    again = kl_monte_carlo(prob.Normal(mu, 1.0), prob.Laplace(np.zeros(2), 1.0), 1000, 3)
    assert (again.mean.value == estimate.mean.value).all()


def test_probability_zero():
    assert kl(prob.Bernoulli(0.0), prob.Bernoulli(0.0)) == kl(prob.Bernoulli(1.0), prob.Bernoulli(1.0)) == 0
    assert kl(prob.Bernoulli(0.5), prob.Bernoulli(0.0)) == np.inf
    assert_within(kl(prob.Bernoulli(0.0), prob.Bernoulli(0.5)), np.log(2.0), function_bound(4, 1.0, np.float64))
    assert kl(prob.Categorical([0.5, 0.5, 0.0]), prob.Categorical([0.5, 0.5, 0.0])) == 0
    assert kl(prob.Uniform(0.0, 2.0), prob.Uniform(0.0, 1.0)) == np.inf


def test_refusals():
    with pytest.raises(ArgumentError, match=r"KL\(Cauchy \|\| Normal\) has no closed form here; estimate it with kl_monte_carlo"):
        kl(prob.Cauchy(), prob.Normal())
    with pytest.raises(ShapeError, match="event shape"):
        kl(prob.Dirichlet([1.0, 2.0]), prob.Dirichlet([1.0, 2.0, 3.0]))
    with pytest.raises(ShapeError, match="3 classes"):
        kl(prob.Categorical([0.2, 0.3, 0.5]), prob.Categorical([0.5, 0.5]))
    with pytest.raises(ArgumentError, match=r"`samples` \(=1\) must be at least 2"):
        kl_monte_carlo(prob.Normal(), prob.Normal(), 1, 0)
    with pytest.raises(ArgumentError, match="support of Exponential"):
        kl_monte_carlo(prob.Normal(), prob.Exponential(), 100, 0)
