"""Distributions on the positive numbers by formula: exponential, half-normal, Weibull, and the gamma family by implicit re-parameterization."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from npreparam import ops
from npreparam.ops.incomplete_gamma import gamma_log_density, gammainc, gammaincinv, standard_gamma_rsample
from npreparam.ops.special import HALF_LOG_TWO_PI, digamma, lgamma, ndtr, ndtri
from npreparam.ops.xlogy import xlogy
from npreparam.prob._distribution import Array, Distribution, Shape
from npreparam.prob._parameters import NON_NEGATIVE, POSITIVE, Parameter, check_rule
from npreparam.prob.location_scale import EULER
from npreparam.tape.tensor import value_of


class Exponential(Distribution):
    """Density rate*exp(-rate*x) for x >= 0.

    z = -log(1 - eps)/rate, eps ~ U(0, 1)

    >>> float(Exponential(2.0).mean)
    0.5
    """

    parameter_rules = {"rate": POSITIVE}  # noqa: RUF012
    support = NON_NEGATIVE
    noise_law = "uniform on (0, 1)"

    def __init__(self, rate: Any = 1.0) -> None:
        self._set(rate=rate)

    def _transform(self, eps: Any) -> Parameter:
        return ops.div(ops.neg(ops.log1p(ops.neg(eps))), self.rate)

    def _log_prob(self, x: Any) -> Parameter:
        return ops.sub(ops.log(self.rate), ops.mul(self.rate, x))

    def _cdf(self, x: Any) -> Parameter:
        return ops.neg(ops.expm1(ops.neg(ops.mul(self.rate, x))))

    def _icdf(self, u: Any) -> Parameter:
        return self._transform(u)

    @property
    def mean(self) -> Parameter:
        """1/rate."""
        return self._expand(ops.div(1.0, self.rate))

    @property
    def variance(self) -> Parameter:
        """1/rate^2."""
        return self._expand(ops.square(ops.div(1.0, self.rate)))

    def entropy(self) -> Parameter:
        """1 - log(rate)."""
        return self._expand(ops.sub(1.0, ops.log(self.rate)))


class HalfNormal(Distribution):
    """|X| for X ~ N(0, scale^2).

    z = scale*|eps|, eps ~ N(0, 1)

    >>> float(HalfNormal(2.0).rsample(eps=-1.5))
    3.0
    """

    parameter_rules = {"scale": POSITIVE}  # noqa: RUF012
    support = NON_NEGATIVE

    def __init__(self, scale: Any = 1.0) -> None:
        self._set(scale=scale)

    def _transform(self, eps: Any) -> Parameter:
        return ops.mul(self.scale, ops.abs(eps))

    def _log_prob(self, x: Any) -> Parameter:
        return ops.sub(ops.sub(math.log(2) - HALF_LOG_TWO_PI, ops.log(self.scale)), ops.mul(ops.square(ops.div(x, self.scale)), 0.5))

    def _cdf(self, x: Any) -> Parameter:
        y = ops.div(x, self.scale)
        return ops.sub(ndtr(y), ndtr(ops.neg(y)))

    def _icdf(self, u: Any) -> Parameter:
        return ops.mul(self.scale, ops.neg(ndtri(ops.mul(ops.sub(1.0, u), 0.5))))

    @property
    def mean(self) -> Parameter:
        """scale*sqrt(2/pi)."""
        return self._expand(ops.mul(self.scale, math.sqrt(2 / math.pi)))

    @property
    def variance(self) -> Parameter:
        """scale^2*(1 - 2/pi)."""
        return self._expand(ops.mul(ops.square(self.scale), 1 - 2 / math.pi))

    def entropy(self) -> Parameter:
        """log(scale) + log(pi e/2)/2."""
        return self._expand(ops.add(ops.log(self.scale), 0.5 * math.log(math.pi * math.e / 2)))


class Weibull(Distribution):
    """The cdf is 1 - exp(-(x/scale)^k), k the concentration, x >= 0.

    z = scale*(-log(1 - eps))^(1/k), eps ~ U(0, 1)

    >>> float(Weibull(2.0, 1.0).mean)
    2.0
    """

    parameter_rules = {"scale": POSITIVE, "concentration": POSITIVE}  # noqa: RUF012
    support = NON_NEGATIVE
    noise_law = "uniform on (0, 1)"

    def __init__(self, scale: Any, concentration: Any) -> None:
        self._set(scale=scale, concentration=concentration)

    def _transform(self, eps: Any) -> Parameter:
        return ops.mul(self.scale, ops.exp(ops.div(ops.log(ops.neg(ops.log1p(ops.neg(eps)))), self.concentration)))

    def _hazard(self, x: Any) -> Parameter:
        return ops.exp(ops.mul(self.concentration, ops.log(ops.div(x, self.scale))))

    def _log_prob(self, x: Any) -> Parameter:
        k, y = self.concentration, ops.div(x, self.scale)
        return ops.sub(ops.add(ops.log(ops.div(k, self.scale)), xlogy(ops.sub(k, 1.0), y)), self._hazard(x))

    def _cdf(self, x: Any) -> Parameter:
        return ops.neg(ops.expm1(ops.neg(self._hazard(x))))

    def _icdf(self, u: Any) -> Parameter:
        return self._transform(u)

    def _moment(self, order: int) -> Parameter:
        return ops.exp(lgamma(ops.add(ops.div(float(order), self.concentration), 1.0)))

    @property
    def mean(self) -> Parameter:
        """scale*gamma(1 + 1/k)."""
        return self._expand(ops.mul(self.scale, self._moment(1)))

    @property
    def variance(self) -> Parameter:
        """scale^2*(gamma(1 + 2/k) - gamma(1 + 1/k)^2)."""
        return self._expand(ops.mul(ops.square(self.scale), ops.sub(self._moment(2), ops.square(self._moment(1)))))

    def entropy(self) -> Parameter:
        """Euler's constant*(1 - 1/k) + log(scale/k) + 1."""
        k = self.concentration
        return self._expand(ops.add(ops.add(ops.mul(ops.sub(1.0, ops.div(1.0, k)), EULER), ops.log(ops.div(self.scale, k))), 1.0))


