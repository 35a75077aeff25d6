"""Initialization: the right spread, from the given generator alone."""

import numpy as np
import pytest

from npreparam import ArgumentError
from npreparam.nn import ConvTranspose2d, Linear, fan_in_uniform, he_normal
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


@pytest.mark.parametrize(("kernel", "stride", "groups"), [(4, (2, 2), 1), ((3, 5), (1, 5), 1), (3, (1, 1), 4), (4, (3, 3), 2)])
def test_a_transposed_convolutions_fan_in_counts_the_taps_that_meet(kernel, stride, groups):
    """An output element sums in/groups channels over kernel/stride taps for each axis; counted here by convolving ones with ones."""
    layer = ConvTranspose2d(32, 16, kernel, stride=stride, groups=groups, bias=False, rng=np.random.default_rng(0), dtype=np.float64)
    w = layer.weight.value
    layer.update({"weight": np.ones_like(w)})
    terms = layer(np.ones((1, 32, 12, 12)))[0, 0]
    fan_in = terms[6 : 6 + stride[0], 6 : 6 + stride[1]].mean()  # one period of the interior, where elements differ with the phase
    assert abs(((w**2).mean() * fan_in / 2 - 1) / np.sqrt(2 / w.size)) < 6
    wrong = np.prod(w.shape[1:])  # what the other layers count
    assert abs(((w**2).mean() * wrong / 2 - 1) / np.sqrt(2 / w.size)) > 6


@pytest.mark.parametrize("rng", [0, None, np.random])
def test_only_a_generator_is_taken(rng):
    with pytest.raises(ArgumentError, match=r"`rng` \(=.*\) must be a NumPy Generator; make one with"):
        Linear(2, 3, rng=rng)


def test_same_generator_same_bits_in_either_dtype():
    single, double = (he_normal((3, 4), np.random.default_rng(1), dtype) for dtype in (np.float32, np.float64))
    assert single.dtype == np.float32
    assert_same_bits(single, double.astype(np.float32))


def test_uniform_weights_and_biases_fill_the_interval_and_no_more():
    """z = (mean square / (1/(3*fan_in)) - 1) / sqrt(4/(5n)) is nearly N(0, 1): the square of U(-1, 1) has mean 1/3 and variance 4/45."""
    layer = Linear(50, 4000, rng=np.random.default_rng(0), dtype=np.float64, init="fan_in_uniform")
    for w in (layer.weight.value, layer.bias.value):
        assert np.abs(w).max() <= 50**-0.5
        assert abs(((w**2).mean() * 3 * 50 - 1) / np.sqrt(4 / (5 * w.size))) < 6
        wrong = ((w**2).mean() * 50 / 2 - 1) / np.sqrt(4 / (5 * w.size))  # He's variance would be told apart
        assert abs(wrong) > 6
    single, double = (fan_in_uniform((3, 4), np.random.default_rng(1), dtype) for dtype in (np.float32, np.float64))
    assert_same_bits(single, double.astype(np.float32))


def test_linears_biases_begin_at_0_by_default_and_another_init_is_refused():
    assert not Linear(2, 3, rng=np.random.default_rng(0)).bias.value.any()
    assert Linear(2, 3, bias=False, rng=np.random.default_rng(0), init="fan_in_uniform").bias is None
    with pytest.raises(ArgumentError, match=r"`init` \(='zeros'\) must be one of he_normal, fan_in_uniform"):
        Linear(2, 3, rng=np.random.default_rng(0), init="zeros")
    with pytest.raises(ArgumentError, match=r"`rng` \(=0\) must be a NumPy Generator"):
        fan_in_uniform((2, 3), 0)
