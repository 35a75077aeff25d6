"""Losses from logits, correctly rounded, decided by a wider format (see `_wide`). With L = log(1 + S), S the sum of exp(-d) over all classes but
a largest one, and d >= 0 the distance of a logit from the largest, log_softmax is -(d + L). In units of u, to first order:

    d        1 rounding: d
    exp(-d)  8 exp(-d), and d*exp(-d) from d
    S        k + 8 times S, and the sum of d*exp(-d), added in pairs k = ceil(log2(classes)) deep
    L        8L, and what S is wrong by, over 1 + S
    d + L    both, and d + L, in which nothing cancels

The error of the binary cross-entropy log(1 + exp(x)) - x*t is 17 times the logarithm (see `functions`), 1 for x*t, and 1 for the difference.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from npreparam.certified._affine import Array, target
from npreparam.certified._record import Certified
from npreparam.certified._wide import Wide, finite
from npreparam.certified.functions import wide_softplus
from npreparam.exact.loss import bce_between, checked_axis, checked_labels, log_softmax_brackets, negated
from npreparam.exact.rounding import FORMATS, as_fractions, checked, result_dtype
from npreparam.exact.ziv import round_real


def log_softmax(x: Any, axis: int = -1, out_dtype: Any = "same") -> Certified:
    """Logarithm of the softmax along one axis, x_i - log(sum_j exp(x_j)), correctly rounded.

    x and the result are float16, bfloat16, float32 or float64, of any shape with at least one axis. A value that rounds to zero gives -0,
    except 0 for a single class.

    Rounding: once, to nearest, ties to even. Raises DTypeError, ArgumentError (axis out of range; NaN or infinity).

    >>> log_softmax(np.array([[0, 40]], np.float32)).value
    array([[-4.000000e+01, -4.248354e-18]], dtype=float32)
    """
    x = finite(x, "x")
    dtype, last = target(result_dtype(out_dtype, x)), np.moveaxis(x, checked_axis(axis, x.ndim), -1)
    classes = np.broadcast_to(np.arange(last.shape[-1]), last.shape)
    value, repaired = _cross_entropies(last, classes, dtype)
    return Certified(np.moveaxis(-value if last.shape[-1] > 1 else value, -1, axis), repaired)


def cross_entropy(logits: Any, labels: Any, out_dtype: Any = "same") -> Certified:
    """Softmax cross-entropy of each sample, log(sum_j exp(x_j)) - x_label, correctly rounded.

    logits is (N, classes) as in `log_softmax`, labels (N,) of integers in [0, classes); the result is (N,).

    Rounding: once, to nearest, ties to even. Raises ShapeError, DTypeError, ArgumentError (a label out of range; NaN or infinity).

    >>> cross_entropy(np.zeros((1, 10), np.float32), np.array([3])).value
    array([2.3025851], dtype=float32)
    """
    logits = finite(logits, "logits")
    dtype, labels = target(result_dtype(out_dtype, logits)), checked_labels(labels, logits.shape)
    value, repaired = _cross_entropies(logits, labels[:, None], dtype)
    return Certified(value.reshape(labels.shape), repaired)


def bce_with_logits(logits: Any, targets: Any, out_dtype: Any = "same") -> Certified:
    """Binary cross-entropy of each element, log(1 + exp(x)) - x*t for logit x and target t, correctly rounded.

    Both have the same shape, and dtypes as in `log_softmax`; targets usually lie in [0, 1].

    Rounding: once, to nearest, ties to even. Raises ShapeError, DTypeError, ArgumentError (NaN or infinity).

    >>> bce_with_logits(np.zeros(1, np.float32), np.ones(1, np.float32)).value
    array([0.6931472], dtype=float32)
    """
    logits, targets = finite(logits, "logits"), finite(targets, "targets")
    dtype = target(result_dtype(out_dtype, logits))
    checked(targets, "targets", logits.shape)
    wide = Wide(logits.dtype, targets.dtype, dtype)
    with np.errstate(all="ignore"):
        x, t = wide.of(logits, targets)
        softplus, product = wide_softplus(x), x * t
        units = 18 * softplus + 2 * np.abs(product)

    def repair(opened: Array) -> list[int]:
        pairs = zip(*(as_fractions(v.reshape(-1)[opened], "logits") for v in (logits, targets)), strict=True)
        return [round_real(functools.partial(bce_between, *pair), FORMATS[dtype.name]) for pair in pairs]

    with np.errstate(all="ignore"):
        return wide.rounded(softplus - product, units, dtype, repair, np.where(product <= 0, wide.type(0), -wide.huge))


def _cross_entropies(x: Array, classes: Array, dtype: np.dtype[Any]) -> tuple[Array, int]:
    """log(sum_j exp(x_j)) - x_class for these classes of each last axis of x."""
    if not classes.size or x.shape[-1] == 1:
        return np.zeros(classes.shape, dtype), 0
    wide = Wide(x.dtype, dtype)
    with np.errstate(all="ignore"):
        (logits,) = wide.of(x)
        distance = logits.max(-1, keepdims=True) - logits
        powers = np.exp(-distance)
        np.put_along_axis(powers, distance.argmin(-1, keepdims=True), wide.type(0), -1)
        total = _pairwise(powers)
        spoilt = ((x.shape[-1] - 1).bit_length() + 8) * total + (np.minimum(distance, wide.huge) * powers).sum(-1, keepdims=True)
        normalizer, own = np.log1p(total), np.take_along_axis(distance, classes, -1)
        units = 2 * own + 9 * normalizer + spoilt / (1 + total)

    def repair(opened: Array) -> list[int]:
        rows, width = x.reshape(-1, x.shape[-1]), classes.shape[-1]
        brackets = functools.cache(lambda row: list(log_softmax_brackets(as_fractions(rows[row], "x").tolist())))
        return [round_real(negated(brackets(index // width)[classes.reshape(-1)[index]]), FORMATS[dtype.name]) for index in opened.tolist()]

    with np.errstate(all="ignore"):
        return wide.rounded(own + normalizer, units, dtype, repair, wide.type(0))


def _pairwise(terms: Array) -> Array:
    """The sums along the last axis, kept, every term in ceil(log2(n)) additions."""
    while terms.shape[-1] > 1:
        half = -(-terms.shape[-1] // 2)
        rest = terms[..., half:]
        terms = np.concatenate([terms[..., : rest.shape[-1]] + rest, terms[..., rest.shape[-1] : half]], -1)
    return terms
