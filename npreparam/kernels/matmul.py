"""The matrix product on the micro-kernel; valid input is assumed, `npreparam.ops.linear` checks it.

    y[m, n] = max(floor, start[m] + sum over k of a[m, k] * b[k, n])

b is copied into panels of as many columns as a tile has, [panel][k][column], and a into blocks of as many rows, [block][k][row], unless its rows
lie side by side already. Then a tile reads both in the order of memory. Every element is one chain over all k, whichever tile it is in, so results
do not depend on the number of threads, nor on the rows and columns beside an element.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy import uintp
from numpy.typing import NDArray

from npreparam.kernels import _cpu, _threads
from npreparam.kernels._atomic import await_stage, close, draw, enter, finish, new_counters
from npreparam.kernels._compile import kernel
from npreparam.kernels._memory import Strided, strided
from npreparam.kernels._pointers import borrowed
from npreparam.kernels._scratch import scratch
from npreparam.kernels._tile import NO_SEAM, panel_tile, single_tile, tile, unpacked_panel_tile, unpacked_tile
from npreparam.kernels._transpose import transpose

Array = NDArray[Any]
SMALL_PRODUCT = 1_500_000  # multiply-adds below which waking a second thread costs more than it saves
COPIED_AT_ONCE = 64  # of k, so that the lines written stay in the first-level cache while the columns are gone through
COPIED_AT_LEAST = 12_000  # elements in one chunk of copies
COMPUTED_AT_LEAST = 600_000  # multiply-adds in one chunk of tiles
STRIP_BYTES = 512 * 1024  # panels that stay in the second-level cache while all blocks of rows pass over them


class Shape(NamedTuple):
    """What a product needs to know, in elements."""

    rows: int
    inner: int
    columns: int
    tile_rows: int
    width: int  # columns of a tile
    lanes: int
    strip: int  # panels
    out: tuple[int, int]  # strides of y


class Operands(NamedTuple):
    """The memory of one product."""

    a: Strided
    blocks: Any  # copies of a; empty where it is read where it lies
    b: Strided
    panels: Any
    tiles: Any  # a buffer of one tile for each thread
    offsets: Any  # of the k-th row of a panel
    start: Any
    floor: Any
    y: Any


@kernel
def copy_across(source: Any, at: int, near: int, far: int, live: int, width: int, inner: int, target: Any, base: int) -> None:
    """target[base + k*width + j] = source[at + k*far + j*near] for j < live, 0 for the other j < width."""
    if near == 1:
        for k in range(inner):
            for j in range(live):
                target[uintp(base + k * width + j)] = source[uintp(at + k * far + j)]
    elif far == 1:
        transpose(source, at, near, (live, inner), target, base, width)
    else:
        for first in range(0, inner, COPIED_AT_ONCE):
            for j in range(live):
                for k in range(first, min(first + COPIED_AT_ONCE, inner)):
                    target[uintp(base + k * width + j)] = source[uintp(at + k * far + j * near)]
    if live < width:
        for k in range(inner):
            for j in range(live, width):
                target[uintp(base + k * width + j)] = 0


@kernel
def copy_piece(piece: int, panels: int, shape: Shape, data: Operands) -> None:
    """Copy panel `piece` of b, or from `panels` on a block of a."""
    if piece < panels:
        first = piece * shape.width
        copy_across(data.b.span, data.b.start + first * data.b.strides[1], data.b.strides[1], data.b.strides[0],
                    min(shape.width, shape.columns - first), shape.width, shape.inner, data.panels, first * shape.inner)
    else:
        first = (piece - panels) * shape.tile_rows
        copy_across(data.a.span, data.a.start + first * data.a.strides[0], data.a.strides[0], data.a.strides[1],
                    min(shape.tile_rows, shape.rows - first), shape.tile_rows, shape.inner, data.blocks, first * shape.inner)


@kernel
def run_tile(block: int, panel: int, shape: Shape, data: Operands, buffer: Any) -> None:
    """One tile, straight into y where it fits, else by way of the buffer."""
    row, column, width, inner = block * shape.tile_rows, panel * shape.width, shape.width, shape.inner
    live, columns = min(shape.tile_rows, shape.rows - row), min(width, shape.columns - column)
    base = row * shape.out[0] + column * shape.out[1]
    whole = live == shape.tile_rows and columns == width and shape.out[1] == 1
    target, at, step = (data.y, base, shape.out[0]) if whole else (buffer, 0, width)
    offsets, start, floor, x, x0 = data.offsets, data.start, data.floor, data.panels, column * inner
    if shape.tile_rows == 1:
        single_tile(data.blocks, row * inner, 0, 0, x, x0, NO_SEAM, offsets, 0, inner, start, row, floor, target, at, step)
    elif data.blocks.size:
        if width == shape.lanes:
            tile(data.blocks, row * inner, 0, 0, x, x0, NO_SEAM, offsets, 0, inner, start, row, floor, target, at, step)
        else:
            panel_tile(data.blocks, row * inner, 0, 0, x, x0, NO_SEAM, offsets, 0, inner, start, row, floor, target, at, step)
    else:
        first, ld = data.a.start + row * data.a.strides[0], data.a.strides[0]
        if width == shape.lanes:
            unpacked_tile(data.a.span, first, ld, live, x, x0, NO_SEAM, offsets, 0, inner, start, row, floor, target, at, step)
        else:
            unpacked_panel_tile(data.a.span, first, ld, live, x, x0, NO_SEAM, offsets, 0, inner, start, row, floor, target, at, step)
    if not whole and shape.out[0] == 1:
        transpose(buffer, 0, width, (live, columns), data.y, base, shape.out[1])
    elif not whole:
        for j in range(columns):
            for i in range(live):
                data.y[uintp(base + i * shape.out[0] + j * shape.out[1])] = buffer[uintp(i * width + j)]


@kernel
def run_tiles(first: int, last: int, shape: Shape, data: Operands, buffer: Any) -> None:
    """Tiles first..last-1, ordered by strip of panels, block of rows, panel."""
    blocks, panels = -(-shape.rows // shape.tile_rows), -(-shape.columns // shape.width)
    for t in range(first, last):
        strip, rest = divmod(t, blocks * shape.strip)
        begin = strip * shape.strip
        block, panel = divmod(rest, min(shape.strip, panels - begin))
        run_tile(block, begin + panel, shape, data, buffer)


@kernel
def work(counters: Any, worker: int, shape: Shape, data: Operands) -> None:
    """One thread's share: the copies, then the tiles; it allocates nothing (see `_correlate.work`)."""
    enter(counters, worker)
    data = borrowed(data)
    size = shape.tile_rows * shape.width
    buffer = data.tiles[worker * size : (worker + 1) * size]
    blocks, panels = -(-shape.rows // shape.tile_rows), -(-shape.columns // shape.width)
    pieces = panels + (blocks if data.blocks.size else 0)
    grain = 1 + COPIED_AT_LEAST * pieces // (data.panels.size + data.blocks.size + 1)
    chunks = -(-pieces // grain)
    chunk = draw(counters, 0, worker, chunks)
    while chunk >= 0:
        for piece in range(chunk * grain, min(pieces, (chunk + 1) * grain)):
            copy_piece(piece, panels, shape, data)
        finish(counters, 0)
        chunk = draw(counters, 0, worker, chunks)
    await_stage(counters, 0, chunks)
    grain = 1 + COMPUTED_AT_LEAST // max(1, shape.tile_rows * shape.width * shape.inner)
    chunks = -(-blocks * panels // grain)
    chunk = draw(counters, 1, worker, chunks)
    while chunk >= 0:
        run_tiles(chunk * grain, min(blocks * panels, (chunk + 1) * grain), shape, data, buffer)
        finish(counters, 1)
        chunk = draw(counters, 1, worker, chunks)
    await_stage(counters, 1, chunks)


@lru_cache(256)
def _shape(m: int, k: int, n: int, out: tuple[int, int], itemsize: int) -> tuple[Shape, Array]:
    """The tile for a product of m rows, k terms and n columns, and the offsets of a panel's rows."""
    lanes = _cpu.VECTOR_BYTES // itemsize
    rows = 1 if m == 1 else _cpu.ROWS
    width = lanes * (_cpu.SINGLE_VECTORS if m == 1 else _cpu.PANEL_VECTORS if n > lanes else 1)
    strip = max(1, STRIP_BYTES // max(1, k * width * itemsize))
    return Shape(m, k, n, rows, width, lanes, strip, out), np.arange(k, dtype=np.int64) * width


def _product(a: Strided, b: Strided, sizes: tuple[int, int, int], start: Array | None, out: tuple[int, int], y: Array) -> None:
    shape, offsets = _shape(*sizes, out, y.itemsize)
    m, k, n = sizes
    blocks, panels = -(-m // shape.tile_rows), -(-n // shape.width)
    begins = np.zeros(blocks * shape.tile_rows, y.dtype)
    if start is not None:
        begins[:m] = start
    in_place = a.strides[1] == 1 and m > 1
    threads = 1 if m * n * k < SMALL_PRODUCT else _threads.get_num_threads()
    with scratch(y.dtype, weights=0 if in_place else max(1, blocks * shape.tile_rows * k), input=panels * shape.width * k,
                 tiles=threads * shape.tile_rows * shape.width) as (left, right, tiles):
        data = Operands(a, left, b, right, tiles, offsets, begins, y.dtype.type(-math.inf), y.reshape(-1))
        _threads.run_together(work, new_counters(2), close, shape, data, threads=threads)


def matmul(a: Array, b: Array) -> Array:
    """y[m, n] = sum over k of a[m, k] * b[k, n]."""
    (m, k), n = a.shape, b.shape[1]
    y = np.empty((m, n), a.dtype)
    if y.size:
        _product(strided(a), strided(b), (m, k, n), None, (n, 1), y)
    return y


def linear(x: Array, w: Array, b: Array | None) -> Array:
    """y[n, o] = b[o] + sum over i of w[o, i] * x[n, i]: the product w x^T, stored transposed."""
    (batch, inputs), outputs = x.shape, w.shape[0]
    y = np.empty((batch, outputs), x.dtype)
    if y.size:
        right = strided(x)
        _product(strided(w), right._replace(strides=right.strides[::-1]), (outputs, inputs, batch), b, (1, outputs), y)
    return y
