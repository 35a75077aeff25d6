"""Mistakes in batch normalization."""

from __future__ import annotations

from typing import Any

import numpy as np

from npreparam.conformance.mistakes._registry import mistake, row
from npreparam.conformance.mistakes.conv2d import first_for_all

PAIR = np.float32([[1], [3]])  # two values of one channel: mean 2, variance 1
PLAIN = {"gamma": row(1), "beta": row(0), "running_mean": row(0), "running_var": row(1)}
EVAL = {"x": np.float32([[5]]), "gamma": row(2), "beta": row(1), "running_mean": row(1), "running_var": row(4), "eps": 0.0}
TRAIN = {"x": PAIR, **PLAIN, "training": True}
IMAGES = np.float32([0, 1, 3, 8]).reshape(2, 1, 1, 2)


def per_channel(v: Any, x: Any) -> Any:
    """One value per channel, shaped to broadcast against x."""
    return v.reshape((1, -1, *[1] * (x.ndim - 2)))


def over(x: Any) -> tuple[int, ...]:
    """The axes that statistics run over."""
    return (0, *range(2, x.ndim))


def count(x: Any) -> int:
    """Values per channel."""
    return x.size // max(1, x.shape[1])


def moments(x: Any, axis: Any = None) -> tuple[Any, Any]:
    """Mean and biased variance over the axes, kept with length 1."""
    axis = over(x) if axis is None else axis
    mean = np.mean(x, axis=axis, keepdims=True)
    return mean, np.mean((x - mean) * (x - mean), axis=axis, keepdims=True)


def normalized(x: Any, gamma: Any, beta: Any, mean: Any, std: Any) -> Any:
    """(x - mean)/std*gamma + beta."""
    return (x - mean) / std * per_channel(gamma, x) + per_channel(beta, x)


def with_y(right: Any, of_batch: Any, arguments: dict[str, Any], x: Any, gamma: Any, beta: Any, eps: float) -> Any:
    """The results with another y: `of_batch` makes (mean, std) of x in training; the running statistics are right."""
    whole = right.batch_norm(x=x, gamma=gamma, beta=beta, eps=eps, **arguments)
    if not arguments["training"]:
        return whole
    return (normalized(x, gamma, beta, *of_batch(x, eps)), *whole[1:])


def of_axes(axes: Any) -> Any:
    """A mistake: batch statistics over other axes."""
    def wrong(right: Any, x: Any, gamma: Any, beta: Any, eps: float, **rest: Any) -> Any:
        def statistics(x: Any, eps: float) -> Any:
            mean, var = moments(x, axes(x))
            return mean, np.sqrt(var + eps)

        return with_y(right, statistics, rest, x, gamma, beta, eps)

    return wrong


def of_std(std: Any) -> Any:
    """A mistake: another denominator, of var and eps, whichever the statistics come from."""
    def wrong(right: Any, x: Any, gamma: Any, beta: Any, running_mean: Any, running_var: Any, eps: float, **rest: Any) -> Any:
        if not rest["training"]:
            return normalized(x, gamma, beta, per_channel(running_mean, x), std(per_channel(running_var, x), eps))
        whole = right.batch_norm(x=x, gamma=gamma, beta=beta, running_mean=running_mean, running_var=running_var, eps=eps, **rest)
        mean, var = moments(x)
        return normalized(x, gamma, beta, mean, std(var, eps)), *whole[1:]

    return wrong


def _one_pass(right: Any, x: Any, gamma: Any, beta: Any, eps: float, **rest: Any) -> Any:
    def statistics(x: Any, eps: float) -> Any:
        mean = np.mean(x, axis=over(x), keepdims=True)
        return mean, np.sqrt(np.maximum(np.mean(x * x, axis=over(x), keepdims=True) - mean * mean, np.float32(0)) + eps)

    return with_y(right, statistics, rest, x, gamma, beta, eps)


def _unbiased(right: Any, x: Any, gamma: Any, beta: Any, eps: float, **rest: Any) -> Any:
    def statistics(x: Any, eps: float) -> Any:
        mean, var = moments(x)
        return mean, np.sqrt(var * count(x) / (count(x) - 1) + eps)

    return with_y(right, statistics, rest, x, gamma, beta, eps)


def _shards(right: Any, x: Any, gamma: Any, beta: Any, eps: float, **rest: Any) -> Any:
    """The first sample on one device, the others on a second; their moments averaged without weights."""
    def statistics(x: Any, eps: float) -> Any:
        parts = [x[:1], x[1:]]
        mean = sum(np.mean(part, axis=over(x), keepdims=True) for part in parts) / 2
        square = sum(np.mean(part * part, axis=over(x), keepdims=True) for part in parts) / 2
        return mean, np.sqrt(square - mean * mean + eps)

    return with_y(right, statistics, rest, x, gamma, beta, eps)


