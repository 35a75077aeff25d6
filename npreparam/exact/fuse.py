"""Batch norms folded into convolutions: every stored parameter the correctly rounded value of the exact one.

A fused weight or bias is r + sum of a/sqrt(var + eps) over the branches, with rational r and a; `roots` rounds it. A branch adds a term to a
weight only where it has a tap: the 1x1 convolution at the centre, the identity at the centre of its own channel. NaN and infinities follow
the rules in `special`, over those terms; an exact zero is +0.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from npreparam._errors import ArgumentError, ShapeError
from npreparam._shapes import as_int
from npreparam.exact.roots import InverseRoot, Number, Term, round_sum
from npreparam.exact.rounding import FORMATS, Array, as_fractions, as_numbers, checked, result_dtype
from npreparam.exact.special import order


class Affine(NamedTuple):
    """Evaluation-mode batch norm of one channel: gamma/sqrt(var + eps) * (value - mean) + beta."""

    gamma: Number
    beta: Number
    mean: Number
    root: InverseRoot


def affine_maps(bn: Any, channels: int, name: str) -> list[Affine]:
    """The batch norm (gamma, beta, mean, var, eps), channel by channel."""
    if not isinstance(bn, Sequence) or len(bn) != 5:
        raise ArgumentError(f"`{name}` must be (gamma, beta, mean, var, eps), got {bn!r}")
    labels = [f"{label} of {name}" for label in ("gamma", "beta", "mean", "var", "eps")]
    *vectors, var = (checked(as_numbers(value, label), label, (channels,)) for value, label in zip(bn[:4], labels, strict=False))
    eps = checked(as_fractions(bn[4], labels[4]), labels[4], ()).item()
    for c, value in enumerate(var + eps):
        if not (0, 0) < order(value) < (2, 0):  # NaN is (2, 0)
            raise ArgumentError(f"`var + eps` of {name} (={float(value)}) of channel {c} must be positive; use a larger `eps`")
    return [Affine(*values, InverseRoot(v)) for *values, v in zip(*vectors, var + eps, strict=True)]


def rounded_sums(sums: Sequence[tuple[Number, list[Term]]], dtype: np.dtype[Any]) -> Array:
    """Each rational number plus multiples of inverse roots, rounded."""
    form = FORMATS[dtype.name]
    return np.array([round_sum(rational, terms, form) for rational, terms in sums], form.bits).view(dtype)


def checked_outputs(shape: tuple[int, ...], groups: int, transposed: bool) -> int:
    """Output channels of a convolution's weights of this shape."""
    if len(shape) != 4:
        raise ShapeError(f"`w` has shape {shape}, but must have 4 axes: OIHW, or (I, O/groups, kh, kw) where `transposed`")
    if shape[0] % groups:
        raise ShapeError(f"axis 0 of `w` (={shape[0]}) must be divisible by `groups` (={groups})")
    return shape[1] * groups if transposed else shape[0]


def checked_blocks(shape3: tuple[int, ...], shape1: tuple[int, ...], groups: int, identity: bool) -> tuple[int, int]:
    """(O, I/groups) of a RepVGG block's kernels of these shapes."""
    outputs, inputs = (*shape3, 0, 0)[:2]
    for name, shape, side in (("w3", shape3, 3), ("w1", shape1, 1)):
        if shape != (outputs, inputs, side, side):
            raise ShapeError(f"`{name}` has shape {shape}, but must have shape {(outputs, inputs, side, side)}")
    if outputs % groups:
        raise ShapeError(f"`out_channels` (={outputs}, axis 0 of `w3`) must be divisible by `groups` (={groups})")
    if identity and inputs * groups != outputs:
        raise ShapeError(f"an identity branch needs `in_channels` (={inputs * groups}) equal to `out_channels` (={outputs})")
    return outputs, inputs


def affine_sum(branches: Sequence[Affine]) -> tuple[Number, list[Term]]:
    """What the branches' batch norms add up to at 0: the sum of beta - mean*gamma/sqrt(var + eps)."""
    return sum((bn.beta for bn in branches), Fraction(0)), [(-bn.mean * bn.gamma, bn.root) for bn in branches]


