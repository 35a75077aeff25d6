"""Certified batch norm in float32, which seldom needs exact constants: against `exact` where floats near them must not be trusted."""

import sys
from fractions import Fraction

import numpy as np
import pytest

from npreparam.certified import _affine
from npreparam.certified.batch_norm import batch_norm, batch_norm_grad
from tests.certified.test_batch_norm import agree, vectors
from tests.tolerances import assert_same_bits

module = sys.modules["npreparam.certified.batch_norm"]  # the package's attribute of this name is the function


def test_float32_seldom_needs_exact_constants(monkeypatch):
    """Not in 2304 elements, where a doubt comes about once in 10^6; running statistics and channel gradients included."""
    def fail(*args, **more):
        raise AssertionError("exact constants")

    rng = np.random.default_rng(10)
    x, gy = (rng.standard_normal((4, 9, 8, 8)).astype(np.float32) for _ in range(2))
    gamma, beta, mean, var = vectors(rng, 9, np.dtype(np.float32))
    for training in (False, True):
        want = batch_norm(x, gamma, beta, mean, var, training).value, batch_norm_grad(gy, x, gamma, mean, var, training).value
        with monkeypatch.context() as patch:
            for name in ("row", "round_sum", "round_blend"):
                patch.setattr(module, name, fail)
            got = batch_norm(x, gamma, beta, mean, var, training).value, batch_norm_grad(gy, x, gamma, mean, var, training).value
        for a, b in zip((*got[0], *got[1]), (*want[0], *want[1]), strict=True):
            assert_same_bits(a, b)


@pytest.mark.parametrize("scale", [2.0**-1060, 2.0**-500, 2.0**-299, 2.0**299, 2.0**500, 2.0**1000])
@pytest.mark.parametrize("place", range(4))
def test_float32_with_constants_of_any_size(scale, place):
    """gamma, beta, running mean or variance float64, so large or small that products of floats would over- or underflow; and all of them."""
    rng, kind = np.random.default_rng(11), np.dtype(np.float64)
    x, gy = (rng.standard_normal((3, 2, 2, 2)).astype(np.float32) for _ in range(2))
    x[:, 1] *= np.float32(2.0**-70)
    for moved in ([place], range(4)):
        stats = vectors(rng, 2, kind)
        for i in moved:
            stats[i] = stats[i] * scale
        agree(x, gy, stats, eps=Fraction(1, 3 * 2**1072))
        agree(x, gy, stats, eps=2.0**-40)


def test_signs_of_zeros():
    """gamma = 0 or x = mean leave beta alone, and a beta of -0 is the number 0, which is +0."""
    x = np.array([[1, -3, 5], [1, 4, -6]], np.float32)
    for beta in (-0.0, 0.0, -2.0**-149):
        for gamma in (-0.0, 0.0, -1.0):
            agree(x, -x, [np.full(3, v, np.float32) for v in (gamma, beta, -3, 1)])


def test_running_statistics_that_are_not_kept_may_be_infinite():
    """With a momentum of 1, 0*inf is NaN and no warning."""
    x, one = np.array([[1], [3]], np.float32), np.ones(1, np.float32)
    _, mean, var = batch_norm(x, one, one, np.inf * one, np.inf * one, training=True, momentum=1.0).value
    assert np.isnan(mean).all()
    assert np.isnan(var).all()


def test_variances_and_eps_of_opposite_signs():
    x = np.random.default_rng(12).standard_normal((3, 2)).astype(np.float32)
    one = np.ones(2, np.float32)
    agree(x, x, [one, one, one, -one / 3], eps=0.5)
    agree(x, x, [one, one, one, one], eps=-2.0**-60)


@pytest.mark.parametrize("name", ["float32", "float64"])
def test_vectors_of_rationals_and_integers(name):
    x = np.random.default_rng(13).standard_normal((3, 2, 2, 2)).astype(name)
    thirds, whole = np.array([Fraction(1, 3), Fraction(10**400, 7)]), np.array([3, 2**60 + 1])
    agree(x, -x, [thirds, whole, whole, thirds])
    agree(x, -x, [whole, thirds, thirds, whole])


@pytest.mark.parametrize("column", [0, 2, 3, 4])
def test_float32_constants_off_by_more_than_is_granted_are_caught(monkeypatch, column):
    near_table = _affine.near_table

    def careless(*columns):
        table = near_table(*columns)
        table[:, column] *= 1 + 2.0**-26
        return table

    monkeypatch.setattr(module, "near_table", careless)
    rng = np.random.default_rng(14)
    x, gy = (rng.standard_normal((20, 3, 3, 3)).astype(np.float32) for _ in range(2))
    with pytest.raises(AssertionError):
        agree(1 + x, 1 + gy, vectors(rng, 3, np.dtype(np.float32)))
