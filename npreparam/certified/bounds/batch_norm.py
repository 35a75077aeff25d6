"""Batch normalization: how far an honest implementation may be, by given statistics or by its own of the batch."""

from __future__ import annotations

from typing import Any

import numpy as np

from npreparam._errors import ArgumentError, ShapeError
from npreparam.certified.bounds._majorant import Floats, U, plus, quiet, up
from npreparam.certified.bounds.profile import Profile, profiled
from npreparam.certified.bounds.reduce import mean_error

ROOT = 6  # roundings in 1/sqrt(var + eps): eps, var and their sum, each halved by the root; then root and quotient, or one rsqrt within 2 ulp
AFFINE = ROOT + 4  # and in the rest: gamma times it, times x and mean (or x - mean times it), and two additions
VARIANCES = ("one_pass", "two_pass")


def inverse_std(var: Floats, eps: Any, profile: Profile, name: str = "running_var") -> Floats:
    """At least 1/sqrt(var + eps); infinity where var + eps is so small that underflow is no relative error of u any more.

    Raises ArgumentError where var + eps is not positive.
    """
    v = var + float(eps)
    if not (v > 0).all():
        raise ArgumentError(f"`{name}` + `eps` (={v.min()}) must be positive; is `eps` (={eps!r}) missing?")
    return np.where(v * profile.unit < profile.tiny, np.inf, up(1 / np.sqrt(v)))


def _axes(x: Floats) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The axes that statistics run over, and the shape of a channel's parameter beside x."""
    if x.ndim not in (2, 4):
        raise ShapeError(f"`x` has shape {x.shape}, but must have 4 axes (batch, channels, height, width), or 2 (batch, channels)")
    return (0, *range(2, x.ndim)), (1, -1, *[1] * (x.ndim - 2))


def _per_channel(x: Floats, profile: Profile, **values: Any) -> list[Floats]:
    _, shape = _axes(x)
    for name, value in values.items():
        if np.shape(value) != (x.shape[1],):
            raise ShapeError(f"`{name}` has shape {np.shape(value)}, but must have shape {(x.shape[1],)}: one value for each channel of `x`")
    return [profile.parameter(value, name).reshape(shape) for name, value in values.items()]


def _affine_error(reach: Floats, gamma: Floats, beta: Floats, root: Floats, profile: Profile) -> tuple[Floats, Floats]:
    """(rounding error, largest intermediate) of (x - mean)*root*gamma + beta in any order, with `reach` at least |x| + |mean|.

    f*(S + a) + a with S = |gamma|*root*reach + |beta|, f = (1 - u)^-10 - 1, and a what underflow adds: in gamma*root (times reach), in
    (x - mean)*root (times gamma), in the last four operations, and by flushing gamma (times root*reach), x, mean or a difference of them
    (times gamma*root) and beta.
    """
    slope = np.abs(gamma) * root
    size = slope * reach + np.abs(beta)
    tiny = (reach * (1 + root) + np.abs(gamma) + 4 * slope + 5) * profile.tiny
    return up(profile.compound(AFFINE) * (size + tiny) + tiny), size + reach * (1 + root) + slope + np.abs(gamma)


@profiled
@quiet
def batch_norm_eval_bound(x: Any, gamma: Any, beta: Any, running_mean: Any, running_var: Any, eps: float = 1e-5,
                          profile: Profile | str | None = None) -> Floats:
    """How far an honest batch norm in evaluation mode may be from the exact y = (x - mean)/sqrt(var + eps)*gamma + beta.

    |y^ - y| <= ((1 - u)^-10 - 1) * (|gamma|*(|x| + |mean|)/sqrt(var + eps) + |beta|) + underflow

    whether x - mean is formed, or gamma/sqrt(var + eps) and beta - mean*gamma/sqrt(var + eps) are; a reciprocal root may be off by 2 ulp.

    x is NCHW or (N, C), the others (C,), all numbers of the accumulator's format; the bound is a float64 array of x's shape.

    Rounding: upwards. Raises ShapeError, DTypeError, ArgumentError (NaN, infinity; var + eps not positive; numbers to be rounded first).

    Source: ASNA, Lemma 3.1; Ioffe and Szegedy, arXiv 1502.03167, algorithm 2.

    >>> one = np.ones(1)
    >>> bool(batch_norm_eval_bound(np.ones((1, 1)), one, one, one, one, eps=0.0, profile="float32") < 31 * 2.0**-24)
    True
    """
    x = profile.parameter(x, "x")
    gamma, beta, mean, var = _per_channel(x, profile, gamma=gamma, beta=beta, running_mean=running_mean, running_var=running_var)
    root, reach = inverse_std(var, eps, profile), np.abs(x) + np.abs(mean)
    error, partial = _affine_error(reach, gamma, beta, root, profile)
    value = np.abs(gamma) * root * (np.abs(x - mean) + 2 * U * reach) + np.abs(beta)
    return up(profile.finish(error, up(value), partial))


