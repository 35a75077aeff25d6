"""Transposed copies of blocks of 8 x 8 elements: rows are read and columns written as vectors, three rounds of shuffles apart."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import config
from numba.extending import intrinsic
from numpy import uintp

from npreparam.kernels._compile import kernel
from npreparam.kernels._tile import INT, Emitter

SIDE = 8


def _picks(lanes: list[int]) -> ir.Constant:
    return ir.Constant(ir.VectorType(ir.IntType(32), SIDE), lanes)


def _transpose_block(typingctx, source, at, step, target, to, across):  # type: ignore[no-untyped-def]
    """target[to + i + j*across] = source[at + j + i*step] for i, j < 8.

    Round by round, the bit of value 4, 2, 1 of the row number changes places with that of the lane number.
    """
    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        kind = signature.args
        emit = Emitter(context, builder, kind[0], SIDE * kind[0].dtype.bitwidth // 8)
        here, there = emit.pointer(kind[0], args[0], args[1]), emit.pointer(kind[3], args[3], args[4])
        rows = [emit.load(emit.at(here, builder.mul(args[2], INT(i)))) for i in range(SIDE)]
        for bit in (4, 2, 1):
            low = _picks([lane if not lane & bit else SIDE + lane - bit for lane in range(SIDE)])
            high = _picks([lane + bit if not lane & bit else SIDE + lane for lane in range(SIDE)])
            rows = [builder.shuffle_vector(rows[i & ~bit], rows[i | bit], high if i & bit else low) for i in range(SIDE)]
        for j, column in enumerate(rows):
            emit.store(column, emit.at(there, builder.mul(args[5], INT(j))))
        return context.get_dummy_value()

    return types.void(source, types.intp, types.intp, target, types.intp, types.intp), codegen


def _transpose_block_twin(source, at, step, target, to, across):  # type: ignore[no-untyped-def]
    for i in range(SIDE):
        for j in range(SIDE):
            target[to + i + j * across] = source[at + j + i * step]


transpose_block = _transpose_block_twin if config.DISABLE_JIT else intrinsic(_transpose_block)


@kernel
def transpose(source: Any, at: int, step: int, size: tuple[int, int], target: Any, to: int, across: int) -> None:
    """target[to + i + j*across] = source[at + j + i*step] for i < size[0], j < size[1]; blocks overlap where 8 do not divide a length."""
    rows, columns = size
    if rows < SIDE or columns < SIDE:
        for j in range(columns):
            for i in range(rows):
                target[uintp(to + i + j * across)] = source[uintp(at + j + i * step)]
        return
    for first in range(0, columns, SIDE):
        j = min(first, columns - SIDE)
        for begin in range(0, rows, SIDE):
            i = min(begin, rows - SIDE)
            transpose_block(source, at + j + i * step, step, target, to + i + j * across, across)
