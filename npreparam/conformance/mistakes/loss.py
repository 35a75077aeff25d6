"""Mistakes in losses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from npreparam.conformance.mistakes._registry import mistake, row

LN2 = math.log(2)
ROWS = {"x": np.float32([[0, 1]])}
TWO_ROWS = {"logits": np.float32([[0, 1], [3, 0]]), "labels": np.array([0, 1])}
ONE_ROW = {"logits": np.float32([[0, 1]]), "labels": np.array([0])}
PIXELS = {"logits": row(1), "targets": row(0)}


def unshifted(x: Any, axis: int = -1) -> Any:
    """x - log(sum of exp(x))."""
    return x - np.log(np.sum(np.exp(x), axis=axis, keepdims=True))


def _log_sum_exp(x: Any) -> Any:
    """log(sum of exp(x - max)), without the max."""
    return np.log(np.sum(np.exp(x - np.max(x, axis=-1, keepdims=True)), axis=-1, keepdims=True))


def picked(x: Any, labels: Any) -> Any:
    """-x at the labels."""
    return -x[np.arange(len(labels)), labels]


def _softmax(x: Any) -> Any:
    e = np.exp(x - np.max(x, axis=-1, keepdims=True))
    return e / np.sum(e, axis=-1, keepdims=True)


def _probabilities(right: Any, logits: Any, targets: Any) -> Any:
    """-t*log(p) - (1 - t)*log(1 - p), whatever p is."""
    p = right.sigmoid(x=logits)
    return -(targets * np.log(p) + (1.0 - targets) * np.log(1.0 - p))


mistake("log_softmax", "overflows", lambda right, x, **a: unshifted(x), look="subtract the maximum first", example={"x": np.float32([[0, 89]])})
mistake("log_softmax", "logarithm of the softmax", lambda right, x, **a: np.log(_softmax(x)), look="log(0) where the softmax underflows",
        example={"x": np.float32([[0, 104]])})
mistake("log_softmax", "base 2", lambda right, x, **a: right.log_softmax(x=x) / LN2, look="the natural logarithm", example=ROWS)
mistake("log_softmax", "softmax", lambda right, x, **a: _softmax(x), look="the logarithm", example=ROWS)
mistake("log_softmax", "along the first axis", lambda right, x, **a: unshifted(x, axis=0), look="the axis is the last one", example=ROWS)
mistake("log_softmax", "over everything", lambda right, x, **a: right.log_softmax(x=x.reshape(1, -1)).reshape(x.shape),
        look="the axis that the sum runs over", example={"x": np.float32([[0, 1], [2, 4]])})
mistake("log_softmax", "maximum subtracted only", lambda right, x, **a: x - np.max(x, axis=-1, keepdims=True), look="the logarithm of the sum",
        example=ROWS)
mistake("log_softmax", "maximum not added back", lambda right, x, **a: x - _log_sum_exp(x), look="x - max - log(sum)", example=ROWS)
mistake("log_softmax", "sign", lambda right, **a: -right.log_softmax(**a), look="log-probabilities are not positive", example=ROWS)
mistake("cross_entropy", "mean in place of one per sample", lambda right, **a: np.mean(right.cross_entropy(**a)),
        look="the reduction", example=TWO_ROWS)
mistake("cross_entropy", "sum in place of one per sample", lambda right, **a: np.sum(right.cross_entropy(**a)),
        look="the reduction", example=TWO_ROWS)
mistake("cross_entropy", "mean, once per sample", lambda right, **a: right.cross_entropy(**a) * 0.0 + np.mean(right.cross_entropy(**a)),
        look="the reduction", example=TWO_ROWS)
mistake("cross_entropy", "divided by the batch size", lambda right, **a: right.cross_entropy(**a) / max(1, len(a["labels"])),
        look="the reduction", example=TWO_ROWS)
mistake("cross_entropy", "sign", lambda right, **a: -right.cross_entropy(**a), look="-log p", example=ONE_ROW)
mistake("cross_entropy", "base 2", lambda right, **a: right.cross_entropy(**a) / LN2, look="the natural logarithm",
        example=ONE_ROW)
mistake("cross_entropy", "labels counted from 1", lambda right, logits, labels:
        right.cross_entropy(logits=logits, labels=(labels - 1) % logits.shape[1]),
        look="the first class is 0", example=ONE_ROW)
mistake("cross_entropy", "softmax twice", lambda right, logits, labels: right.cross_entropy(logits=_softmax(logits), labels=labels)
        if isinstance(logits, np.ndarray) else picked(unshifted(_softmax(logits)), labels), look="logits, not probabilities", example=ONE_ROW)
mistake("cross_entropy", "probability, not its logarithm", lambda right, logits, labels: picked(_softmax(logits), labels),
        look="the logarithm",
        example=ONE_ROW)
mistake("cross_entropy", "logits taken for log-probabilities", lambda right, logits, labels: picked(logits, labels), look="the softmax",
        example=ONE_ROW)
mistake("cross_entropy", "overflows", lambda right, logits, labels: picked(unshifted(logits), labels), look="subtract the maximum first",
        example={"logits": np.float32([[0, 89]]), "labels": np.array([0])})
mistake("cross_entropy", "logarithm of the softmax", lambda right, logits, labels: picked(np.log(_softmax(logits)), labels),
        look="log(0) where the softmax underflows", example={"logits": np.float32([[0, 104]]), "labels": np.array([0])})
mistake("bce_with_logits", "0 * log 0", _probabilities, seen="pytorch#144279 (KNOWN_BUGS 29)", look="max(x, 0) - x*t + log1p(exp(-|x|))",
        example={"logits": row(104), "targets": row(1)})
mistake("bce_with_logits", "logarithms of clipped probabilities", lambda right, logits, targets: -(
        targets * np.log(np.minimum(np.maximum(right.sigmoid(x=logits), 1e-7), 1 - 1e-7))
        + (1.0 - targets) * np.log(1.0 - np.minimum(np.maximum(right.sigmoid(x=logits), 1e-7), 1 - 1e-7))),
        look="clipping changes the value and stops the gradient", example={"logits": row(20), "targets": row(0)})
mistake("bce_with_logits", "overflows", lambda right, logits, targets: np.log(1.0 + np.exp(logits)) - logits * targets, look="exp(-|x|)",
        example={"logits": row(89), "targets": row(0)})
mistake("bce_with_logits", "targets inverted", lambda right, logits, targets: right.bce_with_logits(logits=-logits, targets=targets),
        look="the logit's sign", example=PIXELS)
mistake("bce_with_logits", "only the term of the ones", lambda right, logits, targets: targets * right.softplus(x=-logits),
        look="(1 - t)*log(1 - p)", example=PIXELS)
mistake("bce_with_logits", "only the term of the zeros", lambda right, logits, targets: (1.0 - targets) * right.softplus(x=logits),
        look="t*log(p)", example={"logits": row(1), "targets": row(1)})
mistake("bce_with_logits", "sign", lambda right, **a: -right.bce_with_logits(**a), look="-log p", example=PIXELS)
mistake("bce_with_logits", "base 2", lambda right, **a: right.bce_with_logits(**a) / LN2, look="the natural logarithm", example=PIXELS)
mistake("bce_with_logits", "mean in place of one per element", lambda right, **a: np.mean(right.bce_with_logits(**a)),
        look="the reduction", example={"logits": row(1, 2), "targets": row(0, 1)})
mistake("bce_with_logits", "sum in place of one per element", lambda right, **a: np.sum(right.bce_with_logits(**a)),
        look="the reduction", example={"logits": row(1, 2), "targets": row(0, 1)})
mistake("bce_with_logits", "mean, once per element", lambda right, **a: right.bce_with_logits(**a) * 0.0 + np.mean(right.bce_with_logits(**a)),
        look="the reduction", example={"logits": row(1, 2), "targets": row(0, 1)})
mistake("bce_with_logits", "squared error", lambda right, logits, targets: (right.sigmoid(x=logits) - targets) * (right.sigmoid(x=logits) - targets),
        look="which loss is called", example=PIXELS)
mistake("bce_with_logits", "sigmoid twice", lambda right, logits, targets: -logits * 0.0 + np.log1p(np.exp(right.sigmoid(x=logits)))
        - right.sigmoid(x=logits) * targets, look="logits, not probabilities", example=PIXELS)
