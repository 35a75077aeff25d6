"""The judge of the bounds: no honest result may be beyond its bound, decided in rational arithmetic."""

import functools
import inspect
from fractions import Fraction

import numpy as np

from npreparam.certified import bounds


def worst_ratio(actual, exact, bound):
    """The largest |actual - exact|/bound, of Fractions; AssertionError where one exceeds 1. What is not finite needs an infinite bound."""
    actual = np.asarray(actual)
    assert actual.shape == np.shape(exact) == np.shape(bound), f"shapes differ: {actual.shape}, {np.shape(exact)} and {np.shape(bound)}"
    worst, values = 0.0, actual.astype(np.float64).ravel().tolist()
    for at, (value, truth, limit) in enumerate(zip(values, np.ravel(exact), np.ravel(bound).tolist(), strict=True)):
        if limit == np.inf:
            continue
        assert np.isfinite(value), f"element {at} is {value}, but its bound is {limit}"
        error = abs(Fraction(value) - truth)
        assert error <= Fraction(limit), f"element {at} is {value} instead of {float(truth)}: error {float(error):.3g} above the bound {limit:.3g}"
        worst = max(worst, float(error / Fraction(limit))) if limit else worst
    return worst


class Float32Bounds:
    """`npreparam.certified.bounds`, but with FLOAT32 where no profile is given: these tests hold float32 numbers in float64 arrays."""

    def __getattr__(self, name):
        function = getattr(bounds, name)
        if "profile" not in getattr(inspect.signature(function) if callable(function) else None, "parameters", ()) or name == "likely":
            return function

        @functools.wraps(function)
        def call(*args, **kwargs):
            given = inspect.signature(function).bind(*args, **kwargs).arguments
            return function(*args, **kwargs) if "profile" in given else function(*args, **kwargs, profile=bounds.FLOAT32)

        return call


float32_bounds = Float32Bounds()
