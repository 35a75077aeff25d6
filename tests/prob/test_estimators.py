"""Gradient estimators: the closed-form table of variances, reproduced; unbiased everywhere; the known mistakes caught."""

import math
from fractions import Fraction

import numpy as np
import pytest

from npreparam import ArgumentError, ShapeError, UnusedInputError, ops
from npreparam.prob import Bernoulli, Laplace, Normal, estimators
from tests.prob.moments import Polynomial, assert_mean, assert_variance, maxwell, normal, rayleigh, uniform
from tests.tolerances import assert_within, relative_bound

COUNT = 200_000
POINTS = [(4, 1), (Fraction(1, 2), Fraction(3, 2)), (Fraction(1, 8), 1), (-2, Fraction(1, 2))]  # a = mu - k, sigma
K = -3.0


def objective(z):
    return ops.square(ops.sub(z, K))


def terms(a, s):
    """Each estimator of d/dmu and d/dsigma of E[(z - k)^2] as a polynomial in its noise."""
    (e,) = Polynomial.variables(normal)
    (w,) = Polynomial.variables(rayleigh)
    m, u = Polynomial.variables(maxwell, uniform)
    f, inverse = (s * e + a) * (s * e + a), Fraction(1) / s
    return {"pathwise": (2 * (s * e + a), 2 * (s * e + a) * e),
            "score": (f * e * inverse, f * (e * e - 1) * inverse),
            "baseline": ((f - a**2 - 3 * s**2) * e * inverse, (f - a**2 - 5 * s**2) * (e * e - 1) * inverse),
            "measure": (w * (4 * a / math.sqrt(2 * math.pi)), 2 * a * (m - m * u) + s * (m * m - m * m * u * u))}


def table(a, s):
    """GENERATIVE.md's table: closed forms of the variances."""
    return {"pathwise": (4 * s**2, 4 * a**2 + 8 * s**2),
            "score": (a**4 / Fraction(s**2) + 14 * a**2 + 15 * s**2, 2 * a**4 / Fraction(s**2) + 60 * a**2 + 74 * s**2),
            "baseline": (8 * a**2 + 6 * s**2, 40 * a**2 + 24 * s**2),
            "measure": (a**2 * (16 / math.pi - 4), 4 * a**2 + 4 * s**2)}


def estimate(name, a, s, rng, count=COUNT):
    given = (objective, Normal, {"loc": float(a) + K, "scale": float(s)})
    eps = rng.standard_normal(count)
    best = {"loc": float(a**2 + 3 * s**2), "scale": float(a**2 + 5 * s**2)}
    return {"pathwise": lambda: estimators.pathwise(*given, eps), "score": lambda: estimators.score_function(*given, eps),
            "baseline": lambda: estimators.score_function(*given, eps, best),
            "measure": lambda: estimators.measure_valued(*given, estimators.measure_noise((count,), rng))}[name]()


@pytest.mark.parametrize(("a", "s"), POINTS)
def test_the_table_of_variances_is_an_identity(a, s):
    """In rational arithmetic, from the moments of the noise; with 16/pi in floats."""
    for name, pair in terms(a, s).items():
        for polynomial, variance, mean in zip(pair, table(a, s)[name], (2 * a, 2 * s), strict=True):
            if name == "measure":
                assert_within(float(polynomial.mean()), float(mean), relative_bound(64, float(abs(mean)), np.float64))
                assert_within(float(polynomial.central(2)), float(variance), relative_bound(64, float(16 * a**2), np.float64))
            else:
                assert polynomial.mean() == mean
                assert polynomial.central(2) == variance


@pytest.mark.parametrize("name", ["pathwise", "score", "baseline", "measure"])
@pytest.mark.parametrize(("a", "s"), POINTS)
def test_simulated_means_and_variances(name, a, s):
    """Means are unbiased and variances as in the table, within bounds from the second and fourth moments."""
    found = estimate(name, a, s, np.random.default_rng([7, POINTS.index((a, s))]))
    for parameter, polynomial, mean, variance in zip(("loc", "scale"), terms(a, s)[name], (2 * a, 2 * s), table(a, s)[name], strict=True):
        assert found[parameter].shape == (COUNT,)
        assert_mean(found[parameter], mean, variance)
        assert_variance(found[parameter], mean, variance, polynomial.central(4))


