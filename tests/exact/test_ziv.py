"""The narrowing loop and the brackets it narrows, each against mpmath and against faults planted in them."""

import itertools
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npreparam.exact import elementary
from npreparam.exact.rounding import FORMATS, round_to_bits
from npreparam.exact.ziv import EXTRA_BITS, encloses, halfway, round_real
from tests.exact.certificate import certify, real

HALF = FORMATS["float16"]
FAR = 2**14


def around(value, left=1, right=1):
    """A bracket of a value, narrower with every bit."""
    return lambda bits: (value - Fraction(left, 2**bits), value + Fraction(right, 2**bits))


def mpf(value):
    return mpmath.mpf(value.numerator) / value.denominator


def test_halfway_points_lie_halfway():
    """All of float16, whose values, as float64, are numbers of themselves."""
    values = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float64)
    numbers = [Fraction(v) for v in values.tolist()] + [Fraction(2) ** 16]
    for index, (low, high) in enumerate(itertools.pairwise(numbers)):
        assert halfway(2 * index, HALF) == low
        assert halfway(2 * index + 1, HALF) == (low + high) / 2


@given(st.fractions(min_value=-70000, max_value=70000).filter(bool), st.integers(0, 60), st.integers(0, 60))
def test_encloses_where_both_ends_round_alike(low, left, right):
    high = low + abs(low) * Fraction(left, 2**right)
    bits = round_to_bits((low + high) / 2, HALF)
    same = round_to_bits(low, HALF) == round_to_bits(high, HALF)
    halfway_end = {low, high} & {halfway(2 * (bits & 0x7FFF) + step, HALF) * (-1) ** (bits >> 15) for step in (-1, 1)}
    assert encloses(bits, low, high, HALF) == same or halfway_end


def test_the_loop_goes_on_as_long_as_the_answer_is_open():
    """1 + 2^-11 is halfway between 1 and its successor; 2^-500 above or below decides, and takes 680 bits."""
    one = int(np.float16(1).view(np.uint16))
    asked = []

    def bracket(bits, sign):
        asked.append(bits)
        return around(1 + Fraction(1, 2**11) + Fraction(sign, 2**500))(bits)

    assert round_real(lambda bits: bracket(bits, -1), HALF) == one
    assert asked == [(HALF.precision + EXTRA_BITS) * 2**k for k in range(5)]
    assert round_real(lambda bits: bracket(bits, 1), HALF) == one + 1


@pytest.mark.parametrize("tie", [1 + Fraction(1, 2**11), Fraction(1, 2**25), Fraction(65520), -1 - Fraction(3, 2**11)])
def test_a_missing_exact_case_raises_instead_of_going_on_for_ever(tie):
    with pytest.raises(ArithmeticError, match="it seems to lie on it"):
        round_real(around(tie), HALF)
    assert round_real(lambda bits: (tie, tie), HALF) == round_to_bits(tie, HALF)


def test_a_bracket_that_stays_wide_raises():
    with pytest.raises(ArithmeticError, match="16384 bits do not tell"):
        round_real(lambda bits: (Fraction(1), Fraction(2)), HALF)


def test_the_sign_of_zero_is_decided_too():
    assert round_real(around(Fraction(1, 2**200)), HALF) == 0
    assert round_real(around(Fraction(-1, 2**200)), HALF) == 0x8000
    with pytest.raises(ArithmeticError):
        round_real(around(Fraction(0)), HALF)


def test_a_bracket_that_is_too_narrow_is_caught():
    """exp to eight bits, passed off as exact."""
    wrong = 0
    for x in np.linspace(0.1, 3, 30, dtype=np.float16):
        low, _ = elementary.exp_between(Fraction(float(x)), 8 - elementary.GUARD)
        y = np.array(round_real(around(low), HALF), np.uint16).view(np.float16)[()]
        try:
            certify(y, real(mpmath.exp, x))
        except AssertionError:
            wrong += 1
    assert wrong > 20


rationals = st.builds(lambda m, e: Fraction(m) * Fraction(2) ** e, st.integers(-(2**60), 2**60).filter(bool), st.integers(-400, -50))
BRACKETS = {"exp": (elementary.exp_between, mpmath.exp, False), "expm1": (elementary.expm1_between, mpmath.expm1, False),
            "log": (elementary.log_between, mpmath.log, True), "sqrt": (elementary.sqrt_between, mpmath.sqrt, True)}


@pytest.mark.parametrize("name", list(BRACKETS))
@given(rationals, st.integers(8, 300))
def test_brackets_enclose_and_are_narrow(name, x, bits):
    between, witness, positive = BRACKETS[name]
    x = abs(x) if positive else x
    low, high = between(x, bits)
    with mpmath.workprec(FAR):
        value = witness(mpf(x))
        assert mpf(low) <= value <= mpf(high)
    assert (high - low) * 2 ** (bits - 1) <= abs(low)


@pytest.mark.parametrize("name", list(BRACKETS))
@given(st.fractions(min_value=Fraction(-4000), max_value=4000, max_denominator=10**9).filter(bool), st.integers(8, 100))
def test_brackets_of_other_rationals(name, x, bits):
    between, witness, positive = BRACKETS[name]
    x = abs(x) if positive else x
    low, high = between(x, bits)
    with mpmath.workprec(FAR):
        value = witness(mpf(x))
        assert mpf(low) <= value <= mpf(high) or (low == high and abs(mpf(low) - value) <= abs(value) * mpmath.mpf(2) ** (8 - FAR))


def test_small_series_exhaustively():
    """Fixed point with very few bits, where every unit that is lost matters."""
    with mpmath.workprec(200):
        for w in range(1, 14):
            unit = mpmath.mpf(2) ** -w
            for n in range(41):
                low, high = elementary.fixed_atanh(Fraction(n, 120), w)
                assert low * unit <= mpmath.atanh(mpmath.mpf(n) / 120) <= high * unit
            low, high = elementary.fixed_log2(w)
            assert low * unit < mpmath.log(2) < high * unit


@pytest.mark.parametrize("bits", [8, 50, 500, 5000])
def test_pi(bits):
    low, high = elementary.pi_between(bits)
    with mpmath.workprec(FAR):
        assert mpf(low) < mpmath.pi < mpf(high)
    assert (high - low) * 2**bits < 1


def test_upper_ends_are_needed():
    """A series that forgot what it cut off would end below the value, and the tests above would see it."""
    third = Fraction(1, 3)
    with mpmath.workprec(FAR):
        assert mpf(elementary.exp_between(third, 60)[0]) < mpmath.exp(mpf(third))
        assert mpf(elementary.log_between(1 + third, 60)[0]) < mpmath.log(mpf(1 + third))
        assert mpf(Fraction(elementary.fixed_atanh(third, 60)[0], 2**60)) < mpmath.atanh(mpf(third))
