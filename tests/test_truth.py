"""The witness judged: it must see one ulp too many, and digits that float64 cannot hold."""

import mpmath
import numpy as np
import pytest

from tests.truth import assert_ulps, elementwise


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_ulp_too_many_is_caught(dtype):
    x = np.full(3, 1.5, dtype)
    exact = elementwise(lambda v: v, x)
    x[1] += 3 * np.spacing(x[1])  # a bound of k ulps permits k * 2u|x| = 1.5k spacings here
    assert_ulps(x, exact, 2)
    with pytest.raises(AssertionError, match=r"at \(1,\)"):
        assert_ulps(x, exact, 1)


def test_the_truth_has_more_digits_than_float64():
    (exact,) = elementwise(lambda v: mpmath.exp(v) - 1, np.array([1e-18]))
    assert abs(exact - mpmath.mpf(1e-18)) < mpmath.mpf(10) ** -35
    assert_ulps(np.array([1e-18]), np.array([exact], object), 1)
    with pytest.raises(AssertionError, match="permitted error"):
        assert_ulps(np.exp([1e-18]) - 1, np.array([exact], object), 1)


@pytest.mark.parametrize("fault", [np.nan, np.inf])
def test_a_non_finite_value_is_caught(fault):
    with pytest.raises(AssertionError):
        assert_ulps(np.array([fault]), elementwise(lambda v: v, np.ones(1)), 2)
