"""What is likely: bounds that hold with a stated probability when rounding errors behave like independent ones of mean zero.

They are sqrt(n) instead of n times u, and no proof: an implementation beyond them is suspect, not wrong. The model fails for truncating
accumulators (their errors have one sign) and for long sums of one sign whose terms fall below the accumulator's spacing (stagnation).
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from npreparam._errors import ArgumentError
from npreparam.certified.bounds._majorant import Floats
from npreparam.certified.bounds.profile import Profile, as_profile


@dataclass(frozen=True, slots=True)
class LikelyProfile(Profile):
    """A profile whose sums grow as sqrt(k) instead of k; `confidence` is the lambda of the theorem. Made by `likely`.

    >>> from npreparam.certified.bounds.profile import FLOAT32
    >>> likely(FLOAT32).confidence
    6.0
    """

    confidence: float = 6.0

    def growth(self, terms: Any, length: Any = None, more: int = 0) -> Floats:
        """exp(lambda*sqrt(k)*u + k*u^2/(1 - u)) - 1 for k roundings."""
        k, u = self.roundings(terms, length, more), self.unit
        return np.minimum(np.expm1(self.confidence * np.sqrt(k) * u + k * u**2 / (1 - u)), Profile.growth(self, terms, length, more))


def likely(profile: Profile | str, confidence: float = 6.0) -> LikelyProfile:
    """The profile with probabilistic growth of its sums: pass it to any bound for the level from which an implementation is suspect.

    |y^ - y| <= (exp(lambda*sqrt(n)*u + n*u^2/(1 - u)) - 1)*S except with `failure_probability`, lambda = `confidence`; never above the
    sound bound. Applies to sums of the direct algorithm; the roundings of operands, outputs and transforms stay worst cases.

    Raises ArgumentError (not a positive number; truncating or flushing accumulators, for which the model does not hold).

    Source: Higham and Mary, SIAM J. Sci. Comput. 41(5), 2019, Theorem 3.1.

    >>> from npreparam.certified.bounds import FLOAT32
    >>> n = 10_000
    >>> round(float(FLOAT32.growth(n) / likely(FLOAT32, 5).growth(n)))    # sqrt(n) / lambda
    20
    """
    profile = as_profile(profile)
    if profile.order == "tensor_core" or profile.flush_to_zero:
        raise ArgumentError(f"`profile` (={profile!r}) truncates or flushes to zero: its errors do not have mean zero; use a sound bound")
    if not 0 < confidence < math.inf:
        raise ArgumentError(f"`confidence` (={confidence!r}) must be a positive finite number")
    fields = {field.name: getattr(profile, field.name) for field in dataclasses.fields(Profile)}
    return LikelyProfile(**fields, confidence=float(confidence))


def failure_probability(terms: Any, confidence: float, unit: float = 2.0**-24) -> Floats:
    """At most how probable it is that a sum of n products exceeds its likely bound: 2n*exp(-lambda^2*(1 - u)^2/2), at most 1.

    Source: Higham and Mary, SIAM J. Sci. Comput. 41(5), 2019, Theorem 3.1.

    >>> bool(failure_probability(576, 6.0) < 2e-5)
    True
    """
    n = np.asarray(terms, np.float64)
    return np.minimum(1.0, 2 * n * np.exp(-(confidence**2) * (1 - unit) ** 2 / 2))