@pytest.mark.parametrize("fault", ["score without its sign", "pathwise with eps doubled", "measure with a normal for the Maxwell",
                                   "variance of another row"])
def test_planted_faults_are_caught(fault):
    a, s, rng = 4, 1, np.random.default_rng(3)
    name = fault.split()[0] if fault.split()[0] != "variance" else "pathwise"
    mean, variance, fourth = 2 * s, table(a, s)[name][1], terms(a, s)[name][1].central(4)
    g = estimate(name, a, s, rng)["scale"]
    if fault == "score without its sign":
        g = -g
    elif fault == "pathwise with eps doubled":
        g = 2 * g
    elif fault.startswith("measure"):
        noise = estimators.measure_noise((COUNT,), rng)
        g = estimators.measure_valued(objective, Normal, {"loc": a + K, "scale": float(s)}, noise._replace(maxwell=noise.normal))["scale"]
    else:
        variance, fourth = table(a, s)["score"][1], terms(a, s)["score"][1].central(4)

    def check():
        assert_mean(g, mean, variance)
        assert_variance(g, mean, variance, fourth)

    with pytest.raises(AssertionError, match="permitted error"):
        check()


def test_pathwise_gradients_are_the_closed_form_for_every_sample():
    eps = np.random.default_rng(0).standard_normal((50, 3))
    loc, scale = np.array([1.0, -2.0, 0.5]), np.array([1.0, 0.5, 2.0])
    found = estimators.pathwise(lambda z: ops.sum(objective(z), axis=1), Normal, {"loc": loc, "scale": scale}, eps)
    z = loc + scale * eps
    size = 2 * (np.abs(loc) + np.abs(scale * eps) + 3)
    assert_within(found["loc"], 2 * (z - K), relative_bound(6, size, np.float64))
    assert_within(found["scale"], 2 * (z - K) * eps, relative_bound(7, size * np.abs(eps), np.float64))


def test_another_family_and_another_dtype():
    eps = np.random.default_rng(0).random(20).astype(np.float32)
    found = estimators.pathwise(lambda z: z, Laplace, {"loc": 0.0, "scale": 2.0}, eps)
    assert found["loc"].dtype == np.float32
    assert (found["loc"] == 1).all()


def test_leave_one_out_is_the_formula_and_unbiased():
    """g_i = (f_i - mean of the others)*s_i; with 2 samples, pairs are independent, so that the mean over pairs is one over independent numbers."""
    given = (objective, Normal, {"loc": 1.0, "scale": 1.0})
    eps = np.random.default_rng(0).standard_normal(5)
    f = (1 + eps - K) ** 2
    expected = np.array([(f[i] - np.delete(f, i).mean()) * eps[i] for i in range(5)])
    found = estimators.score_function(*given, eps, "leave_one_out")["loc"]
    assert_within(found, expected, relative_bound(32, np.abs(eps) * f.sum(), np.float64))
    x, y = Polynomial.variables(normal, normal)
    difference = (x + 4) * (x + 4) - (y + 4) * (y + 4)
    pair = difference * (x - y) * Fraction(1, 2)  # the mean of the two gradients
    assert pair.mean() == 8
    e = np.random.default_rng(1).standard_normal((COUNT, 2))
    f = (4 + e) ** 2
    assert_mean((f[:, 0] - f[:, 1]) * (e[:, 0] - e[:, 1]) / 2, 8, pair.central(2))


