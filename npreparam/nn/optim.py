"""Optimizers: `step(gradients)` replaces a module's parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npreparam._errors import ArgumentError
from npreparam.nn.module import Module

Array = NDArray[Any]


class SGD:
    """Stochastic gradient descent with momentum and weight decay.

    v' = momentum*v + g + decay*p,   p' = p - rate*v'

    Source: Sutskever, Martens, Dahl and Hinton, ICML 2013, in PyTorch's form.
    """

    def __init__(self, module: Module, rate: float, momentum: float = 0.0, decay: float = 0.0) -> None:
        _positive("rate", rate)
        _fraction("momentum", momentum)
        self.module, self.rate, self.momentum, self.decay = module, rate, momentum, decay
        self.velocity: dict[str, Array] = {}

    def step(self, gradients: Mapping[str, Array]) -> None:
        """Move every parameter that has a gradient."""
        parameters, new = self.module.parameters(), {}
        for name, g in gradients.items():
            p = parameters[name].value
            kind = p.dtype.type
            v = g + kind(self.decay) * p if self.decay else g
            if self.momentum and name in self.velocity:
                v = kind(self.momentum) * self.velocity[name] + v
            self.velocity[name] = v
            new[name] = p - kind(self.rate) * v
        self.module.update(new)


class Adam:
    """Adam.

    m' = b1*m + (1-b1)*g,  v' = b2*v + (1-b2)*g^2,  p' = p - rate * (m'/(1-b1^t)) / (sqrt(v'/(1-b2^t)) + eps)

    Source: Kingma and Ba, arXiv 1412.6980, algorithm 1.
    """

    def __init__(self, module: Module, rate: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> None:
        _positive("rate", rate)
        for i in (0, 1):
            _fraction(f"betas[{i}]", betas[i])
        self.module, self.rate, self.betas, self.eps = module, rate, betas, eps
        self.steps = 0
        self.moments: dict[str, tuple[Array, Array]] = {}

    def step(self, gradients: Mapping[str, Array]) -> None:
        """Move every parameter that has a gradient."""
        self.steps += 1
        parameters, new = self.module.parameters(), {}
        for name, g in gradients.items():
            p = parameters[name].value
            kind = p.dtype.type
            b1, b2 = (kind(b) for b in self.betas)
            m, v = self.moments.get(name, (np.zeros_like(p), np.zeros_like(p)))
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
            self.moments[name] = m, v
            first, second = kind(1 - self.betas[0] ** self.steps), kind(1 - self.betas[1] ** self.steps)
            new[name] = p - kind(self.rate) * (m / first) / (np.sqrt(v / second) + kind(self.eps))
        self.module.update(new)


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise ArgumentError(f"`{name}` (={value!r}) must be positive")


def _fraction(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise ArgumentError(f"`{name}` (={value!r}) must lie in [0, 1)")
