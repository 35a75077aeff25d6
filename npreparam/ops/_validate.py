"""Validation at the door: dtypes, ranks and channel counts, before any kernel sees raw memory.

**The dtype rule.** Arrays are float32 or float64, and all arrays of one call have the same dtype; nothing is promoted silently.
Python numbers take the dtype of the arrays beside them.
"""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npreparam._errors import DTypeError, ShapeError
from npreparam._shapes import as_int

Array = NDArray[Any]
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def as_array(value: Any, name: str) -> Array:
    """`value` as a float32 or float64 array in native byte order; anything else raises DTypeError."""
    if type(value) is np.ndarray and value.dtype in FLOATS and value.dtype.isnative:
        return value
    if not isinstance(value, np.ndarray | np.generic):
        if value is None:
            raise DTypeError(f"`{name}` is None, but is required: a NumPy array")
        raise DTypeError(f"`{name}` (a {type(value).__name__}) must be a NumPy array; "
                         "convert it with numpy.asarray(..., dtype=...), to the dtype of the other arrays")
    array = np.asarray(value)
    dtype = array.dtype.newbyteorder("=")
    if dtype not in FLOATS:
        raise DTypeError(f"`{name}` has dtype {array.dtype}, but only float32 and float64 are taken; "
                         "convert it with .astype(numpy.float64)")
    return array.astype(dtype, copy=False)


def as_dense(value: Any, name: str) -> Array:
    """`as_array`, aligned and in C order, so that equal values give equal bits whatever their layout in memory.

    NumPy sums in memory order, and its SIMD exp, log, expm1 and log1p round otherwise where a stride is negative.
    """
    array = as_array(value, name)
    return array if array.flags.carray else np.require(array, requirements=["C", "A"])


def same_dtype(*, optional: Sequence[str] = (), **arrays: Any) -> list[Any]:
    """The arguments as float arrays of one dtype; None stays None where optional, and Python numbers adapt to the arrays beside them."""
    first = next(iter(arrays.values()))
    if type(first) is np.ndarray and first.dtype in FLOATS:
        dtype = first.dtype
        if all((type(v) is np.ndarray and v.dtype is dtype) or (v is None and name in optional) for name, v in arrays.items()):
            return list(arrays.values())  # the usual case
    values: dict[str, Any] = {}
    for name, value in arrays.items():
        absent = value is None and name in optional
        values[name] = value if absent or is_number(value) else as_array(value, name)
    dtypes = {name: value.dtype for name, value in values.items() if isinstance(value, np.ndarray)}
    if len(set(dtypes.values())) > 1:
        told = ", ".join(f"`{name}` {dtype}" for name, dtype in dtypes.items())
        raise DTypeError(f"all arrays of one call must have the same dtype, got {told}; convert with .astype")
    dtype = next(iter(dtypes.values()), np.dtype(np.float64))
    return [np.asarray(value, dtype) if is_number(value) else value for value in values.values()]


def as_lengths(shape: Any, minimum: int = 0) -> tuple[int, ...]:
    """`shape` as a tuple of integers not below `minimum`; an int stands for one axis."""
    return tuple(as_int(n, "shape", minimum) for n in (shape if isinstance(shape, Iterable) else (shape,)))


def is_number(value: Any) -> bool:
    """True for a Python real number (not for NumPy scalars, which carry a dtype)."""
    return isinstance(value, numbers.Real) and not isinstance(value, np.generic | bool)


def check_rank(array: Array, name: str, rank: int, meaning: str) -> None:
    """Raise ShapeError unless `array` has `rank` axes; `meaning` names them."""
    if array.ndim != rank:
        raise ShapeError(f"`{name}` has shape {array.shape}, but must have {rank} axes: {meaning}")


def check_shape(array: Array, name: str, shape: tuple[int, ...], meaning: str) -> None:
    """Raise ShapeError unless `array` has exactly `shape`; `meaning` says where that comes from."""
    if array.shape != shape:
        raise ShapeError(f"`{name}` has shape {array.shape}, but must have shape {shape}: {meaning}")


def shape_of(value: Any, name: str, rank: int, meaning: str) -> tuple[int, ...]:
    """The shape of an array, or of anything that stands for one on the tape, checked to have `rank` axes."""
    array = value if hasattr(type(value), "__npreparam_apply__") else as_array(value, name)
    check_rank(array, name, rank, meaning)
    return array.shape


def check_shape_of(value: Any, name: str, shape: tuple[int, ...], meaning: str) -> None:
    """`check_shape` of an array, or of anything that stands for one on the tape."""
    check_shape(value if hasattr(type(value), "__npreparam_apply__") else as_array(value, name), name, shape, meaning)
