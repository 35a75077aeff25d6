"""Sums, compositions and stacks against the naive evaluation of the expression; random trees; refusals. Nothing rounds, so all is ==."""

import numpy as np
import pytest
from hypothesis import given, settings, target
from hypothesis import strategies as st

from npreparam import ArgumentError, FusionError, ShapeError, fuse
from tests import naive
from tests.fuse.maps import SCALARS, evaluate, numbers


def rng_of(seed=0):
    return np.random.default_rng(seed)


def conv(rng, outputs, inputs, kernel, padding=0, stride=1, groups=1, kind="float64", bias=True):
    w = numbers(rng, outputs, inputs // groups, *kernel, kind=kind)
    return fuse.from_conv(w, numbers(rng, outputs, kind=kind) if bias else None, stride, padding, 1, groups)


@pytest.mark.parametrize("kind", SCALARS)
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("stride", [1, 2])
def test_sum_of_branches_of_many_kernel_sizes(stride, groups, kind):
    """Square, row, column, even, dilated and pointwise kernels, the identity, and negative branches."""
    rng = rng_of()
    branches = [conv(rng, 4, 4, kernel, padding, stride, groups, kind) for kernel, padding in
                [((3, 3), 1), ((1, 3), (0, 1)), ((3, 1), (1, 0)), ((1, 1), 0), ((2, 2), ((0, 1), (1, 0))), ((5, 5), 2)]]
    branches.append(fuse.from_conv(numbers(rng, 4, 4 // groups, 3, 3, kind=kind), None, stride, 2, 2, groups))
    branches += [fuse.identity(4)] if stride == 1 else []
    branches = [fuse.scale_after(branch, numbers(rng, 4, kind=kind), numbers(rng, 4, kind=kind)) for branch in branches]
    x = numbers(rng, 2, 4, 6, 5, kind=kind)
    expected = sum(evaluate(branch.lifted(2), x) for branch in branches)
    fused = fuse.add(*branches)
    assert (evaluate(fused, x) == expected).all()
    w, b, strides, padding, _, g = fuse.to_conv2d(fused)
    assert w.shape == (4, 4 // groups, 5, 5)
    assert (naive.conv2d(x, w, b, strides, padding, (1, 1), g) == expected).all()


@pytest.mark.parametrize("kind", SCALARS)
@pytest.mark.parametrize("groups", [(1, 1), (2, 2), (2, 4), (4, 1)])
@pytest.mark.parametrize("strides", [(1, 1), (2, 1), (1, 2), (2, 3)])
def test_composition(strides, groups, kind):
    rng = rng_of()
    first = conv(rng, 4, 4, (3, 2), ((1, 0), (0, 2)), strides[0], groups[0], kind)
    second = conv(rng, 4, 4, (2, 3), 0, strides[1], groups[1], kind)
    x = numbers(rng, 1, 4, 9, 9, kind=kind)
    fused = fuse.compose(second, first)
    assert fused.groups == np.gcd(*groups)
    assert (evaluate(fused, x) == evaluate(second, evaluate(first, x))).all()


def test_scales_before_and_after():
    rng = rng_of()
    middle, x = conv(rng, 4, 6, (2, 2), groups=2), numbers(rng, 1, 6, 4, 4)
    a, b, c, d = numbers(rng, 4), numbers(rng, 4), numbers(rng, 6), numbers(rng, 6)
    assert (evaluate(fuse.scale_after(middle, a, b), x) == naive.scale_shift(evaluate(middle, x), a, b)).all()
    assert (evaluate(fuse.scale_before(middle, c, d), x) == evaluate(middle, naive.scale_shift(x, c, d))).all()
    assert (evaluate(fuse.scale_after(middle, -2.0), x) == -2 * evaluate(middle, x)).all()


@pytest.mark.parametrize("kind", SCALARS)
def test_concatenation_and_split(kind):
    rng = rng_of()
    a, b = conv(rng, 2, 4, (3, 3), 1, kind=kind, groups=2), conv(rng, 3, 4, (1, 1), kind=kind)
    x, more = numbers(rng, 1, 4, 5, 4, kind=kind), numbers(rng, 1, 4, 5, 4, kind=kind)
    stacked = fuse.concat_outputs(a, b)
    assert (evaluate(stacked, x) == np.concatenate([evaluate(a, x), evaluate(b, x)], 1)).all()
    c = conv(rng, 2, 4, (1, 3), (0, 1), kind=kind)
    beside = fuse.concat_inputs(a, c)
    assert (evaluate(beside, np.concatenate([x, more], 1)) == evaluate(a, x) + evaluate(c, more)).all()
    part = fuse.compose(fuse.select(5, [4, 1]), stacked)
    assert (evaluate(part, x) == evaluate(stacked, x)[:, [4, 1]]).all()


def test_partial_convolution_and_shuffle():
    """PConv (some channels convolved, the others passed on) and a shuffled grouped convolution are expressions."""
    rng = rng_of()
    part, x = conv(rng, 2, 2, (3, 3), 1), numbers(rng, 1, 4, 4, 4)
    partial = fuse.concat_outputs(fuse.compose(part, fuse.select(4, [0, 1])), fuse.select(4, [2, 3]))
    assert (evaluate(partial, x) == np.concatenate([evaluate(part, x[:, :2]), x[:, 2:]], 1)).all()
    grouped = conv(rng, 4, 4, (3, 3), 1, groups=2)
    shuffled = fuse.compose(fuse.shuffle(4, 2), grouped)
    assert (evaluate(shuffled, x) == evaluate(grouped, x)[:, [0, 2, 1, 3]]).all()


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_grouped_and_dense(groups):
    rng = rng_of()
    own, x = conv(rng, 8, 4, (2, 2), groups=groups), numbers(rng, 1, 4, 3, 3)
    dense = fuse.regroup(own, 1)
    assert dense.blocks.shape == (4, 8, 4)
    assert (evaluate(dense, x) == evaluate(own, x)).all()
    back = fuse.regroup(dense, groups)
    assert (back.blocks == own.blocks).all()
    assert (evaluate(fuse.regroup(own, 2 if groups > 1 else 1), x) == evaluate(own, x)).all()


def test_transposed_convolution_between_pointwise_maps():
    rng = rng_of()
    up = fuse.from_conv_transpose(numbers(rng, 4, 2, 3, 3), numbers(rng, 4), 2, 1, 1, 1, 2)
    after, before, x = conv(rng, 3, 4, (1, 1)), conv(rng, 4, 2, (1, 1), bias=False), numbers(rng, 1, 2, 3, 4)
    norm = fuse.pointwise(numbers(rng, 4), numbers(rng, 4))
    middle = evaluate(up, evaluate(before, x))
    assert (evaluate(fuse.compose(up, before), x) == middle).all()
    assert (evaluate(fuse.compose(after, fuse.compose(norm, fuse.compose(up, before))), x)
            == evaluate(after, naive.scale_shift(middle, norm.blocks[0, :, 0], norm.bias))).all()
    two = fuse.add(up, up)
    y = numbers(rng, 1, 4, 3, 4)
    assert (evaluate(two, y) == 2 * evaluate(up, y)).all()


def random_tree(draw, depth, channels, rng):
    """(map, function, taps): a random expression over `channels` channels, and the same by evaluating its parts one after another."""
    kind = draw(st.sampled_from(["leaf", "sum", "chain", "scale", "stack"])) if depth else "leaf"
    if kind == "leaf":
        return random_leaf(draw, channels, rng)
    if kind == "sum":
        (a, f), (b, g) = (random_tree(draw, depth - 1, channels, rng) for _ in range(2))
        return fuse.add(a, b), lambda x: f(x) + g(x)
    if kind == "scale":
        a, f = random_tree(draw, depth - 1, channels, rng)
        scale, shift = numbers(rng, channels), numbers(rng, channels)
        return fuse.scale_after(a, scale, shift), lambda x: naive.scale_shift(f(x), scale, shift)
    (a, f), (b, g) = (random_tree(draw, depth - 1, channels, rng) for _ in range(2))
    if kind == "chain":
        try:
            return fuse.compose(b, a), lambda x: g(f(x))
        except FusionError:  # judged in test_border.py
            return a, f
    chosen = rng.permutation(2 * channels)[:channels].tolist()
    both = fuse.compose(fuse.select(2 * channels, chosen), fuse.concat_outputs(a, b))
    return both, lambda x: np.concatenate([f(x), g(x)], 1)[:, chosen]


def random_leaf(draw, channels, rng):
    """A layer that keeps the size, by its own loop nest."""
    kind = draw(st.sampled_from(["identity", "pointwise", "conv", "depthwise", "shuffle", "pool", "biased"]))
    if kind == "identity":
        return fuse.identity(channels).lifted(2), lambda x: x
    if kind == "shuffle":
        order = np.arange(channels).reshape(2, -1).T.ravel()
        return fuse.shuffle(channels, 2).lifted(2), lambda x: x[:, order]
    if kind == "pool":  # times 4, so that 1/4 does not round
        padding = ((1, 0), (0, 1))
        pool = fuse.average_pool(channels, (2, 2), 1, padding)
        return pool, lambda x: naive.avg_pool2d(x, (2, 2), (1, 1), padding, True)
    kernel = (1, 1) if kind in ("pointwise", "biased") else draw(st.sampled_from([(3, 3), (1, 3), (2, 2)]))
    groups = channels if kind == "depthwise" else draw(st.sampled_from([1, 2]))
    before = [draw(st.integers(0, k - 1)) for k in kernel]
    padding = tuple((p, k - 1 - p) for p, k in zip(before, kernel, strict=True))
    w, b = numbers(rng, channels, channels // groups, *kernel), numbers(rng, channels) if kind == "biased" else None
    return fuse.from_conv(w, b, 1, padding, 1, groups), lambda x: naive.conv2d(x, w, b, (1, 1), padding, (1, 1), groups)


@settings(max_examples=300)
@given(data=st.data(), seed=st.integers(0, 2**32), depth=st.integers(1, 5))
def test_random_trees(data, seed, depth):
    """Trees of depth up to 5 are their naive evaluation; small integers and quarters are exact in float64."""
    rng = rng_of(seed)
    fused, function = random_tree(data.draw, depth, 4, rng)
    target(float(len(fused.taps)))
    x = numbers(rng, 1, 4, 4, 5)
    expected = function(x)
    assert np.abs(expected).max() < 2**40  # and so far from the end of float64's integers
    assert (evaluate(fused, x) == expected).all()


def test_strided_trunk_then_branches():
    rng = rng_of(3)
    trunk = conv(rng, 4, 3, (4, 4), 1, stride=2)
    head = fuse.add(conv(rng, 4, 4, (1, 1)), fuse.identity(4))
    x = numbers(rng, 1, 3, 8, 9)
    assert (evaluate(fuse.compose(head, trunk), x) == evaluate(head, evaluate(trunk, x))).all()


def faults():
    rng = rng_of()
    three, one = conv(rng, 4, 4, (3, 3), 1), conv(rng, 4, 4, (1, 1))
    deconv = fuse.from_conv_transpose(numbers(rng, 4, 4, 2, 2), None, 2)
    padded = three.padded_with(np.ones(4))
    return {
        "strides": (lambda: fuse.add(three, conv(rng, 4, 4, (1, 1), stride=2)), FusionError,
                    r"branch 1: its stride is \(2, 2\), that of the first branch \(1, 1\); give all branches one stride"),
        "sizes": (lambda: fuse.add(three, conv(rng, 4, 4, (3, 3))), FusionError, "branch 1: its output length is .*; choose paddings"),
        "continuations": (lambda: fuse.add(three, padded), FusionError, "branch 1: it pads with another constant than branch 0"),
        "a transposed branch": (lambda: fuse.add(one, fuse.from_conv_transpose(numbers(rng, 4, 4, 1, 1), None, 2)), FusionError, "branch 1"),
        "channels of a sum": (lambda: fuse.add(three, conv(rng, 2, 4, (3, 3), 1)), ShapeError,
                              "branch 1 maps 4 to 2 channels, but branch 0 4 to 4"),
        "channels of a chain": (lambda: fuse.compose(three, conv(rng, 2, 4, (1, 1))), ShapeError,
                                "a map of 4 input channels cannot follow one of 2 output channels"),
        "no branch": (lambda: fuse.add(), ArgumentError, r"`convs` \(=\(\)\) must hold at least one map"),
        "nothing to stack": (lambda: fuse.concat_outputs(), ArgumentError, "at least one map"),
        "nothing beside": (lambda: fuse.concat_inputs(), ArgumentError, "at least one map"),
        "a convolution after a transposed one": (lambda: fuse.compose(three, deconv), FusionError, "not pointwise follows a transposed"),
        "a transposed one after a convolution": (lambda: fuse.compose(deconv, three), FusionError, "follows a map that is not pointwise"),
        "a transposed one after a bias": (lambda: fuse.compose(deconv, one), FusionError, "spreads the bias .* unevenly; drop that bias"),
        "groups that mix": (lambda: fuse.regroup(three, 2), FusionError, "it mixes channels across 2 groups; keep it in 1"),
        "groups that do not divide": (lambda: fuse.regroup(three, 3), ShapeError, r"`out_channels` \(=4\) must be divisible by `groups` \(=3\)"),
        "axes": (lambda: fuse.add(three, fuse.from_conv(np.ones((4, 4, 3)))), ShapeError, "a map over 1 axes cannot act on 2"),
    }


FAULTS = faults()


@pytest.mark.parametrize("row", FAULTS)
def test_refusals(row):
    make, kind, message = FAULTS[row]
    with pytest.raises(kind, match=message):
        make()


def test_a_constant_that_is_not_read_does_not_matter():
    rng = rng_of()
    three, one = conv(rng, 4, 4, (3, 3), 1).padded_with(np.ones(4)), conv(rng, 4, 4, (1, 1))
    x = numbers(rng, 1, 4, 3, 3)
    assert (evaluate(fuse.add(one, three), x) == evaluate(one, x) + evaluate(three, x)).all()


@pytest.mark.parametrize("wrong", [fuse.filters(np.ones((3, 3)), 2, 1, 1),
                                   fuse.from_conv(np.eye(2)[:, :, None, None], None, 1, ((1, -1), (1, -1)))], ids=["nine ones", "corner"])
def test_planted_faults_are_seen(wrong):
    """An identity branch of nine ones, and one off the centre."""
    rng = rng_of()
    three, x = conv(rng, 2, 2, (3, 3), 1), numbers(rng, 1, 2, 5, 5)
    assert (evaluate(fuse.add(three, fuse.identity(2)), x) == evaluate(three, x) + x).all()
    assert not (evaluate(fuse.add(three, wrong), x) == evaluate(three, x) + x).all()
