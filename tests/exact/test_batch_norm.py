"""The correctly rounded batch norm, judged without its own arithmetic: by squares of halfway points, and by mpmath at 400 bits."""

import itertools
import math
import statistics
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npreparam import ArgumentError, DTypeError, ShapeError, exact
from npreparam.exact.roots import FIRST_BITS, sqrt_between
from tests import naive
from tests.exact.halfway import certify_root, exceeds, neighbours


def certify(y, x, gamma, beta, mean, var, eps):
    """halfway down <= t/sqrt(v) + beta <= halfway up."""
    t = (Fraction(float(x)) - Fraction(float(mean))) * Fraction(float(gamma))
    v = Fraction(float(var)) + Fraction(float(eps))
    certify_root(y, Fraction(float(beta)), t, v)


numbers = st.floats(-1e6, 1e6, width=32).map(lambda v: v if abs(v) > 1e-6 else 0.0)


variances, smoothing, kinds = st.floats(0, 1e6, width=32), st.sampled_from([0.5, 1e-5, 1e-3]), st.sampled_from([np.float32, np.float64])


@given(numbers, numbers, numbers, numbers, variances, smoothing, kinds)
def test_certificate(x, gamma, beta, mean, var, eps, kind):
    args = [np.array([v], kind) for v in (gamma, beta, mean, var)]
    y = exact.batch_norm(np.array([[x]], kind), *args, eps=eps)
    certify(y[0, 0], np.array(x, kind), *(a[0] for a in args), eps)


def test_a_planted_ulp_is_caught():
    args = (np.float32(1.5), np.float32(0.7), np.float32(-0.3), np.float32(0.1), np.float32(2.0), 1e-5)
    y = exact.batch_norm(np.array([[args[0]]]), *(np.array([a]) for a in args[1:5]), eps=1e-5)[0, 0]
    certify(y, *args)
    for wrong in (np.nextafter(y, np.float32(np.inf)), np.nextafter(y, np.float32(-np.inf))):
        with pytest.raises(AssertionError):
            certify(wrong, *args)


def test_mpmath_agrees():
    mpmath = pytest.importorskip("mpmath")
    rng = np.random.default_rng(0)
    x, (gamma, beta, mean), var = rng.standard_normal((2, 3, 2, 2)), rng.standard_normal((3, 3)), rng.random(3)
    y = exact.batch_norm(x, gamma, beta, mean, var)
    with mpmath.workprec(400):
        for (n, c, i, j), value in np.ndenumerate(y):
            want = (mpmath.mpf(x[n, c, i, j]) - mean[c]) / mpmath.sqrt(mpmath.mpf(var[c]) + mpmath.mpf(1e-5)) * gamma[c] + beta[c]
            assert value == float(want)


def test_rational_roots_are_exact():
    # Odd multiples of 2^-24 are ties between two float32, and only exact arithmetic sees them; one goes down to even, the other up.
    for tie, even in ((1 + 2.0**-24, 1), (1 + 3 * 2.0**-24, 1 + 2.0**-22)):
        assert exact.batch_norm(np.array([[tie]]), [1], [0], [0], [1], eps=0, out_dtype=np.float32).item() == even
        assert exact.batch_norm(np.array([[tie * 0.75]]), [1], [0], [0], [0.3125], eps=0.25, out_dtype=np.float32).item() == even


@pytest.mark.parametrize("sign", [1, -1])
def test_cancellation_beyond_the_first_precision(sign):
    """beta agrees with 1/sqrt(2) to 300 bits, so that the first brackets cannot even tell the sign of the result."""
    low, high = sqrt_between(Fraction(1, 2), 300)
    beta = -(low if sign > 0 else high)
    assert FIRST_BITS < 300
    y = exact.batch_norm(np.array([[1.0]]), [1], np.array([beta]), [0], [2], eps=0)[0, 0]
    assert np.sign(y) == sign
    below, above = (middle - beta for middle in neighbours(y))
    assert not exceeds(-1, 2, -below)
    assert not exceeds(1, 2, above)


