"""The geometry of an implicit im2col product, as tables of integers.

A padded image is stored as planes, one for each (channel, row phase, column phase): with stride s, element (i, j) of phase (a, b) is padded
input element (i*s + a, j*s + b). Then output pixel (r, c) finds its tap k at ``r*row + c + offsets[k]``, whatever the stride, so that
consecutive pixels are consecutive in memory for every tap. Three products are laid out this way:

* forward: one *problem*, taps (ci, kh, kw);
* input gradient: for stride s an input element (ih, iw) meets only the taps with kh*dilation = (ih + top) mod s, so that there are up to
  s*s problems of unit stride over gy, each writing every s-th row and column of gx, taps (co, kh, kw);
* matrix product: a pointwise convolution over an image of height 1.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npreparam._shapes import Pair, Window, extent
from npreparam.kernels import _cpu

Ints = NDArray[np.int64]
CACHED_PLANS = 256
STRIP_BYTES = 256 * 1024

# columns of the table of problems
TAPS, FIRST_TAP, HEIGHT, WIDTH, TILES, PER_ROW, ORIGIN = range(7)


class Source(NamedTuple):
    """How the input becomes padded planes: see `kernels._prepare.fill_channel`."""

    channels: int
    size: Pair  # of the unpadded input
    lead: Pair  # rows above and columns left of the input: zeros if positive, cropped if negative
    step: Pair  # stride between rows, and columns, of one phase
    row_phases: Ints
    column_phases: Ints
    plane: Pair  # rows and columns of one plane


class Plan(NamedTuple):
    """What the correlation kernel needs to know, all in elements."""

    problems: Ints  # (problems, 7)
    offsets: Ints  # where tap k is, relative to its pixel
    weight_offsets: Ints  # where tap k is in the weights of its row
    weight_strides: tuple[int, int]  # between groups, between rows (output channels)
    adjacent: bool  # the weights of one row lie side by side, in the order of the taps
    groups: int
    rows: int  # output channels per group
    tile_rows: int
    width: int  # pixels of a tile
    image: int  # elements of one padded image
    row: int  # elements of one padded row
    strip: int  # tiles whose part of the image stays in the second-level cache
    out: tuple[int, int, int, int]  # strides of the output: image, channel, row, column


def lanes(itemsize: int) -> int:
    """Elements of one vector."""
    return _cpu.VECTOR_BYTES // itemsize


def tile_rows(rows: int) -> int:
    """Rows of the register tile for `rows` output channels per group."""
    return 1 if rows == 1 else _cpu.ROWS


def tile_width(rows: int, itemsize: int) -> int:
    """Pixels of the register tile for `rows` output channels per group."""
    return lanes(itemsize) * (_cpu.SINGLE_VECTORS if rows == 1 else 1)


def problem(taps: int, first_tap: int, size: Pair, row: int, width: int, origin: int = 0) -> list[int]:
    """A row of the table: pixels are numbered through over padded rows, unless tiles fit the rows."""
    height, columns = size
    if not height or not columns:
        return [taps, first_tap, 0, 0, 0, 0, origin]
    if columns % width:
        return [taps, first_tap, height, columns, -(-((height - 1) * row + columns) // width), 0, origin]
    per_row = -(-columns // width)
    return [taps, first_tap, height, columns, height * per_row, per_row, origin]


def _phases(kernel: int, stride: int, dilation: int) -> Ints:
    return np.unique(np.arange(kernel, dtype=np.int64) * dilation % stride)


@lru_cache(CACHED_PLANS)
def forward(x_shape: tuple[int, ...], w_shape: tuple[int, ...], window: Window, itemsize: int) -> tuple[Source, Plan]:
    """y[n, o, r, c] = sum over (i, kh, kw) of w[o, i, kh, kw] * padded x[n, i, r*s + kh*d, c*s + kw*d]."""
    _, channels, *size = x_shape
    outputs, inputs, kh, kw = w_shape
    (sh, sw), (dh, dw) = window.stride, window.dilation
    ho, wo = window.output_size((size[0], size[1]))
    a, b = _phases(kh, sh, dh), _phases(kw, sw, dw)
    hq, wq = ho + (extent(kh, dh) - 1) // sh, wo + (extent(kw, dw) - 1) // sw
    source = Source(channels, (size[0], size[1]), (window.padding[0][0], window.padding[1][0]), window.stride, a, b, (hq, wq))
    i, y, x = np.ogrid[:inputs, : kh * dh : dh, : kw * dw : dw]
    plane = (i * len(a) + np.searchsorted(a, y % sh)) * len(b) + np.searchsorted(b, x % sw)
    offsets = (plane * hq + y // sh) * wq + x // sw
    taps, rows = inputs * kh * kw, outputs // window.groups
    size_out, row_out = ((1, ho * wo), ho * wo) if wq == wo else ((ho, wo), wq)  # rows without a gap are one long row
    problems = [problem(taps, 0, size_out, row_out, tile_width(rows, itemsize))]
    image = channels * len(a) * len(b) * hq * wq
    return source, _plan(problems, offsets, np.arange(taps), (rows * taps, taps), window.groups, rows, image, row_out,
                         tile_width(rows, itemsize), (outputs * ho * wo, ho * wo, wo, 1))


@lru_cache(CACHED_PLANS)
def input_grad(gy_shape: tuple[int, ...], w_shape: tuple[int, ...], x_size: Pair, window: Window, itemsize: int) -> tuple[Source, Plan]:
    """gx[n, i, ih, iw] = sum over (o, kh, kw) with (ih + top - kh*d)/s = r and (iw + left - kw*d)/s = c of w[o, i, kh, kw] * gy[n, o, r, c].

    Elements that meet no tap (kernels smaller than their stride) belong to no problem: they are not written.
    """
    _, outputs, *size = gy_shape
    _, inputs, kh, kw = w_shape
    axes = [_axis_problems(*axis) for axis in zip(x_size, window.kernel, window.stride, window.padding, window.dilation, strict=True)]
    (rows_of, top, hq), (columns_of, left, wq) = axes
    none = np.zeros(1, np.int64)
    source = Source(outputs, (size[0], size[1]), (top, left), (1, 1), none, none, (hq, wq))
    per_group, width = outputs // window.groups, tile_width(inputs, itemsize)
    o = np.arange(per_group, dtype=np.int64)[:, None, None]
    problems, offsets, weights, first = [], [none[:0]], [none[:0]], 0
    for first_row, height, taps_h, back_h in rows_of:
        for first_column, columns, taps_w, back_w in columns_of:
            offset = (o * hq + (top - back_h)[:, None]) * wq + left - back_w
            offsets.append(offset.ravel())
            weights.append(((o * inputs * kh + taps_h[:, None]) * kw + taps_w).ravel())
            problems.append(problem(offset.size, first, (height, columns), wq, width, first_row * x_size[1] + first_column))
            first += offset.size
    row_step, column_step = (s if any(count > 1 for _, count, *_ in phases) else 1  # a stride across the whole image is never taken
                             for s, phases in zip(window.stride, (rows_of, columns_of), strict=True))
    out = (window.groups * inputs * x_size[0] * x_size[1], x_size[0] * x_size[1], row_step * x_size[1], column_step)
    return source, _plan(problems, np.concatenate(offsets), np.concatenate(weights), (per_group * inputs * kh * kw, kh * kw),
                         window.groups, inputs, outputs * hq * wq, wq, width, out)


def _axis_problems(size: int, kernel: int, stride: int, padding: Pair, dilation: int) -> tuple[list[tuple[int, int, Ints, Ints]], int, int]:
    """For each phase that meets taps: first element, count, taps, and how far back from a pixel each tap reads; then lead and length of
    padded gy."""
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
    return found, lead, max((count + lead - int(back.min()) for _, count, _, back in found), default=0)


@lru_cache(CACHED_PLANS)
def matmul(shape: tuple[int, int, int], a_strides: tuple[int, ...], itemsize: int) -> tuple[Source, Plan]:
    """y[m, n] = sum over k of a[m, k] * b[k, n]: a pointwise convolution of an image with k channels, height 1 and width n."""
    m, k, n = shape
    width, taps = tile_width(m, itemsize), np.arange(k, dtype=np.int64)
    row = lanes(itemsize) * (-(-n // lanes(itemsize)) | 1)  # an odd number of cache lines, or all rows would meet in a few cache sets
    none = np.zeros(1, np.int64)
    source = Source(k, (1, n), (0, 0), (1, 1), none, none, (1, row))
    return source, _plan([problem(k, 0, (1, n), row, width)], taps * row, taps * a_strides[1], (0, a_strides[0]), 1, m, k * row, row, width,
                         (0, n, n, 1))


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
    source, plan = forward(x_shape, w_shape, window, itemsize)
    ho, wo = window.output_size((x_shape[2], x_shape[3]))
    places = np.arange(ho)[:, None] * source.plane[1] + np.arange(wo)
    offsets = np.pad(plan.offsets, (0, -plan.offsets.size % _cpu.ROWS), mode="edge")
    return source, Reduction(offsets, places.astype(np.int64).ravel(), plan.offsets.size, window.groups, plan.rows, lanes(itemsize), plan.image)


def covers(plan: Plan, elements: int) -> bool:
    """Whether the problems of a plan write all `elements` elements of one image of the result."""
    written = int((plan.problems[:, HEIGHT] * plan.problems[:, WIDTH]).sum()) * plan.groups * plan.rows
    return written == elements


def _plan(problems: list[list[int]], offsets: Any, weight_offsets: Any, weight_strides: Pair, groups: int, rows: int, image: int, row: int,
          width: int, out: tuple[int, int, int, int]) -> Plan:
    table = np.array(problems, np.int64).reshape(-1, ORIGIN + 1)
    pixels = max(1, int(table[:, HEIGHT].max(initial=0)) * row)
    strip = max(1, STRIP_BYTES * pixels // max(1, image // groups * width))  # image/groups*width/pixels elements per tile
    weight_offsets = np.ascontiguousarray(weight_offsets, np.int64).ravel()
    adjacent = tile_rows(rows) > 1 and np.array_equal(weight_offsets, np.arange(weight_offsets.size))
    return Plan(table, np.ascontiguousarray(offsets, np.int64).ravel(), weight_offsets, weight_strides, adjacent, groups, rows,
                tile_rows(rows), width, image, row, strip, out)
