"""Bad parameters, noise and arguments: the error names the argument with its value, the rule, and the way out."""

import numpy as np
import pytest

from npreparam import ArgumentError, DTypeError, ShapeError, prob
from npreparam.tape import Tensor

SINGULAR = np.array([[1.0, 1.0], [1.0, 1.0]])


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda: prob.Normal(0.0, 0.0), ArgumentError, r"`scale` \(=0\.\) must be finite and positive"),
    (lambda: prob.Normal(0.0, np.array([1.0, -2.0])), ArgumentError, r"`scale` \(=-2\.\) must be finite and positive"),
    (lambda: prob.Normal(np.nan, 1.0), ArgumentError, r"`loc` \(=nan\) must be finite"),
    (lambda: prob.Normal(Tensor(np.zeros(2)), Tensor(-np.ones(2))), ArgumentError, r"`scale` \(=-1\.\) must be finite and positive"),
    (lambda: prob.Normal([0.0, 1.0], [1.0, 2.0, 3.0]), ShapeError, r"shapes of `loc` \(2,\), `scale` \(3,\) do not broadcast together"),
    (lambda: prob.Normal(np.zeros(2, np.float32), np.ones(2)), DTypeError, "`loc` float32, `scale` float64; convert with .astype"),
    (lambda: prob.Normal(np.zeros(2, int), 1.0), DTypeError, "`loc` has dtype int64"),
    (lambda: prob.Normal("a", 1.0), DTypeError, r"`loc` \(a str\) must be a NumPy array"),
    (lambda: prob.Bernoulli(1.5), ArgumentError, r"`probs` \(=1\.5\) must be between 0 and 1"),
    (lambda: prob.Bernoulli(), ArgumentError, "Bernoulli takes `probs` or `logits`, but neither is given"),
    (lambda: prob.Bernoulli(0.5, 0.0), ArgumentError, "but both are given"),
    (lambda: prob.ContinuousBernoulli(0.0), ArgumentError, r"`probs` \(=0\.\) must be strictly between 0 and 1"),
    (lambda: prob.Categorical([0.5, 0.4]), ArgumentError, r"`probs` \(=\[0\.5 0\.4\]\) must be not negative, with sum 1 along the last axis"),
    (lambda: prob.Categorical(logits=[-np.inf, -np.inf]), ArgumentError, "not -inf alone"),
    (lambda: prob.Categorical(0.5), ShapeError, r"`probs` has shape \(\), but must have at least 1 axes"),
    (lambda: prob.Categorical([0.5, 0.5]).log_prob(2.0), ArgumentError, r"`x` \(=2\.\) must be an integer below 2, the number of classes"),
    (lambda: prob.Uniform(1.0, 1.0), ArgumentError, r"`low` \(=1.0\) must be less than `high` \(=1.0\)"),
    (lambda: prob.Uniform(0.0, 1.0).log_prob(1.5), ArgumentError, r"`x` \(=1.5\) must lie between `low` \(=0.0\) and `high` \(=1.0\)"),
    (lambda: prob.Exponential(1.0).log_prob(-1.0), ArgumentError, r"`x` \(=-1\.\) must be finite and not negative: the support of Exponential"),
    (lambda: prob.MultivariateNormal([0.0, 0.0], SINGULAR), ArgumentError, r"`covariance` .* must be finite, symmetric and positive definite"),
    (lambda: prob.MultivariateNormal([0.0, 0.0], np.array([[1.0, 0.5], [0.4, 1.0]])), ArgumentError, "symmetric"),
    (lambda: prob.MultivariateNormal([0.0, 0.0], scale_tril=SINGULAR), ArgumentError, "must be lower triangular with a positive diagonal"),
    (lambda: prob.MultivariateNormal([0.0, 0.0]), ArgumentError, "exactly one of them"),
    (lambda: prob.MultivariateNormal([0.0, 0.0, 0.0], np.eye(2)), ShapeError, r"`covariance` has shape \(2, 2\), but must have length 3"),
    (lambda: prob.LowRankMultivariateNormal([0.0, 0.0], np.ones((3, 1)), [1.0, 1.0]), ShapeError, r"`cov_factor` has shape \(3, 1\)"),
    (lambda: prob.Dirichlet([1.0]), ShapeError, "at least 2 elements"),
    (lambda: prob.Dirichlet([1.0, 0.0]), ArgumentError, r"`concentration` \(=\[1\. 0\.\]\) must be finite and positive"),
    (lambda: prob.VonMises(0.0, 1.0).cdf(4.0), ArgumentError, r"`x - loc` \(=4\.\) must be an angle"),
    (lambda: prob.Affine(0.0, 0.0), ArgumentError, r"`scale` \(=0\.\) must be finite and not 0"),
    (lambda: prob.TransformedDistribution(prob.Normal(), []), ArgumentError, "at least one"),
    (lambda: prob.TransformedDistribution(prob.Bernoulli(0.5), prob.Exp()), ArgumentError, "is discrete, but must have a density"),
    (lambda: prob.TransformedDistribution(prob.Normal(), prob.Sigmoid()).log_prob(1.0), ArgumentError, "the image of Sigmoid"),
    (lambda: prob.TransformedDistribution(prob.Normal(), prob.Affine(0.0, np.ones(5))), ShapeError,
     r"has one \(Affine\) with parameters of shape \(5,\), but they must broadcast to the base's batch and event shape \(\); give the base"),
    (lambda: prob.TransformedDistribution(prob.MultivariateNormal([0.0, 0.0], np.eye(2)), prob.Affine(0.0, np.ones((5, 2)))), ShapeError,
     r"parameters of shape \(5, 2\)"),
    (lambda: prob.RelaxedBernoulli(0.0, 0.5), ArgumentError, r"`temperature` \(=0\.\)"),
    (lambda: prob.RelaxedBernoulli(1.0, 0.5).log_prob(1.0), ArgumentError, r"`x` \(=1\.\) must be strictly between 0 and 1"),
    (lambda: prob.Independent(prob.Normal(), 1), ArgumentError, r"`axes` \(=1\) must not exceed the 0 batch axes"),
    (lambda: prob.Normal().rsample(), ArgumentError, "neither is given"),
    (lambda: prob.Normal().rsample(rng=0, eps=0.0), ArgumentError, "both are given"),
    (lambda: prob.Normal().rsample(rng="seed"), ArgumentError, "`rng` .* must be an integer"),
    (lambda: prob.Normal().rsample(eps=np.nan), ArgumentError, r"`eps` \(=nan\) must be finite"),
    (lambda: prob.Normal(np.zeros(3)).rsample(eps=np.zeros(2)), ShapeError, r"`eps` has shape \(2,\), but must have shape \(\.\.\., 3\)"),
    (lambda: prob.Normal(np.zeros(3)).rsample((2,), eps=np.zeros(3)), ShapeError, r"must have shape \(2, 3\)"),
    (lambda: prob.Gumbel().rsample(eps=1.5), ArgumentError, r"`eps` \(=1\.5\) must be between 0 and 1"),
    (lambda: prob.Gamma(1.0).rsample(eps=-1.0), ArgumentError, r"`eps` \(=-1\.\) must be finite and not negative"),
    (lambda: prob.Bernoulli(0.5).rsample(rng=0), ArgumentError, "no re-parameterized sample, for it is discrete"),
    (lambda: prob.Normal().icdf(1.5), ArgumentError, r"`u` \(=1\.5\) must be between 0 and 1"),
    (lambda: prob.Normal(np.zeros(3)).log_prob(np.zeros(2)), ShapeError, r"`x` of shape \(2,\) does not broadcast with the batch shape \(3,\)"),
    (lambda: prob.Dirichlet([1.0, 1.0]).log_prob([0.5, 0.2, 0.3]), ShapeError, "must end with the event shape"),
    (lambda: prob.Normal().log_prob(np.nan), ArgumentError, r"`x` \(=nan\) must be finite: the support of Normal"),
    (lambda: prob.RelaxedBernoulli(1.0, 0.5).entropy(), ArgumentError, "has no closed-form entropy; average over samples"),
    (lambda: prob.Dirichlet([1.0, 1.0]).cdf([0.5, 0.5]), ArgumentError, "Dirichlet has no cdf"),
])
def test_bad_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_moments_that_do_not_exist():
    assert np.isnan(prob.Cauchy().mean)
    assert np.isnan(prob.StudentT(1.0).mean)
    assert prob.StudentT(1.5).variance == np.inf
    assert prob.InverseGamma(1.0).mean == np.inf


def test_python_numbers_take_the_dtype_beside_them():
    p = prob.Gamma(np.ones(2, np.float32), 2.0)
    assert p.rate.dtype == p.mean.dtype == np.float32
    assert repr(p) == "Gamma(concentration (2,), rate (); batch_shape (2,), event_shape ())"


def test_empty_batches():
    for p in (prob.Normal(np.zeros((0, 2))), prob.Gamma(np.ones((0, 2))), prob.Beta(np.ones((0, 2)), 1.0)):
        z = p.rsample((3,), rng=0)
        assert z.shape == p.log_prob(z).shape == (3, 0, 2)
