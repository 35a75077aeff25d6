"""The correlation kernel: every product of the house is this loop over register tiles.

    y[n, g, o, r, c] = max(floor, start[g, o] + sum_k w[g, o, k] * x[n, g, r*row + c + offsets[k]])

Tiles are the tasks, and every output element belongs to one tile and is one chain over k: results do not depend on how tiles are split among
threads, nor on which other images are in the batch.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy import uintp
from numpy.typing import NDArray

from npreparam.kernels import _threads
from npreparam.kernels._atomic import await_stage, close, draw, enter, finish, new_counters
from npreparam.kernels._compile import by_type, kernel
from npreparam.kernels._memory import Strided
from npreparam.kernels._pair import ROWS as PAIR_ROWS
from npreparam.kernels._pair import pair_tile, single_pair_tile
from npreparam.kernels._plan import FIRST_TAP, HEIGHT, ORIGIN, PER_ROW, TAPS, TILES, WIDTH, Plan, Source
from npreparam.kernels._prepare import prepare
from npreparam.kernels._scratch import scratch
from npreparam.kernels._tile import single_tile, tile, unpacked_tile

Array = NDArray[Any]
SMALL_PRODUCT = 200_000  # multiply-adds below which waking a second thread costs more than it saves
COPIED_AT_LEAST = 25_000  # elements in one call of a copying kernel
COMPUTED_AT_LEAST = 1_000_000  # multiply-adds in one call of the product kernel
UNPACKED_TILES = 32  # tiles over the same weights up to which packing them costs more than it saves
PADDED_AT_ONCE = 4 * 2**20  # bytes of padded images that stay in the last-level cache between the copy and the product


@kernel
def scatter(buffer: Any, first: int, rows: int, y: Any, base: int, plan: Plan, r: int, c: int, size: tuple[int, int]) -> None:
    """Store the tile at buffer[first], whose first pixel is (r, c), dropping the columns between `size[1]` and the padded row length."""
    (height, columns), width = size, plan.width
    _, channel, row_step, column_step = plan.out
    j = 0
    while j < width and r < height:
        count = min(width - j, columns - c)
        for i in range(rows):
            at = base + i * channel + r * row_step + c * column_step
            if column_step == 1:
                for q in range(count):
                    y[uintp(at + q)] = buffer[uintp(first + i * width + j + q)]
            else:
                for q in range(count):
                    y[uintp(at + q * column_step)] = buffer[uintp(first + i * width + j + q)]
        j += plan.row - c
        r, c = r + 1, 0


class Operands(NamedTuple):
    """The memory of one product: its operands, the copies of them, and its result."""

    w: Strided
    packed: Any  # weights in tiles; empty where they are read where they lie
    x: Strided
    source: Source
    padded: Any  # images in planes
    start: Any  # what each output channel's sums begin with
    floor: Any
    y: Any


class PairOperands(NamedTuple):
    """The same for sums in doubled precision, which have no floor (it is not looked at); the second half of `y` is for what each sum lacks."""

    w: Strided
    packed: Any
    x: Strided
    source: Source
    padded: Any
    start: Any
    floor: Any
    y: Any


class Block(NamedTuple):
    """Which tiles: those of one block of output channels of one image."""

    first_image: int  # of the images in `padded`
    image: int  # counted from there
    group: int
    block: int


@kernel
def place_tile(t: int, place: Block, problem: Any, plan: Plan) -> tuple[int, int, int, int]:
    """Tile t of a problem: (row, column) of its first output pixel, where that pixel is in the padded images, and in the output."""
    per_row = problem[PER_ROW]
    if per_row:
        r, c = t // per_row, (t % per_row) * plan.width
    else:
        r, c = t * plan.width // plan.row, t * plan.width % plan.row
    x = place.image * plan.image + place.group * (plan.image // plan.groups) + r * plan.row + c
    channel = place.group * plan.rows + place.block * plan.tile_rows
    y = (place.first_image + place.image) * plan.out[0] + channel * plan.out[1] + problem[ORIGIN]
    return r, c, x, y


@kernel
def run_tiles(first: int, last: int, place: Block, problem: Any, plan: Plan, data: Operands, buffer: Any) -> None:
    """Tiles first..last-1 of one block of output channels of one image."""
    taps, rows, tile_rows, width = problem[TAPS], plan.rows, plan.tile_rows, plan.width
    block = place.group * -(-rows // tile_rows) + place.block
    packed, begin = (block * plan.weight_offsets.size + problem[FIRST_TAP]) * tile_rows, block * tile_rows
    unpacked = data.w.start + problem[FIRST_TAP] + place.group * plan.weight_strides[0] + place.block * tile_rows * plan.weight_strides[1]
    live = min(tile_rows, rows - place.block * tile_rows)
    columns = problem[WIDTH]
    for t in range(first, last):
        r, c, x, base = place_tile(t, place, problem, plan)
        whole = c + width <= columns and plan.out[3] == 1 and live == tile_rows
        target, at, step = (data.y, base + r * plan.out[2] + c, plan.out[1]) if whole else (buffer, 0, width)
        if not data.packed.size:
            unpacked_tile(data.w.span, unpacked, plan.weight_strides[1], live, data.padded, x, plan.offsets, problem[FIRST_TAP], taps,
                          data.start, begin, data.floor, target, at, step)
        elif tile_rows == 1:
            single_tile(data.packed, packed, 0, 0, data.padded, x, plan.offsets, problem[FIRST_TAP], taps, data.start, begin, data.floor,
                        target, at, step)
        else:
            tile(data.packed, packed, 0, 0, data.padded, x, plan.offsets, problem[FIRST_TAP], taps, data.start, begin, data.floor,
                 target, at, step)
        if not whole:
            scatter(buffer, 0, live, data.y, base, plan, r, c, (problem[HEIGHT], columns))


@kernel
def run_pair_tiles(first: int, last: int, place: Block, problem: Any, plan: Plan, data: PairOperands, buffer: Any) -> None:
    """The same in doubled precision, by way of the buffer."""
    taps, tile_rows, low = problem[TAPS], plan.tile_rows, plan.tile_rows * plan.width
    block = place.group * -(-plan.rows // tile_rows) + place.block
    packed, begin = (block * plan.weight_offsets.size + problem[FIRST_TAP]) * tile_rows, block * tile_rows
    live = min(tile_rows, plan.rows - place.block * tile_rows)
    for t in range(first, last):
        r, c, x, base = place_tile(t, place, problem, plan)
        if tile_rows == 1:
            single_pair_tile(data.packed, packed, 1, data.padded, x, plan.offsets, problem[FIRST_TAP], taps, data.start, begin,
                             buffer, 0, plan.width, low)
        else:
            for i in range(0, tile_rows, PAIR_ROWS):
                pair_tile(data.packed, packed + i, tile_rows, data.padded, x, plan.offsets, problem[FIRST_TAP], taps, data.start, begin + i,
                          buffer, i * plan.width, plan.width, low)
        scatter(buffer, 0, live, data.y, base, plan, r, c, (problem[HEIGHT], problem[WIDTH]))
        scatter(buffer, low, live, data.y, base + data.y.size // 2, plan, r, c, (problem[HEIGHT], problem[WIDTH]))


run_either = by_type(run_tiles, run_pair_tiles, PairOperands)


@kernel
def correlate(first: int, last: int, first_image: int, plan: Plan, data: Operands, buffer: Any) -> None:
    """Tasks first..last-1 of all tiles from one image on, ordered by image, group, problem, strip of tiles, block, tile.

    A strip is as many tiles as keep their part of the image in the second-level cache while all blocks of weights pass over it.
    """
    blocks = -(-plan.rows // plan.tile_rows)
    per_group = blocks * plan.problems[:, TILES].sum()
    task = first
    while task < last:
        image, rest = divmod(task, plan.groups * per_group)
        group, rest = divmod(rest, per_group)
        p = 0
        while rest >= blocks * plan.problems[p, TILES]:
            rest -= blocks * plan.problems[p, TILES]
            p += 1
        strip, rest = divmod(rest, blocks * plan.strip)
        begin = strip * plan.strip
        tiles = min(plan.strip, plan.problems[p, TILES] - begin)
        block, t = divmod(rest, tiles)
        count = min(last - task, tiles - t)
        run_either(begin + t, begin + t + count, Block(first_image, image, group, block), plan.problems[p], plan, data, buffer)
        task += count


@kernel
def work(counters: Any, side: int, images: int, at_once: int, plan: Plan, data: Operands) -> None:
    """One thread's share of a product: for each group of `at_once` images, the copies, then the tiles; weights are packed once."""
    enter(counters, side)
    buffer = np.empty(2 * plan.tile_rows * plan.width, data.y.dtype)  # before the first chunk is drawn: memory may run out
    packs = plan.groups * -(-plan.rows // plan.tile_rows)
    tiles = packs * plan.problems[:, TILES].sum()
    packs = packs if data.packed.size else 0
    copy_grain = 1 + COPIED_AT_LEAST * (packs + at_once * data.source.channels) // (data.padded.size + data.packed.size)
    tile_grain = 1 + COMPUTED_AT_LEAST // max(1, plan.tile_rows * plan.width * plan.weight_offsets.size)
    stage = 0
    for image in range(0, images, at_once):
        count = min(at_once, images - image)
        tasks = packs + count * data.source.channels
        chunks = -(-tasks // copy_grain)
        chunk = draw(counters, stage, side, chunks)
        while chunk >= 0:
            prepare(chunk * copy_grain, min(tasks, (chunk + 1) * copy_grain), image, packs, plan, data)
            finish(counters, stage)
            chunk = draw(counters, stage, side, chunks)
        await_stage(counters, stage, chunks)
        chunks = -(-count * tiles // tile_grain)
        chunk = draw(counters, stage + 1, side, chunks)
        while chunk >= 0:
            correlate(chunk * tile_grain, min(count * tiles, (chunk + 1) * tile_grain), image, plan, data, buffer)
            finish(counters, stage + 1)
            chunk = draw(counters, stage + 1, side, chunks)
        await_stage(counters, stage + 1, chunks)
        packs = 0
        stage += 2


def product(plan: Plan, images: int, w: Strided, x: Strided, source: Source, start: Array | None, relu: bool, y: Array, pair: bool = False) -> None:
    """Copy and correlate into the C-contiguous `y`, a few images at a time, with one waking of the threads.

    With `pair`, y has a first axis of 2 for the sums in doubled precision, and there is no ReLU.
    """
    dtype = y.dtype
    blocks, taps, tiles = -(-plan.rows // plan.tile_rows), plan.weight_offsets.size, int(plan.problems[:, TILES].sum())
    at_once = min(images, max(1, PADDED_AT_ONCE // max(1, plan.image * dtype.itemsize)))
    begins = np.zeros((plan.groups, blocks * plan.tile_rows), dtype)
    if start is not None:
        begins[:, : plan.rows] = start.reshape(plan.groups, plan.rows)
    floor = dtype.type(0 if relu else -math.inf)
    counters = new_counters(2 * -(-images // at_once))
    unpacked = plan.adjacent and images * tiles <= UNPACKED_TILES and not pair
    packed = 0 if unpacked else max(1, plan.groups * blocks * taps * plan.tile_rows)
    with scratch(dtype, weights=packed, input=at_once * plan.image + plan.width) as (packed, padded):
        padded[at_once * plan.image :] = 0  # the last tile reads past the last pixel, into columns that are dropped
        operands = (PairOperands if pair else Operands)(w, packed, x, source, padded, begins.reshape(-1), floor, y.reshape(-1))
        _threads.run_together(work, counters, close, images, at_once, plan, operands, small=y.size * taps < SMALL_PRODUCT)
