"""Folding batch normalization into the convolution before it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from npreparam._errors import ArgumentError, DTypeError, ShapeError
from npreparam._shapes import as_int
from npreparam.ops._validate import Array, as_array, check_rank, check_shape, is_number

BatchNorm = tuple[Array, Array, Array, Array, float]  # gamma, beta, mean, var, eps

quiet = np.errstate(all="ignore")  # a decorator: the special values tell enough


def scale_and_shift(bn: BatchNorm, channels: int, name: str) -> tuple[Array, Array]:
    """Evaluation-mode batch norm as y = scale*x + shift per channel, in float64: gamma/sqrt(var + eps), beta - mean*scale."""
    if not isinstance(bn, Sequence) or len(bn) != 5:
        found = f"{len(bn)} entries" if isinstance(bn, Sequence) else f"a {type(bn).__name__}"
        raise ArgumentError(f"`{name}` must be (gamma, beta, mean, var, eps), got {found}")
    *arrays, eps = bn
    values = [as_array(value, f"{label} of {name}") for label, value in zip(("gamma", "beta", "mean", "var"), arrays, strict=True)]
    for label, value in zip(("gamma", "beta", "mean", "var"), values, strict=True):
        check_shape(value, f"{label} of {name}", (channels,), "one value for each output channel")
    gamma, beta, mean, var = (value.astype(np.float64) for value in values)
    if not (is_number(eps) or isinstance(eps, np.floating)):
        raise ArgumentError(f"`eps` of {name} (={eps!r}) must be a number")
    if not (eps >= 0 and (var + eps > 0).all()):  # so written, NaN is refused too
        raise ArgumentError(f"`var + eps` of {name} must be positive: the smallest `var` is {var.min(initial=np.inf)}, `eps` is {eps!r}")
    scale = gamma / np.sqrt(var + eps)
    return scale, beta - mean * scale


@quiet
def fuse_conv_bn(w: Array, b: Array | None, gamma: Array, beta: Array, mean: Array, var: Array, eps: float = 1e-5, groups: int = 1,
                 transposed: bool = False) -> tuple[Array, Array]:
    """Weights and bias of the one convolution that equals a convolution followed by batch norm in evaluation mode.

    w'[o] = w[o] * gamma[o]/sqrt(var[o] + eps),   b'[o] = beta[o] + (b[o] - mean[o]) * gamma[o]/sqrt(var[o] + eps)

    w is OIHW; with `transposed` (I, O/groups, kh, kw), where the output channel of group g is axis 1 of the g-th part of axis 0. Float32 or
    float64; the results have w's dtype.

    Rounding: computed in float64, at most 5 roundings for a weight; rounded once more where w is float32. Weights that are not finite
    propagate as in IEEE arithmetic, and what float32 cannot hold becomes infinite.

    Raises ShapeError, DTypeError, ArgumentError (var + eps not positive).

    Source: Ioffe and Szegedy, arXiv 1502.03167, section 3.1; Ding et al., RepVGG, arXiv 2101.03697, equation 3.

    >>> one = np.ones(1)
    >>> fuse_conv_bn(np.ones((1, 1, 1, 1)), None, 2 * one, one, one, 4 * one, eps=0.0)
    (array([[[[1.]]]]), array([0.]))
    """
    w, groups = as_array(w, "w"), as_int(groups, "groups", 1)
    axes = "input channels, output channels / groups" if transposed else "output channels, input channels / groups"
    check_rank(w, "w", 4, f"({axes}, kernel height, kernel width)")
    if w.shape[0] % groups:
        raise ShapeError(f"axis 0 of `w` (={w.shape[0]}) must be divisible by `groups` (={groups})")
    channels = w.shape[1] * groups if transposed else w.shape[0]
    scale, shift = scale_and_shift((gamma, beta, mean, var, eps), channels, "bn")
    if b is not None:
        b = as_array(b, "b")
        check_shape(b, "b", (channels,), "one value for each output channel")
        if b.dtype != w.dtype:
            raise DTypeError(f"`b` has dtype {b.dtype}, but must have that of `w`, {w.dtype}")
        shift = shift + b.astype(np.float64) * scale
    wide = w.astype(np.float64)
    if transposed:
        parts = wide.reshape(groups, w.shape[0] // groups, *w.shape[1:]) * scale.reshape(groups, 1, -1, 1, 1)
        return parts.reshape(w.shape).astype(w.dtype), shift.astype(w.dtype)
    return (wide * scale[:, None, None, None]).astype(w.dtype), shift.astype(w.dtype)
