"""The log-normal distribution."""

from __future__ import annotations

import math
from typing import Any

from npreparam import ops
from npreparam.prob._distribution import Distribution
from npreparam.prob._parameters import POSITIVE, REAL, Parameter
from npreparam.prob.location_scale import Normal


class LogNormal(Distribution):
    """The law of exp(X) for X ~ N(loc, scale^2).

    z = exp(loc + scale*eps), eps ~ N(0, 1)        log p(x) = log N(log x; loc, scale) - log(x)

    >>> float(LogNormal(0.0, 1.0).rsample(eps=0.0))
    1.0
    """

    parameter_rules = {"loc": REAL, "scale": POSITIVE}  # noqa: RUF012
    support = POSITIVE

    def __init__(self, loc: Any = 0.0, scale: Any = 1.0) -> None:
        self._set(loc=loc, scale=scale)
        self.base = Normal(self.loc, self.scale)

    def _transform(self, eps: Any) -> Parameter:
        return ops.exp(self.base._transform(eps))

    def _log_prob(self, x: Any) -> Parameter:
        y = ops.log(x)
        return ops.sub(self.base._log_prob(y), y)

    def _cdf(self, x: Any) -> Parameter:
        return self.base._cdf(ops.log(x))

    def _icdf(self, u: Any) -> Parameter:
        return ops.exp(self.base._icdf(u))

    @property
    def mean(self) -> Parameter:
        """exp(loc + scale^2/2)."""
        return self._expand(ops.exp(ops.add(self.loc, ops.mul(ops.square(self.scale), 0.5))))

    @property
    def variance(self) -> Parameter:
        """(exp(scale^2) - 1)*exp(2*loc + scale^2)."""
        square = ops.square(self.scale)
        return self._expand(ops.mul(ops.expm1(square), ops.exp(ops.add(ops.mul(self.loc, 2.0), square))))

    def entropy(self) -> Parameter:
        """loc + log(scale) + log(2 pi e)/2."""
        return self._expand(ops.add(ops.add(self.loc, ops.log(self.scale)), 0.5 * math.log(2 * math.pi * math.e)))
