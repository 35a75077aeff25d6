"""Gradients of batch norm: how far an honest implementation may be, by given statistics or through those of the batch."""

from __future__ import annotations

from typing import Any

import numpy as np

from npreparam._errors import ShapeError
from npreparam.certified.bounds._majorant import Floats, U, plus, quiet, up
from npreparam.certified.bounds.batch_norm import AFFINE, _axes, _moments, _per_channel, inverse_std
from npreparam.certified.bounds.profile import Profile, profiled

Three = tuple[Floats, Floats, Floats]


@profiled
@quiet
def batch_norm_grad_bound(gy: Any, x: Any, gamma: Any, running_mean: Any, running_var: Any, training: bool = False, eps: float = 1e-5,
                          variance: str = "two_pass", profile: Profile | str | None = None) -> Three:
    """How far honest cotangents (gx, ggamma, gbeta) of batch norm may be from the exact ones.

    With s = 1/sqrt(var + eps), h = (x - mean)*s, f the growth of n terms, g_k = (1 - u)^-k - 1, and h^ wrong by e (statistics and rounding, as in
    `batch_norm_train_bound`, H = |h| + e):

        gbeta = sum gy:      f*sum|gy|
        ggamma = sum gy*h:   sum|gy|*e + (f + g_5)*sum|gy|*H
        gx, evaluation:      g_10*|gamma|*s*|gy|
        gx, training:        gx = gamma*s*(gy - mean(gy) - h*mean(gy*h)); the terms' magnitudes T = |gy| + mean|gy| + H*mean(|gy|*H) times
                             |gamma|*s*(relative error of s + g_14 + f), and |gamma|*s*(e*mean(|gy|H) + H*mean(|gy|e) + 2*(f + E*s)*mean(|gy|H))

    the last for forms that also sum x - mean, which is 0 but for rounding. Underflow apart.

    gy and x are NCHW or (N, C), the others (C,), all numbers of the accumulator's format; the bounds have the shapes of gx, ggamma and gbeta.

    Rounding: upwards. Raises as `batch_norm_train_bound`.

    Source: ASNA, Lemma 3.1; Ioffe and Szegedy, arXiv 1502.03167, section 3.

    >>> one = np.ones(1)
    >>> gx, ggamma, gbeta = batch_norm_grad_bound(np.ones((4, 1)), np.ones((4, 1)), one, one, one, eps=0.0, profile="float32")
    >>> bool(gx.max() < 11 * 2.0**-24), bool(gbeta < 17 * 2.0**-24)
    (True, True)
    """
    x, gy = profile.parameter(x, "x"), profile.parameter(gy, "gy")
    if gy.shape != x.shape:
        raise ShapeError(f"`gy` has shape {gy.shape}, but must have shape {x.shape}")
    gamma, mean, var = _per_channel(x, profile, gamma=gamma, running_mean=running_mean, running_var=running_var)
    over, n, g = _axes(x)[0], x.size // max(x.shape[1], 1), np.abs(gy)
    if training:
        root, of_root, of_mean, distance, reach = _batch_roots(x, eps, variance, profile)
    else:
        root, of_root, of_mean = inverse_std(var, eps, profile), np.zeros(()), np.zeros(())
        distance, reach = np.abs(x - mean) + 2 * U * (np.abs(x) + np.abs(mean)), np.abs(x) + np.abs(mean)
    growth, tiny = profile.growth(n, n), profile.tiny
    spoilt = distance * root * of_root + of_mean * root + profile.compound(AFFINE) * reach * root + (reach + root + 2) * tiny
    size = distance * root + spoilt
    of_beta, total = up(growth * _sum(g, over)), up(_sum(g, over))
    of_gamma = up(_sum(g * spoilt, over) + plus(growth, profile.compound(5)) * _sum(g * size, over) + n * tiny * (1 + root.ravel()))
    slope = np.abs(gamma) * root
    if training:
        along, wrong = (g * size).mean(over, keepdims=True), (g * spoilt).mean(over, keepdims=True)
        terms = g + g.mean(over, keepdims=True) + size * along
        error = terms * plus(of_root, profile.compound(14), growth) + spoilt * along + size * wrong + 2 * (growth + of_mean * root) * along
    else:
        terms = g
        error = profile.compound(AFFINE) * g
    lost = (1 + slope) * (1 + root) * (2 + terms) * 8 * tiny
    of_x = up(slope * error + lost)
    return (up(profile.finish(of_x, up(slope * terms), up((1 + slope) * (1 + root) * terms))),
            up(profile.finish(of_gamma, up(_sum(g * size, over)), up(_sum(g * reach * (1 + root), over)))),
            up(profile.finish(of_beta, total, total)))


def _sum(values: Floats, over: tuple[int, ...]) -> Floats:
    return values.sum(over)


def _batch_roots(x: Floats, eps: float, variance: str, profile: Profile) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """(largest 1/sqrt(var + eps), its relative error, error of the mean, |x - mean|, |x| + |mean| + error) of the batch."""
    of_mean, of_var, mean, of_float64, var = _moments(x, variance, profile)
    n = x.size // x.shape[1]
    uncertain = 4 * (n + 8) * U * var + 2 * of_float64**2
    v = var - uncertain + float(eps)
    q = up((of_var + 2 * uncertain) / v)
    sound = (v > 0) & (q < 1) & (v * (1 - q) * profile.unit >= profile.tiny)
    q = np.where(sound, q, 0.0)
    root = np.where(sound, up(1 / np.sqrt(v * (1 - q))), np.inf)
    return root, q / (1 + np.sqrt(1 - q)), of_mean, np.abs(x - mean) + 2 * of_float64, np.abs(x) + np.abs(mean) + of_float64 + of_mean
