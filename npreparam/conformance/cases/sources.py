"""Where the numbers of a case come from: a seeded generator, or (in `search`) Hypothesis, which can shrink them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from npreparam.certified.bounds.profile import STORED
from npreparam.exact.rounding import dtype_of

Array = NDArray[Any]
Shape = tuple[int, ...]
KINDS = ("normal", "wide", "one sign", "cancelling", "offset", "special", "subnormal", "huge")


class Source(Protocol):
    """What the builders of arguments draw from."""

    dtype: np.dtype[Any]

    def integer(self, low: int, high: int) -> int:
        """An integer from `low` to `high`, simplest first."""

    def choice(self, options: Sequence[Any]) -> Any:
        """One of the options, simplest first."""

    def array(self, shape: Shape, role: str = "", along: int = 1) -> Array:
        """Numbers; `role` is "first" for the data, "positive" for a variance or a deviation, "target" for one within [0, 1], "" otherwise.

        `along` is the axis that a sum of products runs along, if any does.
        """


class RandomSource:
    """Pseudo-random numbers of one kind: KINDS, or "lattice" (integers of at most 4), "address" (all different) and "impulse"."""

    def __init__(self, rng: np.random.Generator, dtype: str, kind: str) -> None:
        self.rng, self.kind, self.form, self.dtype = rng, kind, STORED[dtype], dtype_of(dtype)

    def integer(self, low: int, high: int) -> int:
        """Uniform."""
        return int(self.rng.integers(low, high + 1))

    def choice(self, options: Sequence[Any]) -> Any:
        """Uniform."""
        return options[self.integer(0, len(options) - 1)]

    def array(self, shape: Shape, role: str = "", along: int = 1) -> Array:
        """Numbers of the kind, rounded to the dtype."""
        with np.errstate(all="ignore"):
            if role in ("positive", "target"):
                return self._positive(shape, role)
            return self._opposite(self._numbers(shape, role), role, along).astype(self.dtype)

    def _opposite(self, values: NDArray[np.float64], role: str, along: int) -> NDArray[np.float64]:
        """Of the kind "cancelling", halves of the data along an axis are opposite to some ulps, and those of what it is multiplied by alike."""
        if self.kind != "cancelling" or values.ndim <= along:
            return values
        halves = np.moveaxis(values, along, 0)
        half = len(halves) // 2
        apart = 1 + 2.0 ** (1 - self.form.precision) * self.rng.integers(-2, 3, halves[:half].shape)
        halves[half:2 * half] = -halves[:half].astype(self.dtype) * apart if role == "first" else halves[:half]
        return values

    def _positive(self, shape: Shape, role: str) -> Array:
        if self.kind in ("lattice", "address", "impulse"):
            values = self.rng.choice([0.0, 0.5, 1.0] if role == "target" else [0.25, 1.0, 4.0], shape)
        else:
            values = self.rng.random(shape) if role == "target" else self.rng.random(shape) * 2 + 0.05
        return values.astype(self.dtype)

    def _numbers(self, shape: Shape, role: str) -> NDArray[np.float64]:
        rng, size = self.rng, math.prod(shape)
        if self.kind == "lattice":
            return rng.integers(-4, 5, shape).astype(np.float64)
        if self.kind == "impulse" and role == "first":
            values = np.zeros(size)
            values[rng.integers(0, size, 1) if size else []] = 1
            return values.reshape(shape)
        if self.kind in ("address", "impulse"):
            return (rng.permutation(size) % 61 - 30.0).reshape(shape)
        values = rng.standard_normal(shape)
        if self.kind == "wide":
            return values * 2.0 ** rng.integers(-6, 7, shape)
        if self.kind == "one sign":
            return np.abs(values) + 0.5
        if role != "first":
            return values
        if self.kind == "offset":
            return values + 2.0 ** min(13, self.form.precision - 3)
        if self.kind == "subnormal":
            return values * 2.0 ** (self.form.e_min - rng.integers(0, self.form.precision, shape))
        if self.kind == "huge":
            return values * 2.0 ** (self.form.e_max - rng.integers(4, 12, shape))
        if self.kind == "special" and size:
            places = rng.integers(0, size, 2)
            values.reshape(-1)[places] = rng.choice([np.nan, np.inf, -np.inf], 2)
        return values


class PlainSource(RandomSource):
    """The same numbers, and of all options the simplest, so that every target that offers a function has them."""

    def choice(self, options: Sequence[Any]) -> Any:
        """The first."""
        return options[0]
