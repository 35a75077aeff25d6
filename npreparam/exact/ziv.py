"""Correct rounding of a real number that is known only between two rationals, as narrow as one likes: Ziv's loop.

All values of a format with p bits that round to one number lie between two halfway points, and the halfway points are the odd values of the
format with p + 1 bits. The two rationals are narrowed until no halfway point lies between them. That ends unless the value is itself a
halfway point; so every function says for which arguments its value is rational, and gives those exactly (low = high). An irrational value
lies on no halfway point and on neither end.

Source: Ziv, Fast evaluation of elementary mathematical functions with correctly rounded last bit, ACM TOMS 17(3), 1991.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Any

import numpy as np

from npreparam.exact.rounding import FORMATS, Array, Format, round_to_bits

Interval = tuple[Fraction, Fraction]
Bracket = Callable[[int], Interval]

EXTRA_BITS = 32  # of 2^32 values, about one needs a second round
MOST_BITS = 2**14  # twice what x + exp(-x) needs below `elementary.LIMIT` where x is a halfway point, and more


def round_real(bracket: Bracket, form: Format) -> int:
    """The bits of the value of a format nearest to a real number, ties to even; `bracket(bits)` encloses it, the closer the more bits.

    The value lies strictly between the ends, unless they are equal.

    Raises ArithmeticError where `MOST_BITS` bits do not decide: an exact case that the bracket does not know, or a bracket that stays wide.

    >>> third = Fraction(1, 3)    # pretend that it is known only from below and from above
    >>> hex(round_real(lambda bits: (third - Fraction(1, 2**bits), third + Fraction(1, 2**bits)), FORMATS["float32"]))
    '0x3eaaaaab'
    """
    bits = form.precision + EXTRA_BITS
    while bits <= MOST_BITS:
        low, high = bracket(bits)
        candidate = round_to_bits((low + high) / 2, form)
        if low == high or encloses(candidate, low, high, form):
            return candidate
        bits *= 2
    raise ArithmeticError(f"{MOST_BITS} bits do not tell whether the value is above or below a halfway point next to the value with bits "
                          f"{candidate:#x}; it seems to lie on it, or its bracket does not narrow")


def encloses(bits: int, low: Fraction, high: Fraction, form: Format) -> bool:
    """Whether everything strictly between low and high rounds to the value with these bits; the two zeros are two values."""
    sign_bit = 1 << (np.dtype(form.bits).itemsize * 8 - 1)
    if bits & sign_bit:
        low, high = -high, -low
    index = bits & ~sign_bit
    return halfway(2 * index - 1, form) <= low and (index == form.overflow or high <= halfway(2 * index + 1, form))


def halfway(index: int, form: Format) -> Fraction:
    """The value number `index` from 0 upwards of the format with one bit more; 0 for -1, since below 0 the sign bit changes.

    >>> halfway(1, FORMATS["float32"]) == Fraction(2) ** -150    # between 0 and the smallest subnormal number
    True
    """
    exponent, significand = divmod(max(index, 0), 1 << form.precision)
    if exponent:
        exponent, significand = exponent - 1, significand | 1 << form.precision
    return power_of_two(exponent + form.e_min - form.precision) * significand


def power_of_two(exponent: int) -> Fraction:
    """2^exponent, by shifts."""
    return Fraction(1 << exponent) if exponent >= 0 else Fraction(1, 1 << -exponent)


def round_reals(brackets: Iterable[Bracket], shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An array of correctly rounded reals, one for each bracket."""
    form = FORMATS[dtype.name]
    return np.array([round_real(bracket, form) for bracket in brackets], form.bits).view(dtype).reshape(shape)
