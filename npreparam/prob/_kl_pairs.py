"""Divergences between two families: KL(p || q) = -H(p) - E_p[log q(X)], where the expectation takes a few moments of p.

These add terms of either sign: near 0 (where two families nearly meet) the error is some ulp of the largest term.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from npreparam import ops
from npreparam.ops.special import HALF_LOG_TWO_PI, digamma, lgamma, ndtr, polygamma
from npreparam.prob._distribution import Distribution
from npreparam.prob._parameters import Parameter
from npreparam.prob.continuous_bernoulli import ContinuousBernoulli
from npreparam.prob.kl import KL, _gamma
from npreparam.prob.location_scale import EULER, Gumbel, Laplace, Logistic, Normal
from npreparam.prob.log_normal import LogNormal
from npreparam.prob.positive import Exponential, Gamma, HalfNormal, InverseGamma, Weibull
from npreparam.prob.unit_interval import Beta, Kumaraswamy, Uniform
from npreparam.tape.tensor import value_of

LogMoments = Callable[[Any], tuple[Parameter, Parameter]]
LOG_MOMENTS: dict[type[Distribution], LogMoments] = {  # mean and variance of log(X)
    LogNormal: lambda p: (p.loc, ops.square(p.scale)),
    Exponential: lambda p: (ops.neg(ops.add(ops.log(p.rate), EULER)), np.asarray(math.pi**2 / 6, p.dtype)),
    Gamma: lambda p: (ops.sub(digamma(p.concentration), ops.log(p.rate)), polygamma(1, p.concentration)),
    InverseGamma: lambda p: (ops.sub(ops.log(p.rate), digamma(p.concentration)), polygamma(1, p.concentration)),
    Weibull: lambda p: (ops.sub(ops.log(p.scale), ops.div(EULER, p.concentration)), ops.div(math.pi**2 / 6, ops.square(p.concentration))),
    HalfNormal: lambda p: (ops.sub(ops.log(p.scale), (EULER + math.log(2)) / 2), np.asarray(math.pi**2 / 8, p.dtype)),
    Beta: lambda p: (ops.sub(digamma(p.concentration1), digamma(ops.add(p.concentration1, p.concentration0))),
                     ops.sub(polygamma(1, p.concentration1), polygamma(1, ops.add(p.concentration1, p.concentration0)))),
}


def _gap(p: Any, expected_log_q: Parameter) -> Parameter:
    return ops.neg(ops.add(p.entropy(), expected_log_q))


def _expected_normal(mean: Any, variance: Any, loc: Any, scale: Any) -> Parameter:
    """E[log N(Y; loc, scale)] of Y with this mean and variance."""
    spread = ops.div(ops.add(variance, ops.square(ops.sub(mean, loc))), ops.square(scale))
    return ops.neg(ops.add(ops.add(ops.mul(spread, 0.5), ops.log(scale)), HALF_LOG_TWO_PI))


def to_normal(p: Any, q: Any) -> Parameter:
    """q = Normal takes mean and variance; infinite where the variance is."""
    return _gap(p, _expected_normal(p.mean, p.variance, q.loc, q.scale))


def to_log_normal(p: Any, q: Any) -> Parameter:
    """q = LogNormal takes mean and variance of log(X)."""
    mean, variance = LOG_MOMENTS[type(p)](p)
    return _gap(p, ops.sub(_expected_normal(mean, variance, q.loc, q.scale), mean))


def to_gamma(p: Any, q: Any) -> Parameter:
    """q = Gamma takes the means of X and of log(X)."""
    a = q.concentration
    shape = ops.add(ops.mul(ops.sub(a, 1.0), LOG_MOMENTS[type(p)](p)[0]), ops.sub(ops.mul(a, ops.log(q.rate)), lgamma(a)))
    return _gap(p, ops.sub(shape, ops.mul(q.rate, p.mean)))


def to_exponential(p: Any, q: Any) -> Parameter:
    """q = Exponential takes the mean."""
    return _gap(p, ops.sub(ops.log(q.rate), ops.mul(q.rate, p.mean)))


def normal_to_laplace(p: Any, q: Any) -> Parameter:
    """E|X - m| = 2*s*phi(d/s) + d*(2*Phi(d/s) - 1), d = loc_p - m."""
    d = ops.sub(p.loc, q.loc)
    t = ops.div(d, p.scale)
    away = ops.add(ops.mul(p.scale, ops.mul(ops.exp(ops.mul(ops.square(t), -0.5)), math.sqrt(2 / math.pi))),
                   ops.mul(d, ops.sub(ndtr(t), ndtr(ops.neg(t)))))
    return _gap(p, ops.neg(ops.add(ops.div(away, q.scale), ops.log(ops.mul(q.scale, 2.0)))))


def _to_gumbel(p: Any, q: Any, log_transform: Parameter) -> Parameter:
    """q = Gumbel takes the mean and log E[exp(-X/scale_q)]."""
    standard = ops.div(ops.sub(p.mean, q.loc), q.scale)
    return _gap(p, ops.neg(ops.add(ops.add(standard, ops.exp(ops.add(log_transform, ops.div(q.loc, q.scale)))), ops.log(q.scale))))


def normal_to_gumbel(p: Any, q: Any) -> Parameter:
    """log E[exp(-X/b)] = -loc/b + (scale/b)^2/2."""
    return _to_gumbel(p, q, ops.sub(ops.mul(ops.square(ops.div(p.scale, q.scale)), 0.5), ops.div(p.loc, q.scale)))


def gamma_to_gumbel(p: Any, q: Any) -> Parameter:
    """log E[exp(-X/b)] = -a*log(1 + 1/(rate*b))."""
    return _to_gumbel(p, q, ops.neg(ops.mul(p.concentration, ops.log1p(ops.div(1.0, ops.mul(p.rate, q.scale))))))


def _as_gamma(p: Any) -> Any:
    return Gamma(np.ones((), p.dtype), p.rate) if isinstance(p, Exponential) else p


def exponential_and_gamma(p: Any, q: Any) -> Parameter:
    """An exponential is a gamma with concentration 1."""
    return _gamma(_as_gamma(p), _as_gamma(q))


def exponential_to_gumbel(p: Any, q: Any) -> Parameter:
    """The gamma with concentration 1."""
    return gamma_to_gumbel(_as_gamma(p), q)


def uniform_to_exponential(p: Any, q: Any) -> Parameter:
    """Infinite where p reaches below 0."""
    return ops.where(value_of(p.low) >= 0, to_exponential(p, q), np.inf)


KL[Laplace, Normal] = to_normal
KL[Logistic, Normal] = to_normal
KL[Gumbel, Normal] = to_normal
KL[Exponential, Normal] = to_normal
KL[Gamma, Normal] = to_normal
KL[InverseGamma, Normal] = to_normal
KL[Weibull, Normal] = to_normal
KL[HalfNormal, Normal] = to_normal
KL[LogNormal, Normal] = to_normal
KL[Uniform, Normal] = to_normal
KL[Kumaraswamy, Normal] = to_normal
KL[Beta, Normal] = to_normal
KL[ContinuousBernoulli, Normal] = to_normal
KL[Exponential, LogNormal] = to_log_normal
KL[Gamma, LogNormal] = to_log_normal
KL[InverseGamma, LogNormal] = to_log_normal
KL[Weibull, LogNormal] = to_log_normal
KL[HalfNormal, LogNormal] = to_log_normal
KL[Beta, LogNormal] = to_log_normal
KL[LogNormal, Gamma] = to_gamma
KL[InverseGamma, Gamma] = to_gamma
KL[Weibull, Gamma] = to_gamma
KL[HalfNormal, Gamma] = to_gamma
KL[Beta, Gamma] = to_gamma
KL[LogNormal, Exponential] = to_exponential
KL[InverseGamma, Exponential] = to_exponential
KL[Weibull, Exponential] = to_exponential
KL[HalfNormal, Exponential] = to_exponential
KL[Beta, Exponential] = to_exponential
KL[Kumaraswamy, Exponential] = to_exponential
KL[ContinuousBernoulli, Exponential] = to_exponential
KL[Uniform, Exponential] = uniform_to_exponential
KL[Exponential, Gamma] = exponential_and_gamma
KL[Gamma, Exponential] = exponential_and_gamma
KL[Normal, Laplace] = normal_to_laplace
KL[Normal, Gumbel] = normal_to_gumbel
KL[Gamma, Gumbel] = gamma_to_gumbel
KL[Exponential, Gumbel] = exponential_to_gumbel
