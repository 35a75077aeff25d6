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
from npreparam.kernels._cpu import NARROW_ROWS
from npreparam.kernels._memory import Strided
from npreparam.kernels._pair import NARROW_ROWS as NARROW_PAIR_ROWS
from npreparam.kernels._pair import ROWS as PAIR_ROWS
from npreparam.kernels._pair import narrow_pair_tile, pair_tile, single_pair_tile
from npreparam.kernels._plan import ACROSS, FIRST_TAP, HEIGHT, ORIGIN, TAPS, WIDTH, Plan, Source
from npreparam.kernels._pointers import borrowed
from npreparam.kernels._prepare import fill_strip, pack_block
from npreparam.kernels._scratch import scratch
from npreparam.kernels._split import Split, split_for
from npreparam.kernels._tile import NO_SEAM, half_tile, narrow_tile, single_tile, tile, unpacked_half_tile, unpacked_tile

Array = NDArray[Any]
SMALL_PRODUCT = 200_000  # multiply-adds below which waking a second thread costs more than it saves
COPIED_AT_LEAST = 25_000  # elements in one call of a copying kernel
UNPACKED_TILES = 32  # tiles over the same weights up to which packing them costs more than it saves


@kernel
def scatter(buffer: Any, first: int, live: int, y: Any, base: int, plan: Plan, problem: Any, span: tuple[int, int]) -> None:
    """Store the tile at buffer[first], whose pixels are number span[0] on, dropping those beyond the end of a row and from number span[1] on."""
    columns, across, width, j = problem[WIDTH], problem[ACROSS], plan.width, 0
    _, channel, row_step, column_step = plan.out
    r, c = divmod(span[0], across)
    end = min(width, span[1] - span[0])
    while j < end:
        count = min(end - j, columns - c)
        for i in range(live):
            at = base + i * channel + r * row_step + c * column_step
            if column_step == 1:
                for q in range(count):
                    y[uintp(at + q)] = buffer[uintp(first + i * width + j + q)]
            else:
                for q in range(count):
                    y[uintp(at + q * column_step)] = buffer[uintp(first + i * width + j + q)]
        j += across - c
        r, c = r + 1, 0


class Operands(NamedTuple):
    """The memory of one product: its operands, the copies of them, and its result."""

    w: Strided
    packed: Any  # weights in tiles; empty where they are read where they lie
    x: Strided
    source: Source
    padded: Any  # rooms for the rows of a strip in planes
    tiles: Any  # a buffer of two tiles for each thread
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
    tiles: Any
    start: Any
    floor: Any
    y: Any


class Place(NamedTuple):
    """One block of output channels over one strip of rows of one image, and where the thread's padded rows begin."""

    image: int
    group: int
    first: int  # row
    block: int
    padded: int


@kernel
def pixels_of(place: Place, problem: Any, plan: Plan) -> int:
    """How many pixels of a strip tiles have numbers for, up to the last one that is computed; 0 or less for none."""
    return (min(plan.band, problem[HEIGHT] - place.first) - 1) * problem[ACROSS] + problem[WIDTH]


@kernel
def seam_of(column: int, left: int, problem: Any, plan: Plan) -> tuple[int, int]:
    """The seam (see `_tile`) of a tile that begins in a column, with so many pixels of the strip left."""
    first, gap = problem[ACROSS] - column, plan.row - problem[ACROSS]
    return (first, gap) if gap and first < left else NO_SEAM


@kernel
def output_base(place: Place, problem: Any, plan: Plan) -> int:
    """Where the strip's first pixel of the block's first channel is in the output."""
    channel = place.group * plan.rows + place.block * plan.tile_rows
    return place.image * plan.out[0] + channel * plan.out[1] + problem[ORIGIN] + place.first * plan.out[2]


