"""The bound between a network and its fused form: never exceeded, and small enough that wrong formulas exceed it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npreparam.models import RepVGG, fusion_bound
from tests.models.test_repvgg import carried_bound
from tests.nn.test_repvgg import randomize
from tests.tolerances import assert_within


def network(seed, widths=(4, 6), depths=(2, 1)):
    rng = np.random.default_rng(seed)
    net = RepVGG(2, 3, widths, depths, rng=rng, dtype=np.float64)
    for block in net.blocks:
        randomize(block, rng)
    return net, rng


@given(st.integers(0, 2**32), st.tuples(st.integers(1, 6), st.integers(1, 6)))
def test_the_difference_is_within_the_bound(seed, size):
    net, rng = network(seed)
    x = rng.standard_normal((2, 2, *size))
    assert_within(net.fuse()(x), net(x), fusion_bound(net, x))


def test_the_bound_is_that_of_loop_nests():
    """The same quantity by naive loops, whose last two layers are counted once where both sides round: between it and twice it."""
    net, rng = network(0)
    x = rng.standard_normal((2, 2, 5, 4))
    bound, twin = fusion_bound(net, x), carried_bound(net, x)
    assert bound.shape == (2, 3)
    assert (twin < bound).all()
    assert (bound < 2 * twin).all()


@pytest.mark.parametrize("fault", ["eps forgotten", "nine ones", "a mean forgotten", "one weight off by 2^-16"])
def test_planted_faults_exceed_the_bound(fault):
    net, rng = network(0)
    x = rng.standard_normal((8, 2, 6, 6))
    bound = fusion_bound(net, x)
    right, wrong = net(x), net.fuse()
    assert_within(wrong(x), right, bound)
    conv, block = list(wrong)[1], list(net.blocks)[1]
    w, b = conv.weight.value.copy(), conv.bias.value.copy()
    gamma, _, mean, var, eps = block.rbr_identity.numbers()
    scale, channels = gamma / np.sqrt(var + eps), np.arange(4)
    if fault == "eps forgotten":
        w[channels, channels, 1, 1] += gamma / np.sqrt(var) - scale
    elif fault == "nine ones":
        w[channels, channels] += scale[:, None, None]
        w[channels, channels, 1, 1] -= scale
    elif fault == "a mean forgotten":
        b += mean * scale
    else:
        w *= 1 + 2.0**-16
    conv.update({"weight": w, "bias": b})
    with pytest.raises(AssertionError, match="permitted error"):
        assert_within(wrong(x), right, bound)
