"""The `Module`: named parameters, buffers and submodules, and strict state dicts."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from npreparam._errors import ArgumentError, FusionError, StateError
from npreparam.fuse import AffineConv
from npreparam.fuse.scalars import FLOAT64, Scalars
from npreparam.tape import Tensor

Array = NDArray[Any]


class Module:
    """A function with state. Tensors set as attributes are parameters, arrays buffers, Modules submodules, under the attribute's name.

    `module(x)` evaluates, `module(x, training=True)` trains; there is no mode to forget. Called with an array in evaluation, a module
    computes with arrays and records nothing; called with a Tensor or in training, parameters take part in the tape.

    >>> class Shift(Module):
    ...     def __init__(self):
    ...         self.by = Tensor(np.ones(1))
    ...     def forward(self, x, training):
    ...         return x + self.by
    >>> sorted(Shift().parameters())
    ['by']
    """

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse a container of state, whose parameters would have no name and would silently not be trained."""
        entries = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple | set) else ()
        hidden = next((entry for entry in entries if isinstance(entry, Tensor | Module)), None)
        if hidden is not None:
            raise ArgumentError(f"`{name}` (a {type(value).__name__}) holds a {type(hidden).__name__} that would not be found; "
                                "set each as an attribute of its own, or modules as one Sequential")
        super().__setattr__(name, value)

    def __call__(self, x: Any, training: bool = False) -> Any:
        """The module's output for x."""
        return self.forward(x, training)

    def forward(self, x: Any, training: bool) -> Any:
        """What a subclass defines."""
        raise NotImplementedError(f"{type(self).__name__} defines no forward")

    def use(self, parameter: Tensor | None, x: Any, training: bool) -> Any:
        """A parameter as it enters a computation on x: recorded while training or where x is, a plain array otherwise."""
        return parameter if parameter is None or training or isinstance(x, Tensor) else parameter.value

    def as_affine_conv(self, scalars: Scalars = FLOAT64, border: str = "exact") -> AffineConv:
        """This module in evaluation mode as an affine shift-equivariant map over numbers of a kind, which is what `fuse` folds.

        With `border` "interior", outputs whose windows reach beyond the border of an image between two maps may be wrong.

        Raises FusionError where it is none: names the branch, the reason, and what would make it exact.
        """
        raise FusionError(f"{type(self).__name__} is not linear", "fuse the linear parts around it, with `npreparam.nn.fuse`")

    def parts(self) -> list[tuple[str, Module]]:
        """The modules, with their names, that one after the other are this one."""
        return [("", self)]

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
        if not isinstance(state, Mapping):
            raise StateError(f"`state` (a {type(state).__name__}) must be a mapping of names to arrays")
        own = self._state()
        problems = [f"missing: {name} {own[name].shape}" for name in own if name not in state]
        problems += [f"unexpected: {name} {getattr(new, 'shape', type(new).__name__)}" for name, new in state.items() if name not in own]
        problems += [problem for name in own if name in state for problem in _misfits(name, state[name], own[name])]
        if problems:
            raise StateError(f"the state dict does not fit {type(self).__name__}:\n  " + "\n  ".join(problems))
        for name in own:
            self._assign(name.split("."), np.array(state[name], own[name].dtype))

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
        """Replace some parameters or buffers by name, as an optimizer does; the arrays themselves, not copies.

        Raises StateError for an unknown name or another shape, before anything has changed.
        """
        own = self._state()
        for name, value in values.items():
            if name not in own:
                raise StateError(f"{type(self).__name__} has no parameter or buffer {name}; it has {', '.join(own) or 'none'}")
            if value.shape != own[name].shape:
                raise StateError(f"{name} of {type(self).__name__} has shape {own[name].shape}, not {value.shape}")
        for name, value in values.items():
            self._assign(name.split("."), value)


def _misfits(name: str, new: Any, own: Array) -> Iterator[str]:
    if not isinstance(new, np.ndarray | np.generic):
        yield f"type of {name}: a {type(new).__name__} instead of an array"
    elif new.shape != own.shape:
        yield f"shape of {name}: {new.shape} instead of {own.shape}"
    elif new.dtype.newbyteorder("=") != own.dtype:
        yield f"dtype of {name}: {new.dtype} instead of {own.dtype}"


def count_parameters(module: Module) -> int:
    """Number of trained numbers.

    >>> from npreparam.nn import Linear
    >>> count_parameters(Linear(4, 2, rng=np.random.default_rng(0)))
    10
    """
    return sum(parameter.size for parameter in module.parameters().values())
