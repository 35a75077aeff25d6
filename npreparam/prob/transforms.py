"""Increasing (or decreasing) maps of the line with log-determinants, and distributions seen through them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from npreparam import ops
from npreparam._errors import ArgumentError, ShapeError
from npreparam.prob._distribution import Distribution, OfBase, Shape
from npreparam.prob._parameters import POSITIVE, REAL, Parameter, Rule, as_parameters, as_value, check_rule
from npreparam.tape.tensor import value_of


class Transform:
    """An elementwise map y = forward(x) with its inverse; `log_det(x)` = log|dy/dx|; `image` is the rule that y meets.

    `shape` is that of its parameters, which broadcast with x.

    >>> Exp().shape, Affine(0.0, np.ones(3)).shape
    ((), (3,))
    """

    image: Rule = REAL
    shape: Shape = ()
    decreasing: Any = np.False_

    def forward(self, x: Any) -> Parameter:
        """y."""
        raise NotImplementedError

    def inverse(self, y: Any) -> Parameter:
        """x."""
        raise NotImplementedError

    def log_det(self, x: Any) -> Parameter:
        """log|dy/dx|."""
        raise NotImplementedError


class Affine(Transform):
    """y = loc + scale*x, scale not 0.

    >>> float(Affine(1.0, 2.0).forward(np.array(3.0)))
    7.0
    """

    def __init__(self, loc: Any = 0.0, scale: Any = 1.0) -> None:
        rule = Rule("finite and not 0", lambda x: np.isfinite(x) & (x != 0))
        made = as_parameters(loc=(loc, REAL), scale=(scale, rule))
        self.decreasing = value_of(made["scale"]) < 0
        self.shape = np.broadcast_shapes(made["loc"].shape, made["scale"].shape)
        self.loc, self.scale = loc, scale  # numbers take the dtype of what they meet

    def forward(self, x: Any) -> Parameter:
        """loc + scale*x."""
        return ops.add(self.loc, ops.mul(self.scale, x))

    def inverse(self, y: Any) -> Parameter:
        """(y - loc)/scale."""
        return ops.div(ops.sub(y, self.loc), self.scale)

    def log_det(self, x: Any) -> Parameter:
        """log|scale|."""
        return ops.add(ops.log(ops.abs(as_value(self.scale, "scale", x.dtype))), ops.mul(x, 0.0))


class Exp(Transform):
    """y = exp(x).

    >>> float(Exp().log_det(np.array(3.0)))
    3.0
    """

    image = POSITIVE

    def forward(self, x: Any) -> Parameter:
        """exp(x)."""
        return ops.exp(x)

    def inverse(self, y: Any) -> Parameter:
        """log(y)."""
        return ops.log(y)

    def log_det(self, x: Any) -> Parameter:
        """x."""
        return x


class Sigmoid(Transform):
    """y = 1/(1 + exp(-x)).

    >>> float(Sigmoid().inverse(np.array(0.5)))
    0.0
    """

    image = Rule("strictly between 0 and 1", lambda x: (x > 0) & (x < 1))

    def forward(self, x: Any) -> Parameter:
        """sigmoid(x)."""
        return ops.sigmoid(x)

    def inverse(self, y: Any) -> Parameter:
        """log(y) - log(1 - y)."""
        return ops.sub(ops.log(y), ops.log1p(ops.neg(y)))

    def log_det(self, x: Any) -> Parameter:
        """-softplus(x) - softplus(-x)."""
        return ops.neg(ops.add(ops.softplus(x), ops.softplus(ops.neg(x))))


class Softplus(Transform):
    """y = log(1 + exp(x)).

    >>> float(Softplus().inverse(np.array(800.0)))
    800.0
    """

    image = POSITIVE

    def forward(self, x: Any) -> Parameter:
        """softplus(x)."""
        return ops.softplus(x)

    def inverse(self, y: Any) -> Parameter:
        """y + log(1 - exp(-y))."""
        return ops.add(y, ops.log(ops.neg(ops.expm1(ops.neg(y)))))

    def log_det(self, x: Any) -> Parameter:
        """log sigmoid(x) = -softplus(-x)."""
        return ops.neg(ops.softplus(ops.neg(x)))


class Tanh(Transform):
    """y = tanh(x).

    >>> float(Tanh().log_det(np.array(0.0)))
    0.0
    """

    image = Rule("strictly between -1 and 1", lambda x: (x > -1) & (x < 1))

    def forward(self, x: Any) -> Parameter:
        """tanh(x)."""
        return ops.tanh(x)

    def inverse(self, y: Any) -> Parameter:
        """(log(1 + y) - log(1 - y))/2."""
        return ops.mul(ops.sub(ops.log1p(y), ops.log1p(ops.neg(y))), 0.5)

    def log_det(self, x: Any) -> Parameter:
        """log(1 - tanh(x)^2) = 2*(log 2 - |x| - log(1 + exp(-2|x|)))."""
        size = ops.abs(x)
        return ops.mul(ops.sub(ops.sub(math.log(2), size), ops.log1p(ops.exp(ops.mul(size, -2.0)))), 2.0)


def _broadcasts_to(shape: Shape, whole: Shape) -> bool:
    try:
        return np.broadcast_shapes(shape, whole) == whole
    except ValueError:
        return False


class TransformedDistribution(OfBase):
    """The law of y = t_k(...t_1(X)) for X ~ base: log p(y) = log p(x) - sum of the log-determinants, over event axes too.

    Raises ShapeError for a transform whose parameters have batch axes that the base has not; ArgumentError in log_prob for y outside the image of
    the last transform; so is a y rounded onto its border (sigmoid of 40 in float64).

    >>> from npreparam.prob import Normal
    >>> float(TransformedDistribution(Normal(), [Exp()]).rsample(eps=0.0))
    1.0
    """

    def __init__(self, base: Distribution, transforms: Sequence[Transform] | Transform) -> None:
        self.base, self.transforms = base, [transforms] if isinstance(transforms, Transform) else list(transforms)
        if not base.reparameterized:
            raise ArgumentError(f"`base` (={base!r}) is discrete, but must have a density")
        if not self.transforms or not all(isinstance(t, Transform) for t in self.transforms):
            raise ArgumentError(f"`transforms` (={transforms!r}) must be a Transform or a sequence of at least one")
        self.batch_shape, self.event_shape, self.dtype = base.batch_shape, base.event_shape, base.dtype
        whole = base.sample_shape()
        for transform in self.transforms:
            if not _broadcasts_to(transform.shape, whole):
                raise ShapeError(f"`transforms` has one ({type(transform).__name__}) with parameters of shape {transform.shape}, but they must "
                                 f"broadcast to the base's batch and event shape {whole}; give the base its parameters in that shape")
        self.parameters, self.noise_law = base.parameters, base.noise_law  # type: ignore[misc]
        self.support = Rule("any number", lambda x: ~np.isnan(x))  # type: ignore[misc]

    def _transform(self, eps: Any) -> Parameter:
        return self._forward(self.base._transform(eps))

    def _forward(self, x: Any) -> Parameter:
        for transform in self.transforms:
            x = transform.forward(x)
        return x

    def _inverse(self, y: Any) -> tuple[Parameter, list[Parameter]]:
        """x, and the values on the way: the argument of each transform, last first."""
        steps = []
        for transform in reversed(self.transforms):
            check_rule(value_of(y), "x", transform.image, f": the image of {type(transform).__name__}")
            y = transform.inverse(y)
            steps.append(y)
        return y, steps

    def _log_prob(self, x: Any) -> Parameter:
        x, steps = self._inverse(x)
        total = self.base._log_prob(self.base._checked_value(x))
        for transform, step in zip(reversed(self.transforms), steps, strict=True):
            change = transform.log_det(step)
            axes = tuple(range(-len(self.event_shape), 0))
            total = ops.sub(total, ops.sum(change, axes) if axes else change)
        return total

    def _decreasing(self) -> Any:
        flips = np.False_
        for transform in self.transforms:
            flips = flips ^ transform.decreasing
        return flips

    def _cdf(self, x: Any) -> Parameter:
        value = self.base._cdf(self._inverse(x)[0])
        return ops.where(self._decreasing(), ops.sub(1.0, value), value)

    def _icdf(self, u: Any) -> Parameter:
        return self._forward(self.base._icdf(ops.where(self._decreasing(), ops.sub(1.0, u), u)))
