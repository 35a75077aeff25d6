"""Sums of a/sqrt(v): a ring, compared exactly and rounded correctly; mpmath at many bits is the witness."""

from fractions import Fraction

import mpmath
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from npreparam.exact.rounding import FORMATS
from npreparam.exact.surds import Surd, inverse_root, round_surd
from tests.exact.certificate import certify
from tests.tolerances import assert_within, relative_bound

radicands = st.sampled_from([Fraction(2), Fraction(3), Fraction(8), Fraction(1, 2), Fraction(9, 4), Fraction(6), Fraction(75, 100)])
rationals = st.fractions(-8, 8, max_denominator=16)
surds = st.builds(lambda r, terms: sum((a * inverse_root(v) for a, v in terms), r), rationals,
                  st.lists(st.tuples(rationals, radicands), max_size=3))


def real(number):
    terms = number.terms if isinstance(number, Surd) else {Fraction(1): number}
    return mpmath.fsum(mpmath.mpf(a.numerator) / a.denominator / mpmath.sqrt(mpmath.mpf(v.numerator) / v.denominator)
                       for v, a in ((v, Fraction(a)) for v, a in terms.items()))


@given(surds, surds, surds)
def test_a_ring(a, b, c):
    assert (a + b) * c == a * c + b * c
    assert a * b == b * a
    assert a - a == 0
    assert -(a - b) == b - a
    assert 1 - a == -(a - 1)
    with mpmath.workprec(300):
        assert abs(real(a * b) - real(a) * real(b)) < mpmath.mpf(2) ** -250
        assert abs(real(a + b) - real(a) - real(b)) < mpmath.mpf(2) ** -250


@given(surds, surds)
def test_equality_is_that_of_the_real_numbers(a, b):
    with mpmath.workprec(400):
        assert (a == b) == (abs(real(a) - real(b)) < mpmath.mpf(2) ** -300)


def test_hand_worked():
    half, eighth = inverse_root(Fraction(2)), inverse_root(Fraction(8))
    assert half == 2 * eighth
    assert half != eighth
    assert half * half == Fraction(1, 2)
    assert half * eighth == Fraction(1, 4)
    assert inverse_root(Fraction(1, 4)) == 2
    assert half - 2 * eighth == 0
    assert_within(float(half), 0.5**0.5, relative_bound(4, 1, np.float64))  # two roundings on each side
    assert repr(half) == "1/sqrt(2)"
    assert repr(Surd({})) == "0"


@given(surds, st.sampled_from(["float16", "float32", "float64"]))
def test_rounding_certificate(number, name):
    form = FORMATS[name]
    rounded = np.array(round_surd(number, form), form.bits).view(name)
    with mpmath.workprec(400):
        value = real(number)
        if number == 0:
            assert rounded == 0
        else:
            certify(rounded, value)