def test_both_ends_of_the_range():
    """Multiples of 1/sqrt(2) = 0.707...: subnormal numbers, the sign of zero, and overflow to infinity."""
    tiny, huge = np.finfo(np.float32).smallest_subnormal, np.finfo(np.float32).max
    x = np.array([[10 * tiny], [tiny], [-tiny], [huge]])
    y = exact.batch_norm(x, [1], [0], [0], [2], eps=0)
    assert y[:3, 0].tolist() == [7 * tiny, tiny, -tiny]
    certify(y[3, 0], x[3, 0], 1.0, 0.0, 0.0, 2.0, 0.0)
    y = exact.batch_norm(x, [-0.5], [0], [0], [2], eps=0)  # half of the above: 3.54, 0.354
    assert y[:3, 0].tolist() == [-4 * tiny, 0, 0]
    assert np.signbit(y[:3, 0]).tolist() == [True, True, False]
    assert exact.batch_norm(x[3:], [-2], [0], [0], [2], eps=0).item() == -np.inf


@pytest.mark.parametrize("kind", [np.float16, "bfloat16"])
def test_narrow_results_are_not_rounded_twice(kind):
    """1 + half a spacing + t/sqrt(2) with a t of 2^-100: float64 in between would see a tie and round to even."""
    if kind == "bfloat16":
        pytest.importorskip("ml_dtypes")
    spacing = {np.float16: 2.0**-10, "bfloat16": 2.0**-7}[kind]
    y = exact.batch_norm(np.array([[2.0**-100], [-(2.0**-100)]]), [1], [1 + spacing / 2], [0], [2], eps=0, out_dtype=kind)
    assert y.astype(np.float64)[:, 0].tolist() == [1 + spacing, 1]


def test_eps_is_the_number_that_it_is():
    args = (np.array([[1.0]]), [1], [0], [0], [0])
    assert exact.batch_norm(*args, eps=np.float32(0.1)) == exact.batch_norm(*args, eps=float(np.float32(0.1)))
    assert exact.batch_norm(*args, eps=np.float32(0.1)) != exact.batch_norm(*args, eps=0.1)
    with pytest.raises(ArgumentError, match="`eps` holds NaN"):
        exact.batch_norm(*args, eps=np.nan)


def test_bad_input():
    with pytest.raises(DTypeError, match=r"`out_dtype` \(='None'\)"):
        exact.batch_norm(np.ones((1, 1)), [1], [0], [0], [1], out_dtype=None)
    with pytest.raises(ArgumentError, match="must be positive"):
        exact.batch_norm(np.ones((1, 1)), [1], [0], [0], [-1], eps=0)
    with pytest.raises(ArgumentError, match=r"`running_var` \+ `eps` \(=0.0\) of channel 1 must be positive"):
        exact.batch_norm(np.ones((1, 2)), [1, 1], [0, 0], [0, 0], [1, 0], eps=0)
    with pytest.raises(ShapeError, match=r"`eps` has shape \(2,\)"):
        exact.batch_norm(np.ones((1, 1)), [1], [0], [0], [1], eps=[1.0, 2.0])
    with pytest.raises(ShapeError, match="statistics"):
        exact.batch_norm(np.ones((1, 2)), [1], [0], [0], [1])


VALUES = st.lists(st.floats(-1000, 1000, width=32), min_size=2, max_size=6).filter(lambda values: len(set(values)) > 1)


def witness(gy, x, gamma, eps):
    """Mean, variances and gradients of one training channel, by the module `statistics` and the chain rule through every element.

    (mean, v, unbiased variance, coefficients of 1/sqrt(v) in gx, the one in ggamma, gbeta), v = biased variance + eps.
    """
    mean, m = statistics.mean(x), len(x)
    v = statistics.pvariance(x) + eps
    slopes = [Fraction(0)] * m
    for i, j in itertools.product(range(m), range(m)):
        dmean, dvar = Fraction(1, m), 2 * (x[j] - mean) / m
        slopes[j] += gy[i] * gamma * ((i == j) - dmean - (x[i] - mean) * dvar / (2 * v))
    return mean, v, statistics.variance(x), slopes, sum(g * (value - mean) for g, value in zip(gy, x, strict=True)), sum(gy)


