"""Estimators for discrete choices: exact means by enumeration of all outcomes."""

import importlib

import numpy as np
import pytest

from npreparam import ops
from npreparam._errors import ArgumentError
from npreparam.prob import (
    Bernoulli,
    Categorical,
    Normal,
    score_function,
    straight_through,
)
from tests.tolerances import assert_within, relative_bound

score_module = importlib.import_module("npreparam.prob.estimators.score_function")  # the package has a function of the same name


def quadratic(k):
    return lambda z: ops.square(ops.sub(z, k))


def check_enumerated(baseline):
    """The mean over all outcomes of 3 draws of a Bernoulli is the true gradient f(1) - f(0)."""
    p, f = 0.3, lambda z: ops.add(ops.mul(z, 5.0), 2.0)
    total = magnitude = 0.0
    for i in range(8):
        z = np.array([(i >> j) & 1 for j in range(3)], float)
        g = score_function(f, Bernoulli, {"probs": p}, baseline=baseline, eps=np.where(z == 1, p / 2, (1 + p) / 2))["probs"]
        weight = np.prod(np.where(z == 1, p, 1 - p))
        total, magnitude = total + weight * g.mean(), magnitude + weight * np.abs(g).mean()
    assert_within(total, 5.0, relative_bound(64, magnitude, np.float64))


@pytest.mark.parametrize("baseline", [None, 4.0, "leave_one_out", "optimal"])
def test_score_function_of_a_bernoulli_is_unbiased_exactly(baseline):
    check_enumerated(baseline)


def test_score_function_of_a_categorical():
    p = np.array([0.2, 0.5, 0.3])
    f = np.array([1.0, -2.0, 4.0])
    logits, eps = np.log(p), np.cumsum(p) - p / 2
    g = score_function(lambda z: f[z.value.astype(int)], Categorical, {"logits": logits}, eps=eps)["logits"]
    assert_within((p[:, None] * g).sum(0), p * (f - (p * f).sum()), relative_bound(64, 4.0, np.float64))


def test_planted_baseline_of_all_samples_is_biased(monkeypatch):
    """The sample's own value in its baseline: seen exactly by enumeration, where it is (S - 1)/S of the gradient."""
    monkeypatch.setattr(score_module, "_of_others", lambda terms: np.broadcast_to(terms.sum(0) * (len(terms) - 1) / len(terms), terms.shape))
    with pytest.raises(AssertionError):
        check_enumerated("leave_one_out")


def test_straight_through_is_exact_for_an_affine_objective_and_biased_otherwise():
    p = 0.3
    eps, weights = np.array([p / 2, (1 + p) / 2]), np.array([p, 1 - p])

    def mean(f):
        return (weights * straight_through(f, Bernoulli, {"probs": p}, eps=eps)["probs"]).sum()

    assert_within(mean(lambda z: ops.mul(z, 3.0)), 3.0, relative_bound(16, 3.0, np.float64))
    assert_within(mean(quadratic(0.25)), 2 * (p - 0.25), relative_bound(16, 2.0, np.float64))  # the truth is 1 - 2*0.25
    logits = np.array([0.5, -1.0, 0.0])
    weigh = np.array([1.0, 2.0, 5.0])
    g = straight_through(lambda z: ops.sum(ops.mul(z, weigh), axis=-1), Categorical, {"logits": logits}, 4, rng=0)["logits"]
    q = np.exp(logits) / np.exp(logits).sum()
    assert g.shape == (4, 3)
    assert_within(g, np.broadcast_to(q * (weigh - (q * weigh).sum()), g.shape), relative_bound(64, 5.0, np.float64))


def test_straight_through_shows_the_choice_to_the_objective():
    seen = []
    straight_through(lambda z: (seen.append(z.value), ops.sum(z, axis=-1))[1], Categorical, {"probs": np.array([0.5, 0.25, 0.25])},
                     eps=np.array([0.1, 0.6, 0.9]))
    assert (seen[0] == np.eye(3)).all()
    with pytest.raises(ArgumentError, match="makes a Normal, but straight-through gradients are for Bernoulli and Categorical"):
        straight_through(ops.square, Normal, {"loc": 0.0, "scale": 1.0}, 3, rng=0)