@profiled
@quiet
def moments_bounds(x: Any, variance: str = "two_pass", profile: Profile | str | None = None) -> tuple[Floats, Floats]:
    """How far an honest mean and biased variance of each channel may be from the exact ones, in the accumulator's format.

    With E the bound of the mean (`mean_error`), n values in a channel, f their growth and g_k = (1 - u)^-k - 1, + meaning f + g + f*g:

        two-pass, sum (x - m^)^2 / n:   (f + g_5)*(var + E^2) + E^2
        one-pass, sum x^2/n - m^2:      ((f + g_2)*mean(x^2) + 2|mean|E + E^2 + g_3*(|mean| + E)^2)*(1 + g_3) + g_3*var

    and underflow. So relative to var the two-pass error is n*u + (n*u*k)^2, the one-pass error n*u*k^2, where k^2 = 1 + mean^2/var is the
    condition of the variance: which of the two was used shows in the error.

    x is NCHW or (N, C), of numbers of the accumulator's format; the bounds are (C,).

    Rounding: upwards. Raises ShapeError, DTypeError, ArgumentError.

    Source: Chan, Golub and LeVeque, The American Statistician 37(3), 1983.

    >>> x = 1000 + np.array([[-1.0], [1.0]])
    >>> bool(moments_bounds(x, "one_pass")[1] > 100_000 * moments_bounds(x, "two_pass")[1])
    True
    """
    of_mean, of_var, *_ = _moments(profile.parameter(x, "x"), variance, profile)
    return of_mean.ravel(), of_var.ravel()


def _moments(x: Floats, variance: str, profile: Profile) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """(E of the mean, E of the variance, float64 mean, its own error, float64 variance), with as many axes as x."""
    if variance not in VARIANCES:
        raise ArgumentError(f"`variance` (={variance!r}) must be one of {', '.join(map(repr, VARIANCES))}")
    over, _ = _axes(x)
    n = x.size // max(x.shape[1], 1)
    if n == 0:
        raise ShapeError(f"`x` has shape {x.shape}: there is nothing to average")
    size = up(np.abs(x).mean(over, keepdims=True), n + 1)
    mean, of_float64 = x.mean(over, keepdims=True), 2 * (n + 2) * U * size
    var = ((x - mean) ** 2).mean(over, keepdims=True)
    var_up = up(var + of_float64**2, n + 5)
    of_mean, growth, tiny = mean_error(size, n, n, profile), profile.growth(n, n), (2 * n + 8 + 8 * size) * profile.tiny

    def more(k: int) -> Floats:
        return plus(growth, profile.compound(k))

    if variance == "two_pass":
        of_var, total = more(5) * (var_up + of_mean**2 + tiny) + of_mean**2 + tiny, n * (var_up + of_mean**2)
    else:
        squares, m, last = up((x**2).mean(over, keepdims=True), n + 2), np.abs(mean) + of_float64, profile.compound(3)
        lost = more(2) * (squares + tiny) + 2 * m * of_mean + of_mean**2 + last * (m + of_mean) ** 2 + 2 * tiny
        of_var, total = lost * (1 + last) + last * var_up + tiny, n * squares
    fits = np.maximum(total, n * size) * (1 + more(5)) <= profile.limit
    return np.where(fits, of_mean, np.inf), np.where(fits, up(of_var), np.inf), mean, of_float64, var


