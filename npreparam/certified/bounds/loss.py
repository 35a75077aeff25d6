"""Losses: how far an honest implementation may be that subtracts the largest logit first. Functions and steps as in `functions`."""

from __future__ import annotations

from typing import Any

import numpy as np

from npreparam.certified.bounds._majorant import Floats, plus, quiet, up
from npreparam.certified.bounds.functions import ULPS, finished, least, relative
from npreparam.certified.bounds.profile import Profile, profiled


@profiled
@quiet
def log_softmax_bound(x: Any, ulps: float = ULPS, profile: Profile | str | None = None) -> Floats:
    """How far an honest log_softmax over the last axis may be from x_i - max - log(sum_j exp(x_j - max)).

    With d_j = max - x_j and L the logarithm: each d_j passes one operation, which moves exp(-d_j) to exp(-d_j*(1 - u)) at most; its function
    and n additions follow, so the sum has a relative error r, and the logarithm an absolute one of E = -log(1 - r), and its own. Three
    operations on numbers of at most |x_i| + |max| + L + E end it.

    x has any shape and float dtype, as has the float64 bound. Raises DTypeError, ArgumentError (NaN, infinity).

    >>> bool(log_softmax_bound(np.zeros((1, 2), np.float32)).max() < 30 * 2.0**-24)
    True
    """
    x, dx = profile.operand(x, "x")
    if not x.size:
        return np.zeros(x.shape)
    top = x.max(-1, keepdims=True)
    distance = top - x
    powers, one = np.exp(-distance), relative(profile, ulps, 0, 1)
    total, n = powers.sum(-1, keepdims=True), x.shape[-1]
    spoilt = (np.exp(-distance * (1 - one)) - powers).sum(-1, keepdims=True) / total + n * least(profile)
    r = up(plus(spoilt, relative(profile, ulps, 1, n)))
    logarithm = np.log(total)
    of_log = relative(profile, ulps, 1, 0) * logarithm + np.where(r < 1, -np.log1p(-np.minimum(r, 0.999)) * 1.001, np.inf)
    size = np.abs(x) + np.abs(top) + logarithm + of_log
    drift = dx + dx.max(-1, keepdims=True)
    return finished(of_log + relative(profile, ulps, 0, 3) * size + 4 * least(profile) + drift, size, profile)


@profiled
@quiet
def cross_entropy_bound(logits: Any, labels: Any, ulps: float = ULPS, profile: Profile | str | None = None) -> Floats:
    """How far an honest cross-entropy of each sample may be: that of `log_softmax_bound` at the label.

    logits (N, classes), labels (N,); the bound is (N,).

    >>> cross_entropy_bound(np.zeros((2, 3)), np.array([0, 1])).shape
    (2,)
    """
    bound = log_softmax_bound(logits, ulps, profile)
    return np.take_along_axis(bound, np.asarray(labels)[:, None], -1)[:, 0]


@profiled
@quiet
def bce_with_logits_bound(logits: Any, targets: Any, ulps: float = ULPS, profile: Profile | str | None = None) -> Floats:
    """How far an honest binary cross-entropy max(x, 0) - x*t + log(1 + exp(-|x|)) may be, or (1 - t)*x + softplus(-x).

    Two functions and two operations on the logarithm, five operations on numbers of at most |x|*(1 + 2|t|) and it.

    Both arguments and the float64 bound have the same shape. Raises DTypeError, ArgumentError (NaN, infinity).

    >>> bool(bce_with_logits_bound(np.float32([0.0]), np.float32([1.0])) < 20 * 2.0**-24)
    True
    """
    (x, dx), (t, dt) = profile.operand(logits, "logits"), profile.operand(targets, "targets")
    small = np.log1p(np.exp(-np.abs(x)))
    size = np.abs(x) * (1 + 2 * np.abs(t)) + small
    error = relative(profile, ulps, 2, 2) * small + relative(profile, ulps, 0, 5) * size + 4 * least(profile)
    return finished(error + dx * (1 + np.abs(t) + dt) + dt * np.abs(x), size, profile)