class Gamma(Distribution):
    """Density rate^a*x^(a-1)*exp(-rate*x)/gamma(a), a the concentration, x >= 0.

    z = eps/rate, eps ~ Gamma(a, 1), and dz/da = -(dF/da)/f/rate by implicit re-parameterization (`npreparam.ops.incomplete_gamma`)

    The noise is the accepted standard gamma variate itself, drawn by numpy.random.Generator.standard_gamma (Marsaglia and Tsang); for a near 0 it
    underflows to 0, where log_prob is inf and dz/da is 0.

    >>> float(Gamma(3.0, 2.0).mean)
    1.5
    """

    parameter_rules = {"concentration": POSITIVE, "rate": POSITIVE}  # noqa: RUF012
    support = NON_NEGATIVE
    noise_law = "gamma with this concentration and rate 1"

    def __init__(self, concentration: Any, rate: Any = 1.0) -> None:
        self._set(concentration=concentration, rate=rate)

    def _noise(self, shape: Shape, rng: np.random.Generator) -> Array:
        return np.asarray(rng.standard_gamma(np.asarray(value_of(self.concentration), np.float64), shape)).astype(self.dtype)

    def _admitted(self, eps: Any) -> Any:
        check_rule(value_of(eps), "eps", NON_NEGATIVE)
        return eps

    def _transform(self, eps: Any) -> Parameter:
        return ops.div(standard_gamma_rsample(self.concentration, eps), self.rate)

    def _log_prob(self, x: Any) -> Parameter:
        return ops.add(gamma_log_density(self.concentration, ops.mul(x, self.rate)), ops.log(self.rate))

    def _cdf(self, x: Any) -> Parameter:
        return gammainc(self.concentration, ops.mul(x, self.rate))

    def _icdf(self, u: Any) -> Parameter:
        return ops.div(gammaincinv(self.concentration, u), self.rate)

    @property
    def mean(self) -> Parameter:
        """a/rate."""
        return self._expand(ops.div(self.concentration, self.rate))

    @property
    def variance(self) -> Parameter:
        """a/rate^2."""
        return self._expand(ops.div(self.concentration, ops.square(self.rate)))

    def entropy(self) -> Parameter:
        """a - log(rate) + lgamma(a) + (1 - a)*psi(a)."""
        a = self.concentration
        return self._expand(ops.add(ops.sub(a, ops.log(self.rate)), ops.add(lgamma(a), ops.mul(ops.sub(1.0, a), digamma(a)))))


