"""Sums, and functions that move elements without computing: reshape, transpose, concat, slices, zero padding."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from npreparam._errors import ArgumentError, ShapeError
from npreparam._shapes import as_int
from npreparam.ops._primitive import gradient, primitive
from npreparam.ops._validate import Array, as_array, as_dense, as_lengths, check_shape, same_dtype, shape_of
from npreparam.ops.arithmetic import broadcast_to, div, quiet

Axes = int | Sequence[int] | None


def axes_of(axis: Axes, rank: int) -> tuple[int, ...]:
    """`axis` as a tuple of distinct non-negative numbers; None stands for all."""
    if axis is None:
        return tuple(range(rank))
    chosen = tuple(as_int(i, "axis", -rank) for i in (axis if isinstance(axis, Iterable) else (axis,)))
    if any(i >= rank for i in chosen):
        raise ArgumentError(f"`axis` (={axis!r}) must lie in [{-rank}, {rank}) for an array of {rank} axes")
    positive = tuple(i % rank for i in chosen)
    if len(set(positive)) < len(positive):
        raise ArgumentError(f"`axis` (={axis!r}) names an axis twice")
    return positive


@primitive
@quiet
def sum(x: Array, axis: Axes = None, keepdims: bool = False) -> Array:
    """Sum over one axis, several, or all.

    Rounding: NumPy's pairwise summation in C order, whatever the layout; |error| <= (n-1)*u*sum|x| in any order.

    Raises ArgumentError for an axis out of range or named twice.

    >>> sum(np.ones((2, 3)), axis=0)
    array([2., 2., 2.])
    """
    x = as_dense(x, "x")
    return np.asarray(x.sum(axis=axes_of(axis, x.ndim), keepdims=keepdims))


def _spread(g: Array, a: Any) -> Array:
    """The adjoint of a sum: its cotangent repeated over the summed axes."""
    shape = a.x.shape
    axes = axes_of(a.axis, len(shape))
    return broadcast_to(reshape(g, tuple(1 if i in axes else n for i, n in enumerate(shape))), shape)


gradient(sum, "x", lambda g, y, a: _spread(g, a))


def mean(x: Array, axis: Axes = None, keepdims: bool = False) -> Array:
    """Arithmetic mean over one axis, several, or all: `sum` divided by the count; of nothing, NaN.

    >>> mean(np.array([1.0, 2.0]))
    np.float64(1.5)
    """
    total = sum(x, axis, keepdims)
    shape = x.shape
    return div(total, float(math.prod(shape[i] for i in axes_of(axis, len(shape)))))


@primitive
def reshape(x: Array, shape: Sequence[int]) -> Array:
    """The same elements in C order under another shape; one length may be -1.

    >>> reshape(np.arange(4.0), (2, -1))
    array([[0., 1.],
           [2., 3.]])
    """
    x, lengths = as_array(x, "x"), as_lengths(shape, -1)
    try:
        return x.reshape(lengths)
    except ValueError:
        raise ShapeError(f"`x` of shape {x.shape} ({x.size} elements) cannot be reshaped to `shape` (={shape!r})") from None


gradient(reshape, "x", lambda g, y, a: reshape(g, a.x.shape))


@primitive
def transpose(x: Array, axes: Sequence[int] | None = None) -> Array:
    """Axes permuted: axis i of the result is axis axes[i] of x; reversed by default.

    >>> transpose(np.ones((2, 3))).shape
    (3, 2)
    """
    x = as_array(x, "x")
    order = tuple(range(x.ndim))[::-1] if axes is None else axes_of(axes, x.ndim)
    if len(order) != x.ndim:
        raise ArgumentError(f"`axes` (={axes!r}) must name each of the {x.ndim} axes once")
    return x.transpose(order)


def _inverse(axes: Sequence[int] | None, rank: int) -> Sequence[int] | None:
    return None if axes is None else [int(i) for i in np.argsort(axes_of(axes, rank))]


gradient(transpose, "x", lambda g, y, a: transpose(g, _inverse(a.axes, len(a.x.shape))))


def concat(arrays: Sequence[Array], axis: int = 0) -> Array:
    """Arrays joined along one axis; all other lengths agree.

    >>> concat([np.zeros(1), np.ones(2)])
    array([0., 1., 1.])
    """
    return concat_arrays(*arrays, axis=axis)


@primitive
def concat_arrays(*arrays: Array, axis: int = 0) -> Array:
    """`concat` with the arrays as separate arguments: the primitive behind it."""
    if not arrays:
        raise ArgumentError("`arrays` (=[]) must hold at least one array")
    values = same_dtype(**{f"arrays[{i}]": array for i, array in enumerate(arrays)})
    axis = as_int(axis, "axis", -values[0].ndim)  # type: ignore[union-attr]
    try:
        return np.concatenate(values, axis=axis)  # type: ignore[arg-type]
    except ValueError:
        raise ShapeError(f"shapes {[v.shape for v in values]} must agree except along `axis` (={axis})") from None  # type: ignore[union-attr]


def _split(g: Array, a: Any) -> list[Array]:
    """The pieces of a concatenation's cotangent that belong to the arrays."""
    rank, first, pieces = len(g.shape), 0, []
    for array in a.arrays:
        last = first + array.shape[a.axis]
        index = [slice(None)] * rank
        index[a.axis] = slice(first, last)
        pieces.append(getitem(g, tuple(index)))
        first = last
    return pieces


