"""Counters that threads share inside a kernel, without the interpreter lock."""

from __future__ import annotations

import queue
import threading
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import config
from numba.extending import intrinsic

from npreparam.kernels._compile import kernel

INT = ir.IntType(64)


def _add(typingctx, counters, index):  # type: ignore[no-untyped-def]
    """Add one to counters[index], atomically; returns the value before."""
    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        data = context.make_array(signature.args[0])(context, builder, value=args[0]).data
        return builder.atomic_rmw("add", builder.gep(data, [args[1]]), INT(1), "seq_cst")

    return types.int64(counters, types.intp), codegen


def _read(typingctx, counters, index):  # type: ignore[no-untyped-def]
    """counters[index] as other threads last wrote it."""
    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        data = context.make_array(signature.args[0])(context, builder, value=args[0]).data
        return builder.load_atomic(builder.gep(data, [args[1]]), "acquire", 8)

    return types.int64(counters, types.intp), codegen


def _add_there(typingctx, address):  # type: ignore[no-untyped-def]
    """Add one to the integer at an address, atomically."""
    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        builder.atomic_rmw("add", builder.inttoptr(args[0], INT.as_pointer()), INT(1), "seq_cst")
        return context.get_dummy_value()

    return types.void(address), codegen


_lock = threading.Lock()


def _add_twin(counters: Any, index: int) -> int:
    with _lock:
        before = int(counters[index])
        counters[index] = before + 1
    return before


def _read_twin(counters: Any, index: int) -> int:
    return int(counters[index])


def _add_there_twin(address: int) -> None:
    ENTERED[0] += 1


if config.DISABLE_JIT:
    add, read, add_there = _add_twin, _read_twin, _add_there_twin
else:
    add, read, add_there = intrinsic(_add), intrinsic(_read), intrinsic(_add_there)


CLOSED = 2**40  # more than any stage has chunks
DRAWN, DONE, SIDES = 0, 1, 2  # the counters of a stage; one more for each side
COUNTERS = 4
ENTERED = np.zeros(1, np.int64)  # how often any thread began a kernel: what helpers that are kept awake look at
ADDRESS = ENTERED.ctypes.data
SPINS = 1_000_000  # looks at it before a helper goes to sleep, about a millisecond


def new_counters(stages: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """For each stage: chunks drawn, chunks done, and chunks drawn from either side; at last, where ENTERED is, or 0 if no helper shall look."""
    counters = np.zeros(COUNTERS * stages + 1, np.int64)
    counters[-1] = ADDRESS
    return counters


def close(counters: np.ndarray[Any, np.dtype[np.int64]]) -> None:
    """Let every thread leave the kernel: nothing is left to draw, and nobody waits for the thread that failed."""
    counters[:-1] = CLOSED


@kernel
def enter(counters: Any, worker: int) -> None:
    """Tell helpers that are awake that the caller is inside a kernel: the interpreter lock is free, and there is work."""
    if worker == 0 and counters[-1] != 0:
        add_there(counters[-1])


@kernel
def await_entry(entered: Any, seen: int) -> bool:
    """Look until another kernel has begun than the first `seen`, or for a while; whether one has."""
    for _ in range(SPINS):  # noqa: SIM110
        if read(entered, 0) != seen:
            return True
    return False


def wait_awake(jobs: Any) -> Any:
    """The next job of a queue, waited for without sleeping; None where none comes soon."""
    while True:
        seen = int(ENTERED[0])
        try:
            return jobs.get_nowait()
        except queue.Empty:
            if not await_entry(ENTERED, seen):
                return None


@kernel
def draw(counters: Any, stage: int, worker: int, chunks: int) -> int:
    """A chunk of a stage that no other thread gets, or -1 where none is left.

    Workers of even number draw from the first chunk on, the others from the last: each thread goes through neighbouring chunks, which share
    weights and pixels, and yet none has to wait for another with more than a chunk.
    """
    base = COUNTERS * stage
    if add(counters, base + DRAWN) >= chunks:
        return -1
    side = worker & 1
    mine = add(counters, base + SIDES + side)
    return chunks - 1 - mine if side else mine


@kernel
def finish(counters: Any, stage: int) -> None:
    """Report one chunk of a stage as done."""
    add(counters, COUNTERS * stage + DONE)


@kernel
def await_stage(counters: Any, stage: int, chunks: int) -> None:
    """Return when all chunks of a stage are done: they are all drawn by now, so this waits for a chunk at most."""
    while read(counters, COUNTERS * stage + DONE) < chunks:
        pass
