"""Affine maps evaluated by their definition, and data for which nothing rounds."""

from fractions import Fraction

import numpy as np

from npreparam.fuse import linear
from npreparam.fuse.algebra import same_scalars
from tests import naive

SCALARS = ["float64", "Fraction"]


as_exact = linear(np.ones((1, 1), object))


def evaluate(conv, x):
    """The map of a batch (N, C, ...), image by image."""
    x = np.asarray(x)
    if x.dtype == object:
        conv = same_scalars((conv, as_exact))[0]
    matrices = [naive.dense_matrix(block, conv.groups) for block in conv.blocks]
    kind = object if object in (x.dtype, conv.blocks.dtype) else np.float64
    return np.stack([naive.affine_conv(image.astype(kind), conv.taps, matrices, conv.bias, conv.stride, conv.slack, conv.outside, conv.transposed)
                     for image in x])


def numbers(rng, *shape, kind="float64"):
    """Small integers, or as `kind` "Fraction" quotients of them, none of them 0."""
    values = rng.integers(1, 5, shape) * rng.choice([-1, 1], shape)
    if kind == "float64":
        return values.astype(np.float64)
    result = np.empty(shape, object)
    result.ravel()[:] = [Fraction(int(v), int(d)) for v, d in zip(values.ravel(), rng.integers(1, 5, values.size), strict=True)]
    return result
