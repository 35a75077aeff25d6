"""The judges judged: planted faults must be caught."""

from fractions import Fraction

import numpy as np
import pytest

from npreparam import exact
from tests import naive, tolerances
from tests.tolerances import ETA, assert_same_bits, assert_within, dot_bound, eta, function_bound, relative_bound, sum_bound, unit


def test_assert_within_catches_a_value_just_beyond_the_bound():
    x = np.ones(5)
    assert_within(x + 0.5, x, 0.5)
    y = x.copy()
    y[3] = np.nextafter(1.5, 2)
    with pytest.raises(AssertionError, match=r"at \(3,\).*error = 0.5; permitted error = 0.5"):
        assert_within(y, x, 0.5)


@pytest.mark.parametrize("fault", [np.nan, np.inf, -np.inf])
def test_assert_within_catches_non_finite_values(fault):
    x = np.ones(3)
    y = x.copy()
    y[1] = fault
    with pytest.raises(AssertionError, match="NaN or infinity"):
        assert_within(y, x, np.inf)
    assert_within(y, y, 0.0)


def test_assert_within_catches_a_nan_bound():
    with pytest.raises(AssertionError):
        assert_within(np.ones(2), np.zeros(2), np.array([2.0, np.nan]))


def test_assert_within_catches_shapes():
    with pytest.raises(AssertionError, match="shapes differ"):
        assert_within(np.ones(2), np.ones((1, 2)), 1.0)


def test_assert_same_bits_tells_signed_zeros_apart():
    with pytest.raises(AssertionError):
        assert_same_bits(np.array([0.0]), np.array([-0.0]))


@pytest.mark.parametrize("name", list(ETA))
def test_units_are_those_of_the_formats(name):
    """u is half the spacing at 1; eta is the last number before zero: half of it ties to zero, itself stays."""
    kind = np.dtype(pytest.importorskip("ml_dtypes").bfloat16 if name == "bfloat16" else name)
    bits = np.array([1, 1 + 2 * unit(kind), eta(kind)]).astype(kind).view(f"u{kind.itemsize}").tolist()
    assert bits[1] == bits[0] + 1
    assert bits[2] == 1


def test_dot_bound_is_reached_within_a_factor_and_never_exceeded():
    """Adding 1, u, u, u ... in order rounds every small term away: the worst case of the bound, up to a factor of two."""
    n, u = 100, unit(np.float32)
    x = np.full(n, u, np.float32)
    x[0] = 1
    total = np.float32(0)
    for value in x:
        total += value
    error = abs(float(total) - x.astype(np.float64).sum())
    bound = dot_bound(n, np.abs(x).astype(np.float64).sum(), np.float32)
    assert bound / 2 < error <= bound


def test_sum_bound_is_reached_at_two_terms_and_misses_a_wrong_order_of_magnitude():
    """1 + u rounds to 1: error u of a permitted u(1 + u). One rounding more than the bound counts is caught."""
    u = unit(np.float32)
    actual, terms = np.float32(1) + np.float32(u), np.array([1, u])
    assert_within(actual, terms.sum(), sum_bound(2, terms.sum(), np.float32))
    with pytest.raises(AssertionError, match="permitted error"):
        assert_within(actual + np.float32(4 * u), terms.sum(), sum_bound(2, terms.sum(), np.float32))


def test_relative_bound_covers_k_roundings_and_not_twice_as_many():
    k, u = 8, unit(np.float64)
    assert_within(np.array((1 + u) ** k), np.array(1.0), relative_bound(k, 1.0, np.float64))
    with pytest.raises(AssertionError, match="permitted error"):
        assert_within(np.array(1 + 2 * k * u), np.array(1.0), relative_bound(k, 1.0, np.float64))


def test_function_bound_covers_its_ulps_and_not_three_times_as_many():
    x = np.array([1.5, 3 * eta(np.float64)])
    assert_within(x + 2 * np.spacing(x), x, function_bound(2, x, np.float64))
    for i in range(2):
        fault = x.copy()
        fault[i] += 6 * 2 * np.spacing(x[i])
        with pytest.raises(AssertionError, match=rf"at \({i},\).*permitted error"):
            assert_within(fault, x, function_bound(2, x, np.float64))


EPS = 0.25


