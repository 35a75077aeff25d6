"""Discrete distributions: no re-parameterized sample exists for them."""

from __future__ import annotations

from typing import Any

import numpy as np

from npreparam import ops
from npreparam._errors import ArgumentError
from npreparam.ops.xlogy import xlog1py, xlogy
from npreparam.prob._distribution import Array, Distribution
from npreparam.prob._parameters import BINARY, LOGIT, UNIT_INTERVAL, Parameter
from npreparam.tape.tensor import value_of


def one_of(owner: object, probs: Any, logits: Any) -> dict[str, Any]:
    """The one parameter that is given, by name."""
    if (probs is None) == (logits is None):
        told = "neither is given" if probs is None else "both are given"
        raise ArgumentError(f"{type(owner).__name__} takes `probs` or `logits`, but {told}")
    return {"probs": probs} if logits is None else {"logits": logits}


class Bernoulli(Distribution):
    """1 with probability p, else 0; p as `probs`, or sigmoid(`logits`).

    log p(x) = x*log(p) + (1 - x)*log(1 - p), with 0*log(0) = 0        z = 1 where eps < p, eps ~ U(0, 1)

    Raises ArgumentError for probabilities outside [0, 1], and where neither or both parameters are given.

    >>> Bernoulli(probs=np.array([0.0, 0.5, 1.0])).log_prob(np.array([0.0, 1.0, 1.0]))
    array([ 0.        , -0.69314718,  0.        ])
    """

    parameter_rules = {"probs": UNIT_INTERVAL, "logits": LOGIT}  # noqa: RUF012
    support = BINARY
    noise_law = "uniform on (0, 1)"
    reparameterized = False

    def __init__(self, probs: Any = None, logits: Any = None) -> None:
        self._set(**one_of(self, probs, logits))

    @property
    def p(self) -> Parameter:
        """The probability of 1."""
        return self.parameters["probs"] if "probs" in self.parameters else ops.sigmoid(self.parameters["logits"])

    @property
    def q(self) -> Parameter:
        """The probability of 0."""
        return ops.sub(1.0, self.parameters["probs"]) if "probs" in self.parameters else ops.sigmoid(ops.neg(self.parameters["logits"]))

    def _transform(self, eps: Any) -> Array:
        return (value_of(eps) < value_of(self.p)).astype(self.dtype)

    def _log_prob(self, x: Any) -> Parameter:
        if "probs" in self.parameters:
            return ops.add(xlogy(x, self.p), xlog1py(ops.sub(1.0, x), ops.neg(self.p)))
        logits = self.parameters["logits"]  # log sigmoid(l) = -softplus(-l)
        return ops.neg(ops.add(_times(x, ops.softplus(ops.neg(logits))), _times(ops.sub(1.0, x), ops.softplus(logits))))

    @property
    def mean(self) -> Parameter:
        """p."""
        return self._expand(self.p)

    @property
    def variance(self) -> Parameter:
        """p*(1 - p)."""
        return self._expand(ops.mul(self.p, self.q))

    def entropy(self) -> Parameter:
        """-p*log(p) - (1 - p)*log(1 - p)."""
        return self._expand(ops.neg(ops.add(xlogy(self.p, self.p), xlogy(self.q, self.q))))


def _times(weight: Any, value: Any) -> Parameter:
    """weight*value with 0*inf = 0, for a weight that is 0 or 1."""
    zero = value_of(weight) == 0
    return ops.mul(weight, value) if np.isfinite(value_of(value)).all() else ops.where(zero, 0.0, value)
