"""Balls hold what they should, and round only what they know."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npreparam.exact.balls import BITS, Ball, round_ball
from npreparam.exact.roots import InverseRoot
from npreparam.exact.rounding import FORMATS, round_to_bits

rationals = st.fractions(min_value=-1000, max_value=1000, max_denominator=10**6) | st.floats(-1e6, 1e6).map(Fraction)
positive = st.fractions(min_value=Fraction(1, 1000), max_value=1000, max_denominator=10**6)


def check(ball, value):
    """The one checker."""
    assert ball.holds(value)
    assert ball.rad <= 2**40  # no wider than needed: 280 bits are left


@given(rationals, rationals, rationals)
def test_arithmetic_holds_the_exact_results(a, b, c):
    x, y, z = map(Ball.of, (a, b, c))
    for ball, value in ((x, a), (x + y, a + b), (x - y, a - b), (-x, -a), (x * y, a * b), (x * y + z, a * b + c), (x * (y - z), a * (b - c)),
                        (x * b, a * b), (b + x, a + b), (b - x, b - a), (x * y * z, a * b * c)):
        check(ball, value)
        if ball.rad:
            with pytest.raises(AssertionError):  # a ball that lost its radius holds none of these
                check(Ball(ball.mid + 2 * ball.rad), value)


@given(positive)
def test_inverse_roots(v):
    ball = Ball.inverse_root(v)
    low, high = InverseRoot(v).between(200)
    assert ball.mid - ball.rad <= high * 2**BITS
    assert low * 2**BITS <= ball.mid + ball.rad
    assert Fraction(ball.mid - ball.rad, 2**BITS) ** 2 * v <= 1 <= Fraction(ball.mid + ball.rad, 2**BITS) ** 2 * v
    assert ball.rad <= 1


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_are_held(value):
    check(Ball.of_float(value), Fraction(value))
    assert Ball.of_float(value) == Ball.of(Fraction(value)) or abs(value) < 2.0**-200


def test_what_is_exact_stays_exact():
    assert Ball.inverse_root(Fraction(9, 4)).rad == 1
    assert Ball.inverse_root(Fraction(1, 4)) == Ball.of(2)
    assert (Ball.of(Fraction(3, 2**149)) * Ball.of(Fraction(5, 2**24))).rad == 0


@given(rationals, st.sampled_from(sorted(FORMATS)))
def test_rounding_is_that_of_the_exact_number(value, name):
    form = FORMATS[name]
    bits = round_ball(Ball.of(value), form)
    assert bits is None or bits == round_to_bits(value, form)
    assert bits is not None or Ball.of(value).rad


@pytest.mark.parametrize("name", ["float16", "float32", "float64"])
def test_a_tie_is_decided_only_where_it_is_known(name):
    form = FORMATS[name]
    tie = Fraction(1) + Fraction(1, 2**form.precision)
    assert round_ball(Ball.of(tie), form) == round_to_bits(Fraction(1), form)
    assert round_ball(Ball(Ball.of(tie).mid, 1), form) is None
    assert round_ball(Ball(Ball.of(tie).mid + 2, 1), form) == round_to_bits(tie + Fraction(1, 2**BITS), form)
    assert round_ball(Ball(0, 1), form) is None  # +0 or -0
