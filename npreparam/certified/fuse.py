"""Batch norms folded into convolutions, correctly rounded at the speed of arrays.

A weight is w*s, and under the centre of a RepVGG block's kernel w3*s3 + w1*s1: affine maps of channels, enclosed and rounded by `_affine`. Biases,
and the weights on which an identity branch adds its own scale, are one to a channel; `exact.roots` rounds them. Errors, NaN and infinities: as in
`exact`.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npreparam._shapes import as_int
from npreparam.certified._affine import Floats, as_array, as_floats, flat, number, rounded_affine, row, spread, target
from npreparam.certified._record import Certified
from npreparam.exact.fuse import Affine, affine_maps, affine_sum, checked_blocks, checked_outputs, rounded_sums
from npreparam.exact.roots import round_sum
from npreparam.exact.rounding import FORMATS, as_numbers, checked, result_dtype

Array = NDArray[Any]
ORIGIN: Floats = [0.0] * 3, 0.0
ZERO = Fraction(0)


def fuse_conv_bn(w: Any, b: Any, gamma: Any, beta: Any, mean: Any, var: Any, eps: float = 1e-5, groups: int = 1, transposed: bool = False,
                 out_dtype: Any = "same") -> Certified:
    """The correctly rounded (weights, bias) of the one convolution that equals a convolution followed by batch norm in evaluation mode.

    w'[o] = w[o] * gamma[o]/sqrt(var[o] + eps),   b'[o] = beta[o] + (b[o] - mean[o]) * gamma[o]/sqrt(var[o] + eps)

    Arguments as in `exact.fuse_conv_bn`, but w and the results are float16, bfloat16, float32 or float64.

    Rounding: each parameter once, to nearest, ties to even. Raises ShapeError, DTypeError, ArgumentError as `exact.fuse_conv_bn`.

    Source: Ioffe and Szegedy, arXiv 1502.03167, section 3.1; Ding et al., RepVGG, arXiv 2101.03697, equation 3.

    >>> one = np.ones(1)
    >>> fuse_conv_bn(np.ones((1, 1, 1, 1)), None, 2 * one, one, one, 4 * one, eps=0.0)
    Certified(value=(array([[[[1.]]]]), array([0.])), repaired=0)
    """
    w, groups = as_array(w, "w"), as_int(groups, "groups", 1)
    dtype, channels = target(result_dtype(out_dtype, w)), checked_outputs(w.shape, groups, transposed)
    maps = affine_maps((gamma, beta, mean, var, eps), channels, "bn")
    bias = [ZERO] * channels if b is None else checked(as_numbers(b, "b"), "b", (channels,))
    if transposed:  # (groups, I/groups, O/groups, taps) with the output channel first
        split = (groups, w.shape[0] // groups, *w.shape[1:])
        weights, repaired = _scaled(w.reshape(split).swapaxes(1, 2), maps, dtype)
        weights = weights.reshape(split[0], split[2], split[1], *split[3:]).swapaxes(1, 2)
    else:
        weights, repaired = _scaled(w, maps, dtype)
    biases = rounded_sums([(bn.beta, [((value - bn.mean) * bn.gamma, bn.root)]) for bn, value in zip(maps, bias, strict=True)], dtype)
    return Certified((np.ascontiguousarray(weights.reshape(w.shape)), biases), repaired)


def fuse_repvgg(w3: Any, bn3: Any, w1: Any, bn1: Any, bn_identity: Any = None, groups: int = 1, out_dtype: Any = "same") -> Certified:
    """The correctly rounded (weights, bias) of the one 3x3 convolution that equals a RepVGG block in evaluation mode.

    w = s3*w3 + s1*centre(w1) + si*I,   b = sum over branches of beta - mean*s,   s = gamma/sqrt(var + eps) of each branch's batch norm

    Arguments as in `exact.fuse_repvgg`, dtypes, rounding and errors as in `fuse_conv_bn`.

    Source: Ding et al., RepVGG, arXiv 2101.03697, section 3.3.

    >>> bn = (np.ones(1), np.zeros(1), np.zeros(1), np.ones(1), 0.0)
    >>> fuse_repvgg(np.ones((1, 1, 3, 3)), bn, np.ones((1, 1, 1, 1)), bn, bn).value[0]
    array([[[[1., 1., 1.],
             [1., 3., 1.],
             [1., 1., 1.]]]])
    """
    w3, w1, groups = as_array(w3, "w3"), as_array(w1, "w1"), as_int(groups, "groups", 1)
    dtype = target(result_dtype(out_dtype, w3))
    outputs, inputs = checked_blocks(w3.shape, w1.shape, groups, bn_identity is not None)
    branches = [affine_maps(bn, outputs, name) for bn, name in ((bn3, "bn3"), (bn1, "bn1"), (bn_identity, "bn_identity")) if bn is not None]
    weights, repaired = _scaled(w3, branches[0], dtype)
    weights = weights.reshape(w3.shape)
    centre, repaired_too = _scaled(w3[:, :, 1, 1], branches[0], dtype, w1[:, :, 0, 0], branches[1])
    weights[:, :, 1, 1] = centre.reshape(outputs, inputs)
    if bn_identity is not None:
        own = np.arange(outputs), np.arange(outputs) % max(1, inputs)
        kernels = [as_numbers(w3[(*own, 1, 1)], "w3"), as_numbers(w1[(*own, 0, 0)], "w1"), [Fraction(1)] * outputs]
        sums = [(ZERO, [(value * maps[o].gamma, maps[o].root) for value, maps in zip(values, branches, strict=True)])
                for o, values in enumerate(zip(*kernels, strict=True))]
        weights[(*own, 1, 1)] = rounded_sums(sums, dtype)
    biases = rounded_sums([affine_sum(maps) for maps in zip(*branches, strict=True)], dtype)
    return Certified((weights, biases), repaired + repaired_too)


def _scaled(w: Array, maps: Sequence[Affine], dtype: np.dtype[Any], v: Array | None = None, others: Sequence[Affine] = ()) -> tuple[Array, int]:
    """w times the scale of its channel, plus v times that in `others`, and the number of repairs; flat, the channels being the first axes."""
    wide = np.float64 in (w.dtype, w.dtype if v is None else v.dtype)
    values, more = flat(w, wide), None if v is None else flat(v, wide)
    shape = (1, len(maps), values.size // max(1, len(maps)))
    scales = [[as_floats(bn.gamma, bn.root) for bn in several] for several in (maps, others)]
    table = [row(ORIGIN, *of_channel, spread=spread(dtype)) for of_channel in zip(*(s for s in scales if s), strict=True)]

    def repair(index: int) -> int:
        c = index // shape[2]
        terms = [(number(values[index]) * maps[c].gamma, maps[c].root)]
        if more is not None:
            terms.append((number(more[index]) * others[c].gamma, others[c].root))
        return round_sum(ZERO, terms, FORMATS[dtype.name])

    return rounded_affine(values, more, table.__getitem__, shape, dtype, repair)
