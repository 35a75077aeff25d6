"""Gaussian terms and the evidence lower bound, correctly rounded: by certificate, by hand, and beside the public operations."""

from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npreparam import ArgumentError, DTypeError, ShapeError, exact, ops
from tests.exact.certificate import certify, real, softplus
from tests.tolerances import assert_same_bits, assert_within, function_bound, relative_bound

kinds = st.sampled_from([np.float16, np.float32, np.float64])
numbers = st.floats(-1e6, 1e6, width=32)
widths = st.floats(2.0**-20, 2.0**20, width=32)


def log_density(x, mu, sigma):
    return -(((x - mu) / sigma) ** 2) / 2 - mpmath.log(2 * mpmath.pi * sigma**2) / 2


def divergence(mu, logvar):
    return (mu**2 + mpmath.exp(logvar) - 1 - logvar) / 2


@given(numbers, numbers, numbers, kinds)
def test_sample_lies_between_its_halfway_points(mu, sigma, eps, kind):
    got = exact.normal_rsample(*(np.array([v]) for v in (mu, sigma, eps)), out_dtype=kind)
    want = Fraction(mu) + Fraction(sigma) * Fraction(eps)
    assert exact.normal_rsample(*(np.array([v]) for v in (mu, sigma, eps)), out_dtype=None)[0] == want
    if want:
        certify(got[0], real(lambda: mpmath.mpf(want.numerator) / want.denominator))


def test_a_sample_is_rounded_once():
    """1 + 2^-24*(1 + 2^-24): the product is exact, the sum just above a tie; in float32 operations it would be the tie."""
    args = np.array([1.0]), np.array([2.0**-24]), np.array([1 + 2.0**-24])
    assert exact.normal_rsample(*args, out_dtype=np.float32) == 1 + 2.0**-23
    args = tuple(np.array([v], np.float32) for v in (-1.0, 1 + 2.0**-13, 1 - 2.0**-13))
    assert exact.normal_rsample(*args) == -(2.0**-26)
    assert ops.normal_rsample(*args) == 0  # the product was rounded to 1


@given(numbers, numbers, widths, kinds)
def test_certificate_of_the_log_density(x, mu, sigma, kind):
    y = exact.normal_log_prob(*(np.array([v]) for v in (x, mu, sigma)), out_dtype=kind)[0]
    certify(y, real(log_density, x, mu, sigma))


@given(st.floats(-1e3, 1e3), st.floats(-1100, 1100), st.integers(-60, 0), kinds)
def test_certificate_of_the_divergence(mu, logvar, scale, kind):
    mu, logvar = mu * 2.0**scale, logvar * 2.0**scale
    y = exact.gaussian_kl(np.array([mu]), np.array([logvar]), out_dtype=kind)[0]
    assert np.signbit(y) == 0
    if logvar:
        certify(y, real(divergence, mu, logvar))


def test_by_hand():
    zero, one = np.zeros(1), np.ones(1)
    assert_same_bits(exact.gaussian_kl(np.array([3.0]), zero), np.array([4.5]))  # rational: logvar = 0
    assert_same_bits(exact.gaussian_kl(zero, zero), zero)
    certify(exact.normal_log_prob(zero, zero, one)[0], real(lambda: -mpmath.log(2 * mpmath.pi) / 2))
    certify(exact.gaussian_kl(zero, one)[0], real(lambda: mpmath.e / 2 - 1))
    assert_same_bits(exact.bernoulli_log_prob(one, zero), -exact.log(np.array([2.0])))


def test_ties_of_the_divergence():
    """47^2/2 = 1104.5 is halfway between two float16; with logvar = 0 it is a tie, and the least other variance breaks it."""
    mu = np.full(3, 47.0)
    assert exact.gaussian_kl(mu, np.array([0.0, 1e-100, -1e-100]), out_dtype=np.float16).tolist() == [1104, 1105, 1105]


def test_small_and_extreme_variances():
    """Near 0 the value is logvar^2/2, down to underflow; large ones overflow, and log(0) of the variance is never formed."""
    logvar = np.array([1e-8, -1e-8, 1e-150, 5e-324, -5e-324, 709.9, 712.0, 1e300, -1e300])
    y = exact.gaussian_kl(np.zeros(9), logvar)
    for value, got in zip(logvar[:7], y[:7], strict=True):
        certify(got, real(divergence, 0, value))
    assert y[3:].tolist() == [0, 0, y[5], np.inf, np.inf, 5e299]
    assert np.isfinite(y[5])
    assert not np.signbit(y).any()


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.25, 1.0]), st.floats(-50, 50)), min_size=1, max_size=5),
       st.lists(st.tuples(st.floats(-4, 4), st.floats(-4, 4)), max_size=3), kinds)