@given(VALUES, st.data(), numbers, numbers, st.floats(0, 1), smoothing)
def test_training_certificates(values, data, gamma, beta, momentum, eps):
    gy = np.array(data.draw(st.lists(numbers, min_size=len(values), max_size=len(values))), np.float32)[:, None]
    x, gamma, beta, old = np.float32(values)[:, None], np.float32([gamma]), np.float32([beta]), np.float32([0.75])
    exactly = [[Fraction(float(v)) for v in array.ravel()] for array in (gy, x, gamma, beta)]
    mean, v, unbiased, slopes, product, total = witness(*exactly[:2], exactly[2][0], Fraction(eps))
    y, new_mean, new_var = exact.batch_norm(x, gamma, beta, old, old, training=True, momentum=momentum, eps=eps)
    for got, value in zip(y[:, 0], exactly[1], strict=True):
        certify_root(got, exactly[3][0], (value - mean) * exactly[2][0], v)
    weight = Fraction(momentum)
    certify_root(new_mean[0], (1 - weight) * Fraction(3, 4) + weight * mean, 0, 1)
    certify_root(new_var[0], (1 - weight) * Fraction(3, 4) + weight * unbiased, 0, 1)
    gx, ggamma, gbeta = exact.batch_norm_grad(gy, x, gamma, old, old, training=True, eps=eps)
    for got, slope in zip(gx[:, 0], slopes, strict=True):
        certify_root(got, 0, slope, v)
    certify_root(ggamma[0], 0, product, v)
    certify_root(gbeta[0], total, 0, 1)


def test_planted_faults_in_training_are_caught():
    """The unbiased variance in the wrong place, and a gradient that forgets that mean and variance depend on x."""
    x, gy = [Fraction(v) for v in (1, 2, 4, 9)], [Fraction(v) for v in (1, -2, 3, 1)]
    mean, v, unbiased, slopes, _, _ = witness(gy, x, Fraction(1), Fraction(1, 4))
    args = (np.float32(x)[:, None], np.ones(1, np.float32), np.zeros(1), np.zeros(1), np.ones(1))
    y = exact.batch_norm(*args, training=True, eps=0.25)[0]
    gx = exact.batch_norm_grad(np.float32(gy)[:, None], args[0], args[1], args[3], args[4], training=True, eps=0.25)[0]
    certify_root(y[0, 0], 0, x[0] - mean, v)
    certify_root(gx[0, 0], 0, slopes[0], v)
    for got, slope, wrong_v in ((y, x[0] - mean, unbiased + Fraction(1, 4)), (gx, gy[0], v), (gx, gy[0] - sum(gy) / 4, v)):
        with pytest.raises(AssertionError):
            certify_root(got[0, 0], 0, slope, wrong_v)


@pytest.mark.parametrize("training", [False, True])
def test_mpmath_agrees_on_every_result_of_channels_of_images(training):
    mpmath = pytest.importorskip("mpmath")
    rng = np.random.default_rng(3)
    gy, x = rng.standard_normal((2, 2, 3, 2, 2))
    gamma, beta, old_mean, old_var = rng.random((4, 3))
    y = exact.batch_norm(x, gamma, beta, old_mean, old_var, training=training)
    gx, ggamma, gbeta = exact.batch_norm_grad(gy, x, gamma, old_mean, old_var, training=training)
    with mpmath.workprec(400):
        mpf = np.vectorize(mpmath.mpf, otypes=[object])
        for c in range(3):
            values, g = mpf(x[:, c].ravel()), mpf(gy[:, c].ravel())
            m = values.size
            mean = sum(values) / m if training else mpmath.mpf(old_mean[c])
            var = sum((values - mean) ** 2) / m if training else mpmath.mpf(old_var[c])
            std = mpmath.sqrt(var + mpmath.mpf(1e-5))
            xhat = (values - mean) / std
            assert (y[0] if training else y)[:, c].ravel().tolist() == [float(v) for v in xhat * gamma[c] + beta[c]]
            want = (g - sum(g) / m - xhat * sum(g * xhat) / m if training else g) * gamma[c] / std
            assert gx[:, c].ravel().tolist() == [float(v) for v in want]
            assert (ggamma[c], gbeta[c]) == (float(sum(g * xhat)), float(sum(g)))
            if training:
                weight = mpmath.mpf(0.1)
                assert y[1][c] == float((1 - weight) * old_mean[c] + weight * mean)
                assert y[2][c] == float((1 - weight) * old_var[c] + weight * var * m / (m - 1))


