"""Initialization from an explicit generator."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from npreparam._errors import ArgumentError


def he_normal(shape: tuple[int, ...], rng: np.random.Generator, dtype: DTypeLike = np.float32, fan_in: float | None = None) -> NDArray[Any]:
    """Weights ~ N(0, 2/fan_in): variance is kept through a ReLU.

    fan_in is the number of terms in one output; by default the product of all lengths but the first, as for OIHW and (O, I).

    Raises ArgumentError where `rng` is no Generator.

    Source: He, Zhang, Ren and Sun, arXiv 1502.01852, equation 10.

    >>> he_normal((2, 3), np.random.default_rng(0)).shape
    (2, 3)
    """
    if not isinstance(rng, np.random.Generator):
        raise ArgumentError(f"`rng` (={rng!r}) must be a NumPy Generator; make one with numpy.random.default_rng(seed)")
    fan_in = math.prod(shape[1:]) if fan_in is None else fan_in
    return (rng.standard_normal(shape) * math.sqrt(2 / max(1, fan_in))).astype(dtype)
