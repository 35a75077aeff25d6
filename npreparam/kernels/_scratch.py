"""Working memory kept between calls: fresh pages cost more (a page fault for each 4 KiB) than the copies made into them."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

KEPT_BYTES = 32 * 2**20  # larger buffers go back to the system after the call
ALIGNMENT = 64


class _Buffers(threading.local):
    """One buffer for each role and Python thread, so that concurrent calls never share one."""

    def __init__(self) -> None:
        self.kept: dict[str, NDArray[np.uint8]] = {}


_buffers = _Buffers()


def scratch(role: str, length: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """`length` uninitialized elements, valid until this thread asks for the same role again."""
    wanted = length * dtype.itemsize
    memory = _buffers.kept.get(role)
    if memory is None or memory.size < wanted + ALIGNMENT:
        memory = np.empty(wanted + ALIGNMENT, np.uint8)
        if wanted <= KEPT_BYTES:
            _buffers.kept[role] = memory
    first = -memory.ctypes.data % ALIGNMENT
    return memory[first : first + wanted].view(dtype)
