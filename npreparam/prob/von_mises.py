"""The von Mises distribution on the circle, by implicit re-parameterization."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from npreparam import ops
from npreparam.ops.special import i1_i0, log_i0
from npreparam.ops.von_mises import von_mises_cdf, von_mises_icdf, von_mises_log_density, von_mises_rsample
from npreparam.prob._distribution import Array, Distribution, Shape
from npreparam.prob._parameters import ANGLE, POSITIVE, REAL, Parameter, check_rule
from npreparam.tape.tensor import value_of


class VonMises(Distribution):
    """Density exp(k*cos(x - loc))/(2 pi*I0(k)) of an angle x in radians, k the concentration.

    z = loc + eps, brought into [-pi, pi] by a multiple of 2 pi; eps is a draw around 0; deps/dk by implicit re-parameterization
    (`npreparam.ops.von_mises`)

    The noise is the variate around 0 itself, in [-pi, pi], drawn by numpy.random.Generator.vonmises (Best and Fisher). `mean` is the circular mean,
    `variance` the circular variance 1 - I1(k)/I0(k); `cdf` and `icdf` take x - loc in [-pi, pi].

    >>> float(VonMises(1.0, 4.0).rsample(eps=0.5))
    1.5
    """

    parameter_rules = {"loc": REAL, "concentration": POSITIVE}  # noqa: RUF012
    noise_law = "von Mises around 0 with this concentration"

    def __init__(self, loc: Any, concentration: Any) -> None:
        self._set(loc=loc, concentration=concentration)

    def _noise(self, shape: Shape, rng: np.random.Generator) -> Array:
        draw = np.asarray(rng.vonmises(0.0, np.asarray(value_of(self.concentration), np.float64), shape))
        limit = np.nextafter(self.dtype.type(np.pi), self.dtype.type(0))
        return np.clip(draw.astype(self.dtype), -limit, limit)

    def _admitted(self, eps: Any) -> Any:
        check_rule(value_of(eps), "eps", ANGLE)
        return eps

    def _transform(self, eps: Any) -> Parameter:
        z = ops.add(self.loc, von_mises_rsample(self.concentration, eps))
        turns = np.round(value_of(z) / (2 * np.pi))
        return ops.sub(z, (turns * 2 * np.pi).astype(self.dtype)) if turns.any() else z

    def _log_prob(self, x: Any) -> Parameter:
        return von_mises_log_density(self.concentration, ops.sub(x, self.loc))

    def _cdf(self, x: Any) -> Parameter:
        y = ops.sub(x, self.loc)
        check_rule(value_of(y), "x - loc", ANGLE)
        return von_mises_cdf(self.concentration, y)

    def _icdf(self, u: Any) -> Parameter:
        return ops.add(self.loc, von_mises_icdf(self.concentration, u))

    @property
    def mean(self) -> Parameter:
        """loc, the circular mean."""
        return self._expand(self.loc)

    @property
    def variance(self) -> Parameter:
        """1 - I1(k)/I0(k), the circular variance."""
        return self._expand(ops.sub(1.0, i1_i0(self.concentration)))

    def entropy(self) -> Parameter:
        """log(2 pi*I0(k)) - k*I1(k)/I0(k)."""
        k = self.concentration
        return self._expand(ops.sub(ops.add(log_i0(k), math.log(2 * math.pi)), ops.mul(k, i1_i0(k))))
