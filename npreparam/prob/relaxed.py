"""The Concrete distributions: continuous relaxations of Bernoulli and categorical choices, and their straight-through forms.

Source: Maddison, Mnih and Teh, The Concrete distribution, arXiv 1611.00712; Jang, Gu and Poole, Gumbel-softmax, arXiv 1611.01144.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from npreparam import ops
from npreparam.ops.select import straight_through
from npreparam.prob._distribution import Distribution, Random
from npreparam.prob._parameters import LOGIT, LOGITS, POSITIVE, SIMPLEX, UNIT_INTERVAL, Parameter, Rule
from npreparam.prob.discrete import bernoulli_logits, categorical_logits, one_of
from npreparam.tape.tensor import value_of

OPEN_INTERVAL = Rule("strictly between 0 and 1", lambda x: (x > 0) & (x < 1))
OPEN_SIMPLEX = Rule("positive, with sum 1 along the last axis", lambda x: (x > 0).all(-1) & SIMPLEX.test(x), 1)


class RelaxedBernoulli(Distribution):
    """z = sigmoid((l + log(eps) - log(1 - eps))/t), eps ~ U(0, 1), with logits l (or `probs`) and temperature t > 0.

    P(z > 1/2) = sigmoid(l) at any temperature. Raises ArgumentError in log_prob for x = 0 or 1, where z has been rounded.

    >>> float(RelaxedBernoulli(0.5, logits=0.0).rsample(eps=0.5))
    0.5
    """

    parameter_rules = {"temperature": POSITIVE, "probs": UNIT_INTERVAL, "logits": LOGIT}  # noqa: RUF012
    support = OPEN_INTERVAL
    noise_law = "uniform on (0, 1)"

    def __init__(self, temperature: Any, probs: Any = None, logits: Any = None) -> None:
        self._set(temperature=temperature, **one_of(self, probs, logits))
        self.location = bernoulli_logits(self.parameters)

    def _transform(self, eps: Any) -> Parameter:
        noise = ops.sub(ops.log(eps), ops.log1p(ops.neg(eps)))
        return ops.sigmoid(ops.div(ops.add(self.location, noise), self.temperature))

    def straight_through(self, shape: Any = (), *, rng: Random | None = None, eps: Any = None) -> Parameter:
        """1 where `rsample` exceeds 1/2, else 0, with the gradient of `rsample`."""
        soft = self.rsample(shape, rng=rng, eps=eps)
        return straight_through(soft, (value_of(soft) > 0.5).astype(self.dtype))

    def _log_prob(self, x: Any) -> Parameter:
        log_x, log_rest = ops.log(x), ops.log1p(ops.neg(x))
        gap = ops.sub(self.location, ops.mul(self.temperature, ops.sub(log_x, log_rest)))
        size = ops.abs(gap)  # gap - 2*softplus(gap) is even
        logistic = ops.neg(ops.add(size, ops.mul(ops.log1p(ops.exp(ops.neg(size))), 2.0)))
        return ops.sub(ops.add(ops.log(self.temperature), logistic), ops.add(log_x, log_rest))


class RelaxedOneHotCategorical(Distribution):
    """z = softmax((l + G)/t), G = -log(-log(eps)), eps ~ U(0, 1), with logits l (or `probs`) of n classes and temperature t > 0.

    log p(x) = lgamma(n) + (n - 1)*log(t) + sum of (log_softmax(l - t*log x)_i - log x_i)

    The largest element of z is class i with probability softmax(l)_i at any temperature. Raises ArgumentError in log_prob where an element of x is 0.
    The temperature is a number, or of the batch shape.

    >>> RelaxedOneHotCategorical(0.5, logits=np.zeros(2)).rsample(eps=np.full(2, 0.3))
    array([0.5, 0.5])
    """

    parameter_rules = {"temperature": POSITIVE, "probs": SIMPLEX, "logits": LOGITS}  # noqa: RUF012
    support = OPEN_SIMPLEX
    noise_law = "uniform on (0, 1)"

    def __init__(self, temperature: Any, probs: Any = None, logits: Any = None) -> None:
        self._set(temperature=temperature, **one_of(self, probs, logits))
        self.location = categorical_logits(self.parameters)
        self.event_shape = self.location.shape[-1:]
        self._spread = ops.reshape(self.temperature, (*self.temperature.shape, 1))

    def _transform(self, eps: Any) -> Parameter:
        gumbel = ops.neg(ops.log(ops.neg(ops.log(eps))))
        return ops.softmax(ops.div(ops.add(self.location, gumbel), self._spread))

    def straight_through(self, shape: Any = (), *, rng: Random | None = None, eps: Any = None) -> Parameter:
        """1 in the place of the largest element of `rsample`, else 0, with the gradient of `rsample`."""
        soft = self.rsample(shape, rng=rng, eps=eps)
        return straight_through(soft, np.eye(self.event_shape[0], dtype=self.dtype)[value_of(soft).argmax(-1)])

    def _log_prob(self, x: Any) -> Parameter:
        n, log_x = self.event_shape[0], ops.log(x)
        scores = ops.log_softmax(ops.sub(self.location, ops.mul(self._spread, log_x)))
        return ops.add(ops.sum(ops.sub(scores, log_x), axis=-1), ops.add(ops.mul(ops.log(self.temperature), n - 1.0), math.lgamma(n)))