gradient(concat_arrays, "arrays", lambda g, y, a: _split(g, a))


@primitive
def getitem(x: Array, index: Any) -> Array:
    """Basic indexing, x[index]: integers, slices, Ellipsis and None, of which no element is chosen twice.

    >>> getitem(np.arange(4.0), slice(None, None, 2))
    array([0., 2.])
    """
    x = as_array(x, "x")
    parts = index if isinstance(index, tuple) else (index,)
    if not all(part is None or part is Ellipsis or (isinstance(part, int | np.integer | slice) and not isinstance(part, bool))
               for part in parts):
        raise ArgumentError(f"`index` (={index!r}) must be basic: integers, slices, Ellipsis or None")
    try:
        return np.asarray(x[index])
    except IndexError as error:
        raise ArgumentError(f"`index` (={index!r}) does not fit an array of shape {x.shape}: {error}") from None


@primitive
def scatter_slice(x: Array, index: Any, shape: Sequence[int]) -> Array:
    """Zeros of `shape` with x at [index]: the adjoint of `getitem`.

    >>> scatter_slice(np.ones(1), slice(1, 2), (3,))
    array([0., 1., 0.])
    """
    x = as_array(x, "x")
    y = np.zeros(as_lengths(shape), x.dtype)
    check_shape(x, "x", y[index].shape, f"the part `index` (={index!r}) of `shape` (={tuple(shape)})")
    y[index] = x
    return y


gradient(getitem, "x", lambda g, y, a: scatter_slice(g, a.index, a.x.shape))
gradient(scatter_slice, "x", lambda g, y, a: getitem(g, a.index))


def pad(x: Array, widths: Sequence[Sequence[int]]) -> Array:
    """Zeros around an array: `widths` holds (before, after) for each axis.

    Raises ShapeError, ArgumentError for a negative width.

    >>> pad(np.ones(1), [(1, 2)])
    array([0., 1., 0., 0.])
    """
    shape = shape_of(x, "x", len(widths), f"one for each (before, after) of `widths` (={widths!r})")
    sides = [(as_int(before, "widths", 0), as_int(after, "widths", 0)) for before, after in widths]
    index = tuple(slice(before, before + n) for (before, _), n in zip(sides, shape, strict=True))
    return scatter_slice(x, index, [before + n + after for (before, after), n in zip(sides, shape, strict=True)])
