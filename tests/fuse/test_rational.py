"""Sums of products of fractions, over common denominators and digit by digit, against those of the fractions themselves."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npreparam.fuse import compose, from_conv, rational
from npreparam.fuse.rational import summed_products
from npreparam.fuse.scalars import EXACT

DIGIT = 2**rational.DIGIT
EDGES = [0, 1, -1, DIGIT // 2 - 1, DIGIT // 2, -DIGIT // 2, -DIGIT // 2 - 1, DIGIT - 1, DIGIT, -DIGIT, DIGIT**3 - 1, -(DIGIT**3), DIGIT**4 // 2]
NUMBERS = st.fractions(-8, 8, max_denominator=2**30) | st.integers(-3, 3) | st.sampled_from(EDGES)
FLOATS = st.floats(-1e20, 1e20).map(Fraction)
PAIRS = [("a", 0, 0), ("b", 1, 0), ("a", 1, 1), ("b", 0, 1), ("b", 1, 1)]


def plainly(left, right, pairs, multiply):
    """The same with Fractions one at a time."""
    sums = {}
    for place, i, j in pairs:
        sums.setdefault(place, []).append(multiply(left[i], right[j]))
    return np.stack([sum(some[1:], some[0]) for some in sums.values()])


def matrices(draw, numbers, *shape):
    return np.array(draw(st.lists(numbers, min_size=int(np.prod(shape)), max_size=int(np.prod(shape)))), object).reshape(shape)


@given(data=st.data(), shape=st.tuples(*[st.integers(1, 3)] * 3), numbers=st.sampled_from([NUMBERS, FLOATS]), fewest=st.sampled_from([0, 2**60]))
def test_exact_sums_of_products(data, shape, numbers, fewest):
    """Either way: as integers, and as digits, with a limit from which on numbers are taken apart."""
    n, m, k = shape
    a, b = matrices(data.draw, numbers, 2, 1, n, m), matrices(data.draw, numbers, 2, 1, m, k)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rational, "FEWEST", fewest)
        result = summed_products(a, b, PAIRS, np.matmul)
    assert (result == plainly(a, b, PAIRS, np.matmul)).all()
    assert all(isinstance(number, Fraction) for number in result.flat)


@pytest.mark.parametrize("left", [1, -1])
@pytest.mark.parametrize("right", [1, -1])
def test_the_largest_digits(left, right, monkeypatch):
    """Sums of 2^12 products of numbers whose digits are all as large as can be, of either sign."""
    monkeypatch.setattr(rational, "FEWEST", 0)
    a, b = (np.full((2, 1, *shape), sign * (DIGIT**5 // 2 - 1), object) for sign, shape in ((left, (1, 2**12)), (right, (2**12, 1))))
    assert summed_products(a, b, PAIRS, np.matmul).ravel().tolist() == [left * right * count * 2**12 * (DIGIT**5 // 2 - 1) ** 2 for count in (2, 3)]


def test_numbers_too_far_apart_stay_integers(monkeypatch):
    monkeypatch.setattr(rational, "FEWEST", 0)
    monkeypatch.setattr(rational, "MOST_DIGITS", 64)
    monkeypatch.setattr(rational, "_digits", None)  # not called
    a = np.array([Fraction(5e-324), Fraction(1e308)], object).reshape(1, 1, 2)
    assert summed_products(a, a.swapaxes(1, 2), [("a", 0, 0)], np.matmul).item() == a.flat[0] ** 2 + a.flat[1] ** 2


@pytest.mark.parametrize("channels", [6, 16])
def test_composition_of_kernels_is_that_of_fractions(channels):
    """Two padded kernels with float32 parameters; dense ones are taken apart from some size on."""
    rng = np.random.default_rng(0)
    first, second = (EXACT.numbers(rng.standard_normal((channels, channels, 3)).astype(np.float32)) for _ in range(2))
    whole = compose(from_conv(second), from_conv(first, padding=1), "interior")
    for tap, block in zip(whole.taps, whole.blocks, strict=True):
        terms = [np.matmul(second[..., i], first[..., tap[0] + 1 - i]) for i in range(3) if 0 <= tap[0] + 1 - i < 3]
        assert (block == sum(terms)).all()


def test_other_numbers_are_multiplied_as_they_are():
    a = np.arange(4.0).reshape(1, 2, 2)
    assert (summed_products(a, a, [("a", 0, 0)], np.matmul)[0] == a[0] @ a[0]).all()
