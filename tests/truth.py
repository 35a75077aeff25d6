"""Elementary functions to fifty digits, and errors in ulps against them; the witness for the stable formulas."""

import mpmath
import numpy as np

from tests.tolerances import assert_within, function_bound

SPREAD = np.concatenate([10.0 ** np.arange(-30, 3), [0.4999, 0.5, 0.6931, 17, 20, 37, 50, 80, 85]])
POINTS = np.concatenate([-SPREAD[SPREAD <= 87], [0.0], SPREAD[SPREAD <= 87]])  # exp(-87) is still a normal float32


def elementwise(function, *arrays):
    """function at every element, as mpf to fifty digits."""
    with mpmath.workdps(50):
        return np.vectorize(lambda *v: function(*(mpmath.mpf(float(x)) for x in v)), otypes=[object])(*arrays)


def assert_ulps(actual, expected, ulps, floor=0.0):
    """|actual - expected| within some ulps of the larger of |expected| and `floor`; the difference is taken in fifty digits."""
    actual = np.asarray(actual)
    assert np.isfinite(actual).all(), f"not finite: {actual}"
    with mpmath.workdps(50):
        error = np.vectorize(lambda a, e: float(abs(mpmath.mpf(float(a)) - e)), otypes=[float])(actual, expected)
        size = np.maximum(np.abs(np.vectorize(float, otypes=[float])(expected)), floor)
    assert_within(error, np.zeros_like(error), function_bound(ulps, size, actual.dtype))
