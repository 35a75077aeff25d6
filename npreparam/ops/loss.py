"""Losses, from logits and in their stable forms; each returns one value per sample or element, so that the caller chooses sum or mean."""

from __future__ import annotations

from typing import Any

import numpy as np

from npreparam import kernels
from npreparam._errors import ArgumentError, DTypeError
from npreparam._shapes import as_int
from npreparam.ops._primitive import gradient, primitive
from npreparam.ops._validate import Array, as_array, as_dense, check_shape, same_dtype, shape_of
from npreparam.ops.activation import sigmoid
from npreparam.ops.arithmetic import add, exp, expm1, mul, neg, quiet, sub
from npreparam.ops.shape import axes_of, reshape
from npreparam.ops.shape import sum as sum_over


@primitive
@quiet
def log_softmax(x: Array, axis: int = -1) -> Array:
    """Logarithm of the softmax along one axis: (x - max) - log(1 + sum of exp(x - max) over all but the maximum).

    Rounding: neither term is positive, so nothing cancels: with n elements and the second largest at a distance d below the largest, the
    relative error is about (n + d + log n) u. The log-probability of a class that is nearly certain keeps its digits, too.

    Raises ArgumentError for an axis out of range.

    >>> log_softmax(np.array([[0.0, 0.0], [40.0, 0.0]]))
    array([[-6.93147181e-01, -6.93147181e-01],
           [-4.24835426e-18, -4.00000000e+01]])
    """
    x = as_dense(x, "x")
    (along,) = axes_of(as_int(axis, "axis", -x.ndim), x.ndim)
    if x.shape[along] == 0:
        return x.copy()
    top = x.argmax(along, keepdims=True)
    shifted = x - np.take_along_axis(x, top, along)
    others = np.exp(shifted)
    np.put_along_axis(others, top, np.take_along_axis(shifted, top, along), along)  # 0, or NaN for an infinite or NaN maximum
    return shifted - np.log1p(others.sum(axis=along, keepdims=True))


def _log_softmax_vjp(g: Array, y: Array, axis: int) -> Array:
    """g_i - p_i*sum(g) as g_i*(1 - p_i) - p_i*(sum of the other g), 1 - p = -expm1(y): a nearly certain class keeps its small slope."""
    others = sub(sum_over(g, axis=axis, keepdims=True), g)
    return neg(add(mul(g, expm1(y)), mul(exp(y), others)))


gradient(log_softmax, "x", lambda g, y, a: _log_softmax_vjp(g, y, a.axis))


def softmax(x: Array, axis: int = -1) -> Array:
    """exp(x) normalized to sum 1 along one axis: exp(log_softmax(x)).

    >>> softmax(np.array([[0.0, 1000.0]]))
    array([[0., 1.]])
    """
    return exp(log_softmax(x, axis))


@primitive
@quiet
def logsumexp(x: Array, axis: int = -1) -> Array:
    """log of the sum of exp(x) along one axis: max + log1p(sum of exp(x - max) over all but the maximum); finite where the result is.

    Rounding: a few ulp of the maximum's magnitude, besides about n*u of the logarithm. Along an axis of length 0, -inf.

    Raises ArgumentError for an axis out of range.

    >>> float(logsumexp(np.array([1000.0, 1000.0])))
    1000.6931471805599
    """
    x = as_dense(x, "x")
    (along,) = axes_of(as_int(axis, "axis", -x.ndim), x.ndim)
    if x.shape[along] == 0:
        return np.full(x.shape[:along] + x.shape[along + 1 :], -np.inf, x.dtype)
    at = x.argmax(along, keepdims=True)
    top = np.take_along_axis(x, at, along)
    others = np.exp(x - np.where(np.isfinite(top), top, 0))
    np.put_along_axis(others, at, 0, along)
    return np.where(np.isfinite(top), top + np.log1p(others.sum(axis=along, keepdims=True)), top).squeeze(along)


def _logsumexp_vjp(g: Array, x: Array, axis: int) -> Array:
    """g*softmax(x); exp(x - y) would lose the digits that x and y share."""
    (along,) = axes_of(axis, len(x.shape))
    return mul(reshape(g, tuple(1 if i == along else n for i, n in enumerate(x.shape))), softmax(x, axis))


