"""Number formats by name; bfloat16 and float8 come from ml_dtypes, loaded on first use."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from npreparam._errors import FormatError

Array = NDArray[Any]

SMALL_FLOATS = ("bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu")


def dtype_of(name: str) -> np.dtype[Any]:
    """The NumPy dtype of a number format, little-endian; ImportError names the extra that bfloat16 and float8 need."""
    if name not in SMALL_FLOATS:
        return np.dtype(name).newbyteorder("<")
    try:
        import ml_dtypes
    except ImportError:
        raise ImportError(f"{name} tensors need ml_dtypes: pip install 'npreparam[checkpoints]'") from None
    return np.dtype(getattr(ml_dtypes, name))


def vector(data: Any, dtype: np.dtype[Any], what: str) -> Array:
    """All of `data` as a read-only vector that shares its memory.

    A byte of a bool that is neither 0 nor 1 would be undefined behaviour later, so FormatError names it here.
    """
    if len(data) % dtype.itemsize:
        raise FormatError(f"{what} has {len(data)} bytes, which is no multiple of {dtype.itemsize}, the size of {dtype}")
    values = np.frombuffer(data, np.uint8)
    if dtype == np.bool_ and values.max(initial=0) > 1:
        raise FormatError(f"{what} holds the byte {values.max()}; a bool is 0 or 1")
    values = values.view(dtype)
    values.flags.writeable = False
    return values
