"""Working memory kept between calls: fresh pages cost more (a page fault for each 4 KiB) than the copies made into them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def scratch(dtype: np.dtype[Any], **lengths: int) -> Iterator[list[NDArray[Any]]]:
    """Uninitialized elements for each role, lent until the block ends.

    A lent buffer is in nobody else's reach: a call from a signal handler gets another one, and after an exception, when a helper thread may
    still be writing into it, it is not lent again.
    """
    lent = {role: _take(role, length * dtype.itemsize) for role, length in lengths.items()}
    yield [memory[: length * dtype.itemsize].view(dtype) for memory, length in zip(lent.values(), lengths.values(), strict=True)]
    _buffers.kept.update((role, memory) for role, memory in lent.items() if memory.size <= KEPT_BYTES)


def _take(role: str, wanted: int) -> NDArray[np.uint8]:
    """Bytes that begin at a multiple of ALIGNMENT."""
    memory = _buffers.kept.pop(role, None)
    if memory is None or memory.size < wanted:
        memory = np.empty(wanted + ALIGNMENT, np.uint8)
        memory = memory[-memory.ctypes.data % ALIGNMENT :][:wanted]
    return memory
