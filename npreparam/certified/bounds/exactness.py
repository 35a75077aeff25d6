"""Data on which every direct implementation must be exact: no partial sum, in any order, needs more bits than the accumulator has."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from npreparam import ops
from npreparam._errors import ArgumentError
from npreparam._shapes import Padding, Size2, as_int
from npreparam.certified.bounds._majorant import Floats, as_finite, quiet
from npreparam.exact.rounding import FORMATS

NONE = 2000  # the trailing exponent of zero: above any number's, since zero is a multiple of everything


def trailing_exponent(x: Floats) -> NDArray[np.int64]:
    """The largest e for which a float64 number is an integer multiple of 2^e; `NONE` for zero.

    >>> trailing_exponent(np.array([1.0, 12.0, 0.75, 0.0])).tolist()
    [0, 2, -2, 2000]
    """
    significand, exponent = np.frexp(x)
    whole = np.ldexp(np.abs(significand), 53).astype(np.int64)
    lowest = np.frexp((whole & -whole).astype(np.float64))[1] - 1
    return np.where(x == 0, NONE, exponent.astype(np.int64) - 53 + lowest)


@quiet
def is_order_free(x: Any, w: Any, b: Any = None, stride: Size2 = 1, padding: Padding = 0, dilation: Size2 = 1, groups: int = 1,
                  significand_bits: int = 24) -> NDArray[np.bool_]:
    """Where every order, blocking and fusing of a direct convolution, in an accumulator of p bits, must give the exact result.

    Let q = 2^(least trailing exponent in an image + that in a kernel), and at most b's. Every partial sum is a multiple of q and at most
    S = sum |x||w| + |b|; so if S <= 2^p*q it needs p bits at most, and no operation rounds. Truncating accumulators are exact as well.

    x is NCHW, w OIHW, b (O,); `significand_bits` is p: 24 for float32, 11 for float16 (8 for bfloat16) accumulators, at most 53. True also needs
    all numbers to be normal in the narrowest of the formats with p bits, so that neither overflow, underflow nor flushing to zero matters.
    Formats of operands and outputs must hold their numbers: operands of at most 11 bits survive rounding to TF32.

    Raises ShapeError, DTypeError, ArgumentError.

    Source: the argument above; ASNA, section 2.1, for sums of integers below 2^p.

    >>> x, w = np.array([[[[2.0**23, 1.0]]]]), np.ones((1, 1, 1, 2))
    >>> is_order_free(x, w).item(), is_order_free(x, 0.5 * w).item(), is_order_free(x, w, significand_bits=23).item()
    (True, True, False)
    """
    bits = as_int(significand_bits, "significand_bits", 1)
    if bits > 53:
        raise ArgumentError(f"`significand_bits` (={bits}) must be at most 53: the sums are checked in float64")
    form = min((form for form in FORMATS.values() if form.precision >= bits), key=lambda form: form.precision)
    x, w = as_finite(x, "x"), as_finite(w, "w")
    bias = None if b is None else as_finite(b, "b")
    size = ops.conv2d(np.abs(x), np.abs(w), None if bias is None else np.abs(bias), stride, padding, dilation, groups)
    of_x = trailing_exponent(x).min((1, 2, 3), initial=NONE)[:, None]
    of_w = trailing_exponent(w).min((1, 2, 3), initial=NONE)
    q = of_x + of_w if bias is None else np.minimum(of_x + of_w, trailing_exponent(bias))
    lowest = np.minimum(np.minimum(of_x, of_w), q)
    # As a multiple of q the float64 sum is exact up to 2^53*q, so with p < 53 the comparison is; with 53 one bit is given away.
    fits = size <= np.ldexp(1.0, np.minimum(min(bits, 52) + q, 1023))[:, :, None, None]
    return fits & (size < 2.0**form.e_max) & (lowest >= form.e_min)[:, :, None, None]
