"""Copies that precede a product: the input into padded planes, the weights into tiles."""

from __future__ import annotations

from typing import Any

from numpy import uintp

from npreparam.kernels._compile import kernel
from npreparam.kernels._memory import Strided
from npreparam.kernels._plan import Plan, Source
from npreparam.kernels._tile import clear_half, copy_half, half_lanes, split_vector
from npreparam.kernels._transpose import transpose

PACKED_AT_ONCE = 64  # taps whose packed weights stay in the first-level cache while the rows are gone through


@kernel
def copy_row(source: Any, at: int, step: int, target: Any, first: int, count: int) -> None:
    """target[first : first + count] = source[at], source[at + step], ...; vectors for the usual steps, the last one overlapping.

    Indices of the plain loop are cast to unsigned: Numba would test each for being negative.
    """
    if count >= half_lanes(target) and 1 <= step <= 2:
        last = count - half_lanes(target)
        for j in range(0, last, half_lanes(target)):
            copy_half(source, at + j * step, step, target, first + j)
        copy_half(source, at + last * step, step, target, first + last)
    else:
        for j in range(count):
            target[uintp(first + j)] = source[uintp(at + j * step)]


@kernel
def clear(target: Any, first: int, last: int) -> None:
    """target[first:last] = 0."""
    for j in range(first, last):
        target[uintp(j)] = 0


@kernel
def clear_edges(target: Any, at: int, first: int, last: int, length: int) -> None:
    """Zero what lies before `first` and from `last` on of a row of `length` elements at target[at]; what lies between is still to be written."""
    half = half_lanes(target)
    if first <= half <= length and length - last <= half:
        clear_half(target, at)
        clear_half(target, at + length - half)
    else:
        clear(target, at, at + first)
        clear(target, at + last, at + length)


@kernel
def split_row(source: Any, at: int, target: Any, even: int, odd: int, count: int) -> None:
    """target[even + j], target[odd + j] = source[at + 2*j], source[at + 2*j + 1] for j < count."""
    lanes = 2 * half_lanes(target)
    if count >= lanes:
        last = count - lanes
        for j in range(0, last, lanes):
            split_vector(source, at + 2 * j, target, even + j, odd + j)
        split_vector(source, at + 2 * last, target, even + last, odd + last)
    else:
        for j in range(count):
            target[uintp(even + j)] = source[uintp(at + 2 * j)]
            target[uintp(odd + j)] = source[uintp(at + 2 * j + 1)]


@kernel
def fill_pairs(x: Any, start: int, step: int, rows: tuple[int, int], source: Source, padded: Any, base: int) -> int:
    """Both column phases of the input rows from x[start] on, `step` apart, as far as they run side by side: that many columns, returned."""
    spans, odd, wq, across = source.spans, 1 - source.even, source.plane[1], source.held * source.plane[1]
    (first_0, last_0), (first_1, last_1) = (spans[0, 0], spans[0, 1]), (spans[1, 0], spans[1, 1])
    count = min(last_0 - first_0, last_1 - first_1)
    even_at, odd_at = source.even * across + spans[source.even, 0], odd * across + spans[odd, 0]
    for i in range(rows[0], rows[1]):
        at = base + i * wq
        clear_edges(padded, at, first_0, last_0, wq)
        clear_edges(padded, at + across, first_1, last_1, wq)
        split_row(x, start + i * step, padded, at + even_at, at + odd_at, count)
    return count


@kernel
def fill_phase(x: Any, start: int, steps: tuple[int, int], rows: tuple[int, int], span: tuple[int, int], wq: int, done: int, padded: Any,
               base: int) -> None:
    """One column phase of the input rows from x[start] on, from column `done` of the span on; zeros outside the span if that is 0."""
    first, last = span
    for i in range(rows[0], rows[1]):
        if not done:
            clear_edges(padded, base + i * wq, first, last, wq)
        copy_row(x, start + i * steps[0], steps[1], padded, base + i * wq + first + done, last - first - done)


@kernel
def fill_channel(image: int, channel: int, first_row: int, x: Strided, source: Source, padded: Any, base: int) -> None:
    """Write rows first_row .. first_row + source.held - 1 of the planes of one channel of one image from padded[base] on, as far as the
    planes have them: input elements inside, zeros around them."""
    height, (sh, sw), (hq, wq), spans, step = source.size[0], source.step, source.plane, source.spans, x.strides[3]
    start = x.start + image * x.strides[0] + channel * x.strides[1]
    across, held = source.held * wq, min(source.held, hq - first_row)
    for a in source.row_phases:
        shift = first_row * sh + a - source.top  # row i of the planes is input row i*sh + shift
        begin = min(held, max(0, -(shift // sh)))
        end = max(begin, min(held, (height - 1 - shift) // sh + 1))
        top, done = start + shift * x.strides[2], 0
        if source.even >= 0 and step == 1:
            done = fill_pairs(x.span, top, sh * x.strides[2], (begin, end), source, padded, base)
        for b in range(len(spans)):
            clear(padded, base, base + begin * wq)
            clear(padded, base + end * wq, base + held * wq)
            first, last = spans[b, 0], spans[b, 1]
            if not done or last - first > done:
                fill_phase(x.span, top + (spans[b, 2] + done * sw) * step, (sh * x.strides[2], sw * step), (begin, end), (first, last), wq, done,
                           padded, base)
            base += across


@kernel
def fill_strip(place: tuple[int, int, int], first: int, last: int, plan: Plan, data: Any, base: int) -> None:
    """The rows of a strip, whose (image, group, first row) is `place`, of the channels first..last-1 of the group, in planes that begin at
    padded[base]; with the first channel zeros behind all of them, where the last tile reads past the last pixel."""
    image, group, first_row = place
    channels = data.source.channels // plan.groups
    if first == 0:
        clear(data.padded, base + plan.held, base + plan.held + plan.width)
    for i in range(first, last):
        fill_channel(image, group * channels + i, first_row, data.x, data.source, data.padded, base + i * (plan.held // channels))


@kernel
def pack_block(task: int, w: Strided, plan: Plan, packed: Any) -> None:
    """The weights of block `task`, counted over all groups: tap k of row block*tile_rows + i at [k*tile_rows + i], 0 beyond the group's last."""
    tile_rows, taps = plan.tile_rows, plan.weight_offsets.size
    group, block = divmod(task, -(-plan.rows // tile_rows))
    base = task * taps * tile_rows
    start = w.start + group * plan.weight_strides[0] + block * tile_rows * plan.weight_strides[1]
    live = min(tile_rows, plan.rows - block * tile_rows)
    if plan.adjacent and live == tile_rows:
        transpose(w.span, start, plan.weight_strides[1], (live, taps), packed, base, tile_rows)
        return
    for first in range(0, taps, PACKED_AT_ONCE):
        for i in range(live):
            row = start + i * plan.weight_strides[1]
            for k in range(first, min(first + PACKED_AT_ONCE, taps)):
                packed[uintp(base + k * tile_rows + i)] = w.span[uintp(row + plan.weight_offsets[uintp(k)])]
        for i in range(live, tile_rows):
            for k in range(first, min(first + PACKED_AT_ONCE, taps)):
                packed[uintp(base + k * tile_rows + i)] = 0