def test_certificate_of_the_evidence_lower_bound(pixels, latents, kind):
    x, logits = (np.array(column).reshape(1, -1) for column in zip(*pixels, strict=True))
    mu, logvar = np.array(latents).reshape(-1, 2).T.reshape(2, 1, -1)
    want = real(lambda *v: mpmath.fsum(v[i] * v[i + 1] - softplus(v[i + 1]) for i in range(0, 2 * len(pixels), 2))
                - mpmath.fsum(divergence(v[i], v[i + 1]) for i in range(2 * len(pixels), len(v), 2)),
                *(v for pair in pixels for v in pair), *(v for pair in latents for v in pair))
    certify(exact.elbo(x, logits, mu, logvar, out_dtype=kind)[0], want)


def test_the_evidence_lower_bound_is_that_of_the_model():
    """As npreparam.models.VAE composes it of public operations, for several samples."""
    rng = np.random.default_rng(0)
    x, logits, (mu, logvar) = rng.random((3, 20)), 3 * rng.standard_normal((3, 20)), rng.standard_normal((2, 3, 4))
    terms = ops.bce_with_logits(logits, x).sum(1), ops.gaussian_kl(mu, logvar).sum(1)
    # sums of 20 and 4 positive terms of 8 ulp (16 roundings) each, and their sum
    assert_within(-terms[0] - terms[1], exact.elbo(x, logits, mu, logvar), relative_bound(16 + 20 + 1, terms[0] + terms[1], np.float64))


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_ops_agree(kind):
    rng = np.random.default_rng(1)
    x, mu, logvar = rng.standard_normal((3, 200)).astype(kind)
    sigma = (rng.random(200) + 0.1).astype(kind)
    y = exact.normal_log_prob(x, mu, sigma)
    size = ((x - mu) / sigma).astype(np.float64) ** 2 / 2 + np.abs(np.log(sigma.astype(np.float64))) + ops.sampling.HALF_LOG_TWO_PI
    assert_within(ops.normal_log_prob(x, mu, sigma), y, function_bound(8, size, kind))
    y = exact.gaussian_kl(mu, logvar)
    assert_within(ops.gaussian_kl(mu, logvar), y, function_bound(8, y, kind))
    y = exact.normal_rsample(mu, sigma, x)
    assert_within(ops.normal_rsample(mu, sigma, x), y, relative_bound(2, np.abs(mu) + np.abs(sigma * x), kind))


def test_a_planted_mistake_is_caught():
    """sigma for sigma^2, variance for its logarithm, 1 - logvar for -1 - logvar: none passes the certificate."""
    x, mu, sigma = np.array([0.3]), np.array([0.1]), np.array([0.8])
    y = exact.normal_log_prob(x, mu, sigma)[0]
    for wrong in (lambda x, m, s: log_density(x, m, mpmath.sqrt(s)), lambda x, m, s: log_density(x, m, s) + mpmath.log(s)):
        with pytest.raises(AssertionError):
            certify(y, real(wrong, 0.3, 0.1, 0.8))
    with pytest.raises(AssertionError):
        certify(exact.gaussian_kl(mu, sigma)[0], real(lambda m, v: divergence(m, mpmath.log(v)), 0.1, 0.8))
    for step in (-np.inf, np.inf):
        with pytest.raises(AssertionError):
            certify(np.nextafter(y, step), real(log_density, 0.3, 0.1, 0.8))


def test_broadcasting_and_shapes():
    mu, sigma = np.zeros((3, 1), np.float32), np.ones(4, np.float32)
    assert exact.normal_rsample(mu, sigma, np.ones((3, 4), np.float32)).shape == (3, 4)
    assert exact.normal_rsample(np.float32(1), np.float32(1), np.float32(1)) == 2
    assert exact.normal_log_prob(np.float32(1), mu, sigma).shape == (3, 4)
    assert exact.gaussian_kl(mu, np.zeros(0, np.float32)).shape == (3, 0)
    assert exact.elbo(*np.zeros((4, 0, 5))).shape == (0,)


def test_bad_input():
    one = np.ones(2)
    with pytest.raises(ShapeError, match=r"`mu` \(2,\), `sigma` \(3,\) do not broadcast"):
        exact.normal_rsample(one, np.ones(3), one)
    with pytest.raises(ShapeError, match=r"`eps` has shape \(1,\)"):
        exact.normal_rsample(one, one, one[:1])
    with pytest.raises(ArgumentError, match=r"`sigma` \(=0.0\) must be positive"):
        exact.normal_log_prob(one, one, one * 0)
    with pytest.raises(ArgumentError, match="`logvar` holds NaN or infinity"):
        exact.gaussian_kl(one, one * np.inf)
    with pytest.raises(ShapeError, match=r"`logits` has shape \(1, 3\)"):
        exact.elbo(np.ones((1, 2)), np.ones((1, 3)), np.ones((1, 2)), np.ones((1, 2)))
    with pytest.raises(ShapeError, match="must be"):
        exact.elbo(np.ones((1, 2)), np.ones((1, 2)), np.ones((2, 2)), np.ones((2, 2)))
    with pytest.raises(ShapeError, match=r"`logits` has shape \(1,\)"):
        exact.bernoulli_log_prob(one, one[:1])
    with pytest.raises(DTypeError, match="None"):
        exact.gaussian_kl(one, one, out_dtype=None)
