"""Discrete distributions: no re-parameterized sample exists for them."""

from __future__ import annotations

from typing import Any

import numpy as np

from npreparam import ops
from npreparam._errors import ArgumentError
from npreparam.ops.xlogy import xlog1py, xlogy
from npreparam.prob._distribution import Array, Distribution
from npreparam.prob._parameters import BINARY, LOGIT, LOGITS, NON_NEGATIVE, SIMPLEX, UNIT_INTERVAL, Parameter, Rule, check_rule
from npreparam.tape.tensor import value_of


def one_of(owner: object, probs: Any, logits: Any) -> dict[str, Any]:
    """The one parameter that is given, by name."""
    if (probs is None) == (logits is None):
        told = "neither is given" if probs is None else "both are given"
        raise ArgumentError(f"{type(owner).__name__} takes `probs` or `logits`, but {told}")
    return {"probs": probs} if logits is None else {"logits": logits}


def bernoulli_logits(parameters: dict[str, Parameter]) -> Parameter:
    """log(p/(1 - p)), from whichever parameter is given; infinite for p = 0 and 1."""
    if "logits" in parameters:
        return parameters["logits"]
    return ops.sub(ops.log(parameters["probs"]), ops.log1p(ops.neg(parameters["probs"])))


def categorical_logits(parameters: dict[str, Parameter]) -> Parameter:
    """Unnormalized log-probabilities, from whichever parameter is given; -inf for p = 0."""
    return parameters["logits"] if "logits" in parameters else ops.log(parameters["probs"])


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
        return ops.neg(ops.softplus(ops.where(value_of(x) == 1, ops.neg(logits), logits)))

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


class Categorical(Distribution):
    """Class i of n with probability p_i; p as `probs` (..., n), or softmax(`logits`). A sample is the number of the class, as a float.

    z = the first i with p_0 + ... + p_i > eps, eps ~ U(0, 1), so that a class of probability 0 is never drawn

    >>> Categorical(probs=np.array([0.5, 0.5, 0.0])).sample(eps=np.array([0.2, 0.7, 1.0]))
    array([0., 1., 1.])
    """

    parameter_rules = {"probs": SIMPLEX, "logits": LOGITS}  # noqa: RUF012
    support = NON_NEGATIVE
    noise_law = "uniform on (0, 1)"
    reparameterized = False

    def __init__(self, probs: Any = None, logits: Any = None) -> None:
        self._set(**one_of(self, probs, logits))
        self.classes = categorical_logits(self.parameters).shape[-1]

    @property
    def p(self) -> Parameter:
        """The probabilities."""
        return self.parameters["probs"] if "probs" in self.parameters else ops.softmax(self.parameters["logits"])

    @property
    def log_p(self) -> Parameter:
        """Their logarithms."""
        return ops.log(self.parameters["probs"]) if "probs" in self.parameters else ops.log_softmax(self.parameters["logits"])

    def _transform(self, eps: Any) -> Array:
        cumulative = np.cumsum(value_of(self.p), -1, dtype=np.float64)
        cumulative /= cumulative[..., -1:]
        return (cumulative <= value_of(eps)[..., None]).sum(-1).astype(self.dtype)

    def _checked_value(self, x: Any) -> Any:
        x = value_of(super()._checked_value(x))
        check_rule(x, "x", Rule(f"an integer below {self.classes}", lambda x: (x < self.classes) & (x == np.floor(x))), ", the number of classes")
        return x

    def _log_prob(self, x: Any) -> Parameter:
        chosen = x[..., None] == np.arange(self.classes)
        return ops.sum(ops.where(chosen, self.log_p, 0.0), axis=-1)

    @property
    def mean(self) -> Parameter:
        """The mean of the class number."""
        return ops.sum(ops.mul(self.p, np.arange(self.classes, dtype=self.dtype)), axis=-1)

    @property
    def variance(self) -> Parameter:
        """The variance of the class number."""
        away = ops.sub(np.arange(self.classes, dtype=self.dtype), ops.reshape(self.mean, (*self.batch_shape, 1)))
        return ops.sum(ops.mul(self.p, ops.square(away)), axis=-1)

    def entropy(self) -> Parameter:
        """-sum of p_i*log(p_i), with 0*log(0) = 0."""
        return ops.neg(ops.sum(xlogy(self.p, self.p), axis=-1))
