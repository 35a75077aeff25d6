"""Arrays from addresses, inside a kernel: one compiled kernel serves any number of arrays of one dtype."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numba import carray, types
from numba.core import config
from numba.extending import intrinsic

from npreparam.kernels._compile import kernel


def _pointer(typingctx, address, like):  # type: ignore[no-untyped-def]
    """The address as a pointer to numbers of the type of `like`."""
    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return types.CPointer(like)(types.int64, like), codegen


def _array_at_twin(address: int, count: int, like: Any) -> Any:
    memory = (ctypes.c_char * (count * like.itemsize)).from_address(int(address))
    return np.frombuffer(memory, like.dtype)


if config.DISABLE_JIT:
    array_at = _array_at_twin
else:
    pointer = intrinsic(_pointer)

    @kernel
    def array_at(address: int, count: int, like: Any) -> Any:
        """`count` numbers of the type of `like` from an address on, which somebody else keeps alive."""
        return carray(pointer(address, like), (count,))
