"""Exact sums of floats and of products of floats, channel by channel, in integers.

A finite float is m*2^(e + least) with an integer m of 24 or 53 bits, sign included, and a biased exponent e >= 1. Floats of one e are summed
as integers, and so are products of one e + e', cut into limbs: of a negative number the lower limbs are positive, the highest is negative.
`bins[e, k]` is the sum of limb k of what has exponent e; a limb has at most 27 bits, which leaves room for 2^36 elements. The bins of a channel
are added up in two's complement of DIGIT bits to a digit; so nothing is ever rounded, in whatever order it is summed.

`specials[c]` gets bit 1 for a NaN in a, 2 for +inf, 4 for -inf, and 8 for any of them in b; in the sums 0 takes their place.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy import uintp
from numpy.typing import NDArray

from npreparam.kernels import _threads
from npreparam.kernels._compile import kernel

Array = NDArray[Any]
SINGLE_LIMB, DOUBLE_LIMB, DIGIT = 24, 27, 32  # bits
DIGITS = {4: 24, 8: 140}  # of a sum of products, by the size of a float in bytes: 560 or 4279 bits, with room for 2^36 terms
SMALL = 20_000  # elements below which waking a second thread costs more than it saves


@kernel
def special(negative: bool, fraction: int) -> int:
    """The bit for a NaN or infinity."""
    if fraction:
        return 1
    return 4 if negative else 2


@kernel
def fold(bins: Any, first: int, last: int, limb: int, step: int, digits: Any) -> None:
    """The sum over e and k of bins[e, first + k]*2^(e*step + k*limb) as digits of two's complement; the columns first..last-1 are set to 0."""
    mask = np.int64((1 << DIGIT) - 1)
    for e in range(bins.shape[0]):
        for k in range(first, last):
            value, position = bins[e, k], e * step + (k - first) * limb
            if value:
                bins[e, k] = 0
                at, shift = position // DIGIT, position % DIGIT
                low, high = (value & mask) << shift, (value >> DIGIT) << shift
                digits[at] += low & mask
                digits[at + 1] += (low >> DIGIT) + (high & mask)
                digits[at + 2] += high >> DIGIT
    carry = np.int64(0)
    for at in range(digits.shape[0]):
        carry += digits[at]
        digits[at] = carry & mask
        carry >>= DIGIT


@kernel
def single_sums(first: int, last: int, a: Any, b: Any, shape: tuple[int, int, int], digits: Any, specials: Any) -> None:
    """digits[c] = (sum a, sum a*b) for the channels first..last-1 of float32 bits a and b, flat, of shape (N, C, H*W)."""
    n, channels, length = shape
    bins = np.zeros((512, 3), np.int64)
    for c in range(first, last):
        for image in range(n):
            at = (image * channels + c) * length
            for j in range(length):
                p, q = np.int64(a[uintp(at + j)]), np.int64(b[uintp(at + j)])
                e, f = (p >> 23) & 255, (q >> 23) & 255
                m, k = (p & 0x7FFFFF) | (np.int64(e > 0) << 23), (q & 0x7FFFFF) | (np.int64(f > 0) << 23)
                e, f, m, k = max(e, 1), max(f, 1), (m ^ (p >> 63)) - (p >> 63), (k ^ (q >> 63)) - (q >> 63)  # negated where the sign is set
                if e == 255 or f == 255:
                    specials[c] |= (special(p < 0, p & 0x7FFFFF) if e == 255 else 0) | (8 if f == 255 else 0)
                    m, k = 0 if e == 255 else m, 0 if f == 255 else k
                bins[uintp(e), 0] += m
                bins[uintp(e + f), 1] += (m * k) & 0xFFFFFF
                bins[uintp(e + f), 2] += (m * k) >> SINGLE_LIMB
        fold(bins, 0, 1, SINGLE_LIMB, 1, digits[c, 0])
        fold(bins, 1, 3, SINGLE_LIMB, 1, digits[c, 1])


@kernel
def single_squares(first: int, last: int, a: Any, shape: tuple[int, int, int], digits: Any, specials: Any) -> None:
    """`single_sums` where b is a: faster, since what belongs to an element lies side by side, and neighbours go to different sets of bins."""
    n, channels, length = shape
    bins = np.zeros((4 * 256, 4), np.int64)
    for c in range(first, last):
        for image in range(n):
            at = (image * channels + c) * length
            for j in range(length):
                p = np.int64(a[uintp(at + j)])
                e = (p >> 23) & 255
                m = (p & 0x7FFFFF) | (np.int64(e > 0) << 23)
                if e == 255:
                    specials[c] |= special(p < 0, p & 0x7FFFFF) | 8
                    m = 0
                e = max(e, 1) + ((j & 3) << 8)
                bins[uintp(e), 0] += (m ^ (p >> 63)) - (p >> 63)
                bins[uintp(e), 1] += (m * m) & 0xFFFFFF
                bins[uintp(e), 2] += (m * m) >> SINGLE_LIMB
        for first_bin in range(0, len(bins), 256):
            fold(bins[first_bin : first_bin + 256], 0, 1, SINGLE_LIMB, 1, digits[c, 0])
            fold(bins[first_bin : first_bin + 256], 1, 3, SINGLE_LIMB, 2, digits[c, 1])


@kernel
def double_sums(first: int, last: int, a: Any, b: Any, shape: tuple[int, int, int], digits: Any, specials: Any) -> None:
    """The same for float64 bits."""
    n, channels, length = shape
    bins = np.zeros((4096, 6), np.int64)
    mask, fraction = np.int64((1 << DOUBLE_LIMB) - 1), np.int64((1 << 52) - 1)
    for c in range(first, last):
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
        fold(bins, 0, 2, DOUBLE_LIMB, 1, digits[c, 0])
        fold(bins, 2, 6, DOUBLE_LIMB, 1, digits[c, 1])


def exact_sums(a: Array, b: Array, shape: tuple[int, int, int]) -> tuple[list[int], list[int], Array]:
    """(sum a, sum a*b, specials) of each channel of the flat float32 or float64 arrays a and b of one dtype.

    The sums are in units of 2^-150 and 2^-300, or 2^-1075 and 2^-2150.
    """
    size, channels = a.itemsize, shape[1]
    digits, specials = np.zeros((channels, 2, DIGITS[size]), np.int64), np.zeros(channels, np.int64)
    small = a.size < SMALL
    if size == 8:
        _threads.run(double_sums, channels, a.view(np.int64), b.view(np.int64), shape, digits, specials, small=small)
    elif b is a:
        _threads.run(single_squares, channels, a.view(np.int32), shape, digits, specials, small=small)
    else:
        _threads.run(single_sums, channels, a.view(np.int32), b.view(np.int32), shape, digits, specials, small=small)
    numbers = [[int.from_bytes(row.tobytes(), "little", signed=True) for row in pair] for pair in digits.astype(np.uint32)]
    return [pair[0] for pair in numbers], [pair[1] for pair in numbers], specials
