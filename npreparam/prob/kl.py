"""Kullback-Leibler divergences: one row of KL for each closed-form pair, Monte Carlo for the others.

KL(p || q) = E_p[log p(X) - log q(X)], in nats, of the broadcast batch shape of p and q.

Formulas within one family are sums of remainders, exp(x) - 1 - x and lgamma(a + h) - lgamma(a) - h*psi(a), each of them 0 for equal parameters
and accurate near that: KL(p || p) == 0, and what is tiny keeps its digits. Pairs of two families are in `_kl_pairs`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from npreparam import ops
from npreparam._errors import ArgumentError, ShapeError
from npreparam._shapes import as_int
from npreparam.ops import linalg
from npreparam.ops.continuous_bernoulli import continuous_bernoulli_cumulant
from npreparam.ops.sampling import exp_remainder
from npreparam.ops.special import i1_i0, lgamma_remainder, log1p_remainder, log_i0
from npreparam.ops.xlogy import log_ratio
from npreparam.prob._distribution import Distribution, Random, as_generator
from npreparam.prob._parameters import Parameter
from npreparam.prob.continuous_bernoulli import ContinuousBernoulli
from npreparam.prob.discrete import Bernoulli, Categorical
from npreparam.prob.independent import Independent
from npreparam.prob.location_scale import EULER, Cauchy, Gumbel, Laplace, Normal
from npreparam.prob.log_normal import LogNormal
from npreparam.prob.multivariate import Dirichlet, LowRankMultivariateNormal, MultivariateNormal
from npreparam.prob.positive import Exponential, Gamma, HalfNormal, InverseGamma, Weibull
from npreparam.prob.unit_interval import Beta, Uniform
from npreparam.prob.von_mises import VonMises
from npreparam.tape.tensor import value_of

Formula = Callable[[Any, Any], Parameter]
KL: dict[tuple[type[Distribution], type[Distribution]], Formula] = {}


def kl(p: Distribution, q: Distribution) -> Parameter:
    """KL(p || q) in closed form, one number for each element of the batch; exactly 0 for equal parameters, infinite where p reaches beyond q.

    Declare axes as one event by `Independent` to have the divergence summed over them. Differentiable in the parameters of both.

    Raises ArgumentError for a pair that has no row; `kl_monte_carlo` estimates it.

    >>> from npreparam.prob import Normal
    >>> float(kl(Normal(1.0, 1.0), Normal(0.0, 1.0)))
    0.5
    """
    formula = KL.get((type(p), type(q)))
    if formula is None:
        raise ArgumentError(f"KL({type(p).__name__} || {type(q).__name__}) has no closed form here; estimate it with kl_monte_carlo")
    if p.event_shape != q.event_shape:
        raise ShapeError(f"`p` has event shape {p.event_shape}, but must have that of `q`, {q.event_shape}")
    return formula(p, q)


@dataclass(frozen=True, slots=True)
class MonteCarlo:
    """An estimate: its mean and standard error, of the batch shape, and the terms it is the mean of, one row for each sample.

    >>> estimate = kl_monte_carlo(Normal(0.0, 1.0), Normal(1.0, 1.0), 10_000, rng=0)    # the truth is 1/2
    >>> bool(abs(estimate.mean - 0.5) < 4 * estimate.standard_error), estimate.terms.shape
    (True, (10000,))
    """

    mean: Parameter
    standard_error: Any
    terms: Parameter


def kl_monte_carlo(p: Distribution, q: Distribution, samples: int, rng: Random) -> MonteCarlo:
    """KL(p || q) as the mean of log p(z) - log q(z) over samples z of p; differentiable where p is re-parameterized.

    The standard error is the terms' standard deviation over sqrt(samples). Raises ArgumentError for fewer than 2 samples, or for a sample outside
    the support of q, where the divergence is infinite.

    >>> from npreparam.prob import Logistic, Normal
    >>> estimate = kl_monte_carlo(Normal(), Logistic(), 10_000, rng=0)
    >>> bool(abs(estimate.mean - 0.19318) < 6 * estimate.standard_error)
    True
    """
    draw = p.rsample if p.reparameterized else p.sample
    z = draw((as_int(samples, "samples", 2),), rng=as_generator(rng))
    terms = ops.sub(p.log_prob(z), q.log_prob(z))
    return MonteCarlo(ops.mean(terms, axis=0), value_of(terms).std(0, ddof=1) / np.sqrt(samples), terms)


def _normal(p: Any, q: Any) -> Parameter:
    """(r - 1 - log r + ((mu_p - mu_q)/sigma_q)^2)/2 with r = (sigma_p/sigma_q)^2: both terms are non-negative, and nothing cancels."""
    shift = ops.square(ops.div(ops.sub(p.loc, q.loc), q.scale))
    return ops.mul(ops.add(exp_remainder(ops.mul(log_ratio(p.scale, q.scale), 2.0)), shift), 0.5)


def _half_normal(p: Any, q: Any) -> Parameter:
    """(r - 1 - log r)/2 with r = (sigma_p/sigma_q)^2."""
    return ops.mul(exp_remainder(ops.mul(log_ratio(p.scale, q.scale), 2.0)), 0.5)


def _laplace(p: Any, q: Any) -> Parameter:
    """r*(exp(-t) - 1 + t) + (r - 1 - log r), r = scale_p/scale_q and t = |loc_p - loc_q|/scale_p."""
    apart = ops.div(ops.abs(ops.sub(p.loc, q.loc)), p.scale)
    return ops.add(ops.mul(ops.div(p.scale, q.scale), exp_remainder(ops.neg(apart))), exp_remainder(log_ratio(p.scale, q.scale)))


def _cauchy(p: Any, q: Any) -> Parameter:
    """log(1 + ((scale_p - scale_q)^2 + (loc_p - loc_q)^2)/(4*scale_p*scale_q)). Source: Chyzak and Nielsen, arXiv 1905.10965."""
    apart = ops.add(ops.square(ops.sub(p.scale, q.scale)), ops.square(ops.sub(p.loc, q.loc)))
    return ops.log1p(ops.div(ops.div(apart, p.scale), ops.mul(q.scale, 4.0)))


def _extreme(ratio_less_one: Any, log_of_ratio: Any, shift: Any) -> Parameter:
    """-log r + e*(r - 1) + exp(-d)*gamma(1 + r) - 1 + d, e Euler's constant, as a sum of three remainders.

    lgamma(1 + r) = (1 - e)*(r - 1) + R by the tangent at 2, and w = lgamma(1 + r) - d: the sum is (r - 1 - log r) + R + (exp(w) - 1 - w).
    """
    rest = lgamma_remainder(np.asarray(2.0, ratio_less_one.dtype), ratio_less_one)
    w = ops.sub(ops.add(ops.mul(ratio_less_one, 1 - EULER), rest), shift)
    return ops.add(ops.add(exp_remainder(log_of_ratio), rest), exp_remainder(w))


def _gumbel(p: Any, q: Any) -> Parameter:
    """`_extreme` with r = scale_p/scale_q, d = (loc_p - loc_q)/scale_q."""
    return _extreme(ops.div(ops.sub(p.scale, q.scale), q.scale), log_ratio(p.scale, q.scale), ops.div(ops.sub(p.loc, q.loc), q.scale))


def _weibull(p: Any, q: Any) -> Parameter:
    """`_extreme` with r = k_q/k_p, d = -k_q*log(scale_p/scale_q): -log(X) is Gumbel."""
    k_p, k_q = p.concentration, q.concentration
    return _extreme(ops.div(ops.sub(k_q, k_p), k_p), log_ratio(k_q, k_p), ops.mul(k_q, log_ratio(q.scale, p.scale)))


def _exponential(p: Any, q: Any) -> Parameter:
    """r - 1 - log r with r = rate_q/rate_p."""
    return exp_remainder(log_ratio(q.rate, p.rate))


def _uniform(p: Any, q: Any) -> Parameter:
    """log of the quotient of the widths, where q covers p; else infinite."""
    covered = (value_of(q.low) <= value_of(p.low)) & (value_of(p.high) <= value_of(q.high))
    return ops.where(covered, log_ratio(q.width, p.width), np.inf)


def _gamma(p: Any, q: Any) -> Parameter:
    """R(a_p, a_q - a_p) + a_p*(exp(s) - 1 - s) + (a_p - a_q)*s, s = log(rate_q/rate_p); the same for the inverse gamma."""
    more, s = ops.sub(q.concentration, p.concentration), log_ratio(q.rate, p.rate)
    own = ops.add(lgamma_remainder(p.concentration, more), ops.mul(p.concentration, exp_remainder(s)))
    return ops.sub(own, ops.mul(more, s))


def _beta(p: Any, q: Any) -> Parameter:
    """R(a_p, a_q - a_p) + R(b_p, b_q - b_p) - R(a_p + b_p, the sum of both steps)."""
    a, b = p.concentration1, p.concentration0
    in_a, in_b = ops.sub(q.concentration1, a), ops.sub(q.concentration0, b)
    return ops.sub(ops.add(lgamma_remainder(a, in_a), lgamma_remainder(b, in_b)), lgamma_remainder(ops.add(a, b), ops.add(in_a, in_b)))


def _dirichlet(p: Any, q: Any) -> Parameter:
    """Sum of R(a_i, step_i) - R(a_0, sum of the steps)."""
    steps = ops.sub(q.concentration, p.concentration)
    together = lgamma_remainder(ops.sum(p.concentration, axis=-1), ops.sum(steps, axis=-1))
    return ops.sub(ops.sum(lgamma_remainder(p.concentration, steps), axis=-1), together)


def _von_mises(p: Any, q: Any) -> Parameter:
    """log I0(k_q) - log I0(k_p) - (k_q - k_p)*A(k_p) + 2*k_q*A(k_p)*sin((loc_p - loc_q)/2)^2; error some ulp of the largest term."""
    ratio = i1_i0(p.concentration)
    own = ops.sub(ops.sub(log_i0(q.concentration), log_i0(p.concentration)), ops.mul(ops.sub(q.concentration, p.concentration), ratio))
    turn = ops.square(ops.sin(ops.mul(ops.sub(p.loc, q.loc), 0.5)))
    return ops.add(own, ops.mul(ops.mul(q.concentration, ratio), ops.mul(turn, 2.0)))


def _term(p: Any, q: Any, step: Any) -> Parameter:
    """p*log(p/q) - p + q = p*(exp(s) - 1 - s), s = log(q/p), never negative; q where p = 0. Over all classes, -p + q sums to 0.

    Where `step`, q - p, is small, s is log(1 + step/p).
    """
    absent, near = value_of(p) == 0, np.abs(value_of(step)) <= value_of(p) / 2
    safe = ops.where(absent, 1.0, p)
    far = log_ratio(ops.where(absent | near, 1.0, q), ops.where(near, 1.0, safe))
    s = ops.where(near & ~absent, ops.log1p(ops.where(near, ops.div(step, safe), 0.0)), far)
    return ops.where(absent, q, ops.mul(safe, exp_remainder(s)))


def _bernoulli(p: Any, q: Any) -> Parameter:
    """p*log(p/q) + (1 - p)*log((1 - p)/(1 - q)), as the sum of two terms that are not negative."""
    step = ops.where(value_of(p.p) < 0.5, ops.sub(q.p, p.p), ops.sub(p.q, q.q))  # of the smaller probability, which is not rounded
    return ops.add(_term(p.p, q.p, step), _term(p.q, q.q, ops.neg(step)))


def _categorical(p: Any, q: Any) -> Parameter:
    """Sum of p_i*log(p_i/q_i)."""
    if p.classes != q.classes:
        raise ShapeError(f"`p` has {p.classes} classes, but must have as many as `q`, {q.classes}")
    return ops.sum(_term(p.p, q.p, ops.sub(q.p, p.p)), axis=-1)


def _continuous_bernoulli(p: Any, q: Any) -> Parameter:
    """A(l_q) - A(l_p) - (l_q - l_p)*A'(l_p); error some ulp of the largest term."""
    own = ops.sub(continuous_bernoulli_cumulant(0, q.location), continuous_bernoulli_cumulant(0, p.location))
    return ops.sub(own, ops.mul(ops.sub(q.location, p.location), continuous_bernoulli_cumulant(1, p.location)))


