"""How the tasks of a convolution, blocks of output channels over strips of rows, are shared out among threads, and who pads the rows."""

from __future__ import annotations

import math
from typing import NamedTuple

from npreparam.kernels._plan import Plan, Source

COMPUTED_AT_LEAST = 1_000_000  # multiply-adds in one call of the product kernel
CHUNKS_PER_THREAD = 16  # about, so that no thread waits long for another
SIDES, STRIPS_PER_THREAD = 2, 4
EXTRA_BYTES = 2**20  # of padded rows, beyond those of the padded input
OWN_BYTES, TOGETHER_BYTES = 2 * 2**20, 32 * 2**20  # of padded rows that each thread may hold, or that all threads together fill at once
LINE = 32  # elements: no two threads write to neighbouring cache lines


class Split(NamedTuple):
    """How the tasks of a product are shared out."""

    tasks: int
    share: int  # tasks in a chunk
    room: int  # elements of padded rows of a strip
    together: int  # strips whose rows all threads pad together, each into its room; 0 where each thread pads those of its own


def _share(plan: Plan, strips: int, threads: int) -> int:
    """Tasks in a chunk: few, as two threads draw them from either side; of several that draw from one side each gets whole strips to pad, if
    there are enough for all."""
    blocks = -(-plan.rows // plan.tile_rows)
    fewest = 1 + COMPUTED_AT_LEAST * plan.strips // max(1, plan.products)
    if threads > SIDES and strips >= STRIPS_PER_THREAD * threads:
        return blocks * max(1, fewest // blocks)
    return max(fewest, strips * blocks // (CHUNKS_PER_THREAD * threads))


def split_for(plan: Plan, source: Source, images: int, threads: int, itemsize: int) -> tuple[Split, int, int]:
    """The split, how many rooms it takes, and how many threads have something to do.

    Rooms of all threads must not take more than the padded input and EXTRA_BYTES: many threads, or strips that a far reach makes large, would.
    """
    strips, room = images * plan.groups * plan.strips, plan.held + plan.width
    room += -room % LINE
    tasks, share = strips * -(-plan.rows // plan.tile_rows), _share(plan, strips, threads)
    threads = max(1, min(threads, -(-tasks // share)))
    planes = source.channels * len(source.row_phases) * len(source.spans) * math.prod(source.plane)
    most = images * planes * itemsize + EXTRA_BYTES
    if threads == 1 or (room * itemsize <= OWN_BYTES and threads * room * itemsize <= most):
        return Split(tasks, share, room, 0), threads, threads
    together = min(strips, max(1, min(most, TOGETHER_BYTES) // (room * itemsize)))
    return Split(tasks, _share(plan, together, threads), room, together), together, threads
