"""Distributions on an interval: uniform, Kumaraswamy, beta by implicit re-parameterization, continuous Bernoulli."""

from __future__ import annotations

from typing import Any

import numpy as np

from npreparam import ops
from npreparam._errors import ArgumentError
from npreparam.ops.incomplete_beta import beta_log_density, betainc, betaincinv, log_beta, standard_beta_rsample
from npreparam.ops.special import digamma
from npreparam.ops.xlogy import xlogy
from npreparam.prob._distribution import Array, Distribution, Shape
from npreparam.prob._parameters import POSITIVE, REAL, UNIT_INTERVAL, Parameter, check_rule, open_interval
from npreparam.prob.location_scale import EULER
from npreparam.tape.tensor import value_of


class Uniform(Distribution):
    """Density 1/(high - low) for low <= x <= high.

    z = low + (high - low)*eps, eps ~ U(0, 1)

    Raises ArgumentError unless low < high, and for x outside [low, high].

    >>> float(Uniform(1.0, 3.0).rsample(eps=0.25))
    1.5
    """

    parameter_rules = {"low": REAL, "high": REAL}  # noqa: RUF012
    noise_law = "uniform on (0, 1)"

    def __init__(self, low: Any = 0.0, high: Any = 1.0) -> None:
        self._set(low=low, high=high)
        if not (value_of(self.low) < value_of(self.high)).all():
            raise ArgumentError(f"`low` (={value_of(self.low)}) must be less than `high` (={value_of(self.high)})")
        self.width = ops.sub(self.high, self.low)

    def _checked_value(self, x: Any) -> Any:
        x = super()._checked_value(x)
        value, low, high = np.broadcast_arrays(value_of(x), value_of(self.low), value_of(self.high))
        outside = (value < low) | (value > high)
        if outside.any():
            i = np.unravel_index(np.argmax(outside), outside.shape)
            raise ArgumentError(f"`x` (={value[i]}) must lie between `low` (={low[i]}) and `high` (={high[i]}): the support of Uniform")
        return x

    def _transform(self, eps: Any) -> Parameter:
        return ops.add(self.low, ops.mul(self.width, eps))

    def _log_prob(self, x: Any) -> Parameter:
        return ops.neg(ops.add(ops.log(self.width), ops.mul(x, 0.0)))

    def _cdf(self, x: Any) -> Parameter:
        return ops.div(ops.sub(x, self.low), self.width)

    def _icdf(self, u: Any) -> Parameter:
        return self._transform(u)

    @property
    def mean(self) -> Parameter:
        """(low + high)/2."""
        return self._expand(ops.mul(ops.add(self.low, self.high), 0.5))

    @property
    def variance(self) -> Parameter:
        """(high - low)^2/12."""
        return self._expand(ops.div(ops.square(self.width), 12.0))

    def entropy(self) -> Parameter:
        """log(high - low)."""
        return self._expand(ops.log(self.width))


