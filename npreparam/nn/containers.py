"""Modules made of modules: one after the other, added up, concatenated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

from npreparam import fuse, ops
from npreparam._errors import ArgumentError, FusionError
from npreparam.fuse import AffineConv
from npreparam.fuse.scalars import FLOAT64, Scalars
from npreparam.nn.module import Module


class Identity(Module):
    """x itself.

    >>> import numpy as np
    >>> import numpy as np
    >>> Identity()(np.ones(2))
    array([1., 1.])
    """

    def forward(self, x: Any, training: bool) -> Any:
        """x itself."""
        return x

    def parts(self) -> list[tuple[str, Module]]:
        """Nothing."""
        return []


class Sequential(Module):
    """Modules one after the other, named 0, 1, 2 ... or as the keywords are.

    >>> from npreparam.nn import Flatten, ReLU
    >>> list(dict(Sequential(first=ReLU(), second=Flatten()).children()))
    ['first', 'second']
    """

    def __init__(self, *modules: Module, **named: Module) -> None:
        _adopt(self, modules, named)

    def __iter__(self) -> Any:
        return (child for _, child in self.children())

    def forward(self, x: Any, training: bool) -> Any:
        """The last module's output."""
        for module in self:
            x = module(x, training)
        return x

    def parts(self) -> list[tuple[str, Module]]:
        """The parts of its modules."""
        return [(f"{name}.{inner}".rstrip("."), part) for name, child in self.children() for inner, part in child.parts()]

    def as_affine_conv(self, scalars: Scalars = FLOAT64, border: str = "exact") -> AffineConv:
        """The modules composed."""
        return compose_parts(self.parts(), scalars, border)


def compose_parts(parts: Sequence[tuple[str, Module]], scalars: Scalars, border: str) -> AffineConv:
    """The map of modules one after the other; of none, the identity of one channel, which fits no other number."""
    maps = [(name, branch_map(name, part, scalars, border)) for name, part in parts]
    if not maps:
        raise FusionError("it is the identity, of an unknown number of channels", "add it to, or compose it with, another map")
    total = maps[0][1]
    for name, second in maps[1:]:
        try:
            total = fuse.compose(second, total, border)
        except FusionError as error:
            raise error.within(name) from None
    return total


def branch_map(name: str, module: Module, scalars: Scalars, border: str) -> AffineConv:
    """The map of a branch; a refusal names it."""
    try:
        return module.as_affine_conv(scalars, border)
    except FusionError as error:
        raise (error.within(name) if name else error) from None


class _Branches(Module):
    """Parallel branches of one input, named 0, 1, 2 ... or as the keywords are."""

    join: Callable[..., AffineConv]

    def __init__(self, *branches: Module, **named: Module) -> None:
        if not branches and not named:
            raise ArgumentError("`branches` (=()) must hold at least one module")
        _adopt(self, branches, named)

    def outputs(self, x: Any, training: bool) -> list[Any]:
        """Each branch's output."""
        return [branch(x, training) for _, branch in self.children()]

    def as_affine_conv(self, scalars: Scalars = FLOAT64, border: str = "exact") -> AffineConv:
        """The branches' maps joined; a branch that is the identity has as many channels as the others have inputs."""
        return join_branches(type(self).join, dict(self.children()), scalars, border)


def join_branches(join: Callable[..., AffineConv], branches: Mapping[str, Module], scalars: Scalars, border: str) -> AffineConv:
    """The maps of branches joined, refusals by their names."""
    maps = {name: branch_map(name, branch, scalars, border) for name, branch in branches.items() if branch.parts()}
    if not maps:
        raise FusionError("all branches are identities, of an unknown number of channels", "compose it with another map")
    channels = next(iter(maps.values())).inputs
    try:
        return join(*(maps.get(name) or fuse.identity(channels) for name in branches))
    except FusionError as error:
        raise FusionError(error.reason, error.remedy, list(branches)[int(error.branch)] if error.branch else "") from None


class Sum(_Branches):
    """Parallel branches added up.

    >>> import numpy as np
    >>> import numpy as np
    >>> Sum(Identity(), Identity())(np.ones(2))
    array([2., 2.])
    """

    join = fuse.add

    def forward(self, x: Any, training: bool) -> Any:
        """The sum of all branches' outputs."""
        return reduce(ops.add, self.outputs(x, training))


class Concat(_Branches):
    """The output channels of parallel branches behind each other.

    >>> import numpy as np
    >>> import numpy as np
    >>> Concat(Identity(), Identity())(np.ones((1, 2, 3, 3))).shape
    (1, 4, 3, 3)
    """

    join = fuse.concat_outputs

    def forward(self, x: Any, training: bool) -> Any:
        """The concatenation of all branches' outputs."""
        return ops.concat(self.outputs(x, training), 1)


def _adopt(owner: Module, modules: Sequence[Module], named: Mapping[str, Module]) -> None:
    for name, module in [*((str(i), module) for i, module in enumerate(modules)), *named.items()]:
        if not isinstance(module, Module):
            raise ArgumentError(f"number {name} (a {type(module).__name__}) must be a Module")
        setattr(owner, name, module)
