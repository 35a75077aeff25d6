"""Sums and means: math.fsum, which is correctly rounded, and `statistics`, which works on Fractions, are the witnesses."""

import itertools
import math
import statistics
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npreparam import ArgumentError, exact
from tests.exact.halfway import certify_root

FINITE = st.floats(-1e300, 1e300)


@given(st.lists(FINITE, min_size=1, max_size=30))
def test_fsum_agrees(values):
    assert exact.sum(np.array(values)).item() == math.fsum(values)
    assert exact.sum(np.array(values), out_dtype=None).item() == sum(map(Fraction, values))


def test_fsum_would_catch_a_chain_of_additions():
    values = [1.0, 2.0**-60, -1.0]
    assert np.sum(values) != math.fsum(values) == exact.sum(np.array(values)).item()


@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=30))
def test_statistics_agrees(values):
    assert exact.mean(np.array(values), out_dtype=None).item() == statistics.mean(map(Fraction, values))
    assert exact.mean(np.array(values)).item() == float(statistics.mean(map(Fraction, values)))
    certify_root(exact.mean(np.float32(values))[()], statistics.mean(map(Fraction, values)), 0, 1)


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", [None, 0, -1, (0, 2), (1,), (), (-1, 0, 1)])
def test_axes_as_in_numpy(axis, keepdims):
    """Small integers are exact in NumPy's sums, too."""
    x = np.arange(24.0).reshape(2, 3, 4) ** 2
    np.testing.assert_array_equal(exact.sum(x, axis, keepdims), x.sum(axis, keepdims=keepdims), strict=True)
    np.testing.assert_array_equal(exact.mean(8 * x, axis, keepdims), (8 * x).mean(axis, keepdims=keepdims), strict=True)
    assert type(exact.sum(x, axis, keepdims, out_dtype=None).ravel()[0]) is Fraction


@pytest.mark.parametrize("values", list(itertools.product([math.nan, math.inf, -math.inf, 0.0, 2.0], repeat=3)))
def test_special_values_as_in_floating_point_exhaustive(values):
    x = np.array(values)
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(exact.sum(x), x.sum())
        np.testing.assert_array_equal(exact.mean(x), x.mean())


def test_signs_of_zero_and_both_ends_of_the_range():
    assert not np.signbit(exact.sum(np.array([-0.0, -0.0])))
    tiny, huge = np.finfo(np.float64).smallest_subnormal, np.finfo(np.float64).max
    assert np.signbit(exact.mean(np.array([-tiny, 0.0, 0.0])))
    assert exact.mean(np.array([-tiny, 0.0, 0.0])) == 0
    assert exact.mean(np.array([huge, huge])) == huge
    assert exact.sum(np.array([huge, huge])) == math.inf
    assert exact.sum(np.array([huge, huge, -huge])) == huge
    assert exact.sum(np.float32([1, 2.0**-24, 2.0**-60])) == 1 + 2.0**-23  # above the tie by 2^-60


def test_nothing_to_add_and_bad_input():
    empty = np.ones((0, 2))
    assert exact.sum(empty, 0).tolist() == [0, 0]
    assert np.isnan(exact.mean(empty, 0)).all()
    with pytest.raises(ArgumentError, match=r"`x` of shape \(0, 2\) has no elements over `axis` \(=0\)"):
        exact.mean(empty, 0, out_dtype=None)
    with pytest.raises(ArgumentError, match=r"`axis` \(=2\) must lie in \[-2, 2\)"):
        exact.sum(empty, 2)
    with pytest.raises(ArgumentError, match=r"`axis` \(=-3\) must be at least -2"):
        exact.sum(empty, -3)
    with pytest.raises(ArgumentError, match=r"`axis` \(=\(0, -2\)\) names an axis twice"):
        exact.mean(empty, (0, -2))
    with pytest.raises(ArgumentError, match="`x` holds NaN or infinity"):
        exact.sum(np.array([np.inf]), out_dtype=None)