def updated(right: Any, arguments: dict[str, Any], rule: Any) -> Any:
    """The results with other running statistics in training: rule(mean, biased var, arguments) makes them."""
    whole = right.batch_norm(**arguments)
    if not arguments["training"]:
        return whole
    mean, var = (value.reshape(-1) for value in moments(arguments["x"]))
    return (whole[0], *rule(mean, var, arguments))


def blend(old: Any, new: Any, momentum: float) -> Any:
    """The running statistic after one step."""
    return old * (1 - momentum) + new * momentum


def biased_update(mean: Any, var: Any, a: dict[str, Any]) -> Any:
    """The running variance from the biased estimate."""
    return blend(a["running_mean"], mean, a["momentum"]), blend(a["running_var"], var, a["momentum"])


def _per_image(right: Any, **a: Any) -> Any:
    """n/(n - 1) with the number of images for n: infinite for a single one."""
    n = len(a["x"])
    factor = n / (n - 1) if n > 1 else np.inf
    return updated(right, a, lambda mean, var, a: biased_update(mean, var * factor, a))


def _of_one_value(right: Any, **a: Any) -> Any:
    """Statistics of a single value, where they should be refused: its unbiased variance is 0/0."""
    if not a["training"] or count(a["x"]) != 1:
        return right.batch_norm(**a)
    lost = np.full(a["x"].shape[1], np.nan, np.float32)
    return a["x"] * 0.0, blend(a["running_mean"], moments(a["x"])[0].reshape(-1), a["momentum"]), a["running_var"] + lost


def _of_nothing(right: Any, **a: Any) -> Any:
    """Statistics of no values, where they should be refused: their mean is 0/0."""
    if not a["training"] or a["x"].size:
        return right.batch_norm(**a)
    lost = np.full(a["x"].shape[1], np.nan, np.float32)
    return a["x"], a["running_mean"] + lost, a["running_var"] + lost


def _frozen(right: Any, **a: Any) -> Any:
    return updated(right, a, lambda mean, var, a: (a["running_mean"] * 1.0, a["running_var"] * 1.0))


def _running_in_training(right: Any, training: bool, momentum: float, **a: Any) -> Any:
    y = right.batch_norm(training=False, momentum=momentum, **a)
    return (y, *right.batch_norm(training=True, momentum=momentum, **a)[1:]) if training else y


def _scaled_beta(right: Any, x: Any, gamma: Any, beta: Any, **a: Any) -> Any:
    """(xhat + beta)*gamma."""
    whole = right.batch_norm(x=x, gamma=gamma, beta=np.zeros_like(beta), **a)
    shift = per_channel(beta * gamma, x)
    return (whole[0] + shift, *whole[1:]) if a["training"] else whole + shift


def _uncentred(right: Any, x: Any, running_mean: Any, running_var: Any, **a: Any) -> Any:
    """x/std*gamma + beta."""
    whole = right.batch_norm(x=x, running_mean=running_mean, running_var=running_var, **a)
    var = moments(x)[1] if a["training"] else per_channel(running_var, x)
    y = normalized(x, a["gamma"], a["beta"], 0.0, np.sqrt(var + a["eps"]))
    return (y, *whole[1:]) if a["training"] else y


def _batch_in_evaluation(right: Any, training: bool, **a: Any) -> Any:
    whole = right.batch_norm(training=True, **a)
    return whole if training else whole[0]


mistake("batch_norm", "eps outside the root", of_std(lambda var, eps: np.sqrt(var) + eps),
        look="sqrt(var + eps)", example={**EVAL, "eps": 1.0})
mistake("batch_norm", "eps left out", of_std(lambda var, eps: np.sqrt(var)), look="eps", example={**EVAL, "eps": 1.0})
mistake("batch_norm", "eps 1e-5 whatever is asked for", of_std(lambda var, eps: np.sqrt(var + 1e-5)), look="eps is passed on",
        example={**EVAL, "eps": 1.0})
mistake("batch_norm", "eps 1e-3 whatever is asked for", of_std(lambda var, eps: np.sqrt(var + 1e-3)), look="eps is passed on",
        example={**EVAL, "eps": 1.0})
mistake("batch_norm", "eps squared", of_std(lambda var, eps: np.sqrt(var + eps * eps)), look="sqrt(var + eps)", example={**EVAL, "eps": 2.0})
mistake("batch_norm", "divided by the variance", of_std(lambda var, eps: var + eps), look="the root", example=EVAL)
mistake("batch_norm", "variance taken for the standard deviation's inverse", of_std(lambda var, eps: 1.0 / (var + eps)),
        look="saved inverse standard deviations and variances", example=EVAL, seldom=True)
mistake("batch_norm", "gamma left out", lambda right, gamma, **a: right.batch_norm(gamma=np.full_like(gamma, 1.0), **a), look="gamma", example=EVAL)
mistake("batch_norm", "beta left out", lambda right, beta, **a: right.batch_norm(beta=np.zeros_like(beta), **a), look="beta", example=EVAL)
mistake("batch_norm", "gamma and beta exchanged", lambda right, gamma, beta, **a: right.batch_norm(gamma=beta, beta=gamma, **a),
        look="order of the arguments", example=EVAL)
