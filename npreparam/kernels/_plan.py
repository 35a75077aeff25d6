"""The geometry of an implicit im2col product, as tables of integers.

A padded image is stored as planes, one for each (channel, row phase, column phase): with stride s, element (i, j) of phase (a, b) is padded
input element (i*s + a, j*s + b). Then output pixel (r, c) finds its tap k at ``r*row + c + offsets[k]``, whatever the stride, so that
consecutive pixels are consecutive in memory for every tap. Of a product with many rows only a *strip* of them is held in memory at once, with
the rows below it that its taps reach. Two products are laid out this way:

* forward: one *problem*, taps (ci, kh, kw);
* input gradient: for stride s an input element (ih, iw) meets only the taps with kh*dilation = (ih + top) mod s, so that there are up to
  s*s problems of unit stride over gy, each writing every s-th row and column of gx, taps (co, kh, kw).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npreparam._shapes import Pair, Window, extent
from npreparam.kernels import _cpu

Ints = NDArray[np.int64]
CACHED_PLANS = 256
STRIP_BYTES = 512 * 1024  # of padded rows: they stay in the second-level cache of their thread while all blocks of weights pass over them
TASK_PRODUCTS = 2_500_000  # of a strip and one block of weights, about: so that threads end at the same time
HALO = 4  # a strip has at least so many times the rows that its taps reach below it

# columns of the table of problems
TAPS, FIRST_TAP, HEIGHT, WIDTH, ORIGIN, ACROSS = range(6)


class Source(NamedTuple):
    """How the input becomes padded planes: see `kernels._prepare.fill_channel`."""

    channels: int
    size: Pair  # of the unpadded input
    top: int  # rows above the input: zeros if positive, cropped if negative
    step: Pair  # stride between rows, and columns, of one phase
    row_phases: Ints
    spans: Ints  # for each column phase: its first column inside the input, the one after its last, and the input column of the first
    even: int  # where two column phases hold columns 2j and 2j + 1 of the input: the phase of the former, else -1
    plane: Pair  # rows and columns of one plane
    held: int  # rows of a plane in memory at once


def _source(channels: int, size: Pair, lead: Pair, step: Pair, phases: tuple[Ints, Ints], plane: Pair, held: int) -> Source:
    (width, left), (sw, wq), spans = (size[1], lead[1]), (step[1], plane[1]), []
    for b in phases[1].tolist():
        first = min(wq, max(0, -((b - left) // sw)))
        spans.append((first, max(first, min(wq, (width - 1 - b + left) // sw + 1)), first * sw + b - left))
    even = [i for i, span in enumerate(spans) if span[2] == 0]
    return Source(channels, size, lead[0], step, phases[0], np.array(spans, np.int64).reshape(-1, 3),
                  even[0] if sw == 2 and {span[2] for span in spans} == {0, 1} else -1, plane, held)


class Plan(NamedTuple):
    """What the correlation kernel needs to know, all in elements."""

    problems: Ints  # (problems, 6)
    offsets: Ints  # where tap k is, relative to its pixel
    weight_offsets: Ints  # where tap k is in the weights of its row
    weight_strides: tuple[int, int]  # between groups, between rows (output channels)
    adjacent: bool  # the weights of one row lie side by side, in the order of the taps
    groups: int
    rows: int  # output channels per group
    tile_rows: int
    width: int  # pixels of a tile
    strips: int  # of an image
    band: int  # output rows of a strip
    held: int  # elements of the padded rows of a strip, of all channels of one group
    products: int  # multiply-adds of one block of output channels over an image
    row: int  # elements of one padded row
    out: tuple[int, int, int, int]  # strides of the output: image, channel, row, column


def lanes(itemsize: int) -> int:
    """Elements of one vector."""
    return _cpu.VECTOR_BYTES // itemsize


def tile_rows(rows: int) -> int:
    """Rows of the register tile for `rows` output channels per group."""
    return 1 if rows == 1 else _cpu.NARROW_ROWS if rows <= _cpu.NARROW_ROWS else _cpu.ROWS


def tile_width(rows: int, itemsize: int) -> int:
    """Pixels of the register tile for `rows` output channels per group."""
    return lanes(itemsize) * (_cpu.SINGLE_VECTORS if rows == 1 else _cpu.NARROW_VECTORS if rows <= _cpu.NARROW_ROWS else 1)


def across(size: Pair, row: int, width: int) -> int:
    """How far apart rows are in the numbering of (height, columns) pixels by tiles: `columns` where that takes fewer tiles and none of them meets
    three rows, else as far as they are in memory."""
    height, columns = size
    if columns in (0, row) or not columns % width:
        return columns
    if width > lanes(4) or width - math.gcd(width, columns) > columns:  # a tile of several vectors knows no ends of rows
        return row
    return columns if _computed(height * columns, width) < _computed((height - 1) * row + columns, width) else row


def _computed(pixels: int, width: int) -> int:
    """Of so many pixels, those that tiles compute: the last tile may be a half one."""
    half = width // 2 if width <= lanes(4) else width
    return -(-pixels // half) * half


def computed(size: Pair, row: int, width: int) -> int:
    """Pixels that tiles over (height, columns) pixels compute."""
    height, columns = size
    return _computed((height - 1) * across(size, row, width) + columns, width)


def _bands(size: Pair, reach: int, row: int, width: int, row_bytes: int, row_products: int) -> Pair:
    """(strips, output rows of a strip), cut where pixels of tiles that are wasted and rows that are padded twice cost least."""
    height, columns = max(1, size[0]), max(1, size[1])
    most = min(STRIP_BYTES // max(1, row_bytes) - reach, TASK_PRODUCTS // max(1, row_products))
    most = min(height, max(most, HALO * reach, 1))

    def cost(band: int) -> tuple[int, int]:  # to copy a byte takes about as long as a multiply-add
        return _covered(height, band, columns, row, width) * row_products // max(1, row) + -(-height // band) * reach * row_bytes, -band

    best = min(range(most, most - most // 4 - 1, -max(1, most // 64)), key=cost)
    return -(-height // best), best


def _covered(height: int, band: int, columns: int, row: int, width: int) -> int:
    whole, rest = divmod(height, band)
    return whole * computed((band, columns), row, width) + (computed((rest, columns), row, width) if rest else 0)


def _phases(kernel: int, stride: int, dilation: int) -> Ints:
    return np.unique(np.arange(kernel, dtype=np.int64) * dilation % stride)


@lru_cache(CACHED_PLANS)
def forward(x_shape: tuple[int, ...], w_shape: tuple[int, ...], window: Window, itemsize: int) -> tuple[Source, Plan]:
    """y[n, o, r, c] = sum over (i, kh, kw) of w[o, i, kh, kw] * padded x[n, i, r*s + kh*d, c*s + kw*d]."""
    outputs, inputs, kh, kw = w_shape
    ho, wo = window.output_size((x_shape[2], x_shape[3]))
    source = _input_planes(x_shape, window, (ho, wo))
    (hq, wq), rows = source.plane, outputs // window.groups
    width = tile_width(rows, itemsize)
    channel = len(source.row_phases) * len(source.spans) * wq  # elements of one row of all planes of a channel
    taps = inputs * kh * kw
    strips, band = _bands((ho, wo), hq - ho, wq, width, inputs * channel * itemsize, taps * tile_rows(rows) * wq)
    held = band + hq - ho
    return source._replace(held=held), _plan([[taps, 0, ho, wo, 0]], _input_offsets(source, inputs, window, held), np.arange(taps),
                                             (rows * taps, taps), window.groups, rows, (strips, band, inputs * channel * held), wq, width,
                                             (outputs * ho * wo, ho * wo, wo, 1))


def _input_planes(x_shape: tuple[int, ...], window: Window, out: Pair) -> Source:
    """The input as planes, one for each phase of the stride, all rows of them."""
    (kh, kw), (sh, sw), (dh, dw) = window.kernel, window.stride, window.dilation
    plane = out[0] + (extent(kh, dh) - 1) // sh, out[1] + (extent(kw, dw) - 1) // sw
    return _source(x_shape[1], (x_shape[2], x_shape[3]), (window.padding[0][0], window.padding[1][0]), window.stride,
                   (_phases(kh, sh, dh), _phases(kw, sw, dw)), plane, plane[0])


def _input_offsets(source: Source, inputs: int, window: Window, held: int) -> Ints:
    """Where each tap (i, kh, kw) is relative to its pixel, in planes of `held` rows."""
    (kh, kw), (sh, sw), (dh, dw) = window.kernel, window.stride, window.dilation
    a, b = _phases(kh, sh, dh), _phases(kw, sw, dw)
    i, y, x = np.ogrid[:inputs, : kh * dh : dh, : kw * dw : dw]
    plane = (i * len(a) + np.searchsorted(a, y % sh)) * len(b) + np.searchsorted(b, x % sw)
    return np.asarray((plane * held + y // sh) * source.plane[1] + x // sw)


@lru_cache(CACHED_PLANS)
def input_grad(gy_shape: tuple[int, ...], w_shape: tuple[int, ...], x_size: Pair, window: Window, itemsize: int) -> tuple[Source, Plan]:
    """gx[n, i, ih, iw] = sum over (o, kh, kw) with (ih + top - kh*d)/s = r and (iw + left - kw*d)/s = c of w[o, i, kh, kw] * gy[n, o, r, c].

    Elements that meet no tap (kernels smaller than their stride) belong to no problem: they are not written.
    """
    _, outputs, *size = gy_shape
    _, inputs, kh, kw = w_shape
    axes = [_axis_problems(*axis) for axis in zip(x_size, window.kernel, window.stride, window.padding, window.dilation, strict=True)]
    (rows_of, top, hq, reach), (columns_of, left, wq, _) = axes
    none = np.zeros(1, np.int64)
    per_group, width = outputs // window.groups, tile_width(inputs, itemsize)
    height, columns = (max((count for _, count, *_ in phases), default=0) for phases in (rows_of, columns_of))
    strips, band = _bands((height, columns), reach, wq, width, per_group * wq * itemsize, per_group * kh * kw * tile_rows(inputs) * columns)
    held = band + reach
    source = _source(outputs, (size[0], size[1]), (top, left), (1, 1), (none, none), (hq, wq), held)
    o = np.arange(per_group, dtype=np.int64)[:, None, None]
    problems, offsets, weights, first = [], [none[:0]], [none[:0]], 0
    for first_row, height, taps_h, back_h in rows_of:
        for first_column, columns, taps_w, back_w in columns_of:
            offset = (o * held + (top - back_h)[:, None]) * wq + left - back_w
            offsets.append(offset.ravel())
            weights.append(((o * inputs * kh + taps_h[:, None]) * kw + taps_w).ravel())
            problems.append([offset.size, first, height, columns, first_row * x_size[1] + first_column])
            first += offset.size
    row_step, column_step = (s if any(count > 1 for _, count, *_ in phases) else 1  # a stride across the whole image is never taken
                             for s, phases in zip(window.stride, (rows_of, columns_of), strict=True))
    out = (window.groups * inputs * x_size[0] * x_size[1], x_size[0] * x_size[1], row_step * x_size[1], column_step)
    return source, _plan(problems, np.concatenate(offsets), np.concatenate(weights), (per_group * inputs * kh * kw, kh * kw),
                         window.groups, inputs, (strips, band, per_group * held * wq), wq, width, out)


def _axis_problems(size: int, kernel: int, stride: int, padding: Pair, dilation: int) -> tuple[list[tuple[int, int, Ints, Ints]], int, int, int]:
    """For each phase that meets taps: first element, count, taps, and how far back from a pixel each tap reads; then lead and length of
    padded gy, and how far beyond a pixel any tap reads in it."""
    taps = np.arange(kernel, dtype=np.int64) * dilation
    found = []
    for phase in _phases(kernel, stride, dilation).tolist():
        begin = -((phase - padding[0]) // stride)  # the first q with q*stride + phase - before >= 0
        first = begin * stride + phase - padding[0]
        count = -(-(size - first) // stride)
        if count > 0:
            mine = np.flatnonzero(taps % stride == phase)
            found.append((first, count, mine, taps[mine] // stride - begin))
    lead = max((int(back.max()) for *_, back in found), default=0)
    length = max((count + lead - int(back.min()) for _, count, _, back in found), default=0)
    return found, lead, length, max((lead - int(back.min()) for *_, back in found), default=0)


class Reduction(NamedTuple):
    """What the weight-gradient kernel needs to know, all in elements."""

    offsets: Ints  # where tap k is, relative to its pixel; the last repeated to fill a tile
    places: Ints  # where each pixel of gy is in a padded image
    taps: int
    groups: int
    rows: int  # output channels per group
    lanes: int  # output channels of a vector
    image: int  # elements of one padded image


@lru_cache(CACHED_PLANS)
def weight_grad(x_shape: tuple[int, ...], w_shape: tuple[int, ...], window: Window, itemsize: int) -> tuple[Source, Reduction]:
    """gw[o, i, kh, kw] = sum over (n, r, c) of gy[n, o, r, c] * padded x[n, i, r*s + kh*d, c*s + kw*d]."""
    ho, wo = window.output_size((x_shape[2], x_shape[3]))
    source = _input_planes(x_shape, window, (ho, wo))
    places = np.arange(ho)[:, None] * source.plane[1] + np.arange(wo)
    found = _input_offsets(source, w_shape[1], window, source.held).ravel()
    offsets = np.pad(found, (0, -found.size % _cpu.ROWS), mode="edge")
    image = source.channels * len(source.row_phases) * len(source.spans) * math.prod(source.plane)
    return source, Reduction(offsets, places.astype(np.int64).ravel(), found.size, window.groups, w_shape[0] // window.groups,
                             lanes(itemsize), image)


def covers(plan: Plan, elements: int) -> bool:
    """Whether the problems of a plan write all `elements` elements of one image of the result."""
    written = int((plan.problems[:, HEIGHT] * plan.problems[:, WIDTH]).sum()) * plan.groups * plan.rows
    return written == elements


def _plan(problems: list[list[int]], offsets: Any, weight_offsets: Any, weight_strides: Pair, groups: int, rows: int,
          strip: tuple[int, int, int], row: int, width: int, out: tuple[int, int, int, int]) -> Plan:
    table = np.array([[*p, across((min(strip[1], p[HEIGHT]), p[WIDTH]), row, width)] for p in problems], np.int64).reshape(-1, ACROSS + 1)
    weight_offsets = np.ascontiguousarray(weight_offsets, np.int64).ravel()
    adjacent = rows > _cpu.NARROW_ROWS and np.array_equal(weight_offsets, np.arange(weight_offsets.size))
    strips, band, held = strip
    products = tile_rows(rows) * int(table[:, (TAPS, HEIGHT, WIDTH)].prod(axis=1).sum())
    return Plan(table, np.ascontiguousarray(offsets, np.int64).ravel(), weight_offsets, weight_strides, adjacent, groups, rows,
                tile_rows(rows), width, strips, band, held, products, row, out)