gradient(logsumexp, "x", lambda g, y, a: _logsumexp_vjp(g, a.x, a.axis))


@primitive
def pick(x: Array, labels: Any) -> Array:
    """x[n, labels[n]] for every row n.

    >>> pick(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([1, 0]))
    array([2., 3.])
    """
    return as_array(x, "x")[np.arange(len(labels)), labels]


@primitive
def place(x: Array, labels: Any, columns: int) -> Array:
    """Rows of zeros with x[n] in column labels[n]: the adjoint of `pick`.

    >>> place(np.array([2.0]), np.array([1]), 3)
    array([[0., 2., 0.]])
    """
    x = as_array(x, "x")
    y = np.zeros((len(labels), columns), x.dtype)
    y[np.arange(len(labels)), labels] = x
    return y


gradient(pick, "x", lambda g, y, a: place(g, a.labels, a.x.shape[1]))
gradient(place, "x", lambda g, y, a: pick(g, a.labels))


def cross_entropy(logits: Array, labels: Any) -> Array:
    """Softmax cross-entropy of each sample: -log_softmax(logits)[n, labels[n]].

    logits is (N, classes), labels (N,) of integers in [0, classes); the result is (N,).

    Raises ShapeError, DTypeError for labels that are not integers, ArgumentError for a label out of range.

    >>> cross_entropy(np.zeros((1, 10)), np.array([3]))
    array([2.30258509])
    """
    rows, classes = shape_of(logits, "logits", 2, "(batch, classes)")
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iu":
        raise DTypeError(f"`labels` has dtype {labels.dtype}, but must hold integers")
    check_shape(labels, "labels", (rows,), "one label for each row of `logits`")
    if labels.size and not 0 <= labels.min() <= labels.max() < classes:
        raise ArgumentError(f"`labels` (from {labels.min()} to {labels.max()}) must lie in [0, {classes}), the columns of `logits`")
    return neg(pick(log_softmax(logits), labels))


@primitive
@quiet
def bce_with_logits(logits: Array, targets: Array) -> Array:
    """Binary cross-entropy of each element: max(x, 0) - x*t + log1p(exp(-|x|)) for logit x and target t.

    Both have the same shape and dtype; targets usually lie in [0, 1]. Equal to -t*log(sigmoid(x)) - (1-t)*log(1 - sigmoid(x)), but finite.

    Rounding: a few ulp for targets in [0, 1], since max(x, 0) - x*t is taken as x*(1-t) or -x*t, neither of which cancels.

    Raises ShapeError, DTypeError.

    >>> bce_with_logits(np.zeros(1), np.ones(1))    # 784 of them: 784 ln 2, the loss of an untrained decoder
    array([0.69314718])
    """
    logits, targets = same_dtype(logits=logits, targets=targets)
    check_shape(targets, "targets", logits.shape, "that of `logits`")
    return kernels.loss.bce(as_dense(logits, "logits"), as_dense(targets, "targets"))


@primitive
@quiet
def bce_slope(logits: Array, targets: Array) -> Array:
    """sigmoid(x) - t as sigmoid(x)*(1-t) - sigmoid(-x)*t, so that a nearly certain prediction still has its small gradient.

    >>> bce_slope(np.array([0.0, 800.0]), np.array([0.25, 1.0]))
    array([0.25, 0.  ])
    """
    logits, targets = same_dtype(logits=logits, targets=targets)
    check_shape(targets, "targets", logits.shape, "that of `logits`")
    return kernels.loss.bce_slope(as_dense(logits, "logits"), as_dense(targets, "targets"))


gradient(bce_with_logits, "logits", lambda g, y, a: mul(g, bce_slope(a.logits, a.targets)))
gradient(bce_with_logits, "targets", lambda g, y, a: neg(mul(g, a.logits)))
gradient(bce_slope, "logits", lambda g, y, a: mul(g, mul(sigmoid(a.logits), sigmoid(neg(a.logits)))))
gradient(bce_slope, "targets", lambda g, y, a: neg(g))
