"""Losses from logits, correctly rounded: one value per sample or element.

When is a value rational? By the theorem of Lindemann and Weierstrass (see `activation`) x_i - log(sum_j exp(x_j)) = q means that
sum_j exp(x_j) - exp(x_i - q) = 0, whose coefficients vanish only where all x_j are equal and there is but one: log_softmax of a single
class is 0, and all else is irrational. log(1 + exp(x)) - x*t is irrational for all rational x and t, as softplus is.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from npreparam._errors import ArgumentError, DTypeError, ShapeError
from npreparam._shapes import as_int
from npreparam.exact.activation import softplus_between
from npreparam.exact.elementary import exp_between, log1p_of_interval
from npreparam.exact.rounding import Array, as_fractions, checked, result_dtype
from npreparam.exact.ziv import Bracket, Interval, round_reals


def log_softmax(x: Any, axis: int = -1, out_dtype: Any = "same") -> Array:
    """Logarithm of the softmax along one axis: x_i - log(sum_j exp(x_j)).

    x has any shape with at least one axis, and one of the dtypes float16, bfloat16, float32, float64, or holds Fractions; `out_dtype`
    defaults to the dtype of x. A value that rounds to zero gives -0, except 0 for a single class.

    Rounding: once, to nearest, ties to even.

    Raises DTypeError, ArgumentError (axis out of range; NaN or infinity).

    >>> log_softmax(np.array([[0.0, 0.0], [40.0, 0.0]]))
    array([[-6.93147181e-01, -6.93147181e-01],
           [-4.24835426e-18, -4.00000000e+01]])
    """
    exact_x, dtype = as_fractions(x, "x"), result_dtype(out_dtype, x)
    last = np.moveaxis(exact_x, checked_axis(axis, exact_x.ndim), -1)
    rows = last.reshape(-1, last.shape[-1]) if last.size else ()
    brackets = (bracket for row in rows for bracket in log_softmax_brackets(row.tolist()))
    return np.moveaxis(round_reals(brackets, last.shape, dtype), -1, axis)


def cross_entropy(logits: Any, labels: Any, out_dtype: Any = "same") -> Array:
    """Softmax cross-entropy of each sample: log(sum_j exp(x_j)) - x_label.

    logits is (N, classes) as in `log_softmax`, labels (N,) of integers in [0, classes); the result is (N,).

    Rounding: once, to nearest, ties to even.

    Raises ShapeError, DTypeError, ArgumentError (a label out of range; NaN or infinity).

    >>> cross_entropy(np.zeros((1, 10)), np.array([3]))
    array([2.30258509])
    """
    exact_x = as_fractions(logits, "logits")
    labels = checked_labels(labels, exact_x.shape)
    brackets = (negated(list(log_softmax_brackets(row))[label])
                for row, label in zip(exact_x.tolist(), labels.tolist(), strict=True))
    return round_reals(brackets, labels.shape, result_dtype(out_dtype, logits))


def bce_with_logits(logits: Any, targets: Any, out_dtype: Any = "same") -> Array:
    """Binary cross-entropy of each element: log(1 + exp(x)) - x*t for logit x and target t.

    Both have the same shape and a dtype as in `log_softmax`; targets usually lie in [0, 1].

    Rounding: once, to nearest, ties to even.

    Raises ShapeError, DTypeError, ArgumentError (NaN or infinity).

    >>> bce_with_logits(np.zeros(1), np.ones(1))
    array([0.69314718])
    """
    exact_x = as_fractions(logits, "logits")
    exact_t = checked(as_fractions(targets, "targets"), "targets", exact_x.shape)
    brackets = (functools.partial(bce_between, x, t) for x, t in zip(exact_x.ravel(), exact_t.ravel(), strict=True))
    return round_reals(brackets, exact_x.shape, result_dtype(out_dtype, logits))


def checked_axis(axis: int, rank: int) -> int:
    """`axis`, one of an array with so many."""
    if not -rank <= as_int(axis, "axis", -rank) < rank:
        raise ArgumentError(f"`axis` (={axis}) must lie in [{-rank}, {rank}), the axes of `x`")
    return axis


def checked_labels(labels: Any, shape: tuple[int, ...]) -> Array:
    """The labels of logits of this shape."""
    labels = np.asarray(labels)
    if len(shape) != 2:
        raise ShapeError(f"`logits` has shape {shape}, but must be (batch, classes)")
    if labels.dtype.kind not in "iu":
        raise DTypeError(f"`labels` has dtype {labels.dtype}, but must hold integers")
    checked(labels, "labels", shape[:1])
    if labels.size and not 0 <= labels.min() <= labels.max() < shape[1]:
        raise ArgumentError(f"`labels` (from {labels.min()} to {labels.max()}) must lie in [0, {shape[1]}), the columns of `logits`")
    return labels


def log_softmax_brackets(row: list[Fraction]) -> Iterator[Bracket]:
    """One bracket for each class: (x - max) - log(1 + s), s the sum of exp(x - max) over all but the maximum."""
    top = max(row)
    others = [x - top for x in row]
    others.remove(0)

    @functools.cache
    def normalizer(bits: int) -> Interval:
        ends = [exp_between(x, bits) for x in others]
        return log1p_of_interval((sum((low for low, _ in ends), Fraction(0)), sum((high for _, high in ends), Fraction(0))), bits)

    def bracket(x: Fraction, bits: int) -> Interval:
        low, high = normalizer(bits)
        return x - top - high, x - top - low

    for x in row:
        yield functools.partial(bracket, x)


def negated(bracket: Bracket) -> Bracket:
    """The bracket of -value."""
    def mirrored(bits: int) -> Interval:
        low, high = bracket(bits)
        return -high, -low
    return mirrored


def bce_between(x: Fraction, t: Fraction, bits: int) -> Interval:
    """softplus(x) - x*t."""
    low, high = softplus_between(x, bits)
    return low - x * t, high - x * t
