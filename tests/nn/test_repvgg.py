"""The RepVGG block against its own fused convolution, through the library's operations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npreparam import fuse
from npreparam.nn import Conv2d, RepVGGBlock
from npreparam.tape import check_grads
from tests.fuse.blocks import Block, multi_branch, permitted, random_bn
from tests.tolerances import assert_same_bits, assert_within, fusion_bound


def randomize(block, rng):
    """Every batch norm away from its fresh statistics."""
    for bn in (block.rbr_dense.bn, block.rbr_1x1.bn, block.rbr_identity):
        if bn is not None:
            gamma, beta, bn.running_mean, bn.running_var, _ = random_bn(rng, bn.weight.size, bn.weight.dtype)
            bn.update({"weight": gamma, "bias": beta})
    return block


def as_plain(block, x):
    identity = None if block.rbr_identity is None else block.rbr_identity.numbers()
    dense, pointwise = block.rbr_dense, block.rbr_1x1
    return Block(x, dense.conv.weight.value, dense.bn.numbers(), pointwise.conv.weight.value, pointwise.bn.numbers(), identity,
                 (block.stride, block.stride), block.groups)


def check_block(block, conv, x):
    """The one checker: the convolution (with its ReLU) and the block's own forward, each against loop nests."""
    plain = as_plain(block, x)
    expected = np.maximum(multi_branch(plain._replace(x=x.astype(np.float64))), 0)  # |relu(a) - relu(b)| <= |a - b|
    assert_within(block(x), expected, permitted(plain))
    assert_within(conv(x), expected, permitted(plain))
    assert_within(conv(x), block(x), permitted(plain))


@given(seed=st.integers(0, 2**32), groups=st.sampled_from([1, 2, 4]), per_group=st.tuples(st.integers(1, 3), st.integers(1, 3)),
       square=st.booleans(), stride=st.integers(1, 3), size=st.tuples(st.integers(1, 7), st.integers(1, 7)),
       dtype=st.sampled_from([np.float32, np.float64]))
def test_fused_equals_multi_branch(seed, groups, per_group, square, stride, size, dtype):
    rng = np.random.default_rng(seed)
    inputs, outputs = groups * per_group[0], groups * per_group[0 if square else 1]
    block = randomize(RepVGGBlock(inputs, outputs, stride=stride, groups=groups, rng=rng, dtype=dtype), rng)
    assert (block.rbr_identity is not None) == (inputs == outputs and stride == 1)
    check_block(block, block.fuse(), rng.standard_normal((2, inputs, *size)).astype(dtype))


def faulty(block, fault):
    """The fused convolution with one fault."""
    conv = block.fuse()
    w, b = conv.weight.value.copy(), conv.bias.value.copy()
    gamma, _, mean, var, eps = block.rbr_identity.numbers()
    channels = np.arange(len(gamma))
    if fault == "nine ones":
        w[channels, channels % w.shape[1]] += (gamma / np.sqrt(var + eps))[:, None, None]
    elif fault == "no eps":
        b += mean * (gamma / np.sqrt(var + eps) - gamma / np.sqrt(var))
    elif fault == "one bit of one weight":
        w[0, 0, 0, 0] *= 1 + 2.0**-20
    elif fault == "no ReLU":
        conv.relu = False
    conv.update({"weight": w, "bias": b})
    return conv


@pytest.mark.parametrize("fault", ["nine ones", "no eps", "one bit of one weight", "no ReLU"])
def test_planted_faults_are_caught(fault):
    rng = np.random.default_rng(0)
    block, x = randomize(RepVGGBlock(4, 4, groups=2, rng=rng, dtype=np.float64), rng), rng.standard_normal((1, 4, 5, 5))
    check_block(block, faulty(block, None), x)
    with pytest.raises(AssertionError, match="permitted error"):
        check_block(block, faulty(block, fault), x)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fuse_gives_one_convolution_of_its_own(dtype):
    rng = np.random.default_rng(0)
    block = randomize(RepVGGBlock(4, 6, stride=2, groups=2, rng=rng, dtype=dtype), rng)
    conv = block.fuse()
    before = block.state_dict()
    assert isinstance(conv, Conv2d)
    assert conv.relu
    assert conv.weight.dtype == conv.bias.dtype == dtype
    assert conv.weight.shape == (6, 2, 3, 3)
    w, b = fuse.fuse_repvgg(*as_plain(block, None)[1:6], groups=2)
    assert_same_bits(conv.weight.value, w)
    assert_same_bits(conv.bias.value, b)
    conv.update({"weight": np.zeros_like(w)})
    for name, value in block.state_dict().items():
        assert_same_bits(value, before[name])


def test_branch_kernels_are_for_looking_at_and_add_up():
    rng = np.random.default_rng(0)
    block = randomize(RepVGGBlock(4, 4, rng=rng, dtype=np.float64), rng)
    assert (sum(kernel for kernel, _ in block.branch_kernels()) == block.fuse().weight.value).all()


def test_absolute_terms_are_those_of_the_definition():
    """A block whose terms are all positive is its own absolute value."""
    rng = np.random.default_rng(0)
    block = randomize(RepVGGBlock(4, 4, groups=2, rng=rng, dtype=np.float64), rng)
    block.update({name: np.abs(p.value) for name, p in block.parameters().items()})
    for bn in (block.rbr_dense.bn, block.rbr_1x1.bn, block.rbr_identity):
        bn.running_mean = -np.abs(bn.running_mean)
    kernel, bias = block.absolute_terms()
    w, b = fuse.fuse_repvgg(*as_plain(block, None)[1:6], groups=2)
    assert_within(kernel, w, fusion_bound(0, 3, w, np.float64))
    assert_within(bias, b, fusion_bound(0, 3, b, np.float64))
    block.update({name: -p.value for name, p in block.parameters().items()})
    for flipped, positive in zip(block.absolute_terms(), (kernel, bias), strict=True):
        assert_same_bits(flipped, positive)


def test_training_a_block_after_fusing_needs_fusing_again():
    """Running statistics move in training, so the fused convolution is of the state at the call, and says nothing of later ones."""
    rng = np.random.default_rng(0)
    block, x = RepVGGBlock(2, 2, rng=rng, dtype=np.float64), rng.standard_normal((2, 2, 4, 4))
    early = block.fuse()
    block(x, training=True)
    check_block(block, block.fuse(), x)
    with pytest.raises(AssertionError):
        check_block(block, early, x)


@pytest.mark.parametrize("training", [False, True])
def test_gradients(training):
    rng = np.random.default_rng(0)
    block, x = randomize(RepVGGBlock(2, 2, rng=rng, dtype=np.float64), rng), rng.standard_normal((2, 2, 3, 3))
    names = list(block.parameters())

    def forward(given, *values):
        for name, value in zip(names, values, strict=True):
            owner, last = block, name.split(".")
            for part in last[:-1]:
                owner = getattr(owner, part)
            setattr(owner, last[-1], value)
        return block(given, training)

    check_grads(forward, [x, *(p.value for p in block.parameters().values())])