def fuse_conv_bn(w: Any, b: Any, gamma: Any, beta: Any, mean: Any, var: Any, eps: float = 1e-5, groups: int = 1, transposed: bool = False,
                 out_dtype: Any = "same") -> tuple[Array, Array]:
    """The correctly rounded weights and bias of the one convolution that equals a convolution followed by batch norm in evaluation mode.

    w'[o] = w[o] * gamma[o]/sqrt(var[o] + eps),   b'[o] = beta[o] + (b[o] - mean[o]) * gamma[o]/sqrt(var[o] + eps)

    w is OIHW; with `transposed` (I, O/groups, kh, kw), where the output channel of group g is axis 1 of the g-th part of axis 0. b (O,) or
    None, the others (O,). `out_dtype` defaults to the dtype of w; None is refused, since the root is seldom rational.

    Rounding: each parameter once, to nearest, ties to even.

    Raises ShapeError, DTypeError, ArgumentError (var + eps not positive).

    Source: Ioffe and Szegedy, arXiv 1502.03167, section 3.1; Ding et al., RepVGG, arXiv 2101.03697, equation 3.

    >>> one = np.ones(1)
    >>> fuse_conv_bn(np.ones((1, 1, 1, 1)), None, 2 * one, one, one, 4 * one, eps=0.0)
    (array([[[[1.]]]]), array([0.]))
    """
    dtype, numbers, groups = result_dtype(out_dtype, w), as_numbers(w, "w"), as_int(groups, "groups", 1)
    channels = checked_outputs(numbers.shape, groups, transposed)
    first, second = numbers.shape[:2]
    maps = affine_maps((gamma, beta, mean, var, eps), channels, "bn")
    bias = [Fraction(0)] * channels if b is None else checked(as_numbers(b, "b"), "b", (channels,))

    def map_of(index: tuple[int, ...]) -> Affine:
        return maps[index[0] // (first // groups) * second + index[1] if transposed else index[0]]

    weights = [(Fraction(0), [(value * map_of(at).gamma, map_of(at).root)]) for at, value in np.ndenumerate(numbers)]
    biases = [(bn.beta, [((value - bn.mean) * bn.gamma, bn.root)]) for bn, value in zip(maps, bias, strict=True)]
    return rounded_sums(weights, dtype).reshape(numbers.shape), rounded_sums(biases, dtype)


def fuse_repvgg(w3: Any, bn3: Any, w1: Any, bn1: Any, bn_identity: Any = None, groups: int = 1,
                out_dtype: Any = "same") -> tuple[Array, Array]:
    """The correctly rounded weights and bias of the one 3x3 convolution that equals a RepVGG block in evaluation mode.

    w = s3*w3 + s1*centre(w1) + si*I,   b = sum over branches of beta - mean*s,   s = gamma/sqrt(var + eps) of each branch's batch norm

    w3 is (O, I/groups, 3, 3), w1 (O, I/groups, 1, 1), bn = (gamma, beta, mean, var, eps) of (O,) and a number; `bn_identity` needs O = I.
    I is 1 at the centre of channel o mod (O/groups). `out_dtype` defaults to the dtype of w3; None is refused.

    Rounding: each parameter once, to nearest, ties to even, the sum of the branches included.

    Raises ShapeError, DTypeError, ArgumentError (var + eps not positive).

    Source: Ding et al., RepVGG, arXiv 2101.03697, section 3.3.

    >>> bn = (np.ones(1), np.zeros(1), np.zeros(1), np.ones(1), 0.0)
    >>> fuse_repvgg(np.ones((1, 1, 3, 3)), bn, np.ones((1, 1, 1, 1)), bn, bn)[0]
    array([[[[1., 1., 1.],
             [1., 3., 1.],
             [1., 1., 1.]]]])
    """
    dtype, large, small, groups = result_dtype(out_dtype, w3), as_numbers(w3, "w3"), as_numbers(w1, "w1"), as_int(groups, "groups", 1)
    outputs, inputs = checked_blocks(large.shape, small.shape, groups, bn_identity is not None)
    maps3, maps1 = affine_maps(bn3, outputs, "bn3"), affine_maps(bn1, outputs, "bn1")
    identity = [] if bn_identity is None else affine_maps(bn_identity, outputs, "bn_identity")
    weights = []
    for (o, i, row, column), value in np.ndenumerate(large):
        terms = [(value * maps3[o].gamma, maps3[o].root)]
        if row == column == 1:
            terms.append((small[o, i, 0, 0] * maps1[o].gamma, maps1[o].root))
            if identity and i == o % inputs:
                terms.append((identity[o].gamma, identity[o].root))
        weights.append((Fraction(0), terms))
    branches = [maps3, maps1, *([identity] if identity else [])]
    biases = [affine_sum(maps) for maps in zip(*branches, strict=True)]
    return rounded_sums(weights, dtype).reshape(large.shape), rounded_sums(biases, dtype)
