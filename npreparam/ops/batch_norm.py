"""Batch normalization in training and evaluation mode, with the gradient as a primitive of its own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from npreparam import kernels
from npreparam._errors import ArgumentError, ShapeError
from npreparam._shapes import as_bool
from npreparam.ops._primitive import gradient, primitive
from npreparam.ops._validate import Array, as_array, check_shape, is_number, same_dtype
from npreparam.ops.arithmetic import add, div, mul, neg, sqrt, square, sub
from npreparam.ops.shape import mean as mean_over
from npreparam.ops.shape import reshape
from npreparam.ops.shape import sum as sum_over


def _is_real(value: Any) -> bool:
    return is_number(value) or isinstance(value, np.floating)


def _check(x: Array, eps: float, **per_channel: Array) -> None:
    if as_array(x, "x").ndim not in (2, 4):
        raise ShapeError(f"`x` has shape {x.shape}, but must have 4 axes (batch, channels, height, width), or 2 (batch, channels)")
    for name, value in per_channel.items():
        check_shape(as_array(value, name), name, (x.shape[1],), "one value for each channel of `x`")
    if not _is_real(eps) or not 0 <= eps < np.inf:
        raise ArgumentError(f"`eps` (={eps!r}) must be a finite number and not negative")


def batch_norm(x: Array, gamma: Array, beta: Array, running_mean: Array, running_var: Array, training: bool = False, momentum: float = 0.1,
               eps: float = 1e-5) -> Any:
    """Normalize each channel: by the batch's own mean and variance while training, by the running ones in evaluation.

    y = (x - mean)/sqrt(var + eps) * gamma + beta

    Training: mean and biased variance over (N, H, W); returns (y, running_mean, running_var) with *new* running statistics

        running_mean' = (1 - momentum)*running_mean + momentum*mean
        running_var'  = (1 - momentum)*running_var  + momentum*var*m/(m-1),   m = N*H*W

    (the unbiased variance; `momentum` is the weight of the new statistic). Evaluation: returns y. Running statistics are arrays, no
    gradient flows into them while training; in evaluation they may be Tensors.

    x is NCHW or (N, C), the others (C,); float32 or float64, all the same.

    Rounding: computed in float64 and rounded once; the variance is two-pass. For float64 in evaluation |error| is a few
    u*(|xhat||gamma| + |beta|). In training the mean is itself rounded, so the error grows with |mean|/std:
    |error| <= gamma_{2n+16}*(|gamma|*(|x| + mean|x|)/sqrt(var + eps) + |beta|) with n = N*H*W.

    Raises ShapeError, DTypeError, ArgumentError (eps, momentum; training with one value per channel, which has no unbiased variance).

    Source: Ioffe and Szegedy, arXiv 1502.03167, algorithm 1; momentum as in PyTorch's BatchNorm2d.

    >>> x, one = np.array([[1.0], [3.0]]), np.ones(1)
    >>> y, mean, var = batch_norm(x, one, 0 * one, 0 * one, one, training=True, eps=0.0)
    >>> y.ravel(), mean, var
    (array([-1.,  1.]), array([0.2]), array([1.1]))
    """
    if not as_bool(training, "training"):
        return batch_norm_eval(x, gamma, beta, running_mean, running_var, eps)
    if not _is_real(momentum) or not 0 <= momentum <= 1:
        raise ArgumentError(f"`momentum` (={momentum!r}), the weight of the new statistic, must be a number in [0, 1]")
    y, mean, var = batch_norm_train(x, gamma, beta, eps)
    mean, var = (value if isinstance(value, np.ndarray) else value.value for value in (mean, var))
    for name, value in (("running_mean", running_mean), ("running_var", running_var)):
        check_shape(as_array(value, name), name, mean.shape, "one value for each channel of `x`")
        same_dtype(**{"x": mean, name: value})
    keep, new, unbiased = (mean.dtype.type(value) for value in (1 - momentum, momentum, _count(x) / (_count(x) - 1)))
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return y, keep * running_mean + new * mean, keep * running_var + new * (var * unbiased)


def _count(x: Any) -> int:
    """Number of values of one channel: N*H*W."""
    return math.prod(x.shape[i] for i in _over(x))


def _check_trainable(x: Array) -> None:
    if _count(x) < 2:
        raise ArgumentError(f"`x` of shape {x.shape} has {_count(x)} values per channel, but training needs at least 2: "
                            "fewer have no unbiased variance. Use a larger batch, or training=False")


@primitive
def batch_norm_train(x: Array, gamma: Array, beta: Array, eps: float = 1e-5) -> tuple[Array, Array, Array]:
    """Batch normalization by the batch's own statistics: (y, mean, biased variance), the last two without gradients.

    >>> batch_norm_train(np.array([[1.0], [3.0]]), np.ones(1), np.zeros(1), eps=0.0)[0].ravel()
    array([-1.,  1.])
    """
    x, gamma, beta = same_dtype(x=x, gamma=gamma, beta=beta)
    _check(x, eps, gamma=gamma, beta=beta)
    _check_trainable(x)
    mean, var = kernels.batch_norm.statistics(x)
    y = kernels.batch_norm.normalize(x, gamma, beta, mean, var, eps)
    with np.errstate(over="ignore", under="ignore"):
        return y, mean.astype(x.dtype), var.astype(x.dtype)


@primitive
def batch_norm_eval(x: Array, gamma: Array, beta: Array, mean: Array, var: Array, eps: float = 1e-5) -> Array:
    """Batch normalization by given statistics: a fixed affine map of each channel.

    >>> batch_norm_eval(np.array([[3.0]]), np.ones(1), np.zeros(1), np.ones(1), np.array([4.0]), eps=0.0)
    array([[1.]])
    """
    x, gamma, beta, mean, var = same_dtype(x=x, gamma=gamma, beta=beta, running_mean=mean, running_var=var)
    _check(x, eps, gamma=gamma, beta=beta, running_mean=mean, running_var=var)
    if (var + eps < 0).any():  # NaN passes through
        raise ArgumentError(f"`running_var` must not be negative beyond `eps` (={eps!r}): the smallest is {np.nanmin(var)}; is it a variance?")
    return kernels.batch_norm.normalize(x, gamma, beta, mean, var, eps)


@primitive
def batch_norm_train_grad(gy: Array, x: Array, gamma: Array, eps: float = 1e-5) -> tuple[Array, Array, Array]:
    """Cotangents (gx, ggamma, gbeta) of `batch_norm_train`, the dependence of mean and variance on x included.

    With xhat = (x - mean)/sqrt(var + eps), sums and means over (N, H, W): gbeta = sum gy, ggamma = sum gy*xhat,
    gx = gamma/sqrt(var + eps) * (gy - mean(gy) - xhat*mean(gy*xhat)).

    >>> batch_norm_train_grad(np.array([[1.0], [3.0]]), np.array([[1.0], [3.0]]), np.ones(1), eps=0.0)[1:]
    (array([2.]), array([4.]))
    """
    gy, x, gamma = same_dtype(gy=gy, x=x, gamma=gamma)
    _check(x, eps, gamma=gamma)
    check_shape(as_array(gy, "gy"), "gy", x.shape, "that of `x`")
    _check_trainable(x)
    return kernels.batch_norm.backward(gy, x, gamma, *kernels.batch_norm.statistics(x), eps, True)


@primitive
def batch_norm_eval_grad(gy: Array, x: Array, gamma: Array, mean: Array, var: Array, eps: float = 1e-5) -> tuple[Array, Array, Array]:
    """Cotangents (gx, ggamma, gbeta) of `batch_norm_eval`.

    With xhat = (x - mean)/sqrt(var + eps), sums over (N, H, W): gx = gy*gamma/sqrt(var + eps), ggamma = sum gy*xhat, gbeta = sum gy.

    >>> batch_norm_eval_grad(np.ones((1, 1)), np.ones((1, 1)), np.ones(1), np.zeros(1), np.ones(1), eps=0.0)
    (array([[1.]]), array([1.]), array([1.]))
    """
    values = same_dtype(gy=gy, x=x, gamma=gamma, running_mean=mean, running_var=var)
    gy, x, gamma, mean, var = values  # type: ignore[assignment]
    _check(x, eps, gamma=gamma, running_mean=mean, running_var=var)
    check_shape(as_array(gy, "gy"), "gy", x.shape, "that of `x`")
    return kernels.batch_norm.backward(gy, x, gamma, mean, var, eps, False)


def batch_norm_grad(gy: Array, x: Array, gamma: Array, running_mean: Array, running_var: Array, training: bool = False,
                    eps: float = 1e-5) -> tuple[Array, Array, Array]:
    """Cotangents (gx, ggamma, gbeta) of `batch_norm` for the cotangent gy of its output y.

    Training, by the statistics of x (the running ones are not looked at), with the dependence of mean and variance on x included:

        gx = gamma/sqrt(var + eps) * (gy - mean(gy) - xhat*mean(gy*xhat)),   ggamma = sum gy*xhat,   gbeta = sum gy

    Evaluation, by the running statistics: gx = gy*gamma/sqrt(running_var + eps), ggamma and gbeta as above.

    Shapes, dtypes and errors as `batch_norm`. Rounding: sums and elements in float64, rounded once.

    Source: Ioffe and Szegedy, arXiv 1502.03167, section 3.

    >>> batch_norm_grad(np.ones((1, 1)), np.ones((1, 1)), np.ones(1), np.zeros(1), np.ones(1), eps=0.0)
    (array([[1.]]), array([1.]), array([1.]))
    """
    if as_bool(training, "training"):
        return batch_norm_train_grad(gy, x, gamma, eps)
    return batch_norm_eval_grad(gy, x, gamma, running_mean, running_var, eps)


def _over(x: Any) -> tuple[int, ...]:
    """The axes that statistics run over."""
    return (0, *range(2, len(x.shape)))


def _channels(value: Any, x: Any) -> Any:
    """One value per channel, shaped to broadcast against x."""
    return reshape(value, tuple(-1 if i == 1 else 1 for i in range(len(x.shape))))


def _inverse_std(var: Any, eps: float) -> Any:
    return div(1.0, sqrt(add(var, eps)))


def _train_parts(x: Any, eps: float) -> tuple[Any, Any]:
    """xhat and 1/sqrt(var + eps) of a batch, as differentiable functions of x."""
    centered = sub(x, mean_over(x, _over(x), keepdims=True))
    scale = _inverse_std(mean_over(square(centered), _over(x), keepdims=True), eps)
    return mul(centered, scale), scale


def _train_grad_again(h: tuple[Any, Any, Any], a: Any) -> tuple[Any, Any, Any]:
    """Cotangents of (gy, x, gamma) in <h, batch_norm_train_grad(gy, x, gamma)>, by differentiating its formula piece by piece.

    With s = 1/sqrt(var + eps), P the projection v - mean(v) - xhat*mean(v*xhat) (symmetric, so <hx, P gy> = <P hx, gy>):

        F = sum_c gamma*s*<P hx, gy> + hgamma*<gy, xhat> + hbeta*sum gy
        dF/dgy = gamma*s*P hx + hgamma*xhat + hbeta,   dF/dgamma = s*<P hx, gy>
        dF/dx  = P(q)*s - xhat*mean(r)*s   with q = dF/dxhat, r = gamma*s*(P hx)*gy summed as mean over the channel (dF/ds)
    """
    hx, hgamma, hbeta = h
    x, gy, over = a.x, a.gy, _over(a.x)
    gamma = _channels(a.gamma, x)
    xhat, s = _train_parts(x, a.eps)

    def average(v: Any) -> Any:
        return mean_over(v, over, keepdims=True)

    def project(v: Any) -> Any:
        return sub(sub(v, average(v)), mul(xhat, average(mul(v, xhat))))

    ph = project(hx)
    to_gy = add(add(mul(mul(gamma, s), ph), mul(_channels(hgamma, x), xhat)), _channels(hbeta, x))
    to_gamma = reshape(mul(sum_over(mul(ph, gy), over, keepdims=True), s), a.gamma.shape)
    q = sub(mul(_channels(hgamma, x), gy), mul(mul(gamma, s), add(mul(hx, average(mul(gy, xhat))), mul(gy, average(mul(hx, xhat))))))
    to_x = sub(mul(s, project(q)), mul(mul(mul(gamma, square(s)), xhat), average(mul(ph, gy))))
    return to_gy, to_x, to_gamma


def _train_rule(g: Any, y: Any, a: Any) -> Any:
    return batch_norm_train_grad(g[0], a.x, a.gamma, a.eps)


def _eval_rule(g: Any, y: Any, a: Any) -> tuple[Any, Any, Any]:
    return batch_norm_eval_grad(g, a.x, a.gamma, a.mean, a.var, a.eps)


def _eval_mean(g: Any, y: Any, a: Any) -> Any:
    return neg(mul(mul(sum_over(g, _over(a.x)), a.gamma), _inverse_std(a.var, a.eps)))


def _over_std(by: Any, a: Any) -> Any:
    """The cotangent of var where s = (var + eps)^(-1/2) has the cotangent `by`: ds/dvar = -s^3/2."""
    s = _inverse_std(a.var, a.eps)
    return mul(mul(by, mul(s, square(s))), -0.5)


def _eval_var(g: Any, y: Any, a: Any) -> Any:
    return _over_std(mul(_sum_centered(g, a), a.gamma), a)


def _sum_centered(g: Any, a: Any) -> Any:
    return sum_over(mul(g, sub(a.x, _channels(a.mean, a.x))), _over(a.x))


def _eval_grad_again(h: tuple[Any, Any, Any], y: Any, a: Any) -> tuple[Any, Any, Any, Any, Any]:
    """Cotangents of (gy, x, gamma, mean, var) in <h, batch_norm_eval_grad(gy, x, gamma, mean, var)>, which is, with s = 1/sqrt(var + eps),

    F = sum_c s*gamma*<hx, gy> + s*hgamma*<gy, x - mean> + hbeta*sum gy
    """
    hx, hgamma, hbeta = h
    x, gy, over = a.x, a.gy, _over(a.x)
    s = _inverse_std(a.var, a.eps)
    by_gamma, by_hgamma = sum_over(mul(hx, gy), over), _sum_centered(gy, a)
    slope = mul(s, hgamma)
    to_gy = add(add(mul(hx, _channels(mul(s, a.gamma), x)), mul(sub(x, _channels(a.mean, x)), _channels(slope, x))), _channels(hbeta, x))
    to_var = _over_std(add(mul(a.gamma, by_gamma), mul(hgamma, by_hgamma)), a)
    return to_gy, mul(gy, _channels(slope, x)), mul(s, by_gamma), neg(mul(slope, sum_over(gy, over))), to_var


gradient(batch_norm_train, ("x", "gamma", "beta"), _train_rule)
gradient(batch_norm_train_grad, ("gy", "x", "gamma"), lambda g, y, a: _train_grad_again(g, a))
gradient(batch_norm_eval, ("x", "gamma", "beta"), _eval_rule)
gradient(batch_norm_eval, "mean", _eval_mean)
gradient(batch_norm_eval, "var", _eval_var)
gradient(batch_norm_eval_grad, ("gy", "x", "gamma", "mean", "var"), _eval_grad_again)
