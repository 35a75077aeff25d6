"""Initialization: the right spread, from the given generator alone."""

import numpy as np
import pytest

from npreparam.nn import he_normal
from tests.tolerances import assert_same_bits


@pytest.mark.parametrize("shape", [(400, 30), (64, 16, 3, 3)])
def test_variance_is_two_over_fan_in(shape):
    """z = (mean square / (2/fan_in) - 1) / sqrt(2/n) is nearly N(0, 1), so that |z| < 6 but for one seed in 10^8; the seed is fixed."""
    w = he_normal(shape, np.random.default_rng(0), np.float64)
    fan_in = np.prod(shape[1:])
    z = ((w**2).mean() * fan_in / 2 - 1) / np.sqrt(2 / w.size)
    assert abs(z) < 6
    wrong = ((w**2).mean() * fan_in - 1) / np.sqrt(2 / w.size)  # variance 1/fan_in would be told apart
    assert abs(wrong) > 6


def test_same_generator_same_bits_in_either_dtype():
    single, double = (he_normal((3, 4), np.random.default_rng(1), dtype) for dtype in (np.float32, np.float64))
    assert single.dtype == np.float32
    assert_same_bits(single, double.astype(np.float32))
