"""Copies that precede a product: the input into padded planes, the weights into tiles."""

from __future__ import annotations

from typing import Any

from numpy import uintp

from npreparam.kernels._compile import kernel
from npreparam.kernels._memory import Strided
from npreparam.kernels._plan import Plan, Source
from npreparam.kernels._tile import copy_half, half_lanes

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
def fill_channel(image: int, channel: int, x: Strided, source: Source, padded: Any, base: int) -> None:
    """Write the planes of one channel of one image from padded[base] on: input elements inside, zeros around them."""
    (height, width), (top, left), (sh, sw), (hq, wq) = source.size, source.lead, source.step, source.plane
    start = x.start + image * x.strides[0] + channel * x.strides[1]
    for a in source.row_phases:
        for b in source.column_phases:
            first = min(wq, max(0, -((b - left) // sw)))  # first column inside the input
            last = max(first, min(wq, (width - 1 - b + left) // sw + 1))
            for i in range(hq):
                ih = i * sh + a - top
                if 0 <= ih < height:
                    clear(padded, base, base + first)
                    copy_row(x.span, start + ih * x.strides[2] + (first * sw + b - left) * x.strides[3], sw * x.strides[3], padded,
                             base + first, last - first)
                    clear(padded, base + last, base + wq)
                else:
                    clear(padded, base, base + wq)
                base += wq


@kernel
def pack_block(group: int, block: int, w: Strided, plan: Plan, packed: Any, base: int) -> None:
    """packed[base + k*tile_rows + i] = weight of tap k and row block*tile_rows + i of the group, 0 beyond the last row."""
    tile_rows, taps = plan.tile_rows, plan.weight_offsets.size
    start = w.start + group * plan.weight_strides[0] + block * tile_rows * plan.weight_strides[1]
    live = min(tile_rows, plan.rows - block * tile_rows)
    for first in range(0, taps, PACKED_AT_ONCE):
        for i in range(live):
            row = start + i * plan.weight_strides[1]
            for k in range(first, min(first + PACKED_AT_ONCE, taps)):
                packed[uintp(base + k * tile_rows + i)] = w.span[uintp(row + plan.weight_offsets[uintp(k)])]
        for i in range(live, tile_rows):
            for k in range(first, min(first + PACKED_AT_ONCE, taps)):
                packed[uintp(base + k * tile_rows + i)] = 0


@kernel
def prepare(first: int, last: int, first_image: int, packs: int, plan: Plan, data: Any) -> None:
    """Copying tasks first..last-1 of a product: `packs` blocks of weights, then channels of padded input from one image on."""
    blocks = -(-plan.rows // plan.tile_rows)
    for task in range(first, last):
        if task < packs:
            pack_block(task // blocks, task % blocks, data.w, plan, data.packed, task * plan.weight_offsets.size * plan.tile_rows)
        else:
            image, channel = divmod(task - packs, data.source.channels)
            base = (task - packs) * (plan.image // data.source.channels)
            fill_channel(first_image + image, channel, data.x, data.source, data.padded, base)
