"""Between floating-point formats and rational numbers: exact one way, one correct rounding the other.

A format with p significant bits and smallest normal exponent e_min holds m*2^q with |m| < 2^p and q >= e_min - p + 1. A rational number is
rounded to the nearest such value, ties to even m; from the midpoint between the largest finite value and the next power of two on, to
infinity (IEEE 754-2019, 4.3.1). float8_e4m3fn has no infinity: what lies beyond the midpoint between its largest value, 448, and 480 is NaN
(Micikevicius et al., FP8 formats for deep learning, arXiv 2209.05433, section 3; not the saturating conversion that some hardware has). An
exact zero is +0; a negative number that is rounded to zero gives -0. NaN and infinities are no rationals: `as_fractions` refuses them,
`as_numbers` keeps them as `Special`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npreparam._errors import ArgumentError, DTypeError, ShapeError
from npreparam.exact.special import Special

Array = NDArray[Any]
Rational = Fraction | int


class Format(NamedTuple):
    """A binary format: significant bits, smallest and largest exponent of a normal number, integer type of its bits, has it infinities."""

    precision: int
    e_min: int
    e_max: int
    bits: type[np.unsignedinteger[Any]]
    infinities: bool = True

    @property
    def overflow(self) -> int:
        """The bits that follow those of the largest finite value: infinity, or NaN where there is none."""
        return ((self.e_max - self.e_min + 2) << (self.precision - 1)) - (not self.infinities)

    @property
    def nan(self) -> int:
        """The bits of a quiet NaN."""
        return self.overflow | 1 << (self.precision - 2)


FORMATS = {
    "float16": Format(11, -14, 15, np.uint16),
    "bfloat16": Format(8, -126, 127, np.uint16),
    "float32": Format(24, -126, 127, np.uint32),
    "float64": Format(53, -1022, 1023, np.uint64),
    "float8_e4m3fn": Format(4, -6, 8, np.uint8, infinities=False),
    "float8_e5m2": Format(3, -14, 15, np.uint8),
}
TF32 = Format(11, -126, 127, np.uint32)  # float32 without its last 13 bits; the dtype that holds it is float32
FROM_ML_DTYPES = ("bfloat16", "float8_e4m3fn", "float8_e5m2")


def dtype_of(out_dtype: Any) -> np.dtype[Any]:
    """A NumPy dtype, of the machine's byte order, for a dtype or its name; bfloat16 and float8 come from ml_dtypes (extra `judge`)."""
    if str(out_dtype) in FROM_ML_DTYPES:
        try:
            import ml_dtypes
        except ImportError:
            raise ImportError(f"{out_dtype} needs ml_dtypes: pip install 'npreparam[judge]'") from None
        return np.dtype(getattr(ml_dtypes, str(out_dtype)))
    try:
        dtype = None if out_dtype is None else np.dtype(out_dtype)  # np.dtype(None) would be float64
    except TypeError:
        dtype = None
    if dtype is None or dtype.name not in FORMATS:
        raise DTypeError(f"`out_dtype` (={str(out_dtype)!r}), by default the dtype of the first argument, "
                         f"must be one of {', '.join(FORMATS)}")
    return dtype.newbyteorder("=")


def result_dtype(out_dtype: Any, first: Any) -> np.dtype[Any]:
    """The dtype to round to, "same" standing for that of the first argument; None is refused."""
    return dtype_of(np.asarray(first).dtype if isinstance(out_dtype, str) and out_dtype == "same" else out_dtype)


def round_to_bits(value: Rational | Special, form: Format) -> int:
    """The bits of the value of a format nearest to a rational number, ties to even; a `Special` has the bits of its own.

    >>> hex(round_to_bits(Fraction(1, 3), FORMATS["float32"]))
    '0x3eaaaaab'
    """
    sign_bit = 1 << (np.dtype(form.bits).itemsize * 8 - 1)
    if isinstance(value, Special):
        return form.overflow | (sign_bit if value.sign < 0 else 0) if value.sign else form.nan
    return round_ratio(value.numerator, value.denominator, form)


def round_ratio(numerator: int, denominator: int, form: Format) -> int:
    """The same of numerator/denominator, which need not be coprime; the denominator is positive.

    >>> round_ratio(2, 6, FORMATS["float32"]) == round_to_bits(Fraction(1, 3), FORMATS["float32"])
    True
    """
    sign = 1 << (np.dtype(form.bits).itemsize * 8 - 1) if numerator < 0 else 0
    numerator = abs(numerator)
    if not numerator:
        return 0
    exponent = numerator.bit_length() - denominator.bit_length()
    if numerator << max(0, -exponent) < denominator << max(0, exponent):
        exponent -= 1  # now 2^exponent <= magnitude < 2^(exponent+1)
    quantum = max(exponent, form.e_min) - form.precision + 1
    divisor = denominator << max(0, quantum)
    significand, rest = divmod(numerator << max(0, -quantum), divisor)
    if 2 * rest > divisor or (2 * rest == divisor and significand % 2):
        significand += 1
    # The bits of a finite value read as an integer count the values of the format from 0 up, so carries need no case of their own.
    bits = significand + ((max(exponent, form.e_min) - form.e_min) << (form.precision - 1))
    return min(bits, form.overflow) | sign


