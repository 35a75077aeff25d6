"""Arrays that are nothing but an address, inside a kernel: somebody else keeps their memory alive."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numba import carray, types
from numba.core import cgutils, config
from numba.extending import intrinsic

from npreparam.kernels._compile import kernel


def _pointer(typingctx, address, like):  # type: ignore[no-untyped-def]
    """The address as a pointer to numbers of the type of `like`."""
    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return types.CPointer(like)(types.int64, like), codegen


def _without_owner(context, builder, kind, value):  # type: ignore[no-untyped-def]
    if isinstance(kind, types.Array):
        array = context.make_array(kind)(context, builder, value=value)
        array.meminfo = cgutils.get_null_value(array.meminfo.type)
        return array._getvalue()
    if isinstance(kind, types.BaseTuple):
        values = cgutils.unpack_tuple(builder, value)
        return context.make_tuple(builder, kind, [_without_owner(context, builder, *pair) for pair in zip(kind, values, strict=True)])
    return value


def _borrowed(typingctx, value):  # type: ignore[no-untyped-def]
    """The same array, or tuple of anything, whose arrays are not counted as references to their memory.

    Numba counts them with atomic additions wherever an array is taken out of a tuple; in an inner loop, and of two threads at one counter, that
    takes longer than a small tile.
    """
    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return _without_owner(context, builder, signature.args[0], args[0])

    return value(value), codegen


def _array_at_twin(address: int, count: int, like: Any) -> Any:
    memory = (ctypes.c_char * (count * like.itemsize)).from_address(int(address))
    return np.frombuffer(memory, like.dtype)


if config.DISABLE_JIT:
    array_at = _array_at_twin

    def borrowed(value: Any) -> Any:
        """See `_borrowed`."""
        return value
else:
    pointer, borrowed = intrinsic(_pointer), intrinsic(_borrowed)

    @kernel
    def array_at(address: int, count: int, like: Any) -> Any:
        """`count` numbers of the type of `like` from an address on: one compiled kernel serves any number of arrays of one dtype."""
        return carray(pointer(address, like), (count,))