def _multivariate_normal(p: Any, q: Any) -> Parameter:
    """(|N|^2 + sum of 2*(N_ii - log(1 + N_ii)) + |L_q^-1 (loc_p - loc_q)|^2)/2 with N = L_q^-1 (L_p - L_q), which is 0 for equal covariances."""
    p, q = (d.dense() if isinstance(d, LowRankMultivariateNormal) else d for d in (p, q))
    inverse = linalg.inverse_lower(q.factor)
    step = linalg.product(inverse, ops.sub(p.factor, q.factor))
    diagonal = ops.sum(log1p_remainder(linalg.diagonal(step)), axis=-1)
    shift = ops.sum(ops.square(linalg.apply(inverse, ops.sub(p.loc, q.loc))), axis=-1)
    return ops.add(ops.mul(ops.add(ops.sum(ops.square(step), axis=(-2, -1)), shift), 0.5), diagonal)


def _independent(p: Any, q: Any) -> Parameter:
    if p.axes != q.axes:
        raise ArgumentError(f"`p` sums over {p.axes} axes, but must sum over as many as `q`, {q.axes}")
    value, shape = kl(p.base, q.base), np.broadcast_shapes(p.base.batch_shape, q.base.batch_shape)
    return p.sum(ops.broadcast_to(value, shape))


