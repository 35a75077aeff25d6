"""The multivariate normal, with a full or a low-rank covariance, and the Dirichlet distribution."""

from __future__ import annotations

from typing import Any

import numpy as np

from npreparam import ops
from npreparam._errors import ArgumentError, ShapeError
from npreparam.ops import linalg
from npreparam.ops.dirichlet import standard_dirichlet_rsample
from npreparam.ops.special import HALF_LOG_TWO_PI, digamma, lgamma
from npreparam.ops.xlogy import xlogy
from npreparam.prob._distribution import Array, Distribution, Shape
from npreparam.prob._parameters import (
    LOWER_TRIANGULAR,
    MATRIX,
    POSITIVE_DEFINITE,
    POSITIVE_VECTOR,
    SIMPLEX,
    VECTOR,
    Parameter,
    check_rule,
    open_interval,
)
from npreparam.tape.tensor import value_of


def _check_last(owner: Any, name: str, axes: tuple[int, ...], dimension: int) -> None:
    shape = getattr(owner, name).shape
    if any(shape[axis] != dimension for axis in axes):
        raise ShapeError(f"`{name}` has shape {shape}, but must have length {dimension} in axes {axes}, as `loc` has")


class MultivariateNormal(Distribution):
    """N(loc, S) in n dimensions, S given as `covariance` (..., n, n), or by its Cholesky factor `scale_tril`, S = L L^T.

    z = loc + L eps, eps ~ N(0, 1) of n elements        log p(x) = -|L^-1 (x - loc)|^2/2 - sum of log L_ii - n*log(2 pi)/2

    Raises ArgumentError for a covariance that is not symmetric positive definite, or a factor that is not lower triangular with positive diagonal.

    >>> MultivariateNormal(np.zeros(2), covariance=np.array([[4.0, 2.0], [2.0, 5.0]])).rsample(eps=np.ones(2))
    array([2., 3.])
    """

    parameter_rules = {"loc": VECTOR, "covariance": POSITIVE_DEFINITE, "scale_tril": LOWER_TRIANGULAR}  # noqa: RUF012
    support = VECTOR

    def __init__(self, loc: Any, covariance: Any = None, scale_tril: Any = None) -> None:
        if (covariance is None) == (scale_tril is None):
            raise ArgumentError("MultivariateNormal takes `covariance` or `scale_tril`: exactly one of them")
        self._set(loc=loc, **({"covariance": covariance} if scale_tril is None else {"scale_tril": scale_tril}))
        self.event_shape = self.loc.shape[-1:]
        _check_last(self, "covariance" if scale_tril is None else "scale_tril", (-2, -1), self.event_shape[0])
        self.factor = linalg.cholesky(self.covariance) if scale_tril is None else self.scale_tril

    def _transform(self, eps: Any) -> Parameter:
        return ops.add(self.loc, linalg.apply(self.factor, eps))

    def _log_det(self) -> Parameter:
        return ops.sum(ops.log(linalg.diagonal(self.factor)), axis=-1)

    def _log_prob(self, x: Any) -> Parameter:
        white = linalg.apply(linalg.inverse_lower(self.factor), ops.sub(x, self.loc))
        constant = self.event_shape[0] * HALF_LOG_TWO_PI
        return ops.neg(ops.add(ops.add(ops.mul(ops.sum(ops.square(white), axis=-1), 0.5), self._log_det()), constant))

    @property
    def mean(self) -> Parameter:
        """loc."""
        return self._expand(self.loc)

    @property
    def variance(self) -> Parameter:
        """The diagonal of S."""
        return self._expand(ops.sum(ops.square(self.factor), axis=-1))

    def entropy(self) -> Parameter:
        """Sum of log L_ii + n*log(2 pi e)/2."""
        value = ops.add(self._log_det(), self.event_shape[0] * (HALF_LOG_TWO_PI + 0.5))
        return ops.broadcast_to(value, self.batch_shape)