@kernel
def run_tiles(place: Place, problem: Any, plan: Plan, data: Operands, buffer: Any) -> None:
    """All tiles of a place."""
    taps, first_tap, rows, tile_rows, width = problem[TAPS], problem[FIRST_TAP], plan.rows, plan.tile_rows, plan.width
    block = place.group * -(-rows // tile_rows) + place.block
    packed, begin = (block * plan.weight_offsets.size + first_tap) * tile_rows, block * tile_rows
    unpacked = data.w.start + first_tap + place.group * plan.weight_strides[0] + place.block * tile_rows * plan.weight_strides[1]
    live = min(tile_rows, rows - place.block * tile_rows)
    base, pixels, columns, across = output_base(place, problem, plan), pixels_of(place, problem, plan), problem[WIDTH], problem[ACROSS]
    one_row = plan.out[2] == columns == across  # all pixels of a strip lie side by side in the output
    for pixel in range(0, pixels, width):
        r, c = divmod(pixel, across)
        x, seam = place.padded + r * plan.row + c, seam_of(c, pixels - pixel, problem, plan)
        whole = width <= (pixels - pixel if one_row else columns - c) and plan.out[3] == 1 and live == tile_rows
        target, at, step = (data.y, base + r * plan.out[2] + c, plan.out[1]) if whole else (buffer, 0, width)
        half = 2 * (pixels - pixel) <= width
        if not data.packed.size:
            if half:
                unpacked_half_tile(data.w.span, unpacked, plan.weight_strides[1], live, data.padded, x, seam, plan.offsets, first_tap, taps,
                                   data.start, begin, data.floor, target, at, step)
            else:
                unpacked_tile(data.w.span, unpacked, plan.weight_strides[1], live, data.padded, x, seam, plan.offsets, first_tap, taps,
                              data.start, begin, data.floor, target, at, step)
        elif tile_rows == 1:
            single_tile(data.packed, packed, 0, 0, data.padded, x, seam, plan.offsets, first_tap, taps, data.start, begin, data.floor,
                        target, at, step)
        elif tile_rows == NARROW_ROWS:
            narrow_tile(data.packed, packed, 0, 0, data.padded, x, seam, plan.offsets, first_tap, taps, data.start, begin, data.floor,
                        target, at, step)
        elif half:
            half_tile(data.packed, packed, 0, 0, data.padded, x, seam, plan.offsets, first_tap, taps, data.start, begin, data.floor,
                      target, at, step)
        else:
            tile(data.packed, packed, 0, 0, data.padded, x, seam, plan.offsets, first_tap, taps, data.start, begin, data.floor,
                 target, at, step)
        if not whole:
            scatter(buffer, 0, live, data.y, base, plan, problem, (pixel, pixels))


@kernel
def run_pair_tiles(place: Place, problem: Any, plan: Plan, data: PairOperands, buffer: Any) -> None:
    """The same in doubled precision, by way of the buffer."""
    taps, first_tap, tile_rows, low = problem[TAPS], problem[FIRST_TAP], plan.tile_rows, plan.tile_rows * plan.width
    block = place.group * -(-plan.rows // tile_rows) + place.block
    packed, begin = (block * plan.weight_offsets.size + first_tap) * tile_rows, block * tile_rows
    live = min(tile_rows, plan.rows - place.block * tile_rows)
    base, pixels = output_base(place, problem, plan), pixels_of(place, problem, plan)
    for pixel in range(0, pixels, plan.width):
        r, c = divmod(pixel, problem[ACROSS])
        x, seam = place.padded + r * plan.row + c, seam_of(c, pixels - pixel, problem, plan)
        if tile_rows == 1:
            single_pair_tile(data.packed, packed, 1, data.padded, x, seam, plan.offsets, first_tap, taps, data.start, begin,
                             buffer, 0, plan.width, low)
        elif tile_rows == NARROW_ROWS:
            for i in range(0, tile_rows, NARROW_PAIR_ROWS):
                narrow_pair_tile(data.packed, packed + i, tile_rows, data.padded, x, seam, plan.offsets, first_tap, taps, data.start, begin + i,
                                 buffer, i * plan.width, plan.width, low)
        else:
            for i in range(0, tile_rows, PAIR_ROWS):
                pair_tile(data.packed, packed + i, tile_rows, data.padded, x, seam, plan.offsets, first_tap, taps, data.start, begin + i,
                          buffer, i * plan.width, plan.width, low)
        scatter(buffer, 0, live, data.y, base, plan, problem, (pixel, pixels))
        scatter(buffer, low, live, data.y, base + data.y.size // 2, plan, problem, (pixel, pixels))


run_either = by_type(run_tiles, run_pair_tiles, PairOperands)


@kernel
def place_of(number: int, plan: Plan) -> tuple[int, int, int]:
    """(image, group, first row) of strip `number`."""
    rest, strip = divmod(number, plan.strips)
    image, group = divmod(rest, plan.groups)
    return image, group, strip * plan.band


@kernel
def correlate(first: int, last: int, held: int, padded: int, plan: Plan, data: Operands, buffer: Any) -> int:
    """Tasks first..last-1, ordered by image, group, strip, block of output channels; the padded rows, from `padded` on, are those of
    strip number `held`, and are filled anew only for another one, whose number is returned."""
    blocks = -(-plan.rows // plan.tile_rows)
    for task in range(first, last):
        number, block = divmod(task, blocks)
        image, group, row = place_of(number, plan)
        if number != held:
            fill_strip((image, group, row), 0, data.source.channels // plan.groups, plan, data, padded)
            held = number
        for p in range(len(plan.problems)):
            run_either(Place(image, group, row, block, padded), plan.problems[p], plan, data, buffer)
    return held


@kernel
def work_together(counters: Any, worker: int, split: Split, plan: Plan, data: Operands, buffer: Any) -> None:
    """One thread's part of the copies of a few strips, then of their tasks; and so on with the next strips."""
    blocks, channels = -(-plan.rows // plan.tile_rows), data.source.channels // plan.groups
    strips, grain, stage = split.tasks // blocks, 1 + COPIED_AT_LEAST * channels // plan.held, 1
    for first in range(0, strips, split.together):
        last = min(strips, first + split.together)
        pieces = -(-channels // grain)
        chunks = (last - first) * pieces
        chunk = draw(counters, stage, worker, chunks)
        while chunk >= 0:
            at, piece = divmod(chunk, pieces)
            fill_strip(place_of(first + at, plan), piece * grain, min(channels, (piece + 1) * grain), plan, data, at * split.room)
            finish(counters, stage)
            chunk = draw(counters, stage, worker, chunks)
        await_stage(counters, stage, chunks)
        stage += 1
        chunks = -(-(last - first) * blocks // split.share)
        chunk = draw(counters, stage, worker, chunks)
        while chunk >= 0:
            begin = first * blocks + chunk * split.share
            for task in range(begin, min(last * blocks, begin + split.share)):
                correlate(task, task + 1, task // blocks, (task // blocks - first) * split.room, plan, data, buffer)
            finish(counters, stage)
            chunk = draw(counters, stage, worker, chunks)
        await_stage(counters, stage, chunks)
        stage += 1


@kernel
def work_alone(counters: Any, worker: int, split: Split, plan: Plan, data: Operands, buffer: Any) -> None:
    """One thread's part of the tasks: it pads the rows of its own strips, for what another core has just written would come slower than a copy."""
    held = -1
    chunks = -(-split.tasks // split.share)
    chunk = draw(counters, 1, worker, chunks)
    while chunk >= 0:
        first = chunk * split.share
        held = correlate(first, min(split.tasks, first + split.share), held, worker * split.room, plan, data, buffer)
        finish(counters, 1)
        chunk = draw(counters, 1, worker, chunks)
    await_stage(counters, 1, chunks)


@kernel
def work(counters: Any, worker: int, split: Split, plan: Plan, data: Operands) -> None:
    """One thread's part of a product: some of the weights are packed, then come the tasks.

    It allocates nothing: a helper may wake when its caller has gone, and memory taken while `tracemalloc` is being stopped ends the process in
    Python before 3.13 (cpython#128679).
    """
    enter(counters, worker)
    plan, data = borrowed(plan), borrowed(data)
    size = 2 * plan.tile_rows * plan.width
    buffer = data.tiles[worker * size : (worker + 1) * size]
    packs = plan.groups * -(-plan.rows // plan.tile_rows) if data.packed.size else 0
    grain = 1 + COPIED_AT_LEAST * packs // (data.packed.size + 1)
    chunks = -(-packs // grain)
    chunk = draw(counters, 0, worker, chunks)
    while chunk >= 0:
        for pack in range(chunk * grain, min(packs, (chunk + 1) * grain)):
            pack_block(pack, data.w, plan, data.packed)
        finish(counters, 0)
        chunk = draw(counters, 0, worker, chunks)
    await_stage(counters, 0, chunks)
    if split.together:
        work_together(counters, worker, split, plan, data, buffer)
    else:
        work_alone(counters, worker, split, plan, data, buffer)


def product(plan: Plan, images: int, w: Strided, x: Strided, source: Source, start: Array | None, relu: bool, y: Array, pair: bool = False) -> None:
    """Pad and correlate into the C-contiguous `y`, with one waking of the threads.

    With `pair`, y has a first axis of 2 for the sums in doubled precision, and there is no ReLU.
    """
    dtype = y.dtype
    blocks, taps = -(-plan.rows // plan.tile_rows), plan.weight_offsets.size
    threads = 1 if y.size * taps < SMALL_PRODUCT else _threads.get_num_threads()
    begins = np.zeros((plan.groups, blocks * plan.tile_rows), dtype)
    if start is not None:
        begins[:, : plan.rows] = start.reshape(plan.groups, plan.rows)
    floor = dtype.type(0 if relu else -math.inf)
    unpacked = plan.adjacent and y.size <= UNPACKED_TILES * plan.width * plan.groups * plan.rows and not pair
    packed = 0 if unpacked else max(1, plan.groups * blocks * taps * plan.tile_rows)
    split, rooms, threads = split_for(plan, source, images, threads, dtype.itemsize)
    stages = 1 + (2 * -(-images * plan.groups * plan.strips // split.together) if split.together else 1)
    with scratch(dtype, weights=packed, input=rooms * split.room, tiles=threads * 2 * plan.tile_rows * plan.width) as (packed, padded, tiles):
        operands = (PairOperands if pair else Operands)(w, packed, x, source, padded, tiles, begins.reshape(-1), floor, y.reshape(-1))
        _threads.run_together(work, new_counters(stages), close, split, plan, operands, threads=threads)
