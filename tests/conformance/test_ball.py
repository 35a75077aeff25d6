"""Balls: float32 arithmetic stays within the radii, and the radii are not idle."""

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from npreparam.certified.bounds import FLOAT32
from npreparam.conformance.mistakes._ball import Ball

NUMBERS = st.floats(-8, 8, width=32)
VECTORS = st.lists(st.tuples(NUMBERS, NUMBERS), min_size=2, max_size=6)


def lifted(x):
    return Ball(x.astype(np.float64), 0.0, FLOAT32)


def formula(x, y):
    """Sums, products, quotients, roots and functions, one after the other."""
    square = np.mean(x * x, axis=0, keepdims=True) + 0.5
    scaled = (x - y) / np.sqrt(square) * y + np.sum(x, axis=0, keepdims=True)
    return np.log(1.0 + np.exp(np.where(scaled > 4, 4.0, scaled))) - np.tanh(scaled[::-1])


@given(VECTORS)
def test_float32_stays_within_the_radii(rows):
    x, y = np.array(rows, np.float32).T
    ball = formula(lifted(x), lifted(y))
    assert (np.abs(formula(x, y) - ball.value) <= 2 * ball.radius).all()


@given(NUMBERS, NUMBERS)
def test_single_operations_hold_the_exact_result(a, b):
    x, y = np.float32([a]), np.float32([b])
    exact = {"+": Fraction(a) + Fraction(b), "-": Fraction(a) - Fraction(b), "*": Fraction(a) * Fraction(b)}
    found = {"+": lifted(x) + lifted(y), "-": lifted(x) - lifted(y), "*": lifted(x) * lifted(y)}
    for sign, value in exact.items():
        assert abs(Fraction(float(found[sign].value[0])) - value) <= Fraction(float(found[sign].radius[0]))


def test_cancellation_is_seen():
    x = np.float32([1e4, 1e4 + 1, 1e4 + 2, 1e4 + 3])
    one_pass = np.mean(lifted(x) * lifted(x)) - np.mean(lifted(x)) * np.mean(lifted(x))
    assert one_pass.value == 1.25
    assert one_pass.radius > 1.25  # so that its float32 value may well be 0
    assert np.sqrt(one_pass).radius == np.inf  # or negative


def test_radii_are_not_idle():
    third = lifted(np.float32([1])) / 3
    assert 2.0**-26 < third.radius[0] < 2.0**-25
    assert (third * 4.0).radius[0] == 4 * third.radius[0]  # a power of two rounds nothing
    assert np.full_like(third, 1.0).radius[0] == 0


def test_the_format_ends_where_float32_does():
    big = np.exp(lifted(np.float32([88.0, 89.0, -104.0])))
    assert np.isfinite(big.value[0])
    assert big.value[1] == np.inf
    assert big.value[2] == 0


def test_moving_elements_moves_their_radii():
    ball = Ball(np.arange(4.0).reshape(2, 2), np.array([[1.0, 2.0], [3.0, 4.0]]), FLOAT32)
    for move in (np.transpose, np.ravel, lambda v: v[::-1], lambda v: np.pad(v, 1), lambda v: np.stack([v, v]), lambda v: v.reshape(4), lambda v: v.T,
                 lambda v: np.where(np.eye(2) == 1, v, 0.0), lambda v: np.swapaxes(v, 0, 1), lambda v: np.max(v, axis=0)):
        np.testing.assert_array_equal(move(ball).radius, move(ball.radius))
        np.testing.assert_array_equal(move(ball).value, move(ball.value))