KL[Normal, Normal] = _normal
KL[LogNormal, LogNormal] = _normal
KL[HalfNormal, HalfNormal] = _half_normal
KL[Laplace, Laplace] = _laplace
KL[Cauchy, Cauchy] = _cauchy
KL[Gumbel, Gumbel] = _gumbel
KL[Weibull, Weibull] = _weibull
KL[Exponential, Exponential] = _exponential
KL[Uniform, Uniform] = _uniform
KL[Gamma, Gamma] = _gamma
KL[InverseGamma, InverseGamma] = _gamma
KL[Beta, Beta] = _beta
KL[Dirichlet, Dirichlet] = _dirichlet
KL[VonMises, VonMises] = _von_mises
KL[Bernoulli, Bernoulli] = _bernoulli
KL[Categorical, Categorical] = _categorical
KL[ContinuousBernoulli, ContinuousBernoulli] = _continuous_bernoulli
KL[MultivariateNormal, MultivariateNormal] = _multivariate_normal
KL[MultivariateNormal, LowRankMultivariateNormal] = _multivariate_normal
KL[LowRankMultivariateNormal, MultivariateNormal] = _multivariate_normal
KL[LowRankMultivariateNormal, LowRankMultivariateNormal] = _multivariate_normal
KL[Independent, Independent] = _independent
