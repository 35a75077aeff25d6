"""Data on which rounding goes well, and data made to hurt."""

import numpy as np

from tests.certified.simulate import rounded

KINDS = ("normal", "one_sign", "cancelling", "wide", "subnormal", "least_normal", "stagnant")


def operands(kind, shape, rng, name="float32"):
    """Two float64 arrays of numbers of a format, to be multiplied elementwise and summed along axis 0.

    cancelling: pairs of opposite terms, so that the sum is far below its magnitudes; wide: exponents spread over 40 or, for float16, 10;
    subnormal, least_normal: products around the smallest subnormal, the smallest normal number; stagnant: 1, then terms that are just lost
    when added to it.
    """
    e_min, p = {"float16": (-14, 11), "bfloat16": (-126, 8), "tf32": (-126, 11), "float32": (-126, 24), "float64": (-1022, 53)}[name]
    x, w = rng.standard_normal((2, *shape))
    if kind == "one_sign":
        x, w = 1 + rng.random((2, *shape))
    if kind == "cancelling":
        half = len(x) // 2
        x[half:2 * half], w[half:2 * half] = -x[:half], w[:half] * (1 + rng.choice([-1, 0, 1], w[:half].shape) * 2.0**-p)
    if kind == "wide":
        spread = 5 if name == "float16" else 20
        x, w = (v * 2.0 ** rng.integers(-spread, spread, shape) for v in (x, w))
    if kind in ("subnormal", "least_normal"):
        least = e_min - p * (kind == "subnormal")
        x, w = (v * 2.0 ** (least // 2 + rng.integers(-2, 3, shape)) for v in (x, w))
    if kind == "stagnant":
        x, w = np.full(shape, 2.0**-p), np.ones(shape)
        x[0] = 1
    with np.errstate(all="ignore"):
        return rounded(x, name), rounded(w, name)
