"""Fusion of a RepVGG block: exact where nothing rounds, within a derived bound elsewhere, and never fooled by a planted fault."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npreparam import ArgumentError, DTypeError, ShapeError
from npreparam.fuse import branch_kernels, fuse_repvgg, identity_kernel
from tests import naive
from tests.fuse.blocks import Block, conv, multi_branch, permitted, random_block
from tests.tolerances import assert_same_bits, assert_within


def check_fusion(block, fuse):
    """The one checker: what `fuse` returns, as one 3x3 convolution, against the three branches."""
    w, b = fuse(block.w3, block.bn3, block.w1, block.bn1, block.bn_identity, block.groups)
    fused = conv(block.x, w, block.stride, block.groups) + b.reshape(1, -1, 1, 1)
    assert_within(fused, multi_branch(block), permitted(block))


@st.composite
def blocks(draw):
    groups, identity = draw(st.sampled_from([1, 2, 3])), draw(st.booleans())
    inputs = groups * draw(st.integers(1, 3))
    outputs = inputs if identity else groups * draw(st.integers(1, 3))
    stride = (1, 1) if identity else draw(st.sampled_from([(1, 1), (2, 2), (1, 2), (3, 1)]))
    size = draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    eps = draw(st.sampled_from([0.0, 1e-5, 1e-3, 1.0]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return random_block(rng, draw(st.integers(1, 2)), inputs, outputs, size, stride, groups, identity, eps=eps)


@given(blocks())
def test_fused_equals_multi_branch(block):
    check_fusion(block, fuse_repvgg)


def exact_block(rng, channels, stride, groups, identity):
    """Integers, and var + eps = 4^k with powers of two around, so that no operation of either side rounds."""
    def bn():
        gamma, beta, mean = rng.integers(-4, 5, (3, channels)).astype(np.float64)
        return gamma, beta, mean, 4.0 ** rng.integers(0, 3, channels) - 0.25, 0.25

    def integers(*shape):
        return rng.integers(-3, 4, shape).astype(np.float64)

    weights = (channels, channels // groups)
    return Block(integers(2, channels, 5, 4), integers(*weights, 3, 3), bn(), integers(*weights, 1, 1), bn(), bn() if identity else None,
                 stride, groups)


STRIDES = [((1, 1), False), ((2, 2), False), ((1, 2), False), ((1, 1), True)]  # with and without identity


@pytest.mark.parametrize(("stride", "identity"), STRIDES)
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_fusion_is_an_identity_where_nothing_rounds(stride, groups, identity):
    block = exact_block(np.random.default_rng(groups), 4, stride, groups, identity)
    w, b = fuse_repvgg(block.w3, block.bn3, block.w1, block.bn1, block.bn_identity, block.groups)
    fused = conv(block.x, w, stride, groups) + b.reshape(1, -1, 1, 1)
    assert (fused == multi_branch(block)).all()


FAULTS = ("nine ones", "no eps", "corner", "no mean", "swapped statistics", "swapped gammas", "unbiased variance", "identity of group 0",
          "fill_diagonal", "variance for deviation", "no beta of the identity", "absolute gamma",
          "mean and variance swapped")


def own_fusion(fault=None):
    """A fusion of our own, right without a fault, to plant faults into."""
    def scale_shift(bn):
        gamma, beta, mean, var, eps = bn
        eps = 0 if fault == "no eps" else eps
        var = var * 50 / 49 if fault == "unbiased variance" else var
        gamma = np.abs(gamma) if fault == "absolute gamma" else gamma
        mean, var = (var, np.abs(mean)) if fault == "mean and variance swapped" else (mean, var)
        scale = gamma / (var + eps if fault == "variance for deviation" else np.sqrt(var + eps))
        return scale, beta if fault == "no mean" else beta - mean * scale

    def fuse(w3, bn3, w1, bn1, bn_identity, groups):
        outputs, inputs = w3.shape[:2]
        if fault == "swapped statistics":
            bn3, bn1 = (*bn3[:2], *bn1[2:]), (*bn1[:2], *bn3[2:])
        if fault == "swapped gammas":
            bn3, bn1 = (bn1[0], *bn3[1:]), (bn3[0], *bn1[1:])
        place = 0 if fault == "corner" else 1
        padded = np.zeros_like(w3)
        padded[:, :, place, place] = w1[:, :, 0, 0]
        parts = [(w3, bn3), (padded, bn1)]
        if bn_identity is not None:
            one = np.zeros_like(w3)
            for o in range(outputs):
                i = {"identity of group 0": min(o, inputs - 1), "fill_diagonal": o}.get(fault, o % inputs)
                if i < inputs:
                    one[o, i] = 1 if fault == "nine ones" else one[o, i]
                    one[o, i, 1, 1] = 1
            if fault == "no beta of the identity":
                bn_identity = (bn_identity[0], 0 * bn_identity[1], *bn_identity[2:])
            parts.append((one, bn_identity))
        scaled = [(kernel * scale_shift(bn)[0][:, None, None, None], scale_shift(bn)[1]) for kernel, bn in parts]
        return sum(kernel for kernel, _ in scaled), sum(shift for _, shift in scaled)

    return fuse


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_caught(fault):
    block = random_block(np.random.default_rng(3), 1, 6, 6, (4, 5), (1, 1), 2, True)
    check_fusion(block, own_fusion())
    with pytest.raises(AssertionError, match="permitted error"):
        check_fusion(block, own_fusion(fault))


def test_fresh_statistics_would_hide_faults():
    """Why the statistics are random: with mean 0, variance 1, gamma 1, beta 0 and eps 0, seven planted faults go unseen."""
    block = random_block(np.random.default_rng(3), 1, 6, 6, (4, 5), (1, 1), 2, True)
    fresh = (np.ones(6), np.zeros(6), np.zeros(6), np.ones(6), 0.0)
    block = block._replace(bn3=fresh, bn1=fresh, bn_identity=fresh)
    for fault in ("no eps", "no mean", "swapped statistics", "swapped gammas", "variance for deviation", "no beta of the identity",
                  "absolute gamma"):
        check_fusion(block, own_fusion(fault))


def test_rounded_once_to_the_dtype_of_the_weights():
    block = random_block(np.random.default_rng(0), 1, 4, 4, (3, 3), (1, 1), 1, True, np.float32)
    arguments = block.w3, block.bn3, block.w1, block.bn1, block.bn_identity
    wide = [v.astype(np.float64) if isinstance(v, np.ndarray) else tuple(np.float64(a) for a in v) for v in arguments]
    for single, double in zip(fuse_repvgg(*arguments), fuse_repvgg(*wide), strict=True):
        assert_same_bits(single, double.astype(np.float32))


def test_what_is_not_finite_propagates_without_a_warning():
    """Warnings are errors here. Beyond float32 is infinite, infinity times 0 is NaN, and the other channel keeps its numbers."""
    w3, w1, fresh = np.ones((2, 2, 3, 3), np.float32), np.zeros((2, 2, 1, 1), np.float32), bn(2, eps=0.0)
    clean = fuse_repvgg(w3, fresh, w1, fresh)
    for value, gamma, expected in ((np.float32(3e38), 2.0, np.inf), (np.inf, 1.0, np.inf), (np.inf, 0.0, np.nan), (np.nan, 1.0, np.nan)):
        damaged = w3.copy()
        damaged[1, 0, 0, 0] = value
        w, b = fuse_repvgg(damaged, bn(2, gamma=np.array([1.0, gamma]), eps=0.0), w1, fresh)
        assert np.array_equal(w[1, 0, 0, 0], expected, equal_nan=True)
        assert_same_bits(w[0], clean[0][0])
        assert_same_bits(b, clean[1])


@pytest.mark.parametrize(("channels", "groups"), [(1, 1), (3, 1), (4, 2), (6, 3), (4, 4)])
@pytest.mark.parametrize("size", [1, 3, 5])
def test_identity_kernel_changes_nothing(channels, groups, size):
    x = np.random.default_rng(0).standard_normal((2, channels, 4, 3))
    kernel = identity_kernel(channels, groups, size)
    assert kernel.sum() == channels
    assert (conv(x, kernel, (1, 1), groups) == x).all()


def test_nine_ones_are_a_box_sum():
    x = np.arange(9.0).reshape(1, 1, 3, 3)
    boxed = conv(x, np.ones((1, 1, 3, 3)), (1, 1), 1)
    assert boxed[0, 0, 1, 1] == x.sum()
    assert (conv(x, identity_kernel(1), (1, 1), 1) == x).all()


def test_branch_kernels_add_up_to_the_fused_kernel():
    block = random_block(np.random.default_rng(1), 1, 6, 6, (3, 3), (1, 1), 3, True)
    arguments = block.w3, block.bn3, block.w1, block.bn1, block.bn_identity, 3
    branches = branch_kernels(*arguments)
    w, b = fuse_repvgg(*arguments)
    assert len(branches) == 3
    assert (np.sum([k for k, _ in branches], axis=0) == w).all()
    assert (np.sum([s for _, s in branches], axis=0) == b).all()
    off_centre = np.ones((3, 3), bool)
    off_centre[1, 1] = False
    assert not branches[1][0][:, :, off_centre].any()
    assert not branches[2][0][:, :, off_centre].any()
    for kernel, bn in zip((branches[1][0], branches[2][0]), (block.bn1, block.bn_identity), strict=True):  # each branch is that branch
        x = block.x if bn is block.bn_identity else conv(block.x, block.w1, (1, 1), 3)
        zero_mean = (bn[0], 0 * bn[1], 0 * bn[2], *bn[3:])
        assert_within(conv(block.x, kernel, (1, 1), 3), naive.batch_norm(x, *zero_mean), permitted(block))


def bn(channels=4, **changes):
    one, zero = np.ones(channels), np.zeros(channels)
    return tuple(({"gamma": one, "beta": zero, "mean": zero, "var": one, "eps": 1e-5} | changes).values())


W3, W1 = np.zeros((4, 4, 3, 3)), np.zeros((4, 4, 1, 1))
BAD = {
    "w3 5x5": ((np.zeros((4, 4, 5, 5)), bn(), W1, bn()), ShapeError, r"`w3` has shape \(4, 4, 5, 5\).*3x3 kernel"),
    "w3 of 3 axes": ((W3[0], bn(), W1, bn()), ShapeError, "`w3` has shape .* 4 axes"),
    "w1 3x3": ((W3, bn(), W3, bn()), ShapeError, "`w1` has shape .*1x1 kernel"),
    "w1 of other channels": ((W3, bn(), W1[:2], bn()), ShapeError, "`w1` has shape"),
    "dtypes mixed": ((W3, bn(), W1.astype(np.float32), bn()), DTypeError, "`w1` has dtype float32, but must have that of `w3`, float64"),
    "integers": ((W3.astype(int), bn(), W1, bn()), DTypeError, "`w3` has dtype int64"),
    "groups": ((W3, bn(), W1, bn(), None, 3), ShapeError, r"`out_channels` \(=4, axis 0 of `w3`\) must be divisible by `groups` \(=3\)"),
    "groups of 0": ((W3, bn(), W1, bn(), None, 0), ArgumentError, r"`groups` \(=0\) must be positive"),
    "identity where channels differ": ((W3[:, :2], bn(), W1[:, :2], bn(), bn()), ShapeError,
                                       r"`in_channels` \(=2\) equal to `out_channels` \(=4\)"),
    "no bn": ((W3, None, W1, bn()), ArgumentError, r"`bn3` must be \(gamma, beta, mean, var, eps\), got a NoneType"),
    "bn without eps": ((W3, bn()[:4], W1, bn()), ArgumentError, r"`bn3` must be \(gamma, beta, mean, var, eps\), got 4"),
    "bn of other channels": ((W3, bn(), W1, bn(3)), ShapeError, r"`gamma of bn1` has shape \(3,\)"),
    "negative variance": ((W3, bn(), W1, bn(), bn(var=np.full(4, -1.0))), ArgumentError, "`var \\+ eps` of bn_identity must be positive"),
    "zero variance without eps": ((W3, bn(var=np.zeros(4), eps=0.0), W1, bn()), ArgumentError, "of bn3 must be positive"),
    "negative eps": ((W3, bn(eps=-0.5), W1, bn()), ArgumentError, "of bn3 must be positive"),
    "eps a word": ((W3, bn(eps="1e-5"), W1, bn()), ArgumentError, r"`eps` of bn3 \(='1e-5'\) must be a number"),
    "eps NaN": ((W3, bn(eps=float("nan")), W1, bn()), ArgumentError, "of bn3 must be positive"),
    "variance NaN": ((W3, bn(var=np.full(4, np.nan)), W1, bn()), ArgumentError, "of bn3 must be positive"),
}


@pytest.mark.parametrize("row", BAD)
def test_bad_arguments(row):
    arguments, kind, message = BAD[row]
    with pytest.raises(kind, match=message):
        fuse_repvgg(*arguments)


@pytest.mark.parametrize(("arguments", "kind", "message"), [
    ((3, 2), ShapeError, r"`channels` \(=3\) must be divisible by `groups` \(=2\)"),
    ((2, 1, 4), ArgumentError, r"`size` \(=4\) must be odd"),
    ((0,), ArgumentError, r"`channels` \(=0\) must be positive"),
])
def test_bad_identity_kernels(arguments, kind, message):
    with pytest.raises(kind, match=message):
        identity_kernel(*arguments)
