"""Affine maps of channels as pairs of float64, with a bound on their error: between which two floats does the exact value lie?

    y = (x - center)*slope + g*scale + shift

for planes of x and g, each row of `table` being the constants of one channel as sums of floats, and what they lack:

    center  3 floats m0, m1, m2       slope, scale, shift  2 each: s0, s1; t0, t1; b0, b1       slack       spread

With u = 2^-53, every line rounded operation by operation except for the errors of sums and products, which are exact (TwoSum, TwoProduct):

    a + r = x - m0        p + q = a - m1        d = q + (r - m2)                    x - center = p + d
    P + e = p*s0          e' = e + (p*s1 + d*s0)                                    (x - center)*slope = P + e'
    G + f = g*t0          f' = f + g*t1                                             g*scale = G + f'
    H + i = G + b0        h + k = P + H         l = (k + i) + ((e' + f') + b1)      y = h + l

Nothing is lost in h, a, p, P, G or H, and the rest is small. Put A = |P| + |G| + |b0| and W = |d| + |r| + |m2|. Then e, p*s1, f, g*t1, b1, i
and k are each at most uA, for the second float of a pair is at most u times the first, and d*s0 is at most W|s0|. The results of the 12
roundings in d (those multiplied by s0), e', f' and l are therefore at most 7uA + W|s0|, but for terms of second order. With d*s1 left out,
uW|s0|, and slope and scale off by at most 4u^2 of their size, 4u^2(A + W|s0|), altogether

    |y - (h + l)| <= B = 256u*(W*|s0| + u*A) + slack,     slack >= the lack of the center times |s0| + the lack of the shift,

in which 12*7 + 8 = 92 < 256 leaves room for the roundings of B, l - B and l + B. Where A < 2^-900, and yet not 0 by factors of 0, products may
have underflowed: at most 8 roundings of 2^-1074 are added, as 2^-1060; where A is larger they are less than u^2*A/2^60.

The ends h + (l - B) and h + (l + B) are rounded to `low` and `high`. As float64 they are monotone, so where they are equal, y rounds to them;
`high` is 0 where `low` is no finite float64, which decides nothing. To a narrower format one must not round twice: B grows by spread*|h|, where
4u|h| is more than the rounding of both ends to float64, so that they enclose y before they are rounded again.

Float32 results of float32 x and g seldom take that much. `settle` evaluates, in float64, with floats s, t and b that are within 16u of the
slope, scale and shift, and m0 + m1 within u|m1| of the center,

    a = x - m0        d = a - m1        h = d*s + (g*t + b)

where d is within 2u(1 + u)(|a| + |m1|) + u|m1| of x - center, h within 22u*A', A' = |s|(|a| + |m1|) + |g*t| + |b|, of y, but for terms of
second order, and h - B' and h + B' with B' = 32u*A' enclose y after they are rounded to float64. A plane in which the two round to different
float32 anywhere, or to a zero whose sign they do not tell, is left to `enclose`. Each constant is 0 or between 2^-300 and 2^300 in size, which
keeps products from over- and underflow: a and d are 0 or at least 2^-352.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy import uintp
from numpy.typing import NDArray

from npreparam.kernels import _threads
from npreparam.kernels._compile import kernel
from npreparam.kernels._tile import scalar_fma

Array = NDArray[Any]
UNIT = 2.0**-53
FACTOR = 256.0
RISKY, UNDERFLOW = 2.0**-900, 2.0**-1060
COLUMNS = 11
NEAR, LEAST, MOST = 32.0, 2.0**-300, 2.0**300
SMALL = 20_000


@kernel
def two_sum(a: float, b: float) -> tuple[float, float]:
    """s + error = a + b (Knuth, The art of computer programming 2, 4.2.2, theorem B)."""
    s = a + b
    back = s - a
    return s, (a - (s - back)) + (b - back)


@kernel
def enclose_planes(first: int, last: int, x: Any, g: Any, table: Any, shape: tuple[int, int, int], low: Any, high: Any) -> None:
    """The ends of y for the planes first..last-1 of x and g, flat, of shape (N, C, H*W)."""
    _, channels, length = shape
    for plane in range(first, last):
        row, at = table[plane % channels], plane * length
        m0, m1, m2, s0, s1, t0, t1, b0, b1, slack, spread = row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7], row[8], row[9], row[10]
        steep = abs(s0)
        for j in range(length):
            here = uintp(at + j)
            v, w = np.float64(x[here]), np.float64(g[here])
            a, r = two_sum(v, -m0)
            p, q = two_sum(a, -m1)
            d = q + (r - m2)
            prod, cross = p * s0, w * t0
            e = scalar_fma(p, s0, -prod) + (p * s1 + d * s0)
            f = scalar_fma(w, t0, -cross) + w * t1
            partial, i = two_sum(cross, b0)
            h, k = two_sum(prod, partial)
            tail = (k + i) + ((e + f) + b1)
            size, rest = abs(prod) + abs(cross) + abs(b0), (abs(d) + abs(r) + abs(m2)) * steep
            zero = (steep == 0 or (p == 0 and d == 0)) and (w == 0 or t0 == 0)
            bound = FACTOR * UNIT * (rest + UNIT * size) + slack + spread * abs(h) + (UNDERFLOW if size < RISKY and not zero else 0.0)
            end = h + (tail - bound)
            low[here] = end
            high[here] = h + (tail + bound) if abs(end) < np.inf else 0.0


def enclose(x: Array, g: Array, table: Array, shape: tuple[int, int, int], low: Array, high: Array) -> None:
    """`enclose_planes` for all planes; x, g, low and high are flat."""
    with np.errstate(all="ignore"):
        _threads.run(enclose_planes, shape[0] * shape[1], x, g, table, shape, low, high, small=x.size < SMALL)


@kernel
def settle_planes(first: int, last: int, x: Any, g: Any, near: Any, shape: tuple[int, int, int], y: Any, doubt: Any) -> None:
    """y rounded to float32 for the planes first..last-1, and which of them hold an element that is in doubt; a row of `near`: m0, m1, s, t, b."""
    _, channels, length = shape
    for plane in range(first, last):
        row, at, doubts = near[plane % channels], plane * length, 0
        m0, m1, s, t, b = row[0], row[1], row[2], row[3], row[4]
        steep, cross = NEAR * UNIT * abs(s), NEAR * UNIT * abs(t)
        least = steep * abs(m1) + NEAR * UNIT * abs(b)
        for j in range(length):
            here = uintp(at + j)
            a, w = np.float64(x[here]) - m0, np.float64(g[here])
            h, bound = (a - m1) * s + (w * t + b), abs(a) * steep + (abs(w) * cross + least)
            low, high = np.float32(h - bound), np.float32(h + bound)
            doubts += not ((low == high) & ((low != 0) | (bound == 0)))
            y[here] = high
        doubt[plane] = doubts > 0


def settle(x: Array, g: Array, near: Array, shape: tuple[int, int, int], y: Array) -> Array:
    """y of all planes, float32 like x and g, all flat; and the planes of which it is not all decided."""
    doubt = np.empty(shape[0] * shape[1], np.bool_)
    with np.errstate(all="ignore"):
        _threads.run(settle_planes, doubt.size, x, g, near, shape, y, doubt, small=x.size < SMALL)
    return np.flatnonzero(doubt)
