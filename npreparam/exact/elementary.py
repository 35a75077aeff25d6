"""Elementary functions of rationals, between two rationals as narrow as one likes: integer arithmetic, nothing else.

Series are summed in fixed point: an integer n stands for n*2^-w, and every shift and quotient rounds down. All terms are positive, so the
sum is a lower bound; the upper bound adds what was cut off, counted in units of 2^-w. `bits` asks for a relative distance of about
2^-bits; that the value is enclosed is proved below and never depends on it.
"""

from __future__ import annotations

import functools
from fractions import Fraction

from npreparam.exact import roots
from npreparam.exact.ziv import Interval, power_of_two

GUARD = 24  # units lost in a series of some thousand terms, and by the quotient k of `exp_between`: less than 2^24
LIMIT = 4096  # exp(LIMIT) = 2^5909: beyond every format, even divided by its largest number


def smallness(x: Fraction) -> int:
    """About -log2|x| where |x| < 1, else 0: the bits by which a fixed-point number must be longer to keep its relative precision."""
    return max(0, x.denominator.bit_length() - x.numerator.bit_length())


def fixed_atanh(z: Fraction, w: int) -> tuple[int, int]:
    """atanh(z) = z + z^3/3 + z^5/5 + ... for 0 <= z <= 1/3, in units of 2^-w: (low, high).

    The cut-off power p_j falls short of z^(2j+1) by e_j units: e_0 < 1, and since the cut-off square falls short by less than 2,
    e_(j+1) < e_j/9 + 2*z^(2j+1) + 1 <= e_j/9 + 5/3, hence always e_j < 15/8 < 2. So a term loses less than 2 + 1 units, and from the first
    power that is cut off to 0 on, the rest is below 2*(1 + 1/9 + 1/81 + ...) < 3.
    """
    power = (z.numerator << w) // z.denominator
    square = power * power >> w
    total, odd = 0, 1
    while power:
        total += power // odd
        power = power * square >> w
        odd += 2
    terms = odd // 2
    return total, total + 3 * terms + 3


@functools.cache
def fixed_log2(w: int) -> tuple[int, int]:
    """log(2) = 2*atanh(1/3) in units of 2^-w: (low, high)."""
    low, high = fixed_atanh(Fraction(1, 3), w)
    return 2 * low, 2 * high


def exp_between(x: Fraction, bits: int) -> Interval:
    """low <= exp(x) <= high for x <= LIMIT, which callers see to; below -LIMIT no more is said than 0 < exp(x) < 2^-LIMIT.

    |x| = k*log(2) + r with an integer k >= 0 and 0 <= r < 0.7, and exp(r) = 1 + r + r^2/2 + ... The cut-off term t_n falls short of r^n/n!
    by e_n units: e_n < e_(n-1)*r/n + 1, hence always e_n < 2. N terms lose 2*N, the rest from the first term that is cut off to 0 is below
    2*(1 + 0.7 + 0.7^2 + ...) < 7. r itself is known to 1 unit from x and k*(high - low) from log(2); exp(r) < 2.1 turns these into
    less than three times as many. For x < 0 the reciprocals of the ends are rounded outwards.

    >>> import math
    >>> low, high = exp_between(Fraction(1), 50)
    >>> float(low) == float(high) == math.e
    True
    """
    if x < -LIMIT:
        return Fraction(0), power_of_two(-LIMIT)
    w = bits + GUARD
    log2_low, log2_high = fixed_log2(w)
    k, r = divmod((abs(x.numerator) << w) // x.denominator, log2_high)
    low, term, n = 0, 1 << w, 0
    while term:
        low += term
        n += 1
        term = (term * r >> w) // n
    high = low + 2 * n + 7 + 3 * (1 + k * (log2_high - log2_low))
    if x < 0:
        low, high, k = (1 << 2 * w) // high, (1 << 2 * w) // low + 1, -k
    return power_of_two(k - w) * low, power_of_two(k - w) * high


def expm1_between(x: Fraction, bits: int) -> Interval:
    """low <= exp(x) - 1 <= high; by exp(|x|) for -1 < x < 0, where exp(-y) - 1 = -e/(1 + e) for e = exp(y) - 1."""
    if -1 < x < 0:
        low, high = expm1_between(-x, bits)
        return -high / (1 + high), -low / (1 + low)
    low, high = exp_between(x, bits + smallness(x))
    return low - 1, high - 1


def log_between(v: Fraction, bits: int) -> Interval:
    """low <= log(v) <= high for v > 0, exactly 0 for 1.

    v = m*2^k with 2/3 <= m <= 4/3, and log(m) = 2*atanh((m - 1)/(m + 1)). Where k is not 0, |log(v)| >= log(4/3), so nothing cancels.

    >>> import math
    >>> low, high = log_between(Fraction(10), 60)
    >>> float(low) == float(high) == math.log(10)
    True
    """
    if v == 1:
        return Fraction(0), Fraction(0)
    k = v.numerator.bit_length() - v.denominator.bit_length()
    m = v * power_of_two(-k)
    shift = (m > Fraction(4, 3)) - (m < Fraction(2, 3))
    k, m = k + shift, m * power_of_two(-shift)
    z = (m - 1) / (m + 1)
    w = bits + GUARD + (0 if k else smallness(z))
    low, high = (2 * end for end in fixed_atanh(abs(z), w))
    if z < 0:
        low, high = -high, -low
    log2 = fixed_log2(w) if k else (0, 0)
    low, high = low + min(k * end for end in log2), high + max(k * end for end in log2)
    return power_of_two(-w) * low, power_of_two(-w) * high


def log1p_of_interval(s: Interval, bits: int) -> Interval:
    """Between log(1 + s) at the lower end and at the upper end of s >= 0."""
    return log_between(1 + s[0], bits)[0], log_between(1 + s[1], bits)[1]


def sqrt_between(v: Fraction, bits: int) -> Interval:
    """low <= sqrt(v) <= high for v > 0, exactly the root where it is rational.

    >>> sqrt_between(Fraction(9, 4), 10)
    (Fraction(3, 2), Fraction(3, 2))
    """
    root = roots.rational_sqrt(v)
    return roots.sqrt_between(v, bits) if root is None else (root, root)


@functools.cache
def pi_between(bits: int) -> Interval:
    """low <= pi <= high, by Machin's 4*(4*atan(1/5) - atan(1/239)).

    atan(1/n) = 1/n - 1/(3*n^3) + ...: N terms lose less than 1 unit each, above or below, and the rest is below 1 unit.

    >>> import math
    >>> low, high = pi_between(60)
    >>> float(low) == float(high) == math.pi
    True
    """
    w, total, lost = bits + GUARD, 0, 0
    for factor, n in ((16, 5), (-4, 239)):
        power, odd = (1 << w) // n, 1
        while power:
            total += factor * (power // odd)
            lost += abs(factor)
            power, odd, factor = power // (n * n), odd + 2, -factor
        lost += abs(factor)
    return power_of_two(-w) * (total - lost), power_of_two(-w) * (total + lost)
