"""Recognition: every family's names, what is asked for, and the traps that checkpoints set."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npreparam import FormatError
from npreparam._errors import ArgumentError
from npreparam.checkpoints import expression as e
from npreparam.checkpoints import families, read_patterns, recognise
from npreparam.checkpoints._leaves import tensor_of
from npreparam.checkpoints._pattern import parse, patterns_of
from tests.checkpoints.states import STATES, state

FUSED = {"repvgg": "rbr_reparam", "mobileone": "reparam_conv", "dbb": "dbb_reparam", "unireplknet": "dwconv.lk_origin", "repvit": ""}


def only(tensors, *arguments, **options):
    """The one block that is recognised, with everything accounted for."""
    found = recognise(tensors, *arguments, **options)
    assert len(found.blocks) == 1, found
    assert not found.left_over
    assert not found.passed_through
    assert sorted(found.blocks[0].tensors) == sorted(tensors)
    return found.blocks[0]


@pytest.mark.parametrize("prefix", ["", "module.stage1.0.", "network.body.12."])
@pytest.mark.parametrize("family", STATES)
def test_every_family_is_recognised_under_any_prefix(family, prefix):
    block = only(state(STATES[family], prefix), *(["repconv"] if family == "repconv" else []))
    assert block.family == family
    assert block.name == (block.fused if family == "etds" else prefix.rstrip(".") or block.fused or family)
    assert not block.refusal
    if family in FUSED:
        assert block.fused == (prefix + FUSED[family]).rstrip(".")


def test_every_pattern_of_the_tables_is_covered():
    """Except second spellings of families above, and those that are tested by name below."""
    assert {pattern.family for pattern in families()} - set(STATES) == {"yolov6", "yolov6_qarepvgg", "yolov6_qarepvggv2", "bsconv", "fmrb"}


def test_repvgg_and_yolov6_differ_by_eps_alone_so_it_is_asked_for():
    tensors = state(STATES["repvgg"])
    block = only(tensors)
    assert block.open == ("eps, 1e-05 (repvgg) or 0.001 (yolov6)",)
    assert block.needed() == block.open
    for options, eps in ((("repvgg",), 1e-5), (("yolov6",), 1e-3)):
        named = only(tensors, *options)
        assert named.open == ()
        assert {leaf.eps for leaf in e.leaves(named.expression) if isinstance(leaf, e.BatchNorm)} == {eps}
    assert {leaf.eps for leaf in e.leaves(only(tensors, eps=0.5).expression) if isinstance(leaf, e.BatchNorm)} == {0.5}


def test_geometry_is_inferred_where_an_identity_branch_proves_it():
    block = only(state("rbr_dense.conv:6,2,3,3 rbr_dense.bn:bn6 rbr_1x1.conv:6,2,1,1 rbr_1x1.bn:bn6 rbr_identity:bn6"), "repvgg")
    convs = [leaf for leaf in e.leaves(block.expression) if isinstance(leaf, e.Conv)]
    assert [(c.groups, c.stride, c.padding) for c in convs] == [(3, 1, (1, 1)), (3, 1, (0, 0))]


def test_a_stride_for_all_does_not_reach_blocks_that_cannot_have_it():
    block = only(state(STATES["repvgg"]), "repvgg", stride=2)
    assert {leaf.stride for leaf in e.leaves(block.expression) if isinstance(leaf, e.Conv)} == {1}


def test_a_user_s_pattern_for_known_names_settles_what_is_open():
    mine = patterns_of(f'[[pattern]]\nfamily = "mine"\neps = 1e-3\nexpression = "{next(p for p in families() if p.family == "repvgg").expression}"')
    block = only(state(STATES["repvgg"]), patterns=mine)
    assert (block.family, block.open) == ("mine", ())


def test_what_no_identity_branch_proves_is_open_and_can_be_given():
    tensors = state("rbr_dense.conv:6,2,3,3 rbr_dense.bn:bn6 rbr_1x1.conv:6,2,1,1 rbr_1x1.bn:bn6", "a.")
    block = only(tensors, "repvgg")
    assert block.open == ("stride", "groups")
    assert block.needed() == ()  # the fused kernel is the same for all of them
    for stride in (2, {"a": 2}):
        assert only(tensors, "repvgg", stride=stride).open == ("groups",)
    assert only(tensors, "repvgg", stride={"b": 2}).open == ("stride", "groups")


def test_an_identity_without_tensors_is_asked_for():
    block = only(state(STATES["ecbsr"]))
    assert block.needed() == ("identity",)
    assert len(only(state(STATES["ecbsr"]), identity=True).expression.terms) == 6
    assert len(only(state(STATES["ecbsr"]), identity=False).expression.terms) == 5
    other = STATES["ecbsr"].replace("conv3x3:4,4", "conv3x3:4,3").replace("k0!8,4", "k0!8,3").replace("EDGES", "")
    assert "conv3x3.weight" in recognise(state(other)).left_over  # without its edges it is only half a block


def test_the_quantization_aware_block_adds_x_only_where_it_can():
    block = only(state(STATES["qarepvgg"]), "qarepvgg", stride=1)
    assert block.open == ("identity", "groups")
    assert only(state(STATES["qarepvgg"]), "qarepvgg", stride=2).open == ("groups",)
    assert isinstance(only(state(STATES["qarepvgg"]), "qarepvgg", stride=1, identity=True).expression.steps[0].terms[-1], e.Identity)


@pytest.mark.parametrize(("family", "stale"), [("super_gradients_qarepvgg", "rbr_reparam"), ("conv3xc", "eval_conv")])
def test_fused_tensors_beside_their_branches_are_stale(family, stale):
    block = only(state(STATES[family], "m."))
    assert block.stale == (f"m.{stale}.weight", f"m.{stale}.bias")
    assert not set(block.stale) & set(e.tensor_names(block.expression))


@pytest.mark.parametrize("text", ["rbr_reparam:4,4,3,3+4", "rep_conv:4,4,3,3+4", "dwconv.lk_origin:4,1,7,7+4", "reparam_conv:4,4,3,3+4"])
def test_fused_networks_are_told_apart_from_their_training_form(text):
    """rep_conv and lk_origin have one name in both: only their siblings tell."""
    tensors = state(text, "net.3.")
    found = recognise(tensors)
    assert found.blocks == ()
    assert found.already_fused == found.passed_through == tuple(tensors)


def test_a_half_block_is_left_over_with_the_reason():
    tensors = state(STATES["repvgg"], "stage.0.")
    del tensors["stage.0.rbr_1x1.bn.running_var"]
    found = recognise(tensors, "repvgg")
    assert found.blocks == ()
    assert set(found.left_over) == set(tensors)
    assert found.left_over["stage.0.rbr_dense.conv.weight"] == "repvgg: stage.0.rbr_1x1.bn has no running statistics"


MISSHAPED = {
    "channels": ("rbr_dense.conv:4,4,3,3 rbr_dense.bn:bn4 rbr_1x1.conv:5,4,1,1 rbr_1x1.bn:bn5", "branches with 4 and 5 output channels"),
    "batch norm": ("rbr_dense.conv:4,4,3,3 rbr_dense.bn:bn5", "rbr_dense.bn does not have one value for each of 4 channels"),
    "identity": ("rbr_dense.conv:6,4,3,3 rbr_dense.bn:bn6 rbr_identity:bn6", "does not fit 6 input channels"),
    "an even kernel": ("rbr_dense.conv:4,4,2,2 rbr_dense.bn:bn4", "has an even kernel"),
    "a vector": ("rbr_dense.conv:4 rbr_dense.bn:bn4", "is no kernel"),
    "a bias": ("rbr_dense.conv:4,4,3,3+5 rbr_dense.bn:bn4", r"bias of shape \(5,\) beside"),
}


@pytest.mark.parametrize("case", MISSHAPED)
def test_mis_shaped_blocks_are_left_over(case):
    import re
    text, message = MISSHAPED[case]
    found = recognise(state(text), "repvgg")
    assert found.blocks == ()
    assert all(re.search(message, reason) for reason in found.left_over.values())
    assert len(found.left_over) == len(state(text))


def test_a_branch_that_the_pattern_does_not_know_forbids_fusing():
    """Fusing the rest would drop it in silence."""
    tensors = state(STATES["repvgg"] + " rbr_conv.0.conv:4,4,5,5", "s.")
    found = recognise(tensors, eps=1e-5)
    assert found.blocks[0].refusal == "s.rbr_conv.0.conv.weight lies in the same module, but repvgg has no such branch"
    assert list(found.left_over) == ["s.rbr_conv.0.conv.weight"]


def test_refused_blocks_name_the_reason():
    pointwise = state("pw:4,4,1,1+4 dw:4,1,3,3+4", "B1.")
    assert "the border sees zeros" in only(pointwise).refusal
    del pointwise["B1.pw.bias"]
    assert not only(pointwise).refusal
    absolute = state("Conv1:4,1,1,1 Conv2:4,1,3,3 Conv3:4,1,5,5 Conv4:4,1,7,7 Conv5:4,1,1,3 Conv6:4,1,3,1 Sobel.conv_x:4,1,3,3 Lapla.conv_x:4,1,3,3")
    assert "absolute values" in only(absolute).refusal
    adaptive = state(STATES["ecbsr"], "module.head.") | {"module.getWeight1.weight": np.ones((2, 2))}
    assert "computed from the input" in recognise(adaptive).blocks[0].refusal


def test_dbb_variants():
    grouped = only(state(STATES["dbb"].replace("idconv1", "conv1")))
    assert "dbb_1x1_kxk.conv1.weight" in grouped.tensors
    depthwise = "dbb_origin.conv:4,1,3,3 dbb_origin.bn:bn4 dbb_1x1.conv:4,1,1,1 dbb_1x1.bn:bn4 dbb_avg.avgbn:bn4"
    block = only(state(depthwise))
    assert [type(step) for step in block.expression.terms[2].steps] == [e.Pad, e.AvgPool, e.BatchNorm]


def test_generic_pairs():
    tensors = state("features.0:4,3,3,3+4 features.1:bn4 layer.conv2:4,4,3,3 layer.bn2:bn4 head.fc:5,4 head.norm:bn5 alone:bn3")
    found = recognise(tensors)
    pairs = {block.name: block.assumed for block in found.blocks}
    assert pairs == {"features.0": (), "layer.conv2": ("that layer.bn2 directly follows layer.conv2, as their names say",),
                     "head.fc": ("that head.norm directly follows head.fc, as their names say",)}
    assert [block.needed() for block in found.blocks] == [("eps",), ("transposed", "eps"), ("eps",)]
    assert found.blocks[0].open == ("stride", "padding", "dilation", "groups", "eps")
    assert [block.needed() for block in recognise(tensors, eps=1e-5, transposed=()).blocks] == [(), (), ()]
    assert all(name.startswith("alone.") for name in found.passed_through)


def test_transposed_pairs():
    tensors = state("up.0:6,2,3,3 up.1:bn4")
    first = only(tensors).expression.steps[0]
    assert (first.transposed, first.groups) == (True, 2)
    square = state("up.0:4,4,3,3 up.1:bn4")
    assert only(square, eps=1e-5).needed() == ("transposed",)
    assert only(square, eps=1e-5, transposed=()).needed() == ()
    assert only(square, transposed=["up.0"]).expression.steps[0].transposed


def test_a_user_s_own_pattern(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('[[pattern]]\nfamily = "mine"\nexpression = "sum(conv_bn(big, big_bn), seq(conv(tiny), scale(gain)), identity())"\n'
                    'fused = "merged"\neps = 1e-4\n')
    tensors = state("big:4,4,3,3 big_bn:bn4 tiny:4,4,1,1+4 gain!4", "x.")
    assert recognise(tensors).blocks == ()
    for family in ("auto", "mine"):
        block = only(tensors, family, patterns=read_patterns(path))
        assert (block.family, block.fused, block.open) == ("mine", "x.merged", ())


BAD_PATTERNS = {
    "no TOML": ("[[pattern", "is no TOML"),
    "nothing": ("", r"has no \[\[pattern\]\] tables"),
    "no family": ('[[pattern]]\nexpression = "conv(a)"', "lacks `family`"),
    "an unknown field": ('[[pattern]]\nfamily = "m"\nexpression = "conv(a)"\npadding = 1', "has the unknown field `padding`"),
    "a field of another type": ('[[pattern]]\nfamily = "m"\nexpression = "conv(a)"\neps = "small"', r"`eps` \(='small'\) must be float or int"),
    "groups in words": ('[[pattern]]\nfamily = "m"\nexpression = "conv(a)"\ngroups = "many"', "must be a number or 'depthwise'"),
    "an unknown kind": ('[[pattern]]\nfamily = "m"\nexpression = "relu(a)"', "has 'relu' where one of"),
    "no closing bracket": ('[[pattern]]\nfamily = "m"\nexpression = "conv(a"', "where ',' or"),
    "more after the end": ('[[pattern]]\nfamily = "m"\nexpression = "conv(a) conv(b)"', "goes on after its end"),
    "a strange letter": ('[[pattern]]\nfamily = "m"\nexpression = "conv(a$)"', "cannot be read at"),
    "nothing required": ('[[pattern]]\nfamily = "m"\nexpression = "sum(conv(a)?, identity())"', "must have a tensor that is neither optional"),
    "a number of no path": ('[[pattern]]\nfamily = "m"\nexpression = "conv(a)"\nfused = "b.{i}"', r"has \{i\}, so the first path"),
    "endless nesting": ('[[pattern]]\nfamily = "m"\nexpression = "' + "sum(" * 100 + 'conv(a)"', "where one of"),
}


@pytest.mark.parametrize("case", BAD_PATTERNS)
def test_bad_pattern_files(tmp_path, case):
    text, message = BAD_PATTERNS[case]
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(FormatError, match=message) as caught:
        read_patterns(tmp_path / "mine.toml")
    assert str(caught.value).startswith(f"{tmp_path / 'mine.toml'}: ")


def test_unknown_families_are_refused():
    with pytest.raises(ArgumentError, match=r"`family` \(='vgg'\) must be auto or one of qarepvgg, "):
        recognise({}, "vgg")
    with pytest.raises(FormatError, match=r"absent.toml"):
        read_patterns("absent.toml")


PIECES = st.sampled_from(["sum(", "seq(", "conv(", "bn(", "skip(", "either(", "conv_bn(", "pad(", "scale(", "avgpool(", ")", ",", "=", "?", "*", "+",
                          "a", "rbr.{i}", "pad", "1", "groups", "identity()", "conv(conv)", "cat(", "split(", "last(", "grid(",
                          "shuffle(", "size", "shape", "row"])


@given(text=st.lists(PIECES, max_size=14).map("".join))
def test_senseless_patterns_are_errors_or_match_nothing_badly(text):
    """A user's file may say anything: it is refused when read, or the reason is told when it is tried."""
    try:
        patterns = patterns_of(f'[[pattern]]\nfamily = "m"\nexpression = "{text}"')
    except ArgumentError:
        return
    recognise(state("conv:4,4,3,3 a:4,4,3,3 rbr.0:4,4,3,3"), "m", patterns=patterns)