def round_numbers(values: Array, form: Format) -> Array:
    """The bits of an object array of rationals and `Special`s, each rounded once."""
    return np.array([round_to_bits(value, form) for value in values.ravel()], form.bits).reshape(values.shape)


def round_array(values: Any, out_dtype: Any) -> Array:
    """An array of rationals (or floats, which are rationals), each rounded once to the nearest value of a dtype.

    NaN and infinities stay what they are, where the dtype has them. Raises DTypeError.

    >>> round_array(np.array([Fraction(1, 3)], dtype=object), np.float32)
    array([0.33333334], dtype=float32)
    """
    dtype = dtype_of(out_dtype)
    return round_numbers(as_numbers(values, "values"), FORMATS[dtype.name]).view(dtype)


def round_tf32(array: Any) -> Array:
    """A float32 array with every element rounded to the 11 significant bits of TF32, in the exponent range of float32.

    Rounding: once, to nearest, ties to even; subnormal results are multiples of 2^-136; overflow to infinity. Signs of zeros, NaN and
    infinities stay. Raises DTypeError (not float32).

    Source: Fasi, Higham, Mikaitis and Pranesh, PeerJ Computer Science 7:e330, 2021 (1 + 8 + 10 bits); hardware may truncate instead.

    >>> round_tf32(np.float32([1 + 2**-11, 1 + 3 * 2**-11]))    # two ties: to even
    array([1.       , 1.0019531], dtype=float32)
    """
    array = np.asarray(array)
    if array.dtype.name != "float32":
        raise DTypeError(f"`array` has dtype {array.dtype}, but must be float32, whose first 19 bits are TF32; convert it first")
    magnitudes = round_numbers(as_numbers(np.abs(array), "array"), TF32) << np.uint32(13)
    return np.copysign(magnitudes.view(np.float32), array)


def as_numbers(array: Any, name: str) -> Array:
    """An array of floats or integers as an object array of the rationals they are; NaN and infinities as `Special`.

    Raises DTypeError.
    """
    array = np.asarray(array)
    if array.dtype == object:
        if not all(isinstance(value, Fraction | int) for value in array.ravel()):
            raise DTypeError(f"`{name}` is an object array that holds other things than Fractions and ints")
    elif array.dtype.kind not in "iu" and array.dtype.name not in FORMATS:
        raise DTypeError(f"`{name}` has dtype {array.dtype}, but must be an integer type or one of {', '.join(FORMATS)}")
    result = np.empty(array.shape, object)  # of Fractions alone: an int among them would turn into a float when divided
    if array.dtype.kind in "iuO":
        result.ravel()[:] = [Fraction(value) for value in array.ravel().tolist()]
        return result
    with np.errstate(invalid="ignore"):  # a signalling NaN is a NaN
        values = array.astype(np.float64).ravel().tolist()  # exact from every format
    result.ravel()[:] = [Fraction(value) if math.isfinite(value) else Special.of(value) for value in values]
    return result


def as_fractions(array: Any, name: str) -> Array:
    """An array of floats or integers as an object array of the rationals they are; NaN and infinities raise.

    Raises DTypeError, ArgumentError.

    >>> as_fractions(np.array([0.5]), "x")
    array([Fraction(1, 2)], dtype=object)
    """
    numbers = as_numbers(array, name)
    if any(isinstance(number, Special) for number in numbers.ravel()):
        raise ArgumentError(f"`{name}` holds NaN or infinity, which are no rational numbers; remove them, or round to a float `out_dtype`")
    return numbers


def operand(array: Any, name: str, out_dtype: Any) -> Array:
    """`array` as rationals, with NaN and infinities where the result is rounded and can hold them."""
    return as_fractions(array, name) if out_dtype is None else as_numbers(array, name)


def over_common(numbers: Array) -> tuple[Array, Fraction]:
    """(integers, unit) with numbers = integers*unit: sums of products of integers need no greatest common divisors.

    >>> over_common(np.array([Fraction(1, 2), Fraction(3, 4)]))
    (array([2, 3], dtype=object), Fraction(1, 4))
    """
    denominator = math.lcm(*(number.denominator for number in numbers.ravel() if not isinstance(number, Special)))
    integers = np.empty(numbers.shape, object)
    integers.ravel()[:] = [number if isinstance(number, Special) else number.numerator * (denominator // number.denominator)
                           for number in numbers.ravel()]
    return integers, Fraction(1, denominator)


def checked(array: Array, name: str, shape: Sequence[int]) -> Array:
    """`array`, or ShapeError where NumPy would broadcast it and a loop would read but a part of it."""
    if array.shape != tuple(shape):
        raise ShapeError(f"`{name}` has shape {array.shape}, but must have shape {tuple(shape)}")
    return array


def finish(values: Any, out_dtype: Any, default: Any) -> Array:
    """Round to `out_dtype`, "same" standing for the dtype of an input; None leaves rationals."""
    values = np.asarray(values, object)  # a single number where an operation left no axes
    if out_dtype is None:
        return values
    dtype = result_dtype(out_dtype, default)
    return round_numbers(values, FORMATS[dtype.name]).view(dtype)
