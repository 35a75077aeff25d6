"""Candidates in a wider format with a bound on their error: float64 for float16, bfloat16 and float32, longdouble for float64.

u is the unit roundoff of the wider format, and its functions are *assumed* to be right to 8u, as in `functions`. Where longdouble is no wider than
float64, nothing is decided.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from npreparam._errors import ArgumentError
from npreparam.certified._affine import Array, as_array, settled
from npreparam.certified._record import Certified
from npreparam.certified.functions import RANGE, WIDER


def finite(x: Any, name: str) -> Array:
    """x as an array of one of the formats, without NaN and infinities."""
    x = as_array(x, name)
    with np.errstate(invalid="ignore"):  # ml_dtypes, of a signalling NaN
        if not np.isfinite(x).all():
            raise ArgumentError(f"`{name}` holds NaN or infinity, which are no rational numbers; remove them, or mask the results")
    return x


class Wide:
    """The wider format for these dtypes: its type, unit roundoff, and what is as good as 0 or infinity."""

    def __init__(self, *dtypes: np.dtype[Any]) -> None:
        name = "float64" if any(dtype == np.float64 for dtype in dtypes) else "float32"
        self.type = WIDER[name]
        self.decides = name != "float64" or np.finfo(self.type).nmant in (63, 112)
        self.unit = np.finfo(self.type).eps / 2
        self.tiny, self.huge = (np.ldexp(self.type(1), sign * RANGE[name if self.decides else "float32"]) for sign in (-1, 1))

    def of(self, *arrays: Array) -> list[Array]:
        """The arrays in the wider format, exactly."""
        return [array.astype(self.type) for array in arrays]

    def rounded(self, y: Array, units: Array, dtype: np.dtype[Any], repair: Callable[[Array], Sequence[int]],
                least: Array | float = -np.inf) -> Certified:
        """y correctly rounded, known to be wrong by `units` times u at most, or by `tiny`, and to be no less than `least`.

        2% more, and 2u|y|, leave room for terms of second order and for the rounding of both ends. `repair` gets flat indices.
        """
        y = np.clip(y, -self.huge, self.huge)
        radius = (1.02 * units + 2 * np.abs(y)) * self.unit + self.tiny if self.decides else np.full(y.shape, np.inf, self.type)
        low, high = np.maximum(y - radius, least), y + radius
        ends = [np.asarray(end, np.float64).reshape(-1) for end in (low, high)]
        if self.type is not np.float64 and dtype != np.float64:  # to be rounded again: so they must still enclose y
            ends = [np.nextafter(end, side) for end, side in zip(ends, (-np.inf, np.inf), strict=True)]
            ends[0] = np.maximum(ends[0], np.asarray(np.broadcast_to(least, y.shape), np.float64).reshape(-1))
        value, repaired = settled(*ends, dtype, repair)
        return Certified(value.reshape(y.shape), repaired)
