"""Sums of products of matrices of rational numbers: over common denominators, with integers, and large ones as float64 matrices of their digits.

Digits have 16 bits, so a product of two has 32, and a sum of up to 2^21 products is exact in float64. Products and sums of digits are those of
the integers; carries wait until all sums are made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

DIGIT = 16  # bits
MOST_SUMMED = 2**21  # products of two digits whose sum is below 2^53
MOST_DIGITS = 2**8  # of which numbers are made: beyond, their squares are slower than integers
FEWEST = 2**10  # products in one matrix product that are worth taking numbers apart

Pairs = Iterable[tuple[Hashable, int, int]]


def summed_products(left: Array, right: Array, pairs: Pairs, multiply: Callable[..., Array]) -> Array:
    """For each place the sum of multiply(left[i], right[j]) over its `pairs` (place, i, j), stacked in the order of the places.

    `multiply` is np.matmul or np.multiply. Fractions and integers come out as Fractions, all other numbers by `multiply` itself.

    >>> half = np.full((1, 2, 2), Fraction(1, 2), object)
    >>> summed_products(half, half, [("here", 0, 0), ("here", 0, 0)], np.matmul)[0, 0, 0]
    Fraction(1, 1)
    """
    if not (is_rational(left) and is_rational(right)):
        return _summed(pairs, lambda i, j: multiply(left[i], right[j]))
    (whole, below), (other, below_other) = map(over_common_denominator, (left, right))
    counts = _digit_count(whole), _digit_count(other)
    channels = whole.shape[-1]
    size = whole[0].size * other.shape[-1] if len(whole) else 0
    if multiply is np.matmul and size >= FEWEST and channels <= MOST_SUMMED and max(counts) <= MOST_DIGITS:
        digits, more = _digits(whole, counts[0]), _digits(other, counts[1])
        numbers = _integers(_summed(pairs, lambda i, j: _digit_products(digits[:, i], more[:, j])))
    else:
        numbers = _summed(pairs, lambda i, j: multiply(whole[i], other[j]))
    return fractions_over(numbers, below * below_other)


def _summed(pairs: Pairs, product: Callable[[int, int], Array]) -> Array:
    sums: dict[Hashable, Array] = {}
    for place, i, j in pairs:
        found = product(i, j)
        sums[place] = sums[place] + found if place in sums else found
    return np.stack(list(sums.values()))


def is_rational(numbers: Array) -> bool:
    """Whether an array holds Fractions and integers alone."""
    return numbers.dtype == object and all(type(number) in (Fraction, int) for number in numbers.flat)


def fractions_over(numbers: Array, denominator: int) -> Array:
    """Integers, divided by one number."""
    result = np.empty(numbers.shape, object)
    result.flat = [Fraction(number, denominator) for number in numbers.flat]
    return result


def over_common_denominator(numbers: Array) -> tuple[Array, int]:
    """Integers and the one denominator under them."""
    denominator = math.lcm(*{number.denominator for number in numbers.flat})
    whole = np.empty(numbers.shape, object)
    whole.flat = [number.numerator * (denominator // number.denominator) for number in numbers.flat]
    return whole, denominator


def _digit_count(numbers: Array) -> int:
    """How many digits hold the largest integer and its sign."""
    return max((number.bit_length() for number in numbers.flat), default=0) // DIGIT + 1


def _digits(numbers: Array, count: int) -> Array:
    """(count, ...): the digits of integers, the lowest first, each from 0 to 2^16 - 1, but the highest from -2^15 to 2^15 - 1."""
    size = count * DIGIT // 8
    text = b"".join([number.to_bytes(size, "little", signed=True) for number in numbers.flat])
    digits = np.frombuffer(text, "<u2").reshape(numbers.size, count).T.astype(np.float64, order="C")  # rows in a row: BLAS copies no others
    digits[-1] -= (digits[-1] >= 2 ** (DIGIT - 1)) * 2.0**DIGIT
    return digits.reshape(count, *numbers.shape)


def _digit_products(a: Array, b: Array) -> Array:
    """The products of two matrices of digits, as digits that are not carried."""
    found = np.zeros((len(a) + len(b) - 1, *a.shape[1:-1], b.shape[-1]), np.int64)
    for i, digit in enumerate(a):
        for j, other in enumerate(b):
            found[i + j] += np.matmul(digit, other).astype(np.int64)
    return found


def _integers(digits: Array) -> Array:
    """The integers (places, ...) that sums of digits (places, count, ...) are."""
    digits = np.moveaxis(digits, 1, 0)
    count = len(digits) + 4  # room for what is carried from the highest: an int64
    text, carried = np.empty((*digits.shape[1:], count), "<u2"), np.zeros(digits.shape[1:], np.int64)
    for i in range(count):
        carried = carried + digits[i] if i < len(digits) else carried
        text[..., i] = carried & (2**DIGIT - 1)
        carried = carried >> DIGIT
    content, size = text.tobytes(), count * DIGIT // 8
    result: Any = np.empty(digits.shape[1:], object)
    result.flat = [int.from_bytes(content[at:at + size], "little", signed=True) for at in range(0, len(content), size)]
    return result
