"""Affine maps of channels, correctly rounded: enclosed by a kernel, and where both ends do not round alike, decided by integers.

The constants of a channel are exact: rational numbers, or rational multiples of the inverse root of a rational number. They reach the kernel
as sums of floats together with a bound on what those lack, which is computed exactly, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npreparam import kernels
from npreparam._errors import DTypeError
from npreparam.certified._trust import trust_the_machine
from npreparam.certified.functions import WIDER, narrowed
from npreparam.exact.roots import InverseRoot, Number
from npreparam.exact.rounding import FORMATS
from npreparam.exact.special import Special
from npreparam.kernels._scratch import scratch

Array = NDArray[Any]
Floats = tuple[list[float], float]

ROOT_BITS = 160  # the relative distance of a root's brackets is below 2^-(this - 2)
SMALLEST, TINY = 2.0**-1074, 2.0**-1000
ONE = Fraction(1)
NONE: Floats = [0.0, 0.0], 0.0


def as_array(x: Any, name: str) -> Array:
    """x with the machine's byte order, its dtype one of the formats."""
    x = np.asarray(x)
    if x.dtype.name not in WIDER:
        raise DTypeError(f"`{name}` has dtype {x.dtype}, but must be one of {', '.join(WIDER)}")
    return x.astype(x.dtype.newbyteorder("="), copy=False)