@profiled
@quiet
def batch_norm_train_bound(x: Any, gamma: Any, beta: Any, eps: float = 1e-5, variance: str = "two_pass",
                           profile: Profile | str | None = None) -> Floats:
    """How far an honest batch norm of training, by the batch's own statistics, may be from the exact one.

    With (E, V) from `moments_bounds`, v = var + eps, q = V/v, r = 1/sqrt(v - V) the largest reciprocal root and r - 1/sqrt(v) =
    r*q/(1 + sqrt(1 - q)): what the wrong statistics do, and the rounding of evaluation with them,

        |y^ - y| <= |gamma|*(|x - mean|*r*q/(1 + sqrt(1 - q)) + E*r) + ((1 - u)^-10 - 1)*(|gamma|*r*(|x| + |mean| + E) + |beta|)

    and underflow. Infinite where V >= v: the variance may come out as 0 or negative, as a one-pass variance does.

    x is NCHW or (N, C), gamma and beta (C,), all numbers of the accumulator's format; the bound is a float64 array of x's shape.

    Rounding: upwards. Raises ShapeError, DTypeError, ArgumentError.

    Source: as `moments_bounds` and `batch_norm_eval_bound`.

    >>> batch_norm_train_bound(np.array([[1000.0], [1000.5]]), np.ones(1), np.ones(1), variance="one_pass", profile="float32").ravel()
    array([inf, inf])
    """
    x = profile.parameter(x, "x")
    gamma, beta = _per_channel(x, profile, gamma=gamma, beta=beta)
    of_mean, of_var, mean, of_float64, var = _moments(x, variance, profile)
    n = x.size // x.shape[1]
    uncertain = 4 * (n + 8) * U * var + 2 * of_float64**2  # var itself is off by half as much
    v = var - uncertain + float(eps)
    q = up((of_var + 2 * uncertain) / v)
    sound = (v > 0) & (q < 1) & (v * (1 - q) * profile.unit >= profile.tiny)
    q = np.where(sound, q, 0.0)
    root = np.where(sound, up(1 / np.sqrt(v * (1 - q))), np.inf)
    distance, reach = np.abs(x - mean) + 2 * of_float64, np.abs(x) + np.abs(mean) + of_float64 + of_mean
    moved = np.abs(gamma) * (distance * root * q / (1 + np.sqrt(1 - q)) + of_mean * root)
    error, partial = _affine_error(reach, gamma, beta, root, profile)
    value = np.abs(gamma) * root * distance + np.abs(beta)
    return up(profile.finish(moved + error, up(value), partial))


@profiled
@quiet
def running_bounds(x: Any, running_mean: Any, running_var: Any, momentum: float = 0.1, variance: str = "two_pass",
                   profile: Profile | str | None = None) -> tuple[Floats, Floats]:
    """How far honestly updated running statistics may be from (1 - m)*old + m*statistic, the variance being the unbiased estimate.

    |r^ - r| <= |m|*E + ((1 - u)^-8 - 1)*((|1 - m| + |m|)*|old| + |m|*(|statistic| + E)), E from `moments_bounds`, and underflow

    whether written so or as old + m*(statistic - old): rounding m, 1 - m, n/(n - 1), three products and two additions.

    x is NCHW or (N, C), the running statistics and the bounds are (C,). Raises as `moments_bounds`.

    >>> [bound.shape for bound in running_bounds(np.array([[1.0], [3.0]]), np.zeros(1), np.ones(1))]
    [(1,), (1,)]
    """
    x, m = profile.parameter(x, "x"), abs(float(momentum))
    old_mean, old_var = (v.ravel() for v in _per_channel(x, profile, running_mean=running_mean, running_var=running_var))
    n = x.size // max(x.shape[1], 1)
    of_mean, of_var, mean, of_float64, var = (v.ravel() for v in _moments(x, variance, profile))
    scale, found = n / max(n - 1, 1), []
    for old, statistic, error in ((old_mean, np.abs(mean) + of_float64, of_mean), (old_var, scale * (var + of_float64**2), scale * of_var)):
        size = (abs(1 - float(momentum)) + m) * np.abs(old) + m * (statistic + error)
        found.append(up(profile.finish(up(m * error + profile.compound(8) * size + 8 * profile.tiny), up(size), up(size + statistic + np.abs(old)))))
    return found[0], found[1]
