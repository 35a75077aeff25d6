"""IWAE bound, DReG and sticking the landing: exact expectations by quadrature over the draws, so that nothing is left to chance."""

import importlib
import math

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npreparam import ops
from npreparam._errors import ArgumentError, ShapeError
from npreparam.prob import Independent, Normal, dreg, iwae_bound, iwae_pathwise, sticking_the_landing
from npreparam.tape import Tensor, check_grads, grad
from tests.prob import expectation as ex
from tests.tolerances import assert_within, function_bound, relative_bound

importance = importlib.import_module("npreparam.prob.estimators.importance")
NEAR, FAR = (0.1, 0.9), (1.0, 0.5)  # loc and scale of q, from the posterior N(0, 1)
CONSTANT = -1.25  # log p(x)


def log_joint(z):
    return ops.add(Normal(0.0, 1.0).log_prob(z), CONSTANT)


def parameters(place):
    return {"loc": place[0], "scale": place[1]}


def nodes(count, k):
    """Nodes (count^k, k) and weights of k independent normal draws."""
    x, w = ex.normal_nodes(count)
    grid = np.stack(np.meshgrid(*[x] * k, indexing="ij"), -1).reshape(-1, k)
    return grid, np.prod(np.stack(np.meshgrid(*[w] * k, indexing="ij"), -1).reshape(-1, k), axis=1)