class InverseGamma(Distribution):
    """The law of rate/X for X ~ Gamma(a, 1): density rate^a*x^(-a-1)*exp(-rate/x)/gamma(a), x > 0.

    z = rate/eps, eps ~ Gamma(a, 1) as in `Gamma`; noise that underflowed to 0 is taken as the smallest normal number.

    >>> float(InverseGamma(3.0, 2.0).mean)
    1.0
    """

    parameter_rules = {"concentration": POSITIVE, "rate": POSITIVE}  # noqa: RUF012
    support = POSITIVE
    noise_law = "gamma with this concentration and rate 1"

    def __init__(self, concentration: Any, rate: Any = 1.0) -> None:
        self._set(concentration=concentration, rate=rate)

    def _noise(self, shape: Shape, rng: np.random.Generator) -> Array:
        return Gamma(value_of(self.concentration))._noise(shape, rng)

    def _admitted(self, eps: Any) -> Any:
        check_rule(value_of(eps), "eps", NON_NEGATIVE)
        return eps

    def _transform(self, eps: Any) -> Parameter:
        eps = np.maximum(value_of(eps), np.finfo(self.dtype).tiny)
        return ops.div(self.rate, standard_gamma_rsample(self.concentration, eps))

    def _log_prob(self, x: Any) -> Parameter:
        y = ops.div(self.rate, x)
        return ops.sub(gamma_log_density(self.concentration, y), ops.log(ops.div(x, y)))

    def _cdf(self, x: Any) -> Parameter:
        return ops.sub(1.0, gammainc(self.concentration, ops.div(self.rate, x)))

    def _icdf(self, u: Any) -> Parameter:
        return ops.div(self.rate, gammaincinv(self.concentration, ops.sub(1.0, u)))

    @property
    def mean(self) -> Parameter:
        """rate/(a - 1) for a > 1, else infinite."""
        exists = value_of(self.concentration) > 1
        return self._expand(ops.where(exists, ops.div(self.rate, ops.where(exists, ops.sub(self.concentration, 1.0), 1.0)), np.inf))

    @property
    def variance(self) -> Parameter:
        """rate^2/((a - 1)^2*(a - 2)) for a > 2, else infinite (NaN where the mean is infinite)."""
        exists, a = value_of(self.concentration) > 2, self.concentration
        safe = ops.where(exists, a, 3.0)
        value = ops.div(ops.square(ops.div(self.rate, ops.sub(safe, 1.0))), ops.sub(safe, 2.0))
        return self._expand(ops.where(exists, value, ops.where(value_of(a) > 1, np.inf, np.full(a.shape, np.nan, self.dtype))))

    def entropy(self) -> Parameter:
        """a + log(rate) + lgamma(a) - (1 + a)*psi(a)."""
        a = self.concentration
        return self._expand(ops.sub(ops.add(ops.add(a, ops.log(self.rate)), lgamma(a)), ops.mul(ops.add(a, 1.0), digamma(a))))
