"""Every sample's gradient against a loop over samples, and what the estimators refuse."""

from functools import partial

import numpy as np
import pytest

from npreparam import ops
from npreparam._errors import ArgumentError, DTypeError, ShapeError
from npreparam.prob import (
    Bernoulli,
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
)
from npreparam.tape import Tensor, grad
from tests.tolerances import assert_within, function_bound, relative_bound


def quadratic(k):
    return lambda z: ops.square(ops.sub(z, k))


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
    for estimator in (pathwise, score_function, partial(score_function, baseline="optimal"), partial(score_function, baseline=2.5), measure_valued):
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