class LowRankMultivariateNormal(Distribution):
    """N(loc, W W^T + diag(d)) with `cov_factor` W (..., n, r) and `cov_diag` d (..., n) > 0.

    z = loc + W eps_1 + sqrt(d)*eps_2, noise (eps_1, eps_2) ~ N(0, 1) of r + n elements. The density takes r x r matrices alone, through
    C = 1 + W^T D^-1 W (the lemmas of Woodbury and of the determinant).

    >>> LowRankMultivariateNormal(np.zeros(2), np.ones((2, 1)), np.ones(2)).rsample(eps=np.array([2.0, 0.0, 1.0]))
    array([2., 3.])
    """

    parameter_rules = {"loc": VECTOR, "cov_factor": MATRIX, "cov_diag": POSITIVE_VECTOR}  # noqa: RUF012
    support = VECTOR

    def __init__(self, loc: Any, cov_factor: Any, cov_diag: Any) -> None:
        self._set(loc=loc, cov_factor=cov_factor, cov_diag=cov_diag)
        self.event_shape = self.loc.shape[-1:]
        _check_last(self, "cov_factor", (-2,), self.event_shape[0])
        _check_last(self, "cov_diag", (-1,), self.event_shape[0])
        self.rank = self.cov_factor.shape[-1]

    def noise_shape(self, shape: Any = ()) -> Shape:
        """r + n numbers for each draw."""
        sample = self.sample_shape(shape)
        return (*sample[:-1], self.rank + sample[-1])

    def _transform(self, eps: Any) -> Parameter:
        low, own = eps[..., : self.rank], eps[..., self.rank:]
        return ops.add(ops.add(self.loc, linalg.apply(self.cov_factor, low)), ops.mul(ops.sqrt(self.cov_diag), own))

    def _scaled(self) -> Parameter:
        return linalg.swap(ops.div(self.cov_factor, ops.reshape(self.cov_diag, (*self.cov_diag.shape, 1))))  # W^T D^-1

    def _capacitance(self) -> Parameter:
        return linalg.cholesky(ops.add(linalg.product(self._scaled(), self.cov_factor), np.eye(self.rank, dtype=self.dtype)))

    def _log_det(self, factor: Parameter) -> Parameter:
        inner = ops.sum(ops.log(linalg.diagonal(factor)), axis=-1)
        return ops.add(ops.mul(ops.sum(ops.log(self.cov_diag), axis=-1), 0.5), inner)

    def _log_prob(self, x: Any) -> Parameter:
        y, factor = ops.sub(x, self.loc), self._capacitance()
        seen = linalg.apply(linalg.inverse_lower(factor), linalg.apply(self._scaled(), y))
        distance = ops.sub(ops.sum(ops.div(ops.square(y), self.cov_diag), axis=-1), ops.sum(ops.square(seen), axis=-1))
        return ops.neg(ops.add(ops.add(ops.mul(distance, 0.5), self._log_det(factor)), self.event_shape[0] * HALF_LOG_TWO_PI))

    def dense(self) -> MultivariateNormal:
        """The same distribution with its covariance written out."""
        eye = np.eye(self.event_shape[0], dtype=self.dtype)
        own = ops.mul(ops.reshape(self.cov_diag, (*self.cov_diag.shape, 1)), eye)
        covariance = ops.add(linalg.product(self.cov_factor, linalg.swap(self.cov_factor)), own)
        return MultivariateNormal(self.loc, scale_tril=linalg.cholesky(covariance))

    @property
    def mean(self) -> Parameter:
        """loc."""
        return self._expand(self.loc)

    @property
    def variance(self) -> Parameter:
        """The diagonal of W W^T + diag(d)."""
        return self._expand(ops.add(ops.sum(ops.square(self.cov_factor), axis=-1), self.cov_diag))

    def entropy(self) -> Parameter:
        """Half the log-determinant + n*log(2 pi e)/2."""
        value = ops.add(self._log_det(self._capacitance()), self.event_shape[0] * (HALF_LOG_TWO_PI + 0.5))
        return ops.broadcast_to(value, self.batch_shape)


class Dirichlet(Distribution):
    """Density gamma(a_0)/prod gamma(a_i) * prod x_i^(a_i - 1) on the simplex, a the concentration (..., n), a_0 its sum.

    z = eps, eps ~ Dirichlet(a); dz/da by implicit re-parameterization (`npreparam.ops.dirichlet`)

    The noise is the variate itself, drawn by numpy.random.Generator; elements of 0 and 1 (by rounding) are moved to the nearest numbers inside.

    >>> Dirichlet(np.array([1.0, 3.0])).mean
    array([0.25, 0.75])
    """

    parameter_rules = {"concentration": POSITIVE_VECTOR}  # noqa: RUF012
    support = SIMPLEX
    noise_law = "Dirichlet with this concentration"

    def __init__(self, concentration: Any) -> None:
        self._set(concentration=concentration)
        self.event_shape = self.concentration.shape[-1:]
        if self.event_shape[0] < 2:
            raise ShapeError(f"`concentration` has shape {self.concentration.shape}, but must have at least 2 elements along its last axis")

    def _noise(self, shape: Shape, rng: np.random.Generator) -> Array:
        rows = np.asarray(value_of(self.concentration), np.float64).reshape(-1, *self.event_shape)
        lead = shape[: len(shape) - len(self.batch_shape) - 1]
        drawn = np.stack([rng.dirichlet(row, lead) for row in rows], -2) if len(rows) else np.empty((*lead, 0, *self.event_shape))
        return open_interval(drawn.reshape(shape).astype(self.dtype))

    def _admitted(self, eps: Any) -> Any:
        check_rule(value_of(eps), "eps", SIMPLEX)
        return open_interval(value_of(eps))

    def _transform(self, eps: Any) -> Parameter:
        return standard_dirichlet_rsample(self.concentration, eps)

    def _total(self) -> Parameter:
        return ops.sum(self.concentration, axis=-1)

    def _log_normalizer(self) -> Parameter:
        return ops.sub(ops.sum(lgamma(self.concentration), axis=-1), lgamma(self._total()))

    def _log_prob(self, x: Any) -> Parameter:
        return ops.sub(ops.sum(xlogy(ops.sub(self.concentration, 1.0), x), axis=-1), self._log_normalizer())

    @property
    def mean(self) -> Parameter:
        """a/a_0."""
        return self._expand(ops.div(self.concentration, ops.sum(self.concentration, axis=-1, keepdims=True)))

    @property
    def variance(self) -> Parameter:
        """m*(1 - m)/(a_0 + 1), m the mean."""
        total = ops.sum(self.concentration, axis=-1, keepdims=True)
        m = ops.div(self.concentration, total)
        return self._expand(ops.div(ops.mul(m, ops.sub(1.0, m)), ops.add(total, 1.0)))

    def entropy(self) -> Parameter:
        """log normalizer + (a_0 - n)*psi(a_0) - sum of (a_i - 1)*psi(a_i)."""
        a, total = self.concentration, self._total()
        own = ops.sum(ops.mul(ops.sub(a, 1.0), digamma(a)), axis=-1)
        return ops.sub(ops.add(self._log_normalizer(), ops.mul(ops.sub(total, float(self.event_shape[0])), digamma(total))), own)