WORDS = st.sampled_from(["conv", "bn", "rbr_dense", "rbr_1x1", "rbr_conv", "0", "1", "weight", "bias", "running_mean", "running_var", "dwconv",
                         "lk_origin", "dil_conv_k3_2", "conv_kxk", "identity", "layer_scale", "fusion_bn", "c", "pe", "act", "k0",
                         "num_batches_tracked"])
STATE = st.dictionaries(st.lists(WORDS, min_size=1, max_size=4).map(".".join),
                        st.lists(st.integers(0, 4), max_size=5).map(lambda shape: np.zeros(shape)), max_size=12)


@given(noise=STATE, block=st.sampled_from(sorted(STATES)), drop=st.integers(0, 40))
def test_every_tensor_is_accounted_for_exactly_once(noise, block, drop):
    tensors = state(STATES[block], "m.")
    names = list(tensors)
    if drop < len(names):
        del tensors[names[drop]]
    found = recognise(noise | tensors)
    claimed = [name for each in found.blocks for name in each.tensors]
    assert sorted([*claimed, *found.passed_through, *found.left_over]) == sorted(noise | tensors)
    assert found.summary().count("\n") == len(found.blocks)
    for each in found.blocks:
        assert set(e.tensor_names(each.expression)) <= set(each.tensors)


def test_the_language():
    term = parse("seq(conv(a.b, weight=k0, pad=1), bn(n{i})*)")
    assert [leaf.kind for leaf in term.required()] == ["conv"]
    assert tensor_of(next(term.required())) == "a.b.k0"
    assert list(term.paths()) == ["a.b", "n{i}"]
