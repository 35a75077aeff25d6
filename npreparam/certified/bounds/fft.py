"""Convolution by fast Fourier transforms: a bound in norms, since every output depends on the whole image."""

from __future__ import annotations

import math

import numpy as np

from npreparam._shapes import Window, extent
from npreparam.certified.bounds._majorant import Floats, plus, up
from npreparam.certified.bounds.profile import Profile

BUTTERFLY = 32  # absolute errors of underflow in one complex product and addition, summed over the stages (see `fft_bound`)


def transform_growth(stages: int, profile: Profile) -> float:
    """Relative error of a radix-2 transform of 2^L points in the 2-norm: L*h/(1 - L*h), h = m + g*(sqrt(2) + m), g = 4u/(1 - 4u).

    m bounds the error of the roots of unity; 2u allows sines and cosines that are off by one ulp.

    Source: ASNA, Theorem 24.2.
    """
    u = profile.unit
    roots, g = 2 * u, 4 * u / (1 - 4 * u)
    grown = stages * (roots + g * (math.sqrt(2) + roots))
    return grown / (1 - grown) if grown < 1 else math.inf


def fft_bound(x: Floats, w: Floats, window: Window, profile: Profile) -> tuple[Floats, Floats]:
    """(error bound, largest intermediate) of the sum over taps, for the magnitudes of the operands.

    The transforms have N = 2^L points, N the product over the axes of the power of two not below padded size + extent - 1, and L + 2 stages
    are counted, for the two that pack and unpack real data. With e their growth, r = (1 + sqrt(2)*gamma_2)(1 - u)^-(C-1) - 1 that of complex
    products (ASNA, Lemma 3.5) and sums over C channels, and 2-norms over the whole image and kernel, for every element

        |y^ - y| <= sum over c of |x_c|*|w_c|*((1+e)^2*(1+r) - 1)  +  e*(1+e)*(1+r) * sum over c of |x_c|*(sum |w_c| + e*sqrt(N)*|w_c|)

    The first term is the error in the frequencies, summed over them by Cauchy and Schwarz, times 1/N; the second that of the inverse, e
    times the 2-norm of its input over sqrt(N). Underflow loses at most 32*N*eta in the 2-norm of a transform, as though the
    2-norms of x and w were larger by t = 32*sqrt(N)*eta/e; and 32*C*eta in a product and 32*eta in an element of the inverse.

    Covers radix 2 and finer splittings of it (4, 8, split radix, real packing); not sizes with other prime factors.

    Source: ASNA, Theorem 24.2, and its section 24.1 for the three transforms in turn.
    """
    sizes = [n + before + after + extent(k, d) - 1
             for n, (before, after), k, d in zip(x.shape[2:], window.padding, window.kernel, window.dilation, strict=True)]
    stages = sum((size - 1).bit_length() for size in sizes)
    points, channels, groups = 2.0**stages, w.shape[1], window.groups
    e = transform_growth(stages + 2, profile)
    g = 2 * profile.unit / (1 - 2 * profile.unit)
    r = plus(math.sqrt(2) * g, float(profile.compound(profile.roundings(channels))))
    lost = BUTTERFLY * math.sqrt(points) * profile.tiny / e
    norm_x = _norm(x) + lost
    norm_w, sum_w = _norm(w) + lost, up(w.sum((2, 3)), w[0, 0].size)
    by_norm, by_sum = (_over_channels(norm_x, v, groups) for v in (norm_w, sum_w + e * math.sqrt(points) * norm_w))
    error = by_norm * plus(e, e, r) + e * (1 + e) * (1 + r) * by_sum + BUTTERFLY * (channels + 1) * profile.tiny
    partial = points * (by_norm + error + norm_x.max(1, initial=0)[:, None] + norm_w.max(1, initial=0))
    shape = (*error.shape, *window.output_size(x.shape[2:]))
    return tuple(np.broadcast_to(v[..., None, None], shape) for v in (up(error, channels + 200), up(partial, channels + 200)))  # type: ignore[return-value]


def _norm(x: Floats) -> Floats:
    """2-norms over the last two axes, scaled so that squares neither overflow nor underflow."""
    scale = x.max((2, 3), keepdims=True, initial=0)
    scale = np.where(scale == 0, 1, scale)
    return up(scale[..., 0, 0] * np.sqrt(((x / scale) ** 2).sum((2, 3))), x.shape[2] * x.shape[3] + 8)


def _over_channels(x: Floats, w: Floats, groups: int) -> Floats:
    """Sums of x[n, c]*w[o, c] over the channels of o's group."""
    parts = np.einsum("ngc,goc->ngo", x.reshape(x.shape[0], groups, w.shape[1]), w.reshape(groups, w.shape[0] // groups, w.shape[1]))
    return parts.reshape(x.shape[0], w.shape[0])
