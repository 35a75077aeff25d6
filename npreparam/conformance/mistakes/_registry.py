"""The register: one row for each known mistake."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npreparam._errors import ArgumentError
from npreparam.conformance.case import Case

Array = NDArray[Any]
Function = Callable[..., Any]

MISTAKES: dict[tuple[str, str], Mistake] = {}


@dataclass(frozen=True, slots=True, eq=False)
class Mistake:
    """A known wrong implementation of one function.

    * `op`, `name`: the function, and what is done wrong in words. `look`: where to look for it.
    * `seen`: where it was met, as tracker and number.
    * `function(right, *arguments)`: the wrong result, of the right functions `right` and all arguments by name, geometry as pairs and sides.
      Written in NumPy for arrays of any float dtype, or `Ball`s.
    * `example`: the smallest known arguments for which it differs from the truth; `layout` and `relation` as in `Case`.
    * `flickers`: only some calls are wrong, as in a race. `refused`: the right function refuses the example, the wrong one answers.
    * `seldom`: far from plausible where another mistake gives the same result; ranked after all others.

    >>> flipped = mistake_named("conv2d", "kernel flipped")
    >>> flipped.look
    'true convolution in place of cross-correlation: do not turn the kernel'
    """

    op: str
    name: str
    function: Function
    look: str
    example: Mapping[str, Any]
    seen: str = ""
    layout: str = "contiguous"
    relation: str = ""
    flickers: bool = False
    refused: bool = False
    seldom: bool = False

    def __str__(self) -> str:
        return self.name

    @property
    def case(self) -> Case:
        """The example as a case."""
        return Case(self.op, self.example, "pinned", self.name, layout=self.layout, relation=self.relation, refused=self.refused)


def mistake(op: str, name: str, function: Function, look: str, **fields: Any) -> None:
    """Enter a row. Raises ValueError where its function has that name already."""
    if (op, name) in MISTAKES:
        raise ValueError(f"{op} has the mistake {name!r} twice")
    MISTAKES[op, name] = Mistake(op, name, function, look, **fields)


def mistakes_of(op: str) -> list[Mistake]:
    """The known mistakes of a function, in the order of the register.

    >>> from npreparam.conformance.mistakes import mistakes_of
    >>> [str(m) for m in mistakes_of("conv2d")][:2]
    ['kernel flipped', 'kernel flipped in height']
    """
    return [row for row in MISTAKES.values() if row.op == op]


def mistake_named(op: str, name: str) -> Mistake:
    """One row. Raises ArgumentError where there is none.

    >>> from npreparam.conformance.mistakes import mistake_named
    >>> mistake_named("conv2d", "kernel flipped").case.arguments["w"].shape
    (1, 1, 2, 2)
    """
    if (op, name) not in MISTAKES:
        raise ArgumentError(f"`name` (={name!r}) must be a known mistake of {op}: {', '.join(map(str, mistakes_of(op)))}")
    return MISTAKES[op, name]


def counting(*shape: int, start: int = 1) -> Array:
    """An array of float32 that counts from `start`.

    >>> counting(1, 2)
    array([[1., 2.]], dtype=float32)
    """
    return np.arange(start, start + math.prod(shape), dtype=np.float32).reshape(shape)


def row(*values: float) -> Array:
    """A vector of float32."""
    return np.array(values, np.float32)


def image(*rows: tuple[float, ...]) -> Array:
    """One image of one channel, or one kernel."""
    return np.array(rows, np.float32)[None, None]
