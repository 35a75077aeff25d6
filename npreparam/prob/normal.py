"""The normal distribution and its children: log-normal and half-normal."""

from __future__ import annotations

from typing import Any

from npreparam import ops
from npreparam.ops.sampling import HALF_LOG_TWO_PI
from npreparam.prob._distribution import Distribution
from npreparam.prob._parameters import POSITIVE, REAL, Parameter


class Normal(Distribution):
    """N(loc, scale^2); scale is the standard deviation.

    z = loc + scale*eps, eps ~ N(0, 1)        log p(x) = -((x - loc)/scale)^2/2 - log(scale) - log(2 pi)/2

    Raises ArgumentError for a scale that is not positive.

    Source: Kingma and Welling, Auto-encoding variational Bayes, arXiv 1312.6114, section 2.4.

    >>> float(Normal(1.0, 2.0).rsample(eps=-0.5))
    0.0
    """

    parameter_rules = {"loc": REAL, "scale": POSITIVE}  # noqa: RUF012

    def __init__(self, loc: Any = 0.0, scale: Any = 1.0) -> None:
        self._set(loc=loc, scale=scale)

    def _transform(self, eps: Any) -> Parameter:
        return ops.add(ops.mul(self.scale, eps), self.loc)

    def _log_prob(self, x: Any) -> Parameter:
        return ops.normal_log_prob(x, self.loc, self.scale)

    @property
    def mean(self) -> Parameter:
        """loc."""
        return self._expand(self.loc)

    @property
    def variance(self) -> Parameter:
        """scale^2."""
        return self._expand(ops.square(self.scale))

    def entropy(self) -> Parameter:
        """log(scale) + log(2 pi e)/2."""
        return self._expand(ops.add(ops.log(self.scale), HALF_LOG_TWO_PI + 0.5))
