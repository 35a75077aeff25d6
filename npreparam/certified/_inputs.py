"""Validation at the door: arrays of one of the four formats, all of one call alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npreparam._errors import ArgumentError, DTypeError
from npreparam.exact.rounding import dtype_of

Array = NDArray[Any]
FORMATS = ("float16", "bfloat16", "float32", "float64")
quiet = np.errstate(all="ignore")  # a decorator: overflow and the like are part of the answer
MOST_TERMS = 2**28  # of one sum: what the bounds and the accumulator's carries allow


def one_format(*, optional: Sequence[str] = (), **arrays: Any) -> np.dtype[Any]:
    """The format that all arguments have; None is passed over where optional."""
    dtypes: dict[str, np.dtype[Any]] = {}
    for name, value in arrays.items():
        if value is None and name in optional:
            continue
        if not isinstance(value, np.ndarray | np.generic):
            raise DTypeError(f"`{name}` (a {type(value).__name__}) must be a NumPy array; convert it with numpy.asarray(..., dtype=numpy.float32)")
        if value.dtype.name not in FORMATS:
            raise DTypeError(f"`{name}` has dtype {value.dtype}, but must be one of {', '.join(FORMATS)}; convert it with .astype")
        dtypes[name] = value.dtype.newbyteorder("=")
    if len(set(dtypes.values())) > 1:
        told = ", ".join(f"`{name}` {dtype}" for name, dtype in dtypes.items())
        raise DTypeError(f"all arrays of one call must have the same dtype, got {told}; convert with .astype")
    return next(iter(dtypes.values()))


def widened(*arrays: Array | None) -> list[Any]:
    """As float64 arrays in C order, writable, as the kernels want them: an exact conversion; None stays None."""
    return [None if array is None else np.require(np.asarray(array, np.float64), requirements=["C", "A", "W"]) for array in arrays]


def widened_into(memory: Array, array: Array) -> Array:
    """`widened`, a copy being made in this float64 memory of at least its size: fresh memory would cost more than the copy."""
    if array.dtype == np.float64:
        return np.require(array, np.float64, ["C", "A", "W"])
    wide = memory[: array.size].reshape(array.shape)
    np.copyto(wide, array)
    return wide


def result_format(out_dtype: Any, same: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype to round to: one of the four, "same" standing for that of the operands."""
    dtype = same if isinstance(out_dtype, str) and out_dtype == "same" else dtype_of(out_dtype)
    if dtype.name not in FORMATS:
        raise DTypeError(f"`out_dtype` (={str(out_dtype)!r}) must be one of {', '.join(FORMATS)}")
    return dtype


def check_terms(terms: int) -> None:
    """Raise ArgumentError where a sum has more terms than the bounds are proved for."""
    if terms > MOST_TERMS:
        raise ArgumentError(f"each element is a sum of {terms} terms, but the bounds are proved for at most 2**28; split the sums")
