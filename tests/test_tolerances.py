"""The judges judged: planted faults must be caught."""

import numpy as np
import pytest

from tests.tolerances import assert_same_bits, assert_within, dot_bound, unit


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
