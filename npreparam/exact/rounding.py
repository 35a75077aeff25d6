"""Between floating-point formats and rational numbers: exact one way, one correct rounding the other.

A format with p significant bits and smallest normal exponent e_min holds m*2^q with |m| < 2^p and q >= e_min - p + 1. A rational number is
rounded to the nearest such value, ties to even m; from the midpoint between the largest finite value and the next power of two on, to
infinity (IEEE 754-2019, 4.3.1). Zero is +0 unless a negative number was rounded to it. NaN and infinities are no rationals: refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npreparam._errors import ArgumentError, DTypeError, ShapeError

Array = NDArray[Any]
Rational = Fraction | int


class Format(NamedTuple):
    """A binary format: significant bits, smallest and largest exponent of a normal number, and the integer type of its bits."""

    precision: int
    e_min: int
    e_max: int
    bits: type[np.unsignedinteger[Any]]


FORMATS = {
    "float16": Format(11, -14, 15, np.uint16),
    "bfloat16": Format(8, -126, 127, np.uint16),
    "float32": Format(24, -126, 127, np.uint32),
    "float64": Format(53, -1022, 1023, np.uint64),
}


def dtype_of(out_dtype: Any) -> np.dtype[Any]:
    """A NumPy dtype, of the machine's byte order, for a dtype or its name; bfloat16 comes from ml_dtypes (extra `judge`)."""
    if str(out_dtype) == "bfloat16":
        try:
            import ml_dtypes
        except ImportError:
            raise ImportError("bfloat16 needs ml_dtypes: pip install 'npreparam[judge]'") from None
        return np.dtype(ml_dtypes.bfloat16)
    try:
        dtype = None if out_dtype is None else np.dtype(out_dtype)  # np.dtype(None) would be float64
    except TypeError:
        dtype = None
    if dtype is None or dtype.name not in FORMATS:
        raise DTypeError(f"`out_dtype` (={str(out_dtype)!r}), by default the dtype of the first argument, "
                         f"must be one of {', '.join(FORMATS)}")
    return dtype.newbyteorder("=")


def round_to_bits(value: Rational, form: Format) -> int:
    """The bits of the value of a format nearest to a rational number, ties to even.

    >>> hex(round_to_bits(Fraction(1, 3), FORMATS["float32"]))
    '0x3eaaaaab'
    """
    width = np.dtype(form.bits).itemsize * 8
    sign = int(value < 0) << (width - 1)
    magnitude = abs(Fraction(value))
    if not magnitude:
        return sign
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    if magnitude < Fraction(2) ** exponent:
        exponent -= 1  # now 2^exponent <= magnitude < 2^(exponent+1)
    quantum = max(exponent, form.e_min) - form.precision + 1
    scaled = magnitude / Fraction(2) ** quantum
    significand = round(scaled)  # Python rounds a Fraction to the nearest integer, ties to even
    # The bits of a finite value read as an integer count the values of the format from 0 up, so carries need no case of their own.
    bits = significand + ((max(exponent, form.e_min) - form.e_min) << (form.precision - 1))
    infinity = (form.e_max - form.e_min + 2) << (form.precision - 1)
    return sign | min(bits, infinity)


def round_array(values: Any, out_dtype: Any) -> Array:
    """An array of rationals (or floats, which are rationals), each rounded once to the nearest value of a dtype.

    Raises DTypeError, ArgumentError (NaN or infinity).

    >>> round_array(np.array([Fraction(1, 3)], dtype=object), np.float32)
    array([0.33333334], dtype=float32)
    """
    dtype = dtype_of(out_dtype)
    form, values = FORMATS[dtype.name], as_fractions(values, "values")
    bits = np.array([round_to_bits(value, form) for value in values.ravel()], form.bits)
    return bits.view(dtype).reshape(values.shape)


def as_fractions(array: Any, name: str) -> Array:
    """An array of floats or integers as an object array of the rationals they are; NaN and infinities raise.

    >>> as_fractions(np.array([0.5]), "x")
    array([Fraction(1, 2)], dtype=object)
    """
    array = np.asarray(array)
    if array.dtype == object:
        if not all(isinstance(value, Fraction | int) for value in array.ravel()):
            raise DTypeError(f"`{name}` is an object array that holds other things than Fractions and ints")
    elif array.dtype.kind not in "iu" and array.dtype.name not in FORMATS:
        raise DTypeError(f"`{name}` has dtype {array.dtype}, but must be an integer type or one of {', '.join(FORMATS)}")
    if array.dtype.kind not in "iuO":
        with np.errstate(invalid="ignore"):  # a signalling NaN is reported below
            array = array.astype(np.float64)  # exact from every format
        if not np.isfinite(array).all():
            raise ArgumentError(f"`{name}` holds NaN or infinity, which are no rational numbers; remove them first")
    result = np.empty(array.shape, object)  # of Fractions alone: an int among them would turn into a float when divided
    result.ravel()[:] = [Fraction(value) for value in array.ravel().tolist()]
    return result


def checked(array: Array, name: str, shape: Sequence[int]) -> Array:
    """`array`, or ShapeError where NumPy would broadcast it and a loop would read but a part of it."""
    if array.shape != tuple(shape):
        raise ShapeError(f"`{name}` has shape {array.shape}, but must have shape {tuple(shape)}")
    return array


def finish(values: Array, out_dtype: Any, default: Any) -> Array:
    """Round to `out_dtype`, "same" standing for the dtype of an input; None leaves rationals."""
    if out_dtype is None:
        return values
    if isinstance(out_dtype, str) and out_dtype == "same":
        out_dtype = np.asarray(default).dtype
    return round_array(values, out_dtype)
