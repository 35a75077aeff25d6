"""Kullback-Leibler divergences: one row for each closed-form pair, Monte Carlo for the others.

KL(p || q) = E_p[log p(X) - log q(X)], in nats, of the broadcast batch shape of p and q.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from npreparam import ops
from npreparam._errors import ArgumentError
from npreparam.ops.sampling import exp_remainder
from npreparam.ops.xlogy import log_ratio, xlogy
from npreparam.prob._distribution import Distribution
from npreparam.prob._parameters import Parameter
from npreparam.prob.discrete import Bernoulli
from npreparam.prob.independent import Independent
from npreparam.prob.location_scale import Normal

Formula = Callable[[Any, Any], Parameter]
KL: dict[tuple[type[Distribution], type[Distribution]], Formula] = {}


def kl(p: Distribution, q: Distribution) -> Parameter:
    """KL(p || q) in closed form; exactly 0 for equal parameters.

    Raises ArgumentError for a pair that has no row; `kl_monte_carlo` estimates it.

    >>> from npreparam.prob import Normal
    >>> float(kl(Normal(1.0, 1.0), Normal(0.0, 1.0)))
    0.5
    """
    formula = KL.get((type(p), type(q)))
    if formula is None:
        raise ArgumentError(f"KL({type(p).__name__} || {type(q).__name__}) has no closed form here; estimate it with kl_monte_carlo")
    if p.event_shape != q.event_shape:
        raise ArgumentError(f"`p` has event shape {p.event_shape}, but must have that of `q`, {q.event_shape}")
    return formula(p, q)


def _normal(p: Any, q: Any) -> Parameter:
    """(r - 1 - log r + ((mu_p - mu_q)/sigma_q)^2)/2 with r = (sigma_p/sigma_q)^2: both terms are non-negative, and nothing cancels."""
    shift = ops.square(ops.div(ops.sub(p.loc, q.loc), q.scale))
    return ops.mul(ops.add(exp_remainder(ops.mul(log_ratio(p.scale, q.scale), 2.0)), shift), 0.5)


def _bernoulli(p: Any, q: Any) -> Parameter:
    """p*log(p/q) + (1 - p)*log((1 - p)/(1 - q))."""
    return ops.add(_weighted_log_ratio(p.p, q.p), _weighted_log_ratio(p.q, q.q))


def _weighted_log_ratio(p: Any, q: Any) -> Parameter:
    return ops.sub(xlogy(p, p), xlogy(p, q))


def _independent(p: Any, q: Any) -> Parameter:
    if p.axes != q.axes:
        raise ArgumentError(f"`p` sums over {p.axes} axes, but must sum over as many as `q`, {q.axes}")
    return p.sum(kl(p.base, q.base))


KL[Normal, Normal] = _normal
KL[Bernoulli, Bernoulli] = _bernoulli
KL[Independent, Independent] = _independent
