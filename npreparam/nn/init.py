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
    spread = math.sqrt(2 / _terms(shape, rng, fan_in))
    return (rng.standard_normal(shape) * spread).astype(dtype)


def fan_in_uniform(shape: tuple[int, ...], rng: np.random.Generator, dtype: DTypeLike = np.float32, fan_in: float | None = None) -> NDArray[Any]:
    """Weights, or with their fan_in biases, ~ U(-1/sqrt(fan_in), 1/sqrt(fan_in)): outputs begin small, whatever the nonlinearity.

    variance = 1/(3*fan_in)

    fan_in is the number of terms in one output; by default the product of all lengths but the first, as for OIHW and (O, I).

    Raises ArgumentError where `rng` is no Generator.

    Source: PyTorch's documentation of torch.nn.Linear, "Variables": what the published figures of small VAEs were made with.

    >>> bool(np.abs(fan_in_uniform((2, 100), np.random.default_rng(0))).max() <= 0.1)
    True
    """
    limit = 1 / math.sqrt(_terms(shape, rng, fan_in))
    return rng.uniform(-limit, limit, shape).astype(dtype)


def _terms(shape: tuple[int, ...], rng: np.random.Generator, fan_in: float | None) -> float:
    """fan_in, at least 1, where `rng` is a Generator."""
    if not isinstance(rng, np.random.Generator):
        raise ArgumentError(f"`rng` (={rng!r}) must be a NumPy Generator; make one with numpy.random.default_rng(seed)")
    return max(1, math.prod(shape[1:]) if fan_in is None else fan_in)
