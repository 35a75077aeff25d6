"""Sums of products without any error: a fixed-point accumulator as wide as all products of float64 (Kulisch), rounded once.

Limb i counts 2^(32*i + LOWEST), as a signed 64-bit integer that may exceed 32 bits: carries wait until the end, for up to 2^28 products.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from npreparam.kernels._compile import kernel
from npreparam.kernels._tile import scalar_fma

LOWEST = -2272  # below the last bit of the smallest product, 2^-2252 as `add_product` splits it
LIMBS = 144  # up to 2^2336, above the sum of 2^28 of the largest products
MASK = 0xFFFFFFFF
UNIT, ETA = 2.0**-53, 2.0**-1074

TO_FLOAT64, TO_ODD = 0, 1  # how an exact sum is rounded: to nearest, or so that a later rounding to a narrower format is the only one
FLOAT32 = 2  # to odd as well, but decided for float32


@kernel
def add_bits(limbs: Any, bits: int, position: int, sign: int) -> None:
    """Add sign*bits*2^position, 0 <= bits < 2^55, to the accumulator."""
    limb, shift = (position - LOWEST) >> 5, (position - LOWEST) & 31
    low, high = (bits & MASK) << shift, (bits >> 32) << shift
    limbs[limb] += sign * (low & MASK)
    limbs[limb + 1] += sign * (((low >> 32) & MASK) + (high & MASK))
    limbs[limb + 2] += sign * (high >> 32)


@kernel
def add_product(limbs: Any, a: float, b: float) -> None:
    """Add a*b exactly, both finite: 53-bit integers times powers of two, multiplied in halves."""
    fraction_a, exponent_a = math.frexp(a)
    fraction_b, exponent_b = math.frexp(b)
    m, k = np.int64(math.fabs(fraction_a) * 2.0**53), np.int64(math.fabs(fraction_b) * 2.0**53)
    position = exponent_a + exponent_b - 106
    sign = -1 if (fraction_a < 0) != (fraction_b < 0) else 1
    m1, m0, k1, k0 = m >> 27, m & (2**27 - 1), k >> 27, k & (2**27 - 1)
    add_bits(limbs, m1 * k1, position + 54, sign)
    add_bits(limbs, m1 * k0, position + 27, sign)
    add_bits(limbs, m0 * k1, position + 27, sign)
    add_bits(limbs, m0 * k0, position, sign)


@kernel
def carry(limbs: Any) -> int:
    """Bring all limbs into 0..2^32-1, as the absolute value; the sign of the whole, 0 for zero."""
    over = np.int64(0)
    for i in range(LIMBS):
        value = limbs[i] + over
        limbs[i], over = value & MASK, value >> 32
    if over < 0:
        borrow = np.int64(0)
        for i in range(LIMBS):
            value = -limbs[i] + borrow
            limbs[i], borrow = value & MASK, value >> 32
        return -1
    for i in range(LIMBS):
        if limbs[i]:
            return 1
    return 0


@kernel
def bit(limbs: Any, position: int) -> int:
    """Bit number `position` from the lowest one on."""
    return (limbs[position >> 5] >> (position & 31)) & 1


@kernel
def rounded(limbs: Any, odd: bool) -> float:
    """The accumulator as float64: to nearest, ties to even; or `odd`: cut off, the last bit set where something was lost."""
    sign = carry(limbs)
    if sign == 0:
        return 0.0
    top = LIMBS - 1
    while limbs[top] == 0:
        top -= 1
    first = 32 * top + 31
    while bit(limbs, first) == 0:
        first -= 1
    last = max(first - 52, -1074 - LOWEST)  # of the bits that are kept
    significand = np.int64(0)
    for position in range(first, last - 1, -1):
        significand = 2 * significand + bit(limbs, position)
    half, rest = bit(limbs, last - 1), False
    for i in range((last - 1) >> 5):
        rest = rest or limbs[i] != 0
    for position in range((last - 1) >> 5 << 5, last - 1):
        rest = rest or bit(limbs, position) != 0
    if odd and (half or rest):
        significand |= 1
    elif half and (rest or significand & 1):
        significand += 1
    return sign * np.ldexp(np.float64(significand), last + LOWEST)


@kernel
def special_sum(a: Any, b: Any, count: int, start: float) -> float:
    """NaN or the infinity that the sum is by IEEE rules where a term is not finite, else 0: finite terms decide nothing."""
    total = 0.0 if math.isfinite(start) else start
    for k in range(count):
        if not (math.isfinite(a[k]) and math.isfinite(b[k])):
            total += a[k] * b[k]
    return total


@kernel
def exact_sum(a: Any, b: Any, count: int, start: float, odd: bool, limbs: Any) -> float:
    """start + sum of a*b over finite terms, rounded once; see `rounded`."""
    limbs[:] = 0
    add_product(limbs, start, 1.0)
    for k in range(count):
        add_product(limbs, a[k], b[k])
    return rounded(limbs, odd)


@kernel
def decide(a: Any, b: Any, count: int, start: float, target: int, limbs: Any) -> float:
    """start + sum of a*b, rounded for the target: first in doubled precision with its bound, and where that does not decide, exactly.

    As in `_pair`, |sum - (s + c)| <= gamma_n^2*S + n*eta/2 for n = count + 1 terms of magnitude S, gamma_n <= (n + 1)*u for n*u < 2^-20.
    """
    s, c, magnitude = start, 0.0, math.fabs(start)
    for k in range(count):
        p = a[k] * b[k]
        e = scalar_fma(a[k], b[k], -p)
        z = s + p
        back = z - s
        c += ((s - (z - back)) + (p - back)) + e
        s = z
        magnitude += math.fabs(p)
    if math.isfinite(magnitude):
        gamma = (count + 2) * UNIT
        bound = gamma * gamma * magnitude * (1 + 2.0**-20) + (count + 2) * ETA
        high = s + c
        low = (s - high) + c if math.fabs(s) >= math.fabs(c) else (c - high) + s
        bound += 2.0**-51 * math.fabs(low)
        if high != 0 and target == TO_FLOAT64 and high + (low - bound) == high and high + (low + bound) == high:
            return high
        bound += 2.0**-51 * math.fabs(high)
        if target == FLOAT32 and np.float32(high - bound) == np.float32(high + bound) and np.float32(high) != 0:
            return high
    special = special_sum(a, b, count, start)
    if special != special:
        return np.nan  # the one NaN of all results; the CPU's may have its sign bit set
    if special != 0:
        return special
    return exact_sum(a, b, count, start, target != TO_FLOAT64, limbs)