def two_branches(dtype, eps=EPS, stored=None):
    """(multi-branch, fused, S) of two 16-term products with batch norms, of 8 inputs, each operation rounded to dtype."""
    rng = np.random.default_rng(0)
    shapes = (2, 16), (16, 8), (4, 2, 1)
    w, x, (gamma, beta, mean, var) = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
    var = np.abs(var)
    multi = ((w @ x - mean) / np.sqrt(var + dtype(EPS)) * gamma + beta).sum(0)
    scale = gamma / np.sqrt(var + dtype(eps))
    kernel, bias = (scale * w).sum(0), (beta - mean * scale).sum()
    fused = (kernel if stored is None else kernel.astype(stored).astype(dtype)) @ x + bias
    size = np.abs(scale) * (np.abs(w) @ np.abs(x) + np.abs(mean)) + np.abs(beta)
    return multi, fused, size.sum(0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fusion_bound_covers_both_orders_and_no_wrong_fusion(dtype):
    multi, fused, size = two_branches(dtype)
    assert (multi != fused).any()  # so there is something to cover
    assert_within(fused, multi, tolerances.fusion_bound(16, 2, size, dtype))
    narrower = {np.float32: np.float16, np.float64: np.float32}[dtype]
    for fault in ({"eps": EPS + 0.01}, {"stored": narrower}):
        multi, fused, size = two_branches(dtype, **fault)
        with pytest.raises(AssertionError, match="permitted error"):
            assert_within(fused, multi, tolerances.fusion_bound(16, 2, size, dtype))


def far_from_zero():
    """Two channels of 18 numbers around 100 and -1000, where cancellation costs digits; with their moments as Fractions."""
    x = np.random.default_rng(1).standard_normal((2, 2, 3, 3)) + np.array([100.0, -1000.0]).reshape(1, 2, 1, 1)
    channels = exact.as_fractions(np.moveaxis(x, 1, 0).reshape(2, -1), "x")
    mean = channels.sum(1) / Fraction(18)
    return x, mean, ((channels - mean[:, None]) ** 2).sum(1) / Fraction(18)


def test_moments_bounds_cover_two_passes_and_not_one():
    x, mean, var = far_from_zero()
    of_mean, of_var = tolerances.moments_bounds(x)
    got_mean, got_var = naive.moments(x)
    # the difference is taken in Fractions: rounding what is expected would add an error of its own
    assert_within(exact.as_fractions(got_mean, "mean") - mean, np.zeros(2), of_mean)
    assert_within(exact.as_fractions(got_var, "var") - var, np.zeros(2), of_var)
    with pytest.raises(AssertionError, match="permitted error"):
        assert_within((x**2).mean((0, 2, 3)) - got_mean**2, var, of_var)
    with pytest.raises(AssertionError, match="permitted error"):
        assert_within(got_mean.astype(np.float32), mean, of_mean)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_batch_norm_bound_covers_the_twin_and_no_other_variance(dtype):
    x, mean, var = far_from_zero()
    gamma, beta = np.array([0.7, -1.3]), np.array([0.1, 3.0])
    float_var, of_mean = var.astype(np.float64), np.abs(x).mean((0, 2, 3))
    truth = exact.batch_norm(x, gamma, beta, mean, var, eps=EPS)
    bound = tolerances.batch_norm_bound(x, gamma, beta, of_mean, float_var, EPS, dtype)
    y, *_ = naive.batch_norm_train(x, gamma, beta, np.zeros(2), np.ones(2), 0.1, EPS)
    assert_within(y.astype(dtype), truth, bound)
    for wrong_var, eps in ((float_var * 18 / 17, EPS), (float_var, EPS + 0.01)):
        fault = naive.batch_norm(x, gamma, beta, mean.astype(np.float64), wrong_var, eps)
        with pytest.raises(AssertionError, match="permitted error"):
            assert_within(fault.astype(dtype), truth, bound)


def gradients_in_fractions(gy, x, gamma):
    """(gx, ggamma, gbeta) for a channel of values mean +- a, eps = 0: its deviation is a itself, so everything is rational."""
    gy, x, gamma = (exact.as_fractions(v, "v") for v in (gy, x, gamma))
    n = Fraction(x.size)
    mean = x.sum() / n
    std = abs(x.flat[0] - mean)
    xhat = (x - mean) / std
    assert set(xhat.ravel()) == {-1, 1}
    return gamma / std * (gy - gy.sum() / n - xhat * (gy * xhat).sum() / n), [(gy * xhat).sum()], [gy.sum()]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_batch_norm_grad_bounds_cover_the_twin_and_no_gradient_of_evaluation(dtype):
    signs = np.array([1, -1, -1, 1, -1, 1, 1, -1, 1, -1]).reshape(2, 1, 1, 5)
    x, gy, gamma = 0.5 + 0.375 * signs, np.random.default_rng(2).standard_normal(signs.shape), np.array([0.7])
    truth = [np.asarray(g, object) for g in gradients_in_fractions(gy, x, gamma)]
    bounds = tolerances.batch_norm_grad_bounds(gy, x, gamma, np.abs(x).mean((0, 2, 3)), x.var((0, 2, 3)), 0.0, dtype)
    arguments = (gy, x, gamma, *naive.moments(x), 0.0)
    for got, want, bound in zip(naive.batch_norm_grad(*arguments, training=True), truth, bounds, strict=True):
        assert_within(got.astype(dtype), want, bound)
        with pytest.raises(AssertionError, match="permitted error"):
            assert_within((got * (1 + 2**14 * unit(dtype))).astype(dtype), want, bound)
    with pytest.raises(AssertionError, match="permitted error"):
        assert_within(naive.batch_norm_grad(*arguments, training=False)[0].astype(dtype), truth[0], bounds[0])
