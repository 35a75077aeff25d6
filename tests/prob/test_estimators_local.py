"""The local re-parameterization: the law of the outputs, exact gradients and variances by quadrature, and the comparison with drawn weights."""

import numpy as np
import pytest

from npreparam import ops
from npreparam._errors import ArgumentError, DTypeError, ShapeError
from npreparam.prob import local_linear, local_reparameterization, weight_reparameterization
from npreparam.prob.estimators import local
from npreparam.tape import check_grads
from tests.prob import expectation as ex
from tests.tolerances import assert_within, function_bound, relative_bound

X = np.array([[3.0, 4.0]])
WEIGHTS = {"loc": np.array([[0.5, -1.0]]), "scale": np.array([[0.25, 2.0]])}


def total(y):
    return ops.sum(y, axis=(1, 2))


def squares(y):
    return ops.sum(ops.square(y), axis=(1, 2))


def test_the_layer_against_its_definition():
    rng = np.random.default_rng(0)
    x, loc, scale, eps = (rng.standard_normal(s) for s in ((4, 3), (5, 3), (5, 3), (4, 5)))
    scale = np.abs(scale)
    y = local_linear(x, loc, scale, eps=eps)
    for n in range(4):
        for o in range(5):
            mean = sum(x[n, i] * loc[o, i] for i in range(3))
            deviation = np.sqrt(sum(x[n, i] ** 2 * scale[o, i] ** 2 for i in range(3)))
            size = np.abs(x[n] * loc[o]).sum() + deviation * abs(eps[n, o])
            assert_within(y[n, o], mean + deviation * eps[n, o], relative_bound(16, size, np.float64))
    check_grads(lambda x, loc, scale: local_linear(x, loc, scale, eps=eps), [x, loc, scale])
    assert (local_linear(x, loc, scale, rng=3) == local_linear(x, loc, scale, eps=np.random.default_rng(3).standard_normal((4, 5)))).all()


def test_a_row_of_zeros_has_no_noise_and_a_gradient():
    x = np.zeros((1, 2))
    assert (local_linear(x, WEIGHTS["loc"], WEIGHTS["scale"], rng=0) == 0).all()
    assert (local_reparameterization(squares, x, WEIGHTS, 4, rng=0)["scale"] == 0).all()


def by_quadrature(estimator, f):
    """Exact moments (O, I) of the gradients; the noise is one number for each weight, or one for the output."""
    x, w = ex.normal_nodes(12)
    if estimator is weight_reparameterization:
        eps, w = ex.product_nodes((x, w), (x, w))
    eps = (x if estimator is local_reparameterization else eps).reshape(len(w), 1, -1)
    found = estimator(f, X, WEIGHTS, eps=eps)
    return {name: [np.array(m) for m in zip(*(ex.moments(g[:, 0, i], w)[:2] for i in range(2)), strict=True)] for name, g in found.items()}


def check_quadratic(estimator):
    """E[y^2] = (x.loc)^2 + sum of x^2*scale^2: gradients 2*(x.loc)*x and 2*x^2*scale, either way."""
    found = by_quadrature(estimator, squares)
    m = (X * WEIGHTS["loc"]).sum()
    assert_within(found["loc"][0], 2 * m * X[0], relative_bound(512, 1000.0, np.float64))
    assert_within(found["scale"][0], 2 * X[0] ** 2 * WEIGHTS["scale"][0], relative_bound(512, 1000.0, np.float64))


@pytest.mark.parametrize("estimator", [local_reparameterization, weight_reparameterization])
def test_unbiased_for_a_square(estimator):
    check_quadratic(estimator)


