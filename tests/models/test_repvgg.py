"""The classifier: generic in size, and the same function after fusion, within a bound carried through the network."""

import numpy as np
import pytest

from npreparam import ArgumentError
from npreparam.models import RepVGG
from npreparam.nn import Conv2d, RepVGGBlock, count_parameters
from tests import naive
from tests.fuse.blocks import absolute_sum, conv, permitted
from tests.nn.test_repvgg import as_plain, randomize
from tests.tolerances import assert_same_bits, assert_within, dot_bound


def network(dtype=np.float64, **options):
    rng = np.random.default_rng(0)
    built = RepVGG(2, 3, (4, 6), (2, 1), rng=rng, dtype=dtype, **options)
    for block in built.blocks:
        randomize(block, rng)
    return built


def without_constant(bn):
    """The scale of a batch norm alone: beta and mean 0."""
    return None if bn is None else (bn[0], 0 * bn[1], 0 * bn[2], *bn[3:])


def carried_bound(net, x):
    """How far two honest evaluations of the network may be apart.

    Through a block, an input error E becomes at most |K| conv E, K the fused kernel's terms in absolute value, plus the block's own
    `permitted`; a ReLU adds nothing. The error of x raises S, so S is taken at |x| + E. Then the mean over n pixels and a dot product of c
    terms, by `dot_bound`.
    """
    error = np.zeros_like(x)
    for block in net.blocks:
        plain = as_plain(block, np.abs(x) + error)
        linear = plain._replace(x=error, **{name: without_constant(getattr(plain, name)) for name in ("bn3", "bn1", "bn_identity")})
        error, x = absolute_sum(linear) + permitted(plain), block(x)
    size = np.abs(x) + error
    pooled = error.mean((2, 3)) + dot_bound(x[0, 0].size + 1, size.mean((2, 3)), x.dtype)
    w, b = np.abs(net.linear.weight.value), np.abs(net.linear.bias.value)
    return naive.matmul(pooled, w.T) + dot_bound(w.shape[1] + 1, naive.matmul(size.mean((2, 3)) + pooled, w.T) + b, x.dtype)


@pytest.mark.parametrize("size", [(1, 1), (5, 6), (8, 3)])
def test_fused_equals_multi_branch(size):
    net, x = network(), np.random.default_rng(1).standard_normal((2, 2, *size))
    assert_within(net.fuse()(x), net(x), carried_bound(net, x))


def test_a_planted_fault_is_caught():
    net, x = network(), np.random.default_rng(1).standard_normal((2, 2, 5, 6))
    fused, bound = net.fuse(), carried_bound(net, x)
    first = next(iter(fused))
    w = first.weight.value.copy()
    w[0] *= 1 + 2.0**-16  # a planted fault of one part in 65536 in one channel
    first.update({"weight": w})
    with pytest.raises(AssertionError, match="permitted error"):
        assert_within(fused(x), net(x), bound)


def test_every_block_becomes_one_convolution():
    net = network(np.float32)
    fused = list(net.fuse())
    assert all(isinstance(block, RepVGGBlock) for block in net.blocks)
    assert [type(module) for module in fused[:3]] == [Conv2d] * 3
    assert len(fused) == 5
    assert count_parameters(net.fuse()) == sum(9 * o * i + o for o, i in ((4, 2), (4, 4), (6, 4))) + 6 * 3 + 3
    assert [block.stride for block in net.blocks] == [1, 1, 2]
    assert [block.rbr_identity is not None for block in net.blocks] == [False, True, False]


def test_nothing_done_to_the_fused_network_changes_this_one():
    net = network(np.float32)
    fused, before = net.fuse(), net.state_dict()
    fused.load_state_dict({name: np.full_like(value, 3) for name, value in fused.state_dict().items()})
    for name, value in net.state_dict().items():
        assert_same_bits(value, before[name])


def test_a_block_in_the_network_is_what_its_loop_nest_says():
    """The first block once more by naive loops, so that this file's bound is not only about two calls of the same code."""
    net, x = network(), np.random.default_rng(1).standard_normal((1, 2, 4, 4))
    first, fused = next(iter(net.blocks)), next(iter(net.fuse()))
    expected = np.maximum(conv(x, fused.weight.value, (1, 1), 1) + fused.bias.value.reshape(1, -1, 1, 1), 0)
    assert_within(first(x), expected, permitted(as_plain(first, x)))


@pytest.mark.parametrize(("widths", "depths"), [((), ()), ((4, 8), (1,)), ((4,), (0,))])
def test_bad_arguments(widths, depths):
    with pytest.raises(ArgumentError, match=r"`widths` \(=.*\) and `depths` \(=.*\) must be as long as each other, every depth at least 1"):
        RepVGG(1, 10, widths, depths, rng=np.random.default_rng(0))