def test_the_optimal_baseline_is_estimated():
    """b = E[f s^2]/E[s^2]: a^2 + 3 s^2 for mu. The numerator's and denominator's errors are bounded by their variances."""
    (e,) = Polynomial.variables(normal)
    eps = np.random.default_rng(0).standard_normal(COUNT)
    found = estimators.optimal_baseline(objective, Normal, {"loc": 1.0, "scale": 1.0}, eps)
    influence = ((e + 4) * (e + 4) - 19) * e * e  # its mean is 0 exactly where b = 19 is the optimum
    assert influence.mean() == 0
    assert_mean(((4 + eps) ** 2 - found["loc"]) * eps**2, 0, influence.central(2) * 4)


def test_a_plain_sample_raises_and_names_the_parameters():
    with pytest.raises(UnusedInputError, match=r"`loc`.*`scale`"):
        estimators.plain_sample(objective, Normal, {"loc": 1.0, "scale": 1.0}, np.zeros(3))


def test_measure_valued_in_several_dimensions_and_its_family():
    """E of z_0*z_1 is mu_0*mu_1: the gradient of mu_0 is mu_1."""
    def product(z):
        return ops.mul(z[:, 0], z[:, 1])

    count, rng = 100_000, np.random.default_rng(0)
    loc = np.array([1.0, -2.0])
    found = estimators.measure_valued(product, Normal, {"loc": loc, "scale": np.ones(2)}, estimators.measure_noise((count, 2), rng))
    # d/dmu_0 = 2 W z_1/sqrt(2 pi), W^2 with mean 2: second moment 4*2*(mu_1^2 + 1)/(2 pi)
    for i, other in ((0, loc[1]), (1, loc[0])):
        assert_mean(found["loc"][:, i], other, 8 * (other**2 + 1) / (2 * math.pi) - other**2)
    with pytest.raises(ArgumentError, match=r"`family` .*'Laplace'.* must be Normal"):
        estimators.measure_valued(product, Laplace, {"loc": loc, "scale": 1.0}, estimators.measure_noise((3, 2), rng))


def test_straight_through_is_exact_for_linear_and_biased_for_other_objectives():
    eps = np.random.default_rng(0).random(1000)
    found = estimators.straight_through(lambda z: ops.mul(z, 3.0), Bernoulli, {"probs": 0.3}, eps)
    assert (found["probs"] == 3).all()
    square = estimators.straight_through(lambda z: ops.square(z), Bernoulli, {"probs": 0.3}, eps)["probs"]
    assert set(square.tolist()) == {0.0, 2.0}  # the truth is 1: E[z^2] = p


def log_joint(z):
    """log of N(0.3, 0.5^2), elementwise: the posterior of these tests."""
    return ops.normal_log_prob(z, np.array(0.3), np.array(0.5))


def test_sticking_the_landing_is_zero_at_the_optimum_and_the_total_derivative_is_not():
    eps = np.random.default_rng(0).standard_normal(500)
    optimum = {"loc": 0.3, "scale": 0.5}
    stuck, total = (f(log_joint, Normal, optimum, eps) for f in (estimators.sticking_the_landing, estimators.elbo))
    for name in ("loc", "scale"):
        assert not stuck[name].any()
    assert total["scale"].var() > 0
    both = [f(log_joint, Normal, {"loc": 1.0, "scale": 1.0}, eps) for f in (estimators.sticking_the_landing, estimators.elbo)]
    score = {"loc": eps, "scale": eps**2 - 1}
    for name in ("loc", "scale"):  # they differ by the score of q
        assert_within(both[0][name] - both[1][name], score[name], relative_bound(64, 30 * (1 + eps**2), np.float64))


@pytest.mark.parametrize(("parameters", "better"), [({"loc": 0.33, "scale": 0.52}, True), ({"loc": 2.5, "scale": 0.2}, False),
                                                    ({"loc": 0.3, "scale": 0.5}, True)])
def test_dreg_has_the_same_mean_as_iwae_and_less_variance_near_the_optimum(parameters, better):
    eps = np.random.default_rng(5).standard_normal((5, 40_000))
    plain, double = (f(log_joint, Normal, parameters, eps) for f in (estimators.iwae, estimators.dreg))
    for name in ("loc", "scale"):
        difference = plain[name] - double[name]
        assert_mean(difference, 0, 2 * difference.var() + 1e-300)  # the variance is not known: twice the sample's
        if better:
            assert double[name].var() < plain[name].var() / 10


