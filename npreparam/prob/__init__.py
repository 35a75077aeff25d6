"""Distributions with re-parameterized samples, and their divergences, on the tape."""

from npreparam.prob import _kl_pairs  # noqa: F401  (rows of KL)
from npreparam.prob._distribution import Distribution
from npreparam.prob.continuous_bernoulli import ContinuousBernoulli
from npreparam.prob.discrete import Bernoulli, Categorical
from npreparam.prob.estimators import (
    MeasureNoise,
    Moments,
    dreg,
    iwae_bound,
    iwae_pathwise,
    local_linear,
    local_reparameterization,
    measure_noise,
    measure_valued,
    pathwise,
    quadratic_moments,
    score_function,
    sticking_the_landing,
    straight_through,
    weight_reparameterization,
)
from npreparam.prob.independent import Independent
from npreparam.prob.kl import KL, MonteCarlo, kl, kl_monte_carlo
from npreparam.prob.location_scale import Cauchy, Gumbel, Laplace, Logistic, Normal
from npreparam.prob.log_normal import LogNormal
from npreparam.prob.multivariate import Dirichlet, LowRankMultivariateNormal, MultivariateNormal
from npreparam.prob.positive import Exponential, Gamma, HalfNormal, InverseGamma, Weibull
from npreparam.prob.relaxed import RelaxedBernoulli, RelaxedOneHotCategorical
from npreparam.prob.student_t import StudentT
from npreparam.prob.transforms import Affine, Exp, Sigmoid, Softplus, Tanh, Transform, TransformedDistribution
from npreparam.prob.unit_interval import Beta, Kumaraswamy, Uniform
from npreparam.prob.von_mises import VonMises

__all__ = ["KL", "Affine", "Bernoulli", "Beta", "Categorical", "Cauchy", "ContinuousBernoulli", "Dirichlet", "Distribution", "Exp", "Exponential",
           "Gamma", "Gumbel", "HalfNormal", "Independent", "InverseGamma", "Kumaraswamy", "Laplace", "LogNormal", "Logistic",
           "LowRankMultivariateNormal", "MeasureNoise", "Moments", "MonteCarlo", "MultivariateNormal", "Normal", "RelaxedBernoulli",
           "RelaxedOneHotCategorical", "Sigmoid", "Softplus", "StudentT", "Tanh", "Transform", "TransformedDistribution", "Uniform", "VonMises",
           "Weibull", "dreg", "iwae_bound", "iwae_pathwise", "kl", "kl_monte_carlo", "local_linear", "local_reparameterization", "measure_noise",
           "measure_valued", "pathwise", "quadratic_moments", "score_function", "sticking_the_landing", "straight_through",
           "weight_reparameterization"]
