"""The weight-gradient kernel: products of padded input and cotangent, summed over the pixels of the batch.

    gw[g, o, k] = sum over (n, pixel) of gy[n, g, o, pixel] * x[n, g, places[pixel] + offsets[k]]

A vector holds neighbouring output channels, so gy is transposed first: [image][group][vector of channels][pixel][lane]. Every element of gw
is a sum over (n, piece), in that order, of chains of fused multiply-adds over the pixels of a piece: PIXELS_AT_ONCE consecutive ones of an
image. Short chains keep the error small where a batch has many pixels. Tiles of gw are the tasks, so nothing depends on the number of threads.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from numpy import uintp
from numpy.typing import NDArray

from npreparam._shapes import Pair
from npreparam.kernels import _cpu, _threads
from npreparam.kernels._atomic import await_stage, close, draw, enter, finish, new_counters
from npreparam.kernels._compile import by_type, kernel
from npreparam.kernels._correlate import COPIED_AT_LEAST, SMALL_PRODUCT
from npreparam.kernels._memory import Strided
from npreparam.kernels._pair import ROWS as PAIR_ROWS
from npreparam.kernels._pair import pair_outer_tile
from npreparam.kernels._plan import Reduction, Source
from npreparam.kernels._pointers import borrowed
from npreparam.kernels._prepare import clear, fill_channel
from npreparam.kernels._scratch import scratch
from npreparam.kernels._tile import outer_tile
from npreparam.kernels._transpose import transpose

Array = NDArray[Any]
TAP_ROWS = _cpu.ROWS
PIXELS_AT_ONCE = 256  # of one vector of channels: what the first-level cache holds of gy
CHUNKS = 16  # of gw's tiles
PADDED_AT_ONCE = 4 * 2**20  # bytes of padded images that stay in the last-level cache between the copy and the product


@kernel
def transpose_channels(image: int, vector: int, gy: Strided, size: Pair, plan: Reduction, target: Any, base: int) -> None:
    """target[base + pixel*lanes + lane] = gy[image, channel, pixel] for the channels of one vector, 0 beyond the group's last."""
    lanes = plan.lanes
    per_group = -(-plan.rows // lanes)
    group, block = divmod(vector, per_group)
    live = min(lanes, plan.rows - block * lanes)
    start = gy.start + image * gy.strides[0] + (group * plan.rows + block * lanes) * gy.strides[1]
    rows, columns = (1, size[0] * size[1]) if gy.strides[2] == size[1] and gy.strides[3] == 1 else size
    for r in range(rows):
        at = start + r * gy.strides[2]
        if gy.strides[3] == 1:
            transpose(gy.span, at, gy.strides[1], (live, columns), target, base, lanes)
        else:
            for c in range(columns):
                for lane in range(live):
                    target[uintp(base + c * lanes + lane)] = gy.span[uintp(at + c * gy.strides[3] + lane * gy.strides[1])]
        if live < lanes:
            for c in range(columns):
                clear(target, base + c * lanes + live, base + (c + 1) * lanes)
        base += columns * lanes


class Operands(NamedTuple):
    """The memory of one weight gradient: its operands, the copies of them, the sums and the result."""

    x: Strided
    source: Source
    padded: Any  # images in planes
    gy: Strided
    size: Pair  # height and width of gy
    turned: Any  # gy transposed
    sums: Any
    gw: Any


class PairOperands(NamedTuple):
    """The same for sums in doubled precision; the second halves of `sums` and `gw` are for what each sum lacks."""

    x: Strided
    source: Source
    padded: Any
    gy: Strided
    size: Pair
    turned: Any
    sums: Any
    gw: Any


@kernel
def copy_pieces(first: int, last: int, image: int, plan: Reduction, data: Operands) -> None:
    """Copying tasks first..last-1: for each image from one on, the channels of x, then the vectors of channels of gy."""
    channels, vectors = data.source.channels, plan.groups * -(-plan.rows // plan.lanes)
    for task in range(first, last):
        n, piece = divmod(task, channels + vectors)
        if piece < channels:
            fill_channel(image + n, piece, 0, data.x, data.source, data.padded, n * plan.image + piece * (plan.image // channels))
        else:
            piece -= channels
            transpose_channels(image + n, piece, data.gy, data.size, plan, data.turned, (n * vectors + piece) * plan.places.size * plan.lanes)


@kernel
def reduce_tile(room: int, at_gy: int, at_x: int, begin: int, count: int, plan: Reduction, data: Operands, taps: int) -> None:
    """Add what `count` pixels of one image contribute to one tile of the sums, whose first tap is number `taps`."""
    outer_tile(data.turned, at_gy, data.padded, at_x, plan.offsets, taps, plan.places, begin, count, data.sums, room * TAP_ROWS * plan.lanes)


@kernel
def reduce_pair_tile(room: int, at_gy: int, at_x: int, begin: int, count: int, plan: Reduction, data: PairOperands, taps: int) -> None:
    """The same in doubled precision."""
    for i in range(0, TAP_ROWS, PAIR_ROWS):
        pair_outer_tile(data.turned, at_gy, data.padded, at_x, plan.offsets, taps + i, plan.places, begin, count, data.sums,
                        (room * TAP_ROWS + i) * plan.lanes, data.sums.size // 2)


reduce_either = by_type(reduce_tile, reduce_pair_tile, PairOperands)


@kernel
def halves_of(plan: Reduction, data: Operands) -> int:
    """2 for pairs, else 1."""
    return data.gw.size // (plan.groups * plan.rows * plan.taps)


@kernel
def clear_tile(room: int, plan: Reduction, data: Operands) -> None:
    """Begin the sums of a tile with 0."""
    size = TAP_ROWS * plan.lanes
    for at in range(room * size, data.sums.size, data.sums.size // halves_of(plan, data)):
        clear(data.sums, at, at + size)


@kernel
def store_tile(task: int, room: int, plan: Reduction, data: Operands) -> None:
    """gw[channel, tap] = the channel's lane of the sums, for the taps and channels of a tile."""
    lanes, vectors, halves = plan.lanes, -(-plan.rows // plan.lanes), halves_of(plan, data)
    vector, tile = divmod(task, plan.offsets.size // TAP_ROWS)
    group, block = divmod(vector, vectors)
    tap = tile * TAP_ROWS
    for half in range(halves):
        at = half * (data.sums.size // halves) + room * TAP_ROWS * lanes
        at_gw = half * (data.gw.size // halves) + (group * plan.rows + block * lanes) * plan.taps + tap
        size = min(TAP_ROWS, plan.taps - tap), min(lanes, plan.rows - block * lanes)
        transpose(data.sums, at, lanes, size, data.gw, at_gw, plan.taps)


@kernel
def reduce_tiles(first: int, last: int, worker: int, span: tuple[int, int, int], plan: Reduction, data: Operands) -> None:
    """Add what images span[0]..span[1]-1, of span[2] in all, contribute to tiles first..last-1 of the sums [group][vector of channels][tap][lane];
    the first image begins them, after the last one they are stored. Sums of one piece are done at once: a room for each thread will do."""
    across, vectors, pixels = plan.offsets.size // TAP_ROWS, -(-plan.rows // plan.lanes), plan.places.size
    for image in range(span[0], span[1]):
        for begin in range(0, pixels, PIXELS_AT_ONCE):
            count, n = min(PIXELS_AT_ONCE, pixels - begin), image - span[0]
            for task in range(first, last):
                room = worker if span[2] == 1 and count == pixels else task
                if image + begin == 0:
                    clear_tile(room, plan, data)
                vector, tile = divmod(task, across)
                at_gy = ((n * plan.groups * vectors + vector) * pixels + begin) * plan.lanes
                at_x = n * plan.image + vector // vectors * (plan.image // plan.groups)
                reduce_either(room, at_gy, at_x, begin, count, plan, data, tile * TAP_ROWS)
                if image == span[2] - 1 and begin + count == pixels:
                    store_tile(task, room, plan, data)


@kernel
def work(counters: Any, worker: int, images: int, at_once: int, plan: Reduction, data: Operands) -> None:
    """One thread's share: for each group of `at_once` images, the copies, then the tiles."""
    enter(counters, worker)
    plan, data = borrowed(plan), borrowed(data)
    vectors = plan.groups * -(-plan.rows // plan.lanes)
    pieces = data.source.channels + vectors
    grain = 1 + COPIED_AT_LEAST * at_once * pieces // (data.padded.size + data.turned.size)
    tiles = vectors * (plan.offsets.size // TAP_ROWS)
    share = -(-tiles // CHUNKS)
    stage = 0
    for image in range(0, images, at_once):
        count = min(at_once, images - image)
        chunks = -(-count * pieces // grain)
        chunk = draw(counters, stage, worker, chunks)
        while chunk >= 0:
            copy_pieces(chunk * grain, min(count * pieces, (chunk + 1) * grain), image, plan, data)
            finish(counters, stage)
            chunk = draw(counters, stage, worker, chunks)
        await_stage(counters, stage, chunks)
        chunks = -(-tiles // share)
        chunk = draw(counters, stage + 1, worker, chunks)
        while chunk >= 0:
            reduce_tiles(chunk * share, min(tiles, (chunk + 1) * share), worker, (image, image + count, images), plan, data)
            finish(counters, stage + 1)
            chunk = draw(counters, stage + 1, worker, chunks)
        await_stage(counters, stage + 1, chunks)
        stage += 2


def reduction(plan: Reduction, images: int, x: Strided, source: Source, gy: Strided, size: Pair, gw: Array, pair: bool = False) -> None:
    """Copy and reduce into the C-contiguous `gw`, a few images at a time; with `pair`, gw has a first axis of 2 for s and c."""
    dtype = gw.dtype
    vectors = plan.groups * -(-plan.rows // plan.lanes)
    threads = 1 if gw.size * plan.places.size * images < SMALL_PRODUCT else _threads.get_num_threads()
    turned_image, totals = vectors * plan.places.size * plan.lanes, vectors * plan.offsets.size * plan.lanes
    if images == 1 and plan.places.size <= PIXELS_AT_ONCE:
        totals = threads * TAP_ROWS * plan.lanes
    at_once = min(images, max(1, PADDED_AT_ONCE // (max(plan.image, turned_image) * dtype.itemsize)))
    counters = new_counters(2 * -(-images // at_once))
    with scratch(dtype, input=at_once * plan.image, cotangent=at_once * turned_image,
                 sums=2 * totals if pair else totals) as (padded, turned, sums):
        operands = (PairOperands if pair else Operands)(x, source, padded, gy, size, turned, sums, gw.reshape(-1))
        _threads.run_together(work, counters, close, images, at_once, plan, operands, threads=threads)
