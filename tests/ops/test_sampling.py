"""The generative re-parameterization and the normal distribution's closed forms."""

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from npreparam import DTypeError, ShapeError, UnusedInputError, ops
from npreparam.ops.sampling import exp_remainder
from npreparam.tape import Tensor, grad
from tests.tolerances import assert_same_bits, assert_within, function_bound
from tests.truth import POINTS, assert_ulps, elementwise

DTYPES = [np.float32, np.float64]
numbers = st.floats(-1000, 1000, width=32)


@given(hnp.arrays(np.float32, (3, 5), elements=numbers), hnp.arrays(np.float32, 5, elements=numbers), st.sampled_from(DTYPES))
def test_rsample_is_mu_plus_sigma_eps_with_two_roundings(rows, g, dtype):
    """The value by float64 products, exact for float32; dz/dmu = 1, dz/dsigma = eps and dz/deps = sigma times a cotangent, with ==."""
    mu, sigma, eps = (Tensor(v, name) for v, name in zip(rows.astype(dtype), ("mu", "sigma", "eps"), strict=True))
    z = ops.normal_rsample(mu, sigma, eps)
    product = (sigma.value.astype(np.float64) * eps.value.astype(np.float64)).astype(dtype)
    assert_same_bits(z.value, mu.value + product)
    g = g.astype(dtype)
    to_mu, to_sigma, to_eps = grad(z, [mu, sigma, eps], g)
    assert_same_bits(to_mu, g)
    assert_same_bits(to_sigma, g * eps.value)
    assert_same_bits(to_eps, g * sigma.value)


def test_gradients_of_shared_parameters_are_sums_over_the_samples():
    """mu (3,) and sigma (4, 1) for samples (4, 3): dz/dmu sums the cotangent over rows, dz/dsigma g*eps over columns."""
    rng = np.random.default_rng(0)
    eps, g = rng.integers(-9, 10, (2, 4, 3)).astype(float)
    mu, sigma = Tensor(np.arange(3.0)), Tensor(np.arange(4.0)[:, None])
    z = ops.normal_rsample(mu, sigma, eps)
    assert (z.value == np.arange(3.0) + np.arange(4.0)[:, None] * eps).all()
    to_mu, to_sigma = grad(z, [mu, sigma], g)
    assert (to_mu == g.sum(0)).all()
    assert (to_sigma == (g * eps).sum(1, keepdims=True)).all()


def test_a_plain_sample_has_no_gradient_and_both_parameters_are_named():
    mu, sigma = Tensor(np.zeros(5), name="mu"), Tensor(np.ones(5), name="sigma")
    plain = Tensor(np.random.default_rng(0).normal(mu.value, sigma.value))
    for inputs, name in (([mu, sigma], "mu"), ([sigma, mu], "sigma")):
        with pytest.raises(UnusedInputError, match=f"does not depend on `{name}`"):
            grad(ops.sum(ops.square(plain)), inputs)


def test_eps_is_explicit_so_the_same_noise_gives_the_same_bits():
    mu, sigma = np.ones((2, 3), np.float32), np.full((2, 3), 0.5, np.float32)
    eps = np.random.default_rng(3).standard_normal((2, 3), np.float32)
    assert_same_bits(ops.normal_rsample(mu, sigma, eps), ops.normal_rsample(mu.copy(), sigma.copy(), eps.copy()))


