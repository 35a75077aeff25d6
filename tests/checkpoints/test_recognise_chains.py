"""Recognition of OREPA and ETDS, and patterns that fit nowhere."""

import numpy as np
import pytest

from npreparam.checkpoints import recognise
from npreparam.checkpoints._pattern import patterns_of
from tests.checkpoints.states import STATES, state
from tests.checkpoints.test_recognise import only


def test_both_streams_of_etds_layer_by_layer():
    layers = [STATES["etds"].replace(".0:", f".{i}:") for i in (0, 1)]
    ends = "conv_first:5,3,3,3+5 conv_residual_first:3,3,3,3+3 conv_last:12,5,3,3+12 conv_residual_last:12,3,3,3+12"
    found = recognise(state(" ".join([*layers, ends]), "net."))
    assert not found.left_over
    assert [block.fused for block in found.blocks] == ["net.backbone_convs.0", "net.backbone_convs.1", "net.conv_first", "net.conv_last"]
    assert len({block.name for block in found.blocks}) == 4


def test_orepa_of_1x1_kernels():
    block = only(state("weight_or1x1_origin!6,4,1,1 weight_or1x1_l2i_conv1!4,4,1,1 weight_or1x1_l2i_conv2!6,4,1,1 vector!2,6 bn:bn6", "a."))
    assert (block.family, block.fused) == ("orepa", "a.or1x1_reparam")


@pytest.mark.parametrize(("tensor", "shape"), [("vector", (4, 4)), ("weight_orepa_prior", (5, 3, 3)), ("weight_orepa_1x1_kxk_conv2", (4, 5, 3, 3))])
def test_half_understood_orepa_is_left_over(tensor, shape):
    found = recognise(state(STATES["orepa"], "a.") | {f"a.{tensor}": np.ones(shape)})
    assert not found.blocks
    assert any(f"a.{tensor} of shape {shape}" in reason for reason in found.left_over.values())


@pytest.mark.parametrize("text", ["cat()", "shuffle()", "seq()", "conv()", "split(identity())", "last(conv(a))", "cat(conv(a), last(conv(b)))",
                                  "grid(conv(a), size=0x3)", "scale(a, row=9)", "conv(a, shape=a)", "conv(a, groups=many)"])
def test_patterns_that_fit_nowhere(text):
    """Not one of them is a crash; what is left over says why."""
    patterns = patterns_of(f'[[pattern]]\nfamily = "m"\nexpression = "seq(conv(conv), {text})"')
    found = recognise(state("conv:4,4,3,3 a:4,4,3,3 b:4,5,1,1"), "m", patterns=patterns)
    assert not found.blocks or found.blocks[0].needed()
