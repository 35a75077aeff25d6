"""The judges judged: planted faults must be caught."""

import numpy as np
import pytest

from tests.tolerances import ETA, assert_same_bits, assert_within, dot_bound, eta, relative_bound, sum_bound, unit


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
