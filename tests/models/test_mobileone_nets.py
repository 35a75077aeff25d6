"""The published MobileOne networks: their parameter counts, from shapes alone, and that what is counted is what is made."""

import numpy as np
import pytest

from npreparam import ArgumentError
from npreparam.models import MobileOne, MobileOneSpec, mobileone_net, mobileone_spec
from npreparam.models.mobileone import NETS
from npreparam.nn import Conv2d, count_parameters, fuse
from npreparam.nn.blocks import SqueezeExcite
from tests.nn import trees
from tests.tolerances import assert_within, tree_bound

# deploy form, hundredths of a million: open-mmlab/mmpretrain, configs/mobileone; arXiv 2206.04040, table 9, has their first decimals
PUBLISHED = {"S0": 208, "S1": 476, "S2": 781, "S3": 1008, "S4": 1484}
TRAINED = {"S0": 529, "S1": 483, "S2": 788, "S3": 1017, "S4": 1495}  # with branches: huggingface/pytorch-image-models, results


def hundredths(parameters):
    return round(parameters / 10**4)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_parameter_counts(name):
    spec = mobileone_spec(name)
    assert (hundredths(spec.parameters()), hundredths(spec.parameters(deploy=False))) == (PUBLISHED[name], TRAINED[name])
    assert list(PUBLISHED) == list(NETS)


@pytest.mark.parametrize(("wrong", "name"), [
    (lambda spec: MobileOneSpec(spec.widths, (2, 8, 9, 1), spec.branches), "S1"),  # a block forgotten
    (lambda spec: MobileOneSpec(spec.widths, spec.depths, spec.branches), "S4"),  # gates forgotten
    (lambda spec: MobileOneSpec(spec.widths, spec.depths, 1), "S0"),  # twins forgotten
])
def test_the_counts_tell_wrong_shapes(wrong, name):
    """Planted faults."""
    spec = wrong(mobileone_spec(name))
    assert (hundredths(spec.parameters()), hundredths(spec.parameters(deploy=False))) != (PUBLISHED[name], TRAINED[name])


@pytest.mark.parametrize("spec", [MobileOneSpec((4, 8, 32, 40), (1, 2, 3, 1), 2, True), MobileOneSpec((80,), (2,))])
def test_what_is_counted_is_what_is_made(spec):
    net = MobileOne(spec, 5, 3, rng=np.random.default_rng(0), dtype=np.float64)
    assert spec.parameters(5, deploy=False) == count_parameters(net)
    assert spec.parameters(5) == count_parameters(net.fuse())


def test_s0_is_made_and_fused():
    net = mobileone_net("S0", rng=np.random.default_rng(0))
    fused = net.fuse()
    assert count_parameters(net) == mobileone_spec("S0").parameters(deploy=False)
    assert count_parameters(fused) == mobileone_spec("S0").parameters()
    assert [type(part) for part in list(fused)[:-2]] == [Conv2d] * 43
    assert [conv.geometry[0] for conv in list(fused)[:-2]].count((2, 2)) == 5  # 224 -> 7
    assert fused(np.zeros((1, 3, 32, 32), np.float32)).shape == (1, 1000)


def test_gates_stay_between():
    spec = MobileOneSpec((4, 4, 4, 4), (1, 1, 2, 1), 1, True)
    net = MobileOne(spec, 3, rng=np.random.default_rng(0))
    gated = [any(isinstance(part, SqueezeExcite) for part in block) for block in net.blocks]
    assert gated == [layer.squeeze for layer in spec.layers()] == [*[False] * 7, *[True] * 4]
    assert [type(part).__name__ for part in fuse(list(net.blocks)[-1])] == ["Conv2d", "SqueezeExcite", "ReLU"]


def test_the_fused_network_is_the_network():
    """Block by block exactly, in rational arithmetic: the map of each fused block is that of its branches."""
    net = MobileOne(MobileOneSpec((2, 3), (1, 1), 2), 2, 1, rng=np.random.default_rng(0), dtype=np.float64)
    trees.randomize(net.blocks, np.random.default_rng(1))
    for layer, block, conv in zip(MobileOneSpec((2, 3), (1, 1), 2).layers(1), net.blocks, net.fuse(), strict=False):
        x = np.random.default_rng(2).integers(-3, 4, (1, layer.inputs, 5, 5)).astype(np.float64)
        exact = trees.evaluate(block, trees.fractions(x))
        assert conv.weight.shape == (layer.outputs, layer.inputs // layer.groups, layer.kernel, layer.kernel)
        linear, _ = trees.linear_part(block)
        bound = tree_bound(trees.roundings(conv) + linear.as_affine_conv().roundings + 1, trees.evaluate(linear, np.abs(x), trees.Magnitude), x.dtype)
        assert_within(conv(x), exact.astype(np.float64), bound)


@pytest.mark.parametrize("name", ["S5", "s0", ""])
def test_unknown_names(name):
    with pytest.raises(ArgumentError, match=r"`name` \(=.*\) must be one of S0, S1, S2, S3, S4"):
        mobileone_spec(name)
