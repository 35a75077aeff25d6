"""What an operator's row sees of a node, and how arrays of any dtype reach `ops`, which take float32 and float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npreparam._errors import ArgumentError, DTypeError

Array = NDArray[Any]
COMPUTED_IN = {"float64": np.float64, "float32": np.float32, "float16": np.float32, "bfloat16": np.float32}


@dataclass(frozen=True)
class Node:
    """One node: its operator, inputs (None where left out), attributes, the version of its operator set, and its number of outputs."""

    operator: str
    inputs: list[Any]
    attributes: dict[str, Any]
    version: int
    outputs: int = 1

    def input(self, index: int, default: Any = None) -> Any:
        """An input, or `default` where it is left out."""
        value = self.inputs[index] if index < len(self.inputs) else None
        return default if value is None else value

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute, or its default."""
        return self.attributes.get(name, default)

    def refuse(self, name: str, *allowed: Any) -> None:
        """Raise ArgumentError for an attribute whose value is beyond what `ops` compute; allowed[0] is its default."""
        value = self.get(name, allowed[0])
        if value not in allowed:
            raise ArgumentError(f"{self.operator}: attribute `{name}` (={value!r}) must be one of {', '.join(map(repr, allowed))} in this backend")

    def numbers(self, index: int, name: str, default: Any = None) -> Any:
        """Integers that older operator sets hold in an attribute, and newer ones in an input."""
        value = self.input(index)
        return self.get(name, default) if value is None else [int(number) for number in np.ravel(value)]


def computed(function: Callable[..., Any], *arrays: Any) -> Any:
    """function(*arrays) with every array as float32 or float64; results are rounded once to the dtype of the first array.

    Raises DTypeError for anything but floating-point numbers.
    """
    first = arrays[0].dtype
    if first.name not in COMPUTED_IN:
        raise DTypeError(f"inputs have dtype {first}, but this backend computes with {', '.join(COMPUTED_IN)}")
    results = function(*(None if array is None else np.asarray(array, COMPUTED_IN[first.name]) for array in arrays))
    with np.errstate(over="ignore"):  # of float16
        return tuple(r.astype(first) for r in results) if isinstance(results, tuple) else results.astype(first)


def rearranged(function: Callable[[Array], Array], x: Array, fill: Any = 0) -> Array:
    """`function` over the elements of an array of any dtype, where it only moves them; new places get `fill`.

    It is applied to the elements' positions, counted from 1, so that its zeros mean the fill.
    """
    positions = np.arange(1.0, x.size + 1).reshape(x.shape)
    values = np.concatenate([np.asarray([fill]).astype(x.dtype), x.ravel()])
    return values[np.asarray(function(positions)).astype(np.int64)]
