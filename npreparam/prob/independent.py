"""Batch axes declared to be one event: log-probabilities are summed over them."""

from __future__ import annotations

from typing import Any

from npreparam import ops
from npreparam._errors import ArgumentError
from npreparam._shapes import as_int
from npreparam.prob._distribution import Distribution, OfBase
from npreparam.prob._parameters import Parameter


class Independent(OfBase):
    """The last `axes` batch axes of `base` as event axes: log p(x) = sum of the base's log p over them.

    >>> import numpy as np
    >>> from npreparam.prob import Normal
    >>> Independent(Normal(np.zeros((5, 3)), 1.0), 1).log_prob(np.zeros(3)).shape
    (5,)
    """

    def __init__(self, base: Distribution, axes: int = 1) -> None:
        if as_int(axes, "axes", 0) > len(base.batch_shape):
            raise ArgumentError(f"`axes` (={axes}) must not exceed the {len(base.batch_shape)} batch axes of {base!r}")
        self.base, self.axes = base, axes
        split = len(base.batch_shape) - axes
        self.batch_shape, self.event_shape = base.batch_shape[:split], (*base.batch_shape[split:], *base.event_shape)
        self.dtype, self.parameters, self.support, self.noise_law = base.dtype, base.parameters, base.support, base.noise_law  # type: ignore[misc]
        self.reparameterized = base.reparameterized  # type: ignore[misc]

    def sum(self, value: Parameter) -> Parameter:
        """`value` summed over the axes that became event axes."""
        return ops.sum(value, tuple(range(-self.axes, 0))) if self.axes else value

    def _transform(self, eps: Any) -> Parameter:
        return self.base._transform(eps)

    def _log_prob(self, x: Any) -> Parameter:
        return self.sum(self.base._log_prob(x))

    @property
    def mean(self) -> Parameter:
        """The base's."""
        return self.base.mean

    @property
    def variance(self) -> Parameter:
        """The base's."""
        return self.base.variance

    def entropy(self) -> Parameter:
        """The sum of the base's."""
        return self.sum(self.base.entropy())
