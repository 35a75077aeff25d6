"""The enclosure of an affine map: the exact value lies in it, the more so where terms cancel, and what the constants lack must be granted."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npreparam.certified._affine import NONE, as_floats, row
from npreparam.kernels.affine import COLUMNS, FACTOR, NEAR, UNIT, enclose, settle


def interval(x, g, table):
    """The ends for numbers x and g with one row of constants."""
    low, high = np.empty(1), np.empty(1)
    enclose(np.array([x]), np.array([g]), np.array([table]), (1, 1, 1), low, high)
    return low[0], high[0]


def value(x, g, center, slope, scale, shift):
    """In rational numbers."""
    return (Fraction(x) - center) * slope + Fraction(g) * scale + shift


def rationals(limit):
    """Thirds of floats, which no sum of floats is."""
    return st.floats(-limit, limit).filter(lambda v: v == 0 or abs(v) > 1e-30).map(lambda v: Fraction(v) / 3)


moderate = st.floats(-1e6, 1e6).filter(lambda v: v == 0 or abs(v) > 1e-30)


@given(moderate, moderate, rationals(1e6), rationals(1e6), rationals(1e6), rationals(1e6))
def test_encloses(x, g, center, slope, scale, shift):
    exact = value(x, g, center, slope, scale, shift)
    low, high = interval(x, g, row(as_floats(center, count=3), as_floats(slope), as_floats(scale), as_floats(shift), spread=4 * UNIT))
    assert Fraction(low) <= exact <= Fraction(high)


def worst(count, seed, near):
    """|exact - middle|/B, where a shift cancels the leading part, so that the ends show 53 bits of what is left; with x near the center."""
    rng, largest = np.random.default_rng(seed), 0.0
    for _ in range(count):
        center, slope, scale = (Fraction(v) / 3 for v in rng.standard_normal(3) * 10.0 ** rng.integers(-8, 8, 3))
        x, g = rng.standard_normal(2) * 10.0 ** rng.integers(-8, 8, 2)
        if near:
            x, g = float(center) * (1 + rng.integers(-3, 4) * 2 * UNIT), g * UNIT
        shift = -Fraction(float(value(x, g, center, slope, scale, 0))) * (1 + Fraction(1, 3**40))
        low, high = (Fraction(end) for end in
                     interval(x, g, row(as_floats(center, count=3), as_floats(slope), as_floats(scale), as_floats(shift))))
        exact = value(x, g, center, slope, scale, shift)
        assert low <= exact <= high
        assert high > low
        largest = max(largest, float(abs(exact - (low + high) / 2) / ((high - low) / 2)))
    return largest


@pytest.mark.parametrize("near", [False, True])
def test_the_bound_holds_with_room(near):
    assert worst(3000, 0, near) < 92 / FACTOR  # what the derivation uses of it


@pytest.mark.parametrize("lost", [1, 2, 4, 8])
def test_a_second_float_left_out_is_caught(lost):
    """m1, m2, s1 or b1 = 0, without telling: the exact value, 2^-70 of its terms, is outside."""
    center, slope, x = Fraction(1, 3), Fraction(10, 7), float(np.nextafter(1 / 3, 1)) if lost < 3 else 2 / 3
    shift = -value(x, 0, center, slope, 0, 0) * (1 + Fraction(1, 2**70))
    table, exact = row(as_floats(center, count=3), as_floats(slope), NONE, as_floats(shift)), value(x, 0, center, slope, 0, shift)
    low, high = interval(x, 0.0, table)
    assert Fraction(low) <= exact <= Fraction(high)
    table[lost] = 0.0
    low, high = interval(x, 0.0, table)
    assert not Fraction(low) <= exact <= Fraction(high)


def test_what_a_center_lacks_is_granted():
    """A center of one float: its lack, times the slope, is in the slack; without it the enclosure is false."""
    center = Fraction(1, 3)
    floats, lack = as_floats(center, count=1)
    constants = ([*floats, 0.0, 0.0], lack)
    table = row(constants, ([1.0, 0.0], 0.0), shift=([0.0, 0.0], 0.0))
    x = float(np.nextafter(1 / 3, 1))
    low, high = interval(x, 0.0, table)
    assert Fraction(low) <= Fraction(x) - center <= Fraction(high)
    table[9] = 0.0
    low, high = interval(x, 0.0, table)
    assert not Fraction(low) <= Fraction(x) - center <= Fraction(high)


def test_exact_zeros_have_no_width():
    one = ([1.0, 0.0], 0.0)
    for x in (0.5, -0.5, 0.0):
        low, high = interval(x, 0.0, row(([x, 0.0, 0.0], 0.0), one))
        assert (low, high) == (0, 0)
        assert not np.signbit([low, high]).any()


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False),
       st.floats(allow_nan=False, allow_infinity=False), st.floats(-1e300, 1e300))
def test_underflow_and_overflow(x, center, slope, shift):
    """Any floats at all: what is called certain is certain, and what has no finite ends is not."""
    exact = value(x, 0, Fraction(center), Fraction(slope), 0, Fraction(shift))
    table = row(as_floats(Fraction(center), count=3), as_floats(Fraction(slope)), shift=as_floats(Fraction(shift)), spread=4 * UNIT)
    low, high = interval(x, 0.0, table)
    if np.isfinite([low, high]).all() and low <= high:
        assert Fraction(low) <= exact <= Fraction(high)
    else:
        assert low != high or np.isnan(low)


@pytest.mark.parametrize("bad", [0, 3, 7])
def test_nan_in_the_constants_decides_nothing(bad):
    table = row(([0.0] * 3, 0.0), ([1.0, 0.0], 0.0))
    table[bad] = np.nan
    low, high = interval(1.0, 0.0, table)
    assert np.isnan(low)
    assert high == 0
    assert len(table) == COLUMNS


def test_a_factor_without_floats_near_it_is_refused():
    tiny = Fraction(1, 3) / 2**1060  # a subnormal number has not the bits
    assert np.isnan(row(([0.0] * 3, 0.0), as_floats(tiny))).all()
    assert np.isnan(as_floats(Fraction(10) ** 400)[0]).all()


def near_ties(count, error, rng):
    """Of maps whose exact value is within 2B' of a midpoint of two float32, with constants off by `error`*u: (decided, decided wrongly)."""
    x, g = rng.standard_normal((2, count)).astype(np.float32)
    near, above = np.empty((count, 5)), []
    for i in range(count):
        m0, s, t = (float(v) for v in rng.standard_normal(3) * 10.0 ** rng.integers(-3, 3, 3))
        m1 = m0 * UNIT * rng.uniform(-1, 1)
        off = [Fraction(UNIT * error * v) for v in rng.choice([-1.0, 1.0], 3)]
        centered = Fraction(float(x[i])) - Fraction(m0) - Fraction(m1)
        terms = centered * Fraction(s) * (1 + off[0]) + Fraction(float(g[i])) * Fraction(t) * (1 + off[1])
        tie = Fraction(np.float32(2.0 ** rng.integers(-3, 3)).item()) * (1 + Fraction(1, 2**24))
        size = abs(s) * (abs(float(x[i]) - m0) + abs(m1)) + abs(float(g[i]) * t) + abs(float(tie - terms))
        shift = tie - terms + Fraction(rng.uniform(-2, 2) * NEAR * UNIT * size)
        near[i] = m0, m1, s, t, float(shift / (1 + off[2]))
        above.append(terms + Fraction(near[i, 4]) * (1 + off[2]) > tie)
    y = np.empty(count, np.float32)
    doubt = settle(x, g, near, (1, count, 1), y)
    decided = np.setdiff1d(np.arange(count), doubt)
    higher = y.view(np.int32) & 1 == 1  # the midpoint lies above a power of two, whose last bit is 0
    return decided.size, int(np.count_nonzero(higher[decided] != np.array(above)[decided]))


def test_settle_is_right_next_to_ties():
    """With constants that are off by all that is granted; by more, it is caught."""
    decided, wrong = near_ties(4000, 16, np.random.default_rng(3))
    assert 400 < decided < 3600
    assert wrong == 0
    assert near_ties(4000, 200, np.random.default_rng(3))[1] > 0


def test_settle_leaves_what_is_not_certain():
    """A NaN, an infinity, a tie, and a zero whose sign is not known, alone in their planes; not an exact zero, nor what overflows float32."""
    near = np.array([[0.0, 0.0, 1.0, 0.0, b] for b in (0, 0, 2.0**-24, 0, 2.0**-299, 0, 2.0**200)])
    x = np.array([np.nan, np.inf, 1, -0.0, 0, 2, 1], np.float32)
    y = np.empty(7, np.float32)
    assert settle(x, x, near, (1, 7, 1), y).tolist() == [0, 1, 2, 4]
    assert y[[3, 5, 6]].tolist() == [0, 2, np.inf]
    assert not np.signbit(y[3])
    assert settle(x[:3].copy(), x[:3].copy(), near, (1, 1, 3), y[:3]).tolist() == [0]
