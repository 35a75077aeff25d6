"""Student's t by implicit re-parameterization."""

from __future__ import annotations

from typing import Any

import numpy as np

from npreparam import ops
from npreparam.ops.incomplete_beta import log_beta
from npreparam.ops.special import digamma
from npreparam.ops.student_t import standard_t_rsample, t_cdf, t_icdf, t_log_density
from npreparam.prob._distribution import Array, Distribution, Shape
from npreparam.prob._parameters import POSITIVE, REAL, Parameter
from npreparam.tape.tensor import value_of


class StudentT(Distribution):
    """loc + scale*T, where T has Student's t distribution with `df` degrees of freedom.

    z = loc + scale*eps, eps ~ t(df); deps/d(df) by implicit re-parameterization (`npreparam.ops.student_t`)

    The noise is the standard variate itself, drawn by numpy.random.Generator.standard_t.

    >>> float(StudentT(3.0, 1.0, 2.0).rsample(eps=-0.5))
    0.0
    """

    parameter_rules = {"df": POSITIVE, "loc": REAL, "scale": POSITIVE}  # noqa: RUF012
    noise_law = "Student's t with these degrees of freedom"

    def __init__(self, df: Any, loc: Any = 0.0, scale: Any = 1.0) -> None:
        self._set(df=df, loc=loc, scale=scale)

    def _noise(self, shape: Shape, rng: np.random.Generator) -> Array:
        return np.asarray(rng.standard_t(np.asarray(value_of(self.df), np.float64), shape)).astype(self.dtype)

    def _transform(self, eps: Any) -> Parameter:
        return ops.add(ops.mul(self.scale, standard_t_rsample(self.df, eps)), self.loc)

    def _standard(self, x: Any) -> Parameter:
        return ops.div(ops.sub(x, self.loc), self.scale)

    def _log_prob(self, x: Any) -> Parameter:
        return ops.sub(t_log_density(self.df, self._standard(x)), ops.log(self.scale))

    def _cdf(self, x: Any) -> Parameter:
        return t_cdf(self.df, self._standard(x))

    def _icdf(self, u: Any) -> Parameter:
        return ops.add(ops.mul(self.scale, t_icdf(self.df, u)), self.loc)

    @property
    def mean(self) -> Parameter:
        """loc for df > 1, else NaN."""
        return self._expand(ops.where(value_of(self.df) > 1, self.loc, np.full(self.batch_shape, np.nan, self.dtype)))

    @property
    def variance(self) -> Parameter:
        """scale^2*df/(df - 2) for df > 2, infinite for 1 < df <= 2, else NaN."""
        df = value_of(self.df)
        safe = ops.where(df > 2, self.df, 3.0)
        value = ops.mul(ops.square(self.scale), ops.div(safe, ops.sub(safe, 2.0)))
        return self._expand(ops.where(df > 2, value, np.where(df > 1, np.inf, np.nan).astype(self.dtype)))

    def entropy(self) -> Parameter:
        """(n + 1)/2*(psi((n + 1)/2) - psi(n/2)) + log(n)/2 + log B(n/2, 1/2) + log(scale)."""
        half = ops.mul(self.df, 0.5)
        spread = ops.mul(ops.add(half, 0.5), ops.sub(digamma(ops.add(half, 0.5)), digamma(half)))
        return self._expand(ops.add(ops.add(spread, ops.mul(ops.log(self.df), 0.5)), ops.add(log_beta(half, 0.5), ops.log(self.scale))))