class Kumaraswamy(Distribution):
    """The cdf is 1 - (1 - x^a)^b on [0, 1]; a is concentration1, b is concentration0: near a beta distribution, with a closed-form quantile.

    z = (1 - (1 - eps)^(1/b))^(1/a), eps ~ U(0, 1)

    Source: Kumaraswamy, Journal of Hydrology 46, 1980.

    >>> round(float(Kumaraswamy(1.0, 1.0).rsample(eps=0.25)), 12)
    0.25
    """

    parameter_rules = {"concentration1": POSITIVE, "concentration0": POSITIVE}  # noqa: RUF012
    support = UNIT_INTERVAL
    noise_law = "uniform on (0, 1)"

    def __init__(self, concentration1: Any, concentration0: Any) -> None:
        self._set(concentration1=concentration1, concentration0=concentration0)

    def _transform(self, eps: Any) -> Parameter:
        inner = ops.neg(ops.expm1(ops.div(ops.log1p(ops.neg(eps)), self.concentration0)))
        return ops.exp(ops.div(ops.log(inner), self.concentration1))

    def _log_rest(self, x: Any) -> Parameter:
        """log(1 - x^a)."""
        return ops.log(ops.neg(ops.expm1(xlogy(self.concentration1, x))))

    def _log_prob(self, x: Any) -> Parameter:
        a, b = self.concentration1, self.concentration0
        rest = ops.neg(ops.expm1(xlogy(a, x)))
        return ops.add(ops.log(ops.mul(a, b)), ops.add(xlogy(ops.sub(a, 1.0), x), xlogy(ops.sub(b, 1.0), rest)))

    def _cdf(self, x: Any) -> Parameter:
        return ops.neg(ops.expm1(ops.mul(self.concentration0, self._log_rest(x))))

    def _icdf(self, u: Any) -> Parameter:
        return self._transform(u)

    def _moment(self, order: int) -> Parameter:
        """E[X^n] = b*B(1 + n/a, b)."""
        a, b = self.concentration1, self.concentration0
        return ops.mul(b, ops.exp(log_beta(ops.add(ops.div(float(order), a), 1.0), b)))

    @property
    def mean(self) -> Parameter:
        """b*B(1 + 1/a, b)."""
        return self._expand(self._moment(1))

    @property
    def variance(self) -> Parameter:
        """b*B(1 + 2/a, b) - mean^2."""
        return self._expand(ops.sub(self._moment(2), ops.square(self._moment(1))))

    def entropy(self) -> Parameter:
        """(1 - 1/b) + (1 - 1/a)*(psi(b + 1) + Euler's constant) - log(a*b)."""
        a, b = self.concentration1, self.concentration0
        harmonic = ops.add(digamma(ops.add(b, 1.0)), EULER)
        first = ops.add(ops.sub(1.0, ops.div(1.0, b)), ops.mul(ops.sub(1.0, ops.div(1.0, a)), harmonic))
        return self._expand(ops.sub(first, ops.log(ops.mul(a, b))))


class Beta(Distribution):
    """Density x^(a-1)*(1-x)^(b-1)/B(a, b) on [0, 1]; a is concentration1, b is concentration0.

    z = eps, eps ~ Beta(a, b); dz/da and dz/db by implicit re-parameterization (`npreparam.ops.incomplete_beta`)

    The noise is the variate itself, drawn by numpy.random.Generator.beta; 0 and 1 (by rounding) are moved to the nearest numbers inside.

    >>> float(Beta(1.0, 3.0).mean)
    0.25
    """

    parameter_rules = {"concentration1": POSITIVE, "concentration0": POSITIVE}  # noqa: RUF012
    support = UNIT_INTERVAL
    noise_law = "beta with these concentrations"

    def __init__(self, concentration1: Any, concentration0: Any) -> None:
        self._set(concentration1=concentration1, concentration0=concentration0)

    def _noise(self, shape: Shape, rng: np.random.Generator) -> Array:
        a, b = (np.asarray(value_of(v), np.float64) for v in (self.concentration1, self.concentration0))
        return open_interval(np.asarray(rng.beta(a, b, shape)).astype(self.dtype))

    def _admitted(self, eps: Any) -> Any:
        check_rule(value_of(eps), "eps", UNIT_INTERVAL)
        return open_interval(value_of(eps))

    def _transform(self, eps: Any) -> Parameter:
        return standard_beta_rsample(self.concentration1, self.concentration0, eps)

    def _log_prob(self, x: Any) -> Parameter:
        return beta_log_density(self.concentration1, self.concentration0, x)

    def _cdf(self, x: Any) -> Parameter:
        return betainc(self.concentration1, self.concentration0, x)

    def _icdf(self, u: Any) -> Parameter:
        return betaincinv(self.concentration1, self.concentration0, u)

    @property
    def mean(self) -> Parameter:
        """a/(a + b)."""
        return self._expand(ops.div(self.concentration1, ops.add(self.concentration1, self.concentration0)))

    @property
    def variance(self) -> Parameter:
        """a*b/((a + b)^2*(a + b + 1))."""
        a, b = self.concentration1, self.concentration0
        total = ops.add(a, b)
        return self._expand(ops.div(ops.mul(ops.div(a, total), ops.div(b, total)), ops.add(total, 1.0)))

    def entropy(self) -> Parameter:
        """log B(a, b) - (a - 1)*psi(a) - (b - 1)*psi(b) + (a + b - 2)*psi(a + b)."""
        a, b = self.concentration1, self.concentration0
        total = ops.add(a, b)
        own = ops.add(ops.mul(ops.sub(a, 1.0), digamma(a)), ops.mul(ops.sub(b, 1.0), digamma(b)))
        return self._expand(ops.add(ops.sub(log_beta(a, b), own), ops.mul(ops.sub(total, 2.0), digamma(total))))
