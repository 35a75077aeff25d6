"""Exact sums of floats and of products of floats, channel by channel, in integers.

A finite float is m*2^(e + least) with an integer m of 24 or 53 bits, sign included, and a biased exponent e >= 1. Floats of one e are summed
as integers, and so are products of one e + e', cut into limbs: of a negative number the lower limbs are positive, the highest is negative.
`bins[e, k]` is the sum of limb k of what has exponent e; a limb has at most 27 bits, which leaves room for 2^36 elements. The bins of a channel
are added up in two's complement of DIGIT bits to a digit; so nothing is ever rounded, in whatever order it is summed.

Float32 is seldom in need of bins. Let e be the largest biased exponent of a channel in a, and U = 2^(base - 150), base = max(e - 22, 1). An
element that is 0 or has at least the exponent `base` is an integer times U, and smaller than 2^46*U. Adding and subtracting cut = 1.5*2^75*U
rounds it to ah, a multiple of 2^23*U of at most 2^46*U, and leaves al, |al| <= 2^22*U; in b, likewise, with V. So the terms

    a       ah*bh       ah*bl + al*bh       al*bl       are integers, at most 2^46 in size, times
    U       2^46*U*V    2^23*U*V            U*V

and TERMS = 128 of them add up in float64 with no rounding, to at most 2^53 such units: vector code, then 16 lanes of it are added as integers.
A piece of a row that holds anything smaller, and a channel with a NaN or infinity, goes to the bins.

`specials[c]` gets bit 1 for a NaN in a, 2 for +inf, 4 for -inf, and 8 for any of them in b; in the sums 0 takes their place.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy import uintp
from numpy.typing import NDArray

from npreparam.kernels import _threads
from npreparam.kernels._compile import kernel

Array = NDArray[Any]
SINGLE_LIMB, DOUBLE_LIMB, DIGIT = 24, 27, 32  # bits
BIAS, SPAN, HALF = 150, 22, 23  # the unit of float32 is 2^-150; exponents of a grid, and the bits of al
LANES, TERMS = 16, 128
PIECE = LANES * TERMS
DIGITS = {4: 24, 8: 140}  # of a sum of products, by the size of a float in bytes: 560 or 4279 bits, with room for 2^36 terms
SMALL = 20_000  # elements below which waking a second thread costs more than it saves


@kernel
def special(negative: bool, fraction: int) -> int:
    """The bit for a NaN or infinity."""
    if fraction:
        return 1
    return 4 if negative else 2


@kernel
def add_at(value: int, position: int, digits: Any) -> None:
    """digits += value*2^position, without carries."""
    mask = np.int64((1 << DIGIT) - 1)
    at, shift = position // DIGIT, position % DIGIT
    low, high = (value & mask) << shift, (value >> DIGIT) << shift
    digits[at] += low & mask
    digits[at + 1] += (low >> DIGIT) + (high & mask)
    digits[at + 2] += high >> DIGIT


@kernel
def fold(bins: Any, exponents: tuple[int, int], columns: tuple[int, int], limb: int, digits: Any) -> None:
    """Add the sum of bins[e, first + k]*2^(e + k*limb) over these first and last exponents and columns to the digits; the bins are set to 0."""
    for e in range(exponents[0], exponents[1] + 1):
        for k in range(columns[0], columns[1] + 1):
            if bins[e, k]:
                add_at(bins[e, k], e + (k - columns[0]) * limb, digits)
                bins[e, k] = 0


@kernel
def carry(digits: Any) -> None:
    """Leave DIGIT bits in each digit."""
    mask, rest = np.int64((1 << DIGIT) - 1), np.int64(0)
    for at in range(digits.shape[0]):
        rest += digits[at]
        digits[at] = rest & mask
        rest >>= DIGIT


@kernel
def bin_singles(a: Any, b: Any, at: int, length: int, bins: Any) -> int:
    """Add a to bins[:, 0] and a*b to bins[:, 1:3] over a row of float32 bits; the code of its specials."""
    code = np.int64(0)
    for j in range(length):
        p, q = np.int64(a[uintp(at + j)]), np.int64(b[uintp(at + j)])
        e, f = (p >> 23) & 255, (q >> 23) & 255
        m, k = (p & 0x7FFFFF) | (np.int64(e > 0) << 23), (q & 0x7FFFFF) | (np.int64(f > 0) << 23)
        e, f, m, k = max(e, 1), max(f, 1), (m ^ (p >> 63)) - (p >> 63), (k ^ (q >> 63)) - (q >> 63)  # negated where the sign is set
        if e == 255 or f == 255:
            code |= (special(p < 0, p & 0x7FFFFF) if e == 255 else 0) | (8 if f == 255 else 0)
            m, k = 0 if e == 255 else m, 0 if f == 255 else k
        bins[uintp(e), 0] += m
        bins[uintp(e + f), 1] += (m * k) & 0xFFFFFF
        bins[uintp(e + f), 2] += (m * k) >> SINGLE_LIMB
    return code


@kernel
def largest_exponent(bits: Any, c: int, shape: tuple[int, int, int]) -> int:
    """The largest biased exponent in channel c of float32 bits."""
    n, channels, length = shape
    largest = np.int32(0)
    for image in range(n):
        at = (image * channels + c) * length
        for j in range(length):
            largest = max(largest, bits[uintp(at + j)] & np.int32(0x7FFFFFFF))
    return np.int64(largest) >> 23


@kernel
def on_grid(bits: Any, at: int, length: int, base: int) -> bool:
    """Whether each element of a row of float32 bits is 0 or has a biased exponent of at least `base`."""
    least, smallest = np.int32(base << 23), np.int32(0x7FFFFFFF)
    for j in range(length):
        size = bits[uintp(at + j)] & np.int32(0x7FFFFFFF)
        smallest = min(smallest, size if size else np.int32(0x7FFFFFFF))
    return smallest >= least


@kernel
def grid_sums(a: Any, b: Any, at: int, length: int, cuts: tuple[float, float], sums: Any) -> None:
    """sums[:, j % LANES] += (a, ah*bh, ah*bl + al*bh, al*bl) over the elements j of a row of float32."""
    for j in range(0, length - length % LANES, LANES):
        for lane in range(LANES):
            v, w = np.float64(a[uintp(at + j + lane)]), np.float64(b[uintp(at + j + lane)])
            high, top = (v + cuts[0]) - cuts[0], (w + cuts[1]) - cuts[1]
            low, rest = v - high, w - top
            sums[0, lane] += v
            sums[1, lane] += high * top
            sums[2, lane] += high * rest + low * top
            sums[3, lane] += low * rest
    for j in range(length - length % LANES, length):
        v, w = np.float64(a[uintp(at + j)]), np.float64(b[uintp(at + j)])
        high, top = (v + cuts[0]) - cuts[0], (w + cuts[1]) - cuts[1]
        low, rest = v - high, w - top
        sums[0, j % LANES] += v
        sums[1, j % LANES] += high * top
        sums[2, j % LANES] += high * rest + low * top
        sums[3, j % LANES] += low * rest


@kernel
def fold_grid(sums: Any, base: tuple[int, int], digits: Any) -> None:
    """Add `sums`, which are set to 0, to the digits of sum a and of sum a*b."""
    both = base[0] + base[1]
    for q in range(4):
        position, unit = (base[0], BIAS) if q == 0 else (both + (3 - q) * HALF, 2 * BIAS)
        scale, total = math.ldexp(1.0, unit - position), np.int64(0)
        for lane in range(LANES):
            total += np.int64(sums[q, lane] * scale)
            sums[q, lane] = 0.0
        add_at(total, position, digits[min(q, 1)])


@kernel
def single_sums(first: int, last: int, a: Any, b: Any, shape: tuple[int, int, int], digits: Any, specials: Any) -> None:
    """digits[c] = (sum a, sum a*b) for the channels first..last-1 of float32 a and b, flat, of shape (N, C, H*W)."""
    n, channels, length = shape
    bins, sums, abits, bbits = np.zeros((512, 3), np.int64), np.zeros((4, LANES)), a.view(np.int32), b.view(np.int32)
    square = a.ctypes.data == b.ctypes.data
    for c in range(first, last):
        top = largest_exponent(abits, c, shape)
        tops = top, top if square else largest_exponent(bbits, c, shape)
        base = max(tops[0] - SPAN, 1), max(tops[1] - SPAN, 1)
        cuts = math.ldexp(1.5, base[0] - BIAS + HALF + 52), math.ldexp(1.5, base[1] - BIAS + HALF + 52)
        terms, binned = 0, False
        for piece in range(n * -(-length // PIECE)):
            image, begin = piece % n, piece // n * PIECE
            at, size = (image * channels + c) * length + begin, min(PIECE, length - begin)
            if max(tops[0], tops[1]) < 255 and on_grid(abits, at, size, base[0]) and (square or on_grid(bbits, at, size, base[1])):
                terms += -(-size // LANES)
                if terms > TERMS:
                    fold_grid(sums, base, digits[c])
                    terms = -(-size // LANES)
                grid_sums(a, b, at, size, cuts, sums)
            else:
                specials[c] |= bin_singles(abits, bbits, at, size, bins)
                binned = True
        fold_grid(sums, base, digits[c])
        if binned:
            fold(bins, (1, 254), (0, 0), SINGLE_LIMB, digits[c, 0])
            fold(bins, (2, 508), (1, 2), SINGLE_LIMB, digits[c, 1])
        carry(digits[c, 0])
        carry(digits[c, 1])


@kernel
def double_sums(first: int, last: int, a: Any, b: Any, shape: tuple[int, int, int], digits: Any, specials: Any) -> None:
    """The same for float64 bits."""
    n, channels, length = shape
    bins = np.zeros((4096, 6), np.int64)
    mask, fraction = np.int64((1 << DOUBLE_LIMB) - 1), np.int64((1 << 52) - 1)
    for c in range(first, last):
        least, most = np.int64(2047), np.int64(0)  # exponents in use: few of the bins, which take longer to look through than to fill
        for image in range(n):
            at = (image * channels + c) * length
            for j in range(length):
                p, q = np.int64(a[uintp(at + j)]), np.int64(b[uintp(at + j)])
                e, f = (p >> 52) & 2047, (q >> 52) & 2047
                m, k = (p & fraction) | (np.int64(e > 0) << 52), (q & fraction) | (np.int64(f > 0) << 52)
                e, f, m, k = max(e, 1), max(f, 1), (m ^ (p >> 63)) - (p >> 63), (k ^ (q >> 63)) - (q >> 63)
                if e == 2047 or f == 2047:
                    specials[c] |= (special(p < 0, p & fraction) if e == 2047 else 0) | (8 if f == 2047 else 0)
                    m, k = 0 if e == 2047 else m, 0 if f == 2047 else k
                least, most = min(least, min(e, f)), max(most, max(e, f))
                m0, m1, k0, k1 = m & mask, m >> DOUBLE_LIMB, k & mask, k >> DOUBLE_LIMB
                bins[e, 0] += m0
                bins[e, 1] += m1
                lowest = m0 * k0
                middle = (lowest >> DOUBLE_LIMB) + m0 * k1 + m1 * k0
                highest = (middle >> DOUBLE_LIMB) + m1 * k1
                bins[e + f, 2] += lowest & mask
                bins[e + f, 3] += middle & mask
                bins[e + f, 4] += highest & mask
                bins[e + f, 5] += highest >> DOUBLE_LIMB
        fold(bins, (least, most), (0, 1), DOUBLE_LIMB, digits[c, 0])
        fold(bins, (2 * least, 2 * most), (2, 5), DOUBLE_LIMB, digits[c, 1])
        carry(digits[c, 0])
        carry(digits[c, 1])


def exact_sums(a: Array, b: Array, shape: tuple[int, int, int]) -> tuple[list[int], list[int], Array]:
    """(sum a, sum a*b, specials) of each channel of the flat float32 or float64 arrays a and b of one dtype.

    The sums are in units of 2^-150 and 2^-300, or 2^-1075 and 2^-2150.
    """
    size, channels = a.itemsize, shape[1]
    digits, specials = np.zeros((channels, 2, DIGITS[size]), np.int64), np.zeros(channels, np.int64)
    small = a.size < SMALL
    if size == 8:
        _threads.run(double_sums, channels, a.view(np.int64), b.view(np.int64), shape, digits, specials, small=small)
    else:
        _threads.run(single_sums, channels, a, b, shape, digits, specials, small=small)
    memory, stride = digits.astype("<u4").tobytes(), 4 * DIGITS[size]
    numbers = [int.from_bytes(memory[at : at + stride], "little", signed=True) for at in range(0, len(memory), stride)]
    return numbers[::2], numbers[1::2], specials
