"""Mistakes in the gradient of batch normalization."""

from __future__ import annotations

from typing import Any

import numpy as np

from npreparam.conformance.mistakes._registry import mistake, row
from npreparam.conformance.mistakes.batch_norm import PAIR, count, moments, over, per_channel

BACK = {"gy": np.float32([[1], [3]]), "x": PAIR, "gamma": row(2), "running_mean": row(0), "running_var": row(4), "eps": 0.0}


def gradients(gy: Any, x: Any, gamma: Any, mean: Any, std: Any, terms: Any) -> Any:
    """(gx, ggamma, gbeta) with `terms`(gy, xhat, average) subtracted from gy."""
    xhat = (x - mean) / std

    def average(v: Any) -> Any:
        return np.mean(v, axis=over(x), keepdims=True)

    gx = (gy - terms(gy, xhat, average)) / std * per_channel(gamma, x)
    return gx, np.sum(gy * xhat, axis=over(x)), np.sum(gy, axis=over(x))


def backward(std: Any = lambda var, eps, x: np.sqrt(var + eps), terms: Any = None, running: bool = False) -> Any:
    """A mistake: another denominator, or other terms through mean and variance in training."""
    full = terms or (lambda gy, xhat, average: average(gy) + xhat * average(gy * xhat))

    def wrong(right: Any, gy: Any, x: Any, gamma: Any, running_mean: Any, running_var: Any, training: bool, eps: float) -> Any:
        mean, var = moments(x) if training and not running else (per_channel(running_mean, x), per_channel(running_var, x))
        return gradients(gy, x, gamma, mean, std(var, eps, x), full if training else lambda gy, xhat, average: 0.0)

    return wrong


def _results(change: Any) -> Any:
    """A mistake in the right results."""
    return lambda right, **a: change(*right.batch_norm_grad(**a), a)


def _given(a: dict[str, Any]) -> tuple[Any, Any]:
    """Mean and standard deviation that the call normalizes by."""
    x = a["x"]
    mean, var = moments(x) if a["training"] else (per_channel(a["running_mean"], x), per_channel(a["running_var"], x))
    return mean, np.sqrt(var + a["eps"])


LEARNT = {**BACK, "gy": np.float32([[1], [0], [0]]), "x": np.float32([[0], [1], [5]]), "training": True, "eps": 1.0}
mistake("batch_norm_grad", "mean and variance taken for constants", backward(terms=lambda gy, xhat, average: 0.0), seen="CrypTen#143 (KNOWN_BUGS 20)",
        look="both depend on x: gy - mean(gy) - xhat*mean(gy*xhat)", example=LEARNT)
mistake("batch_norm_grad", "variance taken for a constant", backward(terms=lambda gy, xhat, average: average(gy)),
        look="the term xhat*mean(gy*xhat)", example=LEARNT)
mistake("batch_norm_grad", "mean taken for a constant", backward(terms=lambda gy, xhat, average: xhat * average(gy * xhat)),
        look="the term mean(gy)", example=LEARNT)
mistake("batch_norm_grad", "sums in place of means", backward(terms=lambda gy, xhat, average:
        (average(gy) + xhat * average(gy * xhat)) * float(count(gy))),
        look="the terms mean(gy) and mean(gy*xhat)", example=LEARNT)
mistake("batch_norm_grad", "eps outside the root", backward(std=lambda var, eps, x: np.sqrt(var) + eps), look="sqrt(var + eps)",
        example={**BACK, "eps": 1.0})
mistake("batch_norm_grad", "eps left out", backward(std=lambda var, eps, x: np.sqrt(var)), look="eps", example={**BACK, "eps": 1.0})
mistake("batch_norm_grad", "divided by the variance", backward(std=lambda var, eps, x: var + eps), look="the root", example=BACK)
mistake("batch_norm_grad", "unbiased variance", backward(std=lambda var, eps, x: np.sqrt(var * count(x) / (count(x) - 1) + eps)),
        look="the batch's own variance is divided by n", example={**BACK, "training": True})
mistake("batch_norm_grad", "running statistics in training", backward(running=True), look="the batch's own statistics",
        example={**BACK, "training": True})
mistake("batch_norm_grad", "training's gradient in evaluation", lambda right, training, **a: right.batch_norm_grad(training=True, **a),
        look="running statistics are constants", example=BACK)
mistake("batch_norm_grad", "gamma left out", lambda right, gamma, **a: right.batch_norm_grad(gamma=np.full_like(gamma, 1.0), **a),
        look="gx = gamma/sqrt(var + eps)*...", example=BACK)
mistake("batch_norm_grad", "gradients of gamma and beta exchanged", _results(lambda gx, ggamma, gbeta, a: (gx, gbeta, ggamma)),
        look="order of the results", example=BACK)
mistake("batch_norm_grad", "gradient of gamma of x itself", _results(lambda gx, ggamma, gbeta, a:
        (gx, np.sum(a["gy"] * a["x"], axis=over(a["x"])), gbeta)),
        look="sum of gy*xhat", example=BACK)
mistake("batch_norm_grad", "gradient of gamma not normalized", _results(lambda gx, ggamma, gbeta, a: (gx, ggamma * np.sqrt(
        a["running_var"] + a["eps"] if not a["training"] else moments(a["x"])[1].reshape(-1) + a["eps"]), gbeta)), look="sum of gy*xhat",
        example=BACK)
mistake("batch_norm_grad", "gradients of gamma and beta averaged", _results(lambda gx, ggamma, gbeta, a:
        (gx, ggamma / count(a["x"]), gbeta / count(a["x"]))),
        look="sums, not means", example=BACK)
mistake("batch_norm_grad", "gradients of gamma and beta of the first image alone", lambda right, **a: (
        right.batch_norm_grad(**a)[0], *gradients(a["gy"][:1], a["x"][:1], a["gamma"], *_given(a), lambda gy, xhat, average: 0.0)[1:]),
        look="the sum over the batch", example=BACK)
