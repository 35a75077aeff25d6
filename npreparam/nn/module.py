"""The `Module`: named parameters, buffers and submodules, and strict state dicts."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from npreparam._errors import StateError
from npreparam.tape import Tensor

Array = NDArray[Any]


class Module:
    """A function with state. Tensors set as attributes are parameters, arrays are buffers, Modules are submodules, each under its attribute's name.

    `module(x)` evaluates, `module(x, training=True)` trains; there is no mode to forget. Called with an array in evaluation, a module computes
    with arrays and records nothing; called with a Tensor or in training, parameters take part in the tape.
    """

    def __call__(self, x: Any, training: bool = False) -> Any:
        """The module's output for x."""
        return self.forward(x, training)

    def forward(self, x: Any, training: bool) -> Any:
        """What a subclass defines."""
        raise NotImplementedError(f"{type(self).__name__} defines no forward")

    def use(self, parameter: Tensor | None, x: Any, training: bool) -> Any:
        """A parameter as it enters a computation on x: recorded while training or where x is, a plain array otherwise."""
        return parameter if parameter is None or training or isinstance(x, Tensor) else parameter.value

    def children(self) -> Iterator[tuple[str, Module]]:
        """Submodules with their names."""
        return ((name, value) for name, value in vars(self).items() if isinstance(value, Module))

    def parameters(self, prefix: str = "") -> dict[str, Tensor]:
        """All parameters by dotted name, own ones first."""
        found = {prefix + name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        for name, child in self.children():
            found |= child.parameters(f"{prefix}{name}.")
        return found

    def buffers(self, prefix: str = "") -> dict[str, Array]:
        """All buffers (running statistics) by dotted name."""
        found = {prefix + name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        for name, child in self.children():
            found |= child.buffers(f"{prefix}{name}.")
        return found

    def state_dict(self) -> dict[str, Array]:
        """Copies of all parameters and buffers by dotted name."""
        return {name: value.copy() for name, value in self._state().items()}

    def _state(self) -> dict[str, Array]:
        return {name: parameter.value for name, parameter in self.parameters().items()} | self.buffers()

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Replace every parameter and buffer; nothing is changed unless all fit.

        Raises StateError that lists all missing, unexpected, and mis-shaped or mis-typed entries at once.
        """
        own = self._state()
        problems = [f"missing: {name} {own[name].shape}" for name in own if name not in state]
        problems += [f"unexpected: {name} {np.shape(state[name])}" for name in state if name not in own]
        for name in own:
            if name in state:
                new = np.asarray(state[name])
                if new.shape != own[name].shape:
                    problems.append(f"shape of {name}: {new.shape} instead of {own[name].shape}")
                elif new.dtype != own[name].dtype:
                    problems.append(f"dtype of {name}: {new.dtype} instead of {own[name].dtype}")
        if problems:
            raise StateError(f"the state dict does not fit {type(self).__name__}:\n  " + "\n  ".join(problems))
        for name in own:
            self._assign(name.split("."), np.array(state[name]))

    def _assign(self, path: list[str], value: Array) -> None:
        owner: Any = self
        for part in path[:-1]:
            owner = getattr(owner, part)
        old = getattr(owner, path[-1])
        setattr(owner, path[-1], Tensor(value, old.name) if isinstance(old, Tensor) else value)

    def astype(self, dtype: DTypeLike) -> Self:
        """A copy of this module that computes in another dtype."""
        twin = copy.deepcopy(self)
        twin.update({name: value.astype(dtype) for name, value in self._state().items()})
        return twin

    def update(self, values: Mapping[str, Array]) -> None:
        """Replace some parameters or buffers by name, as an optimizer does."""
        for name, value in values.items():
            self._assign(name.split("."), value)


def count_parameters(module: Module) -> int:
    """Number of trained numbers."""
    return sum(parameter.size for parameter in module.parameters().values())
