"""Products of fractions over a common denominator."""

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from npreparam.fuse.scalars import matmul

NUMBERS = st.fractions(-8, 8, max_denominator=2**30) | st.integers(-3, 3)


@given(data=st.data(), shape=st.tuples(*[st.integers(1, 3)] * 3))
def test_exact_products(data, shape):
    n, m, k = shape
    a, b = (np.array(data.draw(st.lists(NUMBERS, min_size=r * c, max_size=r * c)), object).reshape(r, c) for r, c in ((n, m), (m, k)))
    result = matmul(a, b)
    assert (result == np.matmul(a, b)).all()
    assert all(isinstance(number, Fraction) for number in result.flat)
