"""Estimators of the gradient of an expectation E[f(z)] with respect to the parameters of z's distribution, one gradient for each sample.

All take the same three things: an objective `f` that maps samples z (S, ...), a Tensor, to one number for each of them, (S,); a `family`, a
distribution class or any function that makes a Distribution of named parameters; the `parameters`, a dict of arrays or numbers. Noise is drawn by
`rng` for a number of `samples`, or given as `eps`. All return a dict name -> (S, *parameter shape): the mean over S estimates the gradient,
the variance over S is what estimators differ in.

`f` must treat samples separately: number s of its values depends on number s of the samples alone.

Source: Mohamed, Rosca, Figurnov and Mnih, Monte Carlo gradient estimation in machine learning, JMLR 21(132), 2020.
"""

from npreparam.prob.estimators.importance import dreg, iwae_bound, iwae_pathwise, sticking_the_landing
from npreparam.prob.estimators.local import local_linear, local_reparameterization, weight_reparameterization
from npreparam.prob.estimators.measure_valued import MeasureNoise, measure_noise, measure_valued
from npreparam.prob.estimators.pathwise import pathwise, straight_through
from npreparam.prob.estimators.quadratic import Moments, quadratic_moments
from npreparam.prob.estimators.score_function import score_function

__all__ = ["MeasureNoise", "Moments", "dreg", "iwae_bound", "iwae_pathwise", "local_linear", "local_reparameterization", "measure_noise",
           "measure_valued", "pathwise", "quadratic_moments", "score_function", "sticking_the_landing", "straight_through",
           "weight_reparameterization"]