def test_dreg_is_worse_far_from_the_optimum():
    eps = np.random.default_rng(5).standard_normal((5, 20_000))
    plain, double = (f(log_joint, Normal, {"loc": 2.5, "scale": 0.2}, eps) for f in (estimators.iwae, estimators.dreg))
    for name in ("loc", "scale"):
        assert double[name].var() > 4 * plain[name].var()


def test_iwae_of_one_sample_is_the_elbo():
    eps = np.random.default_rng(0).standard_normal((1, 20))
    given = (log_joint, Normal, {"loc": 1.0, "scale": 2.0})
    one, elbo = estimators.iwae(*given, eps), estimators.elbo(*given, eps[0])
    for name in ("loc", "scale"):
        assert_within(one[name], elbo[name], relative_bound(64, 100 * (1 + eps[0] ** 2), np.float64))


def test_local_reparameterization_has_the_law_of_shared_weights_and_independent_rows():
    """y = sum over inputs of x*w: mean x.loc and variance x^2.scale^2 both ways; d y/d loc = x for every row."""
    x = np.array([[1.0, -2.0, 0.5]])
    loc, scale = np.array([[0.3, -1.0, 2.0]]), np.array([[0.5, 1.0, 0.25]])
    eps = np.random.default_rng(0).standard_normal((COUNT, 1))
    y = estimators.local_linear(np.repeat(x, COUNT, 0), loc, scale, eps)[:, 0]
    mean, variance = float((x @ loc.T)[0, 0]), float((x**2 @ scale.T**2)[0, 0])
    assert_mean(y, mean, variance)
    assert_variance(y, mean, variance, 3 * variance**2)
    rows = np.repeat(x, 4, 0)
    local = estimators.local_reparameterization(lambda y: y[:, 0], rows, {"loc": loc, "scale": scale}, eps[:4])
    shared = estimators.shared_weights(lambda y: y[:, 0], rows, {"loc": loc, "scale": scale}, np.array([[1.0, 2.0, -1.0]]))
    for found in (local, shared):
        assert found["loc"].shape == (4, 1, 3)
        assert (found["loc"] == rows[:, None]).all()
    assert (shared["scale"] == shared["scale"][0]).all()  # the same noise in every row
    assert not (local["scale"] == local["scale"][0]).all()


NORMAL = {"loc": 0.0, "scale": 1.0}
MATRIX = {"loc": np.ones((1, 2)), "scale": np.ones((1, 2))}
BAD = {
    "no samples": (lambda: estimators.pathwise(objective, Normal, NORMAL, np.zeros(0)), ShapeError, "at least one sample"),
    "a scalar objective": (lambda: estimators.pathwise(lambda z: ops.sum(z), Normal, NORMAL, np.zeros(3)), ShapeError,
                           r"`objective` returned shape \(\), but must return \(3,\)"),
    "an unknown baseline": (lambda: estimators.score_function(objective, Normal, NORMAL, np.zeros(3), "best"), ArgumentError, r"`baseline` .*'best'"),
    "one left out of one": (lambda: estimators.score_function(objective, Normal, NORMAL, np.zeros(1), "leave_one_out"), ArgumentError, "1 samples"),
    "a negative scale": (lambda: estimators.pathwise(objective, Normal, NORMAL | {"scale": -1.0}, np.zeros(3)), ArgumentError, r"`scale` \(=-1"),
    "weight noise of another shape": (lambda: estimators.shared_weights(lambda y: y[:, 0], np.ones((1, 2)), MATRIX, np.ones(2)), ShapeError,
                                      "one number for each weight"),
}


@pytest.mark.parametrize("row", BAD)
def test_bad_arguments(row):
    call, kind, message = BAD[row]
    with pytest.raises(kind, match=message):
        call()
