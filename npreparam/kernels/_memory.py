"""Any NumPy array, whatever its layout, as one flat span of memory with element strides: one compiled kernel serves all layouts."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Strided(NamedTuple):
    """An array's memory from its lowest address on, and where element (0, ..., 0) and its neighbours are in it."""

    span: NDArray[Any]
    start: int
    strides: tuple[int, ...]


class _Span:
    """The array interface of a span; it is marked writable only because Numba compiles read-only arrays a second time."""

    def __init__(self, owner: NDArray[Any], address: int, length: int) -> None:
        self.owner = owner  # keeps the memory alive
        self.__array_interface__ = {"data": (address, False), "shape": (length,), "typestr": owner.dtype.str, "version": 3}


def strided(array: NDArray[Any]) -> Strided:
    """`array` as a span to be **read**; it is copied only where its strides or address are no multiple of the element size.

    >>> view = strided(np.arange(6.0).reshape(2, 3)[:, ::-1])
    >>> view.start, view.strides, view.span[view.start + 1 * view.strides[0] + 2 * view.strides[1]]
    (2, (3, -1), np.float64(3.0))
    """
    size = array.itemsize
    if array.flags.carray:  # contiguous, aligned and writable: the usual case, and much the quickest to tell
        return Strided(array.reshape(-1), 0, tuple([step // size for step in array.strides]))
    address = array.__array_interface__["data"][0]
    if address % size or any(step % size for step in array.strides):
        array = array.copy()
        address = array.__array_interface__["data"][0]
    if array.size == 0:
        return Strided(np.empty(0, array.dtype), 0, (0,) * array.ndim)
    steps = tuple(step // size for step in array.strides)
    reach = [step * (length - 1) for step, length in zip(steps, array.shape, strict=True)]
    below = -sum(r for r in reach if r < 0)
    length = below + sum(r for r in reach if r > 0) + 1
    return Strided(np.asarray(_Span(array, address - below * size, length)), below, steps)