def exact(estimator, place, k, count=40):
    """(mean, variance) of both gradients, and the bound on the mean's error."""
    found = []
    (eps, w), (rough, v) = nodes(count, k), nodes(count * 3 // 4, k)
    fine, coarse = (estimator(log_joint, Normal, parameters(place), k=k, eps=e) for e in (eps, rough))
    for name in ("loc", "scale"):
        mean, variance, _ = ex.moments(fine[name], w)
        magnitude = (w * np.abs(fine[name])).sum()
        found.append((mean, variance, ex.quadrature_bound((v * coarse[name]).sum(), mean, len(w), magnitude)))
    return found


def expected_bound(bound, k, place=NEAR, count=24):
    """E[L_k] by quadrature."""
    eps, w = nodes(count, k)
    q = Normal(*place)
    z = q.rsample(eps=eps)
    return (w * bound(log_joint(z) - q.log_prob(z))).sum()


# the bound


def check_bound_increases(bound=iwae_bound):
    """E[L_1] is the ELBO, log p(x) - KL; then strictly upwards, and never beyond log p(x)."""
    mu, sigma = NEAR
    found = [expected_bound(bound, k) for k in (1, 2, 3)]
    elbo = CONSTANT - (sigma**2 + mu**2 - 1 - 2 * math.log(sigma)) / 2
    assert_within(found[0], elbo, ex.quadrature_bound(expected_bound(bound, 1, count=18), found[0], 24, 4.0))
    assert found[0] < found[1] < found[2] < CONSTANT


def test_the_bound_increases_with_k_from_the_elbo():
    check_bound_increases()


def test_planted_mean_of_logarithms():
    with pytest.raises(AssertionError):
        check_bound_increases(lambda log_w: np.mean(log_w, -1))


@given(hnp.arrays(np.float64, st.integers(2, 6), elements=st.floats(-800, 800)))
def test_a_bound_is_at_least_the_mean_of_those_without_one_draw(log_w):
    """Jensen: log of a mean >= mean of logarithms, for every set of weights; from which E[L_k] >= E[L_(k-1)] follows."""
    k = len(log_w)
    fewer = np.mean([iwae_bound(np.delete(log_w, i)) for i in range(k)])
    slack = relative_bound(16 + 2 * k, np.abs(log_w).max() + math.log(k), np.float64)
    assert iwae_bound(log_w) >= fewer - slack
    assert log_w.mean() - slack <= iwae_bound(log_w) <= log_w.max() + slack


def test_the_bound_of_hand_worked_weights():
    log_w = np.log(np.array([[1.0, 2.0, 6.0], [0.5, 0.5, 0.5]]))
    assert_within(iwae_bound(log_w), np.log([3.0, 0.5]), function_bound(8, np.array([2.0, 2.0]), np.float64))
    assert_within(iwae_bound(log_w, axis=0), np.log([0.75, 1.25, 3.25]), function_bound(8, np.full(3, 2.0), np.float64))
    assert iwae_bound(np.array([1e3, 1e3])) == 1e3
    assert iwae_bound(np.array([-np.inf, 0.0])) == -math.log(2)
    assert iwae_bound(np.array([-np.inf, -np.inf])) == -np.inf
    assert iwae_bound(np.array([[7.0]], np.float32)).dtype == np.float32
    for bad, error in ((np.zeros((3, 0)), ShapeError), (np.zeros(()), ArgumentError)):
        with pytest.raises(error):
            iwae_bound(bad)
    with pytest.raises(ArgumentError, match="axis"):
        iwae_bound(np.zeros(3), axis=1)


def test_the_gradient_of_the_bound_is_the_normalized_weights():
    log_w = Tensor(np.log(np.array([1.0, 2.0, 5.0])))
    assert_within(grad(iwae_bound(log_w), log_w), np.array([1, 2, 5]) / 8, function_bound(8, np.ones(3), np.float64))
    check_grads(iwae_bound, [np.array([0.3, -2.0, 1.0])])


# gradients


def check_unbiased(estimator, place, k):
    """Its mean against that of the gradient of the bound; for one draw, against the ELBO's closed form."""
    truth = [(m, b) for m, _, b in exact(iwae_pathwise, place, k)]
    if k == 1:
        truth = [(-place[0], 0), (1 / place[1] - place[1], 0)]
    for (mean, _, bound), (expected, other) in zip(exact(estimator, place, k), truth, strict=True):
        assert_within(mean, expected, bound + other)


def one_draw(*args, k, eps):
    """STL with the arguments of the others."""
    assert k == 1
    return sticking_the_landing(*args, eps=eps[:, 0])


@pytest.mark.parametrize("place", [NEAR, FAR, (0.0, 1.0), (2.0, 0.5)])
def test_unbiased_everywhere(place):
    check_unbiased(iwae_pathwise, place, 1)
    check_unbiased(one_draw, place, 1)
    check_unbiased(dreg, place, 1)
    check_unbiased(dreg, place, 2)


def test_the_pathwise_gradient_is_that_of_the_bound():
    """The mean over noise of the gradients is the gradient of the mean, which central differences check."""
    eps, w = nodes(16, 2)

    def bound(mu, sigma):
        q = Normal(mu, sigma)
        z = q.rsample(eps=eps)
        return ops.sum(ops.mul(iwae_bound(ops.sub(log_joint(z), q.log_prob(z))), w))

    place = [np.array(value) for value in NEAR]
    check_grads(bound, place, order=1)
    leaves = [Tensor(value) for value in place]
    found = iwae_pathwise(log_joint, Normal, parameters(NEAR), k=2, eps=eps)
    for name, g in zip(("loc", "scale"), grad(bound(*leaves), leaves), strict=True):
        assert_within((w * found[name]).sum(), g, relative_bound(len(w) + 256, (w * np.abs(found[name])).sum(), np.float64))


def test_dreg_has_the_lower_variance_near_the_posterior_and_the_higher_far_from_it():
    for place, lower in ((NEAR, True), (FAR, False)):
        for (_, ordinary, _), (_, double, _) in zip(exact(iwae_pathwise, place, 2), exact(dreg, place, 2), strict=True):
            assert (10 * double < ordinary) if lower else (double > 2 * ordinary)


def test_both_are_zero_at_the_posterior_for_every_sample_and_the_full_gradient_is_not():
    q = {"loc": np.array([0.3, -2.0]), "scale": np.array([0.7, 1.9])}

    def posterior(z):
        return ops.sum(Normal(q["loc"], q["scale"]).log_prob(z), axis=-1)

    for g in (*sticking_the_landing(posterior, Normal, q, 100, rng=0).values(), *dreg(posterior, Normal, q, 100, k=3, rng=0).values()):
        assert (g == 0).all()
    assert all((g != 0).any() for g in iwae_pathwise(posterior, Normal, q, 100, rng=0).values())


def test_one_draw_of_dreg_is_sticking_the_landing():
    eps = np.random.default_rng(0).standard_normal((50, 1))
    one, other = dreg(log_joint, Normal, parameters(FAR), eps=eps), sticking_the_landing(log_joint, Normal, parameters(FAR), eps=eps[:, 0])
    assert all((one[name] == other[name]).all() for name in one)


def test_draws_of_a_batch_share_one_row_of_parameters():
    """Against a loop over samples, with two latent dimensions and k = 3."""
    loc, scale = np.array([0.5, -1.0]), np.array([0.8, 1.2])
    eps = np.random.default_rng(1).standard_normal((4, 3, 2))

    def family(loc, scale):
        return Independent(Normal(loc, scale), 1)

    def joint(z):
        return ops.sum(Normal(0.0, 1.0).log_prob(z), axis=-1)

    found = iwae_pathwise(joint, family, {"loc": loc, "scale": scale}, k=3, eps=eps)
    for s in range(4):
        leaves = {"loc": Tensor(loc), "scale": Tensor(scale)}
        q = family(**leaves)
        z = q.rsample(eps=eps[s])
        for name, g in grad(iwae_bound(ops.sub(joint(z), q.log_prob(z))), leaves).items():
            assert_within(found[name][s], g, function_bound(64, np.full(2, np.abs(eps[s]).max() ** 2 + 4), np.float64))


def test_planted_dreg_with_weights_not_squared(monkeypatch):
    right = importance._shares
    monkeypatch.setattr(importance, "_shares", lambda log_w, k: np.sqrt(right(log_w, k)))
    with pytest.raises(AssertionError):
        check_unbiased(dreg, NEAR, 2)


def test_planted_density_not_held_still(monkeypatch):
    """Then sticking the landing is the full gradient, which is not 0 at the posterior; and DReG is biased."""
    monkeypatch.setattr(importance.Rows, "stopped", lambda rows, family: rows.rows)
    assert (sticking_the_landing(log_joint, Normal, parameters((0.0, 1.0)), 10, rng=0)["loc"] != 0).any()
    with pytest.raises(AssertionError):
        check_unbiased(dreg, NEAR, 2)


def test_bad_arguments_are_refused():
    for estimator in (iwae_pathwise, dreg):
        with pytest.raises(ArgumentError, match=r"`k` \(=0\) must be positive"):
            estimator(log_joint, Normal, parameters(NEAR), 3, k=0, rng=0)
        with pytest.raises(ShapeError, match=r"`eps` has shape \(4, 3\), but must have shape \(samples, 2\)"):
            estimator(log_joint, Normal, parameters(NEAR), k=2, eps=np.zeros((4, 3)))
        with pytest.raises(ShapeError, match=r"`log_joint` returned shape \(\)"):
            estimator(ops.sum, Normal, parameters(NEAR), 3, k=2, rng=0)
