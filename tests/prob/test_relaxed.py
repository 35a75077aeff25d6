"""Straight-through choices: discrete values with the relaxed gradient; and the laws of the largest element."""

import numpy as np
import pytest

from npreparam import ops, prob
from npreparam.ops.select import straight_through
from npreparam.tape import Tensor, grad
from tests.prob.cases import dkw
from tests.tolerances import assert_within


def test_straight_through_has_the_value_of_one_and_the_gradient_of_the_other():
    soft, g = Tensor(np.array([0.2, 0.8])), np.array([3.0, -5.0])
    y = straight_through(soft, np.array([0.0, 1.0]))
    assert (y.value == [0, 1]).all()
    assert (grad(y, soft, g) == g).all()


@pytest.mark.parametrize("make", [lambda x: prob.RelaxedOneHotCategorical(0.3, logits=x), lambda x: prob.RelaxedBernoulli(0.3, logits=x)])
def test_straight_through_samples_are_binary_and_share_the_relaxed_gradient(make):
    logits = Tensor(np.array([0.4, -0.3, 1.0]))
    p = make(logits)
    eps, weight = p.noise((50,), 0), np.random.default_rng(1).standard_normal((50, 3))
    soft, hard = p.rsample(eps=eps), p.straight_through(eps=eps)
    assert set(np.unique(hard.value)) == {0.0, 1.0}
    assert (grad(ops.sum(ops.mul(hard, weight)), logits) == grad(ops.sum(ops.mul(soft, weight)), logits)).all()


def test_choices_have_the_probabilities_at_any_temperature():
    """Frequencies of classes are differences of an empirical cdf, so each lies within twice its bound."""
    probabilities, n = np.array([0.2, 0.5, 0.3]), 50_000
    for temperature in (0.1, 5.0):
        hard = prob.RelaxedOneHotCategorical(temperature, probabilities).straight_through((n,), rng=2)
        assert (hard.sum(-1) == 1).all()
        assert_within(hard.mean(0), probabilities, 2 * dkw(n))
    assert_within(prob.Categorical(probabilities).sample((n,), rng=2).mean(), 1.1, 6 * dkw(n))


def test_a_class_of_probability_zero_is_never_chosen():
    hard = prob.RelaxedOneHotCategorical(1.0, [0.0, 0.5, 0.5]).straight_through((1000,), rng=0)
    assert (hard[:, 0] == 0).all()
