"""The continuous Bernoulli distribution: the likelihood that grey pixels in [0, 1] lack under a Bernoulli decoder."""

from __future__ import annotations

from typing import Any

import numpy as np

from npreparam import ops
from npreparam.ops.continuous_bernoulli import continuous_bernoulli_cumulant, continuous_bernoulli_icdf
from npreparam.prob._distribution import Distribution
from npreparam.prob._parameters import REAL, UNIT_INTERVAL, Parameter
from npreparam.prob.discrete import bernoulli_logits, one_of
from npreparam.prob.relaxed import OPEN_INTERVAL
from npreparam.tape.tensor import value_of


class ContinuousBernoulli(Distribution):
    """Density proportional to p^x*(1 - p)^(1 - x) on [0, 1]; p as `probs` in (0, 1), or sigmoid(`logits`).

    log p(x) = l*x - A(l), A(l) = log((exp(l) - 1)/l), l the logit        z = log(1 + eps*(exp(l) - 1))/l, eps ~ U(0, 1)

    Source: Loaiza-Ganem and Cunningham, The continuous Bernoulli, arXiv 1907.06845.

    >>> float(ContinuousBernoulli(0.5).log_prob(0.3))
    0.0
    """

    parameter_rules = {"probs": OPEN_INTERVAL, "logits": REAL}  # noqa: RUF012
    support = UNIT_INTERVAL
    noise_law = "uniform on (0, 1)"

    def __init__(self, probs: Any = None, logits: Any = None) -> None:
        self._set(**one_of(self, probs, logits))
        self.location = bernoulli_logits(self.parameters)

    def _transform(self, eps: Any) -> Parameter:
        return continuous_bernoulli_icdf(self.location, eps)

    def _log_prob(self, x: Any) -> Parameter:
        return ops.sub(ops.mul(self.location, x), continuous_bernoulli_cumulant(0, self.location))

    def _cdf(self, x: Any) -> Parameter:
        """expm1(l*x)/expm1(l), taken for -|l|; for |l| < 0.01 as x*e(l*x)/e(l), where e(t) = expm1(t)/t is a short series."""
        logits, value = self.location, value_of(self.location)
        up, near = value > 0, np.abs(value) < 0.01
        size = ops.where(near, 1.0, ops.abs(logits))
        part = ops.div(ops.expm1(ops.neg(ops.mul(size, ops.where(up, ops.sub(1.0, x), x)))), ops.expm1(ops.neg(size)))
        small = ops.where(near, logits, 0.0)
        series = ops.mul(x, ops.div(_expm1_over(ops.mul(small, x)), _expm1_over(small)))
        return ops.where(near, series, ops.where(up, ops.sub(1.0, part), part))

    def _icdf(self, u: Any) -> Parameter:
        return continuous_bernoulli_icdf(self.location, u)

    @property
    def mean(self) -> Parameter:
        """A'(l)."""
        return self._expand(continuous_bernoulli_cumulant(1, self.location))

    @property
    def variance(self) -> Parameter:
        """A''(l)."""
        return self._expand(continuous_bernoulli_cumulant(2, self.location))

    def entropy(self) -> Parameter:
        """A(l) - l*A'(l)."""
        return self._expand(ops.sub(continuous_bernoulli_cumulant(0, self.location), ops.mul(self.location, self.mean)))


def _expm1_over(t: Any) -> Parameter:
    """expm1(t)/t = 1 + t/2*(1 + t/3*(1 + ...)) for |t| < 0.01: eight terms."""
    total: Any = 1.0
    for k in range(8, 1, -1):
        total = ops.add(ops.mul(ops.div(t, float(k)), total), 1.0)
    return total