def test_the_variance_is_lower_by_the_weight_s_share_of_the_output_s_variance():
    """f = y: g for scale_i is x_i*eps_i with drawn weights, and x_i*(x_i*scale_i/sd(y))*eps with noise for the output."""
    share = (X * WEIGHTS["scale"]) ** 2 / ((X * WEIGHTS["scale"]) ** 2).sum()
    drawn, here = (by_quadrature(estimator, total)["scale"][1] for estimator in (weight_reparameterization, local_reparameterization))
    assert_within(drawn, X[0] ** 2, relative_bound(512, X[0] ** 2, np.float64))
    assert_within(here, X[0] ** 2 * share[0], relative_bound(512, X[0] ** 2, np.float64))
    assert (here < drawn).all()


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_rows_of_a_batch_are_independent_only_with_noise_of_their_own(rows):
    """f = sum of N equal rows: the variance is N times one row's with noise for each output, N^2 times with one draw of the weights.

    Linear in the noise, so the variance is exactly the sum of squares of the gradients at unit vectors of noise.
    """
    x, one = np.repeat(X, rows, 0), by_quadrature(local_reparameterization, total)["scale"][1]
    here = local_reparameterization(total, x, WEIGHTS, eps=np.eye(rows).reshape(rows, rows, 1))["scale"]
    drawn = weight_reparameterization(total, x, WEIGHTS, eps=np.eye(2).reshape(2, 1, 2))["scale"]
    assert_within((here**2).sum(0)[0], rows * one, relative_bound(1024, rows * one, np.float64))
    assert_within((drawn**2).sum(0)[0], rows**2 * X[0] ** 2, relative_bound(1024, rows**2 * X[0] ** 2, np.float64))


def test_each_sample_agrees_with_the_layer():
    rng = np.random.default_rng(1)
    x, loc, scale, eps = rng.standard_normal((4, 3)), rng.standard_normal((2, 3)), rng.random((2, 3)) + 0.5, rng.standard_normal((5, 4, 2))
    seen = []
    local_reparameterization(lambda y: (seen.append(y.value), total(y))[1], x, {"loc": loc, "scale": scale}, eps=eps)
    for s in range(5):
        assert_within(seen[0][s], local_linear(x, loc, scale, eps=eps[s]), function_bound(16, np.full((4, 2), 40.0), np.float64))


def test_planted_scale_for_variance(monkeypatch):
    """sqrt left out: the noise is scaled by the variance."""
    monkeypatch.setattr(local, "_placed", lambda mean, variance, eps: ops.add(mean, ops.mul(variance, eps)))
    with pytest.raises(AssertionError):
        check_quadratic(local_reparameterization)


def test_bad_arguments_are_refused():
    for estimator in (local_reparameterization, weight_reparameterization):
        with pytest.raises(ShapeError, match=r"`loc` of `parameters` has shape \(1, 3\), but must have shape \(outputs, 2\)"):
            estimator(total, X, {"loc": np.zeros((1, 3)), "scale": WEIGHTS["scale"]}, 3, rng=0)
        with pytest.raises(ShapeError, match="`scale` of `parameters` is missing"):
            estimator(total, X, {"loc": WEIGHTS["loc"]}, 3, rng=0)
        with pytest.raises(ShapeError, match=r"`x` has shape \(2,\)"):
            estimator(total, X[0], WEIGHTS, 3, rng=0)
        with pytest.raises(ArgumentError, match="`scale` .* must be finite and positive".replace(" .*", r" \(.*\)")):
            estimator(total, X, {"loc": WEIGHTS["loc"], "scale": -WEIGHTS["scale"]}, 3, rng=0)
        with pytest.raises(DTypeError):
            estimator(total, X.astype(np.float32), WEIGHTS, 3, rng=0)
    with pytest.raises(ShapeError, match="`eps` has shape"):
        local_reparameterization(total, X, WEIGHTS, eps=np.zeros((3, 1, 2)))
    with pytest.raises(ShapeError, match="`eps` has shape"):
        local_linear(X, WEIGHTS["loc"], WEIGHTS["scale"], eps=np.zeros((2, 2)))
    with pytest.raises(ArgumentError, match="neither is given"):
        local_linear(X, WEIGHTS["loc"], WEIGHTS["scale"])
