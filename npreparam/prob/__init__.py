"""Distributions with re-parameterized samples, and their divergences, on the tape."""

from npreparam.prob._distribution import Distribution
from npreparam.prob.discrete import Bernoulli
from npreparam.prob.independent import Independent
from npreparam.prob.kl import kl
from npreparam.prob.normal import Normal

__all__ = ["Bernoulli", "Distribution", "Independent", "Normal", "kl"]
