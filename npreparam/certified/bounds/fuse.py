"""Fusion: folded parameters, and the outputs of a fused convolution against those of the branches it replaces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from npreparam import ops
from npreparam._errors import ArgumentError, ShapeError
from npreparam._shapes import Size2
from npreparam.certified.bounds._majorant import Floats, quiet, up
from npreparam.certified.bounds.batch_norm import AFFINE, ROOT, inverse_std
from npreparam.certified.bounds.dot import direct
from npreparam.certified.bounds.profile import Profile, largest, profiled, smallest, smallest_normal, unit

Branch = tuple[Any, Any, Any, Any]  # w, b or None, (gamma, beta, mean, var, eps), padding


def _parameters(bn: Any, channels: int, profile: Profile) -> tuple[Floats, Floats, Floats, Floats]:
    """(|gamma|, |beta|, |mean|, at least 1/sqrt(var + eps)) of a batch norm."""
    if not isinstance(bn, Sequence) or len(bn) != 5:
        raise ArgumentError(f"`bn` (={bn!r}) must be (gamma, beta, mean, var, eps)")
    *values, eps = bn
    arrays = []
    for name, value in zip(("gamma", "beta", "mean", "var"), values, strict=True):
        if np.shape(value) != (channels,):
            raise ShapeError(f"`{name}` has shape {np.shape(value)}, but must have shape {(channels,)}: one value for each output channel")
        arrays.append(profile.parameter(value, name))
    gamma, beta, mean, var = arrays
    return np.abs(gamma), np.abs(beta), np.abs(mean), inverse_std(var, eps, profile, "var")


@profiled
@quiet
def fuse_conv_bn_bound(w: Any, b: Any, gamma: Any, beta: Any, mean: Any, var: Any, eps: float = 1e-5,
                       profile: Profile | str | None = None) -> tuple[Floats, Floats]:
    """How far honestly folded weights and biases may be from the exact w*s and beta + (b - mean)*s, s = gamma/sqrt(var + eps).

    |w^ - w'| <= ((1 - u)^-8 - 1)*|w*s|,   |b^ - b'| <= ((1 - u)^-10 - 1)*(|beta| + (|b| + |mean|)*|s|)

    and underflow: at most 6 roundings in 1/sqrt(var + eps), one for gamma, one for w; three for the bias. Computed in the accumulator's
    format, stored in the output's.

    w is OIHW, the others (O,), b may be None; the bounds are float64 arrays (OIHW, (O,)).

    Rounding: upwards. Raises ShapeError, DTypeError, ArgumentError (var + eps not positive; numbers to be rounded first).

    Source: ASNA, Lemma 3.1; Ding et al., RepVGG, arXiv 2101.03697, equation 3.

    >>> one = np.ones(1)
    >>> weights, bias = fuse_conv_bn_bound(np.ones((1, 1, 1, 1)), None, one, one, one, one, 0.0)
    >>> bool(weights < 8.01 * 2.0**-24), bool(bias < 20.01 * 2.0**-24)
    (True, True)
    """
    w = np.abs(profile.parameter(w, "w"))
    gamma, beta, mean, root = _parameters((gamma, beta, mean, var, eps), w.shape[0], profile)
    bias = np.zeros(w.shape[:1]) if b is None else np.abs(profile.parameter(b, "b"))
    slope = gamma * root
    slopes, roots = (v[:, None, None, None] for v in (slope, root))
    scaled, lost = w * slopes, (w * (1 + roots) + slopes + 2) * profile.tiny
    of_w = up(profile.compound(ROOT + 2) * (scaled + lost) + lost)
    shift, lost = beta + (bias + mean) * slope, ((bias + mean) * (1 + root) + 3 * slope + 6) * profile.tiny
    of_b = up(profile.compound(AFFINE) * (shift + lost) + lost)
    return up(profile.finish(of_w, up(scaled), scaled + slopes)), up(profile.finish(of_b, up(shift), shift + slope + bias + mean))


@profiled
@quiet
def fuse_repvgg_bound(w3: Any, bn3: Any, w1: Any, bn1: Any, bn_identity: Any = None, groups: int = 1,
                      profile: Profile | str | None = None) -> tuple[Floats, Floats]:
    """How far the honestly fused weights and bias of a RepVGG block may be from the exact sums over its B branches.

    |w^ - w'| <= ((1 - u)^-(7 + B) - 1)*sum|w*s|,   |b^ - b'| <= ((1 - u)^-(9 + B) - 1)*sum(|beta| + |mean|*|s|): as `fuse_conv_bn_bound` branch by
    branch, and B - 1 additions.

    Arguments as in `fuse.fuse_repvgg`; the bounds are float64 arrays (OIHW, (O,)). Raises as `fuse_conv_bn_bound`.

    >>> bn = (np.ones(1), np.zeros(1), np.zeros(1), np.ones(1), 0.0)
    >>> weights, _ = fuse_repvgg_bound(np.ones((1, 1, 3, 3)), bn, np.ones((1, 1, 1, 1)), bn, bn, profile="float32")
    >>> bool(weights[0, 0, 1, 1] < 31 * 2.0**-24), bool(weights[0, 0, 0, 0] < 11 * 2.0**-24)
    (True, True)
    """
    w3, w1 = np.abs(profile.parameter(w3, "w3")), np.abs(profile.parameter(w1, "w1"))
    outputs, inputs = w3.shape[:2]
    identity = np.zeros((outputs, inputs, 1, 1))
    identity[np.arange(outputs), np.arange(outputs) % inputs] = 1
    branches = [(w3, bn3), (w1, bn1), *([] if bn_identity is None else [(identity, bn_identity)])]
    weights, shifts, lost, lost_shift, partial = np.zeros(w3.shape), np.zeros(outputs), np.zeros(w3.shape), np.zeros(outputs), np.zeros(outputs)
    for w, bn in branches:
        gamma, beta, mean, root = _parameters(bn, outputs, profile)
        slope, part = gamma * root, slice(None) if w.shape[2] == 3 else slice(1, 2)
        slopes, roots = (v[:, None, None, None] for v in (slope, root))
        weights[:, :, part, part] += w * slopes
        lost[:, :, part, part] += (w * (1 + roots) + slopes + 2) * profile.tiny
        shifts += beta + mean * slope
        lost_shift += (mean * (1 + root) + 3 * slope + 6) * profile.tiny
        partial += slope + beta + mean * (1 + slope)
    count = len(branches)
    of_w = up(profile.compound(ROOT + 1 + count) * (weights + lost) + lost)
    of_b = up(profile.compound(AFFINE - 1 + count) * (shifts + lost_shift) + lost_shift)
    return up(profile.finish(of_w, up(weights), up(weights) + partial[:, None, None, None])), up(profile.finish(of_b, up(shifts), up(partial)))


@profiled
@quiet
def branches_bound(x: Any, branches: Sequence[Branch], stride: Size2 = 1, groups: int = 1, profile: Profile | str | None = None) -> Floats:
    """How far either of two honest implementations may be from a sum of convolutions with batch norm: branch by branch, or fused.

    Exact: y = sum over branches of s*(conv(x, w) + b - mean) + beta, s = gamma/sqrt(var + eps). On either way a term passes at most

        k = n + B + 12 roundings of the accumulator (n taps in all branches; 10 in batch norm or folding; B - 1 in the sum of B branches)
        B + 3 of the output's format, if it has another (convolution, batch norm and sum of branches; or parameters and output)
        2 of the operands' format, if it is coarser (folded weights are no numbers of it)

        |y^ - y| <= (product over the formats of (1 - u)^-k - 1) * S,   S = sum |s|*(|w|*|x| + |b| + |mean|) + |beta|

    and underflow. A branch is (w, b or None, (gamma, beta, mean, var, eps), padding); an identity is a 1x1 kernel of ones in the diagonal.

    x is NCHW, of numbers of the accumulator's format like all parameters; the bound is a float64 array of the output's shape.

    Rounding: upwards. Raises ShapeError (outputs of different shapes), DTypeError, ArgumentError.

    Source: ASNA, Lemma 3.1.

    >>> bn = (np.ones(1), np.zeros(1), np.zeros(1), np.ones(1), 0.0)
    >>> branches_bound(np.ones((1, 1, 4, 4)), [(np.ones((1, 1, 3, 3)), None, bn, 1), (np.ones((1, 1, 1, 1)), None, bn, 0)]).shape
    (1, 1, 4, 4)
    """
    direct(profile, "a fusion")
    if not branches:
        raise ArgumentError("`branches` is empty; there must be one at least")
    reach, taps, count = np.abs(profile.parameter(x, "x")), sum(branch[0][0].size for branch in branches), len(branches)
    size, lost, partial, shape = np.zeros(()), np.zeros(()), np.zeros(()), None
    for branch in branches:
        of_branch, of_tiny, between = _branch_magnitudes(reach, branch, (stride, groups), profile)
        if shape not in (None, of_branch.shape):
            raise ShapeError(f"`branches` have outputs of shapes {shape} and {of_branch.shape}; they must agree")
        shape = of_branch.shape
        size, lost, partial = size + of_branch, lost + of_tiny, partial + between
    formats = [(profile.roundings(taps) + count + 12, profile.unit)]
    formats += [(count + 3, unit(profile.output))] * (profile.output != profile.accumulator)
    formats += [(2, unit(profile.input_rounding))] * (unit(profile.input_rounding) > profile.unit)
    growth = up(np.expm1(sum(-k * np.log1p(-u) for k, u in formats)))
    least = smallest_normal if profile.flush_to_zero else smallest
    tiny = sum(least(form) for form in (profile.accumulator, profile.output, profile.input_rounding))
    a = up(lost * 2 * (taps + count + 4) * tiny)
    error = up(growth * (size + a) + a)
    limit = min(largest(form) for form in (profile.accumulator, profile.output, profile.input_rounding))
    return np.where(size + partial + error <= limit, error, np.inf)


@profiled
def fusion_difference_bound(x: Any, branches: Sequence[Branch], stride: Size2 = 1, groups: int = 1, profile: Profile | str | None = None) -> Floats:
    """How far the outputs of an honestly fused convolution may be from those of its branches: 2*`branches_bound`, each side's own.

    Arguments, result and errors as `branches_bound`.

    >>> bn = (np.ones(1), np.zeros(1), np.zeros(1), np.ones(1), 0.0)
    >>> one = np.ones((1, 1, 1, 1))
    >>> bool(fusion_difference_bound(one, [(one, None, bn, 0)], profile="float32") < 29 * 2.0**-24)    # 2*(1 + 1 + 12) roundings of 1
    True
    """
    return 2 * branches_bound(x, branches, stride, groups, profile)


def _branch_magnitudes(reach: Floats, branch: Branch, geometry: tuple[Any, int], profile: Profile) -> tuple[Floats, Floats, Floats]:
    """(S, what an underflow is multiplied by, sum of the magnitudes in between) of one branch.

    Underflow in a product of the convolution is multiplied by |s|; in x by |w|, in w by |x|, both perhaps by |s|; in s by all that s multiplies,
    in gamma by that and the root; in the root's product by |gamma|.
    """
    w, b, bn, padding = branch
    stride, groups = geometry
    w = np.abs(profile.parameter(w, "w"))
    gamma, beta, mean, root = _parameters(bn, w.shape[0], profile)
    bias = np.zeros(w.shape[:1]) if b is None else np.abs(profile.parameter(b, "b"))
    gamma, beta, mean, root, bias = (value[:, None, None] for value in (gamma, beta, mean, root, bias))
    slope = gamma * root
    under, over = (up(ops.conv2d(reach, v, None, stride, padding, 1, groups), v[0].size) for v in (np.ones(w.shape), w))
    inside = over + bias + mean
    size = up(slope * inside + beta)
    tiny = (1 + slope) * (1 + under + up(w.sum((1, 2, 3)), w[0].size)[:, None, None]) + inside * (1 + root) + gamma
    return size, up(tiny), up(inside * (1 + root) + slope + size + w.max(initial=0) + reach.max(initial=0))