def test_training_by_hand():
    """Mean 2 and variance 1 (biased), 2 (unbiased): y = x - 2."""
    x, one = np.array([[1.0], [3.0]]), np.ones(1)
    y, mean, var = exact.batch_norm(x, one, 0 * one, 4 * one, one, training=True, momentum=0.25, eps=0)
    assert (y.ravel().tolist(), mean.item(), var.item()) == ([-1, 1], 3.5, 1.25)
    gx, ggamma, gbeta = exact.batch_norm_grad(np.array([[1.0], [5.0]]), x, 3 * one, one, one, training=True, eps=3)
    assert gbeta.item() == 6
    assert ggamma.item() == 2  # (5 - 1)/sqrt(4)
    assert gx.ravel().tolist() == [-2.25, 2.25]  # 3/2*(1 - 3 - (-1)*2/4), 3/2*(5 - 3 - 1*2/4)


small = st.sampled_from([-math.inf, math.inf, math.nan, -2.0, 0.0, 0.0, 1.0, 3.0])


@given(*[st.lists(small, min_size=2, max_size=2)] * 2, small, small, small, st.sampled_from([1.0, 4.0, math.inf, math.nan]))
def test_special_values_in_evaluation_as_in_floating_point(x, gy, gamma, beta, mean, var):
    """Small integers over 1 or 2 are exact in float64, so the loop twin gives every class and value."""
    x, gy, gamma, beta, mean, var = (np.array(v).reshape(-1, 1) if isinstance(v, list) else np.array([v]) for v in (x, gy, gamma, beta, mean, var))
    with np.errstate(invalid="ignore"):
        y = naive.batch_norm(x, gamma, beta, mean, var, 0.0)
        grads = naive.batch_norm_grad(gy, x, gamma, mean, var, 0.0, False)
    np.testing.assert_array_equal(exact.batch_norm(x, gamma, beta, mean, var, eps=0), y)
    for got, expected in zip(exact.batch_norm_grad(gy, x, gamma, mean, var, eps=0), grads, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_special_values_in_training_stay_in_their_channel():
    nan, inf = math.nan, math.inf
    x, one, zero = np.array([[1.0, 1.0, 1.0], [inf, nan, 3.0]]), np.ones(3), np.zeros(3)
    y, mean, var = exact.batch_norm(x, one, zero, zero, one, training=True, eps=0)
    np.testing.assert_array_equal(y, [[nan, nan, -1], [nan, nan, 1]])
    np.testing.assert_array_equal(mean, [0.1 * inf, nan, 0.2])
    np.testing.assert_array_equal(var, [nan, nan, 1.1])
    gx, ggamma, gbeta = exact.batch_norm_grad(one[:2, None] * [1, 1, inf], x, one, zero, one, training=True, eps=0)
    np.testing.assert_array_equal(gx, np.full((2, 3), nan))  # inf - mean(inf) in the last channel
    np.testing.assert_array_equal(ggamma, [nan, nan, nan])  # -inf + inf in the last
    np.testing.assert_array_equal(gbeta, [2, 2, inf])


def test_bad_input_in_training():
    one = np.ones(1)
    with pytest.raises(ArgumentError, match="`x` has 1 values per channel, but training needs at least 2"):
        exact.batch_norm(np.ones((1, 1)), one, one, one, one, training=True)
    with pytest.raises(ArgumentError, match=r"`momentum` \(=1.5\), the weight of the new statistic"):
        exact.batch_norm(np.ones((2, 1)), one, one, one, one, training=True, momentum=1.5)
    with pytest.raises(ArgumentError, match=r"variance \+ `eps` \(=0.0\) of channel 0 must be positive"):
        exact.batch_norm_grad(np.ones((2, 1)), np.ones((2, 1)), one, one, one, training=True, eps=0)
    with pytest.raises(ArgumentError, match=r"`running_var` \+ `eps` \(=-inf\) of channel 0 must be positive"):
        exact.batch_norm(np.ones((2, 1)), one, one, one, -np.inf * one)
    with pytest.raises(ShapeError, match=r"`gy` has shape \(1, 1\), but must have shape \(2, 1\)"):
        exact.batch_norm_grad(np.ones((1, 1)), np.ones((2, 1)), one, one, one)
