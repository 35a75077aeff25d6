"""Trained blocks of ours under their authors' names are recognised, and fold to the very bits of the blocks fused as trees of layers."""

import numpy as np
import pytest

from npreparam import FusionError, nn
from npreparam.checkpoints import certify, fold, recognise
from npreparam.checkpoints._read import Reader
from npreparam.checkpoints.fold import EXACTLY
from npreparam.fuse import regroup
from npreparam.fuse.scalars import EXACT
from npreparam.nn import blocks
from tests.checkpoints.states import state
from tests.nn import trees

POST = {"0.": "", "1.": "bn."}
ALPHA = {"0.scaled.alpha.weight": "alpha", "0.scaled.": "", "0.": "", "1.": "post_bn."}
# name: the block, its linear part's modules, where the authors have its tensors, the family, what is to be told
CASES = {
    **{f"qarepvgg {variant}": (lambda variant=variant, **own: blocks.qarepvgg_block(4, 4, variant=variant, **own), slice(2), POST, "qarepvgg", True)
       for variant in (1, 2, 3, 4, 5)},
    "qarepvgg wider": (lambda **own: blocks.qarepvgg_block(4, 6, variant=1, **own), slice(2), POST, "qarepvgg", True),
    "yolov6 v2": (lambda **own: blocks.qarepvgg_block(4, 4, average=True, **own), slice(2), POST, "yolov6_qarepvggv2", True),
    "alpha": (lambda **own: blocks.qarepvgg_alpha_block(4, 4, **own), slice(2), ALPHA, "super_gradients_qarepvgg", True),
    "alpha alone": (lambda **own: blocks.qarepvgg_alpha_block(4, 4, residual=False, **own), slice(2), ALPHA,
                    "super_gradients_qarepvgg", False),
    "grn tail": (lambda **own: blocks.grn_tail(6, 4, **own), slice(1, 5),
                 {"beta.bias": "act.1.beta", "pwconv2.": "pwconv2.0.", "bn.": "pwconv2.2.", "gamma.weight": "gamma", "response.": "act.1."},
                 "unireplknet", None),
    "orepa": (lambda **own: blocks.orepa(4, 6, **own), slice(2), {"conv.": ""}, "orepa", None),
    "orepa in groups": (lambda **own: blocks.orepa(4, 6, groups=2, expand=3, **own), slice(2), {"conv.": ""}, "orepa", None),
    "orepa in many groups": (lambda **own: blocks.orepa(6, 12, groups=6, stride=2, **own), slice(2), {"conv.": ""}, "orepa", None),
}


def made(name, rational=False):
    """(the linear modules, the tensors as the authors call them)."""
    make, part, names, *_ = CASES[name]
    rng = np.random.default_rng(0)
    block = trees.randomize(make(rng=rng, dtype=np.float32), rng, rational)
    tensors = {}
    for key, value in block.state_dict().items():
        old = next((each for each in names if key.startswith(each)), "")
        tensors[f"m.{names.get(old, '')}{key.removeprefix(old)}"] = value[:, :, 0, 0] if key == "pwconv2.weight" else value
    return list(block)[part], tensors


def recognised(name, tensors):
    _, _, _, family, identity = CASES[name]
    found = recognise(tensors, family, eps=trees.EPS, stride=1, identity=identity)
    assert len(found.blocks) == 1, found.left_over
    assert not found.left_over
    return found.blocks[0]


@pytest.mark.parametrize("name", CASES)
def test_the_same_fractions_by_two_ways(name):
    """With rational roots: the map of the recognised expression is that of the tree of layers."""
    modules, tensors = made(name, rational=True)
    theirs = nn.Sequential(*modules).as_affine_conv(EXACT)
    ours = Reader(recognised(name, tensors).expression, tensors)(EXACT).lifted(theirs.rank)
    ours, theirs = (regroup(conv, 1) for conv in (ours, theirs))
    assert {tap: block.tolist() for tap, block in zip(ours.taps, ours.blocks, strict=True)} \
        == {tap: block.tolist() for tap, block in zip(theirs.taps, theirs.blocks, strict=True)}
    assert (ours.bias == theirs.bias).all()


@pytest.mark.parametrize("name", CASES)
def test_the_same_bits_by_two_ways(name):
    modules, tensors = made(name)
    block = recognised(name, tensors)
    folded = fold(block, tensors)
    w, b, *_ = nn.fused_conv2d(nn.Sequential(*modules), kernel=(1, 1) if name == "grn tail" else (3, 3))
    assert folded.rounding == EXACTLY
    assert (folded.weight.reshape(w.shape) == w).all()
    assert (folded.bias == b).all()
    assert certify(block, tensors, folded.weight, folded.bias).held


@pytest.mark.parametrize("name", ["orepa in groups", "orepa in many groups"])
def test_the_rows_of_the_groups_are_in_turn(name):
    """Planted fault: as if they were one group behind the other."""
    modules, tensors = made(name)
    pointwise = tensors["m.weight_orepa_gconv_pw"]
    groups = modules[0].geometry[3]
    wrong = tensors | {"m.weight_orepa_gconv_pw": np.concatenate([pointwise[group::groups] for group in range(groups)])}
    ours, theirs = (fold(recognised(name, some), some) for some in (tensors, wrong))
    assert (ours.weight != theirs.weight).any()


def test_what_tensors_do_not_tell_of_qarepvgg_is_asked_for():
    """Not only eps: YOLOv6's second version adds an average, which leaves no trace."""
    _, tensors = made("qarepvgg 2")
    needed = recognise(tensors).blocks[0].needed()
    assert any(what == "family, qarepvgg or yolov6_qarepvgg or yolov6_qarepvggv2" for what in needed)
    assert any(what.startswith("family") for what in recognise(tensors, eps=1e-3, identity=True).blocks[0].needed())
    assert recognise(tensors, eps=1e-3, identity=False).blocks[0].needed() == ()  # then the versions are the same
    ours, theirs = (fold(recognise(tensors, family, eps=1e-5, identity=True).blocks[0], tensors) for family in ("qarepvgg", "yolov6_qarepvggv2"))
    assert (ours.weight != theirs.weight).any()
    assert recognise(made("qarepvgg 1")[1]).blocks[0].needed() == ()


def test_x_is_added_where_the_shape_stays_and_groups_are_never_guessed():
    """Of kernels (8, 4, ...) nobody knows whether they widen the image or come in two groups; one group is told in a pattern file."""
    shape = "rbr_dense.conv:{0},4,3,3 rbr_dense.bn:bn{0} rbr_1x1:{0},4,1,1 bn:bn{0}"
    terms, needed = {}, {}
    for outputs in (4, 6, 8):
        tensors = state(shape.format(outputs), "m.")
        block, = recognise(tensors, "qarepvgg", identity=True).blocks
        terms[outputs], needed[outputs] = len(block.expression.steps[0].terms), block.needed()
    assert terms == {4: 3, 6: 2, 8: 2}
    assert needed == {4: (), 6: (), 8: ("the number of groups, which a pattern file gives as groups = 1",)}
    with pytest.raises(FusionError, match=r"the number of groups.*look into the network's code and describe the family in a TOML file"):
        fold(block, tensors)
