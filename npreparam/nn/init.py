"""Initialization from an explicit generator."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


def he_normal(shape: tuple[int, ...], rng: np.random.Generator, dtype: DTypeLike = np.float32) -> NDArray[Any]:
    """Weights ~ N(0, 2/fan_in), fan_in = the product of all lengths but the first: variance is kept through a ReLU.

    Source: He, Zhang, Ren and Sun, arXiv 1502.01852, equation 10.

    >>> he_normal((2, 3), np.random.default_rng(0)).shape
    (2, 3)
    """
    fan_in = math.prod(shape[1:])
    return (rng.standard_normal(shape) * math.sqrt(2 / max(1, fan_in))).astype(dtype)
