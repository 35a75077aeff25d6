"""Whole checkpoints: nothing grows unless its owner insists, and what only becomes smaller by its batch norms keeps its convolutions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npreparam.checkpoints import Measure, certify, fuse, recognise, verify
from npreparam.checkpoints._pattern import patterns_of
from npreparam.fuse import is_no_larger
from tests.checkpoints.evaluate import correlate
from tests.checkpoints.states import STATES, state

SEPARABLE = patterns_of('[[pattern]]\nfamily = "separable"\neps = 1e-5\nstride = 1\nfused = "merged"\n'
                        'expression = "seq(conv_bn(dw, dw_bn, groups=depthwise), conv_bn(pw, pw_bn, groups=1))"')


def separable(outputs):
    return {name: np.float32(value) for name, value in state(f"dw:4,1,3,3 dw_bn:bn4 pw:{outputs},4,1,1 pw_bn:bn{outputs}", "m.").items()}


@given(channels=st.integers(1, 64), outputs=st.integers(1, 64), kernel=st.sampled_from([1, 3, 5, 7]))
def test_the_rule(channels, outputs, kernel):
    """A RepVGG block always pays; pointwise and depthwise only where the product of both is no more than their sum."""
    dense, point = (outputs, channels, kernel, kernel), (outputs, channels, 1, 1)
    assert is_no_larger(dense, [dense, point])
    pays = outputs * channels * kernel**2 <= outputs * channels + channels * kernel**2
    assert is_no_larger(dense, [(channels, 1, kernel, kernel), point]) == pays


def test_the_counters_of_batch_norms_are_no_parameters():
    tensors = separable(8)
    (row,) = fuse(tensors, recognise(tensors, patterns=SEPARABLE), insist=True).rows
    assert "m.dw_bn.num_batches_tracked" in tensors
    assert row.before == 4 * 9 + 4 * 4 + 8 * 4 + 4 * 8      # kernels, and four vectors for each batch norm


def test_a_separable_convolution_keeps_its_two_kernels():
    tensors = separable(8)
    found = recognise(tensors, patterns=SEPARABLE)
    fused = fuse(tensors, found)
    assert set(fused.tensors) == {f"m.{at}.{part}" for at in ("dw", "pw") for part in ("weight", "bias")}
    assert sum(value.size for value in fused.tensors.values()) < sum(value.size for value in tensors.values())
    assert "8x4x3x3 kernel would be larger than its 2 of 68 weights, its batch norms folded into 2 of them" in fused.kept["m"]
    assert (fused.refused, fused.faults, fused.held, len(fused.rows)) == ([], [], True, 2)
    x = np.random.default_rng(0).standard_normal((2, 4, 5, 6))
    new, dense = fused.tensors, fuse(tensors, found, np.float64, insist=True)
    one = dense.tensors
    halfway = correlate(x, new["m.dw.weight"], (1, 1), 1, 1, 4) + new["m.dw.bias"][:, None, None]
    two = correlate(halfway, new["m.pw.weight"], (0, 0), 1, 1, 1) + new["m.pw.bias"][:, None, None]
    whole = correlate(x, one["m.merged.weight"], (1, 1), 1, 1, 1) + one["m.merged.bias"][:, None, None]
    inside = np.s_[..., 1:-1, 1:-1]
    assert np.abs(two - whole)[inside].max() <= two_bounds(fused.rows, tensors, x, halfway) + of_row(dense.rows[0], tensors, x)


def two_bounds(rows, tensors, x, halfway):
    """The second convolution's own bound for what it is given, and the first's times the largest sum of magnitudes of its rows."""
    first, second = rows
    return of_row(second, tensors, halfway) + of_row(first, tensors, x) * np.abs(second.weight).sum((1, 2, 3)).max()


def of_row(row, tensors, x):
    found = certify(row.block, tensors, row.weight, row.bias, np.abs(x).max())
    return found.bound + found.evaluation


@pytest.mark.parametrize("insist", [False, True])
def test_both_ways_are_verified(insist):
    tensors = separable(8)
    found = recognise(tensors, patterns=SEPARABLE)
    stored = fuse(tensors, found, insist=insist).tensors
    result = verify(tensors, stored, found)
    assert (result.refused, result.faults, result.held, len(result.rows)) == ([], [], True, 1 if insist else 2)
    wrong = dict(stored)
    name = next(iter(wrong))
    wrong[name] = wrong[name] + np.float32(1)
    assert len(verify(tensors, wrong, found).faults) == 1


def test_a_separable_convolution_of_few_outputs_becomes_one():
    tensors = separable(1)
    fused = fuse(tensors, recognise(tensors, patterns=SEPARABLE))
    assert set(fused.tensors) == {"m.merged.weight", "m.merged.bias"}
    assert not fused.kept


def test_two_blocks_of_one_name_are_both_fused():
    """UniRepLKNet's depthwise and pointwise parts lie in one module."""
    text = STATES["unireplknet"] + " act.1.beta!4 pwconv2.0:2,4 pwconv2.2:bn2 gamma!2"
    tensors = {name: np.float32(value) for name, value in state(text, "s.").items()}
    fused = fuse(tensors, recognise(tensors))
    assert set(fused.tensors) == {f"s.{at}.{part}" for at in ("dwconv.lk_origin", "pwconv2.0") for part in ("weight", "bias")}


def test_the_input_never_changes():
    tensors = separable(8)
    before = {name: value.copy() for name, value in tensors.items()}
    fuse(tensors, recognise(tensors, patterns=SEPARABLE), insist=True)
    assert all(np.array_equal(tensors[name], before[name]) for name in before)


def test_real_inputs_are_measured_where_their_channels_fit():
    tensors = {name: np.float32(value) for name, value in (state(STATES["conv3xc"], "a.") | state("0:3,5,3,1 1:4,3,1,3+4", "b.")).items()}
    found, x = recognise(tensors), np.random.default_rng(0).uniform(-3, 3, (1, 5, 9, 8))
    rows = {row.block.name: row for row in fuse(tensors, found, insist=True, measure=Measure(inputs=x)).rows}
    assert rows["a"].on_inputs is None
    assert rows["b"].on_inputs.held
    assert rows["b"].on_inputs.largest == np.abs(x).max()
    rows = {row.block.name: row for row in fuse(tensors, found, insist=True, measure=Measure(inputs={"a": x[:, :4]})).rows}
    assert rows["b"].on_inputs is None
    assert rows["a"].on_inputs.held
