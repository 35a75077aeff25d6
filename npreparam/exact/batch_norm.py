"""Batch norm and its gradient in both modes, correctly rounded although their square roots are irrational.

With v = var + eps every result is r + a/sqrt(v) with rational r and a (`roots` rounds it). Means and variances of a batch are rational:
the definitions are evaluated as they stand. NaN and infinities follow the rules in `special`, applied to the formulas as written here; so a
batch with one of them has the variance NaN. An exact zero is +0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from npreparam._errors import ArgumentError, ShapeError
from npreparam._shapes import as_bool
from npreparam.exact.roots import InverseRoot, Number, round_sum
from npreparam.exact.rounding import FORMATS, Array, Format, as_fractions, as_numbers, checked, result_dtype, round_ratio, round_to_bits
from npreparam.exact.special import NAN, Special, order


def batch_norm(x: Any, gamma: Any, beta: Any, running_mean: Any, running_var: Any, training: bool = False, momentum: float = 0.1,
               eps: float = 1e-5, out_dtype: Any = "same") -> Any:
    """The correctly rounded batch norm: y = (x - mean)/sqrt(var + eps) * gamma + beta for each channel.

    Evaluation: mean and var are the running ones; returns y. Training: they are mean and biased variance of the n = N*H*W values of a
    channel; returns (y, running_mean', running_var') with

        running_mean' = (1 - momentum)*running_mean + momentum*mean,   running_var' = (1 - momentum)*running_var + momentum*var*n/(n-1)

    x is NCHW or (N, C), the others (C,); `eps` and `momentum` are the rational numbers that the floats are. `out_dtype`, for all results,
    defaults to the dtype of x; None is refused, since the root is seldom rational. NaN and infinities: see the module.

    Rounding: once, to nearest, ties to even, the root decided by integer arithmetic.

    Raises ShapeError, DTypeError, ArgumentError (var + eps not positive; momentum; training with one value per channel).

    Source: Ioffe and Szegedy, arXiv 1502.03167, algorithms 1 and 2; momentum as in PyTorch's BatchNorm2d.

    >>> batch_norm(np.array([[3.0]]), [1], [0], [1], [4], eps=0)
    array([[1.]])
    >>> batch_norm(np.array([[1.0], [3.0]]), [1], [0], [0], [1], training=True, momentum=0.5, eps=0)[1:]
    (array([1.]), array([1.5]))
    """
    as_bool(training, "training")
    dtype = result_dtype(out_dtype, x)
    form = FORMATS[dtype.name]
    x, gamma, beta, old_mean, old_var = _operands(x, gamma=gamma, beta=beta, running_mean=running_mean, running_var=running_var)
    bits, means, variances = np.empty(x.shape, form.bits), [], []
    for c, mean, var, root in _statistics(x, old_mean, old_var, eps, training):
        flat = [round_sum(beta[c], [((value - mean) * gamma[c], root)], form) for value in x[:, c].ravel()]
        bits[:, c] = np.array(flat, form.bits).reshape(x[:, c].shape)
        means.append(mean)
        variances.append(var)
    y = bits.view(dtype)
    return (y, *updated((old_mean, means), (old_var, variances), momentum, x.size // max(1, x.shape[1]), dtype)) if training else y


def batch_norm_grad(gy: Any, x: Any, gamma: Any, running_mean: Any, running_var: Any, training: bool = False, eps: float = 1e-5,
                    out_dtype: Any = "same") -> tuple[Array, Array, Array]:
    """The correctly rounded cotangents (gx, ggamma, gbeta) of `batch_norm` for the cotangent gy of its y.

    With xhat = (x - mean)/sqrt(var + eps): gbeta = sum gy, ggamma = sum gy*xhat, both over (N, H, W), and

        evaluation:  gx = gamma/sqrt(var + eps) * gy
        training:    gx = gamma/sqrt(var + eps) * (gy - mean(gy) - xhat*mean(gy*xhat)), the running statistics not looked at

    gy has the shape of x. `out_dtype` defaults to the dtype of gy; shapes, rounding and errors as in `batch_norm`.

    Source: Ioffe and Szegedy, arXiv 1502.03167, section 3; xhat*mean(gy*xhat) = (x - mean)*mean(gy*(x - mean))/(var + eps) is rational.

    >>> batch_norm_grad(np.array([[4.0]]), np.array([[3.0]]), [1], [1], [4], eps=0)
    (array([[2.]]), array([4.]), array([4.]))
    """
    as_bool(training, "training")
    dtype = result_dtype(out_dtype, gy)
    form = FORMATS[dtype.name]
    x, gamma, old_mean, old_var = _operands(x, gamma=gamma, running_mean=running_mean, running_var=running_var)
    gy = checked(as_numbers(gy, "gy"), "gy", x.shape)
    gx, ggamma, gbeta = np.empty(x.shape, form.bits), np.empty(x.shape[1], form.bits), np.empty(x.shape[1], form.bits)
    for c, mean, _, root in _statistics(x, old_mean, old_var, eps, training):
        g, centered = gy[:, c], x[:, c] - mean
        total, product = np.sum(g), np.sum(g * centered)
        if training:
            inverse = NAN if isinstance(root.v, Special) else 1 / root.v
            g = g - total * Fraction(1, g.size) - centered * (product * Fraction(1, g.size) * inverse)
        flat = [round_sum(Fraction(0), [(value * gamma[c], root)], form) for value in g.ravel()]
        gx[:, c] = np.array(flat, form.bits).reshape(g.shape)
        ggamma[c], gbeta[c] = round_sum(Fraction(0), [(product, root)], form), round_sum(total, [], form)
    return gx.view(dtype), ggamma.view(dtype), gbeta.view(dtype)


def _operands(x: Any, **per_channel: Any) -> list[Array]:
    """x and the vectors as numbers, their shapes checked."""
    numbers = as_numbers(x, "x")
    return [numbers, *channel_vectors(numbers.shape, **per_channel)]


def channel_vectors(shape: tuple[int, ...], read: Callable[[Any, str], Any] = as_numbers, **per_channel: Any) -> list[Any]:
    """The vectors as numbers, as `read(value, name)` makes them, one for each channel of an array of this shape."""
    channels = shape[1] if len(shape) in (2, 4) else -1
    vectors = [read(value, name) for name, value in per_channel.items()]
    if any(vector.shape != (channels,) for vector in vectors):
        raise ShapeError(f"`x` has shape {shape} and the statistics {[v.shape for v in vectors]}; they must be NCHW or (N, C), and (C,)")
    return vectors


def scalar(value: Any, name: str) -> Fraction:
    """A finite number."""
    return checked(as_fractions(value, name), name, ()).item()


def _statistics(x: Array, old_mean: Array, old_var: Array, eps: float, training: bool) -> Iterator[tuple[int, Number, Number, InverseRoot]]:
    """(channel, mean, variance, 1/sqrt(variance + eps)) of each channel: those of the batch while training, else the running ones."""
    exact_eps = scalar(eps, "eps")
    for c, (mean, var) in enumerate(zip(old_mean, old_var, strict=True)):
        if training:
            mean, var = _moments(x[:, c].ravel())
        yield c, mean, var, inverse_root(var, exact_eps, c, training)


def inverse_root(var: Number, eps: Fraction, channel: int, training: bool) -> InverseRoot:
    """1/sqrt(var + eps)."""
    v = var + eps
    if order(v) <= (0, 0):
        name = "variance" if training else "`running_var`"
        raise ArgumentError(f"{name} + `eps` (={float(v)}) of channel {channel} must be positive; use a larger `eps`")
    return InverseRoot(v)


def _moments(values: Array) -> tuple[Number, Number]:
    """Mean and biased variance."""
    n = at_least_two(values.size)
    mean = np.sum(values) * Fraction(1, n)
    centered = values - mean
    return mean, np.sum(centered * centered) * Fraction(1, n)


def at_least_two(n: int) -> int:
    """n, the number of values per channel."""
    if n < 2:
        raise ArgumentError(f"`x` has {n} values per channel, but training needs at least 2: fewer have no unbiased variance. "
                            "Use a larger batch, or training=False")
    return n


def blend_weights(momentum: float, n: int) -> tuple[Fraction, Fraction, Fraction]:
    """The weights of a running statistic, of the new mean and of the new biased variance, after a batch with n values per channel."""
    weight = scalar(momentum, "momentum")
    if not 0 <= weight <= 1:
        raise ArgumentError(f"`momentum` (={momentum!r}), the weight of the new statistic, must be a number in [0, 1]")
    return 1 - weight, weight, weight * Fraction(n, max(1, n - 1))


def updated(mean: tuple[Array, list[Number]], var: tuple[Array, list[Number]], momentum: float, n: int,
            dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """The rounded running statistics after a batch with n values per channel, from (running ones, those of the batch)."""
    form, (kept, *taken) = FORMATS[dtype.name], blend_weights(momentum, n)
    blended = [[round_blend(a, kept, b, weight, form) for a, b in zip(old, new, strict=True)]
               for (old, new), weight in zip((mean, var), taken, strict=True)]
    new_mean, new_var = (np.array(bits, form.bits).view(dtype) for bits in blended)
    return new_mean, new_var


def round_blend(a: Number, of_a: Fraction, b: Number, of_b: Fraction, form: Format) -> int:
    """The bits of a*of_a + b*of_b, without the greatest common divisors that Fractions would look for on the way."""
    if isinstance(a, Special) or isinstance(b, Special):
        return round_to_bits(a * of_a + b * of_b, form)
    left, right = a.denominator * of_a.denominator, b.denominator * of_b.denominator
    return round_ratio(a.numerator * of_a.numerator * right + b.numerator * of_b.numerator * left, left * right, form)
