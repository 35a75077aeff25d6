"""Location-scale families: x = loc + scale*y, where y has a fixed law with a closed-form quantile.

log p(x) = log f(y) - log(scale), y = (x - loc)/scale        z = loc + scale*Q(eps), eps ~ U(0, 1)
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np  # noqa: F401  (the examples use it)

from npreparam import ops
from npreparam.ops.special import ndtr, ndtri
from npreparam.prob._distribution import Distribution
from npreparam.prob._parameters import POSITIVE, REAL, Parameter
from npreparam.tape.tensor import value_of

EULER = 0.5772156649015329


class LocationScale(Distribution):
    """What the families share; a family states its standard law by `_density`, `_probability` and `_quantile`, and three moments."""

    parameter_rules = {"loc": REAL, "scale": POSITIVE}  # noqa: RUF012
    noise_law = "uniform on (0, 1)"
    standard_mean: ClassVar[float]
    standard_variance: ClassVar[float]
    standard_entropy: ClassVar[float]

    def __init__(self, loc: Any = 0.0, scale: Any = 1.0) -> None:
        self._set(loc=loc, scale=scale)

    def _density(self, y: Any) -> Parameter:
        raise NotImplementedError

    def _probability(self, y: Any) -> Parameter:
        raise NotImplementedError

    def _quantile(self, u: Any) -> Parameter:
        raise NotImplementedError

    def _standard(self, x: Any) -> Parameter:
        return ops.div(ops.sub(x, self.loc), self.scale)

    def _placed(self, y: Any) -> Parameter:
        return ops.add(ops.mul(self.scale, y), self.loc)

    def _transform(self, eps: Any) -> Parameter:
        return self._placed(self._quantile(eps))

    def _log_prob(self, x: Any) -> Parameter:
        return ops.sub(self._density(self._standard(x)), ops.log(self.scale))

    def _cdf(self, x: Any) -> Parameter:
        return self._probability(self._standard(x))

    def _icdf(self, u: Any) -> Parameter:
        return self._placed(self._quantile(u))

    @property
    def mean(self) -> Parameter:
        """loc + scale*E[y]."""
        return self._expand(self._placed(self.standard_mean))

    @property
    def variance(self) -> Parameter:
        """scale^2*Var[y]."""
        return self._expand(ops.mul(ops.square(self.scale), self.standard_variance))

    def entropy(self) -> Parameter:
        """log(scale) + the standard law's entropy."""
        return self._expand(ops.add(ops.log(self.scale), self.standard_entropy))


class Normal(LocationScale):
    """N(loc, scale^2); scale is the standard deviation.

    z = loc + scale*eps, eps ~ N(0, 1)        log p(x) = -((x - loc)/scale)^2/2 - log(scale) - log(2 pi)/2

    Raises ArgumentError for a scale that is not positive.

    Source: Kingma and Welling, Auto-encoding variational Bayes, arXiv 1312.6114, section 2.4.

    >>> float(Normal(1.0, 2.0).rsample(eps=-0.5))
    0.0
    """

    noise_law = "standard normal"
    standard_mean, standard_variance, standard_entropy = 0.0, 1.0, 0.5 * math.log(2 * math.pi * math.e)

    def _transform(self, eps: Any) -> Parameter:
        return self._placed(eps)

    def _log_prob(self, x: Any) -> Parameter:
        return ops.normal_log_prob(x, self.loc, self.scale)

    def _probability(self, y: Any) -> Parameter:
        return ndtr(y)

    def _quantile(self, u: Any) -> Parameter:
        return ndtri(u)


class Laplace(LocationScale):
    """Density exp(-|y|)/2, y = (x - loc)/scale.

    Q(u) = log(2u) for u < 1/2, else -log(2(1 - u))

    >>> float(Laplace().cdf(0.0))
    0.5
    """

    standard_mean, standard_variance, standard_entropy = 0.0, 2.0, 1 + math.log(2)

    def _density(self, y: Any) -> Parameter:
        return ops.sub(ops.neg(ops.abs(y)), math.log(2))

    def _probability(self, y: Any) -> Parameter:
        low = value_of(y) < 0
        tail = ops.mul(ops.exp(ops.where(low, y, ops.neg(y))), 0.5)
        return ops.where(low, tail, ops.sub(1.0, tail))

    def _quantile(self, u: Any) -> Parameter:
        low = value_of(u) < 0.5
        size = ops.log(ops.mul(ops.where(low, u, ops.sub(1.0, u)), 2.0))
        return ops.where(low, size, ops.neg(size))


class Logistic(LocationScale):
    """The cdf is sigmoid(y), y = (x - loc)/scale, and the density its slope.

    Q(u) = log(u) - log(1 - u)

    >>> float(Logistic().cdf(0.0))
    0.5
    """

    standard_mean, standard_variance, standard_entropy = 0.0, math.pi**2 / 3, 2.0

    def _density(self, y: Any) -> Parameter:
        size = ops.abs(y)  # even
        return ops.neg(ops.add(size, ops.mul(ops.log1p(ops.exp(ops.neg(size))), 2.0)))

    def _probability(self, y: Any) -> Parameter:
        return ops.sigmoid(y)

    def _quantile(self, u: Any) -> Parameter:
        return ops.sub(ops.log(u), ops.log1p(ops.neg(u)))


class Cauchy(LocationScale):
    """Density 1/(pi*(1 + y^2)), y = (x - loc)/scale; mean and variance do not exist (NaN).

    Q(u) = tan(pi*(u - 1/2)), taken as -cos(pi*u)/sin(pi*u), which keeps the digits of small u

    >>> float(Cauchy().cdf(1.0))
    0.75
    """

    standard_mean, standard_variance, standard_entropy = math.nan, math.nan, math.log(4 * math.pi)

    def _density(self, y: Any) -> Parameter:
        size = ops.abs(y)  # 1 + y^2 overflows where y^2*(1 + 1/y^2) does not
        large = value_of(size) > 1
        small = ops.where(large, ops.div(1.0, ops.where(large, size, 1.0)), size)
        extra = ops.mul(ops.log(ops.where(large, size, 1.0)), 2.0)
        return ops.neg(ops.add(ops.add(ops.log1p(ops.square(small)), extra), math.log(math.pi)))

    def _probability(self, y: Any) -> Parameter:
        low = value_of(y) < -1  # arctan(y) = -pi/2 - arctan(1/y)
        far = ops.mul(ops.arctan(ops.div(-1.0, ops.where(low, y, -1.0))), 1 / math.pi)
        return ops.where(low, far, ops.add(ops.mul(ops.arctan(y), 1 / math.pi), 0.5))

    def _quantile(self, u: Any) -> Parameter:
        low = value_of(u) < 0.5
        angle = ops.mul(ops.where(low, u, ops.sub(1.0, u)), math.pi)
        size = ops.div(ops.cos(angle), ops.sin(angle))
        return ops.where(low, ops.neg(size), size)


class Gumbel(LocationScale):
    """The law of maxima: the cdf is exp(-exp(-y)), y = (x - loc)/scale.

    Q(u) = -log(-log(u))

    >>> round(float(Gumbel().mean), 4)
    0.5772
    """

    standard_mean, standard_variance, standard_entropy = EULER, math.pi**2 / 6, 1 + EULER

    def _density(self, y: Any) -> Parameter:
        return ops.neg(ops.add(y, ops.exp(ops.neg(y))))

    def _probability(self, y: Any) -> Parameter:
        return ops.exp(ops.neg(ops.exp(ops.neg(y))))

    def _quantile(self, u: Any) -> Parameter:
        return ops.neg(ops.log(ops.neg(ops.log(u))))
