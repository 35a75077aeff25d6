"""Optimizers: `step(gradients)` replaces a module's parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npreparam import kernels
from npreparam._errors import ArgumentError, StateError
from npreparam.nn.module import Module

Array = NDArray[Any]
quiet = np.errstate(all="ignore")  # a decorator: the special values tell enough


class SGD:
    """Stochastic gradient descent with momentum and weight decay.

    v' = momentum*v + g + decay*p,   p' = p - rate*v'

    Source: Sutskever, Martens, Dahl and Hinton, ICML 2013, in PyTorch's form.

    >>> from npreparam import nn
    >>> layer = nn.Scale(1, value=1.0)
    >>> SGD(layer, rate=0.5).step({name: np.ones_like(tensor.value) for name, tensor in layer.parameters().items()})
    >>> layer.state_dict()
    {'weight': array([0.5], dtype=float32)}
    """

    def __init__(self, module: Module, rate: float, momentum: float = 0.0, decay: float = 0.0) -> None:
        _positive("rate", rate)
        _fraction("momentum", momentum)
        if not decay >= 0:
            raise ArgumentError(f"`decay` (={decay!r}) must not be negative")
        self.module, self.rate, self.momentum, self.decay = module, rate, momentum, decay
        self.velocity: dict[str, Array] = {}

    @quiet
    def step(self, gradients: Mapping[str, Array]) -> None:
        """Move every parameter that has a gradient."""
        new = {}
        for name, p, g in _pairs(self.module, gradients):
            kind = p.dtype.type
            v = g + kind(self.decay) * p if self.decay else g
            if self.momentum:
                v = self.velocity[name] = kind(self.momentum) * self.velocity.get(name, kind(0)) + v
            new[name] = p - kind(self.rate) * v
        self.module.update(new)


class _Adaptive:
    """What Adam and Adagrad share: arrays kept for each parameter, and steps that move the module's arrays in place."""

    kept: int  # arrays for each parameter, which begin at 0

    def __init__(self, module: Module, rate: float, eps: float) -> None:
        _positive("rate", rate)
        if not eps >= 0:
            raise ArgumentError(f"`eps` (={eps!r}) must not be negative")
        self.module, self.rate, self.eps = module, rate, eps
        self.steps = 0
        self.moments: dict[str, tuple[Array, ...]] = {}
        self._own: dict[str, Array] = {}

    def step(self, gradients: Mapping[str, Array]) -> None:
        """Move every parameter that has a gradient; an error before anything has moved."""
        pairs = list(_pairs(self.module, gradients))
        moments = {name: self._moments(name, p) for name, p, _ in pairs}
        self.moments.update(moments)
        self.steps += 1
        rows: dict[Any, list[tuple[Array, ...]]] = {}
        new = {}
        for name, p, g in pairs:
            if self._own.get(name) is not p or not p.flags.carray:  # an array of somebody else's is not changed in place
                new[name] = self._own[name] = p = p.copy(order="C")
            rows.setdefault(p.dtype.type, []).append((p, np.require(g, requirements="CA"), *moments[name]))
        for kind, of_kind in rows.items():
            self._move(of_kind, kind)
        if new:
            self.module.update(new)

    def _moments(self, name: str, p: Array) -> tuple[Array, ...]:
        """What is kept for a parameter: the kernel writes to it by its address, so that it must be what it is taken for."""
        if name not in self.moments:
            return tuple(np.zeros(p.shape, p.dtype) for _ in range(self.kept))
        kept = self.moments[name]
        if len(kept) != self.kept or not all(m.shape == p.shape and m.dtype == p.dtype and m.flags.carray for m in kept):
            told = ", ".join(f"{m.dtype} {m.shape}" for m in kept) or "nothing"
            raise StateError(f"`moments` of {name} (={told}) must be {self.kept} arrays, {p.dtype} {p.shape}, in C order and writable; "
                             "leave them as they are, or delete the entry to begin anew")
        return kept

    def _move(self, rows: list[tuple[Array, ...]], kind: Any) -> None:
        raise NotImplementedError


class Adam(_Adaptive):
    """Adam.

    m' = b1*m + (1-b1)*g,  v' = b2*v + (1-b2)*g^2,  p' = p - rate * (m'/(1-b1^t)) / (sqrt(v'/(1-b2^t)) + eps)

    Moves the module's arrays in place, once it has replaced them by its own at the first step: keep copies (`state_dict`) of what you want to keep.

    Source: Kingma and Ba, arXiv 1412.6980, algorithm 1.

    >>> from npreparam import nn
    >>> layer = nn.Scale(1, value=1.0)
    >>> Adam(layer, rate=0.5).step({name: np.ones_like(tensor.value) for name, tensor in layer.parameters().items()})
    >>> layer.state_dict()
    {'weight': array([0.5], dtype=float32)}
    """

    kept = 2

    def __init__(self, module: Module, rate: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> None:
        super().__init__(module, rate, eps)
        for i in (0, 1):
            _fraction(f"betas[{i}]", betas[i])
        self.betas = betas

    def _move(self, rows: list[tuple[Array, ...]], kind: Any) -> None:
        (b1, b2), (first, second) = self.betas, (1 - b**self.steps for b in self.betas)
        rates = (b1, 1 - b1, b2, 1 - b2, self.rate / first, second**-0.5, self.eps)
        kernels.optim.adam(rows, kernels.optim.AdamRates(*map(kind, rates)))


class Adagrad(_Adaptive):
    """Adagrad: every number has a step size of its own, which falls with the squares of its gradients so far.

    s' = s + g^2,  p' = p - rate * g / (sqrt(s') + eps)

    Moves the module's arrays in place, once it has replaced them by its own at the first step: keep copies (`state_dict`) of what you want to keep.

    Source: Duchi, Hazan and Singer, JMLR 12, 2011, figure 1 with diagonal matrices; eps as in PyTorch.

    >>> from npreparam import nn
    >>> layer = nn.Scale(1, value=1.0)
    >>> Adagrad(layer, rate=0.5).step({name: np.ones_like(tensor.value) for name, tensor in layer.parameters().items()})
    >>> layer.state_dict()
    {'weight': array([0.5], dtype=float32)}
    """

    kept = 1

    def __init__(self, module: Module, rate: float = 1e-2, eps: float = 1e-10) -> None:
        super().__init__(module, rate, eps)

    def _move(self, rows: list[tuple[Array, ...]], kind: Any) -> None:
        kernels.optim.adagrad(rows, kernels.optim.AdagradRates(kind(self.rate), kind(self.eps)))


def _pairs(module: Module, gradients: Mapping[str, Array]) -> Iterator[tuple[str, Array, Array]]:
    """(name, parameter, gradient) of every gradient, or an error before anything has moved."""
    parameters = module.parameters()
    unknown = [name for name in gradients if name not in parameters]
    if unknown:
        raise ArgumentError(f"`gradients` has entries that are no parameters of {type(module).__name__}: {', '.join(unknown)}")
    for name, g in gradients.items():
        p = parameters[name].value
        if g.shape != p.shape or g.dtype != p.dtype:
            raise ArgumentError(f"the gradient of {name} is {g.dtype} {g.shape}, but must be {p.dtype} {p.shape} as the parameter is")
    return ((name, parameters[name].value, g) for name, g in gradients.items())


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise ArgumentError(f"`{name}` (={value!r}) must be positive")


def _fraction(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise ArgumentError(f"`{name}` (={value!r}) must lie in [0, 1)")
