"""Rounding tests of whole arrays, magnitudes for their bounds, and exact repair of the elements that they leave open.

A result is seen as (N, O, P): an image, an output channel, a pixel. The magnitude S = sum|x||w| of element (n, o, p) is at most
across[n, g, p]*along[o] + |offset[o]| by Cauchy and Schwarz, with the group g of o; its error is at most factor*S + tiny, and 0 where S is 0.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npreparam._shapes import Pair, Window
from npreparam.kernels import _threads, accumulate
from npreparam.kernels._compile import kernel

Array = NDArray[Any]
SMALLEST_SQUARE = 2.0**-1022  # what underflows is replaced by it, so that a sum of squares is 0 only where everything is
SMALL = 20_000  # elements below which waking a second thread costs more than it saves
SMALL_REPAIR = 20_000  # likewise, in terms
BLOCK = 32  # elements of a row between two roots in `mean_prefix_norms`
FORWARD, INPUT_GRAD, WEIGHT_GRAD = 0, 1, 2


@kernel
def square(value: float) -> float:
    """value^2, at least SMALLEST_SQUARE unless value is 0."""
    return max(value * value, SMALLEST_SQUARE) if value != 0 else 0.0


@kernel
def channel_squares(first: int, last: int, x: Any, squares: Any) -> None:
    """squares[i, :] = sum over c of x[i, c, :]^2 for the rows first..last-1."""
    for i in range(first, last):
        squares[i, :] = 0
        for c in range(x.shape[1]):
            for p in range(x.shape[2]):
                squares[i, p] += square(x[i, c, p])


@kernel
def row_squares(first: int, last: int, x: Any, squares: Any) -> None:
    """squares[i] = sum of x[i, :]^2 for the rows first..last-1, in 8 partial sums."""
    sums = np.zeros(8)
    for i in range(first, last):
        sums[:] = 0
        whole = x.shape[1] - x.shape[1] % 8
        for k in range(0, whole, 8):
            for lane in range(8):
                sums[lane] += square(x[i, k + lane])
        for k in range(whole, x.shape[1]):
            sums[0] += square(x[i, k])
        squares[i] = sums.sum()


@kernel
def round_singles(first: int, last: int, y: Any, across: Any, along: Any, offset: Any, factor: float, tiny: float, value: Any,
                  doubt: Any) -> None:
    """value = y rounded to float32 for the planes first..last-1 of (n, o); doubt where y - B and y + B round otherwise.

    2^-51*|y| makes up for the rounding of y - B and y + B. A zero is in doubt as well, since its sign is, unless S is 0.
    """
    outputs, groups = y.shape[1], across.shape[1]
    for plane in range(first, last):
        n, o = divmod(plane, outputs)
        g = o // (outputs // groups)
        slope, shift = factor * along[o], factor * math.fabs(offset[o])
        for p in range(y.shape[2]):
            size = across[n, g, p] * slope + shift
            bound = size + tiny + 2.0**-51 * math.fabs(y[n, o, p])
            low, high = np.float32(y[n, o, p] - bound), np.float32(y[n, o, p] + bound)
            certain = ((low == high) & (low != 0)) | ((across[n, g, p] * along[o] == 0) & (offset[o] == 0))
            value[n, o, p] = np.float32(y[n, o, p] + 0.0)  # no -0
            doubt[n, o, p] = not certain


@kernel
def round_pairs(first: int, last: int, y: Any, across: Any, along: Any, offset: Any, factor: float, tiny: float, value: Any,
                doubt: Any) -> None:
    """value = y[0] + y[1] rounded to float64 for the planes first..last-1; doubt where the rest of the sum, +-B, may change it."""
    outputs, groups = y.shape[2], across.shape[1]
    for plane in range(first, last):
        n, o = divmod(plane, outputs)
        g = o // (outputs // groups)
        slope, shift = factor * along[o], factor * math.fabs(offset[o])
        for p in range(y.shape[3]):
            s, c = y[0, n, o, p], y[1, n, o, p]
            high = s + c
            back = high - s
            low = (s - (high - back)) + (c - back)
            bound = across[n, g, p] * slope + shift + tiny + 2.0**-51 * math.fabs(low)
            certain = (high + (low - bound) == high) & (high + (low + bound) == high) & (high != 0)
            certain |= (across[n, g, p] * along[o] == 0) & (offset[o] == 0)
            value[n, o, p] = high + 0.0
            doubt[n, o, p] = not certain


@kernel
def mean_prefix_norms(first: int, last: int, x: Any, norms: Any) -> None:
    """norms[i] >= the mean over k of |x[i, :k]| in Euclidean norm, k = 1..K, for the rows first..last-1: blocks count as their last k."""
    for i in range(first, last):
        squares, total, length = 0.0, 0.0, x.shape[1]
        for begin in range(0, length, BLOCK):
            end = min(length, begin + BLOCK)
            a = b = c = d = 0.0
            whole = begin + (end - begin) // 4 * 4
            for k in range(begin, whole, 4):
                a, b = a + square(x[i, k]), b + square(x[i, k + 1])
                c, d = c + square(x[i, k + 2]), d + square(x[i, k + 3])
            for k in range(whole, end):
                a += square(x[i, k])
            squares += (a + b) + (c + d)
            total += (end - begin) * math.sqrt(squares)
        norms[i] = total / max(1, length)


@kernel
def default_environment(one: float, smallest: float) -> bool:
    """Whether this thread rounds to nearest and keeps subnormal numbers, for one = 1, smallest = 2^-1022; a library may have told the CPU not to."""
    u = 2.0**-53
    nearest = (one + u == one) & (-one - u == -one) & (one + 3 * u == one + 4 * u) & (-one - 3 * u == -one - 4 * u)
    return nearest & (smallest * 0.5 != 0) & (smallest * 0.5 + smallest * 0.5 == smallest)


class Sizes(NamedTuple):
    """The geometry of a convolution, for finding the terms of one element."""

    images: int
    inputs: int  # channels per group
    outputs: int  # channels per group
    groups: int
    size: Pair  # of x
    out: Pair  # of y
    kernel: Pair
    stride: Pair
    lead: Pair  # top, left
    dilation: Pair


@kernel
def forward_terms(index: int, w: Any, x: Any, at: Sizes, a: Any, b: Any) -> int:
    """Copy the factors w, x of element `index` of y into a and b; how many. Taps outside the image are no terms."""
    (height, width), (kh, kw) = at.size, at.kernel
    rest, c = divmod(index, at.out[1])
    rest, r = divmod(rest, at.out[0])
    n, o = divmod(rest, at.outputs * at.groups)
    channel = (n * at.groups + o // at.outputs) * at.inputs
    count = 0
    for i in range(at.inputs):
        for p in range(kh):
            for q in range(kw):
                ih, iw = r * at.stride[0] + p * at.dilation[0] - at.lead[0], c * at.stride[1] + q * at.dilation[1] - at.lead[1]
                if 0 <= ih < height and 0 <= iw < width:
                    a[count], b[count] = w[((o * at.inputs + i) * kh + p) * kw + q], x[((channel + i) * height + ih) * width + iw]
                    count += 1
    return count


@kernel
def input_terms(index: int, w: Any, gy: Any, at: Sizes, a: Any, b: Any) -> int:
    """Copy the factors w, gy of element `index` of gx into a and b; how many."""
    (ho, wo), (kh, kw) = at.out, at.kernel
    rest, iw = divmod(index, at.size[1])
    rest, ih = divmod(rest, at.size[0])
    n, channel = divmod(rest, at.inputs * at.groups)
    group, i = divmod(channel, at.inputs)
    count = 0
    for o in range(group * at.outputs, (group + 1) * at.outputs):
        for p in range(kh):
            for q in range(kw):
                r, past_r = divmod(ih + at.lead[0] - p * at.dilation[0], at.stride[0])
                c, past_c = divmod(iw + at.lead[1] - q * at.dilation[1], at.stride[1])
                if past_r == 0 and past_c == 0 and 0 <= r < ho and 0 <= c < wo:
                    a[count] = w[((o * at.inputs + i) * kh + p) * kw + q]
                    b[count] = gy[((n * at.outputs * at.groups + o) * ho + r) * wo + c]
                    count += 1
    return count


@kernel
def weight_terms(index: int, gy: Any, x: Any, at: Sizes, a: Any, b: Any) -> int:
    """Copy the factors gy, x of element `index` of gw into a and b; how many."""
    (height, width), (ho, wo) = at.size, at.out
    rest, q = divmod(index, at.kernel[1])
    rest, p = divmod(rest, at.kernel[0])
    o, i = divmod(rest, at.inputs)
    count = 0
    for n in range(at.images):
        channel = (n * at.groups + o // at.outputs) * at.inputs + i
        for r in range(ho):
            for c in range(wo):
                ih, iw = r * at.stride[0] + p * at.dilation[0] - at.lead[0], c * at.stride[1] + q * at.dilation[1] - at.lead[1]
                if 0 <= ih < height and 0 <= iw < width:
                    a[count] = gy[((n * at.outputs * at.groups + o) * ho + r) * wo + c]
                    b[count] = x[(channel * height + ih) * width + iw]
                    count += 1
    return count


@kernel
def repair_some(first: int, last: int, which: int, indices: Any, left: Any, right: Any, start: Any, at: Sizes, target: int, most: int,
                values: Any) -> None:
    """values = the elements with these indices, first..last-1, decided for the target; `start` holds what each begins with."""
    a, b, limbs = np.empty(most), np.empty(most), np.empty(accumulate.LIMBS, np.int64)
    for q in range(first, last):
        if which == FORWARD:
            count = forward_terms(indices[q], left, right, at, a, b)
        elif which == INPUT_GRAD:
            count = input_terms(indices[q], left, right, at, a, b)
        else:
            count = weight_terms(indices[q], left, right, at, a, b)
        values[q] = accumulate.decide(a, b, count, start[q], target, limbs)


@kernel
def lowest_bits(first: int, last: int, bits: Any, lowest: Any) -> None:
    """lowest[i] = exponent of the lowest bit set in row i of float64 numbers seen as integers; 2000 where all are 0."""
    for i in range(first, last):
        least = np.int64(2000)
        for k in range(bits.shape[1]):
            significand, exponent = bits[i, k] & (2**52 - 1), (bits[i, k] >> 52) & 0x7FF
            if exponent:
                significand |= 2**52
            if significand:
                place = np.int64(math.frexp(np.float64(significand & -significand))[1]) - 1
                least = min(least, place + max(exponent, 1) - 1075)
        lowest[i] = least


def squares_over_channels(x: Array) -> Array:
    """(N, P) from (N, C, P): the sum of squares over the channels."""
    squares = np.empty((x.shape[0], x.shape[2]))
    _threads.run(channel_squares, len(x), x, squares, small=x.size < SMALL)
    return squares


def squares_of_rows(x: Array) -> Array:
    """(R,) from (R, K): the sum of squares of each row."""
    squares = np.empty(len(x))
    _threads.run(row_squares, len(x), x, squares, small=x.size < SMALL)
    return squares


def prefix_norms_of_rows(x: Array) -> Array:
    """(R,) from (R, K): the mean Euclidean norm of the beginnings of each row."""
    norms = np.empty(len(x))
    _threads.run(mean_prefix_norms, len(x), x, norms, small=x.size < SMALL)
    return norms


def lowest_bit(x: Array) -> int:
    """The exponent of the lowest bit that is set in any element of a float64 array: all are integer multiples of 2^this."""
    rows = x.reshape(-1).view(np.int64)
    lowest = np.empty(1, np.int64)
    lowest_bits(0, 1, rows.reshape(1, -1), lowest)
    return int(lowest[0])


def round_and_doubt(y: Array, across: Array, along: Array, offset: Array, factor: float, tiny: float, value: Array) -> Array:
    """`value`, float32 from y (N, O, P) or float64 from pairs (2, N, O, P), and where the bound does not decide, which is returned: (N, O, P)."""
    test, doubt = round_pairs if y.ndim == 4 else round_singles, np.empty(value.shape, np.bool_)
    _threads.run(test, value.shape[0] * value.shape[1], y, across, along, offset, factor, tiny, value, doubt, small=value.size < SMALL)
    return doubt


def repair(which: int, indices: Array, left: Array, right: Array, start: Array, sizes: Sizes, target: int, most: int) -> Array:
    """The elements with these flat indices, as `accumulate.decide` returns them; `most` is the largest number of terms."""
    values = np.empty(len(indices))
    _threads.run(repair_some, len(indices), which, indices, left.reshape(-1), right.reshape(-1), start, sizes, target, most, values,
                 small=len(indices) * most < SMALL_REPAIR)
    return values


def sizes_of(x_shape: tuple[int, ...], w_shape: tuple[int, ...], window: Window) -> Sizes:
    """The sizes of a convolution of x with w."""
    size, groups = (x_shape[2], x_shape[3]), window.groups
    (top, _), (left, _) = window.padding
    return Sizes(x_shape[0], w_shape[1], w_shape[0] // groups, groups, size, window.output_size(size), window.kernel, window.stride, (top, left),
                 window.dilation)