mistake("batch_norm", "beta scaled with gamma", _scaled_beta,
        look="xhat*gamma + beta, not (xhat + beta)*gamma", example=EVAL)
mistake("batch_norm", "gamma of the first channel used for all",
        lambda right, gamma, **a: right.batch_norm(gamma=first_for_all(gamma, len(gamma)), **a),
        look="gamma's index", example={"x": np.float32([[1, 1]]), **{k: np.repeat(v, 2) for k, v in PLAIN.items()}, "gamma": row(1, 2)})
mistake("batch_norm", "mean and variance exchanged", lambda right, running_mean, running_var, **a: right.batch_norm(
        running_mean=running_var, running_var=running_mean, **a), look="order of the arguments", example=EVAL)
mistake("batch_norm", "mean not subtracted", _uncentred, look="x - mean", example=EVAL)
mistake("batch_norm", "statistics of each image", of_axes(lambda x: tuple(range(2, x.ndim)) or (1,)),
        look="instance normalization: the mean runs over the batch too", example={**TRAIN, "x": IMAGES})
mistake("batch_norm", "statistics over channels", of_axes(lambda x: tuple(range(1, x.ndim))),
        look="layer normalization: each channel has its own statistics", example=TRAIN)
mistake("batch_norm", "statistics of each pixel", of_axes(lambda x: (0,)),
        look="the mean runs over height and width too", example={**TRAIN, "x": IMAGES})
mistake("batch_norm", "statistics over everything", of_axes(lambda x: tuple(range(x.ndim))),
        look="each channel has its own statistics", example={**{k: np.repeat(v, 2) if k in PLAIN else v for k, v in TRAIN.items()},
                                                           "x": np.float32([[1, 5], [3, 5]])})
mistake("batch_norm", "normalized by the unbiased variance", _unbiased, look="the batch's own variance is divided by n", example=TRAIN)
mistake("batch_norm", "one-pass variance", _one_pass, seen="flax#1491, tensorflow#118701 (KNOWN_BUGS 17)",
        look="E[x^2] - E[x]^2 cancels: subtract the mean first", example={**TRAIN, "x": np.float32([[1e4], [1e4 + 1], [1e4 + 2], [1e4 + 3]])})
mistake("batch_norm", "shards of a batch weigh alike", _shards, seen="pytorch#22192 (KNOWN_BUGS 22)",
        look="synchronised statistics, shards of unequal size", example={**TRAIN, "x": np.float32([[1], [2], [4], [9]])})
mistake("batch_norm", "biased running variance", lambda right, **a: updated(right, a, biased_update),
        look="n/(n - 1) in the running variance", example=TRAIN)
mistake("batch_norm", "momentum inverted", lambda right, momentum, **a: right.batch_norm(momentum=1 - momentum, **a),
        seen="pytorch#18525, pytorch2keras#70 (KNOWN_BUGS 18)", look="momentum is the weight of what is new", example=TRAIN)
mistake("batch_norm", "momentum 0.1 whatever is asked for", lambda right, momentum, **a: right.batch_norm(momentum=0.1, **a),
        look="momentum is passed on", example={**TRAIN, "momentum": 0.5})
mistake("batch_norm", "running statistics not updated", _frozen, look="the update in training", example=TRAIN)
mistake("batch_norm", "running statistics replaced by the batch's", lambda right, momentum, **a: right.batch_norm(momentum=1.0, **a),
        look="momentum", example=TRAIN)
mistake("batch_norm", "running standard deviation", lambda right, **a: updated(right, a, lambda mean, var, a: biased_update(
        mean, np.sqrt(var * count(a["x"]) / (count(a["x"]) - 1)), a)), look="the running variance", example={**TRAIN, "x": np.float32([[1], [5]])})
mistake("batch_norm", "training uses the running statistics", _running_in_training, look="the batch's own statistics", example=TRAIN)
mistake("batch_norm", "evaluation uses the batch's statistics", _batch_in_evaluation, seen="KNOWN_BUGS 26",
        look="the running statistics", example={"x": PAIR, **PLAIN})
mistake("batch_norm", "images counted in place of values", _per_image, look="n/(n - 1), n = N*H*W: infinite for a single image",
        example={**TRAIN, "x": np.float32([1, 3]).reshape(1, 1, 1, 2)})
mistake("batch_norm", "a single value per channel gives NaN", _of_one_value, seen="pytorch#1381, Flux#1992 (KNOWN_BUGS 19)", refused=True,
        look="one value has no unbiased variance: refuse it", example={**TRAIN, "x": np.float32([[1]])})
mistake("batch_norm", "an empty batch makes the running statistics NaN", _of_nothing, seen="pytorch#12013 (KNOWN_BUGS 21)", refused=True,
        look="nothing has no mean: refuse it", example={**TRAIN, "x": np.zeros((0, 1), np.float32)})
