"""The weight-gradient kernel: products of padded input and cotangent, summed over the pixels of the batch.

    gw[g, o, k] = sum over (n, pixel) of gy[n, g, o, pixel] * x[n, g, pixel + offsets[k]]

Lanes of a vector hold partial sums of neighbouring pixels; they are added in a fixed tree after every `VECTORS_AT_ONCE` vectors, and these sums
in order. Tiles of the result are the tasks, so nothing depends on the number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from npreparam.kernels import _threads
from npreparam.kernels._atomic import await_stage, draw, finish, new_counters
from npreparam.kernels._memory import Strided
from npreparam.kernels._plan import Reduction, Source, lanes
from npreparam.kernels._prepare import fill_channel
from npreparam.kernels._scratch import scratch
from npreparam.kernels._tile import grad_tile, single_grad_tile

Array = NDArray[Any]
VECTORS_AT_ONCE = 32  # of one row of gy: with the rows of a tile, what the first-level cache holds
COPIED_AT_LEAST = 100_000  # elements in one call of the copying kernel
CHUNKS = 32  # of the result's tiles
SMALL_PRODUCT = 200_000  # multiply-adds below which waking a second thread costs more than it saves


@njit(nogil=True, cache=True, fastmath=False)
def reduce_tiles(first: int, last: int, vectors: int, plan: Reduction, gy: Any, x: Any, buffer: Any, gw: Any) -> None:
    """Add to gw what `vectors` vectors of pixels contribute to tiles first..last-1, ordered by group, block of rows, tile of taps."""
    tile_rows, tile_taps = plan.tile
    across = plan.offsets.size // tile_taps
    blocks = -(-plan.rows // tile_rows)
    for begin in range(0, vectors, VECTORS_AT_ONCE):
        end = min(vectors, begin + VECTORS_AT_ONCE)
        for task in range(first, last):
            rest, tile = divmod(task, across)
            group, block = divmod(rest, blocks)
            row, tap = block * tile_rows, tile * tile_taps
            at_g, at_x = (group * plan.rows + row) * plan.gy_plane, group * (plan.x_image // plan.groups)
            if tile_rows == 1:
                single_grad_tile(gy, at_g, plan.gy_plane, x, at_x, plan.offsets, tap, plan.mask, plan.table, begin, end, buffer)
            else:
                grad_tile(gy, at_g, plan.gy_plane, x, at_x, plan.offsets, tap, plan.mask, plan.table, begin, end, buffer)
            for i in range(min(tile_rows, plan.rows - row)):
                for t in range(min(tile_taps, plan.taps - tap)):
                    gw[(group * plan.rows + row + i) * plan.taps + tap + t] += buffer[i * tile_taps + t]


@njit(nogil=True, cache=True, fastmath=False)
def copy_channels(first: int, last: int, image: int, x: Strided, x_source: Source, padded_x: Any, gy: Strided, gy_source: Source,
                  padded_gy: Any, plan: Reduction) -> None:
    """Copying tasks first..last-1: for each image from one on, the channels of x, then those of gy."""
    channels = x_source.channels + gy_source.channels
    for task in range(first, last):
        n, c = divmod(task, channels)
        if c < x_source.channels:
            length = plan.x_image // x_source.channels
            fill_channel(image + n, c, x, x_source, padded_x, n * plan.x_image + c * length)
        else:
            c -= x_source.channels
            fill_channel(image + n, c, gy, gy_source, padded_gy, (n * gy_source.channels + c) * plan.gy_plane)


@njit(nogil=True, cache=True, fastmath=False)
def work(counters: Any, images: int, at_once: int, plan: Reduction, x: Strided, x_source: Source, padded_x: Any, gy: Strided,
         gy_source: Source, padded_gy: Any, gw: Any) -> None:
    """One thread's share: for each group of `at_once` images, the copies, then the tiles of gw."""
    buffer = np.empty(plan.tile[0] * plan.tile[1], gw.dtype)
    channels = x_source.channels + gy_source.channels
    grain = 1 + COPIED_AT_LEAST * channels // max(1, plan.x_image + gy_source.channels * plan.gy_plane)
    tiles = plan.groups * -(-plan.rows // plan.tile[0]) * (plan.offsets.size // plan.tile[1])
    share = -(-tiles // CHUNKS)
    per_image = plan.table.size // 3 // at_once
    stage = 0
    for image in range(0, images, at_once):
        count = min(at_once, images - image)
        chunk = draw(counters, stage)
        while chunk * grain < count * channels:
            copy_channels(chunk * grain, min(count * channels, (chunk + 1) * grain), image, x, x_source, padded_x, gy, gy_source,
                          padded_gy, plan)
            finish(counters, stage)
            chunk = draw(counters, stage)
        await_stage(counters, stage, -(-count * channels // grain))
        chunk = draw(counters, stage + 1)
        while chunk * share < tiles:
            reduce_tiles(chunk * share, min(tiles, (chunk + 1) * share), count * per_image, plan, padded_gy, padded_x, buffer, gw)
            finish(counters, stage + 1)
            chunk = draw(counters, stage + 1)
        await_stage(counters, stage + 1, -(-tiles // share))
        stage += 2


def reduction(images: int, at_once: int, plan: Reduction, x: Strided, x_source: Source, gy: Strided, gy_source: Source, gw: Array) -> None:
    """Copy and reduce into the C-contiguous, zero-filled `gw`, a few images at a time."""
    dtype, vector = gw.dtype, lanes(gw.dtype.itemsize)
    padded_x = scratch("input", at_once * plan.x_image + x_source.plane[1] + vector, dtype)  # the last vector reads past the last pixel
    padded_gy = scratch("cotangent", (at_once * gy_source.channels + plan.tile[0]) * plan.gy_plane, dtype)  # and the last tile past the last row
    counters = new_counters(2 * -(-images // at_once))
    _threads.run_together(work, counters, images, at_once, plan, x, x_source, padded_x, gy, gy_source, padded_gy, gw.reshape(-1),
                          small=gw.size * plan.mask.size * images < SMALL_PRODUCT)
