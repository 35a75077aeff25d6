"""The exact accumulator against Fractions."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from npreparam import exact
from npreparam.kernels import accumulate
from tests.tolerances import assert_same_bits

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
LARGEST, SMALLEST = float(np.finfo(np.float64).max), 2.0**-1074


def decided(terms, start, target):
    a, b = (np.array([term[i] for term in terms], np.float64) for i in (0, 1))
    with np.errstate(all="ignore"):  # as plain Python it may warn
        return accumulate.decide(a, b, len(terms), start, target, np.zeros(accumulate.LIMBS, np.int64))


def summed(terms, start, odd):
    a, b = (np.array([term[i] for term in terms], np.float64) for i in (0, 1))
    with np.errstate(all="ignore"):
        return accumulate.exact_sum(a, b, len(terms), start, odd, np.zeros(accumulate.LIMBS, np.int64))


@pytest.mark.interpreted
@given(st.lists(st.tuples(FLOATS, FLOATS), max_size=6), FLOATS)
@example([(LARGEST, LARGEST)] * 3 + [(-LARGEST, LARGEST)] * 3, SMALLEST)
@example([(SMALLEST, SMALLEST)], 0.0)
@example([(SMALLEST, 0.5), (SMALLEST, 2.0**-60)], 0.0)
@example([(SMALLEST, 0.5)], 0.0)
@example([(SMALLEST, -0.5)], 0.0)
@example([(LARGEST, 1.0)], 2.0**969)
@example([(LARGEST, 1.0)], 2.0**970)
@example([(1.0, 1.0)], -1.0)
def test_sums_are_correctly_rounded_to_every_format(terms, start):
    value = np.array([Fraction(start) + sum((Fraction(a) * Fraction(b) for a, b in terms), Fraction(0))], object)
    for call in (decided, lambda t, s, target: summed(t, s, target != accumulate.TO_FLOAT64)):
        assert_same_bits(np.array([call(terms, start, accumulate.TO_FLOAT64)]), exact.round_array(value, np.float64))
        for target, dtype in ((accumulate.FLOAT32, np.float32), (accumulate.TO_ODD, np.float32), (accumulate.TO_ODD, np.float16)):
            with np.errstate(over="ignore", under="ignore"):
                found = np.array([call(terms, start, target)]).astype(dtype)
            assert_same_bits(found, exact.round_array(value, dtype))


@pytest.mark.interpreted
@given(st.lists(st.tuples(st.floats(), st.floats()), min_size=1, max_size=4), st.floats())
def test_infinities_and_nan_follow_ieee(terms, start):
    with np.errstate(all="ignore"):
        products = [np.float64(start), *(np.float64(a) * np.float64(b) for a, b in terms if not (np.isfinite(a) and np.isfinite(b)))]
        special = sum(product for product in products if not np.isfinite(product))
    if any(not np.isfinite(product) for product in products):
        np.testing.assert_equal(decided(terms, start, accumulate.TO_FLOAT64), special)


def test_many_terms_of_the_largest_size_do_not_overflow_the_limbs():
    count = 2**17
    a, limbs = np.full(2 * count, LARGEST), np.zeros(accumulate.LIMBS, np.int64)
    b = np.where(np.arange(2 * count) < count, LARGEST, -LARGEST)
    assert accumulate.exact_sum(a, b, 2 * count, 3.0, False, limbs) == 3


def test_a_lost_bit_is_found():
    """A sum as plain float64 would have it differs from the accumulator's: the comparison above can fail."""
    terms = [(1.0, 1.0), (2.0**-60, 1.0), (-1.0, 1.0)]
    assert summed(terms, 0.0, False) == 2.0**-60 != sum(a * b for a, b in terms)
