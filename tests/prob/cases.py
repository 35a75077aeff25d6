"""One row for each distribution: how it is made from parameters, and parameters for it; and bounds for statistical tests."""

import math

import numpy as np

from npreparam import prob
from npreparam.ops import linalg

FALSE_ALARM = 1e-10  # of one statistical comparison; there are fewer than ten of them in a test, so each test stays below 1e-9


def sigmas():
    """The t with P(|N(0, 1)| > t) = FALSE_ALARM, from the bound P <= exp(-t^2/2)*sqrt(2/pi)/t with t >= 6: for means of many samples."""
    return math.sqrt(-2 * math.log(FALSE_ALARM * 6 * math.sqrt(math.pi / 2)))


def dkw(samples):
    """sup|F_n - F| exceeds this with probability FALSE_ALARM at most (Dvoretzky, Kiefer and Wolfowitz; Massart 1990): no assumption on F."""
    return math.sqrt(math.log(2 / FALSE_ALARM) / (2 * samples))


def array(*values):
    return [np.array(v) for v in values]


# name: (constructor, parameters); those with a cdf
CONTINUOUS = {
    "Normal": (prob.Normal, array(0.3, 1.4)),
    "LogNormal": (prob.LogNormal, array(0.3, 0.6)),
    "Laplace": (prob.Laplace, array(-0.3, 1.4)),
    "Logistic": (prob.Logistic, array(0.3, 1.4)),
    "Cauchy": (prob.Cauchy, array(0.3, 1.4)),
    "Gumbel": (prob.Gumbel, array(0.3, 1.4)),
    "Exponential": (prob.Exponential, array(1.7)),
    "Uniform": (prob.Uniform, array(-0.4, 1.3)),
    "HalfNormal": (prob.HalfNormal, array(1.7)),
    "Kumaraswamy": (prob.Kumaraswamy, array(1.7, 2.6)),
    "Weibull": (prob.Weibull, array(1.3, 1.8)),
    "StudentT": (prob.StudentT, array(6.5, 0.3, 1.4)),
    "Gamma": (prob.Gamma, array(2.3, 1.7)),
    "InverseGamma": (prob.InverseGamma, array(6.5, 1.7)),
    "Beta": (prob.Beta, array(1.7, 2.6)),
    "VonMises": (prob.VonMises, array(0.0, 1.8)),
    "ContinuousBernoulli": (lambda p: prob.ContinuousBernoulli(p), array(0.3)),
    "ContinuousBernoulli near 1/2": (lambda p: prob.ContinuousBernoulli(logits=p), array(1e-4)),
    "tanh": (lambda m, s: prob.TransformedDistribution(prob.Normal(m, s), [prob.Tanh(), prob.Affine(1.0, -2.0)]), array(0.3, 0.7)),
    "sigmoid": (lambda m, s: prob.TransformedDistribution(prob.Normal(m, s), prob.Sigmoid()), array(0.3, 0.7)),
    "softplus": (lambda m, s: prob.TransformedDistribution(prob.Normal(m, s), prob.Softplus()), array(0.3, 0.7)),
    "exp": (lambda m, s: prob.TransformedDistribution(prob.Gumbel(m, s), prob.Exp()), array(0.3, 0.7)),
}
FACTOR = np.array([[1.2, 0.0], [-0.4, 0.9]])
# several dimensions, or no cdf
OTHERS = {
    "MultivariateNormal": (lambda m, f: prob.MultivariateNormal(m, scale_tril=linalg.lower(f)), array([0.3, -1.0], FACTOR)),
    "LowRankMultivariateNormal": (prob.LowRankMultivariateNormal, array([0.3, -1.0], [[1.0], [0.5]], [0.6, 1.2])),
    "Dirichlet": (prob.Dirichlet, array([0.8, 2.5, 1.7])),
    "RelaxedBernoulli": (lambda t, x: prob.RelaxedBernoulli(t, logits=x), array(0.7, 0.4)),
    "RelaxedOneHotCategorical": (lambda t, x: prob.RelaxedOneHotCategorical(t, logits=x), array(0.7, [0.4, -0.3, 1.0])),
}
DISCRETE = {
    "Bernoulli": (lambda p: prob.Bernoulli(p), array(0.3)),
    "Categorical": (lambda p: prob.Categorical(p), array([0.2, 0.5, 0.3])),
}
MOMENTLESS = {"Cauchy", "tanh", "sigmoid", "softplus", "exp", "VonMises", "RelaxedBernoulli", "RelaxedOneHotCategorical"}
