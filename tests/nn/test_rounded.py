"""Stored fused parameters are the correctly rounded values of the exact ones: certified by impulse responses at high precision."""

from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npreparam import ArgumentError, DTypeError, FusionError, exact, fuse, nn
from npreparam.fuse import rounded
from npreparam.fuse.scalars import EXACT
from npreparam.nn import blocks
from npreparam.nn.containers import compose_parts
from npreparam.nn.rounded import entry_of
from tests.exact.certificate import WITNESS_BITS, certify
from tests.nn import trees
from tests.nn.test_blocks import BLOCKS
from tests.tolerances import assert_same_bits


class Precise:
    """Values to many more bits than any format."""

    @staticmethod
    def number(array):
        result = np.empty(np.shape(array), object)
        result.ravel()[:] = [mpmath.mpf(float(v)) for v in np.ravel(array)]
        return result

    @staticmethod
    def scale_shift(bn):
        gamma, beta, mean, var, eps = bn
        root = np.array([mpmath.sqrt(mpmath.mpf(float(v)) + mpmath.mpf(float(eps))) for v in var], object)
        scale = Precise.number(gamma) / root
        return scale, Precise.number(beta) - Precise.number(mean) * scale


def responses(linear, inputs, w_shape, geometry):
    """(kernel, bias) of a linear tree by what it makes of zeros and of impulses, at an output away from the border."""
    stride, padding, _, groups = geometry
    size = [2 * k + 2 * s for k, s in zip(w_shape[2:], stride, strict=True)]
    at = [k // s + 1 for k, s in zip(w_shape[2:], stride, strict=True)]
    zero = Precise.number(np.zeros((1, inputs, *size)))
    bias = trees.evaluate(linear, zero, Precise)[0][:, at[0], at[1]]
    kernel = np.empty(w_shape, object)
    for i, a, e in np.ndindex(inputs, *w_shape[2:]):
        image = zero.copy()
        image[0, i, at[0] * stride[0] + a - padding[0][0], at[1] * stride[1] + e - padding[1][0]] = mpmath.mpf(1)
        response = trees.evaluate(linear, image, Precise)[0][:, at[0], at[1]] - bias
        for o in range(w_shape[0]):
            group = o // (w_shape[0] // groups)
            if i // w_shape[1] == group:
                kernel[o, i % w_shape[1], a, e] = response[o]
            else:
                assert response[o] == 0
    return kernel, bias


def check(module, inputs, parameters):
    """The one checker: every weight and bias between the halfway points around it."""
    w, b, *geometry = parameters
    with mpmath.workprec(400):
        kernel, bias = responses(module, inputs, w.shape, geometry)
        for actual, value in zip([*w.ravel(), *b], [*kernel.ravel(), *bias], strict=True):
            if value == 0:
                assert actual == 0
            else:
                certify(actual, value)


SMALL = ["ConvBN", "acblock", "dbb", "mobileone depthwise", "qarepvgg", "linear add", "repvit", "rep mixer", "lcnet", "conv3xc", "rrrb", "tdesr",
         "fsmn", "orepa", "syenet"]


def perturbed(module, rng):
    """Parameters with all their bits."""
    module.update({name: rng.standard_normal(p.shape).astype(p.dtype) for name, p in module.parameters().items()})
    return module


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("name", SMALL)
def test_every_block(name, dtype):
    function, inputs = BLOCKS[name]
    rng = np.random.default_rng(0)
    block = perturbed(trees.randomize(function(rng=rng, dtype=np.float32), rng, rational=False), rng)
    linear, _ = trees.linear_part(block)
    check(linear, inputs, nn.fused_conv2d(linear, dtype))


def one(value, dtype=np.float32):
    return nn.Conv2d.holding(np.full((1, 1, 1, 1), value, dtype), None)


def norm(gamma, var, mean=0.0):
    bn = nn.BatchNorm2d(1, eps=0.0)
    bn.update({"weight": np.float32([gamma]), "running_var": np.float32([var]), "running_mean": np.float32([mean])})
    return bn


def test_what_float64_cannot_see():
    """1 + 2^-24 is a tie of float32; 2^-80 beside it, or 1/sqrt(2) - 2/sqrt(8) times anything, decides."""
    for last, expected in ((2.0**-80, 1 + 2.0**-23), (-(2.0**-80), 1.0), (0.0, 1.0)):
        tree = nn.Sum(one(1.0), one(2.0**-24), one(last))
        w = nn.fused_conv2d(tree)[0]
        assert w[0, 0, 0, 0] == np.float32(expected)
        check(tree, 1, nn.fused_conv2d(tree))
        assert nn.fuse(tree, rounding="correct").weight.value == np.float32(expected)
    cancelling = nn.Sum(one(1.0), one(2.0**-24), norm(1.0, 2.0), norm(-2.0, 8.0))
    assert nn.fused_conv2d(cancelling)[0] == 1
    above = nn.Sum(one(1.0), one(2.0**-24), norm(1.0, 2.0), norm(-2.0 * (1 - 2.0**-24), 8.0))
    assert nn.fused_conv2d(above)[0] > 1
    tree = nn.Sum(one(1.0), one(2.0**-24), one(2.0**-80))
    layer = nn.fuse(tree)
    with pytest.raises(AssertionError):
        check(tree, 1, (layer.weight.value, layer.bias.value, (1, 1), ((0, 0), (0, 0)), 1, 1))


def test_one_entry_among_many_is_repaired_by_itself(monkeypatch):
    """A tie of float32 in one of 36 pairs of channels, in both layouts; and a wrong entry read in its place is seen."""
    rng = np.random.default_rng(0)
    for groups in (1, 2):
        branches = [nn.Conv2d(6, 6, kernel, padding=kernel // 2, groups=groups, rng=rng) for kernel in (3, 1, 1)]
        tree = nn.Sum(*branches)
        values = {name: p.value.copy() if name == "0.weight" else np.zeros_like(p.value) for name, p in tree.parameters().items()}
        for name, value in (("0.weight", 1.0), ("1.weight", 2.0**-24), ("2.weight", 2.0**-80)):
            values[name][4, 1, values[name].shape[2] // 2, values[name].shape[2] // 2] = value
        tree.update(values)
        entries = []

        def entry(*arguments, entries=entries):
            entries.append(arguments[1:3])
            return entry_of(*arguments)

        monkeypatch.setattr(nn.rounded, "entry_of", entry)
        parameters = nn.fused_conv2d(tree)
        assert entries == [(4, 1 if groups == 1 else 4)]  # the second input channel of the second group is the fifth
        assert parameters[0][4, 1, 1, 1] == np.float32(1 + 2.0**-23)
        check(tree, 6, parameters)
        monkeypatch.setattr(nn.rounded, "entry_of", lambda modules, row, column, *sizes: entry_of(modules, 0, 0, *sizes))
        with pytest.raises(AssertionError):
            check(tree, 6, nn.fused_conv2d(tree))


numbers = st.floats(-100, 100, width=32)
tiny = st.sampled_from([0.0, 2.0**-24, -(2.0**-24), 2.0**-80, 2.0**-140, -(2.0**-149), float(np.float32(3e38)), 1.0, 1 + 2.0**-23])


batch_norms = st.tuples(numbers, st.floats(2.0**-20, 100, width=32), numbers)


@given(st.lists(st.one_of(numbers, tiny), min_size=1, max_size=4), st.lists(batch_norms, max_size=3),
       st.sampled_from([np.float16, np.float32, np.float64]))
def test_sums_of_weights_and_scales_beside_ties(weights, norms, dtype):
    """sum of w + sum of gamma/sqrt(var), once more through a batch norm: near ties, subnormal numbers, overflow."""
    inner = nn.Sum(*[one(w) for w in weights], *[norm(*bn) for bn in norms])
    tree = nn.Sequential(inner, norm(0.75, 3.0, 1.5))
    w, b, *_ = nn.fused_conv2d(tree, dtype)
    with mpmath.workprec(WITNESS_BITS):
        kernel = sum(map(mpmath.mpf, weights)) + sum((mpmath.mpf(g) / mpmath.sqrt(v) for g, v, _ in norms), mpmath.mpf(0))
        shift = -sum((mpmath.mpf(g) / mpmath.sqrt(v) * m for g, v, m in norms), mpmath.mpf(0))
        outer = mpmath.mpf(0.75) / mpmath.sqrt(3)
        for actual, value in ((w[0, 0, 0, 0], kernel * outer), (b[0], (shift - 1.5) * outer)):
            if abs(value) < mpmath.mpf(2) ** -2000:  # zero, but for the witness' own roundings
                assert actual == 0
            else:
                certify(actual, value)


def test_a_rounding_test_that_is_always_sure_is_caught(monkeypatch):
    """Planted: values of float64 arithmetic taken for the exact ones."""
    def careless(values, sizes, relative, dtype):
        return values.astype(dtype).astype(np.float64), np.zeros(values.shape, bool)

    tree = nn.Sum(one(1.0), one(2.0**-24), one(2.0**-80))
    check(tree, 1, nn.fused_conv2d(tree))
    monkeypatch.setattr(rounded, "_rounded", careless)
    with pytest.raises(AssertionError):
        check(tree, 1, nn.fused_conv2d(tree))


@pytest.mark.parametrize("name", BLOCKS)
def test_entries_are_those_of_the_whole(name):
    """The restriction by which repairs are cheap, for every block, exactly."""
    function, _ = BLOCKS[name]
    rng = np.random.default_rng(0)
    linear, _ = trees.linear_part(trees.randomize(function(rng=rng, dtype=np.float32), rng))
    whole = fuse.regroup(linear.as_affine_conv(EXACT), 1)
    for row, column in ((0, 0), (whole.outputs - 1, whole.inputs - 1), (0, whole.inputs - 1)):
        modules = entry_of([linear], row, column, whole.outputs, whole.inputs)
        part = compose_parts([part for module in modules for part in module.parts()], EXACT, "exact")
        assert (part.outputs, part.inputs) == (1, 1)
        assert part.bias[0] == whole.bias[row]
        for tap, block in zip(whole.taps, whole.blocks, strict=True):
            assert part.blocks[part.taps.index(tap), 0, 0] == block[row, column]
        assert set(part.taps) == set(whole.taps)


def test_fuse_correct_is_the_rounding_of_each_layer():
    rng = np.random.default_rng(0)
    tree = nn.Sequential(blocks.repvgg_block(4, 4, groups=2, rng=rng), blocks.acblock(4, 4, rng=rng))
    perturbed(trees.randomize(tree, rng, rational=False), rng)
    fused = nn.fuse(tree, rounding="correct")
    for layer, block in zip(fused, (trees.linear_part(tree)[0], tree), strict=True):
        part = next(iter(next(iter(block)))) if layer.relu else list(tree)[1]
        w, b, *_ = nn.fused_conv2d(part)
        assert_same_bits(layer.weight.value, w)
        assert_same_bits(layer.bias.value, b)


def test_the_same_as_the_exact_fusions_written_by_hand():
    """`exact.fuse_repvgg` and `exact.fuse_conv_bn`, which share only the rounding of a sum of roots."""
    rng = np.random.default_rng(0)
    block = perturbed(trees.randomize(nn.RepVGGBlock(4, 4, groups=2, rng=rng), rng, rational=False), rng)
    layer = nn.fuse(block, rounding="correct")
    for actual, expected in zip((layer.weight.value, layer.bias.value), exact.fuse_repvgg(*block._branches()), strict=True):
        assert_same_bits(actual, expected)
    for dtype in (np.float32, np.float64):
        up = nn.Sequential(nn.ConvTranspose2d(4, 2, 3, stride=2, groups=2, rng=rng, dtype=dtype), nn.BatchNorm2d(2, dtype=dtype))
        perturbed(trees.randomize(up, rng, rational=False), rng)
        deconv, bn = up
        layer = nn.fuse(up, rounding="correct")
        expected = exact.fuse_conv_bn(deconv.weight.value, deconv.bias.value, *bn.numbers(), groups=2, transposed=True)
        assert_same_bits(layer.weight.value, expected[0])
        assert_same_bits(layer.bias.value, expected[1])
        flat = nn.Sequential(nn.Linear(3, 2, rng=rng, dtype=dtype), nn.BatchNorm2d(2, dtype=dtype))
        perturbed(trees.randomize(flat, rng, rational=False), rng)
        linear, bn = flat
        layer = nn.fuse(flat, rounding="correct")
        expected = exact.fuse_conv_bn(linear.weight.value[:, :, None, None], linear.bias.value, *bn.numbers())
        assert_same_bits(layer.weight.value, expected[0][:, :, 0, 0])
        assert_same_bits(layer.bias.value, expected[1])


def test_large_block_needs_few_repairs():
    """Only a few of 160 000 numbers are read exactly."""
    rng = np.random.default_rng(0)
    block = nn.RepVGGBlock(128, 128, rng=rng)
    perturbed(trees.randomize(block, rng, rational=False), rng)
    correct, plain = nn.fuse(block, rounding="correct"), block.fuse()
    different = correct.weight.value != plain.weight.value
    assert different.mean() < 2.0**-12
    assert (abs(correct.weight.value - plain.weight.value) <= np.spacing(abs(correct.weight.value))).all()


def test_a_map_by_itself():
    third = fuse.pointwise(np.array([Fraction(1, 3)], object))
    with pytest.raises(DTypeError, match=r"`dtype` \(=int64\) must be one of float16, float32, float64"):
        rounded.correctly_rounded(lambda scalars: third, np.int64, 1)


@pytest.mark.parametrize(("call", "kind", "message"), [
    (lambda: nn.fused_conv2d(nn.Sequential(one(1.0), nn.ReLU())), FusionError, "branch 1: ReLU is not linear|ReLU is not linear"),
    (lambda: nn.fuse(one(1.0), rounding="best"), ArgumentError, r"`rounding` \(='best'\) must be 'float64' or 'correct'"),
    (lambda: nn.fused_conv2d(nn.Sequential(one(np.nan), norm(1.0, 1.0))), ArgumentError, "NaN or infinity"),
])
def test_refusals(call, kind, message):
    with pytest.raises(kind, match=message):
        call()


def test_entries_of_a_rational_block_are_those_of_the_whole_before_and_after_it_is_read():
    """Where nothing is irrational the whole is read, once, as soon as the entries cost as much."""
    from npreparam.nn.rounded import _Reading
    block = perturbed(blocks.rvsr_block(3, rng=np.random.default_rng(0)), np.random.default_rng(1))
    reading = _Reading([block], "exact")
    whole, seen = reading.of([block])(EXACT), []
    for row in range(3):
        for column in range(3):
            seen.append(reading.exact is None)
            entry = reading.entry(row, column, whole)(EXACT)
            assert entry.bias[0] == whole.bias[row]
            assert [entry.blocks[entry.taps.index(tap), 0, 0] for tap in whole.taps] == whole.blocks[:, row, column].tolist()
    assert True in seen
    assert False in seen
    assert _Reading([nn.ConvBN(2, 2, 3, rng=np.random.default_rng(0))], "exact").rational is False