@pytest.mark.parametrize("dtype", DTYPES)
def test_exp_remainder_is_true_to_a_few_ulps(dtype):
    """At |x| >= 1/2, expm1's error of 1 ulp and the difference's 1/2, magnified by |expm1(x)| / (exp(x) - 1 - x) < 4.5: 5 ulps."""
    x = np.concatenate([POINTS, np.linspace(-2, 2, 401)]).astype(dtype)
    x = x[(np.abs(x) > 1e-18) | (x == 0)]  # x^2 is a normal float32
    assert_ulps(exp_remainder(x), elementwise(lambda x: mpmath.expm1(x) - x, x), 5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gaussian_kl_is_true_to_a_few_ulps_and_never_negative(dtype):
    """Both terms are non-negative: 5 of the one, 1/2 of the other, 1/2 of the sum."""
    logvar = np.concatenate([10.0 ** np.arange(-15, 2), -(10.0 ** np.arange(-15, 2)), [0.0]]).astype(dtype)
    for value in (0.0, 1e-6, -3.0):
        mu = np.full(logvar.shape, value, dtype)
        kl = ops.gaussian_kl(mu, logvar)
        assert (kl >= 0).all()
        assert_ulps(kl, elementwise(lambda m, v: (mpmath.expm1(v) - v + m * m) / 2, mu, logvar), 6)


def test_the_kl_by_expm1_alone_loses_its_digits_near_0():
    logvar = np.array([1e-4], np.float32)
    with pytest.raises(AssertionError, match="permitted error"):
        assert_ulps((np.expm1(logvar) - logvar) / 2, elementwise(lambda v: (mpmath.expm1(v) - v) / 2, logvar), 6)


def test_gaussian_kl_is_zero_at_the_prior_with_gradients_mu_and_half_expm1_logvar():
    assert (ops.gaussian_kl(np.zeros(3), np.zeros(3)) == 0).all()
    mu, logvar = Tensor(np.array([0.0, 1.0, -2.0])), Tensor(np.array([0.0, math.log(4), -1.0]))
    to_mu, to_logvar = grad(ops.sum(ops.gaussian_kl(mu, logvar)), [mu, logvar])
    assert (to_mu == mu.value).all()
    assert (to_logvar == np.expm1(logvar.value) / 2).all()


def test_gaussian_kl_is_the_integral_of_its_definition():
    """The integral of p*(log p - log q) by the trapezoidal rule with step h = sigma/8 over 12 sigma.

    For an entire integrand the rule converges like exp(-2*pi^2*sigma^2/h^2), and the tails beyond 12 sigma weigh exp(-72): rounding is
    left, which stays below 8 ulps of the terms' magnitude.
    """
    mu, logvar = 0.7, -0.9
    sigma = math.exp(logvar / 2)
    x = mu + sigma * np.arange(-96, 97) / 8
    p, q = ops.normal_log_prob(x, np.array(mu), np.array(sigma)), ops.normal_log_prob(x, np.array(0.0), np.array(1.0))
    terms = np.exp(p) * (p - q) * sigma / 8
    size = np.sum(np.exp(p) * (np.abs(p) + np.abs(q)) * (1 + np.abs(p))) * sigma / 8
    assert_within(np.array(math.fsum(terms)), ops.gaussian_kl(np.array(mu), np.array(logvar)), function_bound(8, size, np.float64))


def test_log_prob_is_true_to_a_few_ulps_of_its_terms():
    x, mu, sigma = np.array([0.0, 3.0, -50.0, 1e-3]), np.array([0.0, 1.0, 50.0, 1.0]), np.array([1.0, 0.25, 20.0, 1e-3])
    exact = elementwise(lambda x, m, s: -(((x - m) / s) ** 2) / 2 - mpmath.log(s) - mpmath.log(2 * mpmath.pi) / 2, x, mu, sigma)
    terms = ((x - mu) / sigma) ** 2 / 2 + np.abs(np.log(sigma)) + 1
    assert_ulps(ops.normal_log_prob(x, mu, sigma), exact, 4, floor=terms)


def test_the_score_of_log_prob():
    """d/dmu = (x - mu)/sigma^2, d/dsigma = ((x - mu)^2/sigma^2 - 1)/sigma, d/dx = -d/dmu: exact for powers of two."""
    x, mu, sigma = (Tensor(np.array(v)) for v in ([3.0, -1.0], [1.0, 0.0], [2.0, 0.5]))
    to_x, to_mu, to_sigma = grad(ops.sum(ops.normal_log_prob(x, mu, sigma)), [x, mu, sigma])
    assert (to_mu == [0.5, -4.0]).all()
    assert (to_x == [-0.5, 4.0]).all()
    assert (to_sigma == [0.0, 6.0]).all()


def test_special_values_propagate():
    assert np.isnan(ops.normal_log_prob(np.zeros(1), np.zeros(1), -np.ones(1))).all()
    assert (ops.normal_rsample(np.zeros(1), np.ones(1), np.array([np.inf])) == np.inf).all()
    assert np.isnan(ops.gaussian_kl(np.array([np.nan]), np.zeros(1))).all()
    assert (ops.gaussian_kl(np.zeros(3), np.array([1000, np.inf, -np.inf])) == np.inf).all()


def test_empty_batches():
    empty = np.zeros((0, 2), np.float32)
    for y in (ops.normal_rsample(empty, empty, empty), ops.gaussian_kl(empty, empty), ops.normal_log_prob(empty, empty, empty)):
        assert y.shape == (0, 2)
        assert y.dtype == np.float32


X = np.ones((2, 3))


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda: ops.normal_rsample(X, X, X[0]), ShapeError, r"`eps` has shape \(3,\), but must have shape \(2, 3\): .*one number for each"),
    (lambda: ops.normal_rsample(X[0], X[0], X), ShapeError, r"`eps` has shape \(2, 3\), but must have shape \(3,\)"),
    (lambda: ops.normal_rsample(X, X[:, :2], X), ShapeError, r"`mu` \(2, 3\) and `sigma` \(2, 2\) do not broadcast together"),
    (lambda: ops.normal_rsample(X, X, X.astype(np.float32)), DTypeError, "`eps` float32"),
    (lambda: ops.normal_rsample(Tensor(X), X.astype(np.float32), X), DTypeError, "`sigma` float32"),
    (lambda: ops.gaussian_kl(X, X[:, :2]), ShapeError, "do not broadcast"),
    (lambda: ops.gaussian_kl(X, X.astype(np.float32)), DTypeError, "same dtype"),
    (lambda: ops.gaussian_kl(X, [0.0]), DTypeError, r"\(a list\)"),
    (lambda: ops.normal_log_prob(X, X, X.astype(int)), DTypeError, "has dtype int64"),
])
def test_bad_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()