def target(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """`dtype`, the format of the result."""
    if dtype.name not in WIDER:
        raise DTypeError(f"`out_dtype` (={dtype.name!r}) must be one of {', '.join(WIDER)}")
    return dtype


def flat(x: Array, wide: bool = False) -> Array:
    """x in C order, without its axes, for a kernel: float64 if it is that or `wide`, else float32."""
    kind = np.float64 if wide or x.dtype == np.float64 else np.float32
    with np.errstate(invalid="ignore"):  # a signalling NaN is a NaN
        return np.require(x.astype(kind, copy=False), requirements=["C", "A", "W"]).reshape(-1)


def plane_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(N, C, H*W) of NCHW or (N, C)."""
    return shape[0], shape[1], int(np.prod(shape[2:], dtype=np.int64))


def number(value: Any) -> Number:
    """The number that a float is."""
    value = float(value)
    return Special.of(value) if value - value else Fraction(value)


def as_floats(a: Number, root: InverseRoot | None = None, count: int = 2) -> Floats:
    """a, or a*root, as a sum of floats, each the rest correctly rounded, and a bound on what they lack; NaN if it has no floats near.

    The rest of a correctly rounded quotient q is at most u*|q|, or half the smallest float, and zero where the numerator is.
    """
    factor, blur = ONE if root is None else root.value, 0.0
    if factor is None and not isinstance(a, Special):
        factor, blur = root.between(ROOT_BITS)[0], 2.0 ** (2 - ROOT_BITS)
    if isinstance(a, Special) or isinstance(factor, Special):
        return [math.nan] * count, math.nan
    floats, lack = quotient(a.numerator * factor.numerator, a.denominator * factor.denominator, count)
    return floats, lack + blur * abs(floats[0]) * (1 + 2.0**-50)


def quotient(top: int, bottom: int, count: int = 1) -> Floats:
    """`as_floats` of top/bottom, which need not be coprime: no greatest common divisor is looked for."""
    try:
        floats = [top / bottom]  # integers are divided with one correct rounding
        while len(floats) < count:
            over, under = floats[-1].as_integer_ratio()
            top, bottom = top * under - over * bottom, bottom * under
            floats.append(top / bottom)
    except OverflowError:
        return [math.nan] * count, math.nan
    return floats, max(2.0**-53 * abs(floats[-1]), SMALLEST) if top else 0.0


def row(center: Floats, slope: Floats, scale: Floats = NONE, shift: Floats = NONE, spread: float = 0.0) -> list[float]:
    """A row of the kernel's table; NaN, which decides nothing, where a factor lacks more than the kernel's bound grants it."""
    for floats, lack in (slope, scale):
        if not lack <= 4 * kernels.affine.UNIT**2 * abs(floats[0]):
            return [np.nan] * kernels.affine.COLUMNS
    slack = (center[1] * abs(slope[0][0]) + shift[1]) * (1 + 2.0**-50)
    exact = not ((center[1] and slope[0][0]) or shift[1])  # what a slack of 0 would not tell: the product may underflow
    return [*center[0], *slope[0], *scale[0], *shift[0], 0.0 if exact else math.nextafter(slack, math.inf), spread]


def spread(dtype: np.dtype[Any]) -> float:
    """What a kernel whose ends are rounded again has to add to a bound, as a multiple of the candidate."""
    return 0.0 if dtype == np.float64 else 4 * kernels.affine.UNIT


def carrier(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The format of both ends of an interval: that of the result, if a kernel can write it."""
    return np.dtype(np.float32 if dtype == np.float32 else np.float64)


def settled(low: Array, high: Array, dtype: np.dtype[Any], repair: Callable[[Array], Sequence[int]],
            is_nan: Callable[[Array], Array] | None = None) -> tuple[Array, int]:
    """What both ends round to, and where they round apart, `repair(indices)`, the bits of the results; and how many those are.

    All is flat. A kernel makes the ends differ where it has no finite number to offer; `is_nan(indices)` tells which results are known to be NaN.
    """
    trust_the_machine()
    form = FORMATS[dtype.name]
    with np.errstate(over="ignore", invalid="ignore"):
        value, other = (end if end.dtype == dtype else narrowed(end, dtype) for end in (low, high))
    bits = value.view(form.bits)
    opened = np.flatnonzero(bits != other.view(form.bits))
    if opened.size and is_nan is not None:
        known = is_nan(opened)
        bits[opened[known]] = form.nan
        opened = opened[~known]
    if opened.size:
        bits[opened] = repair(opened)
    return value, opened.size


def within(values: Array) -> Array:
    """The float64 values that are 0 or between 2^-300 and 2^300 in size, NaN instead of others: products of three do not over- or underflow."""
    sizes = np.abs(values)
    return np.where((sizes == 0) | (sizes >= kernels.affine.LEAST) & (sizes <= kernels.affine.MOST), values, np.nan)


def near_table(*columns: Any) -> Array:
    """The constants of `kernels.affine.settle`, a row for each channel; NaN decides nothing."""
    return within(np.stack(np.broadcast_arrays(*columns), axis=1)) + 0.0  # no -0


def rounded_near(value: Array, size: Array, dtype: np.dtype[Any], repair: Callable[[int], int]) -> Array:
    """The numbers that are within 16u of `size` of float64 values, correctly rounded; those not decided are `repair(index)`, bits."""
    with np.errstate(all="ignore"):
        bound = kernels.affine.NEAR * kernels.affine.UNIT * size + TINY  # more than the roundings of the ends, and than products that underflow
        low, high = value - bound, value + bound
        finite = np.isfinite(low) & np.isfinite(high)
        low, high = np.where(finite, low, np.nan), np.where(finite, high, 0)
    return settled(low, high, dtype, lambda opened: [repair(index) for index in opened.tolist()])[0]


def rounded_affine(x: Array, g: Array | None, table: Callable[[int], list[float]], shape: tuple[int, int, int], dtype: np.dtype[Any],
                   repair: Callable[[int], int], undefined: Callable[[int], bool] = lambda c: False,
                   near: Array | None = None) -> tuple[Array, int]:
    """The map of the kernel `affine` over flat x and g, correctly rounded, flat; NaN where x or g is, and in channels that are `undefined`.

    Where all is float32 and there is a `near_table`, the rows `table(channel)` are asked for only where `settle` leaves planes undecided.
    """
    trust_the_machine()
    if near is None or not x.dtype == dtype == np.float32:
        return _enclosed(x, g, [table(c) for c in range(shape[1])], shape, dtype, repair, undefined)
    y, length = np.empty(x.size, np.float32), shape[2]
    planes = kernels.affine.settle(x, x if g is None else g, near, shape, y)
    if not planes.size:
        return y, 0
    channels = (planes % shape[1]).tolist()
    rows = {c: table(c) for c in set(channels)}
    some_x, some_g = (None if v is None else v.reshape(-1, length)[planes].reshape(-1) for v in (x, g))
    some, repaired = _enclosed(some_x, some_g, [rows[c] for c in channels], (1, len(channels), length), dtype,
                               lambda index: repair(int(planes[index // length]) * length + index % length), lambda i: undefined(channels[i]))
    y.reshape(-1, length)[planes] = some.reshape(-1, length)
    return y, repaired


def _enclosed(x: Array, g: Array | None, table: list[list[float]], shape: tuple[int, int, int], dtype: np.dtype[Any],
              repair: Callable[[int], int], undefined: Callable[[int], bool]) -> tuple[Array, int]:
    def is_nan(at: Array) -> Array:
        channels = at // shape[2] % shape[1]
        nan = [c for c in np.unique(channels).tolist() if undefined(c)]
        return np.isnan(x[at]) | (g is not None and np.isnan(g[at])) | np.isin(channels, nan)

    kind = carrier(dtype)
    low = np.empty(x.size, kind)
    with scratch(kind, high=x.size) as (high,):
        kernels.affine.enclose(x, x if g is None else g, np.array(table).reshape(shape[1], kernels.affine.COLUMNS), shape, low, high)
        return settled(low, high, dtype, lambda opened: [repair(index) for index in opened.tolist()], is_nan)
