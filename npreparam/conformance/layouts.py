"""The same numbers, laid out differently in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def _channels_last(x: Array) -> Array:
    """Four axes stored as NHWC, with strides that say so even for one channel; others as they are."""
    return np.array(x.transpose(0, 2, 3, 1), order="C").transpose(0, 3, 1, 2) if x.ndim == 4 else x


def _strided(x: Array) -> Array:
    """Every second element of a buffer that is NaN in between."""
    buffer = np.full((*x.shape[:-1], 2 * x.shape[-1]), _filler(x), x.dtype)
    buffer[..., ::2] = x
    return buffer[..., ::2]


def _reversed(x: Array) -> Array:
    """Stored backwards along the last axis: a negative stride."""
    return np.ascontiguousarray(x[..., ::-1])[..., ::-1]


def _unaligned(x: Array) -> Array:
    """One byte off the dtype's alignment."""
    raw = np.empty(x.nbytes + 1, np.uint8)[1:]
    found = raw.view(x.dtype).reshape(x.shape)
    found[...] = x
    return found


def _read_only(x: Array) -> Array:
    x = x.copy()
    x.flags.writeable = False
    return x


def _filler(x: Array) -> Any:
    return 0 if x.dtype.kind in "iub" else np.nan


LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "contiguous": np.array,
    "channels_last": _channels_last,
    "strided": _strided,
    "reversed": _reversed,
    "transposed": np.asfortranarray,
    "unaligned": _unaligned,
    "read_only": _read_only,
}


def arranged(value: Any, layout: str) -> Any:
    """An argument with its arrays, and those in a tuple, laid out so; never the caller's own memory.

    >>> arranged(np.arange(3.0), "strided").strides
    (16,)
    """
    if isinstance(value, tuple):
        return tuple(arranged(part, layout) for part in value)
    if not isinstance(value, np.ndarray) or value.ndim == 0:
        return value
    found = LAYOUTS[layout](value)
    return found.copy() if found is value else found
