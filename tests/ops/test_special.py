"""Special functions against mpmath, in ulps."""

import mpmath
import numpy as np
import pytest

from npreparam.ops.continuous_bernoulli import continuous_bernoulli_cumulant
from npreparam.ops.incomplete_beta import log_beta
from npreparam.ops.special import i1_i0, lgamma, lgamma_remainder, log1p_remainder, log_i0, ndtr, ndtri, polygamma
from npreparam.ops.xlogy import log_ratio, xdivy, xlog1py, xlogy
from tests.tolerances import assert_within, function_bound
from tests.truth import assert_ulps, elementwise

POSITIVE = np.concatenate([10.0 ** np.arange(-3, 7), [0.4, 0.5, 1.3, 1.4616321449683622, 1.9, 11.9, 12.1, 700.0]])


def test_lgamma():
    assert_ulps(lgamma(POSITIVE), elementwise(mpmath.loggamma, POSITIVE), 4, floor=0.125)


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_polygamma(order):
    assert_ulps(polygamma(order, POSITIVE), elementwise(lambda x: mpmath.polygamma(order, x), POSITIVE), 4 + order, floor=1.0 if order == 0 else 0.0)


def test_functions_outside_their_domain_are_nan():
    assert np.isnan(polygamma(0, np.array([0.0, -1.0]))).all()
    assert np.isnan(log_i0(np.array([-1.0])))
    assert lgamma(np.array([0.0])) == np.inf


def test_normal_tails_keep_their_digits():
    """The error of erfc's argument, rounded once, is magnified by x^2."""
    x = np.array([-37.0, -10.0, -1.0, 0.0, 0.5, 6.0])
    expected = elementwise(mpmath.ncdf, x)
    assert_within(ndtr(x), expected.astype(float), function_bound(4 + x**2, expected.astype(float), np.float64))


def test_normal_quantile():
    u = np.array([1e-300, 1e-12, 0.02425, 0.2, 0.5, 0.7, 1 - 2.0**-53])
    with mpmath.workdps(50):
        back = elementwise(mpmath.ncdf, ndtri(u))
        tail = np.minimum(u, 1 - u)
        error = np.array([float(abs(b - mpmath.mpf(float(v)))) for b, v in zip(back, u, strict=True)])
    assert_within(error, np.zeros_like(error), function_bound(4 + 2 * ndtri(u) ** 2, tail, np.float64))


@pytest.mark.parametrize("k", [1e-9, 1e-3, 0.1, 1.0, 5.0, 40.0, 1e3, 1e6])
def test_bessel_ratio(k):
    """1 - I1/I0 is a quotient of sums of 96 positive terms, and the error of exp is magnified by its argument, up to 40."""
    x = np.array([k])
    assert_ulps(i1_i0(x), elementwise(lambda v: mpmath.besseli(1, v) / mpmath.besseli(0, v), x), 128, floor=1.0)
    assert_ulps(log_i0(x), elementwise(lambda v: mpmath.log(mpmath.besseli(0, v)), x), 128, floor=1.0)


def test_remainder_of_log1p():
    x = np.concatenate([-(10.0 ** -np.arange(1, 17)), 10.0 ** -np.arange(1, 17), [-0.9, -0.5, 0.4999, 0.5001, 30.0]])
    assert_ulps(log1p_remainder(x), elementwise(lambda v: v - mpmath.log1p(v), x), 12)


def test_remainder_of_lgamma_near_and_far():
    """Beyond |h| = a/16 two lgammas and h*psi cancel, whose magnitudes are the floor of the error."""
    a = np.repeat([1e-3, 1.0, 7.0, 1e4], 6)
    h = np.tile([1e-12, 1e-6, -1e-3, 0.06, 0.07, 3.0], 4) * a
    exact = elementwise(lambda x, y: mpmath.loggamma(x + y) - mpmath.loggamma(x) - y * mpmath.digamma(x), a, h)
    near = np.abs(h) < a / 16
    assert_ulps(lgamma_remainder(a, h)[near], exact[near], 16)
    size = np.abs(lgamma(a + h)) + np.abs(lgamma(a)) + np.abs(h * polygamma(0, a)) + a
    assert_ulps(lgamma_remainder(a, h)[~near], exact[~near], 8, floor=size[~near])
    assert (lgamma_remainder(a, np.zeros_like(a)) == 0).all()


def test_log_beta():
    a, b = (v.ravel() for v in np.meshgrid([1e-3, 0.5, 3.0, 50.0, 1e6], [1e-3, 0.5, 3.0, 50.0, 1e6]))
    assert_ulps(log_beta(a, b), elementwise(lambda x, y: mpmath.loggamma(x) + mpmath.loggamma(y) - mpmath.loggamma(x + y), a, b), 64, floor=1.0)


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_continuous_bernoulli_cumulants(order):
    """Derivatives of log((exp(l) - 1)/l), beside the point where series and closed form meet, and far out; 2/l^3 - ... cancels up to 2^7 near 1."""
    x = np.array([-700.0, -30.0, -1.001, -0.999, -1e-5, 1e-3, 0.999, 1.001, 4.0, 700.0])
    with mpmath.workdps(60):
        exact = elementwise(lambda v: mpmath.diff(lambda t: mpmath.log((mpmath.exp(t) - 1) / t), v, order), x)
    assert_ulps(continuous_bernoulli_cumulant(order, x), exact, 2 ** (2 * order + 3))
    assert continuous_bernoulli_cumulant(order, np.zeros(1)) == [0.0, 0.5, 1 / 12, 0.0][order]


def test_zero_times_log_zero_is_zero():
    zero = np.zeros(1)
    assert xlogy(zero, zero) == xlog1py(zero, -np.ones(1)) == xdivy(zero, zero) == 0
    assert np.isnan(xlogy(zero, np.array([np.nan])))
    assert xlogy(np.ones(1), zero) == -np.inf


def test_log_ratio_near_one_and_where_the_quotient_overflows():
    x = np.array([1.0, 1 + 2.0**-52, 3.0, 1e300, 1e-300, 0.5, 1.9999])
    y = np.array([1 + 2.0**-52, 1.0, 3.0, 1e-300, 1e300, 1.0, 1.0])
    assert_ulps(log_ratio(x, y), elementwise(lambda a, b: mpmath.log(a / b), x, y), 4)
