"""Sums that round nothing: against Fractions, for any finite floats; no permutation changes a digit."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from npreparam.kernels import _threads
from npreparam.kernels.exact_sums import LANES, PIECE, SPAN, exact_sums

UNIT = {"float32": 150, "float64": 1075}


def fractions(a):
    return [Fraction(float(v)) for v in a.ravel()]


def agree(a, b, shape):
    sums, products, specials = exact_sums(a.ravel(), a.ravel() if b is a else b.ravel(), shape)
    unit = UNIT[a.dtype.name]
    for c in range(shape[1]):
        p, q = (fractions(v.reshape(shape)[:, c]) for v in (a, b))
        assert Fraction(sums[c], 1 << unit) == sum(p, Fraction(0))
        assert Fraction(products[c], 1 << 2 * unit) == sum((v * w for v, w in zip(p, q, strict=True)), Fraction(0))
    assert not specials.any()


@pytest.mark.parametrize("width", [32, 64])
@given(st.data())
def test_any_finite_floats(width, data):
    kind = np.dtype(f"float{width}")
    shape = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(0, 3)))
    floats = st.floats(width=width, allow_nan=False, allow_infinity=False)
    a, b = (data.draw(arrays(kind, shape, elements=floats, fill=st.nothing())) for _ in range(2))
    agree(a, b, shape)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_random_bits(kind):
    bits = np.random.default_rng(0).bytes(2 * 4000 * np.dtype(kind).itemsize)
    a, b = (np.where(np.isfinite(v), v, kind(1)) for v in np.frombuffer(bits, kind).reshape(2, 4000))
    for shape in ((1, 1, 4000), (5, 2, 400), (4000, 1, 1)):
        agree(a, b, shape)
        agree(a, a, shape)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_carries(kind):
    """The largest, the smallest, and significands of ones: many of them, of both signs, in one bin."""
    info = np.finfo(kind)
    for value in (info.max, info.smallest_subnormal, info.smallest_normal, np.nextafter(kind(1), kind(0)), -info.max):
        a = np.full(3000, value, kind)
        agree(a, -a, (3, 1, 1000))
        agree(a, a, (3, 1, 1000))


def test_one_lost_bit_would_be_seen():
    a = np.array([1e30, 1, -1e30], np.float32)
    with pytest.raises(AssertionError):
        assert Fraction(float(a.astype(np.float64).sum())) == sum(fractions(a))
    agree(a, a, (1, 1, 3))


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_specials(kind):
    """NaN and infinities of a are told apart, those of b are one bit; the finite elements beside them are summed."""
    nan, inf = np.nan, np.inf
    a = np.array([[nan, 1], [inf, 2], [-inf, 3], [inf, -inf], [4, 5], [6, 7]], kind)
    b = np.array([[1, 1], [1, 1], [1, 1], [1, 1], [nan, 1], [1, -inf]], kind)
    sums, products, specials = exact_sums(a.ravel(), b.ravel(), (1, 6, 2))
    assert specials.tolist() == [1, 2, 4, 6, 8, 8]
    unit = UNIT[np.dtype(kind).name]
    assert [s >> unit for s in sums] == [1, 2, 3, 0, 9, 13]
    assert [p >> 2 * unit for p in products] == [1, 2, 3, 0, 5, 6]
    assert exact_sums(a[:4].ravel(), a[:4].ravel(), (1, 4, 2))[2].tolist() == [9, 10, 12, 14]


def test_threads_and_order():
    a = np.random.default_rng(1).standard_normal(60_000).astype(np.float32)
    shape = (4, 5, 3000)
    want = exact_sums(a, a.copy(), shape)[:2]
    threads = _threads.get_num_threads()
    try:
        for count in (1, 3):
            _threads.set_num_threads(count)
            assert exact_sums(a, a.copy(), shape)[:2] == want
    finally:
        _threads.set_num_threads(threads)
    assert exact_sums(a, a, shape)[:2] == want
    shuffled = np.ascontiguousarray(a.reshape(shape)[::-1, :, ::-1]).ravel()
    assert exact_sums(shuffled, shuffled, shape)[:2] == want


def with_exponents(rng, exponents):
    """float32 of random signs whose significands are all ones but for some of the last bits."""
    significands = (1 << 24) - rng.integers(1, 4, exponents.shape)
    return (rng.choice([-1.0, 1.0], exponents.shape) * significands * 2.0**exponents).astype(np.float32)


@pytest.mark.parametrize("span", [0, SPAN, SPAN + 1])
@pytest.mark.parametrize("lowest", [-149, -40, 104 - SPAN - 1])
def test_the_edges_of_a_grid(lowest, span):
    """The smallest elements on a grid, and the largest off it; as many terms as a lane takes, of one sign and of both, and one more; zeros."""
    rng, length = np.random.default_rng(span), PIECE + LANES + 3
    a, b = (with_exponents(rng, lowest + span * rng.integers(0, 2, (2, 2, length))) for _ in range(2))
    a[0, 0], b[0, 0], a[1, 1, ::3] = np.abs(a[0, 0]), np.abs(b[0, 0]), 0
    for shape in (a.shape, (2, 2, length), (2 * length, 2, 1), (1, 1, 4 * length)):
        agree(a, b, shape)
        agree(a, a, shape)
        agree(b, np.full_like(a, 2.0**lowest), shape)


def test_one_piece_off_the_grid():
    """Beside pieces that are on it, and in a row of its own."""
    a = with_exponents(np.random.default_rng(2), np.zeros((2, 3, 2 * PIECE + 7), int))
    a[1, 1, PIECE + 3] = 2.0**-60
    a[0, 2, 5] = 2.0**60
    agree(a, a, a.shape)
    agree(a, np.ascontiguousarray(a[::-1]), a.shape)
